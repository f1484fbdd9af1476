//! Parsing and formatting go.mod files (<https://go.dev/ref/mod#go-mod-file>).

use std::{fmt, ops::Deref};

use unicode_properties::{GeneralCategoryGroup, UnicodeGeneralCategory};

use crate::{
    gostring::unquote,
    goversion::GoVersion,
    module::{self, ModuleVersion, path_major_matches, split_path_version},
};

/// A parsed go.mod.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GoMod {
    /// The `module` line.
    pub module: Option<String>,
    /// The `go` line (`1.26.4`).
    pub go: Option<String>,
    /// The `toolchain` line (`go1.26.8`).
    pub toolchain: Option<String>,
    /// The `godebug` lines, `key=value` each.
    pub godebug: Vec<String>,
    /// The `require` directives.
    pub require: Vec<Require>,
    /// The `exclude` directives.
    pub exclude: Vec<ModuleVersion>,
    /// The `replace` directives.
    pub replace: Vec<Replace>,
    /// The `retract` directives.
    pub retract: Vec<Retract>,
    /// The package paths of the `tool` directives.
    pub tool: Vec<String>,
    /// The directories of the `ignore` directives.
    pub ignore: Vec<String>,
}

/// A requirement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Require {
    /// The module path.
    pub path: String,
    /// The minimum version.
    pub version: String,
    /// Whether it has an `// indirect` comment: no package of the main module imports it.
    pub indirect: bool,
}

/// A replacement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replace {
    /// The path of the replaced module.
    pub old_path: String,
    /// The replaced version; `None` for all versions.
    pub old_version: Option<String>,
    /// A module path, or a directory.
    pub new_path: String,
    /// The replacement's version; `None` for a directory.
    pub new_version: Option<String>,
}

impl Require {
    /// The required module.
    #[must_use]
    pub fn module(&self) -> ModuleVersion {
        ModuleVersion::new(&self.path, &self.version)
    }
}

impl Replace {
    /// The new module; `None` for a directory.
    #[must_use]
    pub fn new_module(&self) -> Option<ModuleVersion> {
        Some(ModuleVersion::new(&self.new_path, self.new_version.as_ref()?))
    }
}

/// A range of retracted versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retract {
    /// The lowest version.
    pub low: String,
    /// The highest version; equal to `low` for a single one.
    pub high: String,
}

/// A go.mod with its text; equal if the texts are.
#[derive(Debug, Clone, Default)]
pub struct GoModFile {
    text: String,
    parsed: GoMod,
}

impl GoModFile {
    /// Parses a go.mod.
    pub fn parse(text: String) -> Result<Self, ModFileError> {
        Ok(Self { parsed: GoMod::parse(&text)?, text })
    }

    /// The text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl Deref for GoModFile {
    type Target = GoMod;

    fn deref(&self) -> &GoMod {
        &self.parsed
    }
}

impl PartialEq for GoModFile {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for GoModFile {}

/// An invalid go.mod.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("go.mod:{line}:{column}: {message}")]
pub struct ModFileError {
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    /// The cause.
    pub message: String,
}

impl GoMod {
    /// The toolchain that the go command selects for this main module (<https://go.dev/doc/toolchain#select>).
    pub fn preferred_toolchain(&self) -> Option<String> {
        let line: GoVersion = self.go.as_ref()?.parse().ok()?;
        let is_newer = |name: &&String| {
            GoVersion::from_toolchain_name(name)
                .is_some_and(|version| version > line && version.supports_switching())
        };
        self.toolchain.as_ref().filter(is_newer).cloned().or_else(|| line.toolchain())
    }

    /// Parses a main module's go.mod.
    pub fn parse(text: &str) -> Result<Self, ModFileError> {
        Self::read(text, true)
    }

    /// Parses a dependency's go.mod (`modfile.ParseLax`): unknown directives and those that only apply to
    /// main modules are ignored.
    pub fn parse_lax(text: &str) -> Result<Self, ModFileError> {
        Self::read(text, false)
    }

    fn read(text: &str, strict: bool) -> Result<Self, ModFileError> {
        let mut file = Self::default();
        for statement in statements(text)? {
            let Statement { line, kind, tokens, comment } = statement;
            let Some((verb, arguments)) = tokens.split_first() else { continue };
            let at = |message: String| ModFileError { line, column: verb.column, message };
            if kind != StatementKind::Alone
                && !matches!(
                    verb.text.as_str(),
                    "module" | "godebug" | "require" | "exclude" | "replace" | "retract" | "tool" | "ignore"
                )
            {
                if strict {
                    return Err(at(format!("unknown block type: {}", verb.text)));
                }
                continue;
            }
            if kind == StatementKind::Opening {
                continue;
            }
            if !strict && !matches!(verb.text.as_str(), "go" | "module" | "retract" | "require" | "ignore") {
                continue;
            }
            file.add(&verb.text, arguments, &comment, strict).map_err(at)?;
        }
        Ok(file)
    }

    fn add(&mut self, verb: &str, arguments: &[Lexeme], comment: &str, strict: bool) -> Result<(), String> {
        let texts: Vec<&str> = arguments.iter().map(|token| token.text.as_str()).collect();
        match (verb, texts.as_slice()) {
            ("go", [version]) => {
                if self.go.is_some() {
                    return Err("repeated go statement".to_owned());
                }
                let lax = || (!strict).then(|| lax_go_version(version)).flatten();
                let version = if is_go_version(version) { Some((*version).to_owned()) } else { lax() };
                self.go =
                    Some(version.ok_or_else(|| {
                        format!("invalid go version {:?}: must match format 1.23", texts[0])
                    })?);
            }
            ("go", _) => return Err("go directive expects exactly one argument".to_owned()),
            ("toolchain", [name]) => {
                if self.toolchain.is_some() {
                    return Err("repeated toolchain statement".to_owned());
                }
                if *name != "default" && *name != "go1" && !name.starts_with("go1.") {
                    return Err(format!(
                        "invalid toolchain version {name:?}: must match format go1.23.0 or default"
                    ));
                }
                self.toolchain = Some((*name).to_owned());
            }
            ("toolchain", _) => return Err("toolchain directive expects exactly one argument".to_owned()),
            ("module", [path]) => {
                if self.module.is_some() {
                    return Err("repeated module statement".to_owned());
                }
                self.module = Some(string(path)?);
            }
            ("module", _) => return Err("usage: module module/path".to_owned()),
            ("godebug", [setting]) if !setting.contains(['"', '`', '\'', ',']) && setting.contains('=') => {
                self.godebug.push((*setting).to_owned());
            }
            ("godebug", _) => return Err("usage: godebug key=value".to_owned()),
            ("require" | "exclude", [path, version]) => {
                let path = string(path)?;
                let version = version_of(&path, version)?;
                if verb == "exclude" {
                    self.exclude.push(ModuleVersion { path, version });
                } else {
                    self.require.push(Require { path, version, indirect: is_indirect(comment) });
                }
            }
            ("require" | "exclude", _) => return Err(format!("usage: {verb} module/path v1.2.3")),
            ("replace", texts) => self.replace.push(replace(texts)?),
            ("retract", texts) => match retract(texts) {
                Ok(retract) => self.retract.push(retract),
                // Invalid retractions of dependencies are ignored.
                Err(_) if !strict => {}
                Err(message) => return Err(message),
            },
            ("tool", [path]) => self.tool.push(string(path)?),
            ("ignore", [path]) => self.ignore.push(string(path)?),
            ("tool" | "ignore", _) => return Err(format!("{verb} directive expects exactly one argument")),
            _ => return Err(format!("unknown directive: {verb}")),
        }
        Ok(())
    }
}

/// The path in the `module` line, even if the file is invalid otherwise (`modfile.ModulePath`).
pub fn module_line(text: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let line = line.split("//").next().unwrap_or_default().trim();
        let rest = line.strip_prefix("module")?;
        let path = rest.trim();
        if path.is_empty() || !rest.starts_with(|c: char| c.is_whitespace() || c == '"' || c == '`') {
            return None;
        }
        if path.starts_with(['`', '"']) { unquoted(path) } else { Some(path.to_owned()) }
            .filter(|path| !path.is_empty())
    })
}

fn is_go_version(version: &str) -> bool {
    let number = |text: &str| {
        !text.is_empty()
            && text.bytes().all(|b| b.is_ascii_digit())
            && (text == "0" || !text.starts_with('0'))
    };
    let Some((major, rest)) = version.split_once('.') else { return false };
    if !number(major) || major == "0" {
        return false;
    }
    let numbers = rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    let (digits, tail) = rest.split_at(rest.len() - numbers.len());
    let parts: Vec<&str> = digits.split('.').collect();
    let tail_letters = tail.trim_start_matches(|c: char| c.is_ascii_lowercase());
    let tail_is_well_formed = tail.is_empty()
        || (tail_letters.len() < tail.len()
            && !tail_letters.is_empty()
            && tail_letters.bytes().all(|byte| byte.is_ascii_digit()));
    parts.len() <= 2 && parts.iter().all(|part| number(part)) && tail_is_well_formed
}

/// `1.18` for `v1.18.x`, as in old dependencies.
fn lax_go_version(version: &str) -> Option<String> {
    let version = version.strip_prefix('v').unwrap_or(version);
    let (major, rest) = version.split_once('.')?;
    let end = rest.find(|c: char| !c.is_ascii_digit())?;
    let short = format!("{major}.{}", rest.get(..end)?);
    is_go_version(&short).then_some(short)
}

fn is_indirect(comment: &str) -> bool {
    let mut words = comment.split_whitespace();
    match (words.next(), words.next()) {
        (Some("indirect"), None) => true,
        (Some(first), Some(_)) => first == "indirect;",
        _ => false,
    }
}

/// Parses a canonical version with the major version of the path.
fn version_of(path: &str, text: &str) -> Result<String, String> {
    let version = canonical(text)?;
    let suffix = split_path_version(path)
        .map(|(_, suffix)| suffix)
        .ok_or_else(|| format!("malformed module path {path:?}: invalid version"))?;
    if path_major_matches(&version, suffix) {
        Ok(version)
    } else {
        Err(format!("{path}@{version}: invalid version: not of the path's major version"))
    }
}

fn canonical(text: &str) -> Result<String, String> {
    let version = string(text)?;
    let canonical = module::canonical_version(&version);
    if canonical.is_empty() {
        return Err(format!("invalid version {version:?}: must be of the form v1.2.3"));
    }
    Ok(canonical)
}

fn replace(texts: &[&str]) -> Result<Replace, String> {
    let usage =
        || "usage: replace module/path [v1.2.3] => other/module v1.4, or => ../local/directory".to_owned();
    let arrow = if texts.get(1) == Some(&"=>") { 1 } else { 2 };
    let (Some(old), Some(&"=>"), Some(new)) = (texts.first(), texts.get(arrow), texts.get(arrow + 1)) else {
        return Err(usage());
    };
    if texts.len() > arrow + 3 {
        return Err(usage());
    }
    let old_path = string(old)?;
    if split_path_version(&old_path).is_none() {
        return Err(format!("malformed module path {old_path:?}: invalid version"));
    }
    let old_version = match (arrow, texts.get(1)) {
        (2, Some(version)) => Some(version_of(&old_path, version)?),
        _ => None,
    };
    let new_path = string(new)?;
    let new_version = texts.get(arrow + 2).map(|version| canonical(version)).transpose()?;
    match (is_directory(&new_path), &new_version) {
        (true, Some(_)) => {
            return Err(format!("replacement module directory path {new_path:?} cannot have version"));
        }
        (false, None) if new_path.contains('@') => {
            return Err("replacement module must match format 'path version', not 'path@version'".to_owned());
        }
        (false, None) => {
            return Err(
                "replacement module without version must be directory path (rooted or starting with . or ..)"
                    .to_owned(),
            );
        }
        (true, None) if cfg!(not(windows)) && new_path.contains('\\') => {
            return Err(
                "replacement directory appears to be Windows path (on a non-windows system)".to_owned()
            );
        }
        _ => {}
    }
    Ok(Replace { old_path, old_version, new_path, new_version })
}

/// `modfile.IsDirectoryPath`.
fn is_directory(path: &str) -> bool {
    let bytes = path.as_bytes();
    path == "."
        || path == ".."
        || ["./", "../", "/", ".\\", "..\\", "\\"].iter().any(|prefix| path.starts_with(prefix))
        || (bytes.len() > 1
            && bytes.first().is_some_and(u8::is_ascii_alphabetic)
            && bytes.get(1) == Some(&b':'))
}

fn retract(texts: &[&str]) -> Result<Retract, String> {
    match texts {
        ["[", low, ",", high, "]"] => Ok(Retract { low: canonical(low)?, high: canonical(high)? }),
        [single] if *single != "[" => {
            let version = canonical(single)?;
            Ok(Retract { low: version.clone(), high: version })
        }
        ["[", ..] => Err("expected an interval of the form [v1.0.0, v1.1.0]".to_owned()),
        _ => Err("expected a version or an interval".to_owned()),
    }
}

/// Parses a path or version, bare or quoted.
fn string(text: &str) -> Result<String, String> {
    if text.starts_with('"') {
        unquoted(text).ok_or_else(|| format!("invalid quoted string: {text}"))
    } else if text.contains(['"', '\'', '`']) {
        Err("unquoted string cannot contain quote".to_owned())
    } else {
        Ok(text.to_owned())
    }
}

/// Parses the whole text as a string literal.
fn unquoted(text: &str) -> Option<String> {
    unquote(text).filter(|(_, rest)| rest.is_empty()).map(|(text, _)| text)
}

/// A line with its verb, which may be the block's.
struct Statement {
    line: usize,
    kind: StatementKind,
    tokens: Vec<Lexeme>,
    /// The text after `//`.
    comment: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum StatementKind {
    Alone,
    /// `verb (`.
    Opening,
    InBlock,
}

#[derive(Clone)]
struct Lexeme {
    text: String,
    column: usize,
}

fn statements(text: &str) -> Result<Vec<Statement>, ModFileError> {
    let mut statements = Vec::new();
    let mut block: Option<Lexeme> = None;
    let mut lines = text.split('\n').enumerate();
    while let Some((index, first)) = lines.next() {
        let line = index + 1;
        // A backslash at the end of a line joins the next one to it.
        let mut joined = first.to_owned();
        while joined.ends_with('\\') {
            let Some((_, next)) = lines.next() else { break };
            joined.pop();
            joined.push(' ');
            joined.push_str(next);
        }
        let (mut tokens, comment) =
            tokens(&joined).map_err(|(column, message)| ModFileError { line, column, message })?;
        let at = |token: &Lexeme, message: &str| ModFileError {
            line,
            column: token.column,
            message: message.to_owned(),
        };
        let texts: Vec<&str> = tokens.iter().map(|token| token.text.as_str()).collect();
        match (&block, texts.as_slice()) {
            (_, []) => continue,
            (Some(_), [")"]) => {
                block = None;
                continue;
            }
            (Some(_), [")", ..]) => {
                return Err(at(&tokens[0], "syntax error (expected newline after closing paren)"));
            }
            (None, [verb @ .., "("] | [verb @ .., "(", ")"]) if !verb.is_empty() => {
                // Several words before the parenthesis are an unknown block type.
                let column = tokens.first().map_or(1, |token| token.column);
                let verb = Lexeme { text: verb.join(" "), column };
                let tokens = vec![verb.clone()];
                if texts.last() == Some(&"(") {
                    block = Some(verb);
                }
                statements.push(Statement { line, kind: StatementKind::Opening, tokens, comment });
                continue;
            }
            _ => {}
        }
        let kind = if block.is_some() { StatementKind::InBlock } else { StatementKind::Alone };
        if let Some(verb) = &block {
            tokens.insert(0, verb.clone());
        }
        statements.push(Statement { line, kind, tokens, comment });
    }
    match block {
        Some(_) => Err(ModFileError {
            line: text.split('\n').count(),
            column: 1,
            message: "syntax error (unterminated block started by '(')".to_owned(),
        }),
        None => Ok(statements),
    }
}

/// The tokens of a line and its comment, or the column and cause of an error.
fn tokens(line: &str) -> Result<(Vec<Lexeme>, String), (usize, String)> {
    let mut tokens = Vec::new();
    let mut chars = line.char_indices().peekable();
    let mut column = 0;
    while let Some((start, c)) = chars.next() {
        column += 1;
        let began = column;
        let rest = line.get(start..).unwrap_or_default();
        if matches!(c, ' ' | '\t' | '\r') {
            continue;
        }
        if let Some(comment) = rest.strip_prefix("//") {
            return Ok((tokens, comment.to_owned()));
        }
        if rest.starts_with("/*") {
            return Err((began, "mod files must use // comments (not /* */ comments)".to_owned()));
        }
        let length = match c {
            '(' | ')' | '[' | ']' | '{' | '}' | ',' => 1,
            '"' | '`' => {
                quoted_length(rest, c).ok_or_else(|| (began, "unexpected newline in string".to_owned()))?
            }
            c if c.is_whitespace() || c == '\u{0}' => {
                return Err((began, format!("unexpected input character {c:?}")));
            }
            _ => identifier_length(rest)
                .ok_or_else(|| (began, "mod files must use // comments (not /* */ comments)".to_owned()))?,
        };
        tokens.push(Lexeme { text: rest.get(..length).unwrap_or_default().to_owned(), column: began });
        while chars.peek().is_some_and(|(at, _)| *at < start + length) {
            chars.next();
            column += 1;
        }
    }
    Ok((tokens, String::new()))
}

fn quoted_length(text: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        if escaped {
            escaped = false;
        } else if c == '\\' && quote == '"' {
            escaped = true;
        } else if c == quote {
            return Some(at + 1);
        }
    }
    None
}

/// `None` where a `/* */` comment starts inside.
fn identifier_length(text: &str) -> Option<usize> {
    let end = text
        .char_indices()
        .find(|(at, c)| {
            c.is_whitespace()
                || matches!(c, '(' | ')' | '[' | ']' | '{' | '}' | ',')
                || text.get(*at..).is_some_and(|rest| rest.starts_with("//") || rest.starts_with("/*"))
        })
        .map_or(text.len(), |(at, _)| at);
    (!text.get(end..).is_some_and(|rest| rest.starts_with("/*"))).then_some(end)
}

impl fmt::Display for GoMod {
    /// Formats as `go mod tidy` does.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut sections: Vec<String> = Vec::new();
        let single = |verb: &str, value: &Option<String>| {
            value.iter().map(|v| format!("{verb} {}\n", quoted(v))).collect::<String>()
        };
        sections.push(single("module", &self.module));
        sections.push(single("go", &self.go));
        sections.push(single("toolchain", &self.toolchain));
        sections.push(block("godebug", self.godebug.iter().cloned()));
        let requires = |indirect: bool| {
            let lines = self.require.iter().filter(move |line| line.indirect == indirect).map(move |line| {
                format!(
                    "{} {}{}",
                    quoted(&line.path),
                    quoted(&line.version),
                    if indirect { " // indirect" } else { "" }
                )
            });
            block("require", lines)
        };
        sections.push(requires(false));
        sections.push(requires(true));
        sections.push(block(
            "exclude",
            self.exclude.iter().map(|v| format!("{} {}", quoted(&v.path), quoted(&v.version))),
        ));
        sections.push(block(
            "replace",
            self.replace.iter().map(|replace| {
                let version = |version: &Option<String>| {
                    version.iter().map(|v| format!(" {}", quoted(v))).collect::<String>()
                };
                format!(
                    "{}{} => {}{}",
                    quoted(&replace.old_path),
                    version(&replace.old_version),
                    quoted(&replace.new_path),
                    version(&replace.new_version)
                )
            }),
        ));
        sections.push(block(
            "retract",
            self.retract.iter().map(
                |Retract { low, high }| {
                    if low == high { low.clone() } else { format!("[{low}, {high}]") }
                },
            ),
        ));
        sections.push(block("tool", self.tool.iter().map(|path| quoted(path))));
        sections.push(block("ignore", self.ignore.iter().map(|path| quoted(path))));
        sections.retain(|section| !section.is_empty());
        f.write_str(&sections.join("\n"))
    }
}

fn block(verb: &str, lines: impl Iterator<Item = String>) -> String {
    let lines: Vec<String> = lines.collect();
    match lines.as_slice() {
        [] => String::new(),
        [line] => format!("{verb} {line}\n"),
        lines => {
            format!("{verb} (\n{})\n", lines.iter().map(|line| format!("\t{line}\n")).collect::<String>())
        }
    }
}

/// Quotes a string if necessary (`modfile.AutoQuote`).
fn quoted(text: &str) -> String {
    let must = text.is_empty()
        || text.contains("//")
        || text.contains("/*")
        // Before the end of a line, it would continue the line.
        || text.ends_with('\\')
        || text.chars().any(|c| !is_printable(c) || " \"'`()[]{},".contains(c));
    if !must {
        return text.to_owned();
    }
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if is_printable(c) => quoted.push(c),
            '\u{7}' => quoted.push_str("\\a"),
            '\u{8}' => quoted.push_str("\\b"),
            '\u{c}' => quoted.push_str("\\f"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\u{b}' => quoted.push_str("\\v"),
            c if c.is_ascii() => quoted.push_str(&format!("\\x{:02x}", u32::from(c))),
            c if u32::from(c) < 0x1_0000 => quoted.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => quoted.push_str(&format!("\\U{:08x}", u32::from(c))),
        }
    }
    quoted.push('"');
    quoted
}

/// `unicode.IsPrint`.
fn is_printable(c: char) -> bool {
    use GeneralCategoryGroup::{Letter, Mark, Number, Punctuation, Symbol};
    c == ' ' || matches!(c.general_category_group(), Letter | Mark | Number | Punctuation | Symbol)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_where() {
        let error = GoMod::parse("module a.b/c\n\n  require a.b/d v1\n\trequire x\n").unwrap_err();
        assert_eq!((error.line, error.column), (4, 2));
    }
}
