use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Instant,
};

use tokio_util::sync::CancellationToken;
use velox_build::{Event, Goal, Options, Output, Request};
use velox_manifest::{Diagnostic, Log, Manifest, Source};

use crate::{
    cli,
    configuration::{self, Configuration},
    exit::Ending,
    report::{self, Failure},
    settings::Settings,
    signals,
};

/// `vx build`.
pub(crate) async fn build(settings: Settings, arguments: cli::Build) -> ExitCode {
    let output = |working_directory: &Path| match (arguments.output_file, arguments.output_dir) {
        (Some(file), _) => Output::File(working_directory.join(file)),
        (None, Some(directory)) => Output::Directory(working_directory.join(directory)),
        (None, None) => Output::Directory(working_directory.to_owned()),
    };
    let dry_run = arguments.dry_run;
    let goal = |directory: &Path| if dry_run { Goal::Plan } else { Goal::Build(output(directory)) };
    let options = Options {
        debug: arguments.debug,
        race: arguments.race,
        strict: arguments.strict,
        stamp_version: arguments.stamp_version,
        stamp_time: arguments.stamp_time,
        keep_workspace: arguments.keep_workspace,
        no_smoke_test: arguments.no_smoke_test,
        locked: arguments.locked,
        no_cache: arguments.no_cache,
        archive: arguments.archive,
        remote_cache: arguments.remote_cache,
        cache_program: std::env::current_exe().ok(),
        ..Options::default()
    };
    run(settings, arguments.server, goal, options).await
}

/// `vx lock`.
pub(crate) async fn lock(settings: Settings, arguments: cli::Lock) -> ExitCode {
    let goal = if arguments.check { Goal::CheckLock } else { Goal::Lock };
    let options = Options {
        upgrade: arguments.upgrade.as_ref().is_some_and(Vec::is_empty),
        upgrade_only: arguments.upgrade.unwrap_or_default(),
        ..Options::default()
    };
    run(settings, arguments.server, |_| goal, options).await
}

/// `vx fetch`.
pub(crate) async fn fetch(settings: Settings, arguments: cli::Fetch) -> ExitCode {
    let options = Options { locked: arguments.locked, ..Options::default() };
    run(settings, arguments.server, |_| Goal::Fetch, options).await
}

/// Reads the configuration and takes it to the goal, which is told the working directory.
async fn run(
    settings: Settings,
    server: cli::Server,
    goal: impl FnOnce(&Path) -> Goal,
    options: Options,
) -> ExitCode {
    let started = Instant::now();
    let working_directory = match std::env::current_dir() {
        Ok(directory) => directory,
        Err(error) => return report::complain(&format!("can't tell the working directory: {error}")),
    };
    let Configuration { source, base, file } = match configuration::read(&server.config, &working_directory) {
        Ok(configuration) => configuration,
        Err(diagnostic) => return misconfigured(&settings, None, &[diagnostic]),
    };
    let lookup = |name: &str| settings.environment.get(name).cloned();
    let (manifest, warnings) = match Manifest::parse(&source, &lookup) {
        Ok(parsed) => parsed,
        Err(diagnostics) => return misconfigured(&settings, Some(source), &diagnostics),
    };

    let report = report::open(&settings, manifest.log, Some(source.clone()));
    for warning in warnings {
        report.report(Event::Warning(warning));
    }
    let cancel = CancellationToken::new();
    let watcher = Arc::clone(&report);
    let received = match signals::watch(cancel.clone(), move |signal| watcher.interrupted(signal)) {
        Ok(received) => received,
        Err(error) => return report::complain(&format!("can't listen for signals: {error}")),
    };

    let request = Request {
        manifest,
        source: Some(source),
        base,
        environment: settings.environment,
        options: Options {
            targets: server.targets.into_iter().flat_map(|cli::Targets(targets)| targets).collect(),
            dependencies: server.dependencies.map(Into::into),
            offline: server.offline,
            go: server.go.map(|go| working_directory.join(go)),
            ..options
        },
        goal: goal(&working_directory),
        lock: file.map(lock_beside),
    };
    match velox_build::build(&request, Arc::clone(&report) as _, cancel).await {
        Ok(summary) => match report.finished(&request.goal, &summary, started.elapsed()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => report::complain(&format!("can't write to the standard output: {error}")),
        },
        Err(error) => {
            let ending = Ending::of(error.kind, received.signal());
            report.failed(&Failure { ending, diagnostics: &error.diagnostics, output: &error.output });
            ending.into()
        }
    }
}

/// `velox.toml` → `velox.lock`; a configuration of another name has a lock of its own.
fn lock_beside(configuration: PathBuf) -> PathBuf {
    configuration.with_extension("lock")
}

/// Ends before `[log]` could say how to tell it: by the flags alone.
fn misconfigured(settings: &Settings, source: Option<Source>, diagnostics: &[Diagnostic]) -> ExitCode {
    let ending = Ending::Configuration;
    report::open(settings, Log::default(), source).failed(&Failure { ending, diagnostics, output: &[] });
    ending.into()
}
