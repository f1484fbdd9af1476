//! What every command has in common that is about a configuration's server.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use tokio_util::sync::CancellationToken;
use velox_build::{BuildOptions, BuildRequest, Error, Event, Goal, NetworkAccess};
use velox_manifest::{Diagnostic, LogConfig, Manifest, ManifestOverrides, SourceFile};
use velox_query::ModuleGraph;

use crate::{
    cli::{self, Format},
    configuration::{self, Configuration, USUAL_NAME},
    report::{self, Failure, Report},
    settings::Settings,
    signals::{self, Received},
    status::Ending,
};

/// A request with a reporter, and with an ear for signals.
pub(crate) struct Prepared {
    pub(crate) request: BuildRequest,
    pub(crate) report: Arc<dyn Report>,
    pub(crate) cancel: CancellationToken,
    pub(crate) format: Format,
    /// What reading the configuration warned of, told by nobody yet.
    pub(crate) warnings: Vec<Diagnostic>,
    pub(crate) received: Received,
}

impl Prepared {
    /// Reads the configuration; the goal is told the working directory.
    pub(crate) fn new(
        settings: Settings,
        server: cli::Server,
        goal: impl FnOnce(&Path) -> Goal,
        options: BuildOptions,
    ) -> Result<Self, ExitCode> {
        Self::changed(settings, server, &cli::Changes::default(), goal, options)
    }

    /// As [`Prepared::new`], with what flags change.
    pub(crate) fn changed(
        settings: Settings,
        server: cli::Server,
        changes: &cli::Changes,
        goal: impl FnOnce(&Path) -> Goal,
        mut options: BuildOptions,
    ) -> Result<Self, ExitCode> {
        let cli::Server { mut source, targets } = server;
        let working_directory = working_directory()?;
        let asked = Asked::read(&settings, source.config.take().as_deref(), changes, &working_directory)
            .map_err(|wrong| wrong.tell(report::open, &settings))?;
        let report = report::open(&settings, asked.manifest.log, asked.source.clone());
        let targets = targets.into_iter().flat_map(|cli::Targets(targets)| targets).collect();
        options.compile.targets = targets;
        let options = source.options(options, &working_directory);
        Self::told_by(report, settings, asked, options, goal(&working_directory))
    }

    /// With a manifest that was read from the configuration, or stands for it.
    pub(crate) fn of(
        settings: Settings,
        Configuration { source, base, file }: Configuration,
        manifest: Manifest,
        options: BuildOptions,
        goal: Goal,
    ) -> Result<Self, ExitCode> {
        let report = report::open(&settings, manifest.log, Some(source.clone()));
        let (source, lock) = (Some(source), file.map(lock_beside));
        let asked = Asked { manifest, warnings: Vec::new(), source, base, lock, unchanged: true };
        Self::told_by(report, settings, asked, options, goal)
    }

    /// With a reporter that is there already.
    pub(crate) fn told_by(
        report: Arc<dyn Report>,
        settings: Settings,
        mut asked: Asked,
        options: BuildOptions,
        goal: Goal,
    ) -> Result<Self, ExitCode> {
        let cancel = CancellationToken::new();
        let watcher = Arc::clone(&report);
        let received = signals::watch(cancel.clone(), move |signal| watcher.interrupted(signal))
            .map_err(|error| report::complain(&format!("can't listen for signals: {error}")))?;
        Ok(Self {
            format: settings.format(asked.manifest.log),
            warnings: std::mem::take(&mut asked.warnings),
            request: asked.request(settings, options, goal),
            report,
            cancel,
            received,
        })
    }

    /// Tells what reading the configuration warned of.
    pub(crate) fn warn(&mut self) {
        for warning in std::mem::take(&mut self.warnings) {
            self.report.report(Event::Warning(warning));
        }
    }

    /// Ends with what the command was asked for.
    pub(crate) fn answer(&self, text: &str) -> ExitCode {
        self.report.answered();
        report::answer(text)
    }

    /// What the server is made from.
    pub(crate) async fn module_graph(&self) -> Result<ModuleGraph, ExitCode> {
        let graph = ModuleGraph::load(&self.request, Arc::clone(&self.report) as _, self.cancel.clone());
        graph.await.map_err(|error| self.failed(&error))
    }

    /// The plugins' module paths: from the lock where that fits; what neither it nor the file tells is resolved.
    pub(crate) async fn modules(&self) -> Result<BTreeMap<String, String>, ExitCode> {
        let manifest = &self.request.manifest;
        let locked =
            velox_build::locked_versions(&self.request).map_err(|error| self.failed(&error))?.plugins;
        let mut known: BTreeMap<String, String> =
            locked.into_iter().map(|(name, module)| (name, module.path)).collect();
        let is_open = manifest
            .plugins
            .iter()
            .any(|plugin| !known.contains_key(&plugin.name.value) && plugin.module_path(manifest).is_none());
        if is_open {
            let request = BuildRequest { goal: Goal::Plan, ..self.request.clone() };
            let build = velox_build::build(&request, Arc::clone(&self.report) as _, self.cancel.clone());
            let summary = build.await.map_err(|error| self.failed(&error))?;
            known.extend(
                summary
                    .plugins
                    .into_iter()
                    .filter(|plugin| !plugin.added)
                    .map(|plugin| (plugin.name, plugin.module)),
            );
        }
        Ok(known)
    }

    /// Ends with an error of the build.
    pub(crate) fn failed(&self, error: &Error) -> ExitCode {
        self.failed_on(&*self.report, error)
    }

    /// As [`Prepared::failed`], where the error points into another text.
    pub(crate) fn failed_on(&self, report: &dyn Report, error: &Error) -> ExitCode {
        let ending = Ending::of(error.kind, self.received.signal());
        report.failed(&Failure { ending, diagnostics: &error.diagnostics, output: &error.output });
        ending.into()
    }
}

impl cli::ServerSource {
    /// What these flags say too.
    pub(crate) fn options(self, mut options: BuildOptions, working_directory: &Path) -> BuildOptions {
        options.versions.dependencies = self.dependencies.map(Into::into);
        if self.offline {
            options.network = NetworkAccess::Offline;
        }
        options.go = self.go.map(|go| working_directory.join(go));
        options
    }
}

/// What is to be built: the configuration, as the flags change it.
pub(crate) struct Asked {
    pub(crate) manifest: Manifest,
    pub(crate) warnings: Vec<Diagnostic>,
    /// The configuration's text; `None`: there is none, and the flags say it all.
    pub(crate) source: Option<SourceFile>,
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
        let flags = ManifestOverrides::read(
            changes.roadrunner.as_deref(),
            &changes.with,
            &changes.without,
            module_in,
        )
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
    pub(crate) fn request(self, settings: Settings, options: BuildOptions, goal: Goal) -> BuildRequest {
        BuildRequest {
            manifest: self.manifest,
            source: self.source,
            base: self.base,
            environment: settings.environment,
            options,
            goal,
            lock: self.lock,
            updates_lock: self.unchanged,
        }
    }
}

/// What ends a command before `[log]` could say how to tell it: it is told by the flags alone.
pub(crate) struct Misconfigured {
    source: Option<SourceFile>,
    pub(crate) diagnostics: Vec<Diagnostic>,
}

impl Misconfigured {
    pub(crate) fn tell(
        self,
        open: impl FnOnce(&Settings, LogConfig, Option<SourceFile>) -> Arc<dyn Report>,
        settings: &Settings,
    ) -> ExitCode {
        let Self { source, diagnostics } = self;
        let ending = Ending::Configuration;
        let failure = Failure { ending, diagnostics: &diagnostics, output: &[] };
        open(settings, LogConfig::default(), source).failed(&failure);
        ending.into()
    }
}

pub(crate) fn working_directory() -> Result<PathBuf, ExitCode> {
    std::env::current_dir()
        .map_err(|error| report::complain(&format!("can't tell the working directory: {error}")))
}

pub(crate) fn read(
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
pub(crate) fn misconfigured(
    settings: &Settings,
    source: Option<SourceFile>,
    diagnostics: &[Diagnostic],
) -> ExitCode {
    let ending = Ending::Configuration;
    report::open(settings, LogConfig::default(), source).failed(&Failure {
        ending,
        diagnostics,
        output: &[],
    });
    ending.into()
}
