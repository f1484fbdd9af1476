//! Pseudo-versions: versions for commits without a tag (<https://go.dev/ref/mod#pseudo-versions>).

use crate::semver;

/// Whether a version is a pseudo-version.
pub fn is_pseudo_version(version: &str) -> bool {
    let has_form = || {
        let (core, rest) = version.strip_suffix(semver::build(version)?)?.split_once('-')?;
        let (rest, revision) = rest.rsplit_once('-')?;
        let (before, time) = rest.split_at_checked(rest.len().checked_sub(14)?)?;
        let follows_a_version = before == "0." || before.ends_with(".0.");
        Some(
            (follows_a_version || (before.is_empty() && core.ends_with(".0.0")))
                && time.bytes().all(|byte| byte.is_ascii_digit())
                && !revision.is_empty()
                && revision.bytes().all(|byte| byte.is_ascii_alphanumeric()),
        )
    };
    semver::is_valid(version) && has_form() == Some(true)
}

/// The pseudo-version of a commit.
///
/// `major` is the major version of the module path (`v2`) or empty, `older` the highest version of the
/// ancestors or empty, `time` the commit time in Unix seconds, `revision` the first twelve digits of the id.
pub fn pseudo_version(major: &str, older: &str, time: i64, revision: &str) -> String {
    let time = jiff::Timestamp::from_second(time).unwrap_or_default();
    compose(major, older, &time.strftime("%Y%m%d%H%M%S").to_string(), revision)
}

/// A placeholder pseudo-version for a replaced module.
pub fn zero_pseudo_version(major: &str) -> String {
    compose(major, "", "00010101000000", "000000000000")
}

fn compose(major: &str, older: &str, time: &str, revision: &str) -> String {
    let build = semver::build(older).unwrap_or_default();
    let Some(older) = semver::canonical(older) else {
        let major = if major.is_empty() { "v0" } else { major };
        return format!("{major}.0.0-{time}-{revision}");
    };
    if semver::prerelease(&older).is_some_and(|pre| !pre.is_empty()) {
        return format!("{older}.0.{time}-{revision}{build}");
    }
    let (before, patch) = older.rsplit_once('.').unwrap_or((&older, "0"));
    format!("{before}.{}-0.{time}-{revision}{build}", increment(patch))
}

/// Splits a pseudo-version into base, time, revision and build metadata.
fn parts(version: &str) -> Option<(&str, &str, &str, &str)> {
    if !is_pseudo_version(version) {
        return None;
    }
    let build = semver::build(version).unwrap_or_default();
    let (rest, revision) = version.strip_suffix(build)?.rsplit_once('-')?;
    let dash = rest.rfind('-')?;
    let at = rest.rfind('.').filter(|dot| *dot > dash).unwrap_or(dash);
    Some((rest.get(..at)?, rest.get(at + 1..)?, revision, build))
}

/// The base version or empty; `None` for an invalid pseudo-version.
pub fn base(version: &str) -> Option<String> {
    let (base, _, _, build) = parts(version)?;
    match semver::prerelease(base)? {
        "" => build.is_empty().then(String::new),
        "-0" => {
            let (before, patch) = base.strip_suffix("-0")?.rsplit_once('.')?;
            decrement(patch).map(|patch| format!("{before}.{patch}{build}"))
        }
        _ => base.strip_suffix(".0").map(|base| format!("{base}{build}")),
    }
}

/// The commit time in Unix seconds; `None` for an invalid pseudo-version.
pub fn time(version: &str) -> Option<i64> {
    let (_, time, _, _) = parts(version)?;
    let time = jiff::civil::DateTime::strptime("%Y%m%d%H%M%S", time).ok()?;
    jiff::tz::Offset::UTC.to_timestamp(time).ok().map(|time| time.as_second())
}

/// The revision.
pub fn revision(version: &str) -> Option<&str> {
    parts(version).map(|(_, _, revision, _)| revision)
}

/// Increments a decimal number of any length.
fn increment(number: &str) -> String {
    let nines = number.len() - number.trim_end_matches('9').len();
    let kept = number.get(..number.len() - nines).unwrap_or_default();
    let zeros = "0".repeat(nines);
    match kept.chars().last().and_then(|digit| digit.to_digit(10)) {
        Some(digit) => format!("{}{}{zeros}", &kept[..kept.len() - 1], digit + 1),
        None => format!("1{zeros}"),
    }
}

/// Decrements a decimal number of any length; `None` for zero.
fn decrement(number: &str) -> Option<String> {
    let zeros = number.len() - number.trim_end_matches('0').len();
    let kept = number.get(..number.len() - zeros)?;
    let digit = kept.chars().last()?.to_digit(10)?;
    let head = format!("{}{}", kept.get(..kept.len() - 1)?, digit.checked_sub(1)?);
    let head = if head == "0" && zeros > 0 { "" } else { &head };
    Some(format!("{head}{}", "9".repeat(zeros)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_has_its_base() {
        for (major, older, version) in [
            ("", "", "v0.0.0-19700101000000-abcdefabcdef"),
            ("v2", "", "v2.0.0-19700101000000-abcdefabcdef"),
            ("v2", "v2.3.9", "v2.3.10-0.19700101000000-abcdefabcdef"),
            ("", "v1.2.0-rc.1", "v1.2.0-rc.1.0.19700101000000-abcdefabcdef"),
            ("", "v2.0.0+incompatible", "v2.0.1-0.19700101000000-abcdefabcdef+incompatible"),
        ] {
            assert_eq!(pseudo_version(major, older, 0, "abcdefabcdef"), version);
            assert_eq!((base(version).as_deref(), time(version)), (Some(older), Some(0)), "{version}");
            assert_eq!(revision(version), Some("abcdefabcdef"));
        }
        assert_eq!(zero_pseudo_version("v5"), "v5.0.0-00010101000000-000000000000");
    }
}
