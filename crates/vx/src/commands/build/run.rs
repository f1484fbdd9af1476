use std::{
    ffi::OsString,
    path::Path,
    process::{Command, ExitCode},
    sync::Arc,
    time::{Duration, Instant},
};

use velox_build::{BuildOptions, CacheOptions, CompileOptions, Goal, Output, cache_directory};
use velox_manifest::GoTarget;

use crate::commands::session::{Asked, Prepared, working_directory};
use crate::{
    cli::{self, Format},
    report::{self, Patient},
    settings::{Settings, Verbosity},
    status::Ending,
};

/// How long a build may take before it is spoken of.
const PATIENCE: Duration = Duration::from_secs(2);

/// `vx run`: what the caches hold is started at once, and nothing is said; the server's exit code is vx's.
pub(crate) async fn run(settings: Settings, arguments: cli::Run) -> ExitCode {
    let (mut prepared, arguments) = match prepare(settings, arguments) {
        Ok(prepared) => prepared,
        Err(code) => return code,
    };
    let started = Instant::now();
    prepared.warn();
    let Prepared { request, report, cancel, received, .. } = &prepared;
    let summary = match velox_build::build(request, Arc::clone(report) as _, cancel.clone()).await {
        Ok(summary) => summary,
        Err(error) => return prepared.failed(&error),
    };
    if let Err(error) = report.finished(&request.goal, &summary, started.elapsed()) {
        return report::complain(&format!("can't write to the standard error: {error}"));
    }
    if let Some(signal) = received.signal() {
        return Ending::Interrupted(signal).into();
    }
    received.leave_to_others();
    match summary.binaries.first() {
        Some(binary) => start(&binary.path, &arguments),
        None => report::complain("nothing was built that could be run"),
    }
}

/// The build of it, and the server's arguments.
fn prepare(settings: Settings, arguments: cli::Run) -> Result<(Prepared, Vec<OsString>), ExitCode> {
    let cli::Run { mut source, changes, debug, race, arguments } = arguments;
    let working_directory = working_directory()?;
    let asked = Asked::read(&settings, source.config.take().as_deref(), &changes, &working_directory)
        .map_err(|wrong| wrong.tell(report::open_beside, &settings))?;
    let log = asked.manifest.log;
    // Programs, and people who ask for more, get all of it.
    let quiet = settings.format(log) == Format::Human && settings.verbosity(log) <= Verbosity::Normal;
    let patience = if quiet { PATIENCE } else { Duration::ZERO };
    let report = Patient::new(report::open_beside(&settings, log, asked.source.clone()), patience);
    // For a server that the store can't keep, since a C compiler took part.
    let uncached = cache_directory(&settings.environment).join(UNCACHED).join(binary_name());
    let options = BuildOptions {
        compile: CompileOptions { debug, race, targets: vec![GoTarget::host()], ..CompileOptions::default() },
        cache: CacheOptions { program: std::env::current_exe().ok(), ..CacheOptions::default() },
        ..BuildOptions::default()
    };
    let options = source.options(options, &working_directory);
    let goal = Goal::Build(Output::Store(uncached));
    Ok((Prepared::told_by(report, settings, asked, options, goal)?, arguments))
}

/// Below the cache directory; its format has a version as those of its neighbours.
const UNCACHED: &str = "run-v0";

fn binary_name() -> String {
    format!("rr{}", std::env::consts::EXE_SUFFIX)
}

/// The server takes the place of this process: its signals, its streams and its exit code need nobody between.
#[cfg(unix)]
fn start(server: &Path, arguments: &[OsString]) -> ExitCode {
    use std::os::unix::process::CommandExt as _;
    let error = Command::new(server).args(arguments).exec();
    report::complain(&format!("can't run {}: {error}", server.display()))
}

/// Ctrl-C reaches every process of a console: the server ends by itself, and this process waits for it, since its own
/// handler only says that one came.
#[cfg(not(unix))]
fn start(server: &Path, arguments: &[OsString]) -> ExitCode {
    match Command::new(server).args(arguments).status() {
        Ok(status) => {
            // Not an ExitCode, which holds a byte, as elsewhere codes do.
            std::process::exit(status.code().unwrap_or(Ending::Build.number().into()))
        }
        Err(error) => report::complain(&format!("can't run {}: {error}", server.display())),
    }
}
