use std::process::ExitCode;

use velox_build::{Event, Note, VersionSubject};
use velox_gomod::semver;

use crate::{
    cli,
    commands::{
        edit::session::{Editing, ROADRUNNER},
        query::outdated::{Standing, standings},
    },
    report::Change,
    settings::Settings,
};

/// `vx update`.
pub(crate) async fn update(settings: Settings, arguments: cli::Update) -> ExitCode {
    let mut editing = match Editing::open(settings, &arguments.edit) {
        Ok(editing) => editing,
        Err(code) => return code,
    };
    let names = match chosen(&editing, &arguments.plugins) {
        Ok(names) => names,
        Err(code) => return code,
    };
    let standings = match standings(&editing, &names).await {
        Ok(standings) => standings,
        Err(error) => return editing.prepared.failed(&error),
    };
    for standing in standings {
        if let Err(diagnostic) = update_one(&mut editing, &standing, arguments.major) {
            return editing.refused(diagnostic);
        }
    }
    editing.save(!arguments.edit.no_lock).await
}

/// The plugins that are named; without a name, all of them, but not RoadRunner, which is a decision of its own.
fn chosen(editing: &Editing, names: &[String]) -> Result<Vec<String>, ExitCode> {
    if names.is_empty() {
        return Ok(editing.editor.names());
    }
    for name in names.iter().filter(|name| *name != ROADRUNNER) {
        // Setting what is there already finds out whether it is there.
        if let Err(mut diagnostic) = editing.editor.clone().set_ref(name, "latest") {
            if name.contains('@') {
                diagnostic.help.insert(0, format!("`vx add {name}` sets a version of your choice"));
            }
            return Err(editing.refused(diagnostic));
        }
    }
    Ok(names.to_vec())
}

fn update_one(
    editing: &mut Editing,
    standing: &Standing,
    major: bool,
) -> Result<(), velox_manifest::Diagnostic> {
    let Standing { name, asked, versions, .. } = standing;
    let note = |text: String| editing.prepared.report.report(Event::Note(Note::Text { text }));
    let is_roadrunner = matches!(standing.subject, VersionSubject::RoadRunner);
    if standing.replaced {
        note(format!("{name} is replaced: it stays at {asked}"));
        return Ok(());
    }
    if !semver::is_valid(asked) {
        // A branch moves in the lock alone.
        editing.renew.push(name.clone());
        return Ok(());
    }
    if editing.editor.has_variable_ref(name) {
        note(format!("the ref of {name} holds a variable: it stays"));
        return Ok(());
    }
    if let Some(why) = &versions.trouble {
        let message = format!("can't tell the versions of {name}: {why}");
        editing.prepared.report.report(Event::Warning(velox_manifest::Diagnostic {
            level: velox_manifest::Level::Warning,
            ..crate::commands::edit::session::error(message, "it stays at what it is")
        }));
        return Ok(());
    }
    let newest = if major { standing.newest_of_all() } else { standing.newest_of_same() };
    let Some((module, version)) = newest else { return Ok(()) };
    if semver::compare(version, asked).is_le() && !(is_roadrunner && module != standing.module) {
        return Ok(());
    }
    let change = Change {
        change: "updated",
        name: name.clone(),
        module: Some(module.to_owned()),
        from: Some(asked.clone()),
        to: Some(version.to_owned()),
    };
    if is_roadrunner {
        editing.editor.set_roadrunner(version)?;
    } else {
        editing.editor.set_ref(name, version)?;
        editing.editor.set_module(name, module)?;
    }
    editing.changes.push(change);
    Ok(())
}
