//! Common parts of commands with a configuration: loading, the build request, the reporter and signals.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use tokio_util::sync::CancellationToken;
use velox_build::{
    BuildOptions, BuildRequest, BuildSummary, Error, Event, Goal, NetworkAccess, Note, QuerySession, Reporter,
};
use velox_manifest::{Diagnostic, DiagnosticKind, Level, Manifest, ManifestOverrides, SourceFile, catalogue};
use velox_query::ModuleGraph;

use crate::{
    cli::{OutputFormat, ProjectArgs, SourceArgs, build::OverrideArgs},
    config_file::{ConfigFile, default_file},
    report::{self, Report},
    settings::Settings,
    signals::{self, Signal, SignalWatch},
    status::{CommandResult, ExitStatus},
};

/// A build request with its reporter, canceled by signals.
pub(crate) struct Session {
    pub(crate) request: BuildRequest,
    pub(crate) report: Arc<dyn Report>,
    pub(crate) cancel: CancellationToken,
    pub(crate) format: OutputFormat,
    /// Configuration warnings that are not reported yet.
    pub(crate) warnings: Vec<Diagnostic>,
    pub(crate) signals: SignalWatch,
    started: Instant,
}

impl Session {
    /// Opens a session for a query on the configuration.
    pub(crate) fn open(settings: Settings, project: ProjectArgs) -> CommandResult<Self> {
        let mut session = Self::silent(settings, project)?;
        session.report_warnings();
        Ok(session)
    }

    /// Like [`Session::open`], without reporting the warnings.
    pub(crate) fn silent(settings: Settings, project: ProjectArgs) -> CommandResult<Self> {
        Self::with_overrides(settings, project, &OverrideArgs::default(), BuildOptions::default(), Goal::Plan)
    }

    /// Opens a session for a build of the configuration with `overrides`.
    pub(crate) fn with_overrides(
        settings: Settings,
        project: ProjectArgs,
        overrides: &OverrideArgs,
        mut options: BuildOptions,
        goal: Goal,
    ) -> CommandResult<Self> {
        let directory = working_directory()?;
        let ProjectArgs { mut source, targets } = project;
        let loaded = LoadedManifest::load(&settings, source.config.take(), overrides, &directory)
            .map_err(|error| report::invalid(&settings, error.source, &error.diagnostics))?;
        let report = report::open(&settings, loaded.manifest.log, loaded.source.clone());
        let targets = targets.into_iter().flat_map(|target| target.0).collect();
        options.compile.targets = targets;
        let options = source.options(options, &directory);
        Self::new(report, settings, loaded, options, goal)
    }

    pub(crate) fn new(
        report: Arc<dyn Report>,
        settings: Settings,
        mut loaded: LoadedManifest,
        options: BuildOptions,
        goal: Goal,
    ) -> CommandResult<Self> {
        if options.versions.strict || loaded.manifest.strict {
            let unknown = unknown_keys(&loaded.warnings);
            if !unknown.is_empty() {
                report.failed(ExitStatus::Configuration, &unknown, &[]);
                return Err(ExitStatus::Configuration);
            }
        }
        let cancel = CancellationToken::new();
        let interrupted = Arc::clone(&report);
        let signals = watch_signals(&cancel, move |signal| interrupted.interrupted(signal))?;
        Ok(Self {
            format: settings.format(),
            warnings: std::mem::take(&mut loaded.warnings),
            request: loaded.into_request(settings, options, goal),
            report,
            cancel,
            signals,
            started: Instant::now(),
        })
    }

    pub(crate) fn reporter(&self) -> Arc<dyn Reporter> {
        Arc::clone(&self.report) as _
    }

    pub(crate) fn report_warnings(&mut self) {
        for warning in std::mem::take(&mut self.warnings) {
            self.report.report(Event::Warning(warning));
        }
    }

    pub(crate) fn note(&self, text: String) {
        self.report.report(Event::Note(Note::Text { text }));
    }

    pub(crate) fn print(&self, text: &str) -> CommandResult {
        self.report.clear();
        report::print(text)
    }

    pub(crate) fn query(&self) -> Result<QuerySession<'_>, Error> {
        QuerySession::new(&self.request, self.reporter(), self.cancel.clone())
    }

    pub(crate) async fn module_graph(&self) -> CommandResult<ModuleGraph> {
        let graph = ModuleGraph::load(&self.request, self.reporter(), self.cancel.clone());
        graph.await.map_err(|error| self.failed(&error))
    }

    /// Runs the build, and reports the result.
    pub(crate) async fn run(&mut self) -> CommandResult<BuildSummary> {
        let summary = self.built().await?;
        self.finished(&summary)?;
        Ok(summary)
    }

    /// Runs the build. A successful one isn't reported yet.
    pub(crate) async fn built(&mut self) -> CommandResult<BuildSummary> {
        self.report_warnings();
        let built = velox_query::build(&self.request, self.reporter(), self.cancel.clone()).await;
        built.map_err(|error| self.failed(&error))
    }

    pub(crate) async fn build(&self) -> Result<BuildSummary, Error> {
        velox_build::build(&self.request, self.reporter(), self.cancel.clone()).await
    }

    pub(crate) fn finished(&self, summary: &BuildSummary) -> CommandResult {
        let finished = self.report.finished(&self.request.goal, summary, self.started.elapsed());
        finished.map_err(report::output_error)
    }

    pub(crate) async fn module_paths(&self) -> CommandResult<BTreeMap<String, String>> {
        let paths = velox_query::module_paths(&self.request, self.reporter(), self.cancel.clone());
        paths.await.map_err(|error| self.failed(&error))
    }

    /// Waits for work that a signal interrupts. Errors are reported.
    pub(crate) async fn interruptible<T>(
        &self,
        work: impl Future<Output = Result<T, Error>>,
    ) -> CommandResult<T> {
        let result = tokio::select! {
            biased;
            () = self.cancel.cancelled() => Err(Error::interrupted()),
            result = work => result,
        };
        result.map_err(|error| self.failed(&error))
    }

    pub(crate) fn failed(&self, error: &Error) -> ExitStatus {
        let status = self.signals.received().map_or(error.kind.into(), ExitStatus::Interrupted);
        self.report.failed(status, &error.diagnostics, &error.output);
        status
    }

    pub(crate) fn invalid(&self, diagnostic: Diagnostic) -> ExitStatus {
        self.report.failed(ExitStatus::Configuration, &[diagnostic], &[]);
        ExitStatus::Configuration
    }
}

/// The warnings about unknown keys, as errors.
fn unknown_keys(warnings: &[Diagnostic]) -> Vec<Diagnostic> {
    let unknown = warnings.iter().filter(|warning| warning.kind == DiagnosticKind::UnknownKey);
    let error = |warning: &Diagnostic| Diagnostic { level: Level::Error, ..warning.clone() };
    unknown
        .map(|warning| error(warning).label("unknown key").help("`strict` doesn't allow unknown keys"))
        .collect()
}

impl SourceArgs {
    pub(crate) fn options(self, mut options: BuildOptions, working_directory: &Path) -> BuildOptions {
        options.versions.dependencies = self.dependencies.map(Into::into);
        if self.offline {
            options.network = NetworkAccess::Offline;
        }
        options.go = self.go.map(|go| working_directory.join(go));
        options
    }
}

impl OverrideArgs {
    /// Replaces the names of known plugins in `--with` by module paths with versions: those of velox.toml, else those
    /// that `vx add` selects. Names stay if the configuration is read from stdin.
    pub(crate) async fn resolve_names(
        &mut self,
        settings: &Settings,
        source: &SourceArgs,
        report: impl Fn(Option<SourceFile>) -> Arc<dyn Report>,
    ) -> CommandResult {
        fn name_of(text: &str) -> Option<&str> {
            let name = text.split(['@', '=']).next()?;
            (!name.contains(['/', '.']) && catalogue::find(name).is_some()).then_some(name)
        }
        let is_stdin = source.config.as_deref() == Some(Path::new("-"));
        if is_stdin || !self.with.iter().any(|text| name_of(text).is_some()) {
            return Ok(());
        }
        let directory = working_directory()?;
        let roadrunner = Self { roadrunner: self.roadrunner.clone(), ..Self::default() };
        let has_file = source.config.is_some() || directory.join(default_file(&directory)).exists();
        let loaded = match has_file {
            true => LoadedManifest::load(settings, source.config.clone(), &roadrunner, &directory),
            false => LoadedManifest::without_plugins(&roadrunner, &directory).map_err(LoadError::from),
        };
        let loaded = loaded.map_err(|error| {
            report(error.source).failed(ExitStatus::Configuration, &error.diagnostics, &[]);
            ExitStatus::Configuration
        })?;
        let report = report(loaded.source.clone());
        let options = source.clone().options(BuildOptions::default(), &directory);
        let request = loaded.into_request(settings.clone(), options, Goal::Plan);
        let failed = |error: &Error| {
            let status = error.kind.into();
            report.failed(status, &error.diagnostics, &error.output);
            status
        };
        let manifest = &request.manifest;
        for text in &mut self.with {
            let Some(name) = name_of(text) else { continue };
            let rest = text.get(name.len()..).unwrap_or_default();
            let (version, replacement) = rest.split_at(rest.find('=').unwrap_or(rest.len()));
            if let Some(plugin) = manifest.plugin_named(name).filter(|_| version.is_empty()) {
                let path = plugin.module_path(manifest).unwrap_or_else(|| plugin.identity(manifest));
                *text = format!("{path}{replacement}");
                continue;
            }
            let reporter: Arc<dyn Reporter> = Arc::clone(&report) as _;
            let query = QuerySession::new(&request, reporter, CancellationToken::new())
                .map_err(|error| failed(&error))?;
            let selector = [format!("{name}{version}")];
            let selected =
                velox_query::select_plugins(&query, &selector, manifest.github.host(), false).await;
            let selected = selected.map_err(|error| failed(&error))?;
            if let Some(plugin) = selected.first() {
                *text = format!("{}@{}{replacement}", plugin.module, plugin.reference);
            }
        }
        Ok(())
    }
}

/// The configuration of a command, with overrides applied.
pub(crate) struct LoadedManifest {
    pub(crate) manifest: Manifest,
    pub(crate) warnings: Vec<Diagnostic>,
    /// `None` without a configuration file.
    pub(crate) source: Option<SourceFile>,
    pub(crate) base: PathBuf,
    lock: Option<PathBuf>,
    unchanged: bool,
}

impl LoadedManifest {
    /// Loads the configuration file (the default one if it exists or is required), and applies `overrides`.
    pub(crate) fn load(
        settings: &Settings,
        config: Option<PathBuf>,
        overrides: &OverrideArgs,
        working_directory: &Path,
    ) -> Result<Self, LoadError> {
        // Collecting components drops the `.` of `./mine`.
        let module_in = |directory: &Path| {
            velox_build::module_in(&working_directory.join(directory).components().collect::<PathBuf>())
        };
        let OverrideArgs { with, without, roadrunner } = overrides;
        let overrides = ManifestOverrides::read(roadrunner.as_deref(), with, without, module_in)?;
        let unchanged = overrides.is_empty();
        let default = default_file(working_directory);
        if config.is_none() && !overrides.with.is_empty() && !working_directory.join(&default).exists() {
            let manifest = Manifest::without_a_file().changed_by(&overrides)?;
            return Ok(Self { manifest, unchanged, ..Self::empty(working_directory) });
        }
        let config = config.unwrap_or(default);
        let file = ConfigFile::read(&config, working_directory).map_err(|error| vec![error])?;
        let overrides = match file.base == working_directory {
            true => overrides,
            false => overrides.below(working_directory),
        };
        let parsed = parse(&file.source, settings, &file.base, working_directory);
        let parsed = parsed.and_then(|(manifest, warnings)| {
            Ok((if unchanged { manifest } else { manifest.changed_by(&overrides)? }, warnings))
        });
        match parsed {
            Ok((manifest, warnings)) => Ok(Self { warnings, unchanged, ..Self::new(file, manifest) }),
            Err(diagnostics) => Err(LoadError { source: Some(file.source), diagnostics }),
        }
    }

    pub(crate) fn new(ConfigFile { source, base, path }: ConfigFile, manifest: Manifest) -> Self {
        // `velox.toml` → `velox.lock`; a configuration of another name has its own lock.
        let lock = path.map(|path| path.with_extension("lock"));
        Self { manifest, warnings: Vec::new(), source: Some(source), base, lock, unchanged: true }
    }

    /// An empty manifest, for a command that doesn't require a configuration.
    pub(crate) fn empty(working_directory: &Path) -> Self {
        Self {
            manifest: Manifest::without_a_file(),
            warnings: Vec::new(),
            source: None,
            base: working_directory.to_owned(),
            lock: None,
            unchanged: true,
        }
    }

    /// A manifest with the RoadRunner version of `overrides` alone.
    fn without_plugins(overrides: &OverrideArgs, working_directory: &Path) -> Result<Self, Vec<Diagnostic>> {
        let read = ManifestOverrides::read(overrides.roadrunner.as_deref(), &[], &[], |_| Ok(String::new()))?;
        let mut loaded = Self::empty(working_directory);
        if let Some(value) = read.roadrunner {
            loaded.manifest.roadrunner.reference = Some(value.into());
        }
        Ok(loaded)
    }

    pub(crate) fn into_request(self, settings: Settings, options: BuildOptions, goal: Goal) -> BuildRequest {
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

/// Parses a configuration, with the paths of its replacements relative to `base`, its directory.
pub(crate) fn parse(
    source: &SourceFile,
    settings: &Settings,
    base: &Path,
    working_directory: &Path,
) -> Result<(Manifest, Vec<Diagnostic>), Vec<Diagnostic>> {
    let lookup = |name: &str| settings.environment.get(name).cloned();
    let (mut manifest, mut warnings) = Manifest::parse(source, &lookup)?;
    warnings.extend(velox_build::rebase_replaces(&mut manifest, base, working_directory)?);
    Ok((manifest, warnings))
}

pub(crate) struct LoadError {
    pub(crate) source: Option<SourceFile>,
    pub(crate) diagnostics: Vec<Diagnostic>,
}

impl From<Vec<Diagnostic>> for LoadError {
    fn from(diagnostics: Vec<Diagnostic>) -> Self {
        Self { source: None, diagnostics }
    }
}

pub(crate) fn working_directory() -> CommandResult<PathBuf> {
    std::env::current_dir()
        .map_err(|error| report::complain(&format!("failed to get the current directory: {error}")))
}

/// Cancels `cancel` and calls `on_signal` on the first signal.
pub(crate) fn watch_signals(
    cancel: &CancellationToken,
    on_signal: impl FnOnce(Signal) + Send + 'static,
) -> CommandResult<SignalWatch> {
    signals::watch(cancel.clone(), on_signal)
        .map_err(|error| report::complain(&format!("failed to handle signals: {error}")))
}
