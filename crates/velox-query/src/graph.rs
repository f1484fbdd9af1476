//! The module graph of a binary.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
};

use tokio_util::sync::CancellationToken;
use velox_build::{BuildRequest, Error, Lock, LockedPlugin, QuerySession, Reporter, ResolvedModules};
use velox_gomod::{modfile::Require, module::ModuleVersion};
use velox_manifest::catalogue;

use crate::{last_part, without_major};

/// The module graph of a binary after minimal version selection.
pub struct ModuleGraph {
    pub(crate) resolved: ResolvedModules,
}

/// A module of a [`ModuleGraph`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct GraphModule {
    /// Module path.
    pub path: String,
    /// The selected version.
    pub version: String,
    /// The replacement: a module and its version, or a directory.
    pub replacement: Option<String>,
}

impl ModuleGraph {
    /// Resolves the modules of a request. Only caches are written.
    pub async fn load(
        request: &BuildRequest,
        reporter: Arc<dyn Reporter>,
        cancel: CancellationToken,
    ) -> Result<Self, Error> {
        Ok(Self { resolved: QuerySession::new(request, reporter, cancel)?.resolve().await? })
    }

    /// The lock: velox.lock if it matches the configuration, else a new one.
    #[must_use]
    pub fn lock(&self) -> &Lock {
        &self.resolved.lock
    }

    /// The plugins, sorted by name in the configuration.
    #[must_use]
    pub fn plugins(&self) -> Vec<GraphModule> {
        self.lock().plugins.iter().filter_map(|plugin| self.module(&plugin.module)).collect()
    }

    pub(crate) fn plugin(&self, path: &str) -> Option<&LockedPlugin> {
        self.lock().plugins.iter().find(|plugin| plugin.module == path)
    }

    pub(crate) fn is_compiled(&self, path: &str) -> bool {
        self.resolved.compiled.contains_key(path)
    }

    /// The module at a path.
    #[must_use]
    pub fn module(&self, path: &str) -> Option<GraphModule> {
        let version = self.resolved.graph.selected(path)?.to_owned();
        let replacement = match self.plugin(path) {
            // The directory in the configuration, not its copy in the workspace.
            Some(plugin) => plugin.row().replacement,
            None => self.resolved.compiled.get(path).and_then(|it| it.replacement.as_ref()).map(
                |(path, version)| match version {
                    Some(version) => format!("{path} {version}"),
                    None => path.clone(),
                },
            ),
        };
        Some(GraphModule { path: path.to_owned(), version, replacement })
    }

    /// The direct requirements of a module that are compiled in, or `all` in its go.mod, sorted by path.
    #[must_use]
    pub fn requirements(&self, module: &GraphModule, all: bool) -> Vec<GraphModule> {
        let version = ModuleVersion::new(&module.path, &module.version);
        self.select(self.resolved.graph.requirements(&version), all)
    }

    /// The requirements of RoadRunner itself, without its plugins.
    #[must_use]
    pub fn roadrunner(&self, all: bool) -> Vec<GraphModule> {
        let mut modules = self.select(&self.resolved.release.go_mod.require, all);
        modules.retain(|module| self.plugin(&module.path).is_none());
        modules
    }

    fn select(&self, requirements: &[Require], all: bool) -> Vec<GraphModule> {
        let mut modules: Vec<GraphModule> = requirements
            .iter()
            .filter(|line| all || (!line.indirect && self.is_compiled(&line.path)))
            .filter_map(|line| self.module(&line.path))
            .collect();
        modules.sort();
        modules.dedup();
        modules
    }

    /// The module paths that match a text: a path with or without its major version, a plugin name in the
    /// configuration or the catalogue, or the last element of a path.
    #[must_use]
    pub fn find(&self, text: &str) -> Vec<&str> {
        let text = text.split('@').next().unwrap_or(text).trim_end_matches('/');
        let paths = || self.resolved.graph.modules().keys().map(String::as_str);
        if let Some(path) = paths().find(|path| *path == text) {
            return vec![path];
        }
        if let Some(plugin) = self.lock().plugins.iter().find(|plugin| plugin.name == text) {
            return vec![plugin.module.as_str()];
        }
        let known = catalogue::find(text).map_or(text, |known| known.module.as_str());
        let base: Vec<&str> = paths().filter(|path| without_major(path) == known).collect();
        if base.is_empty() { paths().filter(|path| last_part(path) == text).collect() } else { base }
    }

    /// Up to three module paths that are most similar to a text.
    #[must_use]
    pub fn nearest(&self, text: &str) -> Vec<&str> {
        const MIN_SIMILARITY: f64 = 0.85;
        let last = |path: &str| last_part(path).to_lowercase();
        let mut near: Vec<(f64, &str)> = self
            .resolved
            .graph
            .modules()
            .keys()
            .map(|path| {
                let full_similarity = strsim::jaro_winkler(path, text);
                (full_similarity.max(strsim::jaro_winkler(&last(path), &last(text))), path.as_str())
            })
            .filter(|(similarity, _)| *similarity > MIN_SIMILARITY)
            .collect();
        near.sort_by(|(one, _), (other, _)| other.total_cmp(one));
        near.into_iter().take(3).map(|(_, path)| path).collect()
    }
}

/// The shortest path from a module to one that `is_end`, both included; `next` are the modules that one requires.
pub(crate) fn shortest_path<M: Clone + Ord>(
    from: M,
    is_end: impl Fn(&M) -> bool,
    next: impl Fn(&M) -> Vec<M>,
) -> Option<Vec<M>> {
    let mut seen = BTreeSet::from([from.clone()]);
    let mut paths = VecDeque::from([vec![from]]);
    while let Some(path) = paths.pop_front() {
        let last = path.last()?;
        if is_end(last) {
            return Some(path);
        }
        for module in next(last) {
            if seen.insert(module.clone()) {
                paths.push_back([path.as_slice(), &[module]].concat());
            }
        }
    }
    None
}
