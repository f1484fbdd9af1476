//! The identity of plugins, repositories and forges: one answer for every comparison and every module path.

use url::Url;

use crate::{Forge, Manifest, Origin, Plugin, Project, refs};

impl Forge {
    /// The public GitHub, without a token.
    #[must_use]
    pub const fn github() -> Self {
        Self { public_host: "github.com", endpoint: None, token: None }
    }

    /// The public GitLab, without a token.
    #[must_use]
    pub const fn gitlab() -> Self {
        Self { public_host: "gitlab.com", endpoint: None, token: None }
    }

    /// Whether the manifest names an instance other than the public one.
    #[must_use]
    pub fn is_self_hosted(&self) -> bool {
        self.endpoint.is_some()
    }

    /// The host name, without a port.
    #[must_use]
    pub fn host(&self) -> String {
        let url = self.endpoint.as_ref().and_then(|endpoint| Url::parse(&endpoint.value).ok());
        url.and_then(|url| url.host_str().map(str::to_owned)).unwrap_or_else(|| self.public_host.to_owned())
    }

    /// The host name of the public instance, or the URL of a self-hosted one without credentials.
    #[must_use]
    pub fn address(&self) -> String {
        let url = self.endpoint.as_ref().and_then(|endpoint| Url::parse(&endpoint.value).ok());
        let Some(mut url) = url else { return self.public_host.to_owned() };
        // These fail only for URLs that can't have credentials.
        let _ = url.set_username("");
        let _ = url.set_password(None);
        url.as_str().trim_end_matches('/').to_owned()
    }
}

impl Origin {
    /// The folder of the repository that has the plugin's go.mod; empty: the root.
    #[must_use]
    pub fn folder(&self) -> &str {
        match self {
            Self::Module(_) => "",
            Self::GitHub { folder, .. } | Self::GitLab { folder, .. } => {
                folder.as_ref().map_or("", |folder| &folder.value)
            }
        }
    }

    /// The repository's path on its forge; `None` for a module path and for a project that only its number names.
    #[must_use]
    pub fn repository(&self) -> Option<String> {
        match self {
            Self::GitHub { owner, repository, .. } => Some(format!("{}/{}", owner.value, repository.value)),
            Self::GitLab { project, .. } => match &project.value {
                Project::Path(path) => Some(path.clone()),
                Project::Id(_) => None,
            },
            Self::Module(_) => None,
        }
    }

    /// The forge that has the repository; `None` for a module path.
    #[must_use]
    pub fn forge<'a>(&self, manifest: &'a Manifest) -> Option<&'a Forge> {
        match self {
            Self::Module(_) => None,
            Self::GitHub { .. } => Some(&manifest.github),
            Self::GitLab { .. } => Some(&manifest.gitlab),
        }
    }

    /// `HOST/REPOSITORY[/FOLDER]`, or the module path; `None` for a project that only its number names.
    ///
    /// On the public forges this is the module path of the repository, without a major suffix.
    #[must_use]
    pub fn path(&self, host: impl FnOnce(&Forge) -> String, manifest: &Manifest) -> Option<String> {
        if let Self::Module(path) = self {
            return Some(path.value.clone());
        }
        let root = format!("{}/{}", host(self.forge(manifest)?), self.repository()?);
        Some(if self.folder().is_empty() { root } else { format!("{root}/{}", self.folder()) })
    }
}

impl Plugin {
    /// The path that tells whether two entries are the same plugin: its module or its repository and folder, without a
    /// major suffix; `None` for a project that only its number names.
    #[must_use]
    pub fn identity(&self, manifest: &Manifest) -> Option<String> {
        let path = self.origin.path(Forge::host, manifest)?;
        Some(match self.origin {
            Origin::Module(_) => refs::without_major(&path).to_owned(),
            _ => path,
        })
    }
}

impl Manifest {
    /// This manifest with each `[[replaces]]` of a plugin's module moved to that plugin: the replaced module is not
    /// fetched, and a replacement without a version takes the plugin's ref.
    #[must_use]
    pub fn with_plugin_replacements(&self) -> Self {
        let mut manifest = self.clone();
        let plugins = &mut manifest.plugins;
        manifest.replaces.retain(|replace| {
            let (old, version) = &replace.old.value;
            let owner = plugins.iter_mut().find(|plugin| {
                version.is_none()
                    && plugin.replace.is_none()
                    && matches!(&plugin.origin, Origin::Module(path) if path.value == *old)
            });
            match owner {
                Some(plugin) => {
                    plugin.replace = Some(replace.new.clone());
                    false
                }
                None => true,
            }
        });
        manifest
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Spanned;

    #[test]
    fn the_host_of_a_self_hosted_forge_has_no_port_and_its_address_no_credentials() {
        for (endpoint, host, address) in [
            ("https://git.corp:8443/api", "git.corp", "https://git.corp:8443/api"),
            ("https://me:secret@git.corp/", "git.corp", "https://git.corp"),
            ("http://[::1]:3000", "[::1]", "http://[::1]:3000"),
        ] {
            let endpoint = Some(Spanned { value: endpoint.to_owned(), span: None });
            let forge = Forge { endpoint, ..Forge::github() };
            assert_eq!((forge.host().as_str(), forge.address().as_str()), (host, address));
        }
        assert_eq!(
            (Forge::gitlab().host(), Forge::gitlab().address()),
            ("gitlab.com".into(), "gitlab.com".into())
        );
    }
}
