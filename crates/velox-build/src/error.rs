use velox_manifest::Diagnostic;

/// Which exit code an [`Error`] is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The configuration or the command line is wrong: exit code 2.
    Configuration,
    /// The build failed: exit code 1.
    Build,
    /// The user interrupted it: exit code 130.
    Interrupted,
}

/// Why a build ended without a binary.
#[derive(Debug, thiserror::Error)]
#[error("{}", diagnostics.first().map_or("interrupted", |d| d.message.as_str()))]
pub struct Error {
    /// What it is worth.
    pub kind: ErrorKind,
    /// What was asked, what happened, what to do; at least one, save for [`ErrorKind::Interrupted`].
    /// Spans point into [`crate::Request::source`].
    pub diagnostics: Vec<Diagnostic>,
    /// Lines of the compiler or another child command that explain it, already redacted.
    pub output: Vec<String>,
}
