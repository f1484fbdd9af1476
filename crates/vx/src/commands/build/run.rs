use std::{
    collections::BTreeMap,
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use velox_build::{
    BuildOptions, CacheOptions, CompileOptions, Error, Goal, NetworkAccess, Output, cache_directory,
    target_of_environment,
};
use velox_manifest::{Diagnostic, GoTarget};
use velox_query::RR_CONFIG_FILE_NAME;

use crate::{
    cli::{
        OutputFormat, SourceArgs,
        build::{OverrideArgs, RunCommand},
    },
    commands::{
        edit::init::plugins_of_rr_config,
        session::{LoadedManifest, Session, working_directory},
    },
    config_file::default_file,
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
    let words = arguments.arguments.clone();
    let binary = build_to_run(settings, arguments).await?;
    execute(&binary, &words)
}

/// Builds the binary if it is not cached. Signals are no longer handled then.
pub(super) async fn build_to_run(settings: Settings, arguments: RunCommand) -> CommandResult<PathBuf> {
    let RunCommand { mut source, mut overrides, debug, race, watch: _, arguments } = arguments;
    let report = |file| report::open_stderr(&settings, Default::default(), file);
    overrides.resolve_names(&settings, &source, report).await?;
    let directory = working_directory()?;
    let has_manifest = source.config.is_some() || default_file(&directory).exists();
    if let Some(file) = served_config(&arguments, &directory)
        && !has_manifest
        && overrides.with.is_empty()
    {
        if !file.exists() {
            let shown = file.strip_prefix(&directory).unwrap_or(&file).display();
            let error = Diagnostic::error(format!("found neither velox.toml nor `{shown}`")).help(
                "create a velox.toml with `vx init`; without one, `vx run serve` builds the plugins that .rr.yaml needs",
            );
            report(None).failed(ExitStatus::Configuration, &[error], &[]);
            return Err(ExitStatus::Configuration);
        }
        add_needed_plugins(&settings, &mut overrides, &source, &file, &directory).await?;
    }
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
    match summary.binaries.into_iter().next() {
        Some(binary) => Ok(binary.path),
        None => Err(report::complain("internal error: the build has no binary")),
    }
}

/// The RoadRunner configuration that `rr serve` reads with these arguments.
pub(super) fn served_config(arguments: &[OsString], directory: &Path) -> Option<PathBuf> {
    let serves = arguments.iter().any(|argument| argument == "serve");
    let value = |short: &str, long: &str| {
        let at = arguments.iter().rposition(|argument| {
            argument
                .to_str()
                .is_some_and(|it| it == long || it.starts_with(&format!("{long}=")) || it.starts_with(short))
        })?;
        let argument = arguments.get(at)?.to_str()?;
        let attached = argument.strip_prefix(long).or_else(|| argument.strip_prefix(short))?;
        match attached.strip_prefix('=').unwrap_or(attached) {
            "" => arguments.get(at + 1).map(PathBuf::from),
            value => Some(PathBuf::from(value)),
        }
    };
    let working = value("-w", "--WorkDir").map_or_else(|| directory.to_owned(), |path| directory.join(path));
    let file = working.join(value("-c", "--config").unwrap_or_else(|| RR_CONFIG_FILE_NAME.into()));
    serves.then_some(file)
}

/// Without a velox.toml, the plugins are those that the RoadRunner configuration needs.
async fn add_needed_plugins(
    settings: &Settings,
    overrides: &mut OverrideArgs,
    source: &SourceArgs,
    file: &Path,
    directory: &Path,
) -> CommandResult {
    let report = report::open_stderr(settings, Default::default(), None);
    let options = BuildOptions {
        go: source.go.as_ref().map(|go| directory.join(go)),
        network: if source.offline { NetworkAccess::Offline } else { NetworkAccess::default() },
        ..BuildOptions::default()
    };
    let session =
        Session::new(report, settings.clone(), LoadedManifest::empty(directory), options, Goal::Plan)?;
    let roadrunner = overrides.roadrunner.as_deref();
    let (reference, plugins) = plugins_of_rr_config(settings, &session, roadrunner, file, directory).await?;
    let names: Vec<&str> = plugins.iter().map(|plugin| plugin.name.as_str()).collect();
    let shown = file.strip_prefix(directory).unwrap_or(file).display();
    session.note(format!(
        "no velox.toml: using RoadRunner {reference} with the plugins that {shown} needs: {}; `vx init --from {shown}` \
         writes them to velox.toml",
        names.join(", ")
    ));
    overrides.with = plugins.iter().map(|plugin| format!("{}@{}", plugin.module, plugin.reference)).collect();
    overrides.roadrunner = Some(reference);
    session.signals.stop();
    Ok(())
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
