//! The binaries, each by the SHA-256 of its bytes.

mod folder;
mod object;

use std::{ops::Range, path::Path, time::SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;

pub use self::{folder::Folder, object::Objects};
use crate::store::StoreError;

/// A binary that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Its size in bytes.
    pub size: u64,
}

/// Where the binaries are. One is there whole or not at all.
#[async_trait]
pub trait Artifacts: Send + Sync {
    /// Keeps the file. The same again is no error.
    async fn put(&self, sha256: &str, file: &Path) -> Result<(), StoreError>;

    /// Whether it is there.
    async fn find(&self, sha256: &str) -> Result<Option<Stored>, StoreError>;

    /// Its bytes in `range`, which lies within it, piece by piece: memory doesn't grow with the size.
    async fn read(
        &self,
        sha256: &str,
        range: Range<u64>,
    ) -> Result<BoxStream<'static, Result<Bytes, StoreError>>, StoreError>;

    /// Whether the store answers: for readiness.
    async fn ready(&self) -> Result<(), StoreError>;
}

/// A binary in a list of all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredArtifact {
    /// Its name.
    pub sha256: String,
    /// Its size in bytes.
    pub size: u64,
    /// When it was stored or, where that is known, last asked for, within some minutes.
    pub used: SystemTime,
}

/// Artifacts that can be removed.
#[async_trait]
pub trait Clears: Artifacts {
    /// All that are there, in no order; what has no artifact's name is none.
    async fn list(&self) -> Result<Vec<StoredArtifact>, StoreError>;

    /// Removes one, unless it was used or stored since it was listed: then `false`, as where it is gone already.
    async fn remove(&self, filed: StoredArtifact) -> Result<bool, StoreError>;
}
