//! Semantic versions in Go's format (<https://go.dev/ref/mod#versions>): with a leading `v` and the short
//! forms `v1` and `v1.2`, which the `semver` crate doesn't support.

use std::cmp::Ordering;

/// The parts of a valid version.
struct Parts<'a> {
    major: &'a str,
    minor: &'a str,
    patch: &'a str,
    /// The numbers omitted in a short form (`.0`, `.0.0`).
    omitted: &'static str,
    prerelease: &'a str,
    build: &'a str,
}

fn parse(version: &str) -> Option<Parts<'_>> {
    let rest = version.strip_prefix('v')?;
    let (major, rest) = number(rest)?;
    let short = |minor, omitted| Parts { major, minor, patch: "0", omitted, prerelease: "", build: "" };
    if rest.is_empty() {
        return Some(short("0", ".0.0"));
    }
    let (minor, rest) = number(rest.strip_prefix('.')?)?;
    if rest.is_empty() {
        return Some(short(minor, ".0"));
    }
    let (patch, rest) = number(rest.strip_prefix('.')?)?;
    let (rest, build) = rest.find('+').map_or((rest, ""), |at| rest.split_at(at));
    let well_formed = |part: &str, mark, numbers_are_canonical| {
        part.is_empty()
            || part.strip_prefix(mark).is_some_and(|identifiers: &str| {
                identifiers.split('.').all(|identifier| is_identifier(identifier, numbers_are_canonical))
            })
    };
    (well_formed(rest, '-', true) && well_formed(build, '+', false)).then_some(Parts {
        major,
        minor,
        patch,
        omitted: "",
        prerelease: rest,
        build,
    })
}

/// Parses a decimal number without leading zeros; also returns the rest.
fn number(text: &str) -> Option<(&str, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    (!digits.is_empty() && (digits == "0" || !digits.starts_with('0'))).then_some((digits, rest))
}

fn is_identifier(text: &str, numbers_are_canonical: bool) -> bool {
    let zero_led = numbers_are_canonical && text.len() > 1 && text.starts_with('0') && is_number(text);
    !text.is_empty() && !zero_led && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

fn is_number(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Whether a version is valid.
pub fn is_valid(version: &str) -> bool {
    parse(version).is_some()
}

/// The version with all three numbers and without build metadata.
pub fn canonical(version: &str) -> Option<String> {
    let parts = parse(version)?;
    let end = version.len() - parts.build.len();
    version.get(..end).map(|version| format!("{version}{}", parts.omitted))
}

/// The major version (`v2` for `v2.1.0`).
pub fn major(version: &str) -> Option<&str> {
    let parts = parse(version)?;
    version.get(..=parts.major.len())
}

/// The prerelease (`-pre` for `v2.1.0-pre+meta`), or empty.
pub fn prerelease(version: &str) -> Option<&str> {
    parse(version).map(|parts| parts.prerelease)
}

/// Whether a version is valid, and neither a pre-release nor a pseudo-version.
pub fn is_release(version: &str) -> bool {
    prerelease(version).is_some_and(str::is_empty)
}

/// The build metadata (`+meta` for `v2.1.0+meta`), or empty.
pub fn build(version: &str) -> Option<&str> {
    parse(version).map(|parts| parts.build)
}

/// Compares by precedence (<https://semver.org/#spec-item-11>), ignoring build metadata. Invalid versions are
/// equal to each other and lower than valid ones.
pub fn compare(one: &str, other: &str) -> Ordering {
    if one == other {
        return Ordering::Equal;
    }
    match (parse(one), parse(other)) {
        (Some(one), Some(other)) => compare_numbers(one.major, other.major)
            .then_with(|| compare_numbers(one.minor, other.minor))
            .then_with(|| compare_numbers(one.patch, other.patch))
            .then_with(|| compare_prereleases(one.prerelease, other.prerelease)),
        (one, other) => one.is_some().cmp(&other.is_some()),
    }
}

/// Numbers may be larger than any integer type.
fn compare_numbers(one: &str, other: &str) -> Ordering {
    one.len().cmp(&other.len()).then_with(|| one.cmp(other))
}

fn compare_prereleases(one: &str, other: &str) -> Ordering {
    if one.is_empty() || other.is_empty() {
        // A release is higher than its prereleases.
        return one.is_empty().cmp(&other.is_empty());
    }
    let (mut one, mut other) =
        (one.get(1..).unwrap_or_default().split('.'), other.get(1..).unwrap_or_default().split('.'));
    loop {
        let order = match (one.next(), other.next()) {
            (Some(one), Some(other)) => match (is_number(one), is_number(other)) {
                (true, true) => compare_numbers(one, other),
                (one_is, other_is) if one_is != other_is => other_is.cmp(&one_is),
                _ => one.cmp(other),
            },
            (None, None) => return Ordering::Equal,
            (one, other) => one.is_some().cmp(&other.is_some()),
        };
        if order.is_ne() {
            return order;
        }
    }
}
