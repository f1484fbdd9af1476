use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Instant,
};

use tokio_util::sync::CancellationToken;
use velox_build::{Event, Goal, Options, Output, Request};
use velox_manifest::{Diagnostic, Flags, GoTarget, Log, Manifest, Source};

use crate::{
    cli,
    configuration::{self, Configuration, USUAL_NAME},
    exit::Ending,
    report::{self, Failure, Report},
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
        targets: targets(arguments.platforms),
        ..Options::default()
    };
    run(settings, arguments.server, &arguments.changes, goal, options).await
}

/// `vx lock`.
pub(crate) async fn lock(settings: Settings, arguments: cli::Lock) -> ExitCode {
    let goal = if arguments.check { Goal::CheckLock } else { Goal::Lock };
    let options = Options {
        upgrade: arguments.upgrade.as_ref().is_some_and(Vec::is_empty),
        upgrade_only: arguments.upgrade.unwrap_or_default(),
        targets: targets(arguments.platforms),
        ..Options::default()
    };
    run(settings, arguments.server, &cli::Changes::default(), |_| goal, options).await
}

/// `vx fetch`.
pub(crate) async fn fetch(settings: Settings, arguments: cli::Fetch) -> ExitCode {
    let targets = targets(arguments.platforms);
    let options = Options { locked: arguments.locked, targets, ..Options::default() };
    run(settings, arguments.server, &cli::Changes::default(), |_| Goal::Fetch, options).await
}

/// What is to be built: the configuration, as the flags change it.
pub(crate) struct Asked {
    pub(crate) manifest: Manifest,
    pub(crate) warnings: Vec<Diagnostic>,
    /// The configuration's text; `None`: there is none, and the flags say it all.
    pub(crate) source: Option<Source>,
    base: PathBuf,
    lock: Option<PathBuf>,
    unchanged: bool,
}

impl Asked {
    /// Reads the configuration, where there is one, and the flags.
    pub(crate) fn read(
        settings: &Settings,
        config: Option<&Path>,
        changes: &cli::Changes,
        working_directory: &Path,
    ) -> Result<Self, Misconfigured> {
        // By its components, so that messages don't have the `.` of `./mine` in the middle of a path.
        let module_in = |directory: &Path| {
            velox_build::module_in(&working_directory.join(directory).components().collect::<PathBuf>())
        };
        let flags = Flags::read(changes.roadrunner.as_deref(), &changes.with, &changes.without, module_in)
            .map_err(|diagnostics| Misconfigured { source: None, diagnostics })?;
        let unchanged = flags.is_empty();
        let usual = Path::new(USUAL_NAME);
        if config.is_none() && !flags.with.is_empty() && !working_directory.join(usual).exists() {
            let manifest = Manifest::without_a_file()
                .changed_by(&flags)
                .map_err(|diagnostics| Misconfigured { source: None, diagnostics })?;
            return Ok(Self { manifest, unchanged, ..Self::nothing(working_directory) });
        }
        let Configuration { source, base, file } =
            configuration::read(config.unwrap_or(usual), working_directory)
                .map_err(|wrong| Misconfigured { source: None, diagnostics: vec![wrong] })?;
        let lookup = |name: &str| settings.environment.get(name).cloned();
        let flags = if base == working_directory { flags } else { flags.below(working_directory) };
        let read = Manifest::parse(&source, &lookup).and_then(|(manifest, warnings)| {
            let manifest = if unchanged { manifest } else { manifest.changed_by(&flags)? };
            Ok((manifest, warnings))
        });
        let (manifest, warnings) =
            read.map_err(|diagnostics| Misconfigured { source: Some(source.clone()), diagnostics })?;
        Ok(Self { manifest, warnings, source: Some(source), base, lock: file.map(lock_beside), unchanged })
    }

    /// Nothing but RoadRunner: for a command that can do without a configuration.
    pub(crate) fn nothing(working_directory: &Path) -> Self {
        Self {
            manifest: Manifest::without_a_file(),
            warnings: Vec::new(),
            source: None,
            base: working_directory.to_owned(),
            lock: None,
            unchanged: true,
        }
    }

    /// The request for it.
    pub(crate) fn request(
        self,
        settings: Settings,
        server: cli::Server,
        goal: Goal,
        options: Options,
        working_directory: &Path,
    ) -> Request {
        Request {
            manifest: self.manifest,
            source: self.source,
            base: self.base,
            environment: settings.environment,
            options: Options {
                dependencies: server.dependencies.map(Into::into),
                offline: server.offline,
                go: server.go.map(|go| working_directory.join(go)),
                ..options
            },
            goal,
            lock: self.lock,
            unchanged: self.unchanged,
        }
    }
}

/// Reads the configuration and takes it to the goal, which is told the working directory.
async fn run(
    settings: Settings,
    mut server: cli::Server,
    changes: &cli::Changes,
    goal: impl FnOnce(&Path) -> Goal,
    options: Options,
) -> ExitCode {
    let started = Instant::now();
    let working_directory = match working_directory() {
        Ok(directory) => directory,
        Err(code) => return code,
    };
    let config = server.config.take();
    let asked = match Asked::read(&settings, config.as_deref(), changes, &working_directory) {
        Ok(asked) => asked,
        Err(wrong) => return wrong.tell(report::open, &settings),
    };
    let report = report::open(&settings, asked.manifest.log, asked.source.clone());
    for warning in &asked.warnings {
        report.report(Event::Warning(warning.clone()));
    }
    let cancel = CancellationToken::new();
    let watcher = Arc::clone(&report);
    let received = match signals::watch(cancel.clone(), move |signal| watcher.interrupted(signal)) {
        Ok(received) => received,
        Err(error) => return report::complain(&format!("can't listen for signals: {error}")),
    };

    let request = asked.request(settings, server, goal(&working_directory), options, &working_directory);
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

/// The process's own, told where there is none.
pub(crate) fn working_directory() -> Result<PathBuf, ExitCode> {
    std::env::current_dir()
        .map_err(|error| report::complain(&format!("can't tell the working directory: {error}")))
}

/// Of the command line.
fn targets(platforms: cli::Platforms) -> Vec<GoTarget> {
    platforms.targets.into_iter().flat_map(|cli::Targets(targets)| targets).collect()
}

/// `velox.toml` → `velox.lock`; a configuration of another name has a lock of its own.
fn lock_beside(configuration: PathBuf) -> PathBuf {
    configuration.with_extension("lock")
}

/// What ends a command before `[log]` could say how to tell it: it is told by the flags alone.
pub(crate) struct Misconfigured {
    source: Option<Source>,
    pub(crate) diagnostics: Vec<Diagnostic>,
}

impl Misconfigured {
    pub(crate) fn tell(
        self,
        open: impl FnOnce(&Settings, Log, Option<Source>) -> Arc<dyn Report>,
        settings: &Settings,
    ) -> ExitCode {
        let Self { source, diagnostics } = self;
        let ending = Ending::Configuration;
        let failure = Failure { ending, diagnostics: &diagnostics, output: &[] };
        open(settings, Log::default(), source).failed(&failure);
        ending.into()
    }
}
