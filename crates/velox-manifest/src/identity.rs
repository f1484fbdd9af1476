//! Plugin identities, module paths and forge hosts.

use velox_gomod::module::without_major;

use crate::{
    catalogue, check,
    manifest::{Forge, ForgeKind, Manifest, Origin, Plugin, Project, Spanned},
};

impl Forge {
    /// Creates the public instance without a token.
    #[must_use]
    pub fn public(kind: ForgeKind) -> Self {
        Self { kind, endpoint: None, token: None }
    }

    /// The host name of the endpoint or the public instance.
    #[must_use]
    pub fn host(&self) -> &str {
        let own = self.endpoint.as_ref().and_then(|endpoint| endpoint.value.host_str());
        own.unwrap_or(self.kind.public_host())
    }

    /// Whether this is not the public instance.
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
    /// The forge of the plugin's repository; `None` for a module path.
    #[must_use]
    pub fn forge<'a>(&self, manifest: &'a Manifest) -> Option<&'a Forge> {
        match self.origin {
            Origin::Module(_) => None,
            Origin::GitHub { .. } => Some(&manifest.github),
            Origin::GitLab { .. } => Some(&manifest.gitlab),
        }
    }

    /// The version-independent identity: the module path without its major version suffix,
    /// `HOST/OWNER/NAME[/FOLDER]`, or `HOST/projects/ID[/FOLDER]` for a numeric GitLab project.
    #[must_use]
    pub fn identity(&self, manifest: &Manifest) -> String {
        let join = |forge: &Forge, path: &str, folder: &Option<Spanned<String>>| match folder {
            Some(folder) => format!("{}/{path}/{}", forge.host(), folder.value),
            None => format!("{}/{path}", forge.host()),
        };
        match &self.origin {
            Origin::Module(path) => without_major(&path.value).to_owned(),
            Origin::GitHub { owner, repository, folder } => {
                join(&manifest.github, &format!("{}/{}", owner.value, repository.value), folder)
            }
            Origin::GitLab { project, folder } => join(&manifest.gitlab, &project.value.to_string(), folder),
        }
    }

    /// Whether a user means this plugin by `text`: its name, its module path at any major version, or a name of the
    /// catalogue.
    fn is_named(&self, text: &str, manifest: &Manifest) -> bool {
        let is_known = || catalogue::find(text).is_some_and(|known| self.is_module(&known.module, manifest));
        self.is_module(text, manifest) || is_known()
    }

    /// Whether `module`, at any major version, is this plugin; like forges, ignores case.
    #[must_use]
    pub fn is_module(&self, module: &str, manifest: &Manifest) -> bool {
        self.identity(manifest).eq_ignore_ascii_case(without_major(module))
    }

    /// The module path if the manifest determines it: a public forge's repository at a tag, without a folder
    /// or a replacement. It is unknown for a branch, a commit, a folder or a numeric project id.
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
        match check::requested_major(reference)? {
            0 | 1 => Some(root),
            major => Some(format!("{root}/v{major}")),
        }
    }
}

impl Manifest {
    /// Moves each `[[replaces]]` of a plugin's module to the plugin: the replaced module is not downloaded,
    /// and a replacement without a version uses the plugin's ref.
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

/// The path on the GitLab instance: `group/project`, or `projects/ID`.
impl std::fmt::Display for Project {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Id(id) => write!(f, "projects/{id}"),
            Self::Path(path) => f.write_str(path),
        }
    }
}

impl Manifest {
    /// The plugin that a user means by `text`: its name, else its module path at any major version, or a name of the
    /// catalogue.
    #[must_use]
    pub fn plugin_named(&self, text: &str) -> Option<&Plugin> {
        let by_name = self.plugins.iter().find(|plugin| plugin.name.value == text);
        by_name.or_else(|| self.plugins.iter().find(|plugin| plugin.is_named(text, self)))
    }
}
