use std::io;

use velox_build::Event;
use velox_manifest::{
    Diagnostic, Manifest, ManifestFormat, Replacement,
    catalogue::{self, KnownPlugin, MissingPlugin},
    edit::{NewOrigin, NewPlugin},
};
use velox_query::{SelectedPlugin, without_major};

use crate::{
    cli::{OutputFormat, edit::AddCommand},
    commands::edit::{
        prompt,
        select::relative_to,
        session::{EditPurpose, EditSession},
    },
    report::{self, Change, ChangeKind},
    settings::{Settings, Terminal},
    signals::Signal,
    status::{CommandResult, ExitStatus},
};

pub(crate) async fn add(settings: Settings, arguments: AddCommand) -> CommandResult {
    let AddCommand { plugins, replace, name, with_dependencies, pre, edit } = arguments;
    let (terminal, format) = (settings.terminal, settings.format());
    let is_interactive = terminal.stdin && terminal.stderr && format == OutputFormat::Human;
    let mut editing = EditSession::open(settings, &edit.config, EditPurpose::Edit)?;
    if plugins.len() > 1 && (name.is_some() || replace.is_some()) {
        let error = Diagnostic::error("--name and --replace apply to a single plugin");
        return Err(editing.session.invalid(error.help("run `vx add` once for each plugin")));
    }
    editing.start().await?;
    let mut selected = editing.select(&plugins, pre).await?;
    let replace =
        replace.map(|replace| relative_to(&editing.session.request.base, &editing.directory, replace));
    for plugin in &selected {
        add_plugin(&mut editing, plugin, name.as_deref(), replace.as_ref())
            .map_err(|error| editing.session.invalid(error))?;
    }
    let missing = missing_plugins(editing.manifest(), &selected);
    let names: Vec<String> = missing.iter().map(|missing| missing.plugin.name.clone()).collect();
    let is_accepted = || match is_interactive {
        true => offer(terminal, &missing),
        false => Ok(Some(false)),
    };
    let adds_dependencies = if missing.is_empty() || with_dependencies {
        with_dependencies
    } else {
        match is_accepted() {
            Ok(Some(answer)) => answer,
            Ok(None) => {
                let status = ExitStatus::Interrupted(Signal::Interrupt);
                editing.session.report.failed(status, &[], &[]);
                return Err(status);
            }
            Err(error) => {
                return Err(report::complain(&format!("failed to prompt on the terminal: {error}")));
            }
        }
    };
    if adds_dependencies && !names.is_empty() {
        let dependencies = editing.select(&names, pre).await?;
        for plugin in &dependencies {
            add_plugin(&mut editing, plugin, None, None).map_err(|error| editing.session.invalid(error))?;
        }
        selected.extend(dependencies);
    } else if !missing.is_empty() {
        let message = format!("missing plugins: {}", described(&missing));
        let warning = Diagnostic::warning(message).help(format!(
            "a plugin does not start, or has no effect, without those that it needs: `vx add {}`",
            names.join(" ")
        ));
        editing.session.report.report(Event::Warning(warning));
    }
    for warning in unused_plugins(editing.manifest(), &selected) {
        editing.session.report.report(Event::Warning(warning));
    }
    let unverified: Vec<String> = selected
        .iter()
        .filter(|plugin| edit.no_lock && plugin.is_explicit)
        .map(|plugin| format!("{}@{}", plugin.module, plugin.reference))
        .collect();
    if !unverified.is_empty() {
        editing.session.note(format!("not verified because of --no-lock: {}", unverified.join(", ")));
    }
    editing.save(!edit.no_lock).await
}

/// The plugins that the added ones need, directly or through each other, and that the configuration lacks.
fn missing_plugins(manifest: &Manifest, added: &[SelectedPlugin]) -> Vec<MissingPlugin> {
    let present = known_plugins(manifest);
    let mut missing = catalogue::completing_plugins(&known_among(added));
    missing.retain(|missing| !present.contains(&missing.plugin));
    missing
}

/// Warnings about added plugins that have no effect without one of several others.
fn unused_plugins(manifest: &Manifest, added: &[SelectedPlugin]) -> Vec<Diagnostic> {
    let added = known_among(added);
    let all: Vec<&KnownPlugin> = known_plugins(manifest).into_iter().chain(added.iter().copied()).collect();
    let unused =
        added.iter().flat_map(|plugin| plugin.missing_users(&all).map(|users| (&plugin.name, users)));
    let warning = |(name, users): (&String, &[String])| {
        let users = users.join(" or ");
        Diagnostic::warning(format!("plugin {name} has no effect without {users}"))
            .help(format!("add {users} with `vx add`"))
    };
    // `missing_plugins` has those without a choice.
    unused.filter(|(_, users)| users.len() > 1).map(warning).collect()
}

fn known_plugins(manifest: &Manifest) -> Vec<&'static KnownPlugin> {
    manifest.plugins.iter().filter_map(|plugin| catalogue::find(&plugin.identity(manifest))).collect()
}

fn known_among(selected: &[SelectedPlugin]) -> Vec<&'static KnownPlugin> {
    selected.iter().filter_map(|plugin| catalogue::find(&plugin.module)).collect()
}

/// `logger (for http, server), server (for http)`.
fn described(missing: &[MissingPlugin]) -> String {
    let describe = |missing: &MissingPlugin| {
        let by = missing.needed_by.iter().map(|plugin| plugin.name.as_str()).collect::<Vec<_>>();
        format!("{} (for {})", missing.plugin.name, by.join(", "))
    };
    missing.iter().map(describe).collect::<Vec<_>>().join(", ")
}

/// Asks whether to add the missing plugins; `None`: the user canceled.
fn offer(terminal: Terminal, missing: &[MissingPlugin]) -> io::Result<Option<bool>> {
    let prompt = format!("Missing plugins: {}. Add them?", described(missing));
    let answer = prompt::select(terminal, &prompt, &["yes".to_owned(), "no".to_owned()])?;
    Ok(answer.map(|index| index == 0))
}

/// Adds the plugin, or updates the existing one of the same module.
fn add_plugin(
    editing: &mut EditSession,
    SelectedPlugin { name: default_name, module, reference, replace: local, .. }: &SelectedPlugin,
    name: Option<&str>,
    replace: Option<&Replacement>,
) -> Result<(), Diagnostic> {
    let replace = replace.or(local.as_ref());
    let manifest = editing.manifest();
    let existing = manifest.plugins.iter().find(|plugin| plugin.is_module(module, manifest));
    let mut change = Change {
        kind: ChangeKind::Added,
        name: name.unwrap_or(default_name).to_owned(),
        module: Some(module.clone()),
        from: None,
        to: Some(reference.clone()),
    };
    if let Some(existing) = existing {
        let existing_name = existing.name.value.clone();
        if name.is_some_and(|name| name != existing_name) {
            let message = format!("{module} is already in the configuration as `{existing_name}`");
            return Err(Diagnostic::error(message).help("remove --name, or rename the plugin in the file"));
        }
        change.kind = ChangeKind::Updated;
        change.from = Some(existing.reference.value.clone());
        change.name = existing_name;
        editing.editor.set_ref(&change.name, reference)?;
        editing.editor.set_module(&change.name, module)?;
        if replace.is_some() {
            editing.editor.set_replace(&change.name, replace)?;
        }
    } else {
        let origin = match editing.editor.format() {
            ManifestFormat::Modules => NewOrigin::Module(module.clone()),
            ManifestFormat::First | ManifestFormat::Manual | ManifestFormat::Ancestor => {
                repository_of(editing, module)?
            }
        };
        let (name, reference) = (change.name.clone(), reference.clone());
        editing.editor.add(&NewPlugin { name, origin, reference, replace: replace.cloned() })?;
    }
    editing.changes.push(change);
    Ok(())
}

/// The repository of a module, for a format that only supports GitHub and GitLab repositories.
fn repository_of(editing: &EditSession, module: &str) -> Result<NewOrigin, Diagnostic> {
    let manifest = editing.manifest();
    let below = |host: &str| without_major(module).strip_prefix(host)?.strip_prefix('/');
    if let Some(path) = below(manifest.github.host()) {
        let mut parts = path.splitn(3, '/').map(str::to_owned);
        if let (Some(owner), Some(repository)) = (parts.next(), parts.next()) {
            return Ok(NewOrigin::GitHub { owner, repository, folder: parts.next() });
        }
    }
    if let Some((owner, repository)) = below(manifest.gitlab.host()).and_then(|path| path.rsplit_once('/')) {
        let (owner, repository) = (owner.to_owned(), repository.to_owned());
        return Ok(NewOrigin::GitLab { owner, repository, folder: None });
    }
    Err(Diagnostic::error(format!("{module} is not on a forge that the format of this file supports"))
        .help("convert the file to the latest format with `vx migrate`"))
}
