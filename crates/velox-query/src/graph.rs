//! What a server is made from, for those who ask: nothing is compiled and no lock is written.

use std::{collections::BTreeSet, sync::Arc};

use tokio_util::sync::CancellationToken;
use velox_build::{BuildRequest, Error, Lock, QuerySession, Reporter, ResolvedModules};
use velox_gomod::{
    module::{Version, match_prefix_patterns},
    semver,
};
use velox_manifest::catalogue;

use crate::without_major;

/// A server's modules, and who requires them.
pub struct ModuleGraph {
    pub(crate) resolved: ResolvedModules,
}

/// A module of a [`ModuleGraph`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct GraphModule {
    /// Module path.
    pub path: String,
    /// The version that is selected.
    pub version: String,
    /// What replaces it: a module with its version, or a directory.
    pub replacement: Option<String>,
}

/// Who requires a module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirement {
    /// Who.
    pub by: Requirer,
    /// At which version.
    pub version: String,
    /// Whether it is only there for another module's sake (`// indirect`).
    pub indirect: bool,
}

/// One that requires modules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Requirer {
    /// The configuration: a plugin of this name.
    Configuration(String),
    /// The go.mod of RoadRunner's release.
    RoadRunner,
    /// The go.mod of a module at a version.
    Module(Version),
}

/// The answer to "why is this module in my server".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Why {
    /// The module that was asked for.
    pub module: GraphModule,
    /// Whether one of its packages is compiled in.
    pub compiled: bool,
    /// Who requires it, the highest version first.
    pub demanded: Vec<Requirement>,
    /// For each plugin that needs it, the shortest way down to it, both ends included. Only direct requirements of
    /// modules that are compiled in make a way.
    pub chains: Vec<Vec<GraphModule>>,
}

impl ModuleGraph {
    /// Resolves the modules of a request. Caches may be filled; nothing else is written.
    ///
    /// # Errors
    /// As [`velox_build::build`] up to its versions.
    pub async fn load(
        request: &BuildRequest,
        reporter: Arc<dyn Reporter>,
        cancel: CancellationToken,
    ) -> Result<Self, Error> {
        let resolved = QuerySession::new(request, reporter, cancel).resolve().await?;
        Ok(Self { resolved })
    }

    /// The exact versions.
    #[must_use]
    pub fn lock(&self) -> &Lock {
        &self.resolved.lock
    }

    /// The plugins of the server as modules, sorted by the user's names for them.
    #[must_use]
    pub fn plugins(&self) -> Vec<GraphModule> {
        self.resolved.lock.plugins.iter().filter_map(|plugin| self.module(&plugin.module)).collect()
    }

    /// The module of this path.
    #[must_use]
    pub fn module(&self, path: &str) -> Option<GraphModule> {
        let version = self.resolved.graph.selected(path)?.to_owned();
        let plugin = self.resolved.lock.plugins.iter().find(|plugin| plugin.module == path);
        let replacement =
            match (plugin, self.resolved.compiled.get(path).and_then(|it| it.replacement.as_ref())) {
                // A directory by the name that the user gave it, not by that of its copy in the workspace.
                (Some(plugin), _) => plugin.row().replacement,
                (None, Some((path, Some(version)))) => Some(format!("{path} {version}")),
                (None, Some((path, None))) => Some(path.clone()),
                (None, None) => None,
            };
        Some(GraphModule { path: path.to_owned(), version, replacement })
    }

    /// What a module requires, sorted by path: directly and compiled in, or with `all` everything that its go.mod names.
    #[must_use]
    pub fn requirements(&self, module: &GraphModule, all: bool) -> Vec<GraphModule> {
        let version = Version { path: module.path.clone(), version: module.version.clone() };
        let mut requirements: Vec<GraphModule> = self
            .resolved
            .graph
            .requirements(&version)
            .iter()
            .filter(|line| all || (!line.indirect && self.resolved.compiled.contains_key(&line.path)))
            .filter_map(|line| self.module(&line.path))
            .collect();
        requirements.sort();
        requirements.dedup();
        requirements
    }

    /// What RoadRunner itself requires besides its plugins.
    #[must_use]
    pub fn roadrunner(&self, all: bool) -> Vec<GraphModule> {
        let plugin = |path: &str| self.resolved.lock.plugins.iter().any(|plugin| plugin.module == path);
        let mut requirements: Vec<GraphModule> = self
            .resolved
            .release
            .go_mod
            .require
            .iter()
            .filter(|line| all || (!line.indirect && self.resolved.compiled.contains_key(&line.path)))
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
        let paths = || self.resolved.graph.modules().keys().map(String::as_str);
        if let Some(path) = paths().find(|path| *path == text) {
            return vec![path];
        }
        if let Some(plugin) = self.resolved.lock.plugins.iter().find(|plugin| plugin.name == text) {
            return vec![plugin.module.as_str()];
        }
        let known = catalogue::find(text).map_or(text, |known| known.module.as_str());
        let base: Vec<&str> = paths().filter(|path| without_major(path) == known).collect();
        if !base.is_empty() {
            return base;
        }
        paths().filter(|path| without_major(path).rsplit('/').next() == Some(text)).collect()
    }

    /// The module paths most like a text, three at most.
    #[must_use]
    pub fn nearest(&self, text: &str) -> Vec<&str> {
        let last = |path: &str| without_major(path).rsplit('/').next().unwrap_or_default().to_lowercase();
        let mut near: Vec<(f64, &str)> = self
            .resolved
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
        let mut demanded: Vec<Requirement> = Vec::new();
        let plugin = self.resolved.lock.plugins.iter().find(|plugin| plugin.module == path);
        if let Some(plugin) = plugin.filter(|plugin| plugin.from.is_some()) {
            let by = Requirer::Configuration(plugin.name.clone());
            demanded.push(Requirement { by, version: plugin.asked.clone(), indirect: false });
        }
        // A plugin that the user names takes the place of RoadRunner's own.
        let of_release = self.resolved.release.go_mod.require.iter().find(|line| line.path == path);
        if let Some(line) = of_release.filter(|_| demanded.is_empty()) {
            let by = Requirer::RoadRunner;
            demanded.push(Requirement { by, version: line.version.clone(), indirect: line.indirect });
        }
        demanded.extend(self.resolved.graph.demands(path).into_iter().map(|demand| Requirement {
            by: Requirer::Module(demand.by.clone()),
            version: demand.require.version.clone(),
            indirect: demand.require.indirect,
        }));
        // The configuration's own word stays first.
        let rest = demanded.iter().position(|one| !matches!(one.by, Requirer::Configuration(_))).unwrap_or(0);
        if let Some(rest) = demanded.get_mut(rest..) {
            rest.sort_by(|one, other| semver::compare(&other.version, &one.version));
        }
        let chains = self.plugins().iter().filter_map(|plugin| self.chain(plugin, path)).collect();
        Some(Why { compiled: self.resolved.compiled.contains_key(path), module, demanded, chains })
    }

    /// The shortest way from one module down to another.
    pub(crate) fn chain(&self, from: &GraphModule, to: &str) -> Option<Vec<GraphModule>> {
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
        self.resolved.private_patterns.iter().any(|patterns| match_prefix_patterns(patterns, path))
    }
}
