use std::{collections::HashMap, ops::Range};

use crate::{
    Diagnostic, DiagnosticKind, Spanned,
    document::{self, ConfigEntry, ConfigNode, ConfigValue, duplicate_key},
    findings::DiagnosticSink,
    interpolate::{InterpolationError, interpolate, is_placeholder},
    reference::keys_of,
};

/// The diagnostics and environment variables of a parser.
#[derive(Clone, Copy)]
pub(crate) struct ParseContext<'a> {
    pub(crate) findings: &'a DiagnosticSink<'a>,
    pub(crate) environment: &'a dyn Fn(&str) -> Option<String>,
}

/// A key with its untyped value.
pub(crate) struct Field<'a> {
    pub(crate) key: &'a str,
    pub(crate) key_span: Option<Range<usize>>,
    pub(crate) reader: ParseContext<'a>,
    /// The full dotted path, for messages.
    path: String,
    /// The name of the table at this key in [`TABLES`](crate::TABLES).
    table: String,
    node: &'a ConfigNode,
}

/// A table, after its keys were checked.
pub(crate) struct Section<'a> {
    /// The span at which a missing key is reported.
    pub(crate) span: Option<Range<usize>>,
    pub(crate) reader: ParseContext<'a>,
    path: String,
    /// Whether it is an element of `[[path]]`.
    listed: bool,
    /// The name in [`TABLES`](crate::TABLES).
    table: String,
    /// The valid keys; empty for user-defined keys.
    known: Vec<&'static str>,
    node: &'a ConfigNode,
}

/// Common wrong key names, and the intended keys.
const SYNONYMS: &[(&str, &[&str])] = &[
    ("branch", &["ref", "tag"]),
    ("commit", &["ref", "tag"]),
    ("dir", &["folder"]),
    ("directory", &["folder"]),
    ("module", &["module_name"]),
    ("name", &["module_name", "repository"]),
    ("path", &["module_name", "folder"]),
    ("project", &["repository"]),
    ("ref", &["tag"]),
    ("repo", &["repository"]),
    ("sha", &["ref", "tag"]),
    ("subdir", &["folder"]),
    ("tag", &["ref", "version"]),
    ("url", &["endpoint", "base_url"]),
    ("user", &["owner"]),
    ("version", &["ref", "tag"]),
];

/// The keys outside of any table, which TOML reads as part of the last table if they follow one.
const TOP_LEVEL_KEYS: &[&str] = &["strict"];

impl<'a> Section<'a> {
    pub(crate) fn root(reader: ParseContext<'a>, node: &'a ConfigNode) -> Self {
        let (path, table) = (String::new(), String::new());
        Self { span: None, reader, path, listed: false, known: keys_of(""), table, node }.checked()
    }

    /// Whether the key is present, even without a value.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.field(key).is_some()
    }

    pub(crate) fn field(&self, key: &str) -> Option<Field<'a>> {
        self.node.get(key).map(|entry| self.wrap(entry))
    }

    pub(crate) fn fields(&self) -> Vec<Field<'a>> {
        self.node.entries().unwrap_or_default().iter().map(|entry| self.wrap(entry)).collect()
    }

    pub(crate) fn section(&self, key: &str) -> Option<Section<'a>> {
        self.field(key)?.section()
    }

    /// The text of an optional key; an empty one counts as missing.
    pub(crate) fn text(&self, key: &str) -> Option<Spanned<String>> {
        self.field(key)?.text().filter(|text| !text.value.is_empty())
    }

    /// The text of an optional key: `None` if it is invalid, `Some(None)` if it is missing or empty.
    pub(crate) fn optional(&self, key: &str) -> Option<Option<Spanned<String>>> {
        match self.field(key) {
            Some(field) => Some(Some(field.text()?).filter(|text| !text.value.is_empty())),
            None => Some(None),
        }
    }

    /// The text of a required key, which may be empty; `help` describes a valid value.
    pub(crate) fn required(&self, key: &str, help: &str) -> Option<Spanned<String>> {
        if !self.has(key) {
            self.missing(key, help);
        }
        match key {
            "ref" | "tag" | "version" => self.version(key),
            _ => self.field(key)?.text(),
        }
    }

    /// The text of a key with a version, which may be empty; a variable with a placeholder counts as not set.
    pub(crate) fn version(&self, key: &str) -> Option<Spanned<String>> {
        let raw = self.field(key)?.raw()?;
        let environment = self.reader.environment;
        let secret = std::cell::RefCell::new(None);
        let set = |name: &str| {
            let value = environment(name).filter(|value| value.is_empty() || !is_placeholder(value))?;
            if is_secret(name, &value) {
                secret.replace(Some(name.to_owned()));
            }
            Some(value)
        };
        let interpolated = interpolate(&raw.value, &set);
        // Its value would be in messages, and in requests to forges and proxies.
        if let Some(name) = secret.take() {
            let diagnostic =
                Diagnostic::error(format!("environment variable `{name}` has a token, not a version"))
                    .at(raw.span)
                    .label("a version is expected here")
                    .help("name a tag, a branch or a commit; a token belongs in `token`");
            self.error(diagnostic);
            return None;
        }
        match interpolated {
            Ok(value) => Some(Spanned { value, span: raw.span }),
            Err(failure) => {
                let mut diagnostic = uninterpolated(&failure).at(raw.span);
                if let InterpolationError::Unset(name) = &failure
                    && let Some(placeholder) = environment(name)
                {
                    diagnostic.message =
                        format!("environment variable `{name}` is `{placeholder}`, which counts as not set");
                }
                self.error(diagnostic);
                None
            }
        }
    }

    pub(crate) fn missing(&self, key: &str, help: &str) {
        // The misspelled key was already reported.
        if self.unknown().any(|field| self.intended_key(&field.key.to_lowercase()) == Some(key)) {
            return;
        }
        self.error(
            Diagnostic::error(format!("missing key `{key}` in {}", self.name()))
                .at(self.span.clone())
                .label(format!("`{key}` is required here"))
                .help(help),
        );
    }

    /// A boolean, also as the text that Velox took for one.
    pub(crate) fn bool(&self, key: &str) -> Option<bool> {
        let field = self.field(key)?;
        let value = match &field.node.value {
            ConfigValue::Boolean(value) => return Some(*value),
            _ if field.node.is_unset() => return None,
            ConfigValue::Text(_) => field.text()?.value,
            ConfigValue::Integer(number) => number.clone(),
            _ => String::new(),
        };
        let value = match value.trim() {
            "1" | "t" | "T" | "TRUE" | "true" | "True" => true,
            "0" | "f" | "F" | "FALSE" | "false" | "False" => false,
            _ => {
                field.wrong_type("`true` or `false`");
                return None;
            }
        };
        field.coerced("`true` or `false`", &value.to_string(), &format!("write `{value}` without quotes"));
        Some(value)
    }

    pub(crate) fn error(&self, diagnostic: Diagnostic) {
        self.reader.findings.push(diagnostic);
    }

    fn name(&self) -> String {
        match self {
            Self { path, .. } if path.is_empty() => "the top level".to_owned(),
            Self { path, listed: true, .. } => format!("`[[{path}]]`"),
            Self { path, .. } => format!("`[{path}]`"),
        }
    }

    fn wrap(&self, entry: &'a ConfigEntry) -> Field<'a> {
        let join = |parent: &str, child: &str| {
            if parent.is_empty() { child.to_owned() } else { format!("{parent}.{child}") }
        };
        let known = self.known.iter().find(|known| known.eq_ignore_ascii_case(&entry.key));
        let path =
            join(&self.path, &known.map_or_else(|| document::key(&entry.key), |known| (*known).to_owned()));
        let table = join(&self.table, if self.known.is_empty() { "NAME" } else { known.unwrap_or(&"") });
        Field {
            key: &entry.key,
            key_span: entry.span.clone(),
            reader: self.reader,
            path,
            table,
            node: &entry.node,
        }
    }

    /// The unknown keys; none for user-defined keys.
    fn unknown(&self) -> impl Iterator<Item = Field<'a>> {
        let known = &self.known;
        let is_known = |key: &str| known.iter().any(|known| known.eq_ignore_ascii_case(key));
        self.fields().into_iter().filter(move |field| !known.is_empty() && !is_known(field.key))
    }

    /// The key that was meant by an unknown one, in lower case.
    fn intended_key(&self, given: &str) -> Option<&'static str> {
        // The comparison takes quadratic time, and no key is this long.
        if given.len() > 64 {
            return None;
        }
        let synonyms =
            SYNONYMS.iter().find(|(written, _)| *written == given).map_or(&[][..], |(_, names)| names);
        // Beside the key that it could mean, `version` or `url` is a remark.
        let synonym = self.known.iter().find(|name| synonyms.contains(name)).filter(|name| !self.has(name));
        synonym.or_else(|| self.known.iter().find(|name| is_misspelled(given, name))).copied()
    }

    fn checked(self) -> Self {
        self.report_duplicates();
        for field in self.unknown() {
            let (key, name) = (field.key, self.name());
            let lower = key.to_lowercase();
            let intended = self.intended_key(&lower);
            let is_misplaced = intended.is_none() && TOP_LEVEL_KEYS.contains(&lower.as_str());
            let what = match field.node.value {
                ConfigValue::Table(_) if self.path.is_empty() => {
                    format!("unknown table `[{}]`", document::key(key))
                }
                _ => format!("unknown key `{key}` in {name}"),
            };
            let known = format!("known keys: {}", self.known.join(", "));
            let diagnostic = match intended {
                Some(intended) => {
                    let message = format!("unknown key `{key}` in {name}; did you mean `{intended}`?");
                    Diagnostic::error(message).label("unknown key").help(known)
                }
                None if is_misplaced => Diagnostic::error(what)
                    .label("this key belongs to the top level")
                    .help(format!("move `{key}` above the first [section] of the file"))
                    .help(known),
                None => Diagnostic {
                    kind: DiagnosticKind::UnknownKey,
                    ..Diagnostic::warning(what).label("unknown, and ignored")
                },
            };
            self.error(diagnostic.at(field.key_span.clone()));
        }
        self
    }

    /// Reports keys that are there twice, which TOML itself forbids unless they differ in the case of letters.
    fn report_duplicates(&self) {
        let entries = self.node.entries().unwrap_or_default();
        let mut seen: HashMap<String, &ConfigEntry> = HashMap::new();
        for entry in entries {
            let name = if self.known.is_empty() { entry.key.clone() } else { entry.key.to_ascii_lowercase() };
            if let Some(first) = seen.get(&name) {
                let diagnostic = match &entry.span {
                    Some(span) => duplicate_key(&entry.key, span.clone(), first.span.clone()),
                    None => Diagnostic::error(format!("duplicate key `{}`", entry.key)),
                };
                self.error(diagnostic);
            } else {
                seen.insert(name, entry);
            }
        }
    }
}

impl<'a> Field<'a> {
    pub(crate) fn span(&self) -> Option<Range<usize>> {
        self.node.span.clone().or_else(|| self.key_span.clone())
    }

    pub(crate) fn error(&self, diagnostic: Diagnostic) {
        self.reader.findings.push(diagnostic);
    }

    /// Reads the tables below as those of another table of [`TABLES`](crate::TABLES).
    pub(crate) fn like(self, table: &str) -> Self {
        Self { table: table.to_owned(), ..self }
    }

    /// A key of this table; `None` without a report if this is not a table.
    pub(crate) fn inner(&self, key: &str) -> Option<Field<'a>> {
        self.node.entries()?;
        self.below(self.node, None, false).field(key)
    }

    /// The values of this table; none if this is not a table.
    pub(crate) fn values(&self) -> Vec<Field<'a>> {
        self.below(self.node, None, false).fields()
    }

    fn below(&self, node: &'a ConfigNode, span: Option<Range<usize>>, listed: bool) -> Section<'a> {
        let (path, table) = (self.path.clone(), self.table.clone());
        Section { span, reader: self.reader, path, listed, known: keys_of(&table), table, node }
    }

    /// Whether there is no value, or an empty text.
    pub(crate) fn is_unset(&self) -> bool {
        self.node.is_unset()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.node.is_unset() || self.node.entries().is_some_and(<[_]>::is_empty)
    }

    pub(crate) fn integer(&self) -> Option<i64> {
        match &self.node.value {
            ConfigValue::Integer(number) => number.parse().ok(),
            _ => None,
        }
    }

    pub(crate) fn section(self) -> Option<Section<'a>> {
        match self.node.value {
            ConfigValue::Table(_) => {}
            // `github:` with nothing below it.
            ConfigValue::Null => return None,
            _ => {
                self.wrong_type("a table");
                return None;
            }
        }
        Some(self.below(self.node, self.key_span.clone(), false).checked())
    }

    /// The elements of an array of tables: `[[name]]`, or an array of inline tables.
    pub(crate) fn sections(&self) -> Vec<Section<'a>> {
        let tables = match &self.node.value {
            ConfigValue::Null => return Vec::new(),
            ConfigValue::Array(nodes) => {
                Some(nodes).filter(|nodes| nodes.iter().all(|node| node.entries().is_some()))
            }
            _ => None,
        };
        let Some(tables) = tables else {
            self.wrong_type(&format!("an array of tables (`[[{}]]`)", self.path));
            return Vec::new();
        };
        tables
            .iter()
            .map(|node| self.below(node, node.span.clone().or_else(|| self.key_span.clone()), true).checked())
            .collect()
    }

    /// A secret before interpolation; a number, which a warning would show, is no secret.
    pub(crate) fn raw_secret(&self) -> Option<Spanned<String>> {
        match self.node.value {
            ConfigValue::Text(_) | ConfigValue::Null => self.raw(),
            _ => {
                self.wrong_type("a string");
                None
            }
        }
    }

    /// A string before interpolation; a number counts as its text, as it did in Velox.
    pub(crate) fn raw(&self) -> Option<Spanned<String>> {
        let value = match &self.node.value {
            ConfigValue::Text(text) => text.clone(),
            ConfigValue::Null => String::new(),
            ConfigValue::Integer(number) | ConfigValue::Float(number) | ConfigValue::Datetime(number) => {
                self.coerced("a string", &format!("\"{number}\""), "write it in quotes");
                number.clone()
            }
            ConfigValue::Boolean(_) | ConfigValue::Array(_) | ConfigValue::Table(_) => {
                self.wrong_type("a string");
                return None;
            }
        };
        Some(Spanned { value, span: self.span() })
    }

    pub(crate) fn text(&self) -> Option<Spanned<String>> {
        self.reader.interpolated(self.raw()?)
    }

    /// The strings of an array.
    pub(crate) fn texts(&self) -> Vec<Spanned<String>> {
        self.raw_strings().into_iter().filter_map(|raw| self.reader.interpolated(raw)).collect()
    }

    /// The strings of an array before interpolation; a single string counts as a list with commas, as it did in Velox.
    pub(crate) fn raw_strings(&self) -> Vec<Spanned<String>> {
        let text = |node: &ConfigNode| match &node.value {
            ConfigValue::Text(text) => Some(Spanned { value: text.clone(), span: node.span.clone() }),
            _ => None,
        };
        let strings: Option<Vec<_>> = match &self.node.value {
            ConfigValue::Array(nodes) => nodes.iter().map(text).collect(),
            ConfigValue::Text(list) if !list.is_empty() => {
                self.coerced("an array of strings", "a list with commas", "write `[\"…\", \"…\"]`");
                let string = |value: &str| Spanned { value: value.to_owned(), span: self.span() };
                Some(list.split(',').map(string).collect())
            }
            _ if self.node.is_unset() => Some(Vec::new()),
            _ => None,
        };
        strings.unwrap_or_else(|| {
            self.wrong_type("an array of strings");
            Vec::new()
        })
    }

    /// Says that a value of another type is read as if it had the right one.
    fn coerced(&self, expected: &str, read_as: &str, help: &str) {
        self.error(
            Diagnostic::warning(format!("`{}` is {}, not {expected}", self.path, self.node.kind()))
                .at(self.span())
                .label(format!("read as {read_as}"))
                .help(help),
        );
    }

    pub(crate) fn wrong_type(&self, expected: &str) {
        self.error(
            Diagnostic::error(format!(
                "invalid type for `{}`: expected {expected}, found {}",
                self.path,
                self.node.kind()
            ))
            .at(self.span())
            .label(format!("expected {expected}")),
        );
    }
}

impl ParseContext<'_> {
    /// Interpolates variables, and reports a failure.
    pub(crate) fn interpolated(self, raw: Spanned<String>) -> Option<Spanned<String>> {
        match interpolate(&raw.value, self.environment) {
            Ok(value) => Some(Spanned { value, span: raw.span }),
            Err(failure) => {
                self.findings.push(uninterpolated(&failure).at(raw.span));
                None
            }
        }
    }

    /// Like [`ParseContext::interpolated`] for a secret: an unset variable or a placeholder is `None`.
    pub(crate) fn secret(self, raw: Spanned<String>) -> Option<String> {
        match interpolate(&raw.value, self.environment) {
            Ok(value) => Some(value.trim().to_owned()).filter(|value| !is_placeholder(value)),
            Err(InterpolationError::Unset(_)) => None,
            Err(failure) => {
                self.findings.push(uninterpolated(&failure).at(raw.span));
                None
            }
        }
    }
}

/// Whether a variable has a credential, by its name or by the prefix that forges give their tokens.
fn is_secret(name: &str, value: &str) -> bool {
    let name = name.to_ascii_uppercase();
    let words = ["TOKEN", "SECRET", "PASSWORD", "PASSWD", "CREDENTIAL", "API_KEY"];
    let prefixes = ["ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "glpat-", "gldt-", "glcbt-"];
    !value.is_empty()
        && (words.iter().any(|word| name.contains(word))
            || prefixes.iter().any(|prefix| value.starts_with(prefix)))
}

fn uninterpolated(failure: &InterpolationError) -> Diagnostic {
    match failure {
        InterpolationError::Unset(name) => {
            Diagnostic::error(format!("environment variable `{name}` is not set"))
                .label("required here")
                .help(format!("set it, or give a default: `${{{name}:-…}}`"))
        }
        InterpolationError::Unclosed => Diagnostic::error("unclosed `${`")
            .label("missing `}`")
            .help("write `${NAME}` for a variable, `$$` for a dollar sign"),
        InterpolationError::Name => Diagnostic::error("invalid variable name in `${…}`")
            .label("a name has letters, digits and `_`")
            .help("write `${NAME}` for a variable, `$$` for a dollar sign"),
    }
}

/// The error that a configuration with plugins of these names has none of this name.
#[must_use]
pub fn unknown_plugin(name: &str, names: &[&str]) -> Diagnostic {
    let unknown = Diagnostic::error(format!("no plugin named `{name}` in the configuration"));
    match nearest(name, names.iter().copied()) {
        Some(near) => unknown.help(format!("did you mean `{near}`?")),
        None if names.is_empty() => unknown.help("the configuration has no plugins"),
        None => unknown.help(format!("the plugins are: {}", names.join(", "))),
    }
}

/// The most similar candidate; one inserted, missing or wrong letter is always similar.
pub(crate) fn nearest<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let given = given.to_lowercase();
    known
        .into_iter()
        .map(|name| (strsim::jaro_winkler(&given, name), name))
        .filter(|(likeness, name)| *likeness > 0.75 || strsim::osa_distance(&given, name) == 1)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, name)| name)
}

/// Whether a key is a known one with a typing error: a quarter of its letters at most.
fn is_misspelled(given: &str, known: &str) -> bool {
    let letters = |name: &str| name.replace(['_', '-'], "");
    let (given, known) = (letters(given), letters(known));
    strsim::osa_distance(&given, &known) <= (known.len() / 4).max(1)
}
