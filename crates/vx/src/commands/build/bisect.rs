//! `vx bisect`: builds and tests binaries with some of the changes between two locks.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    io,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::process::Command;
use velox_build::{
    Blame, BuildOptions, CacheOptions, CompileOptions, EndSignal, Error, ErrorKind, Goal, Lock, Output,
    ProcessGroup, Reporter, SilentReporter, cache_directory, write_text,
};
use velox_gomod::buildinfo::BuildInfo;
use velox_manifest::{GoTarget, LogConfig};
use velox_query::{Bisection, LockChange, ModuleVersions, SearchResult, StepOutcome, search_changes};

use crate::{
    cli::{OutputFormat, ProjectArgs, build::BisectCommand},
    commands::session::{Session, working_directory},
    report::{
        self,
        text::{clean, count},
    },
    settings::{Settings, Verbosity},
    status::{CommandResult, ExitStatus},
};

/// The exit code of a test that can't tell, as of `git bisect run`.
const SKIP_CODE: i32 = 125;

/// The time that an interrupted test has to end.
const TEST_GRACE: Duration = Duration::from_secs(10);

/// The versioned cache subdirectory for binaries that the artifact store can't keep.
const UNCACHED_DIRECTORY: &str = "bisect-v0";

/// The steps so far, in a file beside the lock until the search ends.
#[derive(Debug, Default, Serialize, Deserialize)]
struct BisectState {
    /// A digest of the locks, the configuration and the test.
    input: u64,
    /// By the search and the numbers of the applied changes, such as `changes 0 1 4`.
    steps: BTreeMap<String, BisectStep>,
}

/// A finished step.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct BisectStep {
    outcome: StepOutcome,
    /// The exit code of the test, or why there was no binary.
    reason: String,
    /// The modules in the binary.
    modules: ModuleVersions,
}

/// The fields of the event `bisect_step`.
#[derive(Serialize)]
struct StepEvent<'a> {
    step: usize,
    applied: Vec<LockChange>,
    outcome: StepOutcome,
    reason: &'a str,
    /// Whether it was known from an interrupted search.
    known: bool,
}

/// The fields of the event `bisected`.
#[derive(Serialize)]
struct BisectResult {
    /// The changes that break the test, all of them together.
    cause: Vec<LockChange>,
    /// One of these belongs to the cause, too: the builds between them were skipped.
    candidates: Vec<LockChange>,
    /// The changes that bring a module of the cause.
    brought_by: Vec<LockChange>,
    /// The number of changes between the locks.
    changes: usize,
    builds: usize,
    skipped: usize,
}

pub(crate) async fn bisect(settings: Settings, arguments: BisectCommand) -> CommandResult {
    let BisectCommand { source, good, bad, command } = arguments;
    let directory = working_directory()?;
    let is_verbose = settings.verbosity(LogConfig::default()) >= Verbosity::Verbose;
    let uncached = cache_directory(&settings.environment).join(UNCACHED_DIRECTORY);
    let uncached = uncached.join(format!("rr{}", std::env::consts::EXE_SUFFIX));
    // Another Go version than that of the environment is only used if both allow it.
    let is_local = settings.environment.get("GOTOOLCHAIN").is_some_and(|value| value == "local");
    let keep_go = is_local || source.go.is_some();
    let options = BuildOptions {
        compile: CompileOptions { targets: vec![GoTarget::host()], ..CompileOptions::default() },
        cache: CacheOptions { program: std::env::current_exe().ok(), ..CacheOptions::default() },
        ..BuildOptions::default()
    };
    let project = ProjectArgs { source, targets: Vec::new() };
    let goal = Goal::Build(Output::Store(uncached));
    let mut session = Session::with_overrides(settings, project, &Default::default(), options, goal)?;
    session.request.options.compile.targets = vec![GoTarget::host()];
    session.report_warnings();

    let bad = bad.map(|bad| directory.join(bad)).or_else(|| session.request.lock.clone());
    let Some(bad) = bad else {
        let error =
            Error::configuration("a configuration without a file has no lock").help("name it with --bad");
        return Err(session.failed(&error));
    };
    let read = |path: &Path| {
        let failed = |error| Error::configuration(format!("failed to read `{}`: {error}", path.display()));
        let text = fs::read_to_string(path).map_err(failed)?;
        Ok((Lock::parse(&path.display().to_string(), &text)?, text))
    };
    let locks = read(&directory.join(&good)).and_then(|good| Ok((good, read(&bad)?)));
    let ((good_lock, good_text), (bad_lock, bad_text)) = locks.map_err(|error| session.failed(&error))?;
    let names =
        [good.display().to_string(), bad.strip_prefix(&directory).unwrap_or(&bad).display().to_string()];
    if keep_go && good_lock.go_version != bad_lock.go_version {
        session.note(format!(
            "the locks have {} and {}, but --go or GOTOOLCHAIN=local selects one Go version for all builds",
            good_lock.go_version, bad_lock.go_version
        ));
    }
    // Found before the first build, which may take minutes.
    if let Some(program) = command.first().map(Path::new)
        && program.components().count() > 1
        && !directory.join(program).is_file()
    {
        let error =
            Error::configuration(format!("failed to run the test `{}`: not found", program.display()));
        return Err(session.failed(&error.help("a command after `--` is run for each binary")));
    }
    let bisection = Bisection::new(good_lock, bad_lock, keep_go);
    if bisection.changes().is_empty() {
        let [good, bad] = &names;
        let error = Error::configuration(format!(
            "{good} and {bad} have the same versions: there is nothing to search"
        ))
        .help("the content of local directories is not compared");
        return Err(session.failed(&error));
    }

    let mut hash = DefaultHasher::new();
    (&good_text, &bad_text, &command, session.request.source.as_ref().map(|source| &source.text))
        .hash(&mut hash);
    // An edited test gives other results.
    for word in &command {
        fs::read(directory.join(word)).ok().hash(&mut hash);
    }
    let file = bad.with_extension("bisect.json");
    let state = BisectState { input: hash.finish(), steps: BTreeMap::new() };
    let mut run = BisectRun { session: &session, command, file, state, is_verbose, builds: 0, steps: 0 };
    run.resume();
    match run.search(&bisection, &names).await {
        Ok(result) => {
            let _ = fs::remove_file(&run.file);
            session.print(&match session.format {
                OutputFormat::Json => report::event("bisected", &result),
                OutputFormat::Human => clean(&render(&result)).into_owned(),
            })?;
            if result.candidates.is_empty() { Ok(()) } else { Err(ExitStatus::Failure) }
        }
        Err(error) => {
            if !run.state.steps.is_empty() {
                session
                    .note(format!("the same command continues; remove {} to start over", run.file.display()));
            }
            Err(session.failed(&error))
        }
    }
}

struct BisectRun<'a> {
    session: &'a Session,
    command: Vec<OsString>,
    file: PathBuf,
    state: BisectState,
    is_verbose: bool,
    builds: usize,
    steps: usize,
}

impl BisectRun<'_> {
    /// Takes the steps of an interrupted search with the same input.
    fn resume(&mut self) {
        let text = fs::read_to_string(&self.file).unwrap_or_default();
        let Ok(state) = serde_json::from_str::<BisectState>(&text) else { return };
        if state.input == self.state.input && !state.steps.is_empty() {
            let known = count(state.steps.len() as u64, "step");
            self.session.note(format!("continuing: {known} known from {}", self.file.display()));
            self.state = state;
        }
    }

    async fn search(&mut self, bisection: &Bisection, names: &[String; 2]) -> Result<BisectResult, Error> {
        let length = bisection.changes().len();
        self.session.note(count(length as u64, "change"));
        let [good, bad] = names;
        let all = (0..length).collect();
        let none = BTreeSet::new();
        let step = self.end_point(bisection, &none, good).await?;
        if step.outcome != StepOutcome::Good {
            return Err(Error::build(format!(
                "the test doesn't pass with the versions of {good}: {}",
                step.reason
            ))
            .help("choose an older lock, or find out whether the test fails for another reason"));
        }
        let before = step.modules;
        let step = self.end_point(bisection, &all, bad).await?;
        if step.outcome != StepOutcome::Bad {
            return Err(Error::build(format!(
                "the test doesn't fail with the versions of {bad}: {}",
                step.reason
            ))
            .help("the difference is not in the versions that the locks have, or the test doesn't show it"));
        }
        let mut test = async |applied: &BTreeSet<usize>| {
            Ok::<_, Error>(self.step("changes", bisection, applied).await?.outcome)
        };
        let found = match search_changes(length, &mut test).await? {
            SearchResult::Found(found) => found,
            SearchResult::Ambiguous { certain, candidates } => {
                let (cause, candidates) = (bisection.selected(&certain), bisection.selected(&candidates));
                return Ok(self.result(bisection, cause, candidates, Vec::new()));
            }
        };
        let cause = bisection.selected(&found);
        let after = self.step("changes", bisection, &found).await?.modules;
        let Some(modules) = bisection.in_modules(&found, &before, &after) else {
            return Ok(self.result(bisection, cause, Vec::new(), Vec::new()));
        };
        let length = modules.changes().len();
        let brought = count((length - cause.len()) as u64, "module");
        self.session.note(format!("the cause brings {brought} at other versions: searching among them, too"));
        let mut test = async |applied: &BTreeSet<usize>| {
            Ok::<_, Error>(self.step("modules", &modules, applied).await?.outcome)
        };
        let in_modules = search_changes(length, &mut test).await?;
        let is_module = |index: &usize| *index < length - cause.len();
        match in_modules {
            // The cause is in the modules alone.
            SearchResult::Found(found) if found.iter().all(is_module) => {
                Ok(self.result(bisection, modules.selected(&found), Vec::new(), cause))
            }
            SearchResult::Found(found) if !self.was_skipped_without(&found, length - cause.len()) => {
                Ok(self.result(bisection, modules.selected(&found), Vec::new(), Vec::new()))
            }
            // What the cause requires can't be separated from it.
            _ => Ok(self.result(bisection, cause, Vec::new(), Vec::new())),
        }
    }

    /// Whether the changes of `found` from `first` on, without the modules before them, could not be tested.
    fn was_skipped_without(&self, found: &BTreeSet<usize>, first: usize) -> bool {
        let direct: BTreeSet<usize> = found.iter().copied().filter(|index| *index >= first).collect();
        let step = self.state.steps.get(&key("modules", &direct));
        direct != *found && step.is_some_and(|step| step.outcome == StepOutcome::Skipped)
    }

    fn result(
        &self,
        bisection: &Bisection,
        cause: Vec<LockChange>,
        candidates: Vec<LockChange>,
        brought_by: Vec<LockChange>,
    ) -> BisectResult {
        let skipped = self.state.steps.values().filter(|step| step.outcome == StepOutcome::Skipped).count();
        let changes = bisection.changes().len();
        BisectResult { cause, candidates, brought_by, changes, builds: self.builds, skipped }
    }

    /// A step whose build must succeed.
    async fn end_point(
        &mut self,
        bisection: &Bisection,
        applied: &BTreeSet<usize>,
        name: &str,
    ) -> Result<BisectStep, Error> {
        let step = self.step("changes", bisection, applied).await?;
        if step.outcome == StepOutcome::Skipped {
            // Not kept: the cause may be outside of vx.
            self.state.steps.remove(&key("changes", applied));
            return Err(Error::build(format!("no result with the versions of {name}: {}", step.reason)));
        }
        Ok(step)
    }

    /// Builds and tests the binary with some changes, unless the result is known.
    async fn step(
        &mut self,
        search: &str,
        bisection: &Bisection,
        applied: &BTreeSet<usize>,
    ) -> Result<BisectStep, Error> {
        let key = key(search, applied);
        let known = self.state.steps.get(&key).cloned();
        let is_known = known.is_some();
        let step = match known {
            Some(step) => step,
            None => {
                let step = self.build_and_test(bisection, applied).await?;
                self.state.steps.insert(key, step.clone());
                self.keep();
                step
            }
        };
        self.steps += 1;
        let outcome = match step.outcome {
            StepOutcome::Good => "good",
            StepOutcome::Bad => "bad",
            StepOutcome::Skipped => "skipped",
        };
        let (number, all) = (self.steps, bisection.changes().len());
        match self.session.format {
            OutputFormat::Json => {
                let event = StepEvent {
                    step: number,
                    applied: bisection.selected(applied),
                    outcome: step.outcome,
                    reason: &step.reason,
                    known: is_known,
                };
                self.session
                    .print(&report::event("bisect_step", &event))
                    .map_err(|_| Error::interrupted())?;
            }
            OutputFormat::Human => {
                let known = if is_known { ", known" } else { "" };
                let applied = applied.len();
                self.session.note(format!(
                    "step {number}: {applied} of {all} changes: {outcome} ({}{known})",
                    step.reason
                ));
            }
        }
        Ok(step)
    }

    async fn build_and_test(
        &mut self,
        bisection: &Bisection,
        applied: &BTreeSet<usize>,
    ) -> Result<BisectStep, Error> {
        self.builds += 1;
        let request = bisection.request(&self.session.request, applied, self.session.request.goal.clone());
        let reporter: Arc<dyn Reporter> = match self.is_verbose {
            true => self.session.reporter(),
            false => Arc::new(SilentReporter),
        };
        let built = velox_build::build(&request, reporter, self.session.cancel.clone()).await;
        let skipped = |reason: String| BisectStep {
            outcome: StepOutcome::Skipped,
            reason,
            modules: ModuleVersions::new(),
        };
        let binary = match built.map(|summary| summary.binaries.into_iter().next()) {
            Ok(Some(binary)) => binary.path,
            Ok(None) => return Ok(skipped("no binary".to_owned())),
            // Later steps would fail in the same way.
            Err(error) if error.kind == ErrorKind::Interrupted || error.fault == Blame::Sources => {
                return Err(error);
            }
            Err(error) => return Ok(skipped(error.to_string())),
        };
        let modules = BuildInfo::read(&binary).map_err(|error| Error::build(error.to_string()))?;
        let version = |module: velox_gomod::buildinfo::BuildModule| {
            let version = module.replace.map_or(module.version, |replacement| replacement.version);
            (module.path, version)
        };
        let modules = modules.deps.into_iter().map(version).collect();
        let (outcome, reason) = self.test(&binary).await?;
        Ok(BisectStep { outcome, reason, modules })
    }

    /// Runs the test. Its output goes to standard error.
    async fn test(&self, binary: &Path) -> Result<(StepOutcome, String), Error> {
        let words: Vec<OsString> = self.command.iter().map(|word| with_binary(word, binary)).collect();
        let Some((program, arguments)) = words.split_first() else {
            return Err(Error::configuration("there is no test command"));
        };
        self.session.report.clear();
        let mut command = Command::new(program);
        command.args(arguments).env("RR", binary).stdin(Stdio::null()).stdout(Stdio::from(io::stderr()));
        let mut group = ProcessGroup::spawn(command, true).map_err(|error| {
            Error::configuration(format!("failed to run the test `{}`: {error}", program.display()))
        })?;
        let status = tokio::select! {
            status = group.wait() => {
                status.map_err(|error| Error::build(format!("failed to wait for the test: {error}")))?
            }
            () = self.session.cancel.cancelled() => {
                group.end(Some(EndSignal::Interrupt), TEST_GRACE).await;
                return Err(Error::interrupted());
            }
        };
        let outcome = match status.code() {
            Some(0) => StepOutcome::Good,
            Some(SKIP_CODE) => StepOutcome::Skipped,
            Some(1..=127) => StepOutcome::Bad,
            Some(_) | None => {
                return Err(Error::build(format!("the test stopped the search: {status}"))
                    .help("exit with 1 to 127 for a bad binary, 0 for a good one, 125 to skip it"));
            }
        };
        Ok((outcome, status.to_string()))
    }

    fn keep(&self) {
        let text = serde_json::to_string(&self.state).unwrap_or_default();
        if let Err(error) = write_text(&self.file, &text) {
            self.session.note(format!(
                "failed to write `{}`: {error}: an interrupted search starts over",
                self.file.display()
            ));
        }
    }
}

fn key(search: &str, applied: &BTreeSet<usize>) -> String {
    applied.iter().fold(search.to_owned(), |key, index| format!("{key} {index}"))
}

/// A word of the test, with the path of the binary in place of `{rr}`.
fn with_binary(word: &OsString, binary: &Path) -> OsString {
    match word.to_str() {
        Some(text) if text.contains("{rr}") => text.replace("{rr}", &binary.to_string_lossy()).into(),
        _ => word.clone(),
    }
}

fn render(result: &BisectResult) -> String {
    let BisectResult { cause, candidates, brought_by, changes, builds, skipped } = result;
    let list =
        |changes: &[LockChange]| changes.iter().map(|change| format!("  {change}\n")).collect::<String>();
    let mut text = match (cause.as_slice(), candidates.as_slice()) {
        ([one], []) => format!("{one} breaks the test\n"),
        (several, []) => format!("no change breaks the test alone; these do together:\n{}", list(several)),
        ([], candidates) => format!(
            "one of these changes breaks the test; the builds between them were skipped:\n{}",
            list(candidates)
        ),
        (certain, candidates) => format!(
            "these changes break the test:\n{}together with one of these; the builds between them were skipped:\n{}",
            list(certain),
            list(candidates)
        ),
    };
    if !brought_by.is_empty() {
        text += &format!("it comes with:\n{}", list(brought_by));
    }
    let changes = count(*changes as u64, "change");
    let builds = count(*builds as u64, "build");
    let skipped = if *skipped == 0 { String::new() } else { format!(", {skipped} skipped") };
    text + &format!("{changes}, {builds}{skipped}\n")
}
