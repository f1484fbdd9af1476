//! Checks of a build without compiling it.

mod known;
mod rules;
mod starts;
mod uses;

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use serde::Serialize;
use tokio_util::sync::CancellationToken;
use velox_build::{
    BuildRequest, BuildSummary, Error, ErrorKind, Event, Lock, PackageCheck, PackagesRead, QuerySession,
    Reporter, VersionSubject,
};
use velox_gomod::module::ModuleVersion;
use velox_manifest::{
    Diagnostic, Level, Manifest,
    catalogue::{self, KnownPlugin},
};

pub use self::known::check_known_plugins;
use crate::{
    CompiledPlugins, LoadedPluginGraph, ModuleGraph, PluginGraph, PluginNode, RrConfig, RrConfigCheck,
    plugin_graph::PLUGIN_GRAPH_READER, plugin_major_of, without_major,
};

/// A rule of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckRule {
    /// Warnings of the configuration itself.
    Configuration,
    /// All refs can be resolved together.
    Resolve,
    /// Plugins have the major versions of the RoadRunner release.
    PluginMajor,
    /// Plugins use the major versions of the interface modules that RoadRunner uses.
    Interface,
    /// RoadRunner starts each plugin.
    DeadPlugin,
    /// Another plugin uses each plugin that is of no use by itself, such as middleware.
    UnusedPlugin,
    /// Plugins are compiled at the requested version.
    Raised,
    /// Refs are tags or commits, not branches.
    MovingRef,
    /// Plugins are maintained.
    Deprecated,
    /// The settings of `.rr.yaml` work with the RoadRunner release and its plugins.
    RrConfig,
}

/// A problem that a check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The violated rule.
    pub rule: CheckRule,
    /// The problem, with the remedy as help.
    pub diagnostic: Diagnostic,
    /// The lines of an explanation.
    pub explanation: Vec<String>,
}

/// The result of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckReport {
    /// The findings, in configuration order; those without a span come last.
    pub findings: Vec<Finding>,
    /// The checks of RoadRunner configurations.
    pub rr_configs: Vec<RrConfigCheck>,
    /// RoadRunner's version; `None` if it can't be resolved.
    pub roadrunner: Option<String>,
}

/// Checks a request, and RoadRunner configurations against its plugins. Only caches are written, as with [`ModuleGraph::load`].
///
/// # Errors
/// An interruption only: a resolution failure is a finding.
pub async fn check(
    request: &BuildRequest,
    rr_configs: &[RrConfig],
    reporter: Arc<dyn Reporter>,
    cancel: CancellationToken,
) -> Result<CheckReport, Error> {
    let quiet = Arc::new(WithoutRaised(Arc::clone(&reporter)));
    // A raised plugin is a finding, not an error.
    let mut lenient = request.clone();
    lenient.manifest.strict = false;
    lenient.options.versions.strict = false;
    let graph = match ModuleGraph::load(&lenient, quiet, cancel.clone()).await {
        Err(error) if error.kind == ErrorKind::Interrupted => return Err(error),
        graph => graph,
    };
    let mut plugin_graph = None;
    let mut findings = rules::of_configuration(&request.manifest, graph.as_ref().ok());
    let modules: Vec<(String, String)> = match &graph {
        Ok(graph) => {
            let newest =
                newest_versions(request, rules::misplaced(graph), Arc::clone(&reporter), cancel.clone())
                    .await;
            findings.extend(rules::of_graph(request, graph, &newest));
            let session = QuerySession::new(&lenient, Arc::new(WithoutRaised(reporter)), cancel)?;
            // Without a lock file, the resolved versions may be those of an earlier build.
            let read = match session.cached_packages(PLUGIN_GRAPH_READER, graph.lock()) {
                Ok(None) => session.read_built_packages(PLUGIN_GRAPH_READER).await,
                read => read,
            };
            match read.and_then(|read| read.map(PluginGraph::parse).transpose()) {
                Ok(Some(loaded)) => {
                    findings.extend(of_plugin_graph(&request.manifest, &loaded));
                    plugin_graph = Some(loaded.graph);
                }
                Err(error) if error.kind == ErrorKind::Interrupted => return Err(error),
                Ok(None) | Err(_) => {
                    findings.extend(known::of_lock(&request.manifest, graph.lock()).unwrap_or_default());
                }
            }
            let locked = graph.lock().plugins.iter();
            locked.map(|plugin| (plugin.name.clone(), plugin.module.clone())).collect()
        }
        Err(error) => {
            findings.extend(rules::of_failure(error));
            let manifest = &request.manifest;
            let plugins = manifest.plugins.iter();
            plugins.map(|plugin| (plugin.name.value.clone(), plugin.identity(manifest))).collect()
        }
    };
    let compiled = plugin_graph.as_ref().map_or(CompiledPlugins::Modules(&modules), CompiledPlugins::Graph);
    let graph = graph.as_ref().ok();
    let major = graph.and_then(|graph| plugin_major_of(&graph.resolved.release));
    findings.sort_by_key(|finding| {
        let place = finding.diagnostic.span.as_ref().map_or(usize::MAX, |span| span.start);
        (place, finding.rule)
    });
    let rr_configs = rr_configs.iter().map(|config| config.check(compiled, major)).collect();
    let roadrunner = graph.map(|graph| graph.lock().roadrunner.version.clone());
    Ok(CheckReport { findings, rr_configs, roadrunner })
}

/// Findings about the connections between the plugins.
fn of_plugin_graph(manifest: &Manifest, loaded: &LoadedPluginGraph) -> Vec<Finding> {
    let mut findings = starts::of_plugins(manifest, loaded);
    findings.extend(uses::of_plugins(manifest, loaded));
    findings
}

/// The span of a plugin's name in the configuration.
fn span_of(manifest: &Manifest, plugin: &PluginNode) -> Option<Range<usize>> {
    let configured = manifest.plugins.iter().find(|known| known.name.value == plugin.label);
    configured.and_then(|known| known.name.span.clone())
}

/// How to add a plugin: at the version that the RoadRunner release has.
fn addition(known: &KnownPlugin, loaded: &LoadedPluginGraph) -> String {
    let KnownPlugin { name, module, .. } = known;
    match loaded.released.iter().find(|plugin| without_major(&plugin.path) == module) {
        Some(plugin) => format!(
            "add {name}: {} {}, which RoadRunner {} was released with",
            plugin.path, plugin.version, loaded.lock.roadrunner.version
        ),
        None => format!("add {name}: `vx add {name}`"),
    }
}

/// Whether a plugin of the catalogue is part of the binary.
fn is_included(known: &KnownPlugin, loaded: &LoadedPluginGraph) -> bool {
    loaded.graph.plugins.iter().any(|plugin| without_major(&plugin.module) == known.module)
}

/// Builds a request as [`velox_build::build`]. What [`check()`] finds about the major versions of plugins and about the
/// connections between them is a warning, with `--strict` an error.
///
/// # Errors
/// As [`velox_build::build_checked`].
pub async fn build(
    request: &BuildRequest,
    reporter: Arc<dyn Reporter>,
    cancel: CancellationToken,
) -> Result<BuildSummary, Error> {
    let manifest = &request.manifest;
    let diagnostics =
        |findings: Vec<Finding>| findings.into_iter().map(|finding| finding.diagnostic).collect();
    let findings = |read: PackagesRead| {
        // A result that can't be parsed says nothing.
        let Ok(loaded) = PluginGraph::parse(read) else { return Vec::new() };
        let mut findings = rules::of_majors(manifest, &loaded.lock, &loaded.released);
        findings.extend(of_plugin_graph(manifest, &loaded));
        diagnostics(findings)
    };
    let known = |lock: &Lock| known::of_lock(manifest, lock).map(diagnostics);
    let majors =
        |lock: &Lock, released: &[ModuleVersion]| diagnostics(rules::of_majors(manifest, lock, released));
    let check =
        PackageCheck { reader: PLUGIN_GRAPH_READER, known: &known, majors: &majors, findings: &findings };
    velox_build::build_checked(request, check, reporter, cancel).await
}

/// Findings about plugins of the lock with another major version than those of the RoadRunner release.
///
/// # Errors
/// An unreadable lock, or an unknown release.
pub async fn check_majors(
    request: &BuildRequest,
    reporter: Arc<dyn Reporter>,
    cancel: CancellationToken,
) -> Result<Vec<Finding>, Error> {
    let session = QuerySession::new(request, reporter, cancel)?;
    let Some(lock) = session.lock_status()?.lock else { return Ok(Vec::new()) };
    if !lock.plugins.iter().any(|plugin| plugin.from.is_some() && catalogue::is_official(&plugin.module)) {
        return Ok(Vec::new());
    }
    Ok(rules::of_majors(&request.manifest, &lock, &session.release().await?.plugins))
}

/// The newest versions of module paths; those that can't be listed are missing.
async fn newest_versions(
    request: &BuildRequest,
    paths: Vec<String>,
    reporter: Arc<dyn Reporter>,
    cancel: CancellationToken,
) -> BTreeMap<String, String> {
    if paths.is_empty() || request.options.is_offline() {
        return BTreeMap::new();
    }
    let subjects: Vec<VersionSubject> = paths.iter().cloned().map(VersionSubject::Module).collect();
    let Ok(session) = QuerySession::new(request, reporter, cancel) else { return BTreeMap::new() };
    let versions = session.versions(&subjects).await.unwrap_or_default();
    let newest = paths.into_iter().zip(versions);
    newest
        .filter_map(|(path, versions)| {
            let version = versions.of(&path)?.newest()?.to_owned();
            Some((path, version))
        })
        .collect()
}

impl Finding {
    /// Creates a finding about a `.rr.yaml`.
    #[must_use]
    pub fn of_rr_config(diagnostic: Diagnostic) -> Self {
        Self { rule: CheckRule::RrConfig, ..Self::of_warning(diagnostic) }
    }

    /// Creates a finding from a configuration warning.
    #[must_use]
    pub fn of_warning(diagnostic: Diagnostic) -> Self {
        Self { rule: CheckRule::Configuration, diagnostic, explanation: Vec::new() }
    }

    pub(crate) fn new(
        rule: CheckRule,
        level: Level,
        message: String,
        span: Option<Range<usize>>,
        label: &str,
    ) -> Self {
        let diagnostic = Diagnostic { level, ..Diagnostic::error(message).at(span).label(label) };
        Self { rule, diagnostic, explanation: Vec::new() }
    }

    pub(crate) fn because(mut self, explanation: impl Into<String>) -> Self {
        self.explanation.push(explanation.into());
        self
    }

    pub(crate) fn remedy(mut self, help: impl Into<String>) -> Self {
        self.diagnostic.help.push(help.into());
        self
    }
}

/// Drops the events of raised plugins, which are findings here.
struct WithoutRaised(Arc<dyn Reporter>);

impl Reporter for WithoutRaised {
    fn report(&self, event: Event) {
        if !matches!(event, Event::Raised(_)) {
            self.0.report(event);
        }
    }
}
