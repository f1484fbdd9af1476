use std::path::Path;

use async_trait::async_trait;
use reqwest::header::HeaderMap;
use secrecy::SecretString;
use serde::Deserialize;
use url::Url;

use super::{
    ForgeClient, ForgeCommit, ForgeError, ForgeTag, ResolvedRef, archive,
    backend::Backend,
    client::{ForgeCredentials, bad, checked_id, extended, parsed},
};

const JSON: &str = "application/json";
const MAX_PAGES: usize = 100;

/// A project identifier of GitLab's API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GitLabProject {
    /// The numeric id.
    Id(u64),
    /// The full path, `group/sub/project`.
    Path(String),
}

/// A project on GitLab, over its REST API v4 (<https://docs.gitlab.com/api/rest/>).
pub(crate) struct GitLab {
    http: ForgeClient,
    /// The API root with `/projects/ID`.
    base: Url,
    name: String,
    credentials: ForgeCredentials,
}

#[derive(Deserialize)]
struct GitLabCommit {
    id: String,
    committed_date: String,
}

#[derive(Deserialize)]
struct GitLabTag {
    name: String,
    commit: GitLabId,
}

#[derive(Deserialize)]
struct GitLabId {
    id: String,
}

#[derive(Deserialize)]
struct ProjectDetails {
    default_branch: Option<String>,
    visibility: Option<String>,
}

impl GitLab {
    pub(crate) fn new(
        http: &ForgeClient,
        endpoint: Option<&Url>,
        token: Option<SecretString>,
        project: GitLabProject,
    ) -> Self {
        let name = match &project {
            GitLabProject::Id(id) => format!("project {id}"),
            GitLabProject::Path(path) => path.clone(),
        };
        let id = match project {
            GitLabProject::Id(id) => id.to_string(),
            GitLabProject::Path(path) => path,
        };
        Self {
            http: http.clone(),
            // One segment: GitLab requires encoded slashes in project paths.
            base: extended(&api(endpoint), &["projects", &id]),
            name,
            credentials: ForgeCredentials::gitlab(token),
        }
    }

    async fn default_branch(&self) -> Result<String, ForgeError> {
        let project: ProjectDetails = self.json(&self.base, &self.name).await?;
        project.default_branch.ok_or_else(|| ForgeError::NotFound {
            what: format!("default branch in {}", self.name),
            host: self.host(),
        })
    }

    fn repository(&self, segments: &[&str]) -> Url {
        extended(&extended(&self.base, &["repository"]), segments)
    }

    async fn json<T: serde::de::DeserializeOwned>(&self, url: &Url, what: &str) -> Result<T, ForgeError> {
        parsed(url, &self.http.get(url, &self.credentials, JSON, what).await?.0)
    }
}

#[async_trait(?Send)]
impl Backend for GitLab {
    fn host(&self) -> String {
        super::client::host(&self.base)
    }

    async fn resolve(&self, reference: Option<&str>) -> Result<ResolvedRef, ForgeError> {
        let reference = match reference {
            Some(reference) => reference.to_owned(),
            None => self.default_branch().await?,
        };
        let what = format!("{reference} in {}", self.name);
        let tag_url = self.repository(&["tags", &reference]);
        let tag = match self.json::<GitLabTag>(&tag_url, &what).await {
            Ok(tag) => Some(tag.name),
            Err(ForgeError::NotFound { .. }) => None,
            Err(error) => return Err(error),
        };
        // https://docs.gitlab.com/api/commits/#get-a-single-commit: a commit, a branch or a tag.
        let asked = tag.as_ref().map_or_else(|| reference.clone(), |tag| format!("refs/tags/{tag}"));
        let commit: GitLabCommit = match self.json(&self.repository(&["commits", &asked]), &what).await {
            Err(ForgeError::NotFound { .. }) if tag.is_some() => {
                self.json(&self.repository(&["commits", &reference]), &what).await?
            }
            answer => answer?,
        };
        let time = commit
            .committed_date
            .parse::<jiff::Timestamp>()
            .map_err(|_| bad(&self.base, "a commit without a date"))?;
        checked_id(&self.base, &commit.id)?;
        Ok(ResolvedRef { commit: ForgeCommit { id: commit.id, time: time.as_second() }, tag })
    }

    /// <https://docs.gitlab.com/api/repository_files/#get-raw-file-from-repository>
    async fn file(&self, path: &str, commit: &str) -> Result<Vec<u8>, ForgeError> {
        let mut url = self.repository(&["files", path, "raw"]);
        url.query_pairs_mut().append_pair("ref", commit);
        Ok(self.http.get(&url, &self.credentials, "*/*", &format!("{path} in {}", self.name)).await?.0)
    }

    /// <https://docs.gitlab.com/api/tags/#list-project-repository-tags>
    async fn tags(&self) -> Result<Vec<ForgeTag>, ForgeError> {
        let mut tags = Vec::new();
        let mut page = Some("1".to_owned());
        for _ in 0..MAX_PAGES {
            let Some(number) = page else { break };
            let mut url = self.repository(&["tags"]);
            url.query_pairs_mut().append_pair("per_page", "100").append_pair("page", &number);
            let (body, headers) =
                self.http.get(&url, &self.credentials, JSON, &format!("tags of {}", self.name)).await?;
            let found: Vec<GitLabTag> = parsed(&url, &body)?;
            tags.extend(found.into_iter().map(|tag| ForgeTag { name: tag.name, commit: tag.commit.id }));
            page = next(&headers);
        }
        Ok(tags)
    }

    /// <https://docs.gitlab.com/api/repositories/#merge-base>
    async fn is_ancestor(&self, ancestor: &str, commit: &str) -> Result<bool, ForgeError> {
        let mut url = self.repository(&["merge_base"]);
        url.query_pairs_mut().append_pair("refs[]", ancestor).append_pair("refs[]", commit);
        match self.json::<GitLabId>(&url, &format!("merge base in {}", self.name)).await {
            Ok(base) => Ok(base.id == ancestor),
            // Unrelated histories.
            Err(ForgeError::NotFound { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// <https://docs.gitlab.com/api/projects/#get-a-single-project>
    async fn is_public(&self) -> Result<bool, ForgeError> {
        if self.credentials.token.is_none() {
            return Ok(true);
        }
        let project: ProjectDetails = self.json(&self.base, &self.name).await?;
        Ok(project.visibility.as_deref() == Some("public"))
    }

    /// <https://docs.gitlab.com/api/repositories/#get-file-archive>
    async fn tree(&self, commit: &str, into: &Path) -> Result<(), ForgeError> {
        let mut url = self.repository(&["archive.tar.gz"]);
        url.query_pairs_mut().append_pair("sha", commit);
        archive::fetch(&self.http, &url, &self.credentials, &format!("archive of {}", self.name), into).await
    }
}

/// <https://docs.gitlab.com/api/rest/#other-pagination-headers>
fn next(headers: &HeaderMap) -> Option<String> {
    let page = headers.get("x-next-page")?.to_str().ok()?;
    page.parse::<u32>().ok().map(|page| page.to_string())
}

/// The REST API root.
pub(crate) fn api(endpoint: Option<&Url>) -> Url {
    match endpoint {
        Some(endpoint) if endpoint.path().trim_end_matches('/').ends_with("/api/v4") => endpoint.clone(),
        Some(endpoint) => extended(endpoint, &["api", "v4"]),
        None => extended(&public(), &["api", "v4"]),
    }
}

#[expect(clippy::unwrap_used, reason = "a constant")]
fn public() -> Url {
    Url::parse("https://gitlab.com").unwrap()
}
