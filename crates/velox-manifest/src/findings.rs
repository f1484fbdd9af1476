use std::{
    cell::{Cell, RefCell},
    ops::Range,
};

use crate::{Diagnostic, Level, Source};

/// Nobody reads more of them, and a file of megabytes must not make gigabytes of messages.
const MOST: usize = 200;

/// Collects what is wrong with a text.
pub(crate) struct Findings<'a> {
    source: &'a Source,
    list: RefCell<Vec<(usize, Diagnostic)>>,
    left_out: Cell<usize>,
}

impl<'a> Findings<'a> {
    pub(crate) fn new(source: &'a Source) -> Self {
        Self { source, list: RefCell::default(), left_out: Cell::new(0) }
    }

    pub(crate) fn push(&self, diagnostic: Diagnostic) {
        let mut list = self.list.borrow_mut();
        if list.len() >= MOST {
            self.left_out.set(self.left_out.get() + 1);
            return;
        }
        let place = diagnostic.span.as_ref().map_or(usize::MAX, |span| span.start);
        list.push((place, self.without_secrets(diagnostic)));
    }

    pub(crate) fn any_error(&self) -> bool {
        self.list.borrow().iter().any(|(_, diagnostic)| diagnostic.level == Level::Error)
    }

    /// Where `offset` is, for a message about one place that names another.
    pub(crate) fn line(&self, offset: usize) -> usize {
        self.source.line_column(offset).0
    }

    /// What was found, in the order of the text; what is about the whole comes last.
    pub(crate) fn finish(self) -> Vec<Diagnostic> {
        let mut list = self.list.into_inner();
        list.sort_by_key(|(place, _)| *place);
        let mut sorted: Vec<_> = list.into_iter().map(|(_, diagnostic)| diagnostic).collect();
        if self.left_out.get() > 0 {
            sorted.push(Diagnostic::error(format!("{} more mistakes are not shown", self.left_out.get())));
        }
        sorted
    }

    /// Whoever shows a diagnostic shows the lines of its span. A line with a secret is only named.
    fn without_secrets(&self, diagnostic: Diagnostic) -> Diagnostic {
        let Some(span) = diagnostic.span.clone() else { return diagnostic };
        if !self.lines(&span).lines().any(shows_a_secret) {
            return diagnostic;
        }
        let (line, column) = self.source.line_column(span.start);
        Diagnostic {
            message: format!("{} (line {line}, column {column})", diagnostic.message),
            span: None,
            label: None,
            ..diagnostic
        }
        .help("the line is not shown, since it may hold a token or a password")
    }

    /// The whole lines that `span` touches.
    fn lines(&self, span: &Range<usize>) -> &str {
        let text = &self.source.text;
        let start = text.get(..span.start).and_then(|before| before.rfind('\n')).map_or(0, |at| at + 1);
        let end =
            text.get(span.end..).and_then(|after| after.find('\n')).map_or(text.len(), |at| span.end + at);
        text.get(start..end).unwrap_or(text)
    }
}

/// Whether a line assigns a token that is more than variables, or holds a URL with user information.
fn shows_a_secret(line: &str) -> bool {
    let url = line
        .split("://")
        .skip(1)
        .any(|rest| rest.split(['/', '"', '\'', ' ']).next().unwrap_or("").contains('@'));
    let mut rest = line;
    while let Some((_, after)) = rest.split_once("token") {
        rest = after;
        let Some((between, value)) = after.split_once('=') else { continue };
        let assigned = between
            .chars()
            .all(|c| c.is_whitespace() || matches!(c, '"' | '\'' | '.') || c.is_alphanumeric());
        let value = value.trim_start_matches(|c: char| c.is_whitespace() || matches!(c, '"' | '\''));
        let plain = ["${", "{", "true", "false"].iter().any(|harmless| value.starts_with(harmless))
            || value.is_empty();
        if assigned && !plain {
            return true;
        }
    }
    url
}
