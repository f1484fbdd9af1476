use std::{fmt, ops::Range, path::Path};

/// A configuration text and its name in diagnostics.
#[derive(Clone, PartialEq, Eq)]
pub struct SourceFile {
    /// The path as the user wrote it, for `--> velox.toml:3:5`.
    pub name: String,
    /// The text.
    pub text: String,
}

/// The syntax of a configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum ConfigSyntax {
    Toml,
    Yaml,
    Json,
}

impl SourceFile {
    /// The syntax that the extension of the name selects: TOML, except for `.yaml`, `.yml` and `.json`.
    #[must_use]
    pub fn syntax(&self) -> ConfigSyntax {
        let extension = Path::new(&self.name).extension().and_then(|extension| extension.to_str());
        match extension.map(str::to_ascii_lowercase).as_deref() {
            Some("yaml" | "yml") => ConfigSyntax::Yaml,
            Some("json") => ConfigSyntax::Json,
            _ => ConfigSyntax::Toml,
        }
    }

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
    /// Another place that belongs to it, such as the first of two definitions.
    pub related: Option<Box<RelatedSpan>>,
    /// Help messages.
    pub help: Vec<String>,
    /// What it is about, if that matters to a caller.
    pub kind: DiagnosticKind,
}

/// A second place of a [`Diagnostic`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelatedSpan {
    /// The byte range in [`SourceFile::text`].
    pub span: Range<usize>,
    /// A short label.
    pub label: String,
}

/// What a [`Diagnostic`] is about.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DiagnosticKind {
    /// Anything that no caller treats differently.
    #[default]
    Other,
    /// A key or table that has no meaning, and is ignored: `--strict` makes an error of it.
    UnknownKey,
}

impl Diagnostic {
    /// An error without a span.
    #[must_use]
    pub fn error(message: impl Into<String>) -> Self {
        Self {
            level: Level::Error,
            message: message.into(),
            span: None,
            label: None,
            related: None,
            help: Vec::new(),
            kind: DiagnosticKind::Other,
        }
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

    /// Sets a second place.
    #[must_use]
    pub fn related(self, span: Range<usize>, label: impl Into<String>) -> Self {
        Self { related: Some(Box::new(RelatedSpan { span, label: label.into() })), ..self }
    }

    /// Adds a help text.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help.push(help.into());
        self
    }
}
