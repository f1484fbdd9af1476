//! `vx migrate --to`: moves RoadRunner and its plugins together.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::json;
use velox_manifest::{Diagnostic, Level, Manifest, SourceFile, VersionConstraint};
use velox_query::{Finding, RR_CONFIG_FILE_NAME, UpgradePlan, UpgradeStep, check_rr_config, plan_upgrade};

use crate::{
    cli::{OutputFormat, edit::MigrateCommand},
    commands::{
        edit::session::EditSession,
        rr_config,
        session::{Session, working_directory},
    },
    report::{
        self, Change, ChangeKind,
        findings::{finding_event, render_finding},
        text::line_diff,
    },
    status::{CommandResult, ExitStatus},
};

/// The first major version of the plugins whose RoadRunner reads a `.rr.yaml` of RoadRunner 3.
const RR_CONFIG_CHANGES: u64 = 6;

pub(super) async fn migrate_to(
    mut editing: EditSession,
    target: &str,
    arguments: &MigrateCommand,
) -> CommandResult {
    let session = &editing.session;
    let plan = plan_upgrade(&session.request, target, session.reporter(), session.cancel.clone())
        .await
        .map_err(|error| session.failed(&error))?;
    let was_newest = is_at(editing.manifest(), &plan);
    if plan.is_unreleased {
        editing.session.note(format!(
            "the module proxies list no release of RoadRunner {target}: this is the newest commit of its default branch, {}",
            plan.reference
        ));
    }
    let blocked = edit(&mut editing, &plan).map_err(|error| editing.session.invalid(error))?;
    let rr_configs = rr_configs(&editing, arguments, was_newest)?;
    let source = editing.source.clone();
    for finding in &blocked {
        show(&editing.session, finding, &source)?;
    }
    let mut rr_errors = false;
    if plan.plugin_major >= RR_CONFIG_CHANGES {
        for (file, text) in rr_configs {
            rr_errors |= check_file(&editing, &file, text)?;
        }
    }
    let is_changed = editing.editor.text() != source.text;
    if arguments.dry_run || arguments.check {
        show_plan(&editing)?;
        let is_failed = !blocked.is_empty() || (arguments.check && (is_changed || rr_errors));
        return if is_failed { Err(ExitStatus::Failure) } else { Ok(()) };
    }
    editing.save(!arguments.no_lock).await?;
    if blocked.is_empty() { Ok(()) } else { Err(ExitStatus::Failure) }
}

/// Whether the configuration already has a RoadRunner of the plan's major version.
fn is_at(manifest: &Manifest, plan: &UpgradePlan) -> bool {
    let major = |version: &str| version.split('.').next().unwrap_or_default().to_owned();
    let reference = manifest.roadrunner.reference.as_ref();
    reference.is_some_and(|reference| major(&reference.value) == major(&plan.roadrunner.version))
}

/// Makes the changes in the editor. Returns the findings about plugins that stay.
pub(super) fn edit(editing: &mut EditSession, plan: &UpgradePlan) -> Result<Vec<Finding>, Diagnostic> {
    let mut blocked = Vec::new();
    let reference = editing.manifest().roadrunner.reference.clone();
    let from = reference.as_ref().map(|reference| reference.value.clone());
    let to = moved(from.as_deref(), &plan.reference);
    if from.as_ref() != Some(&to) {
        editing.editor.set_roadrunner(&to)?;
        editing.changes.push(Change {
            kind: ChangeKind::Updated,
            name: velox_query::ROADRUNNER.to_owned(),
            module: Some(plan.roadrunner.path.clone()),
            from,
            to: Some(to),
        });
    }
    for plugin in &plan.plugins {
        let module = match &plugin.step {
            UpgradeStep::Unchanged => continue,
            UpgradeStep::Blocked(finding) => {
                blocked.push((**finding).clone());
                continue;
            }
            UpgradeStep::Update(module) => module,
        };
        let name = &plugin.name;
        let manifest = editing.manifest();
        let configured = manifest.plugins.iter().find(|known| known.name.value == *name);
        let (from, span) = match configured {
            Some(known) => (Some(known.reference.value.clone()), known.reference.span.clone()),
            None => (None, None),
        };
        if editing.editor.has_variable_ref(name) {
            let diagnostic = Diagnostic::error(format!("the ref of `{name}` contains a variable"))
                .at(span)
                .label("stays unchanged")
                .help(format!("set it to {} of {}", module.version, module.path));
            blocked.push(Finding::of_warning(diagnostic));
            continue;
        }
        let to = moved(from.as_deref(), &module.version);
        editing.editor.set_ref(name, &to)?;
        editing.editor.set_module(name, &module.path)?;
        editing.changes.push(Change {
            kind: ChangeKind::Updated,
            name: name.clone(),
            module: Some(module.path.clone()),
            from,
            to: Some(to),
        });
    }
    Ok(blocked)
}

/// The ref for a version: a constraint stays one.
fn moved(from: Option<&str>, version: &str) -> String {
    let constraint = from.and_then(VersionConstraint::of);
    constraint.map_or_else(|| version.to_owned(), |constraint| constraint.moved_to(version))
}

/// The RoadRunner configurations to check. The default one is not checked again after the move.
fn rr_configs(
    editing: &EditSession,
    arguments: &MigrateCommand,
    was_newest: bool,
) -> CommandResult<Vec<(PathBuf, String)>> {
    let read = |path: &Path| {
        fs::read_to_string(path).map_err(|error| {
            let message = format!("failed to read `{}`: {error}", path.display());
            editing.session.invalid(Diagnostic::error(message).help("name a file with `--rr-config FILE`"))
        })
    };
    if arguments.rr_config.is_empty() {
        let default = editing.file.with_file_name(RR_CONFIG_FILE_NAME);
        let exists = default.is_file() && !was_newest;
        return if exists { Ok(vec![(default.clone(), read(&default)?)]) } else { Ok(Vec::new()) };
    }
    let directory = working_directory()?;
    let paths = arguments.rr_config.iter().map(|path| directory.join(path));
    paths.map(|path| Ok((path.clone(), read(&path)?))).collect()
}

/// Shows the findings about a RoadRunner configuration. Returns whether one is an error.
fn check_file(editing: &EditSession, file: &Path, text: String) -> CommandResult<bool> {
    let directory = working_directory()?;
    let name = file.strip_prefix(&directory).unwrap_or(file).display().to_string();
    let manifest = editing.manifest();
    let plugins: Vec<String> = manifest.plugins.iter().map(|plugin| plugin.identity(manifest)).collect();
    let base = file.parent().unwrap_or(&directory);
    let report = check_rr_config(&SourceFile { name, text }, base, &plugins);
    editing.session.print(&rr_config::render(&report, editing.session.format))?;
    Ok(report.findings.iter().any(|finding| finding.level == Level::Error))
}

pub(super) fn show(session: &Session, finding: &Finding, source: &SourceFile) -> CommandResult {
    session.print(&match session.format {
        OutputFormat::Json => finding_event(finding, Some(source)),
        OutputFormat::Human => render_finding(finding, Some(source)),
    })
}

/// Shows the changes of a dry run.
pub(super) fn show_plan(editing: &EditSession) -> CommandResult {
    let diff = line_diff(&editing.source.name, &editing.source.text, editing.editor.text());
    editing.session.print(&match editing.session.format {
        OutputFormat::Json => report::event(
            "planned",
            &json!({ "file": editing.file, "changes": editing.changes, "diff": diff }),
        ),
        OutputFormat::Human if diff.is_empty() => format!("{} stays unchanged\n", editing.source.name),
        OutputFormat::Human => diff,
    })
}
