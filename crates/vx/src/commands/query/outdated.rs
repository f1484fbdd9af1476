use velox_query::{AvailableVersions, NewerGeneration, ROADRUNNER, available_versions, failed_listings};

use crate::{
    cli::{OutputFormat, query::OutdatedCommand},
    commands::edit::session::{EditPurpose, EditSession},
    report::{
        self,
        text::{clean, count, table},
    },
    settings::Settings,
    status::{CommandResult, ExitStatus},
};

pub(crate) async fn outdated(settings: Settings, arguments: OutdatedCommand) -> CommandResult {
    let editing = EditSession::open(settings, &arguments.config, EditPurpose::Inspect)?;
    let session = &editing.session;
    let mut names = vec![ROADRUNNER.to_owned()];
    names.extend(editing.editor.names().into_iter().filter(|name| name != ROADRUNNER));
    let rows = available_versions(
        &session.request,
        &names,
        arguments.pre,
        session.reporter(),
        session.cancel.clone(),
    )
    .await;
    let rows = rows.map_err(|error| session.failed(&error))?;
    session.print(&match session.format {
        OutputFormat::Json => json(&rows),
        OutputFormat::Human => render(&rows, arguments.all),
    })?;
    // Without any list, nothing is known.
    if rows.iter().all(|row| row.versions.error.is_some()) { Err(ExitStatus::Failure) } else { Ok(()) }
}

/// Renders outdated plugins, the number of other ones, and plugins with unknown versions.
fn render(rows: &[AvailableVersions], all: bool) -> String {
    let mut parts = Vec::new();
    let shown: Vec<&AvailableVersions> = rows.iter().filter(|row| all || row.is_outdated()).collect();
    if !shown.is_empty() {
        parts.push(render_table(&shown));
    }
    let is_current = |row: &&AvailableVersions| !row.is_outdated() && row.versions.error.is_none();
    let current = rows.iter().filter(is_current).count();
    if current == rows.len() && !all {
        parts.push("everything is up to date\n".to_owned());
    } else if current > 0 && !all {
        let verb = if current == 1 { "is" } else { "are" };
        parts.push(format!("{} {verb} up to date (--all to show)\n", count(current as u64, "plugin")));
    }
    let unknown = failed_listings(rows.iter()).into_iter();
    let unknown: String =
        unknown.map(|(names, cause)| format!("  {}: {}\n", names.join(", "), clean(cause))).collect();
    if !unknown.is_empty() {
        parts.push(format!("failed to list the versions of\n{unknown}"));
    }
    if let Some(NewerGeneration { roadrunner, plugin_major }) = newer_generation(rows) {
        parts.push(format!(
            "RoadRunner {roadrunner} is available, with plugins of major version v{plugin_major}.\n\
             `vx migrate --to {roadrunner} --dry-run` shows what changes.\n"
        ));
    }
    parts.join("\n")
}

fn newer_generation(rows: &[AvailableVersions]) -> Option<&NewerGeneration> {
    rows.iter().find_map(|row| row.newer_generation.as_ref())
}

fn render_table(shown: &[&AvailableVersions]) -> String {
    let mut rows = vec![["NAME", "REQUESTED", "LOCKED", "COMPATIBLE", "LATEST"].map(str::to_owned)];
    let or_dash = |version: Option<&str>| version.unwrap_or("-").to_owned();
    for row in shown {
        let compatible = row.latest_compatible();
        let latest = row.latest().filter(|latest| Some(*latest) != compatible);
        rows.push([
            row.name.clone(),
            row.requested.clone(),
            or_dash(row.locked.as_deref()),
            or_dash(compatible.map(|(_, version)| version)),
            or_dash(latest.map(|(_, version)| version)),
        ]);
    }
    table(&rows)
}

fn json(rows: &[AvailableVersions]) -> String {
    let version = |latest: Option<(&str, &str)>| {
        latest.map(|(module, version)| serde_json::json!({ "module": module, "version": version }))
    };
    let plugins: Vec<serde_json::Value> = rows
        .iter()
        .map(|row| {
            serde_json::json!({
                "name": row.name,
                "module": Some(&row.module).filter(|module| !module.is_empty()),
                "asked": row.requested,
                "locked": row.locked,
                "same_major": version(row.latest_compatible()),
                "newest_major": version(row.latest()),
                "outdated": row.is_outdated(),
                "trouble": row.versions.error,
            })
        })
        .collect();
    let newer = newer_generation(rows).map(
        |newer| serde_json::json!({ "roadrunner": newer.roadrunner, "plugin_major": newer.plugin_major }),
    );
    report::event("outdated", &serde_json::json!({ "plugins": plugins, "newer_generation": newer }))
}
