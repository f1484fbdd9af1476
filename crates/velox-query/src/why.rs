//! The reasons why a module is part of a binary.

use velox_build::LoweredModule;
use velox_gomod::{module::ModuleVersion, semver};

use crate::{GraphModule, ModuleGraph, graph::shortest_path};

/// The reasons why a module is part of a binary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Why {
    /// The module.
    pub module: GraphModule,
    /// Whether one of its packages is compiled in.
    pub compiled: bool,
    /// For each plugin that doesn't compile with RoadRunner's version of the module: its lower version.
    pub lowered: Vec<LoweredModule>,
    /// The requirements of the module, highest version first.
    pub demanded: Vec<ModuleRequirement>,
    /// The shortest path of direct requirements from each plugin to the module, both ends included.
    pub chains: Vec<Vec<GraphModule>>,
}

/// A requirement of a module at a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModuleRequirement {
    /// The requirer.
    pub by: Requirer,
    /// The required version.
    pub version: String,
    /// Whether the requirement is marked `// indirect`.
    pub indirect: bool,
}

/// The origin of a requirement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Requirer {
    /// The configuration, as the plugin of this name.
    Configuration(String),
    /// The configuration, in `[[requires]]`.
    Floor,
    /// The go.mod of RoadRunner's release.
    RoadRunner,
    /// The go.mod of a module.
    Module(ModuleVersion),
}

impl ModuleGraph {
    /// The reasons why a module is part of the binary; `None` if it is not.
    #[must_use]
    pub fn why(&self, path: &str) -> Option<Why> {
        let module = self.module(path)?;
        let mut demanded: Vec<ModuleRequirement> = self
            .resolved
            .graph
            .edges_to(path)
            .into_iter()
            .map(|demand| ModuleRequirement {
                by: Requirer::Module(demand.by.clone()),
                version: demand.require.version.clone(),
                indirect: demand.require.indirect,
            })
            .collect();
        let plugin = self.plugin(path).filter(|plugin| plugin.from.is_some());
        // A plugin of the configuration replaces RoadRunner's own requirement.
        let of_release = self.resolved.release.go_mod.require.iter().find(|line| line.path == path);
        if let Some(line) = of_release.filter(|_| plugin.is_none()) {
            let (version, indirect) = (line.version.clone(), line.indirect);
            demanded.insert(0, ModuleRequirement { by: Requirer::RoadRunner, version, indirect });
        }
        demanded.sort_by(|one, other| semver::compare(&other.version, &one.version));
        if let Some(version) = self.resolved.floors.get(path).cloned() {
            demanded.insert(0, ModuleRequirement { by: Requirer::Floor, version, indirect: false });
        }
        if let Some(plugin) = plugin {
            let (by, version) = (Requirer::Configuration(plugin.name.clone()), plugin.asked.clone());
            demanded.insert(0, ModuleRequirement { by, version, indirect: false });
        }
        let chains = self.plugins().iter().filter_map(|plugin| self.chain(plugin, path)).collect();
        let lowered = self.lock().lowered.iter().filter(|lowered| lowered.module == path).cloned().collect();
        Some(Why { compiled: self.is_compiled(path), module, lowered, demanded, chains })
    }

    /// The shortest path of requirements from one module to another.
    pub(crate) fn chain(&self, from: &GraphModule, to: &str) -> Option<Vec<GraphModule>> {
        let path =
            shortest_path(from.clone(), |last| last.path == to, |last| self.requirements(last, false))?;
        Some(path).filter(|path| path.len() > 1)
    }
}
