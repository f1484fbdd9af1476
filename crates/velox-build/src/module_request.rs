//! Requests for modules, independent of the configuration format and the source.

use std::{ops::Range, path::PathBuf};

use velox_fetch::download::DownloadRequest;
use velox_gomod::{
    module::{ModuleVersion, major_suffix, without_major},
    semver,
};
use velox_manifest::{Manifest, Origin, Plugin, Project, Replacement, Spanned};

use crate::lock::Lock;

/// The owner and name of RoadRunner's repository.
const ROADRUNNER: (&str, &str) = ("roadrunner-server", "roadrunner");

/// A module to resolve.
#[derive(Debug, Clone)]
pub(crate) struct ModuleRequest {
    /// The name in messages (`plugin http`).
    pub(crate) subject: String,
    /// The position of the ref in the configuration.
    pub(crate) span: Option<Range<usize>>,
    /// Tag, branch, commit or `latest`; `None`: the default branch.
    pub(crate) reference: Option<String>,
    /// The module or repository path in the configuration; empty if it has an owner and a repository instead.
    pub(crate) path: String,
    /// Whether `path` is a module path, which go.mod must declare.
    pub(crate) by_path: bool,
    /// Whether it replaces another module, whose path its go.mod may declare.
    pub(crate) replacement: bool,
    /// The path and version query for the go command; `None` if the path is unknown or private.
    pub(crate) module: Option<ModuleVersion>,
    /// The module path without a major suffix, if proxies may be queried for a branch or a commit of it.
    pub(crate) root: Option<String>,
    /// The module path without a major suffix that follows from the named repository: a go.mod with another
    /// path there belongs to a fork.
    pub(crate) identity: Option<String>,
    /// The repository, if known.
    pub(crate) place: Option<RepositoryLocation>,
    /// The module in the previous lock; the ref may have moved since.
    pub(crate) known: Option<PreviousResolution>,
}

/// A module in the previous lock.
#[derive(Debug, Clone)]
pub(crate) struct PreviousResolution {
    pub(crate) module: ModuleVersion,
    pub(crate) commit: Option<String>,
    /// In seconds since 1970.
    pub(crate) time: Option<i64>,
    pub(crate) zip_sum: Option<String>,
    pub(crate) mod_sum: Option<String>,
}

impl PreviousResolution {
    pub(crate) fn new(lock: &Lock, module: ModuleVersion, commit: Option<String>, time: Option<i64>) -> Self {
        let sum = |version: &str| lock.go_sum.get(&module.path, version).next().map(str::to_owned);
        let (zip_sum, mod_sum) = (sum(&module.version), sum(&format!("{}/go.mod", module.version)));
        Self { module, commit, time, zip_sum, mod_sum }
    }
}

/// A folder of a repository on a forge or a git host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RepositoryLocation {
    pub(crate) host: RepositoryHost,
    /// The folder that holds go.mod; empty for the root.
    pub(crate) folder: String,
    /// Whether it is on a self-hosted forge: public proxies must not be queried for its modules.
    pub(crate) own: bool,
}

impl RepositoryLocation {
    /// Whether it is RoadRunner's own repository, or the mirror of it on a self-hosted GitHub.
    pub(crate) fn is_roadrunner(&self) -> bool {
        matches!(&self.host, RepositoryHost::GitHub { owner, repository } if (owner.as_str(), repository.as_str()) == ROADRUNNER)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RepositoryHost {
    GitHub { owner: String, repository: String },
    GitLab { project: Project },
    Git { url: String },
}

/// The source of a plugin.
pub(crate) enum PluginSource {
    /// The plugin's own module, or a module that replaces it.
    Remote(Box<ModuleRequest>),
    /// A local replacement, with the path in the configuration.
    Directory(PathBuf),
}

impl ModuleRequest {
    pub(crate) fn roadrunner(manifest: &Manifest) -> Self {
        let (owner, repository) = ROADRUNNER;
        let reference = manifest.roadrunner.reference.as_ref();
        let own = manifest.github.endpoint.is_some();
        let root = format!("github.com/{owner}/{repository}");
        Self {
            subject: "RoadRunner".to_owned(),
            path: String::new(),
            by_path: false,
            replacement: false,
            span: reference.and_then(|reference| reference.span.clone()),
            reference: reference.map(|reference| reference.value.clone()),
            module: reference.filter(|_| !own).and_then(|reference| module_at_tag(&root, &reference.value)),
            root: (!own).then(|| root.clone()),
            identity: None,
            place: Some(RepositoryLocation {
                host: RepositoryHost::GitHub { owner: owner.to_owned(), repository: repository.to_owned() },
                folder: String::new(),
                own,
            }),
            known: None,
        }
    }

    /// The new module of a replacement.
    pub(crate) fn replacement(
        subject: String,
        path: &str,
        reference: &str,
        span: Option<Range<usize>>,
        manifest: &Manifest,
    ) -> Self {
        let place = place_of(path, manifest);
        let own = place.as_ref().is_some_and(|place| place.own);
        // A replacement is often a repository without a major suffix: the tag determines it.
        let has_suffix = !major_suffix(path).is_empty();
        let module = if has_suffix || !semver::is_valid(reference) {
            has_suffix.then(|| ModuleVersion::new(path, reference))
        } else {
            module_at_tag(path, reference)
        };
        Self {
            subject,
            span,
            reference: Some(reference.to_owned()),
            path: path.to_owned(),
            by_path: true,
            replacement: true,
            module: module.filter(|_| !own),
            root: None,
            identity: None,
            place,
            known: None,
        }
    }
}

impl ModuleRequest {
    /// The ref, if Go takes it for a version prefix (`v3`, `v2025.1`), never for a branch of that name
    /// (<https://go.dev/ref/mod#version-queries>).
    pub(crate) fn version_prefix(&self) -> Option<&str> {
        self.reference.as_deref().filter(|reference| is_version_prefix(reference))
    }

    /// Whether proxies may be queried for it. Otherwise its path may be private.
    pub(crate) fn may_query_proxies(&self) -> bool {
        self.module.is_some() || self.root.is_some()
    }

    /// A download request for `module`, with its sums from the previous lock.
    pub(crate) fn wanted(&self, module: &ModuleVersion) -> DownloadRequest {
        let previous = self.known.as_ref().filter(|previous| previous.module == *module);
        let list = |sum: Option<&String>| sum.cloned().into_iter().collect();
        DownloadRequest {
            module: module.clone(),
            zip_sums: list(previous.and_then(|previous| previous.zip_sum.as_ref())),
            mod_sums: list(previous.and_then(|previous| previous.mod_sum.as_ref())),
        }
    }
}

impl PluginSource {
    pub(crate) fn new(plugin: &Plugin, manifest: &Manifest) -> Self {
        let subject = format!("plugin {}", plugin.name.value);
        match plugin.replace.as_ref() {
            Some(Spanned { value: Replacement::Directory(directory), .. }) => {
                Self::Directory(PathBuf::from(directory))
            }
            Some(Spanned { value: Replacement::Module { path, version }, span }) => {
                let (reference, span) = match version {
                    Some(version) => (version, span),
                    None => (&plugin.reference.value, &plugin.reference.span),
                };
                Self::Remote(Box::new(ModuleRequest::replacement(
                    subject,
                    path,
                    reference,
                    span.clone(),
                    manifest,
                )))
            }
            None => Self::Remote(Box::new(Self::original(subject, plugin, manifest))),
        }
    }

    fn original(subject: String, plugin: &Plugin, manifest: &Manifest) -> ModuleRequest {
        let reference = &plugin.reference.value;
        let (module, root, place) = match &plugin.origin {
            Origin::Module(path) => {
                let module = ModuleVersion::new(&path.value, reference);
                (Some(module), None, place_of(&path.value, manifest))
            }
            Origin::GitHub { owner, repository, folder } => {
                let folder = folder.as_ref().map(|folder| folder.value.clone()).unwrap_or_default();
                let root = join(&format!("github.com/{}/{}", owner.value, repository.value), &folder);
                let host = RepositoryHost::GitHub {
                    owner: owner.value.clone(),
                    repository: repository.value.clone(),
                };
                let own = manifest.github.endpoint.is_some();
                let module = module_at_tag(&root, reference);
                (module, Some(root), Some(RepositoryLocation { host, folder, own }))
            }
            Origin::GitLab { project, folder } => {
                let folder = folder.as_ref().map(|folder| folder.value.clone()).unwrap_or_default();
                let root = match &project.value {
                    // The module path can't be derived from an id.
                    Project::Id(_) => None,
                    Project::Path(path) => Some(join(&format!("gitlab.com/{path}"), &folder)),
                };
                let host = RepositoryHost::GitLab { project: project.value.clone() };
                let own = manifest.gitlab.endpoint.is_some();
                (
                    root.as_ref().and_then(|root| module_at_tag(root, reference)),
                    root,
                    Some(RepositoryLocation { host, folder, own }),
                )
            }
        };
        // A module named by its path is queried by that path even with a self-hosted forge.
        let own = matches!(plugin.origin, Origin::GitHub { .. } | Origin::GitLab { .. })
            && place.as_ref().is_some_and(|place| place.own);
        ModuleRequest {
            subject,
            span: plugin.reference.span.clone(),
            reference: Some(reference.clone()),
            path: match &plugin.origin {
                Origin::Module(path) => path.value.clone(),
                Origin::GitHub { .. } | Origin::GitLab { .. } => String::new(),
            },
            by_path: matches!(plugin.origin, Origin::Module(_)),
            replacement: false,
            module: module.filter(|_| !own),
            root: root.filter(|_| !own),
            identity: match &plugin.origin {
                // The module path can't be derived from an id.
                Origin::GitLab { project: Spanned { value: Project::Id(_), .. }, .. } => None,
                Origin::Module(_) | Origin::GitHub { .. } | Origin::GitLab { .. } => {
                    Some(plugin.identity(manifest))
                }
            },
            place,
            known: None,
        }
    }
}

fn is_version_prefix(reference: &str) -> bool {
    semver::is_valid(reference) && reference.matches('.').count() < 2
}

/// The module of a repository or folder at a tag or a version prefix, with its major suffix
/// (<https://go.dev/ref/mod#major-version-suffixes>); `None` for a branch or a commit.
fn module_at_tag(root: &str, reference: &str) -> Option<ModuleVersion> {
    if semver::canonical(reference).as_deref() != Some(reference) && !is_version_prefix(reference) {
        return None;
    }
    let major = semver::major(reference)?;
    let path = if matches!(major, "v0" | "v1") { root.to_owned() } else { format!("{root}/{major}") };
    Some(ModuleVersion::new(path, reference))
}

/// The requested RoadRunner module; `None` if the ref is not a version, or needs a forge to resolve.
pub(crate) fn roadrunner_release(manifest: &Manifest) -> Option<ModuleVersion> {
    let module = ModuleRequest::roadrunner(manifest).module?;
    (semver::canonical(&module.version).as_deref() == Some(&module.version)).then_some(module)
}

/// RoadRunner's repository on the self-hosted forge; `None`: it is the public one.
pub(crate) fn own_place_of_roadrunner(manifest: &Manifest) -> Option<RepositoryLocation> {
    ModuleRequest::roadrunner(manifest).place.filter(|place| place.own)
}

/// The repository of a module path, if it is on a self-hosted forge.
pub(crate) fn own_place_of_module(path: &str, manifest: &Manifest) -> Option<RepositoryLocation> {
    place_of(path, manifest).filter(|place| place.own)
}

/// The repository of a plugin, if the manifest or its module path names one.
pub(crate) fn place_of_plugin(plugin: &Plugin, manifest: &Manifest) -> Option<RepositoryLocation> {
    PluginSource::original(String::new(), plugin, manifest).place
}

/// The repository of a module path, derived from the path alone.
fn place_of(module: &str, manifest: &Manifest) -> Option<RepositoryLocation> {
    let path = without_major(module);
    let (host, rest) = path.split_once('/')?;
    let is = |forge: &velox_manifest::Forge| forge.is_self_hosted() && forge.host() == host;
    let own_github = is(&manifest.github);
    let own_gitlab = is(&manifest.gitlab);
    if host == "github.com" || own_github {
        let mut parts = rest.splitn(3, '/');
        let (owner, repository) = (parts.next()?.to_owned(), parts.next()?.to_owned());
        let folder = parts.next().unwrap_or_default().to_owned();
        return Some(RepositoryLocation {
            host: RepositoryHost::GitHub { owner, repository },
            folder,
            own: own_github,
        });
    }
    if host == "gitlab.com" || own_gitlab {
        let project = Project::Path(rest.to_owned());
        return Some(RepositoryLocation {
            host: RepositoryHost::GitLab { project },
            folder: String::new(),
            own: own_gitlab,
        });
    }
    host.contains('.').then(|| RepositoryLocation {
        host: RepositoryHost::Git { url: format!("https://{path}") },
        folder: String::new(),
        own: false,
    })
}

fn join(root: &str, folder: &str) -> String {
    if folder.is_empty() { root.to_owned() } else { format!("{root}/{folder}") }
}
