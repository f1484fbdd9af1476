use std::ops::Range;

use tokio_util::sync::CancellationToken;
use velox_manifest::Diagnostic;

const FULL_DISK_HELP: &str =
    "free some space, or use another disk: VX_CACHE_DIR, GOMODCACHE, GOCACHE and TMPDIR name the directories";

/// The kind of an [`Error`], which decides the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// Invalid configuration or arguments: exit code 2.
    Configuration,
    /// A failed build: exit code 1.
    Build,
    /// Interrupted by the user: exit code 130.
    Interrupted,
}

/// Who can act on an [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Blame {
    /// The author of the request: retries fail until the request or the named modules change.
    Request,
    /// The module proxies, forges and databases: a retry may succeed.
    Sources,
    /// Others: the author of code that doesn't compile, or the administrator of this machine.
    #[default]
    Other,
}

/// Why a build failed.
#[derive(Debug, thiserror::Error)]
#[error("{}", diagnostics.first().map_or("interrupted", |d| d.message.as_str()))]
pub struct Error {
    /// Its kind.
    pub kind: ErrorKind,
    /// At least one, except for [`ErrorKind::Interrupted`]. Spans refer to [`crate::BuildRequest::source`].
    pub diagnostics: Vec<Diagnostic>,
    /// Output of a child process that explains the error, without secrets.
    pub output: Vec<String>,
    /// Who can act on it.
    pub fault: Blame,
}

impl Error {
    /// A failed operation.
    #[must_use]
    pub fn build(message: impl Into<String>) -> Self {
        Self::many(ErrorKind::Build, vec![Diagnostic::error(message)])
    }

    /// An invalid configuration or argument.
    #[must_use]
    pub fn configuration(message: impl Into<String>) -> Self {
        Diagnostic::error(message).into()
    }

    /// The user interrupted it.
    #[must_use]
    pub fn interrupted() -> Self {
        Self::many(ErrorKind::Interrupted, Vec::new())
    }

    /// Several diagnostics.
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
        let failed = Self::build(format!("failed to {verb} `{}`: {error}", path.display()));
        match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                failed.help(FULL_DISK_HELP)
            }
            _ => failed,
        }
    }

    /// Adds a `help:` line to the first diagnostic.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        if let Some(first) = self.diagnostics.first_mut() {
            first.help.push(help.into());
        }
        self
    }

    /// Points the first diagnostic to this place in the configuration, if it has none.
    pub(crate) fn at(mut self, span: &Option<Range<usize>>) -> Self {
        if let Some(first) = self.diagnostics.first_mut().filter(|first| first.span.is_none()) {
            first.span.clone_from(span);
        }
        self
    }

    /// Adds lines of a compiler or another child process.
    #[must_use]
    pub fn output(mut self, lines: Vec<String>) -> Self {
        self.output = lines;
        // The go command names the file, but not the setting of its directory.
        let says = |sign: &str| self.output.iter().any(|line| line.to_ascii_lowercase().contains(sign));
        if says("no space left on device") {
            self.help(FULL_DISK_HELP)
        } else if says("failed to initialize build cache") {
            self.help("set GOCACHE to a writable directory")
        } else {
            self
        }
    }
}

/// An invalid configuration or argument.
impl From<Diagnostic> for Error {
    fn from(diagnostic: Diagnostic) -> Self {
        Self::many(ErrorKind::Configuration, vec![diagnostic])
    }
}

/// The result of `work`.
///
/// # Errors
/// It was interrupted.
pub async fn until_cancelled<T>(
    cancel: &CancellationToken,
    work: impl Future<Output = T>,
) -> Result<T, Error> {
    cancel.run_until_cancelled(work).await.ok_or_else(Error::interrupted)
}

/// A download or a cached file with another checksum than recorded.
pub(crate) fn checksum_mismatch(name: &str, text: &str) -> Error {
    Error::build(format!("verification failed: checksum mismatch for {name}"))
        .help("the module was changed after its checksum was recorded, or in transit: find out which before you use it")
        .output(text.lines().map(str::to_owned).collect())
}
