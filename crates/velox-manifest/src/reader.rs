use std::ops::Range;

use toml_edit::{Item, Key, TableLike, Value};

use crate::{
    Diagnostic, Spanned,
    findings::DiagnosticSink,
    interpolate::{InterpolationError, interpolate, is_name},
    keys::TOP,
};

/// What reading needs everywhere: where mistakes go, and what variables are worth.
#[derive(Clone, Copy)]
pub(crate) struct ParseContext<'a> {
    pub(crate) findings: &'a DiagnosticSink<'a>,
    pub(crate) environment: &'a dyn Fn(&str) -> Option<String>,
}

/// A key with its value, of a type yet to be seen.
pub(crate) struct Field<'a> {
    pub(crate) key: &'a str,
    /// The key's own place.
    pub(crate) key_span: Option<Range<usize>>,
    pub(crate) reader: ParseContext<'a>,
    /// All keys down to here, for messages.
    path: String,
    item: &'a Item,
}

/// A table, in whichever way it was written, all of whose keys are known.
pub(crate) struct Section<'a> {
    /// Where something that is missing in it is reported.
    pub(crate) span: Option<Range<usize>>,
    pub(crate) reader: ParseContext<'a>,
    path: String,
    /// Whether it is one of many, `[[path]]`.
    listed: bool,
    known: &'static [&'static str],
    table: &'a dyn TableLike,
}

/// Which keys a table may have.
pub(crate) enum AllowedKeys {
    /// These, and no others.
    Keys(&'static [&'static str]),
    /// The user's own names.
    Names,
}

/// What people write, and what it is called here.
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
    /// The file itself.
    pub(crate) fn root(reader: ParseContext<'a>, table: &'a dyn TableLike) -> Self {
        Self { span: None, reader, path: String::new(), listed: false, known: TOP, table }.checked()
    }

    pub(crate) fn has(&self, key: &str) -> bool {
        self.field(key).is_some()
    }

    pub(crate) fn field(&self, key: &str) -> Option<Field<'a>> {
        let (key, item) = self.table.get_key_value(key)?;
        (!item.is_none()).then(|| self.wrap(key, item))
    }

    /// All of them, in the file's order.
    pub(crate) fn fields(&self) -> Vec<Field<'a>> {
        self.table.iter().filter_map(|(key, _)| self.field(key)).collect()
    }

    pub(crate) fn section(&self, key: &str, known: AllowedKeys) -> Option<Section<'a>> {
        self.field(key)?.section(known)
    }

    pub(crate) fn text(&self, key: &str) -> Option<Spanned<String>> {
        self.field(key)?.text()
    }

    /// As [`Section::text`], and it has to be there; `help` says what to write.
    pub(crate) fn required(&self, key: &str, help: &str) -> Option<Spanned<String>> {
        if !self.has(key) {
            self.missing(key, help);
        }
        self.text(key)
    }

    pub(crate) fn missing(&self, key: &str, help: &str) {
        // It is there, misspelled, and that was said.
        if self.unknown().any(|field| meant(field.key, self.known) == Some(key)) {
            return;
        }
        self.error(
            Diagnostic::error(format!("`{key}` is missing in {}", self.name()))
                .at(self.span.clone())
                .label(format!("has no `{key}`"))
                .help(help),
        );
    }

    pub(crate) fn bool(&self, key: &str) -> Option<bool> {
        let field = self.field(key)?;
        let value = field.item.as_bool();
        if value.is_none() {
            field.wrong_type("`true` or `false`, without quotes");
        }
        value
    }

    pub(crate) fn error(&self, diagnostic: Diagnostic) {
        self.reader.findings.push(diagnostic);
    }

    fn name(&self) -> String {
        match self {
            Self { path, .. } if path.is_empty() => "the file".to_owned(),
            Self { path, listed: true, .. } => format!("[[{path}]]"),
            Self { path, .. } => format!("[{path}]"),
        }
    }

    fn wrap(&self, key: &'a Key, item: &'a Item) -> Field<'a> {
        let path = if self.path.is_empty() {
            key.display_repr().into_owned()
        } else {
            format!("{}.{}", self.path, key.display_repr())
        };
        Field { key: key.get(), key_span: key.span(), reader: self.reader, path, item }
    }

    /// Its keys that are not known; none, where they are the user's own.
    fn unknown(&self) -> impl Iterator<Item = Field<'a>> {
        let known = self.known;
        self.fields().into_iter().filter(move |field| !known.is_empty() && !known.contains(&field.key))
    }

    fn checked(self) -> Self {
        let known = self.known;
        for field in self.unknown() {
            let mut diagnostic = Diagnostic::error(format!("unknown key `{}` in {}", field.key, self.name()))
                .at(field.key_span.clone());
            diagnostic = match meant(field.key, known) {
                Some(meant) => diagnostic.label(format!("did you mean `{meant}`?")),
                None if TOP.contains(&field.key) => diagnostic
                    .label("belongs to the top level")
                    .help(format!("write `{}` above the first [section] of the file", field.key)),
                None => diagnostic.label("not known here"),
            };
            self.error(diagnostic.help(format!("known keys: {}", known.join(", "))));
        }
        self
    }
}

impl<'a> Field<'a> {
    /// The value's place.
    pub(crate) fn span(&self) -> Option<Range<usize>> {
        self.item.span().or_else(|| self.key_span.clone())
    }

    pub(crate) fn error(&self, diagnostic: Diagnostic) {
        self.reader.findings.push(diagnostic);
    }

    /// A key of this table, without a word where it is none.
    pub(crate) fn inner(&self, key: &str) -> Option<Field<'a>> {
        let table = self.item.as_table_like()?;
        let path = self.path.clone();
        Section { span: None, reader: self.reader, path, listed: false, known: &[], table }.field(key)
    }

    /// Whether this is an empty table.
    pub(crate) fn is_empty(&self) -> bool {
        self.item.as_table_like().is_some_and(|table| table.is_empty())
    }

    pub(crate) fn integer(&self) -> Option<i64> {
        self.item.as_integer()
    }

    pub(crate) fn section(self, known: AllowedKeys) -> Option<Section<'a>> {
        let known = match known {
            AllowedKeys::Keys(known) => known,
            AllowedKeys::Names => &[],
        };
        let Some(table) = self.item.as_table_like() else {
            let keys = if known.is_empty() { String::new() } else { format!(" with {}", known.join(", ")) };
            self.wrong_type(&format!("a table{keys}"));
            return None;
        };
        let (span, reader, path) = (self.key_span, self.reader, self.path);
        Some(Section { span, reader, path, listed: false, known, table }.checked())
    }

    /// A list of tables: `[[name]]`, or inline tables in an array.
    pub(crate) fn sections(&self, known: &'static [&'static str]) -> Vec<Section<'a>> {
        type Place<'a> = (Option<Range<usize>>, &'a dyn TableLike);
        let tables: Option<Vec<Place<'a>>> = match self.item {
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
            self.wrong_type(&format!("a list of tables, each below its own [[{}]]", self.path));
            return Vec::new();
        };
        tables
            .into_iter()
            .map(|(span, table)| {
                let span = span.or_else(|| self.key_span.clone());
                let path = self.path.clone();
                Section { span, reader: self.reader, path, listed: true, known, table }.checked()
            })
            .collect()
    }

    /// A string with its variables still in it.
    pub(crate) fn raw(&self) -> Option<Spanned<String>> {
        let Some(value) = self.item.as_str() else {
            self.wrong_type("a string, in quotes");
            return None;
        };
        Some(Spanned { value: value.to_owned(), span: self.span() })
    }

    pub(crate) fn text(&self) -> Option<Spanned<String>> {
        self.reader.interpolated(self.raw()?)
    }

    /// The strings of an array, with their variables still in them.
    pub(crate) fn raw_strings(&self) -> Vec<Spanned<String>> {
        let strings = self.item.as_array().and_then(|array| {
            array
                .iter()
                .map(|value| Some(Spanned { value: value.as_str()?.to_owned(), span: value.span() }))
                .collect()
        });
        strings.unwrap_or_else(|| {
            self.wrong_type("a list of strings");
            Vec::new()
        })
    }

    pub(crate) fn wrong_type(&self, wanted: &str) {
        let found = match self.item {
            Item::Value(Value::String(_)) => "a string",
            Item::Value(Value::Integer(_)) => "an integer",
            Item::Value(Value::Float(_)) => "a number",
            Item::Value(Value::Boolean(_)) => "a boolean",
            Item::Value(Value::Datetime(_)) => "a date",
            Item::Value(Value::Array(_)) => "an array",
            Item::Value(Value::InlineTable(_)) | Item::Table(_) => "a table",
            Item::ArrayOfTables(_) => "a list of tables",
            Item::None => "nothing",
        };
        // A table's own span is its header or all of its lines: its key is what to look at.
        let span =
            if self.item.is_table() || self.item.is_array_of_tables() { None } else { self.item.span() };
        self.error(
            Diagnostic::error(format!("`{}` must be {wanted}", self.path))
                .at(span.or_else(|| self.key_span.clone()))
                .label(format!("this is {found}")),
        );
    }
}

impl ParseContext<'_> {
    /// The value with its variables replaced; where that can't be, the reason is a finding.
    pub(crate) fn interpolated(self, raw: Spanned<String>) -> Option<Spanned<String>> {
        match interpolate(&raw.value, self.environment) {
            Ok(value) => Some(Spanned { value, span: raw.span }),
            Err(failure) => {
                self.findings.push(uninterpolated(&failure).at(raw.span));
                None
            }
        }
    }

    /// As [`ParseContext::interpolated`] for a secret, where an unset variable and an empty text mean that there is none.
    pub(crate) fn secret(self, raw: Spanned<String>) -> Option<String> {
        if raw.value.strip_prefix('$').is_some_and(is_name) {
            self.findings.push(
                Diagnostic::warning(
                    "this token is taken as it stands: only `${NAME}` is replaced by a variable",
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
            Diagnostic::error(format!("the environment variable `{name}` is not set"))
                .label("needed here")
                .help(format!("set it before `vx`, or give a default: `${{{name}:-…}}`"))
        }
        InterpolationError::Unclosed => Diagnostic::error("`${` without its `}`")
            .label("starts a variable that never ends")
            .help("write `${NAME}` for a variable, `$$` for a dollar"),
        InterpolationError::Name => {
            Diagnostic::error("what stands in `${…}` can't be the name of a variable")
                .label("a name has letters, digits and `_`")
                .help("write `${NAME}` for a variable, `$$` for a dollar")
        }
    }
}

/// The nearest of `known` to what was written: one letter too many, too few or wrong is always near.
pub(crate) fn nearest<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let given = given.to_lowercase();
    known
        .into_iter()
        .map(|name| (strsim::jaro_winkler(&given, name), name))
        .filter(|(likeness, name)| *likeness > 0.75 || strsim::osa_distance(&given, name) == 1)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, name)| name)
}

fn meant<'a>(given: &str, known: &[&'a str]) -> Option<&'a str> {
    // Comparing takes the square of the length, and no key is that long.
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
