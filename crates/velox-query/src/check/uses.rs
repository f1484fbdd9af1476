//! Plugins that no other plugin uses: middleware, drivers and exporters without what they are for.

use velox_manifest::{
    Level, Manifest,
    catalogue::{self, KnownPlugin, catalogue},
};

use super::{CheckRule, Finding, addition, is_included, span_of};
use crate::{FactKind, LoadedPluginGraph, PluginNode};

/// Plugins of the catalogue that collect others, which are usually of use without them.
const OBSERVERS: [&str; 2] = ["metrics", "rpc"];

/// Findings about plugins that have no effect, since no plugin uses them.
pub(super) fn of_plugins(manifest: &Manifest, loaded: &LoadedPluginGraph) -> Vec<Finding> {
    let graph = &loaded.graph;
    // A plugin that can't be read may collect anything.
    let is_unreadable = |plugin: &PluginNode| {
        plugin.unknown.iter().any(|fact| matches!(fact.what, FactKind::Types | FactKind::Collects))
    };
    if graph.plugins.iter().any(is_unreadable) {
        return Vec::new();
    }
    let states = graph.start(&|_| true, &|_| Some(true));
    let edges = graph.edges();
    let mut findings = Vec::new();
    for (index, (plugin, state)) in graph.plugins.iter().zip(&states).enumerate() {
        let is_provider = edges.iter().any(|edge| edge.from == index && edge.is_required);
        if plugin.invalid.is_some() || state.is_disabled() || is_provider {
            continue;
        }
        let collectors: Vec<&PluginNode> = edges
            .iter()
            .filter(|edge| edge.from == index)
            .filter_map(|edge| graph.plugins.get(edge.to))
            .collect();
        let is_used = |users: &Vec<&KnownPlugin>| {
            collectors
                .iter()
                .any(|other| catalogue::find(&other.module).is_none_or(|known| users.contains(&known)))
        };
        if let Some(users) = users(plugin).iter().find(|users| !is_used(users)) {
            findings.push(unused(manifest, loaded, plugin, users));
        }
    }
    findings
}

/// The plugins that a plugin is for: it has no effect without one of each list.
fn users(plugin: &PluginNode) -> Vec<Vec<&'static KnownPlugin>> {
    let collects = |user: &&KnownPlugin| {
        let has = |methods: &Vec<String>| methods.iter().all(|method| plugin.methods.contains(method));
        user.collects.iter().any(has)
    };
    let mut lists: Vec<Vec<&KnownPlugin>> = match catalogue::find(&plugin.module) {
        Some(known) => {
            let list = |names: &Vec<String>| {
                names.iter().filter_map(|name| catalogue::find(name)).filter(collects).collect()
            };
            known.used_by.iter().map(list).collect()
        }
        None => {
            let is_observer = |user: &KnownPlugin| OBSERVERS.contains(&user.name.as_str());
            vec![catalogue().iter().filter(|user| !is_observer(user) && collects(user)).collect()]
        }
    };
    lists.retain(|users| !users.is_empty());
    lists
}

fn unused(
    manifest: &Manifest,
    loaded: &LoadedPluginGraph,
    plugin: &PluginNode,
    users: &[&KnownPlugin],
) -> Finding {
    let joined = |users: &[&KnownPlugin], word: &str| {
        users.iter().map(|user| user.name.as_str()).collect::<Vec<_>>().join(word)
    };
    let message = format!("plugin {} has no effect: no plugin uses it", plugin.label);
    let span = span_of(manifest, plugin);
    let finding = Finding::new(CheckRule::UnusedPlugin, Level::Warning, message, span, "not used");
    let included: Vec<&KnownPlugin> =
        users.iter().copied().filter(|user| is_included(user, loaded)).collect();
    if included.is_empty() {
        let finding = finding.because(format!("it is for {}", joined(users, " or ")));
        return users.iter().fold(finding, |finding, user| finding.remedy(addition(user, loaded)));
    }
    let included = joined(&included, " and ");
    finding
        .because(format!("it is for {included}, but its methods have other types than {included} collects"))
        .remedy(format!(
            "use versions of {} and {included} that are for the same RoadRunner release",
            plugin.label
        ))
}
