use velox_build::{Error, ErrorKind, Event};
use velox_gomod::semver;
use velox_manifest::{Diagnostic, Level};
use velox_query::{AvailableVersions, ROADRUNNER, available_versions, failed_listings};

use crate::{
    cli::edit::UpdateCommand,
    commands::edit::{
        security,
        session::{EditPurpose, EditSession},
    },
    report::{Change, ChangeKind},
    settings::Settings,
    status::CommandResult,
};

pub(crate) async fn update(settings: Settings, arguments: UpdateCommand) -> CommandResult {
    let UpdateCommand { plugins, major, pre, security, dry_run, database, edit } = arguments;
    let mut editing = EditSession::open(settings, &edit.config, EditPurpose::Edit)?;
    if security {
        return security::update(editing, &database.url, dry_run).await;
    }
    let plugins: Vec<String> = plugins.iter().map(|text| editing.name_of(text)).collect();
    for name in plugins.iter().filter(|name| *name != ROADRUNNER) {
        check_name(&editing, name).map_err(|error| editing.session.invalid(error))?;
    }
    // RoadRunner is only updated if specified.
    let names = if plugins.is_empty() { editing.editor.names() } else { plugins };
    let session = &editing.session;
    let versions =
        available_versions(&session.request, &names, pre, session.reporter(), session.cancel.clone()).await;
    let versions = versions.map_err(|error| editing.session.failed(&error))?;
    let needs_list = |it: &&AvailableVersions| it.constraint().is_some() || semver::is_valid(&it.requested);
    let is_failed = |it: &AvailableVersions| needs_list(&it) && it.versions.error.is_some();
    let level = if versions.iter().all(is_failed) { Level::Error } else { Level::Warning };
    let failed = |(names, cause): (Vec<&str>, &str)| {
        let names = names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        let diagnostic = Diagnostic::warning(format!("failed to list the versions of {names}: {cause}"));
        Diagnostic { level, ..diagnostic.help("these plugins are not updated") }
    };
    let failed: Vec<Diagnostic> =
        failed_listings(versions.iter().filter(needs_list)).into_iter().map(failed).collect();
    if level == Level::Error && !failed.is_empty() {
        return Err(session.failed(&Error::many(ErrorKind::Build, failed)));
    }
    failed.into_iter().for_each(|warning| session.report.report(Event::Warning(warning)));
    for available in versions {
        update_plugin(&mut editing, &available, major, !edit.no_lock)
            .map_err(|error| editing.session.invalid(error))?;
    }
    if dry_run {
        editing.finish(&editing.changes)?;
        editing.session.note("nothing was written (--dry-run)".to_owned());
        return Ok(());
    }
    editing.save(!edit.no_lock).await
}

/// Checks that the plugin exists by a discarded edit.
fn check_name(editing: &EditSession, name: &str) -> Result<(), Diagnostic> {
    editing.editor.clone().set_ref(name, "latest").map_err(|mut error| {
        if name.contains('@') {
            error.help.insert(0, format!("`vx add {name}` selects a version"));
        }
        error
    })
}

pub(super) fn update_plugin(
    editing: &mut EditSession,
    available: &AvailableVersions,
    major: bool,
    lock: bool,
) -> Result<(), Diagnostic> {
    let AvailableVersions { name, requested, is_roadrunner, .. } = available;
    let constraint = available.constraint();
    if available.is_replaced {
        editing.session.note(format!("`{name}` is replaced, and stays at {requested}"));
        return Ok(());
    }
    if constraint.is_none() && !semver::is_valid(requested) {
        // For a branch, only the lock is updated.
        editing.upgrade.push(name.clone());
        return Ok(());
    }
    if constraint.is_none() && editing.editor.has_variable_ref(name) {
        editing.session.note(format!("the ref of `{name}` contains a variable, and stays unchanged"));
        return Ok(());
    }
    if available.versions.error.is_some() {
        return Ok(());
    }
    if let Some(newer) = available.newer_generation.as_ref().filter(|_| major) {
        let version = &newer.roadrunner;
        editing.session.note(format!(
            "RoadRunner {version} needs plugins of major version v{}: `vx migrate --to {version}` updates both",
            newer.plugin_major
        ));
    }
    let latest = if major { available.latest() } else { available.latest_compatible() };
    let Some((module, version)) = latest else { return Ok(()) };
    let mut to = version.to_owned();
    if let Some(constraint) = &constraint {
        if constraint.matches(version) && (module == available.module || !available.has_module) {
            move_in_lock(editing, available, (module, version), lock);
            return Ok(());
        }
        if editing.editor.has_variable_ref(name) {
            editing.session.note(format!("the ref of `{name}` contains a variable, and stays unchanged"));
            return Ok(());
        }
        to = constraint.moved_to(version);
    } else {
        // RoadRunner's own plugins also move back, to the major version of the RoadRunner release.
        let may_move = *is_roadrunner || (major && available.plugin_major.is_some());
        if semver::compare(version, requested).is_le() && !(may_move && module != available.module) {
            return Ok(());
        }
    }
    if *is_roadrunner {
        editing.editor.set_roadrunner(&to)?;
    } else {
        editing.editor.set_ref(name, &to)?;
        editing.editor.set_module(name, module)?;
    }
    editing.changes.push(Change {
        kind: ChangeKind::Updated,
        name: name.clone(),
        module: Some(module.to_owned()),
        from: Some(requested.clone()),
        to: Some(to),
    });
    Ok(())
}

/// Moves a plugin to a version that its constraint allows, which only the lock names.
fn move_in_lock(
    editing: &mut EditSession,
    available: &AvailableVersions,
    (module, version): (&str, &str),
    lock: bool,
) {
    let AvailableVersions { name, locked, requested, .. } = available;
    if locked.as_deref().is_some_and(|locked| semver::compare(version, locked).is_le()) {
        return;
    }
    if !lock {
        let text =
            format!("{requested} of `{name}` allows {version}; with --no-lock, velox.lock stays unchanged");
        editing.session.note(text);
        return;
    }
    editing.upgrade.push(name.clone());
    editing.changes.push(Change {
        kind: ChangeKind::Updated,
        name: name.clone(),
        module: Some(module.to_owned()),
        from: locked.clone(),
        to: Some(version.to_owned()),
    });
}
