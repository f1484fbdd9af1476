use std::ops::Range;

use velox_manifest::{Diagnostic, Level};

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

/// Who can do something about an [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Blame {
    /// Whoever asked: the same request comes to nothing as long as what it names is as it is.
    Request,
    /// The module proxies, forges and databases: the same request may work once they answer.
    Sources,
    /// Anybody else: the author of what doesn't compile, or the owner of this machine.
    #[default]
    Other,
}

/// Why a build ended without a binary.
#[derive(Debug, thiserror::Error)]
#[error("{}", diagnostics.first().map_or("interrupted", |d| d.message.as_str()))]
pub struct Error {
    /// What it is worth.
    pub kind: ErrorKind,
    /// What was asked, what happened, what to do; at least one, save for [`ErrorKind::Interrupted`].
    /// Spans point into [`crate::BuildRequest::source`].
    pub diagnostics: Vec<Diagnostic>,
    /// Lines of the compiler or another child command that explain it, already redacted.
    pub output: Vec<String>,
    /// Who can do something about it.
    pub fault: Blame,
}

impl Error {
    /// A failed operation.
    #[must_use]
    pub fn build(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Build, message.into())
    }

    /// An invalid configuration or argument.
    #[must_use]
    pub fn configuration(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Configuration, message.into())
    }

    /// The user interrupted it.
    #[must_use]
    pub fn interrupted() -> Self {
        Self::many(ErrorKind::Interrupted, Vec::new())
    }

    /// Many findings at once; the kind is the first one's to choose.
    #[must_use]
    pub fn many(kind: ErrorKind, diagnostics: Vec<Diagnostic>) -> Self {
        let fault = if kind == ErrorKind::Configuration { Blame::Request } else { Blame::Other };
        Self { kind, diagnostics, output: Vec::new(), fault }
    }

    pub(crate) fn fault(mut self, fault: Blame) -> Self {
        self.fault = fault;
        self
    }

    /// A failed operation on a file.
    #[must_use]
    pub fn file(verb: &str, path: &std::path::Path, error: &std::io::Error) -> Self {
        Self::build(format!("can't {verb} {}: {error}", path.display()))
    }

    /// Adds a `help:` line to the first diagnostic.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        if let Some(first) = self.diagnostics.first_mut() {
            first.help.push(help.into());
        }
        self
    }

    pub(crate) fn output(mut self, lines: Vec<String>) -> Self {
        self.output = lines;
        // The go command names a file, not the setting that put it there.
        let says = |sign: &str| self.output.iter().any(|line| line.to_ascii_lowercase().contains(sign));
        if says("no space left on device") {
            self.help("make room on that disk, or use another: VX_CACHE_DIR, GOMODCACHE, GOCACHE and TMPDIR name the directories")
        } else if says("failed to initialize build cache") {
            self.help("GOCACHE has to name a directory that can be written")
        } else {
            self
        }
    }

    fn new(kind: ErrorKind, message: String) -> Self {
        Self::many(kind, vec![finding(message, None, None)])
    }
}

/// Something that was downloaded, or is in a cache, isn't what its sum says.
pub(crate) fn checksum_mismatch(name: &str, text: &str) -> Error {
    Error::build(format!("{name} is not what its checksum says"))
        .help("someone changed the module after its sum was recorded, or changed it on the way: don't use it before you know which")
        .output(text.lines().map(str::to_owned).collect())
}

/// An error-level diagnostic with a place and a label.
pub(crate) fn finding(message: String, span: Option<Range<usize>>, label: Option<&str>) -> Diagnostic {
    Diagnostic { level: Level::Error, message, span, label: label.map(str::to_owned), help: Vec::new() }
}
