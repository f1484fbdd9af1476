use std::{
    cell::{Cell, RefCell},
    ops::Range,
};

use crate::{Diagnostic, Level, SourceFile, interpolate::is_name};

/// Limits the memory of diagnostics for a large invalid file.
const MAX_DIAGNOSTICS: usize = 200;

pub(crate) struct DiagnosticSink<'a> {
    source: &'a SourceFile,
    list: RefCell<Vec<(usize, Diagnostic)>>,
    omitted: Cell<usize>,
}

impl<'a> DiagnosticSink<'a> {
    pub(crate) fn new(source: &'a SourceFile) -> Self {
        Self { source, list: RefCell::default(), omitted: Cell::new(0) }
    }

    pub(crate) fn push(&self, diagnostic: Diagnostic) {
        let mut list = self.list.borrow_mut();
        if list.len() >= MAX_DIAGNOSTICS {
            self.omitted.set(self.omitted.get() + 1);
            return;
        }
        let place = diagnostic.span.as_ref().map_or(usize::MAX, |span| span.start);
        list.push((place, self.without_secrets(diagnostic)));
    }

    pub(crate) fn any_error(&self) -> bool {
        self.list.borrow().iter().any(|(_, diagnostic)| diagnostic.level == Level::Error)
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
        if self.omitted.get() > 0 {
            sorted.push(Diagnostic::error(format!("{} more errors not shown", self.omitted.get())));
        }
        sorted
    }

    /// Replaces the span by a line and column if its lines, which would be printed, may contain a secret.
    fn without_secrets(&self, diagnostic: Diagnostic) -> Diagnostic {
        let Some(span) = diagnostic.span.clone() else { return diagnostic };
        if !self.lines(&span).lines().any(contains_secret) {
            return diagnostic;
        }
        let (line, column) = self.source.line_column(span.start);
        Diagnostic {
            message: format!("{} (line {line}, column {column})", diagnostic.message),
            span: None,
            label: None,
            ..diagnostic
        }
        .help("the line is not shown because it may contain a token or a password")
    }

    /// The full lines that `span` covers.
    fn lines(&self, span: &Range<usize>) -> &str {
        let text = &self.source.text;
        let start = text.get(..span.start).and_then(|before| before.rfind('\n')).map_or(0, |at| at + 1);
        let end =
            text.get(span.end..).and_then(|after| after.find('\n')).map_or(text.len(), |at| span.end + at);
        text.get(start..end).unwrap_or(text)
    }
}

/// Whether a line assigns a literal secret, not only a variable, or contains a URL with user information.
fn contains_secret(line: &str) -> bool {
    let url =
        line.split("://").skip(1).any(|rest| rest.split(['"', '\'', ' ']).next().unwrap_or("").contains('@'));
    url || ["token", "password", "secret"].into_iter().any(|word| {
        line.match_indices(word).any(|(at, _)| line.get(at + word.len()..).is_some_and(assigns_a_secret))
    })
}

fn assigns_a_secret(after: &str) -> bool {
    let Some((between, value)) = after.split_once('=') else { return false };
    let key = between.chars().all(|c| c.is_alphanumeric() || c.is_whitespace() || "\"'._-".contains(c));
    let value = value.trim_start();
    let text = value.trim_start_matches(['"', '\'']);
    let text = text.split(['"', '\'']).next().unwrap_or(text).trim_end();
    let variable =
        text.strip_prefix("${").map(|name| name.strip_suffix('}').unwrap_or(name)).is_some_and(is_name);
    // A table or an empty string; the content of a multi-line string may start on the next line.
    let no_value = value.starts_with('{')
        || text.is_empty() && !value.starts_with("\"\"\"") && !value.starts_with("'''");
    key && !variable && !no_value
}
