//! What a server is made from, for those who ask: nothing is compiled and no lock is written.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
    sync::Arc,
};

use tokio_util::sync::CancellationToken;
use velox_fetch::modcache::{CacheFile, ModCache};
use velox_gomod::{
    graph::{MissingGoMods, RequirementGraph},
    modfile::{GoMod, Replace},
    module::{ModuleVersion, match_prefix_patterns, split_path_version},
    semver,
};
use velox_manifest::catalogue;

use crate::{
    Error, Reporter, Request,
    key::replaced_directories,
    lock::{Lock, LockFile, Selected, replacement_of},
    pipeline::{Pipeline, Tools, does_not_fit},
    resolve::{Release, listing, with_replaces_at_plugins},
    settings::Settings,
    workspace::Workspace,
};

/// A server's modules, and who requires them.
#[derive(Debug, Clone)]
pub struct Study {
    /// The exact versions: those of velox.lock where it fits the configuration, else what a new one would say.
    pub lock: Lock,
    pub(crate) graph: RequirementGraph,
    pub(crate) release: Release,
    /// The modules that are compiled in for one target at least.
    compiled: BTreeMap<String, Selected>,
    /// GONOPROXY and GONOSUMDB.
    private: [String; 2],
}

/// A module of a [`Study`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct StudiedModule {
    /// Module path.
    pub path: String,
    /// The version that is selected.
    pub version: String,
    /// What replaces it: a module with its version, or a directory.
    pub replacement: Option<String>,
}

/// Who requires a module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Demanded {
    /// Who.
    pub by: Demander,
    /// At which version.
    pub version: String,
    /// Whether it is only there for another module's sake (`// indirect`).
    pub indirect: bool,
}

/// One that requires modules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Demander {
    /// The configuration: a plugin of this name.
    Configuration(String),
    /// The go.mod of RoadRunner's release.
    RoadRunner,
    /// The go.mod of a module at a version.
    Module(ModuleVersion),
}

/// The answer to "why is this module in my server".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Why {
    /// The module that was asked for.
    pub module: StudiedModule,
    /// Whether one of its packages is compiled in.
    pub compiled: bool,
    /// Who requires it, the highest version first.
    pub demanded: Vec<Demanded>,
    /// For each plugin that needs it, the shortest way down to it, both ends included. Only direct requirements of
    /// modules that are compiled in make a way.
    pub chains: Vec<Vec<StudiedModule>>,
}

/// Finds out what the server of a request is made from. Caches may be filled; nothing else is written.
///
/// # Errors
/// As [`crate::build`] up to its versions.
pub async fn study(
    request: &Request,
    reporter: Arc<dyn Reporter>,
    cancel: CancellationToken,
) -> Result<Study, Error> {
    let manifest = with_replaces_at_plugins(&request.manifest);
    let settings = Settings::new(&manifest, &request.options, &request.environment);
    let pipeline = Pipeline::new(request, &manifest, &settings, reporter, cancel);
    let found = LockFile::read(request)?;
    let mut tools = pipeline.tools(&found, found.fitting(&pipeline.asked).ok()).await?;
    let lock = match found.fitting(&pipeline.asked) {
        Ok(lock) => lock.clone(),
        Err(differences) if pipeline.must_fit() => return Err(does_not_fit(&found, &differences)),
        Err(_) => pipeline.resolve(&mut tools, &found).await?.0,
    };
    let release = pipeline.resolver(&tools, Some(&lock)).release().await?;
    let graph = graph(&pipeline, &tools, &lock).await?;
    let mut compiled = BTreeMap::new();
    for target in lock.targets.values() {
        compiled.extend(lock.selected(target)?);
    }
    let settings = tools.go.settings();
    let private = [settings.gonoproxy.clone(), settings.gonosumdb.clone()];
    Ok(Study { lock, graph, release, compiled, private })
}

/// The graph, from the module cache; where that lacks a go.mod, the go command gets it and verifies it.
async fn graph(pipeline: &Pipeline<'_>, tools: &Tools, lock: &Lock) -> Result<RequirementGraph, Error> {
    let main = lock.go_mod()?;
    let cache = ModCache::new(&tools.go.settings().gomodcache);
    let directories: BTreeMap<String, PathBuf> =
        replaced_directories(lock, pipeline.manifest, &pipeline.request.base).into_iter().collect();
    let read = |module: &ModuleVersion| {
        let path = match replacement_of(&main.replace, module) {
            None => cache.path(module, CacheFile::Mod).ok()?,
            Some(Replace { new_path, new_version: Some(version), .. }) => {
                let replacement = ModuleVersion { path: new_path.clone(), version: version.clone() };
                cache.path(&replacement, CacheFile::Mod).ok()?
            }
            Some(Replace { new_version: None, .. }) => directories.get(&module.path)?.join("go.mod"),
        };
        GoMod::parse_lax(&fs::read_to_string(path).ok()?).ok()
    };
    if let Ok(graph) = RequirementGraph::load(&main, &read) {
        return Ok(graph);
    }
    let workspace = Workspace::empty(tools.scratch.path().join("graph"))?;
    workspace.write("go.mod", &lock.go_mod)?;
    workspace.write("go.sum", &lock.go_sum)?;
    for (module, directory) in &directories {
        workspace.add_replacement(module, directory)?;
    }
    listing::graph(&tools.go, &workspace).await.map_err(|error| {
        if pipeline.request.options.offline {
            error.help("run it once without --offline, or `vx fetch` beforehand")
        } else {
            error
        }
    })?;
    RequirementGraph::load(&main, &read).map_err(|MissingGoMods(modules)| {
        Error::build(format!("can't get the go.mod of {} modules", modules.len()))
            .output(modules.iter().map(ModuleVersion::to_string).collect())
    })
}

impl Study {
    /// The plugins of the server as modules, sorted by the user's names for them.
    #[must_use]
    pub fn plugins(&self) -> Vec<StudiedModule> {
        self.lock.plugins.iter().filter_map(|plugin| self.module(&plugin.module)).collect()
    }

    /// The module of this path.
    #[must_use]
    pub fn module(&self, path: &str) -> Option<StudiedModule> {
        let version = self.graph.selected(path)?.to_owned();
        let plugin = self.lock.plugins.iter().find(|plugin| plugin.module == path);
        let replacement = match (plugin, self.compiled.get(path).and_then(|it| it.replacement.as_ref())) {
            // A directory by the name that the user gave it, not by that of its copy in the workspace.
            (Some(plugin), _) => plugin.row().replacement,
            (None, Some((path, Some(version)))) => Some(format!("{path} {version}")),
            (None, Some((path, None))) => Some(path.clone()),
            (None, None) => None,
        };
        Some(StudiedModule { path: path.to_owned(), version, replacement })
    }

    /// What a module requires, sorted by path: directly and compiled in, or with `all` everything that its go.mod names.
    #[must_use]
    pub fn requirements(&self, module: &StudiedModule, all: bool) -> Vec<StudiedModule> {
        let version = ModuleVersion { path: module.path.clone(), version: module.version.clone() };
        let mut requirements: Vec<StudiedModule> = self
            .graph
            .requirements(&version)
            .iter()
            .filter(|line| all || (!line.indirect && self.compiled.contains_key(&line.path)))
            .filter_map(|line| self.module(&line.path))
            .collect();
        requirements.sort();
        requirements.dedup();
        requirements
    }

    /// What RoadRunner itself requires besides its plugins.
    #[must_use]
    pub fn roadrunner(&self, all: bool) -> Vec<StudiedModule> {
        let plugin = |path: &str| self.lock.plugins.iter().any(|plugin| plugin.module == path);
        let mut requirements: Vec<StudiedModule> = self
            .release
            .go_mod
            .require
            .iter()
            .filter(|line| all || (!line.indirect && self.compiled.contains_key(&line.path)))
            .filter(|line| !plugin(&line.path))
            .filter_map(|line| self.module(&line.path))
            .collect();
        requirements.sort();
        requirements
    }

    /// The module paths that a user may mean: the very path, a path without its major, a plugin's name in the configuration
    /// or in the catalogue, the last part of a path.
    #[must_use]
    pub fn named(&self, text: &str) -> Vec<&str> {
        let text = text.split('@').next().unwrap_or(text).trim_end_matches('/');
        let paths = || self.graph.modules().keys().map(String::as_str);
        if let Some(path) = paths().find(|path| *path == text) {
            return vec![path];
        }
        if let Some(plugin) = self.lock.plugins.iter().find(|plugin| plugin.name == text) {
            return vec![plugin.module.as_str()];
        }
        let known = catalogue::find(text).map_or(text, |known| known.module.as_str());
        let base: Vec<&str> = paths().filter(|path| base(path) == known).collect();
        if !base.is_empty() {
            return base;
        }
        paths().filter(|path| self::base(path).rsplit('/').next() == Some(text)).collect()
    }

    /// The module paths most like a text, three at most.
    #[must_use]
    pub fn nearest(&self, text: &str) -> Vec<&str> {
        let last = |path: &str| base(path).rsplit('/').next().unwrap_or_default().to_lowercase();
        let mut near: Vec<(f64, &str)> = self
            .graph
            .modules()
            .keys()
            .map(|path| {
                let whole = strsim::jaro_winkler(path, text);
                (whole.max(strsim::jaro_winkler(&last(path), &last(text))), path.as_str())
            })
            .filter(|(likeness, _)| *likeness > 0.85)
            .collect();
        near.sort_by(|(one, _), (other, _)| other.total_cmp(one));
        near.into_iter().take(3).map(|(_, path)| path).collect()
    }

    /// Why a module is in the server; `None`: it is not.
    #[must_use]
    pub fn why(&self, path: &str) -> Option<Why> {
        let module = self.module(path)?;
        let mut demanded: Vec<Demanded> = Vec::new();
        let plugin = self.lock.plugins.iter().find(|plugin| plugin.module == path);
        if let Some(plugin) = plugin.filter(|plugin| plugin.from.is_some()) {
            let by = Demander::Configuration(plugin.name.clone());
            demanded.push(Demanded { by, version: plugin.asked.clone(), indirect: false });
        }
        // A plugin that the user names takes the place of RoadRunner's own.
        let of_release = self.release.go_mod.require.iter().find(|line| line.path == path);
        if let Some(line) = of_release.filter(|_| demanded.is_empty()) {
            let by = Demander::RoadRunner;
            demanded.push(Demanded { by, version: line.version.clone(), indirect: line.indirect });
        }
        demanded.extend(self.graph.edges_to(path).into_iter().map(|demand| Demanded {
            by: Demander::Module(demand.by.clone()),
            version: demand.require.version.clone(),
            indirect: demand.require.indirect,
        }));
        // The configuration's own word stays first.
        let rest = demanded.iter().position(|one| !matches!(one.by, Demander::Configuration(_))).unwrap_or(0);
        if let Some(rest) = demanded.get_mut(rest..) {
            rest.sort_by(|one, other| semver::compare(&other.version, &one.version));
        }
        let chains = self.plugins().iter().filter_map(|plugin| self.chain(plugin, path)).collect();
        Some(Why { compiled: self.compiled.contains_key(path), module, demanded, chains })
    }

    /// The shortest way from one module down to another.
    pub(crate) fn chain(&self, from: &StudiedModule, to: &str) -> Option<Vec<StudiedModule>> {
        let mut ways = std::collections::VecDeque::from([vec![from.clone()]]);
        let mut seen = BTreeSet::from([from.path.clone()]);
        while let Some(way) = ways.pop_front() {
            let last = way.last()?;
            if last.path == to {
                return Some(way).filter(|way| way.len() > 1);
            }
            for next in self.requirements(last, false) {
                if seen.insert(next.path.clone()) {
                    let mut longer = way.clone();
                    longer.push(next);
                    ways.push_back(longer);
                }
            }
        }
        None
    }

    /// Whether the user keeps this module's name from public services.
    pub(crate) fn is_private(&self, path: &str) -> bool {
        self.private.iter().any(|patterns| match_prefix_patterns(patterns, path))
    }

    /// Every module that is compiled in, with what replaces it.
    pub(crate) fn compiled(&self) -> &BTreeMap<String, Selected> {
        &self.compiled
    }
}

/// A module path without its major.
pub(crate) fn base(module: &str) -> &str {
    split_path_version(module).map_or(module, |(base, _)| base)
}
