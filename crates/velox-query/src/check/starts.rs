//! Plugins that RoadRunner compiles in and does not start.

use velox_build::BuildRequest;
use velox_manifest::{Level, catalogue};

use super::{CheckRule, Finding};
use crate::{DisabledCause, ModuleGraph, PluginGraph, PluginNeed, PluginNode, PluginStart, without_major};

/// The plugins that implement what others require, by a method of theirs.
const PROVIDERS: [(&str, &str); 3] =
    [("NamedLogger", "logger"), ("NewPool", "server"), ("NewWorker", "server")];

/// Findings about plugins that do not start, whatever `.rr.yaml` says.
pub(super) fn of_plugins(request: &BuildRequest, graph: &ModuleGraph, plugins: &PluginGraph) -> Vec<Finding> {
    let states = plugins.start(&|_| true, &|_| Some(true));
    let mut findings = Vec::new();
    for (index, (plugin, state)) in plugins.plugins.iter().zip(&states).enumerate() {
        let configured = request.manifest.plugins.iter().find(|known| known.name.value == plugin.label);
        let span = configured.and_then(|known| known.name.span.clone());
        let finding = |message, label: &str| {
            Finding::new(CheckRule::DeadPlugin, Level::Error, message, span.clone(), label)
        };
        let (name, parameter) = (&plugin.label, |index: usize| plugin.init.get(index));
        let finding = match state {
            _ if plugin.invalid.is_some() => {
                let why = plugin.invalid.as_deref().unwrap_or_default();
                finding(
                    format!("plugin {name} keeps RoadRunner from starting: {why}"),
                    "endure refuses this plugin",
                )
            }
            PluginStart::Disabled(DisabledCause::Missing(index)) => {
                let Some(need) = parameter(*index) else { continue };
                let message = format!(
                    "plugin {name} does not start: no plugin implements its parameter `{}`",
                    need.type_name
                );
                finding(message, "disabled at the start").remedy(remedy(graph, need))
            }
            PluginStart::Disabled(DisabledCause::Dependency { plugins: others, .. }) => {
                let others = labels(plugins, others);
                finding(
                    format!("plugin {name} does not start: it requires {others}"),
                    "disabled at the start",
                )
                .because(format!("{others} does not start either"))
            }
            PluginStart::Disabled(DisabledCause::Cycle) => finding(
                format!("plugin {name} does not start: its dependencies form a cycle"),
                "disabled at the start",
            ),
            PluginStart::Disabled(DisabledCause::Sections(_))
            | PluginStart::NotIncluded
            | PluginStart::Starts
            | PluginStart::Unknown(_)
            | PluginStart::Random(_) => continue,
        };
        let mut finding = finding;
        if state.is_disabled() {
            finding =
                finding.because("RoadRunner logs this only with `endure: {log_level: debug}` in .rr.yaml");
        }
        let waits = |(_, state): &(&PluginNode, &PluginStart)| matches!(state, PluginStart::Random(causes) if causes.contains(&index));
        let waiting: Vec<&str> = plugins
            .plugins
            .iter()
            .zip(&states)
            .filter(waits)
            .map(|(other, _)| other.label.as_str())
            .collect();
        if !waiting.is_empty() {
            finding = finding.because(format!(
                "it also keeps {} from starting at some starts: RoadRunner connects plugins in a random order",
                waiting.join(", ")
            ));
        }
        findings.push(finding);
    }
    findings
}

fn labels(plugins: &PluginGraph, indices: &[usize]) -> String {
    let labels = indices.iter().filter_map(|index| plugins.plugins.get(*index));
    labels.map(|plugin| plugin.label.as_str()).collect::<Vec<_>>().join(", ")
}

/// The plugin to add, at the version that the RoadRunner release has.
fn remedy(graph: &ModuleGraph, need: &PluginNeed) -> String {
    let is_method = |method: &str| need.methods.iter().any(|other| other == method);
    let known =
        PROVIDERS.iter().find(|(method, _)| is_method(method)).and_then(|(_, name)| catalogue::find(name));
    let Some(known) = known else {
        return format!("add a plugin with the methods {}", need.methods.join(", "));
    };
    let release = &graph.resolved.release;
    match release.plugins.iter().find(|plugin| without_major(&plugin.path) == known.module) {
        Some(plugin) => format!(
            "add {}: {} {}, which RoadRunner {} was released with",
            known.name, plugin.path, plugin.version, release.module.version
        ),
        None => format!("add {}: `vx add {}`", known.name, known.name),
    }
}
