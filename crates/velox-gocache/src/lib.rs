//! A shared build cache for the go command.
//!
//! [`serve`] implements Go's [GOCACHEPROG protocol](https://pkg.go.dev/cmd/go/internal/cacheprog). It reads
//! from the local GOCACHE in the go command's format, and from remote directories or buckets. It uploads new
//! outputs to the first of them. The same remotes keep finished binaries ([`RemoteArtifacts`]).
//!
//! Writers to a remote must be trusted: outputs are verified by their digest, but the mapping from actions
//! to outputs isn't. Untrusted machines should have read access at most.

mod artifact;
mod disk;
mod location;
mod pack;
mod protocol;
mod publish;
mod registry;
mod remote;
mod serve;

use std::{collections::BTreeMap, fmt, path::PathBuf, sync::Arc, time::Duration};

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use url::Url;

pub use artifact::{ArtifactFile, ArtifactName, RemoteArtifact, RemoteArtifactError, RemoteArtifacts};
pub use location::{
    is_registry, open_remote, parse_cache, parse_remote, registry_reference, store_error_summary,
};
pub use publish::{CachePublication, CacheSigner, PublishError, PublishedCache, SignMessage};
pub use serve::serve;

/// The settings of [`serve`].
#[derive(Debug, Clone)]
pub struct GoCacheOptions {
    /// The directory of `go env GOCACHE`.
    pub gocache: PathBuf,
    /// The remote caches, from [`parse_cache`], in the order in which they are asked. Only the first one gets uploads.
    pub remotes: Vec<Url>,
    /// Whether uploads are disabled.
    pub read_only: bool,
    /// Verifies caches in registries that are not pinned by a digest.
    pub trusted_key: Option<SignatureVerifier>,
    /// The namespace of the remotes' actions (`go1.26.8-linux-amd64`).
    pub namespace: String,
    /// Credentials and regions of the remotes (`AWS_*`, `GOOGLE_*`, `AZURE_*`), and the settings of registries.
    pub environment: BTreeMap<String, String>,
    /// The timeout of a request to a remote.
    pub timeout: Duration,
    /// The timeout for remaining uploads at the end of a build.
    pub flush: Duration,
}

/// Whether a signature (the second value) is that of a message.
pub type VerifySignature = dyn Fn(&[u8], &[u8]) -> bool + Send + Sync;

/// A key that verifies signatures.
#[derive(Clone)]
pub struct SignatureVerifier(pub Arc<VerifySignature>);

impl fmt::Debug for SignatureVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SignatureVerifier")
    }
}

/// The statistics of a cache.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GoCacheStats {
    /// Hits in GOCACHE.
    pub local_hits: u64,
    /// Hits in the remotes.
    pub remote_hits: u64,
    /// Misses in all of them.
    pub misses: u64,
    /// Outputs written by the go command.
    pub puts: u64,
    /// Compressed downloaded bytes.
    pub bytes_down: u64,
    /// Compressed uploaded bytes.
    pub bytes_up: u64,
    /// The failures of the remotes, if any, without secrets.
    pub trouble: Option<String>,
    /// The remotes that were disabled because they failed.
    pub disabled: Vec<Url>,
}

/// An error serving the cache.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GoCacheError {
    /// The remote URL is invalid.
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

/// The SHA-256 id of an action or output.
pub(crate) type CacheId = [u8; 32];

/// The file name of an id.
pub(crate) fn hex(id: &CacheId) -> String {
    HEXLOWER.encode(id)
}

pub(crate) fn unhex(text: &str) -> Option<CacheId> {
    HEXLOWER.decode(text.as_bytes()).ok()?.try_into().ok()
}
