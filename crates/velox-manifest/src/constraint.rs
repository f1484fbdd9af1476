//! Version constraints in refs.

use std::ops::RangeInclusive;

use semver::{Comparator, Op, Version, VersionReq};

use crate::invalid_value::InvalidValue;

/// A ref that allows many versions, in Cargo's syntax
/// (<https://doc.rust-lang.org/cargo/reference/specifying-dependencies.html>): `^5.1`, `~5.1.2`, `>=5, <6`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionConstraint {
    text: String,
    requirement: VersionReq,
}

impl VersionConstraint {
    /// The constraint in a valid ref; `None`: it is a tag, a branch or a commit.
    #[must_use]
    pub fn of(reference: &str) -> Option<Self> {
        Self::parse(reference)?.ok()
    }

    /// Parses a ref that starts with an operator, or is a version with a `*`: git allows neither `^`, `~` nor `*` in a
    /// tag or a branch. `None` for any other ref.
    pub(crate) fn parse(reference: &str) -> Option<Result<Self, InvalidValue>> {
        let text = reference.trim();
        let is_wildcard = text.contains('*') && text.chars().all(|c| "0123456789.*v".contains(c));
        (text.starts_with(['^', '~', '<', '>', '=']) || is_wildcard).then(|| {
            let requirement = VersionReq::parse(text).map_err(|error| {
                let invalid = InvalidValue::new(format!("is not a version constraint: {error}"));
                invalid.help(match VersionReq::parse(&corrected(text)) {
                    Ok(_) => format!("did you mean \"{}\"?", corrected(text)),
                    Err(_) => "write it as in Cargo, such as \"^5.1\", \"~5.1.2\" or \">=5, <6\"".to_owned(),
                })
            })?;
            let constraint = Self { text: text.to_owned(), requirement };
            if constraint.majors().is_empty() {
                return Err(InvalidValue::new("matches no version")
                    .help("the lower bound must be below the upper one, such as \">=5, <6\""));
            }
            Ok(constraint)
        })
    }

    /// Whether it allows a version of Go, `v5.1.2`; a pre-release only if it names one of the same version.
    #[must_use]
    pub fn matches(&self, version: &str) -> bool {
        go_version(version).is_some_and(|version| self.requirement.matches(&version))
    }

    /// The newest of `versions` that it allows.
    #[must_use]
    pub fn newest<'a>(&self, versions: impl IntoIterator<Item = &'a String>) -> Option<&'a str> {
        let allowed = versions.into_iter().filter(|version| self.matches(version));
        allowed.max_by_key(|version| go_version(version)).map(String::as_str)
    }

    /// The major versions that it may allow.
    #[must_use]
    pub fn majors(&self) -> RangeInclusive<u64> {
        let (mut low, mut high) = (0, u64::MAX);
        for Comparator { op, major, minor, patch, pre } in &self.requirement.comparators {
            let is_first = minor.unwrap_or(0) == 0 && patch.unwrap_or(0) == 0 && pre.is_empty();
            let (least, most) = match op {
                Op::Greater if minor.is_none() => (major.saturating_add(1), u64::MAX),
                Op::Greater | Op::GreaterEq => (*major, u64::MAX),
                Op::Less if is_first => match major.checked_sub(1) {
                    Some(below) => (0, below),
                    None => (1, 0),
                },
                Op::Less | Op::LessEq => (0, *major),
                _ => (*major, *major),
            };
            (low, high) = (low.max(least), high.min(most));
        }
        low..=high
    }

    /// The only major version that it allows.
    #[must_use]
    pub fn major(&self) -> Option<u64> {
        let majors = self.majors();
        (majors.start() == majors.end()).then_some(*majors.start())
    }

    /// The ref that allows `version` too: the constraint itself, or its operator and precision at `version`. A
    /// pre-release is named exactly.
    #[must_use]
    pub fn moved_to(&self, version: &str) -> String {
        let found = match go_version(version) {
            _ if self.matches(version) => return self.text.clone(),
            Some(found) if found.pre.is_empty() => found,
            _ => return version.to_owned(),
        };
        let Version { major, minor, patch, .. } = found;
        let (operator, has_minor, has_patch) = match self.requirement.comparators.as_slice() {
            [Comparator { op: Op::Wildcard, minor, .. }] => {
                return if minor.is_some() {
                    format!("{major}.{minor}.*", minor = found.minor)
                } else {
                    format!("{major}.*")
                };
            }
            [one] => {
                let operator = match one.op {
                    Op::Tilde => '~',
                    Op::Exact => '=',
                    _ => '^',
                };
                (operator, one.minor.is_some(), one.patch.is_some())
            }
            _ => ('^', true, true),
        };
        match (has_minor, has_patch) {
            (_, true) => format!("{operator}{major}.{minor}.{patch}"),
            (true, false) => format!("{operator}{major}.{minor}"),
            (false, false) => format!("{operator}{major}"),
        }
    }
}

/// A version of Go as the `semver` crate reads it.
fn go_version(version: &str) -> Option<Version> {
    Version::parse(version.strip_prefix('v')?).ok()
}

/// A constraint as Go's and npm's users may write it (`^v5.1`, `>=5 <6`), in Cargo's syntax.
fn corrected(text: &str) -> String {
    let mut words: Vec<String> = Vec::new();
    for word in text.split([' ', ',']).filter(|word| !word.is_empty()) {
        let word = word.replace('v', "");
        match words.last_mut() {
            Some(operator) if !operator.contains(|c: char| c.is_ascii_digit()) => operator.push_str(&word),
            _ => words.push(word),
        }
    }
    words.join(", ")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn refs_that_git_allows_are_not_constraints() {
        for reference in ["v5.1.9", "5.1", "main", "v5", "latest", "feature/x=1", "a<b", "0123abc", ""] {
            assert_eq!(VersionConstraint::parse(reference), None, "{reference}");
        }
    }

    #[test]
    fn a_constraint_allows_what_cargo_allows() {
        for (constraint, allowed, other, majors) in [
            ("^5.1", &["v5.1.0", "v5.9.3"][..], &["v5.0.9", "v6.0.0", "v5.2.0-rc.1"][..], 5..=5),
            ("~5.1.2", &["v5.1.2", "v5.1.9"], &["v5.1.1", "v5.2.0"], 5..=5),
            (">=5, <6", &["v5.0.0", "v5.9.0"], &["v4.9.0", "v6.0.0"], 5..=5),
            (" >=5.2,<7 ", &["v5.2.0", "v6.9.0"], &["v5.1.0", "v7.0.0"], 5..=6),
            (">5", &["v6.0.0"], &["v5.9.0"], 6..=u64::MAX),
            ("<=5", &["v5.9.0", "v0.1.0"], &["v6.0.0"], 0..=5),
            ("=5.1.2", &["v5.1.2", "v5.1.2+incompatible"], &["v5.1.3"], 5..=5),
            ("5.*", &["v5.0.0"], &["v6.0.0"], 5..=5),
            ("*", &["v0.1.0", "v9.0.0"], &["v9.0.0-rc.1"], 0..=u64::MAX),
            ("^6.0.0-beta.1", &["v6.0.0-beta.2", "v6.1.0"], &["v6.1.0-beta.1"], 6..=6),
            ("^0.3", &["v0.3.1"], &["v0.4.0", "v1.0.0"], 0..=0),
        ] {
            let parsed = VersionConstraint::parse(constraint).unwrap().unwrap();
            assert!(allowed.iter().all(|version| parsed.matches(version)), "{constraint}");
            assert!(!other.iter().any(|version| parsed.matches(version)), "{constraint}");
            assert_eq!(parsed.majors(), majors, "{constraint}");
        }
        let versions = ["v5.1.9", "v5.10.0", "v5.9.0", "v6.0.0"].map(str::to_owned);
        assert_eq!(VersionConstraint::of("^5.1").unwrap().newest(&versions), Some("v5.10.0"));
    }

    #[test]
    fn a_constraint_moves_with_its_operator_and_precision() {
        for (constraint, version, moved) in [
            ("^5.1", "v6.2.3", "^6.2"),
            ("^5", "v6.2.3", "^6"),
            ("~5.1.2", "v5.2.0", "~5.2.0"),
            ("=5.1.2", "v5.2.0", "=5.2.0"),
            ("5.1.*", "v6.2.3", "6.2.*"),
            ("5.*", "v6.2.3", "6.*"),
            (">=5, <6", "v6.2.3", "^6.2.3"),
            ("^5.1", "v5.9.0", "^5.1"),
            ("^5.1", "v6.0.0-beta.1", "v6.0.0-beta.1"),
        ] {
            assert_eq!(VersionConstraint::of(constraint).unwrap().moved_to(version), moved, "{constraint}");
        }
    }

    #[test]
    fn invalid_constraints_say_what_was_meant() {
        for (text, part) in [
            ("^v5.1", "did you mean \"^5.1\"?"),
            (">=v5.1 <6", "did you mean \">=5.1, <6\"?"),
            (">= 5 < 6", "did you mean \">=5, <6\"?"),
            ("v5.*", "did you mean \"5.*\"?"),
            ("^", "as in Cargo"),
            ("^main", "as in Cargo"),
            (">=6, <5", "matches no version"),
            ("<0", "matches no version"),
            ("^99999999999999999999", "as in Cargo"),
        ] {
            let error = VersionConstraint::parse(text).unwrap().unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
