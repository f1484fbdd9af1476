//! Validation, escaping and splitting of module paths and versions (<https://go.dev/ref/mod#module-path>).

use std::{cmp::Ordering, fmt};

use unicode_properties::{GeneralCategoryGroup, UnicodeGeneralCategory};

use crate::semver;

/// A module at a version.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ModuleVersion {
    /// The module path.
    pub path: String,
    /// The version; in go.sum it may end in `/go.mod`.
    pub version: String,
}

impl ModuleVersion {
    /// A path and a version, unchecked.
    pub fn new(path: impl Into<String>, version: impl Into<String>) -> Self {
        Self { path: path.into(), version: version.into() }
    }
}

impl fmt::Display for ModuleVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.path, self.version)
    }
}

impl Ord for ModuleVersion {
    /// By path, then by version precedence, then by the suffix after a slash.
    fn cmp(&self, other: &Self) -> Ordering {
        fn split(version: &str) -> (&str, &str) {
            version.split_at(version.find('/').unwrap_or(version.len()))
        }
        self.path.cmp(&other.path).then_with(|| {
            let (one, other) = (split(&self.version), split(&other.version));
            if one.0 == other.0 {
                return one.1.cmp(other.1);
            }
            semver::compare(one.0, other.0).then_with(|| one.1.cmp(other.1)).then_with(|| one.0.cmp(other.0))
        })
    }
}

impl PartialOrd for ModuleVersion {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// A malformed path or version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("malformed {what} {text:?}: {reason}")]
pub struct ModuleError {
    /// `module path`, `file path` or `version`.
    pub what: &'static str,
    /// The text.
    pub text: String,
    /// The cause.
    pub reason: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum PathKind {
    Module,
    File,
}

impl PathKind {
    fn name(self) -> &'static str {
        match self {
            Self::Module => "module path",
            Self::File => "file path",
        }
    }

    fn allows(self, c: char) -> bool {
        match self {
            Self::Module => c.is_ascii_alphanumeric() || "-._~".contains(c),
            Self::File if c.is_ascii() => c.is_ascii_alphanumeric() || "!#$%&()+,-.=@[]^_{}~ ".contains(c),
            Self::File => c.general_category_group() == GeneralCategoryGroup::Letter,
        }
    }
}

/// Checks a module path (`module.CheckPath`).
pub fn check_path(path: &str) -> Result<(), ModuleError> {
    check_kind(path, PathKind::Module)?;
    let wrong =
        |reason: String| Err(ModuleError { what: PathKind::Module.name(), text: path.to_owned(), reason });
    let first = path.split('/').next().unwrap_or_default();
    if first.is_empty() {
        return wrong("leading slash".to_owned());
    }
    if !first.contains('.') {
        return wrong("missing dot in first path element".to_owned());
    }
    if let Some(c) = first.chars().find(|c| !(matches!(c, '-' | '.' | 'a'..='z' | '0'..='9'))) {
        return wrong(format!("invalid char {c:?} in first path element"));
    }
    if split_path_version(path).is_none() {
        return wrong("invalid version".to_owned());
    }
    Ok(())
}

/// Checks the path of a module's file (`module.CheckFilePath`).
pub fn check_file_path(path: &str) -> Result<(), ModuleError> {
    check_kind(path, PathKind::File)
}

/// Checks a path and a version, whose major must match the path (`module.Check`).
pub fn check(path: &str, version: &str) -> Result<(), ModuleError> {
    check_path(path)?;
    let wrong = |reason: String| Err(ModuleError { what: "version", text: version.to_owned(), reason });
    if !semver::is_valid(version) {
        return wrong("not a semantic version".to_owned());
    }
    let suffix = split_path_version(path).map_or("", |(_, suffix)| suffix);
    if path_major_matches(version, suffix) {
        return Ok(());
    }
    let expected = if suffix.is_empty() { "v0 or v1" } else { suffix.get(1..).unwrap_or_default() };
    wrong(format!("should be {expected}, not {}", semver::major(version).unwrap_or_default()))
}

fn check_kind(path: &str, kind: PathKind) -> Result<(), ModuleError> {
    let reason = if path.is_empty() {
        "empty string".to_owned()
    } else if kind != PathKind::File && path.starts_with('-') {
        "leading dash".to_owned()
    } else if path.contains("//") {
        "double slash".to_owned()
    } else if path.ends_with('/') {
        "trailing slash".to_owned()
    } else {
        match path.split('/').try_for_each(|element| check_element(element, kind)) {
            Ok(()) => return Ok(()),
            Err(reason) => reason,
        }
    };
    Err(ModuleError { what: kind.name(), text: path.to_owned(), reason })
}

fn check_element(element: &str, kind: PathKind) -> Result<(), String> {
    if element.is_empty() {
        return Err("empty path element".to_owned());
    }
    if element.bytes().all(|byte| byte == b'.') {
        return Err(format!("invalid path element {element:?}"));
    }
    if kind == PathKind::Module && element.starts_with('.') {
        return Err("leading dot in path element".to_owned());
    }
    if element.ends_with('.') {
        return Err("trailing dot in path element".to_owned());
    }
    if let Some(c) = element.chars().find(|c| !kind.allows(*c)) {
        return Err(format!("invalid char {c:?}"));
    }
    // Windows reserves these names, with any extension.
    let short = element.split('.').next().unwrap_or_default();
    if is_device(short) {
        return Err(format!("{short:?} disallowed as path element component on Windows"));
    }
    // Windows generates these as short file names.
    let ends_like_short_name = short
        .rsplit_once('~')
        .is_some_and(|(_, digits)| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()));
    if kind != PathKind::File && ends_like_short_name {
        return Err("trailing tilde and digits in path element".to_owned());
    }
    Ok(())
}

fn is_device(name: &str) -> bool {
    let upper = name.to_ascii_uppercase();
    let numbered = ["COM", "LPT"]
        .iter()
        .filter_map(|prefix| upper.strip_prefix(prefix))
        .any(|number| matches!(number.as_bytes(), [b'1'..=b'9']));
    numbered || matches!(upper.as_str(), "CON" | "PRN" | "AUX" | "NUL")
}

/// Escapes uppercase letters of a module path with `!` (<https://go.dev/ref/mod#goproxy-protocol>).
pub fn escape_path(path: &str) -> Result<String, ModuleError> {
    check_path(path)?;
    Ok(escape(path))
}

/// Escapes a version likewise.
pub fn escape_version(version: &str) -> Result<String, ModuleError> {
    let wrong = |reason: String| ModuleError { what: "version", text: version.to_owned(), reason };
    check_element(version, PathKind::File).map_err(wrong)?;
    if version.contains('!') || !version.is_ascii() {
        return Err(wrong("disallowed version string".to_owned()));
    }
    Ok(escape(version))
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_ascii_uppercase() {
            escaped.push('!');
        }
        escaped.push(c.to_ascii_lowercase());
    }
    escaped
}

/// The inverse of [`escape_path`].
pub fn unescape_path(escaped: &str) -> Result<String, ModuleError> {
    let path = unescape(escaped).ok_or_else(|| ModuleError {
        what: "module path",
        text: escaped.to_owned(),
        reason: "invalid escape".to_owned(),
    })?;
    check_path(&path)?;
    Ok(path)
}

/// The inverse of [`escape_version`].
pub fn unescape_version(escaped: &str) -> Result<String, ModuleError> {
    let wrong = |reason: String| ModuleError { what: "version", text: escaped.to_owned(), reason };
    let version = unescape(escaped).ok_or_else(|| wrong("invalid escape".to_owned()))?;
    check_element(&version, PathKind::File).map_err(wrong)?;
    Ok(version)
}

fn unescape(escaped: &str) -> Option<String> {
    let mut text = String::with_capacity(escaped.len());
    let mut chars = escaped.chars();
    while let Some(c) = chars.next() {
        text.push(match c {
            '!' => chars.next().filter(char::is_ascii_lowercase)?.to_ascii_uppercase(),
            'A'..='Z' => return None,
            c if !c.is_ascii() => return None,
            c => c,
        });
    }
    Some(text)
}

/// Splits off the major version suffix (`/v2`, `.v2` at gopkg.in, or empty); `None` for an invalid one, such
/// as `/v1` (<https://go.dev/ref/mod#major-version-suffixes>).
pub fn split_path_version(path: &str) -> Option<(&str, &str)> {
    if path.starts_with("gopkg.in/") {
        return split_gopkg_in(path);
    }
    let rest = path.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.');
    let at = rest.len();
    if at == path.len() || !rest.ends_with("/v") {
        return Some((path, ""));
    }
    let (prefix, suffix) = path.split_at_checked(at - 2)?;
    let number = suffix.get(2..)?;
    (!number.contains('.') && !number.starts_with('0') && number != "1").then_some((prefix, suffix))
}

/// A module path without its major version suffix; the path itself if the suffix is invalid.
#[must_use]
pub fn without_major(path: &str) -> &str {
    split_path_version(path).map_or(path, |(base, _)| base)
}

/// The module path of a base at a major version.
#[must_use]
pub fn with_major(base: &str, major: u64) -> String {
    if major < 2 { base.to_owned() } else { format!("{base}/v{major}") }
}

/// The major version suffix of a module path (`/v2`); empty without a valid one.
#[must_use]
pub fn major_suffix(path: &str) -> &str {
    split_path_version(path).map_or("", |(_, suffix)| suffix)
}

fn split_gopkg_in(path: &str) -> Option<(&str, &str)> {
    let stable = path.strip_suffix("-unstable").unwrap_or(path);
    let rest = stable.trim_end_matches(|c: char| c.is_ascii_digit());
    if !rest.ends_with(".v") {
        return None;
    }
    let (prefix, suffix) = path.split_at_checked(rest.len() - 2)?;
    let number = stable.get(rest.len()..)?;
    // Go accepts `.v-unstable` without a number.
    let has_number = !number.is_empty() || stable.len() != path.len();
    (has_number && (!number.starts_with('0') || suffix == ".v0")).then_some((prefix, suffix))
}

/// Whether a version matches a path suffix (`module.CheckPathMajor`).
pub fn path_major_matches(version: &str, suffix: &str) -> bool {
    let suffix = match suffix.strip_prefix(".v") {
        Some(_) => suffix.strip_suffix("-unstable").unwrap_or(suffix),
        None => suffix,
    };
    if version.starts_with("v0.0.0-") && suffix == ".v1" {
        // Old gopkg.in pseudo-versions of v1.
        return true;
    }
    let major = semver::major(version).unwrap_or_default();
    match suffix.strip_prefix(['/', '.']) {
        Some(wanted) => major == wanted,
        None => matches!(major, "v0" | "v1") || semver::build(version) == Some("+incompatible"),
    }
}

/// The canonical form of a version, including `+incompatible`; empty if invalid.
pub fn canonical_version(version: &str) -> String {
    let mut canonical = semver::canonical(version).unwrap_or_default();
    if semver::build(version) == Some("+incompatible") {
        canonical.push_str("+incompatible");
    }
    canonical
}

/// Whether any of the comma-separated glob patterns matches a path prefix of `target`, as for GOPRIVATE
/// (<https://go.dev/ref/mod#private-modules>).
pub fn match_prefix_patterns(globs: &str, target: &str) -> bool {
    globs.split(',').map(|glob| glob.strip_suffix('/').unwrap_or(glob)).filter(|glob| !glob.is_empty()).any(
        |glob| {
            let elements = glob.matches('/').count();
            let end = match target.match_indices('/').nth(elements) {
                Some((end, _)) => end,
                None if target.matches('/').count() == elements => target.len(),
                None => return false,
            };
            let glob: Vec<char> = glob.chars().collect();
            let prefix: Vec<char> = target.get(..end).unwrap_or_default().chars().collect();
            matches(&glob, &prefix).unwrap_or(false)
        },
    )
}

/// `path.Match` (<https://pkg.go.dev/path#Match>); `None` if a malformed part of the pattern is reached.
fn matches(glob: &[char], text: &[char]) -> Option<bool> {
    let Some((first, rest)) = glob.split_first() else { return Some(text.is_empty()) };
    match first {
        '*' => {
            for skipped in 0..=text.len() {
                if matches(rest, text.get(skipped..)?)? {
                    return Some(true);
                }
                if text.get(skipped) == Some(&'/') {
                    break;
                }
            }
            Some(false)
        }
        '?' => match text.split_first() {
            Some((c, text)) if *c != '/' => matches(rest, text),
            _ => Some(false),
        },
        '[' => {
            let Some((c, text)) = text.split_first() else { return Some(false) };
            let (included, rest) = class(rest, *c)?;
            if included { matches(rest, text) } else { Some(false) }
        }
        '\\' => {
            let (escaped, rest) = rest.split_first()?;
            literal(*escaped, rest, text)
        }
        c => literal(*c, rest, text),
    }
}

fn literal(c: char, rest: &[char], text: &[char]) -> Option<bool> {
    match text.split_first() {
        Some((first, text)) if *first == c => matches(rest, text),
        _ => Some(false),
    }
}

/// Whether the leading character class of `glob` contains `c`; also returns the rest.
fn class(glob: &[char], c: char) -> Option<(bool, &[char])> {
    let (negated, mut rest) = match glob.split_first()? {
        ('^', rest) => (true, rest),
        _ => (false, glob),
    };
    let mut included = false;
    let mut empty = true;
    loop {
        if !empty && let Some((']', after)) = rest.split_first() {
            return Some((included != negated, after));
        }
        let (low, after) = class_char(rest)?;
        let (high, after) = match after.split_first() {
            Some(('-', after)) => class_char(after)?,
            _ => (low, after),
        };
        included |= (low..=high).contains(&c);
        rest = after;
        empty = false;
    }
}

fn class_char(glob: &[char]) -> Option<(char, &[char])> {
    match glob.split_first()? {
        ('-' | ']', _) => None,
        ('\\', rest) => rest.split_first().map(|(c, rest)| (*c, rest)),
        (c, rest) => Some((*c, rest)),
    }
}
