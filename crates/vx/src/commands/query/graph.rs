use std::fmt::Write as _;

use serde_json::json;
use velox_build::Lock;
use velox_query::{DisabledCause, LoadedPluginGraph, PluginGraph, PluginNeed, PluginNode, PluginStart};

use crate::{
    cli::{DiagramFormat, OutputFormat, query::GraphCommand},
    commands::session::Session,
    report::{
        self,
        text::{clean, count},
    },
    settings::Settings,
    status::CommandResult,
};

pub(crate) async fn graph(settings: Settings, arguments: GraphCommand) -> CommandResult {
    let diagram = settings.diagram;
    let symbols = match settings.terminal.unicode {
        true => ["├── ", "└── "],
        false => ["|-- ", "`-- "],
    };
    let session = Session::open(settings, arguments.project)?;
    let loaded = PluginGraph::load(&session.request, session.reporter(), session.cancel.clone()).await;
    let LoadedPluginGraph { graph, lock, .. } = loaded.map_err(|error| session.failed(&error))?;
    session.print(&match (diagram, session.format) {
        (Some(DiagramFormat::Dot), _) => graph.to_dot(),
        (Some(DiagramFormat::Mermaid), _) => graph.to_mermaid(),
        (None, OutputFormat::Json) => report::event("graph", &fields(&graph, &lock)),
        (None, OutputFormat::Human) => clean(&render(&graph, &lock, symbols)).into_owned(),
    })
}

/// The start of each plugin if `.rr.yaml` has every section.
fn start(graph: &PluginGraph) -> Vec<PluginStart> {
    graph.start(&|_| true, &|_| Some(true))
}

fn fields(graph: &PluginGraph, lock: &Lock) -> serde_json::Value {
    let disabled: Vec<_> = graph
        .plugins
        .iter()
        .zip(start(graph))
        .filter_map(|(plugin, state)| {
            let why = explanation(graph, plugin, &state)?;
            Some(json!({ "plugin": plugin.label, "why": why, "always": state.is_disabled() }))
        })
        .collect();
    json!({
        "roadrunner": lock.roadrunner.module,
        "version": lock.roadrunner.version,
        "plugins": graph.plugins,
        "sections": graph.sections,
        "disabled": disabled,
        "unknown": graph.unknown,
    })
}

fn render(graph: &PluginGraph, lock: &Lock, [branch, last]: [&str; 2]) -> String {
    let plugins = count(graph.plugins.len() as u64, "plugin");
    let mut text = format!("{} {}: {plugins}\n", lock.roadrunner.module, lock.roadrunner.version);
    for plugin in &graph.plugins {
        let version = lock.plugins.iter().find(|locked| locked.module == plugin.module);
        let version = version.map_or_else(String::new, |locked| format!(" {}", locked.version));
        let _ = writeln!(text, "\n{}: {}{version}", plugin.label, plugin.module);
        let lines = lines(graph, plugin);
        for (index, line) in lines.iter().enumerate() {
            let symbol = if index + 1 == lines.len() { last } else { branch };
            let _ = writeln!(text, "{symbol}{line}");
        }
    }
    for (plugin, state) in graph.plugins.iter().zip(start(graph)) {
        if let Some(why) = explanation(graph, plugin, &state) {
            let _ = writeln!(text, "\nwarning: `{}` {why}", plugin.label);
        }
    }
    for unknown in &graph.unknown {
        let _ = writeln!(text, "\nwarning: {unknown}");
    }
    text
}

fn lines(graph: &PluginGraph, plugin: &PluginNode) -> Vec<String> {
    let mut lines = Vec::new();
    for need in &plugin.init {
        lines.push(format!("needs {}: {}", need.type_name, implementers(graph, need)));
    }
    for need in &plugin.collects {
        lines.push(format!("collects {}: {}", need.type_name, implementers(graph, need)));
    }
    for provided in &plugin.provides {
        lines.push(format!("provides {}", provided.type_name));
    }
    if !plugin.sections.is_empty() {
        lines.push(format!("reads {}", plugin.sections.join(", ")));
    }
    for fact in &plugin.unknown {
        let place = if fact.place.is_empty() { String::new() } else { format!(" ({})", fact.place) };
        lines.push(format!("unknown: {}{place}", fact.text));
    }
    lines
}

fn implementers(graph: &PluginGraph, need: &PluginNeed) -> String {
    let labels: Vec<&str> =
        need.implementers.iter().filter_map(|it| Some(graph.implementer(it)?.label.as_str())).collect();
    if labels.is_empty() { "none".to_owned() } else { labels.join(", ") }
}

/// Why a plugin does not start; `None` if it does.
fn explanation(graph: &PluginGraph, plugin: &PluginNode, state: &PluginStart) -> Option<String> {
    let labels = |plugins: &[usize]| -> String {
        let labels = plugins.iter().filter_map(|index| graph.plugins.get(*index));
        labels.map(|plugin| format!("`{}`", plugin.label)).collect::<Vec<_>>().join(", ")
    };
    if let Some(invalid) = &plugin.invalid {
        return Some(format!("keeps RoadRunner from starting: {invalid}"));
    }
    let parameter = |index: usize| plugin.init.get(index).map_or("", |need| need.type_name.as_str());
    Some(match state {
        PluginStart::NotIncluded | PluginStart::Starts | PluginStart::Unknown(_) => return None,
        PluginStart::Random(plugins) => {
            format!("starts only sometimes: it waits for {}, which RoadRunner disables", labels(plugins))
        }
        PluginStart::Disabled(DisabledCause::Missing(index)) => {
            format!("does not start: no plugin implements its parameter `{}`", parameter(*index))
        }
        PluginStart::Disabled(DisabledCause::Dependency { parameter: index, plugins }) => format!(
            "does not start: its parameter `{}` is implemented by {}, which RoadRunner disables",
            parameter(*index),
            labels(plugins)
        ),
        PluginStart::Disabled(DisabledCause::Sections(keys)) => {
            format!("does not start without the section {} in .rr.yaml", keys.join(", "))
        }
        PluginStart::Disabled(DisabledCause::Cycle) => {
            "does not start: it is part of a cycle of dependencies, or depends on one".to_owned()
        }
    })
}
