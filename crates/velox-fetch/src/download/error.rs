use std::fmt;

use velox_gomod::module::ModuleError;

use crate::{modcache::ModCacheError, proxy::ProxyError, sumdb::SumDbError};

/// Why a module can't be downloaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DownloadError {
    /// The module path or version is malformed.
    #[error(transparent)]
    Module(#[from] ModuleError),
    /// Only the go command can download it: GONOPROXY matches it, or `direct` is next in GOPROXY.
    #[error("failed to download {module}: GOPROXY or GONOPROXY require a direct download")]
    NeedsGo {
        /// `path@version`
        module: String,
        /// The proxies that were asked before.
        tried: Vec<ProxyAttempt>,
    },
    /// GOPROXY is `off`.
    #[error("failed to download {module}: GOPROXY is `off`")]
    Off {
        /// `path@version`
        module: String,
    },
    /// No proxy serves it.
    #[error("failed to download {module}: {}", tried.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Download {
        /// `path@version`
        module: String,
        /// The proxies that were asked, in their order.
        tried: Vec<ProxyAttempt>,
    },
    /// Its sum is another than the expected one.
    #[error(
        "verification failed: checksum mismatch for the {file} of {module}: expected {expected}, found {found}"
    )]
    Mismatch {
        /// `path@version`
        module: String,
        /// `zip` or `go.mod`
        file: &'static str,
        /// Its sum.
        found: String,
        /// The expected sum, or several joined by "or".
        expected: String,
    },
    /// The checksum database can't be queried, or its answer can't be verified.
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
    /// GOMODCACHE can't be used, or contains another module with this path and version.
    #[error(transparent)]
    Cache(#[from] ModCacheError),
    /// The task was cancelled.
    #[error("download of {module} was cancelled")]
    Cancelled {
        /// `path@version`
        module: String,
    },
}

/// A proxy that didn't serve a module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyAttempt {
    /// The host, with its port if the URL has one; the directory of a `file://` proxy. Never a password.
    pub host: String,
    /// The cause.
    pub error: ProxyError,
}

impl fmt::Display for ProxyAttempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.host, self.error)
    }
}
