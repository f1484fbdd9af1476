use std::process::ExitCode;

use velox_build::{Event, Note};
use velox_manifest::{Manifest, ManifestFormat, SourceFile, edit::migrate as move_text};

use crate::{
    cli,
    commands::{edit::session::Editing, session::misconfigured},
    report::{self, Change},
    settings::Settings,
    status::Ending,
};

/// `vx migrate`.
pub(crate) async fn migrate(settings: Settings, arguments: cli::Migrate) -> ExitCode {
    let edit = cli::Edit { config: arguments.config, go: arguments.go, no_lock: true };
    let editing = match Editing::open(settings.clone(), &edit) {
        Ok(editing) => editing,
        Err(code) => return code,
    };
    let note = |text: String| editing.prepared.report.report(Event::Note(Note::Text { text }));
    if editing.manifest().format == ManifestFormat::Modules {
        note(format!("{} is in the newest format", editing.source.name));
        return ExitCode::SUCCESS;
    }
    if arguments.check {
        note(format!("{} is in an older format: `vx migrate` moves it to the newest", editing.source.name));
        return Ending::Build.into();
    }
    let modules = match editing.prepared.modules().await {
        Ok(modules) => modules,
        Err(code) => return code,
    };
    let lookup = |name: &str| settings.environment.get(name).cloned();
    let migration = match move_text(&editing.source, editing.manifest(), &modules, &lookup) {
        Ok(migration) => migration,
        Err(diagnostics) => return misconfigured(&settings, Some(editing.source.clone()), &diagnostics),
    };
    for dropped in &migration.dropped {
        note(format!("left out: {dropped}"));
    }
    let migrated = SourceFile { name: editing.source.name.clone(), text: migration.text };
    let lock = match Manifest::parse(&migrated, &lookup) {
        Ok((manifest, _)) => {
            velox_build::carry_over_lock(&editing.prepared.request, &manifest).unwrap_or_default()
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
