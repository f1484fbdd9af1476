use std::{collections::BTreeMap, process::ExitCode, sync::Arc};

use velox_build::{Error, Event, Goal, Note, Request};
use velox_manifest::{
    Format, Manifest, Source,
    edit::{migrate as move_text, module_of},
};

use crate::{
    cli,
    commands::{editing::Editing, request::misconfigured},
    exit::Ending,
    report::{self, Change},
    settings::Settings,
};

/// `vx migrate`.
pub(crate) async fn migrate(settings: Settings, arguments: cli::Migrate) -> ExitCode {
    let edit = cli::Edit { config: arguments.config, go: arguments.go, no_lock: true };
    let editing = match Editing::open(settings.clone(), &edit) {
        Ok(editing) => editing,
        Err(code) => return code,
    };
    let note = |text: String| editing.prepared.report.report(Event::Note(Note::Text { text }));
    if editing.manifest().format == Format::Modules {
        note(format!("{} is in the newest format", editing.source.name));
        return ExitCode::SUCCESS;
    }
    if arguments.check {
        note(format!("{} is in an older format: `vx migrate` moves it to the newest", editing.source.name));
        return Ending::Build.into();
    }
    let modules = match modules(&editing).await {
        Ok(modules) => modules,
        Err(error) => return editing.prepared.failed(&error),
    };
    let lookup = |name: &str| settings.environment.get(name).cloned();
    let migration = match move_text(&editing.source, editing.manifest(), &modules, &lookup) {
        Ok(migration) => migration,
        Err(diagnostics) => return misconfigured(&settings, Some(editing.source.clone()), &diagnostics),
    };
    for dropped in &migration.dropped {
        note(format!("left out: {dropped}"));
    }
    let migrated = Source { name: editing.source.name.clone(), text: migration.text };
    let lock = match Manifest::parse(&migrated, &lookup) {
        Ok((manifest, _)) => {
            velox_build::carried_over(&editing.prepared.request, &manifest).unwrap_or_default()
        }
        Err(diagnostics) => return misconfigured(&settings, Some(migrated), &diagnostics),
    };
    // The lock first: with the old file it would only be made anew.
    let written = match (lock, &editing.prepared.request.lock) {
        (Some(lock), Some(path)) => velox_build::write_text(path, &lock),
        _ => Ok(()),
    };
    if let Err(error) = written.and_then(|()| velox_build::write_text(&editing.file, &migrated.text)) {
        return report::complain(&format!("can't write {}: {error}", editing.file.display()));
    }
    let change = Change {
        change: "migrated",
        name: editing.source.name.clone(),
        module: None,
        from: None,
        to: Some("the newest format".to_owned()),
    };
    match editing.prepared.report.edited(&editing.file, &[change]) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => report::complain(&format!("can't write to the standard output: {error}")),
    }
}

/// The module paths: from the lock where that fits; what neither it nor the file tells is resolved.
async fn modules(editing: &Editing) -> Result<BTreeMap<String, String>, Error> {
    let Request { manifest, .. } = &editing.prepared.request;
    let locked = velox_build::locked(&editing.prepared.request)?.plugins;
    let mut known: BTreeMap<String, String> =
        locked.into_iter().map(|(name, module)| (name, module.path)).collect();
    let is_open = |known: &BTreeMap<String, String>| {
        let mut plugins = manifest.plugins.iter();
        plugins.any(|plugin| !known.contains_key(&plugin.name.value) && module_of(plugin, manifest).is_none())
    };
    if is_open(&known) {
        let request = Request { goal: Goal::Plan, ..editing.prepared.request.clone() };
        let (report, cancel) = (Arc::clone(&editing.prepared.report), editing.prepared.cancel.clone());
        let summary = velox_build::build(&request, report as _, cancel).await?;
        known.extend(
            summary
                .plugins
                .into_iter()
                .filter(|plugin| !plugin.added)
                .map(|plugin| (plugin.name, plugin.module)),
        );
    }
    Ok(known)
}
