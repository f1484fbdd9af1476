//! Validation of single values: refs, folders, module paths, versions and replacements. API requests have them, too.

use velox_gomod::{
    module::{with_major, without_major},
    semver,
};

pub use crate::invalid_value::InvalidValue;
use crate::{GoSelection, Replacement, constraint::VersionConstraint};

/// Validates the ref of a plugin or of RoadRunner: a version constraint, a tag, a branch or a commit.
pub fn requested(text: &str) -> Result<(), InvalidValue> {
    VersionConstraint::parse(text).map_or_else(|| reference(text), |constraint| constraint.map(|_| ()))
}

/// The major version that a tag or a version constraint determines.
pub(crate) fn requested_major(text: &str) -> Option<u64> {
    semver_major(text).or_else(|| VersionConstraint::of(text)?.major())
}

/// Validates a tag, branch or commit (<https://git-scm.com/docs/git-check-ref-format>).
fn reference(text: &str) -> Result<(), InvalidValue> {
    let invalid = |why: &str| {
        Err(InvalidValue::new(why).help("a ref is a tag, a branch or a commit, such as \"v5.0.2\""))
    };
    if text.is_empty() {
        return invalid("is empty");
    }
    if text.chars().any(char::is_whitespace) {
        return invalid("contains whitespace");
    }
    if let Some(c) = text.chars().find(|c| c.is_control() || "~^:?*[\\".contains(*c)) {
        return invalid(&format!("contains {c:?}"));
    }
    for part in ["..", "@{", "//"] {
        if text.contains(part) {
            return invalid(&format!("contains `{part}`"));
        }
    }
    if text.starts_with(['-', '/']) || text.ends_with(['/', '.']) || text == "@" {
        return invalid("invalid first or last character");
    }
    if text.split('/').any(|part| part.starts_with('.') || part.ends_with(".lock")) {
        return invalid("a component starts with `.` or ends with `.lock`");
    }
    Ok(())
}

/// Normalizes a folder of a repository to `a/b`; `None` for the root, which a leading slash also means.
pub(crate) fn folder(text: &str) -> Result<Option<String>, InvalidValue> {
    const RELATIVE: &str = "write the path from the repository's root, such as \"plugins/roadrunner\"";
    if text.contains('\\') {
        return Err(
            InvalidValue::new("contains a backslash").help("separate folders with `/`, on Windows too")
        );
    }
    if text.chars().any(char::is_control) {
        return Err(InvalidValue::new("contains a control character"));
    }
    if has_drive(text) {
        return Err(InvalidValue::new("is an absolute path").help(RELATIVE));
    }
    let parts: Vec<_> = text.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    if parts.contains(&"..") {
        return Err(InvalidValue::new("points outside the repository").help(RELATIVE));
    }
    Ok(Some(parts.join("/")).filter(|folder| !folder.is_empty()))
}

/// Validates an owner or repository of GitHub.
pub(crate) fn github_name(text: &str) -> Result<(), InvalidValue> {
    if text.contains("://") {
        return Err(InvalidValue::new("is a URL")
            .help("write `owner` and `repository` as separate keys: https://github.com/OWNER/REPOSITORY"));
    }
    if text.contains('/') {
        return Err(InvalidValue::new("contains `/`")
            .help("write `owner` and `repository` as separate keys, and a folder as `folder`"));
    }
    forge_name(text)
}

/// Validates a project path of GitLab, `group/sub/project`.
pub(crate) fn gitlab_path(text: &str) -> Result<(), InvalidValue> {
    if text.contains("://") {
        return Err(InvalidValue::new("is a URL")
            .help("write only the path of the project, such as \"group/project\""));
    }
    text.split('/').try_for_each(forge_name)
}

fn forge_name(text: &str) -> Result<(), InvalidValue> {
    if text.is_empty() {
        return Err(InvalidValue::new("is empty"));
    }
    if let Some(c) = text.chars().find(|c| !c.is_ascii_alphanumeric() && !"._-".contains(*c)) {
        return Err(
            InvalidValue::new(format!("contains {c:?}")).help("a name has letters, digits, `.`, `_` and `-`")
        );
    }
    if matches!(text, "." | "..") || text.starts_with('-') {
        return Err(InvalidValue::new("is not a valid name"));
    }
    match text.strip_suffix(".git") {
        Some(name) => Err(InvalidValue::new("ends with `.git`").help(format!("omit it: \"{name}\""))),
        None => Ok(()),
    }
}

/// Validates a module path (<https://go.dev/ref/mod#go-mod-file-ident>).
pub fn module_path(text: &str) -> Result<(), InvalidValue> {
    const SHAPE: &str =
        "a module path is written as in its go.mod, such as \"github.com/roadrunner-server/http/v5\"";
    let invalid = |why: &str| Err(InvalidValue::new(why).help(SHAPE));
    if text.is_empty() {
        return invalid("is empty");
    }
    if let Some((_, rest)) = text.split_once("://") {
        let path = rest.trim_end_matches('/').trim_end_matches(".git");
        let invalid = InvalidValue::new("is a URL");
        let shown =
            if path.contains('@') { SHAPE.to_owned() } else { format!("write only the path: \"{path}\"") };
        return Err(invalid.help(shown));
    }
    if text.contains('@') {
        return invalid("contains `@`; the version has its own key");
    }
    if let Some(c) = text.chars().find(|c| !c.is_ascii_alphanumeric() && !"-._~/".contains(*c)) {
        return invalid(&format!("contains {c:?}"));
    }
    let bad = |part: &str| part.is_empty() || part.starts_with('.') || part.ends_with('.');
    if text.split('/').any(bad) {
        return invalid("a component is empty, or starts or ends with `.`");
    }
    let host = text.split('/').next().unwrap_or(text);
    if !host.contains('.')
        || host.starts_with('-')
        || host.chars().any(|c| c.is_ascii_uppercase() || "_~".contains(c))
    {
        return invalid("doesn't start with a host name");
    }
    match major_suffix(text) {
        Suffix::InvalidValue => invalid("invalid major version suffix: they are `/v2`, `/v3`, …"),
        _ => Ok(()),
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Suffix {
    None,
    Major(u64),
    InvalidValue,
}

/// The major version suffix of a module path (<https://go.dev/ref/mod#major-version-suffixes>).
fn major_suffix(path: &str) -> Suffix {
    let gopkg = path.starts_with("gopkg.in/");
    let Some((_, digits)) = path.rsplit_once(if gopkg { ".v" } else { "/v" }) else { return Suffix::None };
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Suffix::None;
    }
    match digits.parse() {
        Ok(major) if gopkg || (major >= 2 && !digits.starts_with('0')) => Suffix::Major(major),
        _ => Suffix::InvalidValue,
    }
}

/// Validates that a version or a constraint matches the major version suffix of `path`. Branches and commits always
/// match.
pub fn majors_agree(path: &str, version: &str) -> Result<(), InvalidValue> {
    if let Some(constraint) = VersionConstraint::of(version) {
        return constraint_agrees(path, &constraint);
    }
    let Some(major) = semver_major(version) else { return Ok(()) };
    let of_path = match major_suffix(path) {
        Suffix::Major(major) => major,
        _ if major < 2 || version.ends_with("+incompatible") => return Ok(()),
        _ => 1,
    };
    if major == of_path || path.starts_with("gopkg.in/") && major < 2 {
        return Ok(());
    }
    Err(InvalidValue::new(format!("is major version v{major}, but the module path {}", suffix_of(of_path)))
        .help(format!("the module path of this version is \"{}\"", with_major(without_major(path), major))))
}

fn constraint_agrees(path: &str, constraint: &VersionConstraint) -> Result<(), InvalidValue> {
    let majors = constraint.majors();
    let (of_path, agrees) = match major_suffix(path) {
        Suffix::Major(major) => (major, majors.contains(&major)),
        _ => (1, *majors.start() < 2),
    };
    if agrees {
        return Ok(());
    }
    let why = format!("allows no version of the module path, which {}", suffix_of(of_path));
    Err(match constraint.major() {
        Some(major) => InvalidValue::new(why).help(format!(
            "the module path of major version v{major} is \"{}\"",
            with_major(without_major(path), major)
        )),
        None => InvalidValue::new(why).help("change the constraint, or the major version in the module path"),
    })
}

fn suffix_of(major: u64) -> String {
    if major < 2 { "has no major version suffix".to_owned() } else { format!("ends with /v{major}") }
}

/// The major version of a full semantic version with `v` (`v1.2.3-rc.1+meta`).
pub(crate) fn semver_major(text: &str) -> Option<u64> {
    // The canonical form of `v1.2` is longer.
    semver::canonical(text).filter(|canonical| text.starts_with(canonical))?;
    semver::major(text)?.strip_prefix('v')?.parse().ok()
}

/// Parses the right-hand side of a replace directive (<https://go.dev/ref/mod#go-mod-file-replace>).
pub fn replacement(text: &str) -> Result<Replacement, InvalidValue> {
    if text.is_empty() {
        return Err(InvalidValue::new("is empty")
            .help("write a directory (\"../http\") or a module (\"github.com/acme/http\")"));
    }
    if is_directory(text) {
        if text.contains('\0') {
            return Err(InvalidValue::new("contains a NUL character"));
        }
        // `@` may be part of the name, as in Go's module cache.
        return Ok(Replacement::Directory(text.to_owned()));
    }
    if text.starts_with('~') {
        return Err(InvalidValue::new("`~` is not expanded").help("write the whole path, or \"${HOME}/…\""));
    }
    let (path, version) = with_version(text);
    if !path.contains("://") && !path.split('/').next().unwrap_or(path).contains('.') {
        return Err(InvalidValue::new("is neither a directory nor a module path").help(format!(
            "a directory starts with `./`, `../` or `/` (\"./{path}\"), a module path with its host name"
        )));
    }
    module_path(path)?;
    if let Some(version) = version {
        reference(version)
            .map_err(|invalid| InvalidValue { why: format!("the version {}", invalid.why), ..invalid })?;
    }
    Ok(Replacement::Module { path: path.to_owned(), version: version.map(str::to_owned) })
}

/// Parses the left-hand side of a replace directive: a module path and an optional version.
pub fn replaced(text: &str) -> Result<(String, Option<String>), InvalidValue> {
    let (path, version) = with_version(text);
    module_path(path)?;
    if let Some(version) = version {
        full_version(version)?;
        majors_agree(path, version)?;
    }
    Ok((path.to_owned(), version.map(str::to_owned)))
}

/// The version that was meant by one without its `v`: `v5.2.0` for `5.2.0`.
#[must_use]
pub fn with_v(text: &str) -> Option<String> {
    let version = format!("v{text}");
    semver_major(&version).map(|_| version)
}

/// Validates a version of go.mod.
pub fn full_version(text: &str) -> Result<(), InvalidValue> {
    match semver_major(text) {
        Some(_) => Ok(()),
        None if let Some(version) = with_v(text) => {
            Err(InvalidValue::new("the version has no `v`").help(format!("did you mean `{version}`?")))
        }
        None => Err(InvalidValue::new(if text.is_empty() { "is empty" } else { "is not a full version" })
            .help("write all three numbers after `v`, such as \"v1.2.3\"")),
    }
}

/// Converts `[go] version`: `1.26`, `1.26.4`, `1.27rc1` or `release` (<https://go.dev/doc/toolchain#version>).
pub fn go_selection(text: &str) -> Result<GoSelection, InvalidValue> {
    const FIRST_MINOR: u32 = 21;
    let invalid = |why: &str| {
        InvalidValue::new(why).help(
            "use \"1.26\" for the newest patch release of a minor version, \"1.26.4\", or \"release\" for what RoadRunner's go.mod names",
        )
    };
    let number = |text: &str| {
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let canonical = is_number && (text == "0" || !text.starts_with('0'));
        canonical.then(|| text.parse::<u32>().ok()).flatten()
    };
    if text == "release" {
        return Ok(GoSelection::Release);
    }
    if let Some(version) = text.strip_prefix("go").or_else(|| text.strip_prefix('v'))
        && go_selection(version).is_ok()
    {
        let why = "a Go version has no prefix here";
        return Err(InvalidValue::new(why).help(format!("did you mean `{version}`?")));
    }
    let rest = text.strip_prefix("1.").ok_or_else(|| invalid("not a Go version"))?;
    let (minor, selection) = match rest.split_once('.') {
        Some((minor, patch)) => {
            number(patch).ok_or_else(|| invalid("not a Go version"))?;
            (minor, GoSelection::Exact(text.to_owned()))
        }
        None => match rest.split_once("rc").or_else(|| rest.split_once("beta")) {
            Some((minor, candidate)) => {
                number(candidate).ok_or_else(|| invalid("not a Go version"))?;
                (minor, GoSelection::Exact(text.to_owned()))
            }
            None => (rest, GoSelection::Minor(text.to_owned())),
        },
    };
    match number(minor) {
        Some(minor) if minor >= FIRST_MINOR => Ok(selection),
        Some(_) => Err(invalid("versions before Go 1.21 can't be selected")),
        None => Err(invalid("not a Go version")),
    }
}

/// Whether a configured token can be one, so that it must not appear in messages: a shorter text, and a word of
/// letters only, is a placeholder that occurs in other words. Tokens of GitHub and GitLab have at least 20 characters.
#[must_use]
pub fn can_be_token(text: &str) -> bool {
    const MIN_TOKEN_LENGTH: usize = 8;
    const MIN_WORD_TOKEN_LENGTH: usize = 20;
    let is_word = text.bytes().all(|byte| byte.is_ascii_alphabetic());
    text.len() >= if is_word { MIN_WORD_TOKEN_LENGTH } else { MIN_TOKEN_LENGTH }
}

fn with_version(text: &str) -> (&str, Option<&str>) {
    if text.contains("://") {
        return (text, None);
    }
    match text.split_once('@').or_else(|| text.split_once(char::is_whitespace)) {
        Some((path, version)) => (path.trim(), Some(version.trim())),
        None => (text, None),
    }
}

/// Whether Go treats the text as a directory; the same on all platforms.
#[must_use]
pub fn is_directory(text: &str) -> bool {
    let starts = ["./", "../", "/", ".\\", "..\\", "\\"].iter().any(|start| text.starts_with(start));
    starts || matches!(text, "." | "..") || has_drive(text)
}

fn has_drive(text: &str) -> bool {
    matches!(text.as_bytes(), [drive, b':', b'/' | b'\\', ..] if drive.is_ascii_alphabetic())
}
