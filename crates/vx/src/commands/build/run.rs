use std::{collections::BTreeMap, ffi::OsString, path::Path, process::Command, time::Duration};

use velox_build::{
    BuildOptions, CacheOptions, CompileOptions, Error, Goal, Output, cache_directory, target_of_environment,
};
use velox_manifest::GoTarget;

use crate::{
    cli::{OutputFormat, build::RunCommand},
    commands::session::{LoadedManifest, Session, working_directory},
    report::{self, DelayedReport},
    settings::{Settings, Verbosity},
    status::{CommandResult, ExitStatus},
};

/// Progress is only shown for longer builds.
const PROGRESS_DELAY: Duration = Duration::from_secs(2);

/// The versioned cache subdirectory for binaries that the artifact store can't keep.
const UNCACHED_DIRECTORY: &str = "run-v0";

/// `vx run`: builds the binary if it is not cached, and replaces this process by it.
pub(crate) async fn run(settings: Settings, arguments: RunCommand) -> CommandResult {
    let RunCommand { mut source, mut overrides, debug, race, arguments } = arguments;
    let report = |file| report::open_stderr(&settings, Default::default(), file);
    overrides.resolve_names(&settings, &source, report).await?;
    let directory = working_directory()?;
    let loaded =
        LoadedManifest::load(&settings, source.config.take(), &overrides, &directory).map_err(|error| {
            let report = report::open_stderr(&settings, Default::default(), error.source);
            report.failed(ExitStatus::Configuration, &error.diagnostics, &[]);
            ExitStatus::Configuration
        })?;
    let log = loaded.manifest.log;
    let is_default = settings.format() == OutputFormat::Human && settings.verbosity(log) <= Verbosity::Normal;
    let delay = if is_default { PROGRESS_DELAY } else { Duration::ZERO };
    let report = DelayedReport::new(report::open_stderr(&settings, log, loaded.source.clone()), delay);
    check_host(&settings.environment).map_err(|error| report::failed(&settings, &error))?;
    let binary_name = format!("rr{}", std::env::consts::EXE_SUFFIX);
    let uncached = cache_directory(&settings.environment).join(UNCACHED_DIRECTORY).join(binary_name);
    let options = BuildOptions {
        compile: CompileOptions { debug, race, targets: vec![GoTarget::host()], ..CompileOptions::default() },
        cache: CacheOptions { program: std::env::current_exe().ok(), ..CacheOptions::default() },
        ..BuildOptions::default()
    };
    let options = source.options(options, &directory);
    let goal = Goal::Build(Output::Store(uncached));
    let mut session = Session::new(report, settings, loaded, options, goal)?;
    let summary = session.run().await?;
    if let Some(signal) = session.signals.received() {
        return Err(ExitStatus::Interrupted(signal));
    }
    session.signals.stop();
    match summary.binaries.first() {
        Some(binary) => execute(&binary.path, &arguments),
        None => Err(report::complain("internal error: the build has no binary")),
    }
}

/// Fails if the environment selects a target that this machine can't run.
fn check_host(environment: &BTreeMap<String, String>) -> Result<(), Error> {
    match target_of_environment(environment)? {
        Some(target) if target != GoTarget::host() => Err(Error::configuration(format!(
            "GOOS and GOARCH select {target}, but `vx run` runs the binary on {}",
            GoTarget::host()
        ))
        .help("unset GOOS and GOARCH, or use `vx build`")),
        _ => Ok(()),
    }
}

/// Replaces this process, which preserves signals, streams and the exit code.
#[cfg(unix)]
fn execute(binary: &Path, arguments: &[OsString]) -> CommandResult {
    use std::os::unix::process::CommandExt as _;
    let error = Command::new(binary).args(arguments).exec();
    Err(report::complain(&format!("failed to run `{}`: {error}", binary.display())))
}

/// Runs the binary and exits with its exit code. This process ignores Ctrl-C, which also reaches the child.
#[cfg(not(unix))]
fn execute(binary: &Path, arguments: &[OsString]) -> CommandResult {
    match Command::new(binary).args(arguments).status() {
        // `ExitCode` would truncate the code to 8 bits.
        Ok(status) => std::process::exit(status.code().unwrap_or(ExitStatus::Failure.code().into())),
        Err(error) => Err(report::complain(&format!("failed to run `{}`: {error}", binary.display()))),
    }
}
