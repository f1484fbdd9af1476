use velox_manifest::Diagnostic;

use crate::{
    cli::edit::RemoveCommand,
    commands::edit::session::{EditPurpose, EditSession},
    report::{Change, ChangeKind},
    settings::Settings,
    status::CommandResult,
};

pub(crate) async fn remove(settings: Settings, arguments: RemoveCommand) -> CommandResult {
    let mut editing = EditSession::open(settings, &arguments.edit.config, EditPurpose::Edit)?;
    for name in arguments.plugins {
        let plugin = editing.manifest().plugins.iter().find(|plugin| plugin.name.value == name);
        let from = plugin.map(|plugin| plugin.reference.value.clone());
        editing.editor.remove(&name).map_err(|error| editing.session.invalid(error))?;
        editing.changes.push(Change { kind: ChangeKind::Removed, name, module: None, from, to: None });
    }
    if editing.editor.names().is_empty() {
        let error = Diagnostic::error("a configuration needs at least one plugin");
        return Err(editing.session.invalid(error.help("add another plugin first")));
    }
    editing.save(!arguments.edit.no_lock).await
}
