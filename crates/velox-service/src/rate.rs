//! Rate limits by key, with the limit given on each call: `governor` has one quota for all keys, but each
//! token has its own.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

const HOUR: Duration = Duration::from_secs(60 * 60);

/// The number of keys above which idle keys are removed, which bounds the memory.
const MAX_KEYS: usize = 4096;

/// A rate limiter that allows bursts of an hour's quota: the generic cell rate algorithm, which stores one
/// time per key (<https://en.wikipedia.org/wiki/Generic_cell_rate_algorithm>).
#[derive(Debug)]
pub(crate) struct RateLimiter<K> {
    start: Instant,
    /// When each key's quota is full again, since the start.
    full_at: Mutex<HashMap<K, Duration>>,
}

impl<K> Default for RateLimiter<K> {
    fn default() -> Self {
        Self { start: Instant::now(), full_at: Mutex::default() }
    }
}

impl<K: Hash + Eq> RateLimiter<K> {
    /// Consumes one of `an_hour` permits.
    ///
    /// # Errors
    /// No permit is left; returns the time until the next one.
    pub(crate) fn take(&self, key: K, an_hour: u64) -> Result<(), Duration> {
        self.take_at(self.start.elapsed(), key, an_hour)
    }

    fn take_at(&self, now: Duration, key: K, an_hour: u64) -> Result<(), Duration> {
        let mut full_at = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        if full_at.len() >= MAX_KEYS {
            full_at.retain(|_, at| *at > now);
        }
        let at = full_at.entry(key).or_insert(now);
        *at = take_permit(*at, now, an_hour)?;
        Ok(())
    }
}

/// The time since 1970.
pub(crate) fn unix_time() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

/// Consumes one of `an_hour` permits of a quota that is full at `full_at`; returns when it is full again. The times
/// have any common start.
///
/// # Errors
/// No permit is left; returns the time until the next one.
pub(crate) fn take_permit(full_at: Duration, now: Duration, an_hour: u64) -> Result<Duration, Duration> {
    let each = HOUR / u32::try_from(an_hour).unwrap_or(u32::MAX).max(1);
    // After a correction of the clock, a full quota is the most.
    let next = full_at.clamp(now, now + HOUR) + each;
    match (next - now).checked_sub(HOUR) {
        Some(wait) if !wait.is_zero() => Err(wait),
        _ => Ok(next),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_and_then_evenly() {
        let rates = RateLimiter::default();
        let start = Duration::from_secs(10);
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
        let start = Duration::from_secs(10);
        for key in 0..MAX_KEYS {
            rates.take_at(start, key, 3600).expect("it is the first");
        }
        rates.take_at(start + Duration::from_secs(2), MAX_KEYS, 3600).expect("it is the first");
        assert_eq!(rates.full_at.lock().expect("nobody panicked").len(), 1);
    }
}
