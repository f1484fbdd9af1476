//! Major versions of modules, and the order of RoadRunner's.

use std::cmp::Ordering;

use velox_gomod::{module::major_suffix, semver};
use velox_manifest::catalogue::ROADRUNNER_MODULE;

/// RoadRunner's major versions were years, from this one on; v3 follows the last.
pub(super) const FIRST_YEAR: u64 = 2023;

/// The number of a version's major; v0 and v1 share a module path.
pub(crate) fn number(version: &str) -> u64 {
    semver::major(version)
        .and_then(|major| major.trim_start_matches('v').parse().ok())
        .map_or(1, |n: u64| n.max(1))
}

/// The number of the major that a module path's suffix names (`/v2`, `.v3`).
pub(super) fn number_of_suffix(suffix: &str) -> u64 {
    suffix.trim_start_matches(['/', '.']).trim_start_matches('v').parse().unwrap_or(1)
}

/// The sort key of a module path of any module.
pub(super) fn rank(module: &str) -> (u8, u64) {
    let major = number_of_suffix(major_suffix(module));
    if module.starts_with(ROADRUNNER_MODULE) { roadrunner_rank(major) } else { (0, major) }
}

/// The sort key of a major of RoadRunner: its years came after v2, and v3 after them.
fn roadrunner_rank(major: u64) -> (u8, u64) {
    match major {
        0..=2 => (0, major),
        FIRST_YEAR.. => (1, major),
        _ => (2, major),
    }
}

/// Compares two versions of RoadRunner in the order of their releases: v2 is older than v2023, and that than v3.
#[must_use]
pub fn compare_roadrunner(one: &str, other: &str) -> Ordering {
    let rank = |version: &str| roadrunner_rank(number(version));
    rank(one).cmp(&rank(other)).then_with(|| semver::compare(one, other))
}
