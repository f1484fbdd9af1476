use velox_build::write_text;
use velox_manifest::{ManifestFormat, SourceFile, edit::migrate as migrate_text};

use crate::{
    cli::edit::MigrateCommand,
    commands::edit::{
        migrate_to::migrate_to,
        session::{EditPurpose, EditSession},
    },
    report::{self, Change, ChangeKind},
    settings::Settings,
    status::{CommandResult, ExitStatus},
};

pub(crate) async fn migrate(settings: Settings, arguments: MigrateCommand) -> CommandResult {
    if let Some(target) = &arguments.to {
        let editing = EditSession::open(settings, &arguments.config, EditPurpose::Edit)?;
        return migrate_to(editing, target, &arguments).await;
    }
    let editing = EditSession::open(settings.clone(), &arguments.config, EditPurpose::Migrate)?;
    let (session, name) = (&editing.session, &editing.source.name);
    let old_name = editing.converted_from.as_ref().unwrap_or(name);
    if editing.manifest().format == ManifestFormat::Modules && editing.converted_from.is_none() {
        session.note(format!("`{name}` is in the latest format"));
        return Ok(());
    }
    if arguments.check {
        let old = if editing.converted_from.is_some() { "not TOML" } else { "in an old format" };
        session.note(format!("`{old_name}` is {old}; convert it with `vx migrate`"));
        return Err(ExitStatus::Failure);
    }
    let modules = session.module_paths().await?;
    let lookup = |name: &str| settings.environment.get(name).cloned();
    let migration = migrate_text(&editing.source, editing.manifest(), &modules, &lookup)
        .map_err(|errors| report::invalid(&settings, Some(editing.source.clone()), &errors))?;
    for dropped in &migration.dropped {
        session.note(format!("left out: {dropped}"));
    }
    let migrated = SourceFile { name: name.clone(), text: migration.text };
    let manifest = editing
        .parse(&migrated)
        .map_err(|errors| report::invalid(&settings, Some(migrated.clone()), &errors))?;
    let lock = velox_build::carry_over_lock(&session.request, &manifest).unwrap_or_default();
    // The lock is written first: if writing the configuration fails, the lock is merely out of date.
    if let Some((lock, path)) = lock.zip(session.request.lock.as_ref()) {
        write_text(path, &lock)
            .map_err(|error| report::complain(&format!("failed to write `{}`: {error}", path.display())))?;
    }
    editing.write(&migrated.text)?;
    if let Some(old) = &editing.converted_from {
        session.note(format!("`{old}` was not changed, and its comments are not in `{name}`"));
    }
    editing.finish(&[Change {
        kind: ChangeKind::Migrated,
        name: old_name.clone(),
        module: None,
        from: None,
        to: Some("the latest format".to_owned()),
    }])
}
