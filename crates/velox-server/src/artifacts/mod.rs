//! The binaries, each by the SHA-256 of its bytes.

mod folder;
mod object;

use std::{ops::Range, path::Path};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;

pub use self::{
    folder::{Filed, Folder},
    object::Objects,
};
use crate::StoreError;

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
