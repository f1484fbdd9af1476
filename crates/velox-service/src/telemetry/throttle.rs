//! Limits the lines that requests without a token add to the logs: the first ones of an address at once, further
//! ones as a count per interval.

use std::{
    collections::{HashMap, hash_map::Entry},
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// The interval of the counts.
pub(crate) const THROTTLE_INTERVAL: Duration = Duration::from_secs(60);

/// The maximum number of counts of one interval; all further addresses share one count per reason.
const MAX_COUNTS: usize = 1024;

/// The requests of the current interval.
#[derive(Debug, Default)]
pub(super) struct LogThrottle(Mutex<HashMap<ThrottleKey, RequestCount>>);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct ThrottleKey {
    /// The network of the client; `None`: all networks beyond [`MAX_COUNTS`].
    pub(super) from: Option<IpAddr>,
    /// Why the requests were rejected; `None`: they weren't.
    pub(super) reason: Option<&'static str>,
}

#[derive(Debug, Default)]
struct RequestCount {
    logged: u64,
    unlogged: u64,
}

impl LogThrottle {
    /// Counts a request, and returns whether it gets a line of its own: the first `lines` of an interval do.
    pub(super) fn admit(&self, key: ThrottleKey, lines: u64) -> bool {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_full = counts.len() >= MAX_COUNTS;
        let count = match counts.entry(key) {
            Entry::Occupied(count) => count.into_mut(),
            Entry::Vacant(count) if !is_full => count.insert(RequestCount::default()),
            Entry::Vacant(_) => counts.entry(ThrottleKey { from: None, ..key }).or_default(),
        };
        let is_admitted = count.logged < lines;
        *if is_admitted { &mut count.logged } else { &mut count.unlogged } += 1;
        is_admitted
    }

    /// Ends the interval: returns the number of requests without a line of their own by key, in order.
    pub(super) fn take(&self) -> Vec<(ThrottleKey, u64)> {
        let counts = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let mut counts: Vec<_> = counts.into_iter().map(|(key, count)| (key, count.unlogged)).collect();
        counts.retain(|(_, count)| *count > 0);
        counts.sort_unstable();
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_bounded() {
        let throttle = LogThrottle::default();
        let key =
            |address: u32| ThrottleKey { from: Some(IpAddr::from(address.to_be_bytes())), reason: None };
        assert_eq!([(); 3].map(|()| throttle.admit(key(0), 2)), [true, true, false]);
        let admitted = (1..100_000).filter(|address| throttle.admit(key(*address), 1)).count();
        // One more: the first of the further addresses.
        assert_eq!(admitted, MAX_COUNTS);
        let counts = throttle.take();
        let others = 99_999 - MAX_COUNTS as u64;
        assert_eq!(counts, [(ThrottleKey { from: None, reason: None }, others), (key(0), 1)]);
        assert_eq!(throttle.take(), []);
        assert!(throttle.admit(key(0), 1), "a new interval");
    }
}
