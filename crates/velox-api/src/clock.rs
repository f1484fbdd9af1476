//! The clock of this machine.

use std::time::SystemTime;

use jiff::Timestamp;

/// The current time; the nearest one if the clock shows a year that [`Timestamp`] doesn't have (after 9999), with
/// which [`Timestamp::now`] panics.
#[must_use]
pub fn now() -> Timestamp {
    saturating(SystemTime::now())
}

fn saturating(time: SystemTime) -> Timestamp {
    let end = if time < SystemTime::UNIX_EPOCH { Timestamp::MIN } else { Timestamp::MAX };
    Timestamp::try_from(time).unwrap_or(end)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn clocks_of_any_year() {
        let year = Duration::from_secs(365 * 86_400);
        assert_eq!(saturating(SystemTime::UNIX_EPOCH + 9000 * year), Timestamp::MAX);
        assert_eq!(saturating(SystemTime::UNIX_EPOCH - 20_000 * year), Timestamp::MIN);
        assert_eq!(saturating(SystemTime::UNIX_EPOCH), Timestamp::UNIX_EPOCH);
        assert_eq!(Timestamp::MAX.to_string(), "9999-12-30T22:00:00.999999999Z");
    }
}
