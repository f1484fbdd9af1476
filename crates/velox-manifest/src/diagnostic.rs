use std::{fmt, ops::Range};

/// A configuration text with the name under which the user knows it.
#[derive(Clone, PartialEq, Eq)]
pub struct SourceFile {
    /// The file's path as the user gave it, for `--> velox.toml:3:5`.
    pub name: String,
    /// The whole text.
    pub text: String,
}

impl SourceFile {
    /// Line and column of a byte offset, both from 1, the column in characters. An offset past the end counts as the end,
    /// one inside a character as that character's.
    #[must_use]
    pub fn line_column(&self, offset: usize) -> (usize, usize) {
        let before = &self.text[..self.text.floor_char_boundary(offset)];
        let line = before.rsplit('\n').next().unwrap_or_default();
        (before.matches('\n').count() + 1, line.chars().count() + 1)
    }
}

/// Without the text: a token may be written in it.
impl fmt::Debug for SourceFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").field("name", &self.name).finish_non_exhaustive()
    }
}

/// How much a [`Diagnostic`] matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// The build can't go on.
    Error,
    /// The build goes on; the user should know.
    Warning,
}

/// A finding about the configuration: what, where, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// Error or warning.
    pub level: Level,
    /// What is wrong, in one line, without a full stop.
    pub message: String,
    /// The byte range in [`SourceFile::text`] that it is about; `None` where it is about the file as a whole.
    pub span: Option<Range<usize>>,
    /// A few words that stand beside the caret.
    pub label: Option<String>,
    /// What to do, a sentence each.
    pub help: Vec<String>,
}

impl Diagnostic {
    /// An error without a span.
    #[must_use]
    pub fn error(message: impl Into<String>) -> Self {
        Self { level: Level::Error, message: message.into(), span: None, label: None, help: Vec::new() }
    }

    /// A warning without a span.
    #[must_use]
    pub fn warning(message: impl Into<String>) -> Self {
        Self { level: Level::Warning, ..Self::error(message) }
    }

    /// Sets the span.
    #[must_use]
    pub fn at(self, span: impl Into<Option<Range<usize>>>) -> Self {
        Self { span: span.into(), ..self }
    }

    /// Sets the label.
    #[must_use]
    pub fn label(self, label: impl Into<String>) -> Self {
        Self { label: Some(label.into()), ..self }
    }

    /// Adds a help text.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help.push(help.into());
        self
    }
}
