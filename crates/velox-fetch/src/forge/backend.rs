use std::path::Path;

use async_trait::async_trait;

use super::{ForgeError, ForgeTag, ResolvedRef};

/// The operations of [`RemoteRepository`](super::RemoteRepository); each kind of server has its own.
#[async_trait(?Send)]
pub(crate) trait Backend: Send + Sync {
    fn host(&self) -> String;
    async fn resolve(&self, reference: Option<&str>) -> Result<ResolvedRef, ForgeError>;
    /// The content of a file, or [`ForgeError::NotFound`].
    async fn file(&self, path: &str, commit: &str) -> Result<Vec<u8>, ForgeError>;
    async fn tags(&self) -> Result<Vec<ForgeTag>, ForgeError>;
    async fn is_ancestor(&self, ancestor: &str, commit: &str) -> Result<bool, ForgeError>;
    async fn is_public(&self) -> Result<bool, ForgeError>;
    async fn tree(&self, commit: &str, into: &Path) -> Result<(), ForgeError>;
}
