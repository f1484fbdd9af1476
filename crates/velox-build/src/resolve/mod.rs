//! From a Manifest to a [`Lock`]: every ref becomes an exact module, and these become a go.mod that the go command agrees
//! with.

mod ask;
mod fetch;
mod forge;
mod goproxy;
pub(crate) mod listing;
mod pin;
mod prefetch;

use std::{
    collections::BTreeMap,
    fs,
    ops::Range,
    path::{Path, PathBuf},
};

use velox_fetch::download::Fetcher;
use velox_gomod::{
    gosum::GoSum,
    goversion::GoVersion,
    modfile::{self, GoMod, Replace, Require},
    module::{ModuleVersion, path_major_matches, split_path_version},
    pseudo, semver,
};
use velox_manifest::{Diagnostic, GoTarget, Manifest, Origin, Plugin, Replacement, Spanned};

use self::{
    ask::{Ask, Known, PluginAsk},
    goproxy::Proxies,
    listing::Listing,
    pin::{Pinned, Sources},
};
pub(crate) use self::{
    ask::{Place, own_place_of_module, own_place_of_roadrunner, place_of_plugin},
    forge::{Configured, Forges, tag_prefix},
    goproxy::{advice, unserved},
};
use crate::{
    Error, ErrorKind, Raised, Request,
    compose::{Composition, Wanted, provides},
    container,
    error::finding,
    imports::imports_of,
    lock::{Asked, Lock, LockedPlugin, LockedReplacement, LockedRoadRunner, Variant},
    process::Children,
    settings::Settings,
    toolchain::{Mode, Toolchain, Toolchains},
    workspace::Workspace,
};

/// The plugins behind `rr workers` and `rr reset`: part of every server.
const ALWAYS: [&str; 2] = ["github.com/roadrunner-server/informer", "github.com/roadrunner-server/resetter"];

/// Everything that resolving needs.
#[derive(Clone, Copy)]
pub(crate) struct Resolver<'a> {
    pub(crate) request: &'a Request,
    /// The request's manifest, with its replaces at its plugins.
    pub(crate) manifest: &'a Manifest,
    pub(crate) asked: &'a Asked,
    /// What stays as it was where the configuration still asks for it.
    pub(crate) previous: Option<&'a Lock>,
    pub(crate) settings: &'a Settings,
    pub(crate) go: &'a Toolchain,
    pub(crate) toolchains: &'a Toolchains,
    pub(crate) children: &'a Children,
    pub(crate) forges: &'a Forges,
    pub(crate) fetcher: Option<&'a Fetcher>,
    pub(crate) scratch: &'a Path,
}

/// A plugin with everything known of it before Go has selected versions.
struct Resolved {
    name: String,
    span: Option<Range<usize>>,
    asked: String,
    module: String,
    version: String,
    commit: Option<String>,
    go_mod: Option<GoMod>,
    replacement: Option<LockedReplacement>,
    added: bool,
}

/// A RoadRunner as it was released.
#[derive(Debug, Clone)]
pub(crate) struct Release {
    pub(crate) module: ModuleVersion,
    pub(crate) go_mod: GoMod,
    /// The plugins of its `container/plugins.go`.
    pub(crate) plugins: Vec<ModuleVersion>,
}

/// Whom a pinned module belongs to, by its index in the manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Owner {
    RoadRunner,
    Plugin(usize),
    Replace(usize),
}

type PinnedBy = BTreeMap<Owner, Pinned>;

impl Resolver<'_> {
    /// Resolves; the workspace that it was tried in comes along, since it is most of what the next stage makes.
    pub(crate) async fn resolve(&self) -> Result<(Lock, Workspace), Error> {
        let manifest = self.manifest;
        let (owners, asks): (Vec<Owner>, Vec<Ask>) = self.asks(manifest)?.into_iter().unzip();
        let sources = self.sources();
        let pinned: PinnedBy = owners.into_iter().zip(sources.pin(&asks).await?).collect();
        let roadrunner = pinned
            .get(&Owner::RoadRunner)
            .ok_or_else(|| Error::build("RoadRunner itself wasn't resolved"))?;
        let release = release(roadrunner)?;
        let mut plugins = self.plugins(manifest, &pinned)?;
        plugins.extend(added(&release, &plugins));
        plugins.sort_by(|a, b| a.name.cmp(&b.name));

        let (line, module) = newest_go_line(&release, roadrunner, &plugins);
        match &self.toolchains.newer(self.go, line, module).await? {
            Some(go) => Resolver { go, ..*self }.complete(&release, roadrunner, &pinned, plugins).await,
            None => self.complete(&release, roadrunner, &pinned, plugins).await,
        }
    }

    /// Tries what was pinned in a workspace, with a Go that can compile it.
    async fn complete(
        &self,
        release: &GoMod,
        roadrunner: &Pinned,
        pinned: &PinnedBy,
        plugins: Vec<Resolved>,
    ) -> Result<(Lock, Workspace), Error> {
        let manifest = self.manifest;
        let workspace = Workspace::create(&roadrunner.tree, self.scratch.join("src"))?;
        let composed = self.compose(manifest, release, &plugins, pinned, &workspace)?;
        workspace.write("go.mod", &composed.to_string())?;
        let sums = self.sums(&workspace, pinned.values())?;
        workspace.write("go.sum", &sums.to_string())?;
        let modules: Vec<&str> = plugins.iter().map(|plugin| plugin.module.as_str()).collect();
        workspace.write("container/plugins.go", &container::plugins_go(&modules, ""))?;
        self.prefetch(&workspace, &composed, &plugins, &sums).await?;
        let lock = self.lock(roadrunner, plugins, &workspace).await?;
        Ok((lock, workspace))
    }

    /// RoadRunner alone: what it was released with.
    pub(crate) async fn release(&self) -> Result<Release, Error> {
        let mut ask = Ask::roadrunner(self.manifest);
        ask.known = self.known_roadrunner()?;
        let pinned = self.sources().pin(std::slice::from_ref(&ask)).await?;
        let roadrunner = pinned.first().ok_or_else(|| Error::build("RoadRunner itself wasn't resolved"))?;
        let go_mod = release(roadrunner)?;
        let registered = imports_of(&roadrunner.tree, &|path| path == "container/plugins.go")
            .map_err(|error| Error::file("read", &roadrunner.tree, &error))?;
        let plugins = go_mod
            .require
            .iter()
            .filter(|line| !line.indirect && provides(line, &go_mod, &registered))
            .map(|line| ModuleVersion { path: line.path.clone(), version: line.version.clone() })
            .collect();
        Ok(Release { module: roadrunner.module.clone(), go_mod, plugins })
    }

    fn sources(&self) -> Sources<'_> {
        Sources {
            proxies: Proxies { go: self.go, children: self.children, fetcher: self.fetcher },
            forges: self.forges,
            scratch: self.scratch,
            offline: self.request.options.offline,
            proxies_only: self.request.options.proxies_only,
        }
    }

    /// What has to be asked of the sources; local directories need no asking.
    fn asks(&self, manifest: &Manifest) -> Result<Vec<(Owner, Ask)>, Error> {
        let mut roadrunner = Ask::roadrunner(manifest);
        roadrunner.known = self.known_roadrunner()?;
        let mut asks = vec![(Owner::RoadRunner, roadrunner)];
        for (index, plugin) in manifest.plugins.iter().enumerate() {
            if let PluginAsk::Remote(mut ask) = PluginAsk::new(plugin, manifest) {
                ask.known = self.known_plugin(&plugin.name.value)?;
                asks.push((Owner::Plugin(index), *ask));
            }
        }
        let mut wrong = Vec::new();
        for (index, replace) in manifest.replaces.iter().enumerate() {
            let Replacement::Module { path, version } = &replace.new.value else { continue };
            match version {
                Some(version) if semver::canonical(version).as_deref() == Some(version) => {}
                Some(version) => {
                    let subject = format!("the replacement of {}", replace.old.value.0);
                    let ask = Ask::replacement(subject, path, version, replace.new.span.clone(), manifest);
                    asks.push((Owner::Replace(index), ask));
                }
                None => {
                    let message = format!("the replacement of {} has no version", replace.old.value.0);
                    let mut diagnostic =
                        finding(message, replace.new.span.clone(), Some("a module needs a version"));
                    diagnostic
                        .help
                        .push(format!("write new = \"{path}@VERSION\": a tag, a branch or a commit"));
                    wrong.push(diagnostic);
                }
            }
        }
        if wrong.is_empty() { Ok(asks) } else { Err(Error::many(ErrorKind::Configuration, wrong)) }
    }

    /// RoadRunner as the previous lock has it, if the configuration still asks for the same.
    fn known_roadrunner(&self) -> Result<Option<Known>, Error> {
        let fits =
            |lock: &&Lock| lock.roadrunner.from == self.asked.roadrunner && !self.is_renewed("roadrunner");
        let Some(lock) = self.previous.filter(fits) else { return Ok(None) };
        let LockedRoadRunner { commit, time, .. } = &lock.roadrunner;
        Known::new(lock, lock.roadrunner(), commit.clone(), Some(*time)).map(Some)
    }

    /// A plugin as the previous lock has it, whatever the user called it then.
    fn known_plugin(&self, name: &str) -> Result<Option<Known>, Error> {
        let Some(lock) = self.previous.filter(|_| !self.is_renewed(name)) else { return Ok(None) };
        let from = self.asked.plugins.get(name);
        let locked = lock.plugins.iter().find(|plugin| plugin.from.is_some() && plugin.from.as_ref() == from);
        // One that was raised is asked for at its own version, and may be raised no more.
        let raised = |module: &str| lock.raised.iter().any(|raised| raised.module == module);
        locked
            .filter(|plugin| !raised(&plugin.module))
            .and_then(|plugin| Some((plugin.source()?, plugin.commit.clone())))
            .map(|(module, commit)| Known::new(lock, module, commit, None))
            .transpose()
    }

    fn is_renewed(&self, name: &str) -> bool {
        self.request.options.upgrade || self.request.options.upgrade_only.iter().any(|only| only == name)
    }

    /// The manifest's plugins with what was found of them; every mistake of theirs at once.
    fn plugins(&self, manifest: &Manifest, pinned: &PinnedBy) -> Result<Vec<Resolved>, Error> {
        let mut plugins = Vec::new();
        let mut wrong = Vec::new();
        for (index, plugin) in manifest.plugins.iter().enumerate() {
            let resolved = match (PluginAsk::new(plugin, manifest), pinned.get(&Owner::Plugin(index))) {
                (PluginAsk::Directory(path), _) => local_plugin(plugin, path, &self.request.base),
                (PluginAsk::Remote(_), Some(pinned)) => Ok(remote_plugin(plugin, pinned)),
                (PluginAsk::Remote(_), None) => continue,
            };
            match resolved {
                Ok(plugin) => plugins.push(plugin),
                Err(diagnostic) => wrong.push(diagnostic),
            }
        }
        wrong.extend(same_modules(&plugins));
        if wrong.is_empty() { Ok(plugins) } else { Err(Error::many(ErrorKind::Configuration, wrong)) }
    }

    fn compose(
        &self,
        manifest: &Manifest,
        release: &GoMod,
        plugins: &[Resolved],
        pinned: &PinnedBy,
        workspace: &Workspace,
    ) -> Result<GoMod, Error> {
        let mut replaces = Vec::new();
        for plugin in plugins {
            let (new_path, new_version) = match &plugin.replacement {
                Some(LockedReplacement::Module { path, version }) => (path.clone(), Some(version.clone())),
                Some(LockedReplacement::Directory { path }) => {
                    (workspace.add_replacement(&plugin.module, &self.request.base.join(path))?, None)
                }
                None => continue,
            };
            replaces.push(Replace {
                old_path: plugin.module.clone(),
                old_version: None,
                new_path,
                new_version,
            });
        }
        for (index, replace) in manifest.replaces.iter().enumerate() {
            let (old_path, old_version) = replace.old.value.clone();
            let (new_path, new_version) = match (&replace.new.value, pinned.get(&Owner::Replace(index))) {
                (Replacement::Directory(directory), _) => {
                    let directory = self.request.base.join(directory);
                    local_go_mod(&directory, &replace.new.span)
                        .map_err(|diagnostic| Error::many(ErrorKind::Configuration, vec![diagnostic]))?;
                    (workspace.add_replacement(&old_path, &directory)?, None)
                }
                (Replacement::Module { .. }, Some(pinned)) => {
                    (pinned.module.path.clone(), Some(pinned.module.version.clone()))
                }
                (Replacement::Module { path, version }, None) => (path.clone(), version.clone()),
            };
            replaces.push(Replace { old_path, old_version, new_path, new_version });
        }
        let imports = |counts: &dyn Fn(&str) -> bool| {
            imports_of(workspace.directory(), counts)
                .map_err(|error| Error::file("read", workspace.directory(), &error))
        };
        let wanted: Vec<Wanted> = plugins
            .iter()
            .map(|plugin| Wanted {
                path: plugin.module.clone(),
                version: plugin.version.clone(),
                go_mod: plugin.go_mod.clone(),
            })
            .collect();
        let composition = Composition {
            release,
            registered: &imports(&|path| path == "container/plugins.go")?,
            imported: &imports(&|path| path != "container/plugins.go" && !path.starts_with("replace/"))?,
            plugins: &wanted,
            replaces,
            excludes: manifest
                .excludes
                .iter()
                .map(|exclude| ModuleVersion {
                    path: exclude.module.value.clone(),
                    version: exclude.version.value.clone(),
                })
                .collect(),
            dependencies: self.settings.dependencies,
        };
        Ok(composition.go_mod())
    }

    /// Lets the go command select versions and fetch what the build needs: the one resolving command.
    async fn lock(
        &self,
        roadrunner: &Pinned,
        plugins: Vec<Resolved>,
        workspace: &Workspace,
    ) -> Result<Lock, Error> {
        let mut targets = BTreeMap::new();
        let mut selected = BTreeMap::new();
        for target in &self.settings.targets {
            let variant = Variant::new(target, self.settings);
            let listing = Listing::of(self.go, self.children, &variant, Mode::Complete, workspace).await;
            let listing = listing.map_err(|error| self.blame(error, &plugins))?;
            selected.extend(listing.target.modules.iter().map(|m| (m.path.clone(), m.version.clone())));
            targets.insert(variant, listing.target);
        }
        let raised = self.raised(&plugins, &selected, workspace).await?;
        let go_version = self.go.version_in(workspace.directory()).await?;
        let locked = plugins
            .into_iter()
            .map(|plugin| LockedPlugin {
                from: self.asked.plugins.get(&plugin.name).filter(|_| !plugin.added).cloned(),
                version: selected.get(&plugin.module).cloned().unwrap_or(plugin.version),
                name: plugin.name,
                module: plugin.module,
                asked: plugin.asked,
                commit: plugin.commit,
                replacement: plugin.replacement,
            })
            .collect();
        Ok(Lock {
            roadrunner: LockedRoadRunner {
                from: self.asked.roadrunner.clone(),
                module: roadrunner.module.path.clone(),
                version: roadrunner.module.version.clone(),
                commit: roadrunner.commit.clone(),
                time: roadrunner.time.unwrap_or_default(),
            },
            plugins: locked,
            settings: self.asked.settings.clone(),
            raised,
            targets,
            go_mod: workspace.read("go.mod")?,
            go_sum: workspace.read("go.sum")?,
            toolchain: self.toolchain_sums(&go_version),
            go_version,
        })
    }

    /// The sums of a Go, by the platform that it runs on: what the previous lock knows, and what is in the module cache.
    fn toolchain_sums(&self, go_version: &str) -> BTreeMap<String, String> {
        let previous = self.previous.filter(|lock| lock.go_version == go_version);
        let mut sums = previous.map(|lock| lock.toolchain.clone()).unwrap_or_default();
        if let Some(sum) = self.toolchains.sum_of(go_version) {
            sums.entry(GoTarget::host().to_string()).or_insert(sum);
        }
        sums
    }

    /// RoadRunner's own sums, and those of what was pinned: both were verified, so the go command needs to ask nobody
    /// again. What the previous lock knows stays known: no version may change its content.
    fn sums<'a>(
        &self,
        workspace: &Workspace,
        pinned: impl Iterator<Item = &'a Pinned>,
    ) -> Result<GoSum, Error> {
        let release = workspace.directory().join("go.sum");
        let text = fs::read_to_string(&release).unwrap_or_default();
        let mut sums = GoSum::parse(&text)
            .map_err(|error| Error::build(format!("can't read RoadRunner's go.sum: {error}")))?;
        if let Some(previous) = self.previous {
            sums.merge(previous.sums()?);
        }
        for Pinned { module, zip_sum, mod_sum, .. } in pinned {
            sums.insert(&module.path, &module.version, zip_sum);
            sums.insert(&module.path, &format!("{}/go.mod", module.version), mod_sum);
        }
        Ok(sums)
    }

    /// The plugins that are compiled at another version than asked for, and who demands it.
    async fn raised(
        &self,
        plugins: &[Resolved],
        selected: &BTreeMap<String, String>,
        workspace: &Workspace,
    ) -> Result<Vec<Raised>, Error> {
        let mut raised: Vec<Raised> = plugins
            .iter()
            // An added one has no asked version: the newest that anyone demands is what it should be.
            .filter(|plugin| plugin.replacement.is_none() && !plugin.added)
            .filter_map(|plugin| {
                let selected = selected.get(&plugin.module)?;
                (*selected != plugin.version).then(|| Raised {
                    name: plugin.name.clone(),
                    module: plugin.module.clone(),
                    asked: plugin.version.clone(),
                    selected: selected.clone(),
                    demanded_by: Vec::new(),
                })
            })
            .collect();
        if raised.is_empty() {
            return Ok(Vec::new());
        }
        let graph = listing::graph(self.go, workspace).await?;
        for raised in &mut raised {
            raised.demanded_by = graph.demanding(&raised.module, &raised.selected);
        }
        Ok(raised)
    }

    /// Points an error of the go command at the plugin whose module it names.
    fn blame(&self, mut error: Error, plugins: &[Resolved]) -> Error {
        let text = error.output.join("\n");
        let named = plugins
            .iter()
            .filter(|plugin| plugin.span.is_some())
            .filter(|plugin| text.contains(plugin.module.as_str()))
            .max_by_key(|plugin| plugin.module.len());
        if let (Some(plugin), Some(first)) = (named, error.diagnostics.first_mut())
            && first.span.is_none()
        {
            first.span = plugin.span.clone();
            first.label = Some(format!("it names {}", plugin.module));
        }
        error
    }
}

/// The module of the RoadRunner release that a manifest names; `None` where the ref is no version, or a forge has to tell.
pub(crate) fn roadrunner_release(manifest: &Manifest) -> Option<ModuleVersion> {
    let module = Ask::roadrunner(manifest).module?;
    (semver::canonical(&module.version).as_deref() == Some(&module.version)).then_some(module)
}

/// A `[[replaces]]` that names a plugin's module is that plugin's replacement: so the replaced module isn't fetched, and
/// one without a version takes the plugin's ref.
pub(crate) fn with_replaces_at_plugins(manifest: &Manifest) -> Manifest {
    let mut manifest = manifest.clone();
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

/// The newest Go that RoadRunner or a plugin asks for, and who does.
fn newest_go_line<'a>(
    release: &'a GoMod,
    roadrunner: &'a Pinned,
    plugins: &'a [Resolved],
) -> (Option<&'a str>, &'a str) {
    let of_plugins = plugins.iter().map(|plugin| (plugin.go_mod.as_ref(), plugin.module.as_str()));
    std::iter::once((Some(release), roadrunner.module.path.as_str()))
        .chain(of_plugins)
        .filter_map(|(go_mod, module)| Some((go_mod?.go.as_deref()?, module)))
        // RoadRunner comes last, so that it is named where a plugin asks for no more.
        .rev()
        .max_by_key(|(line, _)| line.parse::<GoVersion>().ok())
        .map_or((None, &roadrunner.module.path), |(line, module)| (Some(line), module))
}

fn release(roadrunner: &Pinned) -> Result<GoMod, Error> {
    GoMod::parse(&roadrunner.go_mod).map_err(|error| {
        Error::build(format!(
            "can't read the go.mod of {} {}: {error}",
            roadrunner.module.path, roadrunner.module.version
        ))
    })
}

fn remote_plugin(plugin: &Plugin, pinned: &Pinned) -> Resolved {
    let go_mod = GoMod::parse_lax(&pinned.go_mod).ok();
    let declared = modfile::module_line(&pinned.go_mod).unwrap_or_else(|| pinned.module.path.clone());
    let asked = plugin.reference.value.clone();
    let (module, version, replacement) = if plugin.replace.is_none() {
        (pinned.module.path.clone(), pinned.module.version.clone(), None)
    } else {
        let module = replaced_module(plugin, &declared, &pinned.module.path);
        let version = placeholder_version(&module, &asked);
        let ModuleVersion { path, version: new } = pinned.module.clone();
        (module, version, Some(LockedReplacement::Module { path, version: new }))
    };
    Resolved {
        name: plugin.name.value.clone(),
        span: plugin.reference.span.clone(),
        asked,
        module,
        version,
        commit: pinned.commit.clone(),
        go_mod,
        replacement,
        added: false,
    }
}

/// The path of a module that is replaced and so never fetched. A fork usually keeps the original's module line; one that
/// took its own name leaves the repository, with the fork's major.
fn replaced_module(plugin: &Plugin, declared: &str, replacement: &str) -> String {
    let (root, folder) = match &plugin.origin {
        Origin::Module(path) => return path.value.clone(),
        Origin::GitHub { owner, repository, folder } => {
            (format!("github.com/{}/{}", owner.value, repository.value), folder)
        }
        Origin::GitLab { project, folder } => match &project.value {
            velox_manifest::Project::Path(path) => (format!("gitlab.com/{path}"), folder),
            velox_manifest::Project::Id(_) => return declared.to_owned(),
        },
    };
    if declared != replacement {
        return declared.to_owned();
    }
    let suffix = split_path_version(declared).map_or("", |(_, suffix)| suffix);
    match folder {
        Some(folder) => format!("{root}/{}{suffix}", folder.value),
        None => format!("{root}{suffix}"),
    }
}

/// The version that go.mod requires of a module that is replaced: the ref where it is a version of this major, else the
/// zero pseudo-version, which no minimal version selection notices.
fn placeholder_version(module: &str, asked: &str) -> String {
    let suffix = split_path_version(module).map_or("", |(_, suffix)| suffix);
    if semver::canonical(asked).as_deref() == Some(asked) && path_major_matches(asked, suffix) {
        return asked.to_owned();
    }
    pseudo::zero_pseudo_version(suffix.trim_start_matches(['/', '.']))
}

fn local_plugin(plugin: &Plugin, path: PathBuf, base: &Path) -> Result<Resolved, Diagnostic> {
    let span = plugin.replace.as_ref().and_then(|replace| replace.span.clone());
    let directory = &base.join(&path);
    let (declared, go_mod) = local_go_mod(directory, &span)?;
    if !has_package(directory) {
        let message = format!("{} has a go.mod, and no Go package beside it", directory.display());
        let mut diagnostic = finding(message, span, Some("relative to the configuration file"));
        diagnostic.help.push("the package of a plugin lies where its go.mod is, and not below".to_owned());
        return Err(diagnostic);
    }
    if let Origin::Module(Spanned { value: module, .. }) = &plugin.origin
        && *module != declared
    {
        let message =
            format!("{} declares the module {declared}, not {module}", directory.join("go.mod").display());
        let mut diagnostic =
            finding(message, span, Some("a local replacement has to declare the replaced path"));
        diagnostic
            .help
            .push(format!("write module_name = \"{declared}\", or change the module line of that go.mod"));
        return Err(diagnostic);
    }
    Ok(Resolved {
        name: plugin.name.value.clone(),
        span: plugin.reference.span.clone(),
        asked: plugin.reference.value.clone(),
        version: placeholder_version(&declared, &plugin.reference.value),
        module: declared,
        commit: None,
        go_mod: Some(go_mod),
        replacement: Some(LockedReplacement::Directory { path }),
        added: false,
    })
}

/// The module path of a directory with a Go module: the `module` line of its go.mod.
///
/// # Errors
/// There is no such directory, or it has no go.mod that can be read.
pub fn module_in(directory: &Path) -> Result<String, Diagnostic> {
    local_go_mod(directory, &None).map(|(module, _)| module)
}

/// The module path and the go.mod of a directory of the user's.
fn local_go_mod(directory: &Path, span: &Option<Range<usize>>) -> Result<(String, GoMod), Diagnostic> {
    let path = directory.join("go.mod");
    let wrong = |message: String, help: &str| {
        let label = span.is_some().then_some("relative to the configuration file");
        let mut diagnostic = finding(message, span.clone(), label);
        diagnostic.help.push(help.to_owned());
        diagnostic
    };
    if !directory.is_dir() {
        return Err(wrong(format!("there is no directory {}", directory.display()), "check the path"));
    }
    let text = fs::read_to_string(&path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            let help = match modules_below(directory).as_slice() {
                [] => "`go mod init MODULE` there makes it a Go module".to_owned(),
                names => format!("a Go module is in {}: name that directory", names.join(", ")),
            };
            wrong(format!("{} has no go.mod", directory.display()), &help)
        }
        _ => wrong(format!("can't read {}: {error}", path.display()), "check its permissions"),
    })?;
    let go_mod = GoMod::parse_lax(&text).map_err(|error| {
        wrong(
            format!("{}:{}:{}: {}", path.display(), error.line, error.column, error.message),
            "mend that go.mod",
        )
    })?;
    let module = modfile::module_line(&text).ok_or_else(|| {
        wrong(format!("{} has no module line", path.display()), "start it with `module PATH`")
    })?;
    Ok((module, go_mod))
}

/// The directories right below this one that hold a go.mod, three at most.
fn modules_below(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter(|entry| entry.path().join("go.mod").is_file())
        .map(|entry| entry.path().display().to_string())
        .collect();
    names.sort();
    names.truncate(3);
    names
}

/// Whether a package could be compiled here: tests make none.
fn has_package(directory: &Path) -> bool {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .any(|name| name.ends_with(".go") && !name.ends_with("_test.go") && !name.starts_with(['_', '.']))
}

/// Two entries for one module would be compiled in once, at one version: which one was meant?
fn same_modules(plugins: &[Resolved]) -> Vec<Diagnostic> {
    let mut seen: BTreeMap<&str, &Resolved> = BTreeMap::new();
    let mut wrong = Vec::new();
    for plugin in plugins {
        if let Some(first) = seen.insert(&plugin.module, plugin) {
            let message =
                format!("{} and {} are the same module, {}", first.name, plugin.name, plugin.module);
            let mut diagnostic = finding(message, plugin.span.clone(), Some("the second one"));
            diagnostic.help.push("remove one of them".to_owned());
            wrong.push(diagnostic);
        }
    }
    wrong
}

/// informer and resetter at RoadRunner's own version, where the user didn't list them.
fn added(release: &GoMod, plugins: &[Resolved]) -> Vec<Resolved> {
    let is =
        |module: &str, base: &str| split_path_version(module).map_or(module, |(prefix, _)| prefix) == base;
    ALWAYS
        .iter()
        .filter(|base| !plugins.iter().any(|plugin| is(&plugin.module, base)))
        .filter_map(|base| release.require.iter().find(|line| is(&line.path, base)))
        .map(|Require { path, version, .. }| Resolved {
            name: split_path_version(path)
                .map_or(path.as_str(), |(prefix, _)| prefix)
                .rsplit('/')
                .next()
                .unwrap_or_default()
                .to_owned(),
            span: None,
            asked: version.clone(),
            module: path.clone(),
            version: version.clone(),
            commit: None,
            go_mod: None,
            replacement: None,
            added: true,
        })
        .collect()
}
