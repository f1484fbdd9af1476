//! What every command has in common that is about a configuration's server.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use tokio_util::sync::CancellationToken;
use velox_build::{Error, Goal, Options, Request};
use velox_manifest::{Diagnostic, Log, Manifest, Source};

use crate::{
    cli::{self, Format},
    configuration::{self, Configuration},
    exit::Ending,
    report::{self, Failure, Report},
    settings::Settings,
    signals::{self, Received},
};

/// A request with a reporter, and with an ear for signals.
pub(super) struct Prepared {
    pub(super) request: Request,
    pub(super) report: Arc<dyn Report>,
    pub(super) cancel: CancellationToken,
    pub(super) format: Format,
    /// What reading the configuration warned of, told by nobody yet.
    pub(super) warnings: Vec<Diagnostic>,
    received: Received,
}

impl Prepared {
    /// Reads the configuration; the goal is told the working directory.
    pub(super) fn new(
        settings: Settings,
        server: cli::Server,
        goal: impl FnOnce(&Path) -> Goal,
        options: Options,
    ) -> Result<Self, ExitCode> {
        let working_directory = working_directory()?;
        let configuration = read(&settings, &server.config, &working_directory)?;
        let lookup = |name: &str| settings.environment.get(name).cloned();
        let (manifest, warnings) =
            Manifest::parse(&configuration.source, &lookup).map_err(|diagnostics| {
                misconfigured(&settings, Some(configuration.source.clone()), &diagnostics)
            })?;
        let options = Options {
            targets: server.targets.into_iter().flat_map(|cli::Targets(targets)| targets).collect(),
            dependencies: server.dependencies.map(Into::into),
            offline: server.offline,
            go: server.go.map(|go| working_directory.join(go)),
            ..options
        };
        let mut prepared = Self::of(settings, configuration, manifest, options, goal(&working_directory))?;
        prepared.warnings = warnings;
        Ok(prepared)
    }

    /// With a manifest that was read from the configuration, or stands for it.
    pub(super) fn of(
        settings: Settings,
        Configuration { source, base, file }: Configuration,
        manifest: Manifest,
        options: Options,
        goal: Goal,
    ) -> Result<Self, ExitCode> {
        let report = report::open(&settings, manifest.log, Some(source.clone()));
        let cancel = CancellationToken::new();
        let watcher = Arc::clone(&report);
        let received = signals::watch(cancel.clone(), move |signal| watcher.interrupted(signal))
            .map_err(|error| report::complain(&format!("can't listen for signals: {error}")))?;
        Ok(Self {
            format: settings.format(manifest.log),
            request: Request {
                manifest,
                source: Some(source),
                base,
                environment: settings.environment,
                options,
                goal,
                lock: file.map(lock_beside),
            },
            report,
            cancel,
            warnings: Vec::new(),
            received,
        })
    }

    /// Ends with what the command was asked for.
    pub(super) fn answer(&self, text: &str) -> ExitCode {
        self.report.answered();
        report::answer(text)
    }

    /// Ends with an error of the build.
    pub(super) fn failed(&self, error: &Error) -> ExitCode {
        self.failed_on(&*self.report, error)
    }

    /// As [`Prepared::failed`], where the error points into another text.
    pub(super) fn failed_on(&self, report: &dyn Report, error: &Error) -> ExitCode {
        let ending = Ending::of(error.kind, self.received.signal());
        report.failed(&Failure { ending, diagnostics: &error.diagnostics, output: &error.output });
        ending.into()
    }
}

pub(super) fn working_directory() -> Result<PathBuf, ExitCode> {
    std::env::current_dir()
        .map_err(|error| report::complain(&format!("can't tell the working directory: {error}")))
}

pub(super) fn read(
    settings: &Settings,
    config: &Path,
    working_directory: &Path,
) -> Result<Configuration, ExitCode> {
    configuration::read(config, working_directory)
        .map_err(|diagnostic| misconfigured(settings, None, &[diagnostic]))
}

/// `velox.toml` → `velox.lock`; a configuration of another name has a lock of its own.
fn lock_beside(configuration: PathBuf) -> PathBuf {
    configuration.with_extension("lock")
}

/// Ends before `[log]` could say how to tell it: by the flags alone.
pub(super) fn misconfigured(
    settings: &Settings,
    source: Option<Source>,
    diagnostics: &[Diagnostic],
) -> ExitCode {
    let ending = Ending::Configuration;
    report::open(settings, Log::default(), source).failed(&Failure { ending, diagnostics, output: &[] });
    ending.into()
}
