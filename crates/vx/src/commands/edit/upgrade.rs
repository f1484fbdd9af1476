//! `vx upgrade`: replaces an installed binary by one with newer versions.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use serde::Serialize;
use velox_build::{BuildRequest, CachedModules, Error, InstalledBinary, Lock, Upgrade};
use velox_gomod::semver;
use velox_manifest::{SourceFile, catalogue, parse_target};
use velox_query::{
    BuildDiff, ComparedBuild, DryStart, Inspection, PluginEntry, ROADRUNNER, RrConfig, available_versions,
    inspect, plan_upgrade, render_configuration, render_settings, without_major,
};

use crate::{
    cli::{ConfigArgs, OutputFormat, edit::UpgradeCommand},
    commands::{
        edit::{
            migrate_to, security,
            session::{EditPurpose, EditSession},
            update::update_plugin,
        },
        rr_config,
        session::working_directory,
    },
    config_file::DEFAULT_FILE_NAME,
    report::{self, Change, ChangeKind, diff::render, text::table},
    settings::Settings,
    status::{CommandResult, ExitStatus},
};

/// The fields of the event `upgrade_available`.
#[derive(Serialize)]
struct AvailableUpgrade<'a> {
    binary: &'a Path,
    /// The configuration that would be changed, too.
    config: Option<&'a Path>,
    up_to_date: bool,
    changes: &'a [Change],
    /// Why the versions of these are unknown.
    unknown: &'a [UnknownVersions],
}

/// What has no list of versions.
#[derive(Serialize)]
struct UnknownVersions {
    name: String,
    why: String,
}

/// The fields of the event `upgraded`.
#[derive(Serialize)]
struct UpgradedBinary<'a> {
    binary: &'a Path,
    previous: &'a Path,
    config: Option<&'a Path>,
    dry_start: Option<&'a DryStart>,
    diff: &'a BuildDiff,
}

/// The changes for an upgrade, made in the editor.
struct PlannedUpgrade {
    request: BuildRequest,
    unknown: Vec<UnknownVersions>,
}

pub(crate) async fn upgrade(settings: Settings, mut arguments: UpgradeCommand) -> CommandResult {
    let directory = working_directory()?;
    let failed = |error: Error| report::failed(&settings, &error);
    let path = directory.join(&arguments.binary);
    if arguments.rollback {
        let installed = InstalledBinary::to_roll_back(&path).map_err(failed)?;
        let has_newer = installed.roll_back().map_err(failed)?;
        return rolled_back(&settings, &installed, has_newer);
    }
    let installed = InstalledBinary::at(&path).map_err(failed)?;
    if let Some(file) = arguments.config.take_if(|file| rr_config::is_at(file, &directory)) {
        arguments.rr_config = Some(file);
    }
    let rr_config = arguments.rr_config.as_ref().map(|file| rr_config::read(&settings, file, &directory));
    let rr_config = rr_config.transpose().map_err(failed)?;
    let mut inspection = inspect(installed.path()).map_err(failed)?;
    inspection.find_plugins(installed.path()).map_err(failed)?;
    let is_planned = arguments.check || arguments.dry_run;
    if !is_planned {
        installed.check().map_err(failed)?;
    }

    // The configuration of the binary: velox.toml, or one made from the binary.
    let named = arguments.config.take().map(|file| directory.join(file));
    let is_named = named.is_some();
    let config = named.or_else(|| configuration_near(&path));
    let made = tempfile::tempdir()
        .map_err(|error| failed(Error::build(format!("failed to create a temporary directory: {error}"))))?;
    let file = match &config {
        Some(file) => file.clone(),
        None => {
            let text = configuration_of(&inspection, &path, arguments.to.as_deref()).map_err(failed)?;
            let file = made.path().join(DEFAULT_FILE_NAME);
            std::fs::write(&file, text).map_err(|error| failed(Error::file("write", &file, &error)))?;
            file
        }
    };
    let go = arguments.go.clone();
    let edited = ConfigArgs { config: Some(file), go };
    let mut editing = EditSession::open(settings, &edited, EditPurpose::Edit)?;
    if let Some(config) = &config {
        if !is_named {
            check_plugins(&editing, &inspection)?;
        }
        let shown = config.strip_prefix(&directory).unwrap_or(config).display();
        editing.session.note(format!("{shown} and its lock are updated together with the binary"));
    }
    let planned = plan(&mut editing, &arguments).await?;
    if config.is_none() && inspection.roadrunner_version().is_none() {
        name_roadrunner(&mut editing);
    }
    let is_current = editing.editor.text() == editing.source.text
        && editing.changes.is_empty()
        && editing.upgrade.is_empty()
        && inspection.roadrunner_version().is_some()
        && has_locked_versions(&editing, &inspection);
    if is_planned {
        return show_plan(&editing, &planned, &installed, config.as_deref(), is_current, arguments.check);
    }
    if is_current {
        editing.session.note(format!("{} is up to date", arguments.binary.display()));
        return Ok(());
    }
    replace(editing, &planned.request, &installed, config.as_deref(), &inspection, rr_config.as_ref()).await
}

fn rolled_back(settings: &Settings, installed: &InstalledBinary, has_newer: bool) -> CommandResult {
    let binary = installed.path();
    let newer = has_newer.then(|| installed.previous());
    report::print(&match (settings.format(), &newer) {
        (OutputFormat::Json, newer) => {
            report::event("rolled_back", &serde_json::json!({ "binary": binary, "previous": newer }))
        }
        (OutputFormat::Human, Some(newer)) => format!(
            "{} is the previous binary again; the newer one is {}\n",
            binary.display(),
            newer.display()
        ),
        (OutputFormat::Human, None) => format!("{} is the previous binary again\n", binary.display()),
    })
}

/// The velox.toml in the directory of a binary or the nearest parent of that.
fn configuration_near(binary: &Path) -> Option<PathBuf> {
    let mut files = binary.parent()?.ancestors().map(|directory| directory.join(DEFAULT_FILE_NAME));
    files.find(|file| file.is_file())
}

/// Fails if the configuration lacks plugins of the binary: it is one of another project, or was changed since.
fn check_plugins(editing: &EditSession, inspection: &Inspection) -> CommandResult {
    let manifest = editing.manifest();
    let lock = lock_of(editing);
    let locked = || lock.iter().flat_map(|lock| &lock.plugins);
    let is_listed = |module: &str| {
        manifest.plugins.iter().any(|plugin| plugin.is_module(module, manifest))
            || locked().any(|plugin| without_major(&plugin.module) == without_major(module))
    };
    let missing: BTreeSet<&str> = inspection
        .plugins
        .iter()
        .filter(|plugin| !is_listed(&plugin.module) && !is_in_every_binary(&plugin.module))
        .map(|plugin| plugin.name.as_str())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let missing = missing.into_iter().collect::<Vec<_>>().join(", ");
    let file = editing.file.display();
    let error = Error::configuration(format!("the binary has plugins that {file} lacks: {missing}"))
        .help("`vx build` makes the binary of that file; `--config FILE` names another configuration")
        .help("to upgrade the binary alone, move it out of the directories below that file");
    Err(editing.session.failed(&error))
}

fn lock_of(editing: &EditSession) -> Option<Lock> {
    let file = editing.session.request.lock.as_ref()?;
    let text = std::fs::read_to_string(file).ok()?;
    Lock::parse(&file.display().to_string(), &text).ok()
}

/// The plugins that RoadRunner needs itself.
fn is_in_every_binary(module: &str) -> bool {
    ["informer", "resetter", "config"].iter().any(|name| {
        catalogue::find(name).is_some_and(|known| known.module == without_major(module))
            || without_major(module) == format!("github.com/roadrunner-server/{name}")
    })
}

/// A velox.toml for the plugins and settings of a binary.
fn configuration_of(inspection: &Inspection, path: &Path, to: Option<&str>) -> Result<String, Error> {
    let local = inspection.plugins.iter().find(|plugin| {
        plugin.replacement.as_ref().is_some_and(|replacement| !replacement.contains(' '))
            || plugin.version == "(devel)"
    });
    if let Some(plugin) = local {
        return Err(Error::configuration(format!(
            "plugin {} of {} was built from a local directory, which the binary does not contain",
            plugin.name,
            path.display()
        ))
        .help("name the velox.toml that it was built from: `--config FILE`"));
    }
    let reference = inspection.roadrunner_version().or_else(|| to.map(str::to_owned));
    let Some(reference) = reference else {
        return Err(Error::configuration(format!(
            "{} does not contain its RoadRunner version",
            path.display()
        ))
        .help("name the version that you want: `--to v2025.1.15`"));
    };
    let mut entries = PluginEntry::from_binary(inspection);
    // RoadRunner's own, at the versions that it names.
    entries.retain(|entry| !is_in_every_binary(&entry.module));
    if entries.is_empty() {
        return Err(Error::configuration(format!("no plugin was found in {}", path.display())));
    }
    Ok(render_configuration(&reference, &entries, "The installed binary") + &render_settings(inspection))
}

/// Makes the changes in the editor.
async fn plan(editing: &mut EditSession, arguments: &UpgradeCommand) -> CommandResult<PlannedUpgrade> {
    let mut unknown = Vec::new();
    if arguments.security {
        let request = security::plan(editing, &arguments.database.url).await?.request;
        return Ok(PlannedUpgrade { request, unknown });
    }
    if let Some(target) = &arguments.to {
        let session = &editing.session;
        let planned = plan_upgrade(&session.request, target, session.reporter(), session.cancel.clone());
        let planned = planned.await.map_err(|error| session.failed(&error))?;
        let blocked = migrate_to::edit(editing, &planned).map_err(|error| editing.session.invalid(error))?;
        for finding in &blocked {
            migrate_to::show(&editing.session, finding, &editing.source)?;
        }
        if !blocked.is_empty() {
            return Err(ExitStatus::Failure);
        }
    } else {
        let session = &editing.session;
        let mut names = vec![ROADRUNNER.to_owned()];
        names.extend(editing.editor.names().into_iter().filter(|name| name != ROADRUNNER));
        let rows =
            available_versions(&session.request, &names, false, session.reporter(), session.cancel.clone())
                .await;
        for mut row in rows.map_err(|error| editing.session.failed(&error))? {
            if let Some(newer) = row.newer_generation.take() {
                editing.session.note(format!(
                    "RoadRunner {} needs plugins of major version v{}: `vx upgrade --to {}` moves to it",
                    newer.roadrunner, newer.plugin_major, newer.roadrunner
                ));
            }
            if let Some(why) = &row.versions.error {
                unknown.push(UnknownVersions { name: row.name.clone(), why: why.clone() });
            }
            // RoadRunner moves to any release with the same generation of plugins.
            let is_free = row.is_roadrunner && row.constraint().is_none();
            let newest = row.latest().map(|(_, version)| version);
            if is_free && newest.is_some_and(|newest| semver::compare(newest, &row.requested).is_le()) {
                continue;
            }
            update_plugin(editing, &row, is_free, true).map_err(|error| editing.session.invalid(error))?;
        }
    }
    let source = SourceFile { name: editing.source.name.clone(), text: editing.editor.text().to_owned() };
    let manifest = editing.parse(&source).map_err(|errors| {
        editing.session.report.failed(ExitStatus::Configuration, &errors, &[]);
        ExitStatus::Configuration
    })?;
    let mut request = BuildRequest { manifest, source: Some(source), ..editing.session.request.clone() };
    request.options.versions.upgrade = Upgrade::Only(editing.upgrade.clone());
    Ok(PlannedUpgrade { request, unknown })
}

/// Adds RoadRunner to the changes of a binary that does not contain its version: its configuration has the new one.
fn name_roadrunner(editing: &mut EditSession) {
    let reference = editing.manifest().roadrunner.reference.as_ref();
    let to = reference.map(|reference| reference.value.clone());
    match editing.changes.iter_mut().find(|change| change.name == ROADRUNNER) {
        Some(change) => change.from = None,
        None => {
            let (kind, name) = (ChangeKind::Updated, ROADRUNNER.to_owned());
            editing.changes.insert(0, Change { kind, name, module: None, from: None, to });
        }
    }
}

/// Whether the binary has the versions of the lock; true without a lock.
fn has_locked_versions(editing: &EditSession, inspection: &Inspection) -> bool {
    let Some(lock) = lock_of(editing) else { return true };
    let locked = lock.plugins.iter().map(|plugin| (&plugin.module, &plugin.version));
    let is_same = |(module, version): (&String, &String)| {
        inspection.plugins.iter().any(|plugin| (&plugin.module, &plugin.version) == (module, version))
    };
    locked.clone().all(is_same)
        && inspection.version.as_ref().is_none_or(|version| *version == lock.roadrunner.version)
}

/// Shows what an upgrade would change. With `is_check`, anything to change is a failure.
fn show_plan(
    editing: &EditSession,
    planned: &PlannedUpgrade,
    installed: &InstalledBinary,
    config: Option<&Path>,
    is_current: bool,
    is_check: bool,
) -> CommandResult {
    let upgrade = AvailableUpgrade {
        binary: installed.path(),
        config,
        up_to_date: is_current && planned.unknown.is_empty(),
        changes: &editing.changes,
        unknown: &planned.unknown,
    };
    let mut rows = Vec::new();
    for Change { name, from, to, .. } in upgrade.changes {
        let version = |version: &Option<String>| version.clone().unwrap_or_else(|| "-".to_owned());
        rows.push([name.clone(), version(from), "->".to_owned(), version(to)]);
    }
    for name in &editing.upgrade {
        if upgrade.changes.iter().all(|change| change.name != *name) {
            rows.push([name.clone(), String::new(), "->".to_owned(), "the newest commit".to_owned()]);
        }
    }
    editing.session.print(&match editing.session.format {
        OutputFormat::Json => report::event("upgrade_available", &upgrade),
        OutputFormat::Human if upgrade.up_to_date => {
            format!("{} is up to date\n", installed.path().display())
        }
        OutputFormat::Human if rows.is_empty() && !is_current => {
            format!("{} differs from velox.lock\n", installed.path().display())
        }
        OutputFormat::Human => table(&rows),
    })?;
    if is_check && !upgrade.up_to_date { Err(ExitStatus::Failure) } else { Ok(()) }
}

/// Builds and tries the new binary, then replaces the files.
async fn replace(
    editing: EditSession,
    request: &BuildRequest,
    installed: &InstalledBinary,
    config: Option<&Path>,
    inspection: &Inspection,
    rr_config: Option<&RrConfig>,
) -> CommandResult {
    let session = &editing.session;
    let kept =
        |error: Error| session.failed(&error.help(format!("{} was not changed", installed.path().display())));
    let target = inspection.target.as_deref().and_then(|target| parse_target(target).ok());
    let request = security::trial(request, target.into_iter().collect());
    let built = velox_build::build(&request, session.reporter(), session.cancel.clone()).await;
    let summary = built.map_err(kept)?;
    let Some(binary) = summary.binaries.first() else {
        return Err(kept(Error::build("internal error: the build has no binary")));
    };
    let mut dry_start = None;
    if let Some(rr_config) = rr_config {
        session.note("starting the new binary on free ports".to_owned());
        let started = rr_config.dry_start(&binary.path, &request.environment, &session.cancel).await;
        let started = started.map_err(kept)?;
        if !started.silent.is_empty() {
            session.note(format!("the server runs, but nothing listens for {}", started.silent.join(", ")));
        }
        session.note(format!("it started in {:.1} s", started.milliseconds as f64 / 1000.0));
        dry_start = Some(started);
    }
    let compared = (|| {
        let (before, after) =
            (ComparedBuild::of_binary(installed.path())?, ComparedBuild::of_binary(&binary.path)?);
        let mut cache = CachedModules::new(&request.environment);
        let mut diff = BuildDiff::new(&before, &after, &mut cache);
        // The old versions are rarely there.
        diff.without_license.clear();
        Ok((diff, installed.stage(&binary.path)?))
    })();
    let (diff, staged) = compared.map_err(kept)?;
    let format = session.format;
    if config.is_some() {
        editing.save(true).await?;
    }
    let report = |error: Error| {
        let message = error.to_string();
        report::complain(&message)
    };
    staged.replace().map_err(report)?;
    let previous = installed.previous();
    report::print(&match format {
        OutputFormat::Json => report::event(
            "upgraded",
            &UpgradedBinary {
                binary: installed.path(),
                previous: &previous,
                config,
                dry_start: dry_start.as_ref(),
                diff: &diff,
            },
        ),
        OutputFormat::Human => format!(
            "{}\n{} is upgraded; `vx upgrade --rollback` puts {} back\n",
            render(&diff),
            installed.path().display(),
            previous.display()
        ),
    })
}
