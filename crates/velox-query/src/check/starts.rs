//! Plugins that RoadRunner compiles in and does not start.

use velox_manifest::{Level, Manifest, catalogue};

use super::{CheckRule, Finding, addition, is_included, span_of};
use crate::{DisabledCause, LoadedPluginGraph, PluginGraph, PluginNeed, PluginNode, PluginStart};

/// Findings about plugins that do not start, whatever `.rr.yaml` says.
pub(super) fn of_plugins(manifest: &Manifest, loaded: &LoadedPluginGraph) -> Vec<Finding> {
    let plugins = &loaded.graph;
    let states = plugins.start(&|_| true, &|_| Some(true));
    let mut findings = Vec::new();
    for (index, (plugin, state)) in plugins.plugins.iter().zip(&states).enumerate() {
        let span = span_of(manifest, plugin);
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
                let missing = plugin.init.iter().filter(|need| need.implementers.is_empty());
                missing.fold(finding(message, "disabled at the start"), |finding, need| {
                    finding.remedy(remedy(loaded, need))
                })
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

/// The plugin to add.
fn remedy(loaded: &LoadedPluginGraph, need: &PluginNeed) -> String {
    let has = |known: &&catalogue::KnownPlugin| {
        !need.methods.is_empty() && need.methods.iter().all(|method| known.methods.contains(method))
    };
    match catalogue::catalogue().iter().find(has) {
        Some(known) if is_included(known, loaded) => format!(
            "{} has these methods with other types: use versions that are for the same RoadRunner release",
            known.name
        ),
        Some(known) => addition(known, loaded),
        None => format!("add a plugin with the methods {}", need.methods.join(", ")),
    }
}
