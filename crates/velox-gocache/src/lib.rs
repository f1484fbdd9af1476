//! The go command's build cache, of use on its own: what was compiled once, by anyone, isn't compiled again.
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

/// What a cache is made of.
#[derive(Debug, Clone)]
pub struct GoCacheOptions {
    /// The folder that `go env GOCACHE` names.
    pub gocache: PathBuf,
    /// Where the team's cache is, as [`parse_remote`] gives it; `None`: only GOCACHE.
    pub remote: Option<Url>,
    /// Whether nothing is sent there.
    pub read_only: bool,
    /// Who may share: actions of another namespace are never looked at (`go1.26.8-linux-amd64`).
    pub namespace: String,
    /// Where credentials and regions of the remote come from (`AWS_*`, `GOOGLE_*`, `AZURE_*`).
    pub environment: BTreeMap<String, String>,
    /// How long the remote may take for one answer.
    pub timeout: Duration,
    /// How long a build may wait at its end for what is still to be sent.
    pub flush: Duration,
}

/// What a cache did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GoCacheStats {
    /// Answers from GOCACHE.
    pub local_hits: u64,
    /// Answers from the remote.
    pub remote_hits: u64,
    /// What neither had.
    pub misses: u64,
    /// What the go command brought.
    pub puts: u64,
    /// Bytes from the remote, as they were sent.
    pub bytes_down: u64,
    /// Bytes to the remote.
    pub bytes_up: u64,
    /// Why the remote was given up, or what of it failed; `None`: it worked. Never a secret.
    pub trouble: Option<String>,
}

/// Why there is no cache.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GoCacheError {
    /// A remote that is none.
    #[error("`{text}` is no remote cache: {why}")]
    Remote {
        /// What was given, without user information.
        text: String,
        /// What is wrong with it.
        why: String,
    },
    /// The go command said something else than the protocol.
    #[error("the go command's request can't be read: {0}")]
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
