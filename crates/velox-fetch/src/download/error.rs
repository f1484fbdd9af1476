use std::fmt;

use velox_gomod::module::ModuleError;

use crate::{modcache::ModCacheError, proxy::ProxyError, sumdb::SumDbError};

/// A failed module download.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DownloadError {
    /// The module path or version is malformed.
    #[error(transparent)]
    Module(#[from] ModuleError),
    /// Only the go command can download it: GONOPROXY matches, or GOPROXY continues with `direct`.
    #[error("failed to download {module}: GOPROXY or GONOPROXY require a direct download")]
    NeedsGo {
        /// `path@version`
        module: String,
        /// The failed proxies.
        tried: Vec<ProxyAttempt>,
    },
    /// GOPROXY is `off`.
    #[error("failed to download {module}: GOPROXY is `off`")]
    Off {
        /// `path@version`
        module: String,
    },
    /// No proxy serves it.
    #[error("failed to download {module}: {}", ProxyAttempt::join(tried))]
    Download {
        /// `path@version`
        module: String,
        /// The failed proxies, in order.
        tried: Vec<ProxyAttempt>,
    },
    /// The checksum doesn't match the expected one.
    #[error(
        "verification failed: checksum mismatch for the {file} of {module}: expected {expected}, found {found}"
    )]
    Mismatch {
        /// `path@version`
        module: String,
        /// `zip` or `go.mod`
        file: &'static str,
        /// The actual checksum.
        found: String,
        /// The expected checksum, or several joined by "or".
        expected: String,
    },
    /// Querying the checksum database or verifying its response failed.
    #[error("failed to verify {module}: {source}")]
    Database {
        /// `path@version`
        module: String,
        /// The cause.
        source: SumDbError,
    },
    /// A proxy sent a zip that isn't a valid zip of this module.
    #[error("{source} (from {host})")]
    InvalidZip {
        /// `path@version`
        module: String,
        /// The proxy.
        host: String,
        /// The cause.
        source: Box<ModCacheError>,
    },
    /// The module cache is unusable, or has different content for this module.
    #[error(transparent)]
    Cache(#[from] ModCacheError),
    /// The task was cancelled.
    #[error("download of {module} was cancelled")]
    Cancelled {
        /// `path@version`
        module: String,
    },
}

/// A failed attempt to get a module from a proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyAttempt {
    /// The host and port, or the directory of a `file://` proxy, without credentials.
    pub host: String,
    /// The cause.
    pub error: ProxyError,
}

impl ProxyAttempt {
    /// All failures in one line.
    #[must_use]
    pub fn join(tried: &[Self]) -> String {
        tried.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    }
}

impl fmt::Display for ProxyAttempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.host, self.error)
    }
}
