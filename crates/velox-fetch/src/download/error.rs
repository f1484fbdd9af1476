use std::fmt;

use velox_gomod::module;

use crate::{ModCacheError, sumdb::SumDbError};

/// Why a module isn't there.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DownloadError {
    /// The module path or version is malformed.
    #[error(transparent)]
    Module(#[from] module::ModuleError),
    /// Only the go command can fetch it: GONOPROXY covers it, or only `direct` is left.
    #[error("{module} is to be fetched without a proxy")]
    NeedsGo {
        /// `path@version`.
        module: String,
        /// The proxies that were asked before, and couldn't serve it.
        tried: Vec<ProxyAttempt>,
    },
    /// GOPROXY ends with `off`.
    #[error("{module}: GOPROXY forbids to download it")]
    Off {
        /// `path@version`.
        module: String,
    },
    /// No proxy has it.
    #[error("{module}: {}", tried.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Download {
        /// `path@version`.
        module: String,
        /// The proxies that were asked, in their order.
        tried: Vec<ProxyAttempt>,
    },
    /// It is not what its sum says.
    #[error("{module} is not what its checksum says: its {file} has the sum {found}, {expected} is expected")]
    Mismatch {
        /// `path@version`.
        module: String,
        /// `zip` or `go.mod`.
        file: &'static str,
        /// Its sum.
        found: String,
        /// What it should be.
        expected: String,
    },
    /// The checksum database can't be asked, or contradicts itself.
    #[error("{module} can't be verified: {source}")]
    Database {
        /// `path@version`.
        module: String,
        /// What is wrong.
        source: SumDbError,
    },
    /// The zip is none of this module.
    #[error("{source} (from {host})")]
    Refused {
        /// `path@version`.
        module: String,
        /// The proxy that sent it.
        host: String,
        /// What is wrong with it.
        source: Box<ModCacheError>,
    },
    /// GOMODCACHE can't be used, or has another module of this name.
    #[error(transparent)]
    Cache(#[from] ModCacheError),
    /// A task ended early.
    #[error("{module}: the download was given up")]
    Stopped {
        /// `path@version`.
        module: String,
    },
}

/// A proxy that couldn't serve a module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyAttempt {
    /// Its host, with the port where there is one; of a `file://` proxy its folder. Never a password.
    pub host: String,
    /// What it said.
    pub why: String,
}

impl fmt::Display for ProxyAttempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.host, self.why)
    }
}
