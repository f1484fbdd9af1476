//! Rate limits by key, with the limit given on each call: `governor` has one quota for all keys, but each
//! token has its own.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

const HOUR: Duration = Duration::from_secs(60 * 60);

/// The number of keys above which idle keys are removed, which bounds the memory.
const MAX_KEYS: usize = 4096;

/// A rate limiter that allows bursts of an hour's quota: the generic cell rate algorithm, which stores one
/// time per key (<https://en.wikipedia.org/wiki/Generic_cell_rate_algorithm>).
#[derive(Debug)]
pub struct RateLimiter<K> {
    /// When each key's quota is full again.
    full_at: Mutex<HashMap<K, Instant>>,
}

impl<K> Default for RateLimiter<K> {
    fn default() -> Self {
        Self { full_at: Mutex::default() }
    }
}

impl<K: Hash + Eq> RateLimiter<K> {
    /// Consumes one of `an_hour` permits.
    ///
    /// # Errors
    /// No permit is left; returns the time until the next one.
    pub fn take(&self, key: K, an_hour: u64) -> Result<(), Duration> {
        self.take_at(Instant::now(), key, an_hour)
    }

    /// Returns a permit that wasn't used.
    pub fn give_back(&self, key: &K, an_hour: u64) {
        let mut full_at = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = full_at.get_mut(key) {
            *at = at.checked_sub(interval(an_hour)).unwrap_or(*at);
        }
    }

    fn take_at(&self, now: Instant, key: K, an_hour: u64) -> Result<(), Duration> {
        let each = interval(an_hour);
        let mut full_at = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        if full_at.len() >= MAX_KEYS {
            full_at.retain(|_, at| *at > now);
        }
        let at = full_at.entry(key).or_insert(now);
        let next = (*at).max(now) + each;
        match next.duration_since(now).checked_sub(HOUR) {
            Some(wait) if !wait.is_zero() => Err(wait),
            _ => {
                *at = next;
                Ok(())
            }
        }
    }
}

/// The time between two permits.
fn interval(an_hour: u64) -> Duration {
    HOUR / u32::try_from(an_hour).unwrap_or(u32::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unused_permits_are_returned() {
        let rates = RateLimiter::default();
        let start = Instant::now();
        for _ in 0..2 {
            assert_eq!(rates.take_at(start, "a", 2), Ok(()));
        }
        rates.give_back(&"a", 2);
        assert_eq!(rates.take_at(start, "a", 2), Ok(()));
        assert_eq!(rates.take_at(start, "a", 2), Err(HOUR / 2));
    }

    #[test]
    fn a_burst_and_then_evenly() {
        let rates = RateLimiter::default();
        let start = Instant::now();
        for _ in 0..4 {
            assert_eq!(rates.take_at(start, "a", 4), Ok(()));
        }
        assert_eq!(rates.take_at(start, "a", 4), Err(HOUR / 4));
        assert_eq!(rates.take_at(start, "b", 4), Ok(()), "another's are another's");
        assert_eq!(rates.take_at(start + HOUR / 4, "a", 4), Ok(()));
        assert_eq!(rates.take_at(start + HOUR / 4, "a", 4), Err(HOUR / 4));
        assert_eq!(rates.take_at(start + 3 * HOUR, "a", 4), Ok(()));
    }

    #[test]
    fn idle_keys_are_forgotten() {
        let rates = RateLimiter::default();
        let start = Instant::now();
        for key in 0..MAX_KEYS {
            rates.take_at(start, key, 3600).expect("it is the first");
        }
        rates.take_at(start + Duration::from_secs(2), MAX_KEYS, 3600).expect("it is the first");
        assert_eq!(rates.full_at.lock().expect("nobody panicked").len(), 1);
    }
}
