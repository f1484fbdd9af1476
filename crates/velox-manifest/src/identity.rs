//! Who a plugin is and which host it comes from, answered once for the whole workspace.

use crate::{
    manifest::{Forge, ForgeKind, Manifest, Origin, Plugin, Project, Spanned},
    refs,
};

impl Forge {
    /// The public instance, without a token.
    #[must_use]
    pub fn public(kind: ForgeKind) -> Self {
        Self { kind, endpoint: None, token: None }
    }

    /// The host name: the endpoint's, or the public instance's.
    #[must_use]
    pub fn host(&self) -> &str {
        let own = self.endpoint.as_ref().and_then(|endpoint| endpoint.value.host_str());
        own.unwrap_or(self.kind.public_host())
    }

    /// Whether an endpoint other than the public instance is configured.
    #[must_use]
    pub fn is_self_hosted(&self) -> bool {
        self.endpoint.is_some()
    }
}

impl ForgeKind {
    /// `github.com` or `gitlab.com`.
    #[must_use]
    pub fn public_host(self) -> &'static str {
        match self {
            Self::GitHub => "github.com",
            Self::GitLab => "gitlab.com",
        }
    }
}

impl Plugin {
    /// The forge that the plugin's repository is on; `None` for a plugin that is named by its module path.
    #[must_use]
    pub fn forge<'a>(&self, manifest: &'a Manifest) -> Option<&'a Forge> {
        match self.origin {
            Origin::Module(_) => None,
            Origin::GitHub { .. } => Some(&manifest.github),
            Origin::GitLab { .. } => Some(&manifest.gitlab),
        }
    }

    /// Identifies the plugin whatever its version: its module path without the major suffix, as far as the manifest
    /// tells it. A repository is `HOST/OWNER/NAME[/FOLDER]`, a numeric GitLab project `HOST/projects/ID[/FOLDER]`.
    #[must_use]
    pub fn identity(&self, manifest: &Manifest) -> String {
        let join = |forge: &Forge, path: &str, folder: &Option<Spanned<String>>| match folder {
            Some(folder) => format!("{}/{path}/{}", forge.host(), folder.value),
            None => format!("{}/{path}", forge.host()),
        };
        match &self.origin {
            Origin::Module(path) => refs::without_major(&path.value).to_owned(),
            Origin::GitHub { owner, repository, folder } => {
                join(&manifest.github, &format!("{}/{}", owner.value, repository.value), folder)
            }
            Origin::GitLab { project, folder } => join(&manifest.gitlab, &project.value.to_string(), folder),
        }
    }

    /// Whether `module`, at any major, is this plugin. Case is ignored, as forges ignore it.
    #[must_use]
    pub fn is_module(&self, module: &str, manifest: &Manifest) -> bool {
        self.identity(manifest).eq_ignore_ascii_case(refs::without_major(module))
    }

    /// The module path, where the manifest alone tells it: a repository of a public forge at a tag, without a folder and
    /// without a replacement. A branch, a commit, a folder or a numeric project id don't tell.
    #[must_use]
    pub fn module_path(&self, manifest: &Manifest) -> Option<String> {
        let folder = match &self.origin {
            Origin::Module(path) => return Some(path.value.clone()),
            Origin::GitHub { folder, .. } => folder,
            Origin::GitLab { project, .. } if matches!(project.value, Project::Id(_)) => return None,
            Origin::GitLab { folder, .. } => folder,
        };
        let self_hosted = self.forge(manifest).is_some_and(Forge::is_self_hosted);
        let reference = &self.reference.value;
        if folder.is_some() || self.replace.is_some() || self_hosted || reference.contains('+') {
            return None;
        }
        let root = self.identity(manifest);
        match refs::semver_major(reference)? {
            0 | 1 => Some(root),
            major => Some(format!("{root}/v{major}")),
        }
    }
}

impl Manifest {
    /// This manifest with each `[[replaces]]` of a plugin's module moved to that plugin: the replaced module is not
    /// downloaded, and a replacement without a version takes the plugin's ref.
    #[must_use]
    pub fn with_plugin_replacements(&self) -> Self {
        let mut manifest = self.clone();
        let plugins = &mut manifest.plugins;
        manifest.replaces.retain(|replace| {
            let (old, version) = &replace.old.value;
            let replaced = plugins.iter_mut().find(|plugin| {
                version.is_none()
                    && plugin.replace.is_none()
                    && matches!(&plugin.origin, Origin::Module(path) if path.value == *old)
            });
            match replaced {
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

/// As a path below the GitLab instance: `group/project`, or `projects/ID`.
impl std::fmt::Display for Project {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Id(id) => write!(f, "projects/{id}"),
            Self::Path(path) => f.write_str(path),
        }
    }
}
