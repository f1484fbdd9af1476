use velox_build::write_text;
use velox_manifest::{Manifest, ManifestFormat, SourceFile, edit::migrate as migrate_text};

use crate::{
    cli::edit::MigrateCommand,
    commands::edit::session::EditSession,
    report::{self, Change, ChangeKind},
    settings::Settings,
    status::{CommandResult, ExitStatus},
};

pub(crate) async fn migrate(settings: Settings, arguments: MigrateCommand) -> CommandResult {
    let editing = EditSession::open(settings.clone(), &arguments.config)?;
    let (session, name) = (&editing.session, &editing.source.name);
    if editing.manifest().format == ManifestFormat::Modules {
        session.note(format!("`{name}` is in the latest format"));
        return Ok(());
    }
    if arguments.check {
        session.note(format!("`{name}` is in an old format; convert it with `vx migrate`"));
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
    let (manifest, _) = Manifest::parse(&migrated, &lookup)
        .map_err(|errors| report::invalid(&settings, Some(migrated.clone()), &errors))?;
    let lock = velox_build::carry_over_lock(&session.request, &manifest).unwrap_or_default();
    // The lock is written first: if writing the configuration fails, the lock is merely out of date.
    if let Some((lock, path)) = lock.zip(session.request.lock.as_ref()) {
        write_text(path, &lock)
            .map_err(|error| report::complain(&format!("failed to write `{}`: {error}", path.display())))?;
    }
    editing.write(&migrated.text)?;
    editing.finish(&[Change {
        kind: ChangeKind::Migrated,
        name: name.clone(),
        module: None,
        from: None,
        to: Some("the latest format".to_owned()),
    }])
}
