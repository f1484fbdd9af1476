use std::ops::Range;

use toml_edit::{Item, Key, TableLike, Value};

use crate::{
    Diagnostic, Spanned,
    findings::DiagnosticSink,
    interpolate::{InterpolationError, interpolate, is_name},
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
    item: &'a Item,
}

/// A table of any syntax, after its keys were checked.
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
    item: &'a dyn TableLike,
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

impl<'a> Section<'a> {
    pub(crate) fn root(reader: ParseContext<'a>, item: &'a dyn TableLike) -> Self {
        let (path, table) = (String::new(), String::new());
        Self { span: None, reader, path, listed: false, known: keys_of(""), table, item }.checked()
    }

    pub(crate) fn has(&self, key: &str) -> bool {
        self.field(key).is_some()
    }

    pub(crate) fn field(&self, key: &str) -> Option<Field<'a>> {
        let (key, item) = self.item.get_key_value(key)?;
        (!item.is_none()).then(|| self.wrap(key, item))
    }

    pub(crate) fn fields(&self) -> Vec<Field<'a>> {
        self.item.iter().filter_map(|(key, _)| self.field(key)).collect()
    }

    pub(crate) fn section(&self, key: &str) -> Option<Section<'a>> {
        self.field(key)?.section()
    }

    pub(crate) fn text(&self, key: &str) -> Option<Spanned<String>> {
        self.field(key)?.text()
    }

    /// Like [`Section::text`] for a required key; `help` describes a valid value.
    pub(crate) fn required(&self, key: &str, help: &str) -> Option<Spanned<String>> {
        if !self.has(key) {
            self.missing(key, help);
        }
        self.text(key)
    }

    pub(crate) fn missing(&self, key: &str, help: &str) {
        // The misspelled key was already reported.
        if self.unknown().any(|field| intended_key(field.key, &self.known) == Some(key)) {
            return;
        }
        self.error(
            Diagnostic::error(format!("missing key `{key}` in {}", self.name()))
                .at(self.span.clone())
                .label(format!("`{key}` is required here"))
                .help(help),
        );
    }

    pub(crate) fn bool(&self, key: &str) -> Option<bool> {
        let field = self.field(key)?;
        let value = field.item.as_bool();
        if value.is_none() {
            field.wrong_type("`true` or `false`");
        }
        value
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

    fn wrap(&self, key: &'a Key, item: &'a Item) -> Field<'a> {
        let join = |parent: &str, child: &str| {
            if parent.is_empty() { child.to_owned() } else { format!("{parent}.{child}") }
        };
        let path = join(&self.path, &key.display_repr());
        let table = join(&self.table, if self.known.is_empty() { "NAME" } else { key.get() });
        Field { key: key.get(), key_span: key.span(), reader: self.reader, path, table, item }
    }

    /// The unknown keys; none for user-defined keys.
    fn unknown(&self) -> impl Iterator<Item = Field<'a>> {
        let known = &self.known;
        self.fields().into_iter().filter(move |field| !known.is_empty() && !known.contains(&field.key))
    }

    fn checked(self) -> Self {
        for field in self.unknown() {
            let (key, name) = (field.key, self.name());
            let suggestion = intended_key(key, &self.known);
            let suggested = suggestion.map(|key| format!("; did you mean `{key}`?")).unwrap_or_default();
            let mut diagnostic = Diagnostic::error(format!("unknown key `{key}` in {name}{suggested}"))
                .at(field.key_span.clone())
                .label("unknown key");
            if suggestion.is_none() && keys_of("").contains(&key) {
                diagnostic = diagnostic
                    .label("this key belongs to the top level")
                    .help(format!("move `{key}` above the first [section] of the file"));
            }
            self.error(diagnostic.help(format!("known keys: {}", self.known.join(", "))));
        }
        self
    }
}

impl<'a> Field<'a> {
    pub(crate) fn span(&self) -> Option<Range<usize>> {
        self.item.span().or_else(|| self.key_span.clone())
    }

    pub(crate) fn error(&self, diagnostic: Diagnostic) {
        self.reader.findings.push(diagnostic);
    }

    /// A key of this table; `None` without a report if this is not a table.
    pub(crate) fn inner(&self, key: &str) -> Option<Field<'a>> {
        self.below(self.item.as_table_like()?, None, false).field(key)
    }

    fn below(&self, item: &'a dyn TableLike, span: Option<Range<usize>>, listed: bool) -> Section<'a> {
        let (path, table) = (self.path.clone(), self.table.clone());
        Section { span, reader: self.reader, path, listed, known: keys_of(&table), table, item }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.item.as_table_like().is_some_and(|table| table.is_empty())
    }

    pub(crate) fn integer(&self) -> Option<i64> {
        self.item.as_integer()
    }

    pub(crate) fn section(self) -> Option<Section<'a>> {
        let Some(item) = self.item.as_table_like() else {
            self.wrong_type("a table");
            return None;
        };
        Some(self.below(item, self.key_span.clone(), false).checked())
    }

    /// The elements of an array of tables: `[[name]]`, or an array of inline tables.
    pub(crate) fn sections(&self) -> Vec<Section<'a>> {
        let tables: Option<Vec<(_, &dyn TableLike)>> = match self.item {
            Item::ArrayOfTables(tables) => {
                Some(tables.iter().map(|table| (table.span(), table as &dyn TableLike)).collect())
            }
            Item::Value(Value::Array(values)) => values
                .iter()
                .map(|value| value.as_inline_table().map(|table| (table.span(), table as &dyn TableLike)))
                .collect(),
            _ => None,
        };
        let Some(tables) = tables else {
            self.wrong_type(&format!("an array of tables (`[[{}]]`)", self.path));
            return Vec::new();
        };
        tables
            .into_iter()
            .map(|(span, item)| self.below(item, span.or_else(|| self.key_span.clone()), true).checked())
            .collect()
    }

    /// A string before interpolation.
    pub(crate) fn raw(&self) -> Option<Spanned<String>> {
        let Some(value) = self.item.as_str() else {
            self.wrong_type("a string");
            return None;
        };
        Some(Spanned { value: value.to_owned(), span: self.span() })
    }

    pub(crate) fn text(&self) -> Option<Spanned<String>> {
        self.reader.interpolated(self.raw()?)
    }

    /// The strings of an array before interpolation.
    pub(crate) fn raw_strings(&self) -> Vec<Spanned<String>> {
        let strings = self.item.as_array().and_then(|array| {
            array
                .iter()
                .map(|value| Some(Spanned { value: value.as_str()?.to_owned(), span: value.span() }))
                .collect()
        });
        strings.unwrap_or_else(|| {
            self.wrong_type("an array of strings");
            Vec::new()
        })
    }

    pub(crate) fn wrong_type(&self, expected: &str) {
        let found = match self.item {
            Item::Value(Value::String(_)) => "a string",
            Item::Value(Value::Integer(_)) => "an integer",
            Item::Value(Value::Float(_)) => "a float",
            Item::Value(Value::Boolean(_)) => "a boolean",
            Item::Value(Value::Datetime(_)) => "a datetime",
            Item::Value(Value::Array(_)) => "an array",
            Item::Value(Value::InlineTable(_)) | Item::Table(_) => "a table",
            Item::ArrayOfTables(_) => "an array of tables",
            Item::None => "nothing",
        };
        // The span of a table is its header or all of its lines: the key is more precise.
        let span =
            if self.item.is_table() || self.item.is_array_of_tables() { None } else { self.item.span() };
        self.error(
            Diagnostic::error(format!(
                "invalid type for `{}`: expected {expected}, found {found}",
                self.path
            ))
            .at(span.or_else(|| self.key_span.clone()))
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

    /// Like [`ParseContext::interpolated`] for a secret: an unset variable or an empty text is `None`.
    pub(crate) fn secret(self, raw: Spanned<String>) -> Option<String> {
        if raw.value.strip_prefix('$').is_some_and(is_name) {
            self.findings.push(
                Diagnostic::warning(
                    "the token is used literally: only `${NAME}` refers to an environment variable",
                )
                .at(raw.span.clone())
                .help("write the variable's name in braces: `token = \"${NAME}\"`"),
            );
        }
        match interpolate(&raw.value, self.environment) {
            Ok(value) => Some(value.trim().to_owned()).filter(|value| !value.is_empty()),
            Err(InterpolationError::Unset(_)) => None,
            Err(failure) => {
                self.findings.push(uninterpolated(&failure).at(raw.span));
                None
            }
        }
    }
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

fn intended_key<'a>(given: &str, known: &[&'a str]) -> Option<&'a str> {
    // The comparison takes quadratic time, and no key is this long.
    if given.len() > 64 {
        return None;
    }
    let synonyms = SYNONYMS.iter().find(|(written, _)| *written == given).map_or(&[][..], |(_, names)| names);
    known
        .iter()
        .copied()
        .find(|name| synonyms.contains(name))
        .or_else(|| nearest(given, known.iter().copied()))
}
