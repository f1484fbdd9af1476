//! The plugin graph of a server: which plugin gets which others, and which sections of `.rr.yaml` each reads.
//!
//! RoadRunner's container, [endure](https://github.com/roadrunner-server/endure), connects plugins by interfaces: the
//! parameters of a plugin's `Init` must be implemented by other plugins, or by what these provide. A Go program
//! (`reader.go`) finds the same in the source of the plugins, which is never run:
//!
//! ```text
//! go list -export ──► packages ──reader.go──► JSON ──► PluginGraph ──start──► which plugins start, and why not
//! ```

mod diagram;
mod start;

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use velox_build::{BuildRequest, Error, Lock, PackageReader, PackagesRead, QuerySession, Reporter};
use velox_gomod::module::ModuleVersion;

pub use start::{DisabledCause, PluginStart};

use crate::last_part;

/// The reader is embedded, and compiled by the Go version of the build.
pub(crate) const PLUGIN_GRAPH_READER: PackageReader =
    PackageReader { name: "plugin-graph", source: include_str!("reader.go") };

/// The plugins of a server and the connections between them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginGraph {
    /// The plugins, in the order in which RoadRunner registers them.
    pub plugins: Vec<PluginNode>,
    /// The keys of `.rr.yaml` that RoadRunner itself reads.
    pub sections: Vec<String>,
    /// What could not be read from RoadRunner's own source, one sentence each.
    pub unknown: Vec<String>,
}

/// A plugin, as endure sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginNode {
    /// The name in velox.toml, else the plugin's own name, else the last element of its module path.
    #[serde(default)]
    pub label: String,
    /// The import path of its package.
    pub package: String,
    /// The Go type that is registered, such as `Plugin`.
    #[serde(rename = "type")]
    pub type_name: String,
    /// The type in endure's log, such as `*http.Plugin`.
    pub go_type: String,
    /// The module path.
    pub module: String,
    /// What its method `Name` returns; `None`: it has none, or it is no constant.
    pub name: Option<String>,
    /// Its weight among several implementers; `None`: it is no constant.
    pub weight: Option<u64>,
    /// Whether plugins read `.rr.yaml` through this one.
    pub is_configuration: bool,
    /// The parameters of `Init`: without an implementer of each, the plugin is disabled.
    pub init: Vec<PluginNeed>,
    /// The types that it provides through methods.
    pub provides: Vec<ProvidedType>,
    /// The interfaces whose implementers it collects, such as middleware; none is required.
    pub collects: Vec<PluginNeed>,
    /// The names of its exported methods.
    #[serde(default)]
    pub methods: Vec<String>,
    /// The keys of `.rr.yaml` that it reads, such as `http` and `http.static`.
    pub sections: Vec<String>,
    /// When it disables itself in `Init`; one condition suffices.
    pub disabled_when: Vec<StartCondition>,
    /// What can't be read from the source.
    pub unknown: Vec<UnknownFact>,
    /// Why endure refuses to start with this plugin.
    pub invalid: Option<String>,
}

/// An interface that a plugin gets other plugins through.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginNeed {
    /// The interface as the plugin's source names it.
    #[serde(rename = "type")]
    pub type_name: String,
    /// The names of its methods.
    pub methods: Vec<String>,
    /// The implementers, in order of preference.
    pub implementers: Vec<Implementer>,
}

/// A plugin that implements an interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Implementer {
    /// An index of [`PluginGraph::plugins`].
    pub plugin: usize,
    /// The method that returns the implementation; empty if the plugin is it.
    pub method: String,
}

/// A type that a plugin provides through a method.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProvidedType {
    /// The interface as the plugin's source names it.
    #[serde(rename = "type")]
    pub type_name: String,
    /// The method.
    pub method: String,
}

/// A condition on `.rr.yaml`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StartCondition {
    /// The key has a value.
    Has(String),
    /// The condition is not met.
    Not(Box<StartCondition>),
    /// Each condition is met.
    All(Vec<StartCondition>),
    /// At least one condition is met.
    Any(Vec<StartCondition>),
    /// A constant.
    Is(bool),
    /// An expression that depends on more than the presence of keys.
    Unknown(String),
}

/// A fact that can't be read from the source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnknownFact {
    /// Its kind.
    pub what: FactKind,
    /// `directory/file.go:line`, or empty.
    #[serde(rename = "where")]
    pub place: String,
    /// The expression, or a sentence.
    pub text: String,
}

/// The kind of an [`UnknownFact`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FactKind {
    /// The package doesn't compile.
    Types,
    /// A parameter of `Init`.
    Init,
    /// What `Provides` returns.
    Provides,
    /// What `Collects` returns.
    Collects,
    /// What `Name` returns.
    Name,
    /// What `Weight` returns.
    Weight,
    /// A key of `.rr.yaml`.
    Section,
    /// When `Init` disables the plugin.
    Disabled,
}

/// A [`PluginGraph`] with the versions of its plugins.
#[derive(Debug, Clone)]
pub struct LoadedPluginGraph {
    /// The graph.
    pub graph: PluginGraph,
    /// The lock of the binary.
    pub lock: Lock,
    /// The plugins of the RoadRunner release itself.
    pub released: Vec<ModuleVersion>,
}

impl PluginGraph {
    /// Reads the graph of a request. Packages that were not compiled yet are compiled into Go's build cache; the result
    /// is cached until something changes.
    ///
    /// # Errors
    /// The versions can't be resolved, or the go command fails.
    pub async fn load(
        request: &BuildRequest,
        reporter: Arc<dyn Reporter>,
        cancel: CancellationToken,
    ) -> Result<LoadedPluginGraph, Error> {
        Self::parse(QuerySession::new(request, reporter, cancel)?.read_packages(PLUGIN_GRAPH_READER).await?)
    }

    /// Reads the graph of a request if that takes no compilation: it was read before, or the binary was built.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub async fn load_if_built(
        request: &BuildRequest,
        reporter: Arc<dyn Reporter>,
        cancel: CancellationToken,
    ) -> Result<Option<LoadedPluginGraph>, Error> {
        let read =
            QuerySession::new(request, reporter, cancel)?.read_built_packages(PLUGIN_GRAPH_READER).await?;
        read.map(Self::parse).transpose()
    }

    pub(crate) fn parse(
        PackagesRead { lock, released, output }: PackagesRead,
    ) -> Result<LoadedPluginGraph, Error> {
        let mut graph: Self = serde_json::from_str(&output).map_err(|error| {
            Error::build(format!("internal error: the plugin graph is not valid JSON: {error}"))
        })?;
        for plugin in &mut graph.plugins {
            let locked = lock.plugins.iter().find(|locked| locked.module == plugin.module);
            plugin.label = match (locked, &plugin.name) {
                (Some(locked), _) => locked.name.clone(),
                (None, Some(name)) => name.clone(),
                (None, None) => last_part(&plugin.module).to_owned(),
            };
        }
        Ok(LoadedPluginGraph { graph, lock, released })
    }

    /// The plugin of an [`Implementer`].
    #[must_use]
    pub fn implementer(&self, implementer: &Implementer) -> Option<&PluginNode> {
        self.plugins.get(implementer.plugin)
    }

    /// The edges from a plugin to the one that gets it, without repetitions: for each plugin, those for its `Init`
    /// first.
    #[must_use]
    pub fn edges(&self) -> Vec<PluginEdge> {
        let mut edges: Vec<PluginEdge> = Vec::new();
        for (to, plugin) in self.plugins.iter().enumerate() {
            let init = plugin.init.iter().map(|need| (need, true));
            for (need, is_required) in init.chain(plugin.collects.iter().map(|need| (need, false))) {
                for Implementer { plugin: from, .. } in &need.implementers {
                    if !edges.iter().any(|edge| (edge.from, edge.to) == (*from, to)) {
                        edges.push(PluginEdge { from: *from, to, is_required });
                    }
                }
            }
        }
        edges
    }
}

/// A connection: `to` gets `from`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PluginEdge {
    /// The index of the plugin that is given.
    pub from: usize,
    /// The index of the plugin that gets it.
    pub to: usize,
    /// Whether it is a parameter of `Init`.
    pub is_required: bool,
}

#[cfg(test)]
mod tests {
    use std::{path::Path, process::Command};

    /// The reader's own tests (`reader_test.go`).
    #[test]
    fn the_reader_passes_its_tests() {
        let directory = tempfile::tempdir().unwrap();
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/plugin_graph");
        let files = ["reader.go", "reader_test.go"].map(|name| sources.join(name));
        let ran = Command::new("go")
            .arg("test")
            .args(files)
            .current_dir(directory.path())
            .env("GOWORK", "off")
            .env("GOFLAGS", "")
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        assert!(ran.status.success(), "{}{}", text(&ran.stdout), text(&ran.stderr));
    }
}
