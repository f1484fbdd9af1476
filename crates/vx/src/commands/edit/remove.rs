use std::collections::BTreeSet;

use velox_build::Event;
use velox_manifest::{Diagnostic, catalogue};
use velox_query::{LoadedPluginGraph, PluginGraph};

use crate::{
    cli::edit::RemoveCommand,
    commands::edit::session::{EditPurpose, EditSession},
    report::{Change, ChangeKind},
    settings::Settings,
    status::CommandResult,
};

pub(crate) async fn remove(settings: Settings, arguments: RemoveCommand) -> CommandResult {
    let mut editing = EditSession::open(settings, &arguments.edit.config, EditPurpose::Edit)?;
    let names: Vec<String> = arguments.plugins.iter().map(|text| editing.name_of(text)).collect();
    for name in names.clone() {
        let plugin = editing.manifest().plugins.iter().find(|plugin| plugin.name.value == name);
        let from = plugin.map(|plugin| plugin.reference.value.clone());
        editing.editor.remove(&name).map_err(|error| editing.session.invalid(error))?;
        editing.changes.push(Change { kind: ChangeKind::Removed, name, module: None, from, to: None });
    }
    if editing.editor.names().is_empty() {
        let error = Diagnostic::error("a configuration needs at least one plugin");
        return Err(editing.session.invalid(error.help("add another plugin first")));
    }
    let session = &editing.session;
    // Only what is in the cache, or takes no compilation.
    let loaded =
        PluginGraph::load_if_built(&session.request, session.reporter(), session.cancel.clone()).await;
    let stopped = match loaded {
        Ok(Some(loaded)) => stopped_by_graph(&loaded, &names),
        _ => stopped_by_catalogue(&editing, &names),
    };
    let unused = unused(&editing, &names);
    for (plugins, of_one, of_many) in
        [(stopped, "does not start", "do not start"), (unused, "has no effect", "have no effect")]
    {
        let plugins: Vec<String> = plugins.into_iter().collect();
        let (subject, them) = match &*plugins {
            [] => continue,
            [plugin] => (format!("plugin {plugin} {of_one}"), "it"),
            [first @ .., last] => (format!("plugins {} and {last} {of_many}", first.join(", ")), "them"),
        };
        let warning = Diagnostic::warning(format!("{subject} without {}", names.join(", ")))
            .help(format!("remove {them} too: `vx remove {}`", plugins.join(" ")));
        editing.session.report.report(Event::Warning(warning));
    }
    editing.save(!arguments.edit.no_lock).await
}

/// The plugins that RoadRunner disables without `removed`.
fn stopped_by_graph(loaded: &LoadedPluginGraph, removed: &[String]) -> BTreeSet<String> {
    let graph = &loaded.graph;
    let is_removed = |index: usize| graph.plugins.get(index).is_some_and(|it| removed.contains(&it.label));
    let before = graph.start(&|_| true, &|_| Some(true));
    let after = graph.start(&|index| !is_removed(index), &|_| Some(true));
    let states = before.iter().zip(&after).zip(&graph.plugins);
    states
        .filter(|((before, after), _)| !before.is_disabled() && after.is_disabled())
        .map(|(_, plugin)| plugin.label.clone())
        .collect()
}

/// The plugins that need one of `removed`, directly or through each other, as far as the catalogue knows them.
fn stopped_by_catalogue(editing: &EditSession, removed: &[String]) -> BTreeSet<String> {
    let plugins = known_plugins(editing);
    let mut gone: Vec<&str> =
        plugins.iter().filter(|(name, _)| removed.contains(name)).map(|(_, it)| it.name.as_str()).collect();
    let mut stopped = BTreeSet::new();
    loop {
        let next = plugins.iter().find(|(name, known)| {
            let needs_one = known.needs.iter().any(|needed| gone.contains(&needed.as_str()));
            !gone.contains(&known.name.as_str()) && !stopped.contains(name) && needs_one
        });
        let Some((name, known)) = next else { return stopped };
        gone.push(&known.name);
        stopped.insert(name.clone());
    }
}

/// The plugins that only `removed` use.
fn unused(editing: &EditSession, removed: &[String]) -> BTreeSet<String> {
    let plugins = known_plugins(editing);
    let before: Vec<&catalogue::KnownPlugin> = plugins.iter().map(|(_, known)| *known).collect();
    let stays = |name: &String| !removed.contains(name);
    let after: Vec<&catalogue::KnownPlugin> =
        plugins.iter().filter(|(name, _)| stays(name)).map(|(_, known)| *known).collect();
    let is_unused = |known: &catalogue::KnownPlugin| {
        known.missing_users(&after).count() > known.missing_users(&before).count()
    };
    let unused = plugins.iter().filter(|(name, known)| stays(name) && is_unused(known));
    unused.map(|(name, _)| name.clone()).collect()
}

/// The plugins of the file that the catalogue has, with their names in the file.
fn known_plugins(editing: &EditSession) -> Vec<(String, &'static catalogue::KnownPlugin)> {
    let manifest = editing.manifest();
    let known = |plugin: &velox_manifest::Plugin| {
        Some((plugin.name.value.clone(), catalogue::find(&plugin.identity(manifest))?))
    };
    manifest.plugins.iter().filter_map(known).collect()
}
