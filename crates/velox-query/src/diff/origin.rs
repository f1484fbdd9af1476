//! The plugins that bring a module, from the go.mod files in the module cache.

use std::collections::{BTreeMap, BTreeSet};

use velox_build::{CachedModules, SelectedModule};
use velox_gomod::modfile::Require;

use super::BuildVersions;
use crate::{ROADRUNNER, graph::shortest_path};

/// The requirements of the compiled modules of a build.
pub(super) struct Requirements {
    /// The requirements of each compiled module, by path.
    modules: BTreeMap<String, Vec<Require>>,
    /// Those of RoadRunner itself.
    roadrunner: Vec<Require>,
    /// The selected versions.
    selected: BTreeMap<String, String>,
    /// The plugins: names and module paths.
    plugins: Vec<(String, String)>,
}

impl Requirements {
    pub(super) fn read(
        versions: &BuildVersions,
        compiled: &BTreeMap<String, SelectedModule>,
        cache: &CachedModules,
    ) -> Self {
        let required = |(path, selected): (&String, &SelectedModule)| {
            Some((path.clone(), cache.requirements(&selected.source(path)?)))
        };
        let plugins = versions.plugins.iter();
        Self {
            modules: compiled.iter().filter_map(required).collect(),
            roadrunner: cache.requirements(&versions.roadrunner),
            selected: compiled.iter().map(|(path, it)| (path.clone(), it.version.clone())).collect(),
            plugins: plugins.map(|plugin| (plugin.name.clone(), plugin.module.clone())).collect(),
        }
    }

    /// Who requires the selected version of a module: RoadRunner, and plugins, directly or through other modules. If
    /// `changed` plugins do, the others are left out.
    pub(super) fn users(&self, module: &str, changed: &BTreeSet<String>) -> Vec<String> {
        let version = self.selected.get(module);
        let demands = |lines: &[Require]| {
            lines.iter().any(|line| line.path == module && Some(&line.version) == version)
        };
        let of = |path: &String| self.modules.get(path).map(Vec::as_slice).unwrap_or_default();
        let mut plugins: Vec<&String> =
            self.plugins.iter().filter(|(_, path)| demands(of(path))).map(|(name, _)| name).collect();
        if plugins.is_empty() {
            let next = |path: &String| {
                let direct = of(path).iter().filter(|line| !line.indirect);
                direct.map(|line| line.path.clone()).filter(|path| self.modules.contains_key(path)).collect()
            };
            let is_user = |(_, path): &&(String, String)| {
                shortest_path(path.clone(), |path| demands(of(path)), next).is_some()
            };
            plugins = self.plugins.iter().filter(is_user).map(|(name, _)| name).collect();
        }
        let is_changed = |name: &&String| changed.contains(*name);
        if plugins.iter().any(is_changed) {
            plugins.retain(is_changed);
        }
        let roadrunner = demands(&self.roadrunner).then(|| ROADRUNNER.to_owned());
        roadrunner.into_iter().chain(plugins.into_iter().cloned()).collect()
    }
}
