use std::{
    cell::{Cell, RefCell},
    ops::Range,
};

use crate::{
    Diagnostic, Level, SourceFile,
    document::{ConfigNode, ConfigValue},
    interpolate::only_variable,
};

/// Limits the memory of diagnostics for a large invalid file, separately for errors and warnings.
const MAX_DIAGNOSTICS: usize = 200;

/// Keys of secrets contain one of these words.
const SECRET_WORDS: [&str; 3] = ["token", "password", "secret"];

pub(crate) struct DiagnosticSink<'a> {
    source: &'a SourceFile,
    list: RefCell<Vec<(usize, Diagnostic)>>,
    errors: Cell<usize>,
    warnings: Cell<usize>,
    /// The places of literal secrets.
    secrets: RefCell<Vec<Range<usize>>>,
}

impl<'a> DiagnosticSink<'a> {
    pub(crate) fn new(source: &'a SourceFile) -> Self {
        Self {
            source,
            list: RefCell::default(),
            errors: Cell::new(0),
            warnings: Cell::new(0),
            secrets: RefCell::default(),
        }
    }

    pub(crate) fn push(&self, diagnostic: Diagnostic) {
        let count = match diagnostic.level {
            Level::Error => &self.errors,
            Level::Warning => &self.warnings,
        };
        count.set(count.get() + 1);
        if count.get() > MAX_DIAGNOSTICS {
            return;
        }
        let place = diagnostic.span.as_ref().map_or(usize::MAX, |span| span.start);
        let diagnostic = self.with_file(self.without_secrets(diagnostic));
        self.list.borrow_mut().push((place, diagnostic));
    }

    /// Never shows the lines of literal tokens and passwords below `node`.
    pub(crate) fn hide_secrets(&self, node: &ConfigNode) {
        match &node.value {
            ConfigValue::Array(nodes) => nodes.iter().for_each(|node| self.hide_secrets(node)),
            ConfigValue::Table(entries) => {
                for entry in entries {
                    let key = entry.key.to_lowercase();
                    let is_secret = match &entry.node.value {
                        ConfigValue::Table(_) | ConfigValue::Null => false,
                        ConfigValue::Text(text) => !text.is_empty() && only_variable(text).is_none(),
                        _ => true,
                    };
                    if is_secret && SECRET_WORDS.iter().any(|word| key.contains(word)) {
                        self.secrets.borrow_mut().extend(entry.node.span.clone());
                    }
                    self.hide_secrets(&entry.node);
                }
            }
            _ => {}
        }
    }

    pub(crate) fn any_error(&self) -> bool {
        self.errors.get() > 0
    }

    pub(crate) fn line(&self, offset: usize) -> usize {
        self.source.line_column(offset).0
    }

    /// Redacts a secret in all diagnostics: a reported value may contain its variable.
    pub(crate) fn conceal(&self, secret: &str) {
        let concealed = |text: &mut String| {
            if text.contains(secret) {
                *text = text.replace(secret, "[redacted]");
            }
        };
        for (_, diagnostic) in self.list.borrow_mut().iter_mut() {
            concealed(&mut diagnostic.message);
            diagnostic.label.iter_mut().chain(&mut diagnostic.help).for_each(concealed);
        }
    }

    /// The diagnostics in text order; those without a span come last.
    pub(crate) fn finish(self) -> Vec<Diagnostic> {
        let mut list = self.list.into_inner();
        list.sort_by_key(|(place, _)| *place);
        let mut sorted: Vec<_> = list.into_iter().map(|(_, diagnostic)| diagnostic).collect();
        let omitted = |count: usize| count.saturating_sub(MAX_DIAGNOSTICS);
        let (errors, warnings) = (omitted(self.errors.get()), omitted(self.warnings.get()));
        if warnings > 0 {
            sorted.push(Diagnostic::warning(format!("{warnings} more warnings not shown")));
        }
        if errors > 0 {
            sorted.push(Diagnostic::error(format!("{errors} more errors not shown")));
        }
        sorted
    }

    /// Replaces the span by a line and column if its lines, which would be printed, may contain a secret.
    fn without_secrets(&self, mut diagnostic: Diagnostic) -> Diagnostic {
        diagnostic.related = diagnostic.related.filter(|related| !self.is_secret(&related.span));
        let Some(span) = diagnostic.span.clone().filter(|span| self.is_secret(span)) else {
            return diagnostic;
        };
        let (line, column) = self.source.line_column(span.start);
        Diagnostic {
            message: format!("{} ({}:{line}:{column})", diagnostic.message, self.source.name),
            span: None,
            label: None,
            ..diagnostic
        }
        .help("the line is not shown because it may contain a token or a password")
    }

    /// Names the file in a diagnostic that has no place in it.
    fn with_file(&self, diagnostic: Diagnostic) -> Diagnostic {
        let name = &self.source.name;
        if diagnostic.span.is_some() || diagnostic.message.contains(name.as_str()) {
            return diagnostic;
        }
        Diagnostic { message: format!("{} in `{name}`", diagnostic.message), ..diagnostic }
    }

    fn is_secret(&self, span: &Range<usize>) -> bool {
        let lines = self.lines(span);
        self.text(&lines).lines().any(contains_secret)
            || self.secrets.borrow().iter().any(|secret| secret.start < lines.end && lines.start < secret.end)
    }

    fn text(&self, span: &Range<usize>) -> &str {
        self.source.text.get(span.clone()).unwrap_or(&self.source.text)
    }

    /// The full lines that `span` covers.
    fn lines(&self, span: &Range<usize>) -> Range<usize> {
        let text = &self.source.text;
        let start = text.get(..span.start).and_then(|before| before.rfind('\n')).map_or(0, |at| at + 1);
        let end =
            text.get(span.end..).and_then(|after| after.find('\n')).map_or(text.len(), |at| span.end + at);
        start..end
    }
}

/// Whether a line assigns a literal secret, not only a variable, or contains a URL with user information.
fn contains_secret(line: &str) -> bool {
    let url =
        line.split("://").skip(1).any(|rest| rest.split(['"', '\'', ' ']).next().unwrap_or("").contains('@'));
    let line = line.to_ascii_lowercase();
    url || SECRET_WORDS.into_iter().any(|word| {
        line.match_indices(word).any(|(at, _)| line.get(at + word.len()..).is_some_and(assigns_a_secret))
    })
}

fn assigns_a_secret(after: &str) -> bool {
    let Some((between, value)) = after.split_once(['=', ':']) else { return false };
    let key = between.chars().all(|c| c.is_alphanumeric() || c.is_whitespace() || "\"'._-".contains(c));
    let value = value.trim_start();
    let text = value.trim_start_matches(['"', '\'']);
    let text = text.split(['"', '\'']).next().unwrap_or(text).trim_end();
    // Unquoted in YAML, braces of the tables around it may follow.
    let bare = text.trim_end_matches(['}', ',', ' ']);
    let variable = [text, bare, &format!("{bare}}}")].into_iter().any(|text| only_variable(text).is_some());
    // A table or an empty string; the content of a multi-line string may start on the next line.
    let no_value = value.starts_with('{')
        || text.is_empty() && !value.starts_with("\"\"\"") && !value.starts_with("'''");
    key && !variable && !no_value
}
