//! Go release versions (<https://go.dev/doc/toolchain#version>), which aren't semantic versions.

use std::str::FromStr;

/// A Go version, ordered as in the go command: `1.21` < `1.21rc1` < `1.21.0`.
///
/// ```
/// use velox_gomod::goversion::GoVersion;
///
/// let of = |text: &str| text.parse::<GoVersion>().ok();
/// assert!(of("1.26rc1") < of("1.26.0") && of("1.9") < of("1.26.4"));
/// assert_eq!(GoVersion::from_toolchain_name("go1.26.4-bigcorp"), of("1.26.4"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct GoVersion {
    major: u64,
    minor: u64,
    /// `None` for a language version or a prerelease.
    patch: Option<u64>,
    /// `alpha`, `beta` or `rc`; empty for a release.
    kind: String,
    pre: Option<u64>,
}

/// An invalid Go version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid Go version `{0}`")]
pub struct ParseGoVersionError(String);

/// Whether a toolchain (`go1.26.4`) is older than a `go` line (`1.26`); a development version (`devel …`) never is.
pub fn is_older(toolchain: &str, line: &str) -> bool {
    match (GoVersion::from_toolchain_name(toolchain), line.parse::<GoVersion>()) {
        (Some(toolchain), Ok(line)) => toolchain < line,
        _ => false,
    }
}

/// The toolchain name from a Go version string, without experiments and packager suffixes
/// (`go1.26.8-X:jsonv2`, `go1.26.8 X:jsonv2`, `go1.24.4 (Red Hat 1.24.4-1.el9)`).
pub fn toolchain_name(version: &str) -> &str {
    let words = version.split_once("-X:").map_or(version, |(name, _)| name);
    words.split_whitespace().next().unwrap_or_default()
}

impl GoVersion {
    /// Parses a toolchain name (`go1.26.4`, `go1.26.4-bigcorp`, `go1.26.4 X:jsonv2`); `None` for `devel …`.
    pub fn from_toolchain_name(name: &str) -> Option<Self> {
        if name.contains(['/', '\\']) {
            return None;
        }
        name.strip_prefix("go")?.split([' ', '\t', '-']).next()?.parse().ok()
    }

    /// The first toolchain with this version (`1.26` → `go1.26.0`); `None` if none is published as a module.
    pub fn toolchain(&self) -> Option<String> {
        let Self { major, minor, patch, kind, pre } = self;
        if (*major, *minor) < (1, 21) {
            return None;
        }
        let pre = pre.map(|number| number.to_string()).unwrap_or_default();
        Some(match patch {
            None if kind.is_empty() => format!("go{major}.{minor}.0"),
            None => format!("go{major}.{minor}{kind}{pre}"),
            Some(patch) => format!("go{major}.{minor}.{patch}"),
        })
    }

    /// Whether the other is of the same minor version (`1.26rc1` and `1.26.4` are).
    pub fn is_same_minor(&self, other: &Self) -> bool {
        (self.major, self.minor) == (other.major, other.minor)
    }

    /// Whether its go command supports toolchain switching (<https://go.dev/doc/toolchain>).
    pub fn supports_switching(&self) -> bool {
        (self.major, self.minor) >= (1, 21)
    }

    /// Whether it isn't a prerelease.
    pub fn is_release(&self) -> bool {
        self.kind.is_empty()
    }

    fn parse(text: &str) -> Option<Self> {
        let (major, rest) = cut_number(text)?;
        let release = |minor, patch| Self { major, minor, patch, kind: String::new(), pre: None };
        if rest.is_empty() {
            return Some(release(0, Some(0)));
        }
        let (minor, rest) = cut_number(rest.strip_prefix('.')?)?;
        if rest.is_empty() {
            // Since 1.21, a version without a patch number is a language version.
            return Some(release(minor, (minor < 21).then_some(0)));
        }
        if let Some(rest) = rest.strip_prefix('.') {
            let (patch, rest) = cut_number(rest)?;
            return rest.is_empty().then(|| release(minor, Some(patch)));
        }
        let end = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let (kind, number) = rest.split_at(end);
        if kind.is_empty() || !kind.bytes().all(|byte| byte.is_ascii_lowercase()) {
            return None;
        }
        let pre = match number {
            "" => None,
            number => Some(cut_number(number).filter(|(_, rest)| rest.is_empty())?.0),
        };
        Some(Self { major, minor, patch: None, kind: kind.to_owned(), pre })
    }
}

impl FromStr for GoVersion {
    type Err = ParseGoVersionError;

    fn from_str(text: &str) -> Result<Self, ParseGoVersionError> {
        Self::parse(text).ok_or_else(|| ParseGoVersionError(text.to_owned()))
    }
}

/// A number without leading zeros, and the rest.
fn cut_number(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    if digits.len() > 1 && digits.starts_with('0') {
        return None;
    }
    Some((digits.parse().ok()?, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(text: &str) -> Option<GoVersion> {
        text.parse().ok()
    }

    #[test]
    fn go_lines_are_compared_with_toolchains_as_go_does() {
        for (toolchain, line) in
            [("go1.22", "1.22.1"), ("go1.22.9", "1.26.4"), ("go1.9.7", "1.10"), ("go1.27rc1", "1.27.0")]
        {
            assert!(is_older(toolchain, line), "{toolchain} {line}");
        }
        for (toolchain, line) in
            [("go1.26.8", "1.26.4"), ("go1.26.4", "1.26.4"), ("go1.22.0", "1.22"), ("devel +abc", "1.26")]
        {
            assert!(!is_older(toolchain, line), "{toolchain} {line}");
        }
    }

    #[test]
    fn a_toolchains_name_is_its_first_word() {
        for (said, expected) in [
            ("go1.26.8\n", "go1.26.8"),
            ("go1.26.8-X:jsonv2", "go1.26.8"),
            ("go1.26.8 X:jsonv2", "go1.26.8"),
            ("go1.24.4 (Red Hat 1.24.4-1.el9)", "go1.24.4"),
            ("go1.26.4-bigcorp", "go1.26.4-bigcorp"),
            ("devel +abc Thu", "devel"),
            ("", ""),
        ] {
            assert_eq!(toolchain_name(said), expected, "{said}");
        }
    }

    #[test]
    fn versions_are_ordered_as_go_orders_them() {
        let ordered = [
            "1", "1.2", "1.9.7", "1.10", "1.20rc1", "1.20", "1.20.1", "1.21", "1.21rc1", "1.21rc2", "1.21.0",
            "1.21.10", "1.26.4", "1.27rc1", "1.27.0",
        ];
        for pair in ordered.windows(2) {
            assert!(of(pair[0]).unwrap() < of(pair[1]).unwrap(), "{pair:?}");
        }
        assert_eq!(of("1.20"), of("1.20.0"));
        for wrong in ["", "go1.2", "1.", "1.02", "1.2.3rc1", "1.2.3.4", "1.2-x", "1.21rc01", "v1.2", "1.2RC1"]
        {
            assert_eq!(of(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_go_line_names_the_first_toolchain_that_has_it() {
        for (line, toolchain) in [
            ("1.26.4", Some("go1.26.4")),
            ("1.26", Some("go1.26.0")),
            ("1.26rc1", Some("go1.26rc1")),
            ("1.20", None),
            ("1.20.3", None),
        ] {
            assert_eq!(of(line).unwrap().toolchain().as_deref(), toolchain);
        }
        for name in ["devel go1.27-abc", "gccgo", "go", "go1.2/../x"] {
            assert_eq!(GoVersion::from_toolchain_name(name), None, "{name}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in ".{0,30}") {
            let _ = of(&text);
            let _ = GoVersion::from_toolchain_name(&text);
        }
    }
}
