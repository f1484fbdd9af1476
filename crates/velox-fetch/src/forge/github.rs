use std::path::Path;

use async_trait::async_trait;
use secrecy::SecretString;
use serde::Deserialize;
use url::Url;

use super::{
    ForgeClient, ForgeCommit, ForgeError, ForgeTag, ResolvedRef, archive,
    backend::Backend,
    client::{ForgeCredentials, bad, checked_id, extended, next_page, parsed},
};

pub(crate) const JSON: &str = "application/vnd.github+json";
const RAW: &str = "application/vnd.github.raw+json";
/// The maximum number of pages of tags.
const MAX_PAGES: usize = 100;

/// A repository on GitHub, over its REST API (<https://docs.github.com/en/rest>).
pub(crate) struct GitHub {
    http: ForgeClient,
    /// The API root with `/repos/OWNER/NAME`.
    base: Url,
    name: String,
    credentials: ForgeCredentials,
}

#[derive(Deserialize)]
struct GitHubCommit {
    sha: String,
    commit: InnerCommit,
}

#[derive(Deserialize)]
struct InnerCommit {
    committer: Signature,
}

#[derive(Deserialize)]
struct Signature {
    date: String,
}

#[derive(Deserialize)]
struct GitHubTag {
    name: String,
    commit: Sha,
}

#[derive(Deserialize)]
struct Sha {
    sha: String,
}

impl GitHub {
    pub(crate) fn new(
        http: &ForgeClient,
        endpoint: Option<&Url>,
        token: Option<SecretString>,
        owner: &str,
        name: &str,
    ) -> Self {
        Self {
            http: http.clone(),
            base: extended(&api(endpoint), &["repos", owner, name]),
            name: format!("{owner}/{name}"),
            credentials: ForgeCredentials::github(token),
        }
    }

    /// <https://docs.github.com/en/rest/commits/commits#get-a-commit>: any ref, `tags/NAME` or `heads/NAME`.
    async fn commit(&self, reference: &str, what: &str) -> Result<ForgeCommit, ForgeError> {
        let mut url = self.base.clone();
        url.set_path(&format!("{}/commits/{}", self.base.path(), encoded_path(reference)));
        let commit: GitHubCommit = self.json(&url, what).await?;
        let time = commit
            .commit
            .committer
            .date
            .parse::<jiff::Timestamp>()
            .map_err(|_| bad(&self.base, "a commit without a date"))?;
        checked_id(&self.base, &commit.sha)?;
        Ok(ForgeCommit { id: commit.sha, time: time.as_second() })
    }

    async fn json<T: serde::de::DeserializeOwned>(&self, url: &Url, what: &str) -> Result<T, ForgeError> {
        parsed(url, &self.http.get(url, &self.credentials, JSON, what).await?.0)
    }
}

#[async_trait(?Send)]
impl Backend for GitHub {
    fn host(&self) -> String {
        super::client::host(&self.base)
    }

    async fn resolve(&self, reference: Option<&str>) -> Result<ResolvedRef, ForgeError> {
        let asked = reference.unwrap_or("HEAD");
        // A tag and a branch may share a name. Trying the tag costs a request, so only for tag-like names.
        if is_tag_like(asked) {
            let what = format!("tag {asked} in {}", self.name);
            match self.commit(&format!("tags/{asked}"), &what).await {
                Ok(commit) => return Ok(ResolvedRef { commit, tag: Some(asked.to_owned()) }),
                Err(ForgeError::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let what = match reference {
            Some(reference) => format!("{reference} in {}", self.name),
            None => self.name.clone(),
        };
        Ok(ResolvedRef { commit: self.commit(asked, &what).await?, tag: None })
    }

    /// <https://docs.github.com/en/rest/repos/contents#get-repository-content>
    async fn file(&self, path: &str, commit: &str) -> Result<Vec<u8>, ForgeError> {
        let mut url = self.base.clone();
        url.set_path(&format!("{}/contents/{}", self.base.path(), encoded_path(path)));
        url.query_pairs_mut().append_pair("ref", commit);
        let what = format!("{path} in {}", self.name);
        Ok(self.http.get(&url, &self.credentials, RAW, &what).await?.0)
    }

    /// <https://docs.github.com/en/rest/repos/repos#list-repository-tags>
    async fn tags(&self) -> Result<Vec<ForgeTag>, ForgeError> {
        let mut next = Some(extended(&self.base, &["tags"]));
        if let Some(url) = &mut next {
            url.query_pairs_mut().append_pair("per_page", "100");
        }
        let mut tags = Vec::new();
        for _ in 0..MAX_PAGES {
            let Some(url) = next else { break };
            let what = format!("tags of {}", self.name);
            let (body, headers) = self.http.get(&url, &self.credentials, JSON, &what).await?;
            let page: Vec<GitHubTag> = parsed(&url, &body)?;
            tags.extend(page.into_iter().map(|tag| ForgeTag { name: tag.name, commit: tag.commit.sha }));
            next = next_page(&url, &headers);
        }
        Ok(tags)
    }

    /// <https://docs.github.com/en/rest/commits/commits#compare-two-commits>
    async fn is_ancestor(&self, ancestor: &str, commit: &str) -> Result<bool, ForgeError> {
        #[derive(Deserialize)]
        struct Comparison {
            status: String,
        }
        let url = extended(&self.base, &["compare", &format!("{ancestor}...{commit}")]);
        let comparison: Comparison =
            self.json(&url, &format!("comparison of commits in {}", self.name)).await?;
        Ok(matches!(comparison.status.as_str(), "ahead" | "identical"))
    }

    /// <https://docs.github.com/en/rest/repos/repos#get-a-repository>
    async fn is_public(&self) -> Result<bool, ForgeError> {
        #[derive(Deserialize)]
        struct GitHubRepository {
            private: bool,
        }
        if self.credentials.token.is_none() {
            return Ok(true);
        }
        let repository: GitHubRepository = self.json(&self.base, &self.name).await?;
        Ok(!repository.private)
    }

    /// <https://docs.github.com/en/rest/repos/contents#download-a-repository-archive-tar>
    async fn tree(&self, commit: &str, into: &Path) -> Result<(), ForgeError> {
        let url = extended(&self.base, &["tarball", commit]);
        archive::fetch(&self.http, &url, &self.credentials, &format!("archive of {}", self.name), into).await
    }
}

/// The API root: a separate host for github.com, `/api/v3` on an Enterprise Server
/// (<https://docs.github.com/en/enterprise-server@latest/rest/using-the-rest-api/getting-started-with-the-rest-api>).
pub(crate) fn api(endpoint: Option<&Url>) -> Url {
    match endpoint {
        Some(endpoint) if endpoint.path().trim_end_matches('/').ends_with("/api/v3") => endpoint.clone(),
        Some(endpoint) => extended(endpoint, &["api", "v3"]),
        None => public_api(),
    }
}

#[expect(clippy::unwrap_used, reason = "a constant")]
fn public_api() -> Url {
    Url::parse("https://api.github.com").unwrap()
}

/// Whether a ref looks like a version tag, with or without Go's directory prefix.
fn is_tag_like(reference: &str) -> bool {
    let last = reference.rsplit('/').next().unwrap_or(reference);
    last.strip_prefix(['v', 'V']).unwrap_or(last).starts_with(|c: char| c.is_ascii_digit())
        && last.contains('.')
}

/// Percent-encodes a path, except for slashes.
fn encoded_path(path: &str) -> String {
    path.split('/').map(super::client::encoded).collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_api_is_where_each_server_has_it() {
        let api = |endpoint: &str| super::api(Some(&Url::parse(endpoint).unwrap())).to_string();
        assert_eq!(api("https://ghe.test"), "https://ghe.test/api/v3");
        assert_eq!(api("https://ghe.test/git/"), "https://ghe.test/git/api/v3");
        assert_eq!(api("https://ghe.test/api/v3"), "https://ghe.test/api/v3");
        assert_eq!(super::api(None).host_str(), Some("api.github.com"));
    }

    #[test]
    fn versions_are_asked_for_as_tags_first() {
        assert!(is_tag_like("v5.0.2") && is_tag_like("plugins/roadrunner/v1.6.18") && is_tag_like("1.0"));
        assert!(!is_tag_like("master") && !is_tag_like("feature/x") && !is_tag_like("9f8e7d6"));
    }
}
