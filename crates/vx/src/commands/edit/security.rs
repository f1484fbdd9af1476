//! `vx update --security`.

use std::fmt::Write as _;

use serde::Serialize;
use velox_build::{BuildRequest, CacheOptions, Error, Goal, Output, cache_directory};
use velox_manifest::{Diagnostic, GoSelection, GoTarget, SourceFile};
use velox_query::{
    AuditReport, Reach, SecurityChange, SecurityPlan, SecuritySubject, UnfixedVulnerability, Vulnerability,
    module_display_name,
};

use crate::{
    cli::OutputFormat,
    commands::edit::session::EditSession,
    report::{
        self, Change, ChangeKind,
        audit::{vulnerabilities, warn},
        text::clean,
    },
    status::{CommandResult, ExitStatus},
};

/// A fixed version can have other vulnerabilities, and require modules with others.
const MAX_ROUNDS: usize = 5;

/// The versioned cache subdirectory for a binary that the artifact store can't keep.
const TRIAL_DIRECTORY: &str = "security-update-v0";

/// The result of an update.
#[derive(Serialize)]
struct SecurityUpdate<'a> {
    file: &'a std::path::Path,
    dry_run: bool,
    changes: &'a [SecurityChange],
    closed: Vec<ClosedVulnerability<'a>>,
    remaining: &'a [UnfixedVulnerability],
    /// Whether the changed configuration compiles; null without changes.
    builds: Option<bool>,
}

#[derive(Serialize)]
struct ClosedVulnerability<'a> {
    id: &'a str,
    module: &'a str,
    version: &'a str,
    reach: Reach,
}

/// The changes that remove vulnerabilities, made in the editor.
pub(super) struct PlannedSecurityUpdate {
    /// The request with the changes.
    pub(super) request: BuildRequest,
    changes: Vec<SecurityChange>,
    closed: Vec<Vulnerability>,
    remaining: Vec<UnfixedVulnerability>,
}

/// Finds the changes, compiles the result, and writes both files unless it is a dry run.
pub(crate) async fn update(mut editing: EditSession, database: &str, dry_run: bool) -> CommandResult {
    let planned = plan(&mut editing, database).await?;
    let PlannedSecurityUpdate { request, changes, closed, remaining } = &planned;
    let builds = match changes.is_empty() {
        true => None,
        false => Some(builds(&editing, request).await?),
    };
    let closed = closed.iter().map(|known| ClosedVulnerability {
        id: &known.id,
        module: &known.module,
        version: &known.version,
        reach: known.reach,
    });
    let closed = closed.collect();
    let update = SecurityUpdate { file: &editing.file, dry_run, changes, closed, remaining, builds };
    editing.session.print(&match editing.session.format {
        OutputFormat::Json => report::event("security_update", &update),
        OutputFormat::Human => clean(&render(&update)).into_owned(),
    })?;
    match builds {
        Some(false) => Err(ExitStatus::Failure),
        None => Ok(()),
        Some(true) if dry_run => Ok(()),
        Some(true) => editing.save(true).await,
    }
}

/// Finds the changes, and makes them in the editor.
pub(super) async fn plan(editing: &mut EditSession, database: &str) -> CommandResult<PlannedSecurityUpdate> {
    let mut request = BuildRequest { goal: Goal::Plan, ..editing.session.request.clone() };
    let before = audit(editing, &request, database).await?;
    warn(&*editing.session.report, &before);
    let mut after = before.clone();
    let mut changes: Vec<SecurityChange> = Vec::new();
    for _ in 0..MAX_ROUNDS {
        let SecurityPlan { changes: mut new, .. } = after.security_plan(&request.manifest);
        // What had no effect is not tried again.
        let is_same =
            |old: &SecurityChange, new: &SecurityChange| old.subject == new.subject && old.to == new.to;
        new.retain(|change| !changes.iter().any(|old| is_same(old, change)));
        if new.is_empty() {
            break;
        }
        for change in new {
            apply(editing, &mut request, &change).map_err(|error| editing.session.invalid(error))?;
            merge(&mut changes, change);
        }
        let source = SourceFile { name: editing.source.name.clone(), text: editing.editor.text().to_owned() };
        request.manifest = editing
            .parse(&source)
            .map_err(|errors| editing.session.failed(&Error::many(velox_build::ErrorKind::Build, errors)))?;
        request.source = Some(source);
        after = audit(editing, &request, database).await?;
    }
    let mut remaining = after.security_plan(&request.manifest).unfixed;
    for known in &after.vulnerabilities {
        if !remaining.iter().any(|other| (&other.id, &other.module) == (&known.id, &known.module)) {
            let why = format!("it is {}, but the build still selects {}", known.fix(), known.subject());
            remaining.push(UnfixedVulnerability::new(known.clone(), why));
        }
    }
    // With `[go] version = "1.26"`, the newest patch release is selected.
    let go = after.go_version.trim_start_matches("go");
    changes.retain_mut(|SecurityChange { subject, from, to }| match subject {
        SecuritySubject::Go => {
            go.clone_into(to);
            from != to
        }
        _ => true,
    });
    let is_open = |known: &Vulnerability| {
        after.vulnerabilities.iter().any(|other| (&other.id, &other.module) == (&known.id, &known.module))
    };
    let closed = before.vulnerabilities.iter().filter(|known| !is_open(known)).cloned().collect();
    editing.changes = changes.iter().map(file_change).collect();
    editing.session.request.options.versions.lowest_go = request.options.versions.lowest_go.clone();
    Ok(PlannedSecurityUpdate { request, changes, closed, remaining })
}

async fn audit(editing: &EditSession, request: &BuildRequest, database: &str) -> CommandResult<AuditReport> {
    let session = &editing.session;
    let loaded = AuditReport::load(request, database, session.reporter(), session.cancel.clone()).await;
    loaded.map_err(|error| session.failed(&error))
}

/// Whether the binary can be compiled. The lock is not written.
async fn builds(editing: &EditSession, request: &BuildRequest) -> CommandResult<bool> {
    let request = trial(request, Vec::new());
    let session = &editing.session;
    match velox_build::build(&request, session.reporter(), session.cancel.clone()).await {
        Ok(_) => Ok(true),
        Err(error) if error.kind == velox_build::ErrorKind::Build => {
            session.failed(&error.help("the configuration was not changed"));
            Ok(false)
        }
        Err(error) => Err(session.failed(&error)),
    }
}

/// The request of a build whose binary stays in the cache. The lock is not written.
pub(super) fn trial(request: &BuildRequest, targets: Vec<GoTarget>) -> BuildRequest {
    let binary = format!("rr{}", std::env::consts::EXE_SUFFIX);
    let place = cache_directory(&request.environment).join(TRIAL_DIRECTORY).join(binary);
    let mut request = request.clone();
    request.goal = Goal::Build(Output::Store(place));
    request.updates_lock = false;
    request.options.compile.targets.extend(targets);
    request.options.cache = CacheOptions { program: std::env::current_exe().ok(), ..request.options.cache };
    request
}

/// Changes the text of the configuration, or the options if the text has the change already.
fn apply(
    editing: &mut EditSession,
    request: &mut BuildRequest,
    change: &SecurityChange,
) -> Result<(), Diagnostic> {
    let (editor, to) = (&mut editing.editor, &change.to);
    match &change.subject {
        SecuritySubject::Go => {
            request.options.versions.lowest_go = Some(to.clone());
            match request.manifest.go.as_ref().map(|go| &go.value) {
                Some(GoSelection::Minor(_)) => Ok(()),
                _ => editor.set_go(to),
            }
        }
        SecuritySubject::Roadrunner => editor.set_roadrunner(to),
        SecuritySubject::Plugin { name, .. } => match editor.has_variable_ref(name) {
            true => Err(Diagnostic::error(format!("the ref of plugin {name} contains a variable"))
                .help(format!("set the variable to {to}"))),
            false => editor.set_ref(name, to),
        },
        SecuritySubject::Requires { module } => editor.set_floor(module, to),
    }
}

/// Adds a change, or extends one of an earlier round.
fn merge(changes: &mut Vec<SecurityChange>, new: SecurityChange) {
    match changes.iter_mut().find(|old| old.subject == new.subject) {
        Some(old) => old.to = new.to,
        None => changes.push(new),
    }
}

fn file_change(change: &SecurityChange) -> Change {
    let (name, module) = match &change.subject {
        SecuritySubject::Go => ("Go".to_owned(), None),
        SecuritySubject::Roadrunner => ("roadrunner".to_owned(), None),
        SecuritySubject::Plugin { name, module } => (name.clone(), Some(module.clone())),
        SecuritySubject::Requires { module } => (module.clone(), None),
    };
    let (from, to) = (Some(change.from.clone()), Some(change.to.clone()));
    Change { kind: ChangeKind::Updated, name, module, from, to }
}

fn render(update: &SecurityUpdate<'_>) -> String {
    let mut text = String::new();
    for SecurityChange { subject, from, to } in update.changes {
        let _ = match subject {
            SecuritySubject::Go => writeln!(text, "Go {from} -> {to}"),
            SecuritySubject::Roadrunner => writeln!(text, "RoadRunner {from} -> {to}"),
            SecuritySubject::Plugin { name, .. } => writeln!(text, "plugin {name} {from} -> {to}"),
            SecuritySubject::Requires { module } => writeln!(text, "{module} {from} -> {to} ([[requires]])"),
        };
    }
    if !update.changes.is_empty() {
        text.push('\n');
    }
    if !update.closed.is_empty() {
        let _ = writeln!(text, "closes {}:", vulnerabilities(update.closed.len()));
        for ClosedVulnerability { id, module, version, reach } in &update.closed {
            let _ = writeln!(text, "  {id} in {} ({})", module_display_name(module, version), reach.word());
        }
    }
    if !update.remaining.is_empty() {
        let _ = writeln!(text, "can't close {}:", vulnerabilities(update.remaining.len()));
        for UnfixedVulnerability { id, module, version, reach, why } in update.remaining {
            let module = module_display_name(module, version);
            let _ = writeln!(text, "  {id} in {module} ({}): {why}", reach.word());
        }
    }
    text + match update.builds {
        None if update.remaining.is_empty() => "no known vulnerabilities: nothing to change\n",
        None => "nothing to change\n",
        Some(true) if update.dry_run => "the build works; nothing was written (--dry-run)\n",
        Some(true) => "the build works\n",
        Some(false) => "the build fails; nothing was written\n",
    }
}
