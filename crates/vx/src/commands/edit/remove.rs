use std::process::ExitCode;

use crate::{
    cli,
    commands::edit::session::{Editing, error},
    report::Change,
    settings::Settings,
};

/// `vx remove`.
pub(crate) async fn remove(settings: Settings, arguments: cli::Remove) -> ExitCode {
    let mut editing = match Editing::open(settings, &arguments.edit) {
        Ok(editing) => editing,
        Err(code) => return code,
    };
    for name in &arguments.plugins {
        let known = editing.manifest().plugins.iter().find(|plugin| plugin.name.value == *name);
        let from = known.map(|plugin| plugin.reference.value.clone());
        if let Err(diagnostic) = editing.editor.remove(name) {
            return editing.refused(diagnostic);
        }
        editing.changes.push(Change { change: "removed", name: name.clone(), module: None, from, to: None });
    }
    if editing.editor.names().is_empty() {
        let help = "add another one first: a server is made of plugins";
        return editing.refused(error("no plugin would be left".to_owned(), help));
    }
    editing.save(!arguments.edit.no_lock).await
}
