//! The forges of a build and their repositories.

use secrecy::SecretString;
use velox_fetch::forge::{ForgeClient, GitLabProject, GitOptions, RemoteRepository};
use velox_manifest::Project;

use crate::module_request::{RepositoryHost, RepositoryLocation};

/// The forges that the manifest configures.
pub(crate) struct Forges {
    pub(crate) http: ForgeClient,
    pub(crate) github: ForgeAccess,
    pub(crate) gitlab: ForgeAccess,
    pub(crate) git: GitOptions,
}

#[derive(Clone, Default)]
pub(crate) struct ForgeAccess {
    pub(crate) endpoint: Option<url::Url>,
    pub(crate) token: Option<SecretString>,
}

impl Forges {
    pub(crate) fn repository(&self, place: &RepositoryLocation) -> RemoteRepository {
        match &place.host {
            RepositoryHost::GitHub { owner, repository } => {
                let ForgeAccess { endpoint, token } = self.configured(&self.github, place);
                RemoteRepository::github(&self.http, endpoint.as_ref(), token, owner, repository)
            }
            RepositoryHost::GitLab { project } => {
                let ForgeAccess { endpoint, token } = self.configured(&self.gitlab, place);
                let project = match project {
                    Project::Id(id) => GitLabProject::Id(*id),
                    Project::Path(path) => GitLabProject::Path(path.clone()),
                };
                RemoteRepository::gitlab(&self.http, endpoint.as_ref(), token, project)
            }
            RepositoryHost::Git { url } => RemoteRepository::git(self.git.clone(), url.clone()),
        }
    }

    /// The access to a repository. The public forge never receives the token of a self-hosted one.
    fn configured(&self, forge: &ForgeAccess, place: &RepositoryLocation) -> ForgeAccess {
        if place.own || forge.endpoint.is_none() { forge.clone() } else { ForgeAccess::default() }
    }

    /// The same repository for git; `None` for a project given by id.
    pub(crate) fn by_git(&self, place: &RepositoryLocation) -> Option<RemoteRepository> {
        let url = match &place.host {
            RepositoryHost::GitHub { owner, repository } => {
                format!("{}/{owner}/{repository}.git", self.web(&self.github, place, "https://github.com"))
            }
            RepositoryHost::GitLab { project: Project::Path(path) } => {
                format!("{}/{path}.git", self.web(&self.gitlab, place, "https://gitlab.com"))
            }
            RepositoryHost::GitLab { project: Project::Id(_) } | RepositoryHost::Git { .. } => return None,
        };
        Some(RemoteRepository::git(self.git.clone(), url))
    }

    fn web(&self, forge: &ForgeAccess, place: &RepositoryLocation, public: &str) -> String {
        self.configured(forge, place).endpoint.map_or_else(
            || public.to_owned(),
            |url| url.as_str().trim_end_matches("/api/v3").trim_end_matches('/').to_owned(),
        )
    }
}
