use std::{fmt, ops::Range};

/// A configuration text and its name in diagnostics.
#[derive(Clone, PartialEq, Eq)]
pub struct SourceFile {
    /// The path as the user wrote it, for `--> velox.toml:3:5`.
    pub name: String,
    /// The text.
    pub text: String,
}

impl SourceFile {
    /// The 1-based line and column, in characters, of a byte offset, which is clamped to the text.
    #[must_use]
    pub fn line_column(&self, offset: usize) -> (usize, usize) {
        let before = &self.text[..self.text.floor_char_boundary(offset)];
        let line = before.rsplit('\n').next().unwrap_or_default();
        (before.matches('\n').count() + 1, line.chars().count() + 1)
    }
}

/// Omits the text, which may contain a token.
impl fmt::Debug for SourceFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The severity of a [`Diagnostic`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// The build fails.
    Error,
    /// The build continues.
    Warning,
}

/// An error or warning about the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// The severity.
    pub level: Level,
    /// A one-line message, without a full stop.
    pub message: String,
    /// The byte range in [`SourceFile::text`]; `None` for the whole file.
    pub span: Option<Range<usize>>,
    /// A short label beside the caret.
    pub label: Option<String>,
    /// Help messages.
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
