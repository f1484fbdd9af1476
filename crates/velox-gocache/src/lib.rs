//! A server for the go command's build cache that a team shares, of use on its own.
//!
//! [`serve`] speaks Go's [GOCACHEPROG protocol](https://pkg.go.dev/cmd/go/internal/cacheprog). It answers from the user's
//! own GOCACHE, in the go command's own format, so that switching it on or off costs nothing; and from a remote, a
//! directory or a bucket, that it fills with what this machine compiled.
//!
//! Whoever can write to the remote decides what everyone else compiles in: outputs are verified by their own digest, but
//! that an output belongs to an action is the writer's word. Untrusted machines get read access at most.

mod disk;
mod protocol;
mod remote;
mod serve;

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use url::Url;

pub use remote::{open_remote, parse_remote, store_error_summary};
pub use serve::serve;

/// The settings of [`serve`].
#[derive(Debug, Clone)]
pub struct GoCacheOptions {
    /// The folder that `go env GOCACHE` names.
    pub gocache: PathBuf,
    /// The remote cache, from [`parse_remote`]; `None`: only GOCACHE.
    pub remote: Option<Url>,
    /// Whether nothing is uploaded.
    pub read_only: bool,
    /// Who may share: actions of another namespace are never looked at (`go1.26.8-linux-amd64`).
    pub namespace: String,
    /// Where credentials and regions of the remote come from (`AWS_*`, `GOOGLE_*`, `AZURE_*`).
    pub environment: BTreeMap<String, String>,
    /// The limit of one request to the remote.
    pub timeout: Duration,
    /// How long a build may wait at its end for uploads.
    pub flush: Duration,
}

/// The statistics of a cache.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GoCacheStats {
    /// Hits in GOCACHE.
    pub local_hits: u64,
    /// Hits in the remote.
    pub remote_hits: u64,
    /// Requests that neither had.
    pub misses: u64,
    /// Outputs from the go command.
    pub puts: u64,
    /// Downloaded bytes, compressed.
    pub bytes_down: u64,
    /// Uploaded bytes, compressed.
    pub bytes_up: u64,
    /// Why the remote was disabled, or what failed; `None`: it worked. Never a secret.
    pub trouble: Option<String>,
}

/// Why the cache can't be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GoCacheError {
    /// The remote is invalid.
    #[error("invalid remote cache `{text}`: {why}")]
    Remote {
        /// The value, without user information.
        text: String,
        /// The cause.
        why: String,
    },
    /// The go command sent an invalid request.
    #[error("malformed GOCACHEPROG request: {0}")]
    Protocol(String),
    /// GOCACHE or the pipes to the go command failed.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// A SHA-256, as actions and outputs are named.
pub(crate) type CacheId = [u8; 32];

/// The stored name of an id.
pub(crate) fn hex(id: &CacheId) -> String {
    HEXLOWER.encode(id)
}

pub(crate) fn unhex(text: &str) -> Option<CacheId> {
    HEXLOWER.decode(text.as_bytes()).ok()?.try_into().ok()
}
