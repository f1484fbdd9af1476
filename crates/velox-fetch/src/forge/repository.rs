use std::{path::Path, sync::Arc};

use secrecy::SecretString;
use url::Url;

use super::{
    ForgeClient, ForgeError, ForgeTag, GitLabProject, GitOptions, ResolvedRef, backend::Backend, git::Git,
    github::GitHub, gitlab::GitLab,
};

/// A repository on GitHub, GitLab or any git server.
#[derive(Clone)]
pub struct RemoteRepository(Arc<dyn Backend>);

impl RemoteRepository {
    /// A repository on github.com or the Enterprise Server at `endpoint` (with or without `/api/v3`).
    pub fn github(
        http: &ForgeClient,
        endpoint: Option<&Url>,
        token: Option<SecretString>,
        owner: &str,
        name: &str,
    ) -> Self {
        Self(Arc::new(GitHub::new(http, endpoint, token, owner, name)))
    }

    /// A project on gitlab.com or the GitLab instance at `endpoint`, which may have a path.
    pub fn gitlab(
        http: &ForgeClient,
        endpoint: Option<&Url>,
        token: Option<SecretString>,
        project: GitLabProject,
    ) -> Self {
        Self(Arc::new(GitLab::new(http, endpoint, token, project)))
    }

    /// A repository accessed with the git program.
    pub fn git(options: GitOptions, url: String) -> Self {
        Self(Arc::new(Git::new(options, url)))
    }

    /// The host, for messages.
    pub fn host(&self) -> String {
        self.0.host()
    }

    /// Resolves a tag, branch, full or short commit id, or the default branch. Tags win over branches.
    pub async fn resolve(&self, reference: Option<&str>) -> Result<ResolvedRef, ForgeError> {
        self.0.resolve(reference).await
    }

    /// The text of a file at a commit; `None` if it doesn't exist.
    pub async fn file(&self, path: &str, commit: &str) -> Result<Option<String>, ForgeError> {
        let answer = self.0.file(path, commit).await;
        match answer {
            Ok(bytes) => match String::from_utf8(bytes) {
                Ok(text) => Ok(Some(text)),
                Err(_) => Err(ForgeError::InvalidResponse {
                    host: self.host(),
                    why: format!("{path} is not UTF-8"),
                }),
            },
            Err(ForgeError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All tags.
    pub async fn tags(&self) -> Result<Vec<ForgeTag>, ForgeError> {
        self.0.tags().await
    }

    /// The tags most similar to `wanted`, for a suggestion; empty if the tags can't be listed.
    pub async fn similar_tags(&self, wanted: &str) -> Vec<String> {
        let tags = self.tags().await.unwrap_or_default();
        let mut names: Vec<(f64, String)> =
            tags.into_iter().map(|tag| (strsim::jaro_winkler(&tag.name, wanted), tag.name)).collect();
        names.sort_by(|a, b| b.0.total_cmp(&a.0));
        names.into_iter().take(3).map(|(_, name)| name).collect()
    }

    /// Whether `ancestor` is an ancestor of `commit`, or equal.
    pub async fn is_ancestor(&self, ancestor: &str, commit: &str) -> Result<bool, ForgeError> {
        self.0.is_ancestor(ancestor, commit).await
    }

    /// Whether the repository is public: true for a forge without a token, false for git.
    pub async fn is_public(&self) -> Result<bool, ForgeError> {
        self.0.is_public().await
    }

    /// Writes the tree of a commit to the new directory `into`, without links and special files.
    pub async fn tree(&self, commit: &str, into: &Path) -> Result<(), ForgeError> {
        self.0.tree(commit, into).await
    }
}
