use std::{process::ExitCode, sync::Arc};

use velox_build::Error;
use velox_query::PluginVersions;

use crate::{
    cli::{self, Format},
    commands::{
        edit::session::{Editing, ROADRUNNER},
        session::Prepared,
    },
    report::{self, text},
    settings::Settings,
};

/// The plugins of these names (`roadrunner` is RoadRunner itself) with the versions that exist.
pub(crate) async fn plugin_versions(
    editing: &Editing,
    names: &[String],
) -> Result<Vec<PluginVersions>, Error> {
    let Prepared { request, report, cancel, .. } = &editing.prepared;
    velox_query::outdated(request, names, Arc::clone(report) as _, cancel.clone()).await
}

/// `vx outdated`.
pub(crate) async fn outdated(settings: Settings, arguments: cli::Outdated) -> ExitCode {
    let edit = cli::Edit { config: arguments.config, go: arguments.go, no_lock: true };
    let editing = match Editing::open(settings, &edit) {
        Ok(editing) => editing,
        Err(code) => return code,
    };
    let mut names = vec![ROADRUNNER.to_owned()];
    names.extend(editing.editor.names().into_iter().filter(|name| name != ROADRUNNER));
    let plugins = match plugin_versions(&editing, &names).await {
        Ok(plugins) => plugins,
        Err(error) => return editing.prepared.failed(&error),
    };
    let text = match editing.prepared.format {
        Format::Json => json(&plugins),
        Format::Human => human(&plugins, arguments.all),
    };
    match report::print(&text) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => report::complain(&format!("can't write to the standard output: {error}")),
    }
}

fn human(plugins: &[PluginVersions], all: bool) -> String {
    let shown: Vec<&PluginVersions> = plugins.iter().filter(|plugin| all || plugin.is_outdated()).collect();
    let mut errors: String = plugins
        .iter()
        .filter_map(|plugin| Some((plugin, plugin.versions.error.as_ref()?)))
        .map(|(plugin, error)| format!("  {}: {}\n", plugin.name, text::clean(error)))
        .collect();
    if !errors.is_empty() {
        errors.insert_str(0, "failed to list the versions of\n");
    }
    let current =
        plugins.iter().filter(|plugin| !plugin.is_outdated() && plugin.versions.error.is_none()).count();
    let current = match current {
        _ if all => String::new(),
        0 => String::new(),
        current if current == plugins.len() => "everything is up to date\n".to_owned(),
        current => format!("{current} up to date (--all shows them)\n"),
    };
    let table = if shown.is_empty() { String::new() } else { table(&shown) };
    let parts = [table, current, errors];
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("\n")
}

fn table(plugins: &[&PluginVersions]) -> String {
    let mut rows = vec![["NAME", "ASKED", "LOCKED", "SAME MAJOR", "NEWEST MAJOR"].map(str::to_owned)];
    for plugin in plugins {
        let or_dash = |version: Option<&str>| version.unwrap_or("-").to_owned();
        let same = plugin.newest_of_same_major();
        let newest = plugin.newest().filter(|newest| Some(*newest) != same);
        rows.push([
            plugin.name.clone(),
            plugin.asked.clone(),
            or_dash(plugin.locked.as_deref()),
            or_dash(same.map(|(_, version)| version)),
            or_dash(newest.map(|(_, version)| version)),
        ]);
    }
    text::table(&rows)
}

fn json(plugins: &[PluginVersions]) -> String {
    let pair = |newest: Option<(&str, &str)>| {
        newest.map(|(module, version)| serde_json::json!({ "module": module, "version": version }))
    };
    let plugins: Vec<serde_json::Value> = plugins
        .iter()
        .map(|plugin| {
            serde_json::json!({
                "name": plugin.name,
                "module": Some(&plugin.module).filter(|module| !module.is_empty()),
                "asked": plugin.asked,
                "locked": plugin.locked,
                "same_major": pair(plugin.newest_of_same_major()),
                "newest_major": pair(plugin.newest()),
                "outdated": plugin.is_outdated(),
                "trouble": plugin.versions.error,
            })
        })
        .collect();
    format!("{}\n", serde_json::json!({ "v": 1, "event": "outdated", "plugins": plugins }))
}
