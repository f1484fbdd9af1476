//! `vx build --remote`: a build service does it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use secrecy::SecretString;
use velox_api::{
    BuildId, BuildSpec, BuildState, BuildView, FailureKind, LogEntry, Problem, Severity, SubmitRequest,
    Violation,
    client::{ClientError, ClientEvent, ServiceClient},
};
use velox_build::{
    BuildOptions, BuiltBinary, Event, Goal, LockUpdate, LockedRefs, Note, Phase, RemoteBuild,
    RemoteBuildSettings,
};
use velox_manifest::{Diagnostic, GoTarget, Level, Manifest, Origin, Replacement, Spanned};

use crate::{
    cli,
    commands::session::Prepared,
    report::{self, Failure, Report},
    settings::Settings,
    status::Ending,
};

/// How long a service may take to hear that nobody wants its builds.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// What a variable is called that a build must not see.
const TOKEN: &str = "VX_REMOTE_TOKEN";

/// The service that is to build.
pub(crate) struct Remote {
    address: String,
    token: Option<SecretString>,
}

impl Remote {
    /// The service that the flags or the environment name; `None`: this machine builds. The token leaves the environment.
    pub(crate) fn asked_for(
        settings: &mut Settings,
        arguments: &cli::Build,
    ) -> Result<Option<Self>, Diagnostic> {
        let token = settings.environment.remove(TOKEN).filter(|token| !token.trim().is_empty());
        let flag = arguments.remote.remote.clone();
        let by_flag = flag.is_some();
        let address = flag.or_else(|| settings.environment.get("VX_REMOTE").cloned()).unwrap_or_default();
        if matches!(address.as_str(), "" | "off") {
            return match &arguments.remote.remote_token_file {
                Some(_) if !by_flag => Err(wrong(
                    "--remote-token-file names a token, and no build service",
                    "name the service with `--remote URL` or VX_REMOTE",
                )),
                _ => Ok(None),
            };
        }
        let here = if by_flag { "leave out --remote" } else { "build here with `--remote off`" };
        if let Some((flag, why)) = local_only(arguments) {
            return Err(wrong(&format!("{flag} is for builds on this machine: {why}"), here));
        }
        let token = match &arguments.remote.remote_token_file {
            Some(file) => {
                let text = fs::read_to_string(file).map_err(|error| {
                    let message = format!("can't read the token in {}: {error}", file.display());
                    wrong(&message, "the file has to hold the token and nothing else")
                })?;
                Some(text.trim().to_owned())
            }
            None => token,
        };
        Ok(Some(Self { address, token: token.map(SecretString::from) }))
    }

    /// Has the configuration, as the flags change it, built there, one build for each target.
    pub(crate) async fn build(
        self,
        settings: Settings,
        server: cli::Server,
        changes: &cli::Changes,
        goal: impl FnOnce(&Path) -> Goal,
        options: BuildOptions,
    ) -> ExitCode {
        let started = Instant::now();
        let mut prepared = match Prepared::changed(settings, server, changes, goal, options) {
            Ok(prepared) => prepared,
            Err(code) => return code,
        };
        prepared.warn();
        let http = match velox_build::http_client(&prepared.request.environment) {
            Ok(http) => http,
            Err(error) => return prepared.failed(&error),
        };
        let client = match ServiceClient::new(http, &self.address, self.token.as_ref()) {
            Ok(client) => client,
            Err(error) => return end(&prepared, &Trouble::of(&prepared.request.manifest, &[], error)),
        };
        let diagnostics = not_there(&prepared.request.manifest);
        if !diagnostics.is_empty() {
            let ending = Ending::Configuration;
            return end(&prepared, &Trouble { ending, diagnostics, output: Vec::new() });
        }
        let elsewhere = match RemoteBuild::new(&prepared.request) {
            Ok(elsewhere) => elsewhere,
            Err(error) => return prepared.failed(&error),
        };
        let modules = match modules(&prepared).await {
            Ok(modules) => modules,
            Err(code) => return code,
        };
        let specs = match specs(&prepared.request.manifest, &elsewhere, &modules) {
            Ok(specs) => specs,
            Err(trouble) => return end(&prepared, &trouble),
        };
        let mut job =
            Job { client, prepared: &prepared, elsewhere: &elsewhere, modules, ids: Vec::new(), specs };
        let cancel = prepared.cancel.clone();
        let done = tokio::select! {
            biased;
            () = cancel.cancelled() => None,
            done = job.run(started) => Some(done),
        };
        match done {
            Some(Ok(code)) => code,
            Some(Err(trouble)) => {
                // Those for other targets would only use the service's time.
                job.unwanted().await;
                end(&prepared, &trouble)
            }
            None => {
                job.unwanted().await;
                let ending = Ending::of(velox_build::ErrorKind::Interrupted, prepared.received.signal());
                prepared.report.failed(&Failure { ending, diagnostics: &[], output: &[] });
                ending.into()
            }
        }
    }
}

/// What only this machine can do, and why.
fn local_only(arguments: &cli::Build) -> Option<(&'static str, &'static str)> {
    let source = &arguments.server.source;
    [
        (source.go.is_some(), "--go", "a build service has its own Go"),
        (source.offline, "--offline", "a build service is asked over the network"),
        (arguments.keep_workspace, "--keep-workspace", "the source tree of a build service stays there"),
        (arguments.archive, "--archive", "a build service makes binaries and no archives"),
        (arguments.remote_cache.is_some(), "--remote-cache", "a build service has its own caches"),
        (arguments.dry_run, "--dry-run", "a build service compiles what it is asked for"),
    ]
    .into_iter()
    .find_map(|(is_set, flag, why)| is_set.then_some((flag, why)))
}

/// Why it ended without a server.
struct Trouble {
    ending: Ending,
    diagnostics: Vec<Diagnostic>,
    output: Vec<String>,
}

impl Trouble {
    fn new(ending: Ending, message: &str, help: &str) -> Self {
        Self { ending, diagnostics: vec![wrong(message, help)], output: Vec::new() }
    }

    /// What a service says, at the places in the configuration that it is about.
    fn of(manifest: &Manifest, specs: &[BuildSpec], error: ClientError) -> Self {
        let message = error.to_string();
        match error {
            ClientError::Rejected(problem) => Self::said(manifest, specs, &problem, &message),
            ClientError::Address { .. } | ClientError::InsecureToken { .. } | ClientError::InvalidToken => {
                Self::new(Ending::Configuration, &message, "")
            }
            ClientError::Certificate { .. } => {
                let help = "SSL_CERT_FILE names a file with the certificate of the authority that signed it";
                Self::new(Ending::Build, &message, help)
            }
            ClientError::Network { .. } | ClientError::InvalidResponse { .. } => {
                let help = "look at the address (--remote, VX_REMOTE) and whether the service runs: its /healthz tells";
                Self::new(Ending::Build, &message, help)
            }
            ClientError::Checksum { .. } | ClientError::Io(_) => Self::new(Ending::Build, &message, ""),
        }
    }

    fn said(manifest: &Manifest, specs: &[BuildSpec], problem: &Problem, message: &str) -> Self {
        let (ending, help) = match problem.status {
            400 | 413 | 422 => (Ending::Configuration, ""),
            401 => (
                Ending::Configuration,
                "give the service's token in VX_REMOTE_TOKEN or by --remote-token-file",
            ),
            403 => (Ending::Configuration, "ask whoever runs the service"),
            _ => (Ending::Build, ""),
        };
        if problem.errors.is_empty() {
            return Self::new(ending, message, help);
        }
        let said = |violation: &Violation| {
            let mut diagnostic = wrong(&violation.message, help);
            diagnostic.span = place(manifest, specs, &violation.field);
            if diagnostic.span.is_some() {
                diagnostic.label = Some("the build service doesn't take it".to_owned());
            } else if !violation.field.is_empty() && violation.field != "configuration" {
                diagnostic.message = format!("{}: {}", violation.field, violation.message);
            }
            diagnostic
        };
        Self { ending, diagnostics: problem.errors.iter().map(said).collect(), output: Vec::new() }
    }
}

fn end(prepared: &Prepared, Trouble { ending, diagnostics, output }: &Trouble) -> ExitCode {
    prepared.report.failed(&Failure { ending: *ending, diagnostics, output });
    (*ending).into()
}

fn wrong(message: &str, help: &str) -> Diagnostic {
    let help = if help.is_empty() { Vec::new() } else { vec![help.to_owned()] };
    Diagnostic { level: Level::Error, message: message.to_owned(), span: None, label: None, help }
}

/// Where in the configuration a field of a request comes from. Lists of a request are in the order of its own.
fn place(manifest: &Manifest, specs: &[BuildSpec], field: &str) -> Option<std::ops::Range<usize>> {
    let field = field.strip_prefix("build.").unwrap_or(field);
    if field == "roadrunner" {
        return manifest.roadrunner.reference.as_ref()?.span.clone();
    }
    if field == "target" {
        return manifest.targets.first()?.span.clone();
    }
    let (list, rest) = field.split_once('[')?;
    let (at, part) = rest.split_once(']')?;
    let at: usize = at.parse().ok()?;
    let spec = specs.first()?;
    match list {
        "plugins" => {
            let module = &spec.plugins.get(at)?.module;
            let is_it = |origin: &Origin| matches!(origin, Origin::Module(path) if path.value == *module);
            let plugin = manifest.plugins.iter().find(|plugin| is_it(&plugin.origin))?;
            match (part, &plugin.origin) {
                (".ref", _) => plugin.reference.span.clone(),
                (_, Origin::Module(path)) => path.span.clone(),
                _ => plugin.name.span.clone(),
            }
        }
        "replaces" => {
            let old = &spec.replaces.get(at)?.old;
            let module = old.split('@').next()?;
            let replace = manifest.replaces.iter().find(|replace| replace.old.value.0 == module)?;
            if part == ".new" { replace.new.span.clone() } else { replace.old.span.clone() }
        }
        "excludes" => {
            let module = &spec.excludes.get(at)?.module;
            manifest.excludes.iter().find(|exclude| exclude.module.value == *module)?.module.span.clone()
        }
        _ => None,
    }
}

/// What the configuration names and a service doesn't have.
fn not_there(manifest: &Manifest) -> Vec<Diagnostic> {
    let plugins = manifest.plugins.iter().filter_map(|plugin| plugin.replace.as_ref());
    let replaces = manifest.replaces.iter().map(|replace| &replace.new);
    let directories = plugins.chain(replaces).filter_map(|replacement| match &replacement.value {
        Replacement::Directory(directory) => Some((replacement.span.clone(), directory)),
        Replacement::Module { .. } => None,
    });
    let directories = directories.map(|(span, directory)| Diagnostic {
        span,
        ..wrong(
            &format!("a build service has no directory {directory}"),
            "publish the module, or build on this machine",
        )
    });
    let forges = [(&manifest.github, "GitHub"), (&manifest.gitlab, "GitLab")];
    let forges = forges.into_iter().filter_map(|(forge, name)| {
        let endpoint = forge.endpoint.as_ref()?;
        let message = format!("a build service knows no {name} of your own");
        let help = "name the plugins by their module paths (`vx migrate`), or build on this machine";
        Some(Diagnostic { span: endpoint.span.clone(), ..wrong(&message, help) })
    });
    directories.chain(forges).collect()
}

/// The module paths of all plugins, by their names.
async fn modules(prepared: &Prepared) -> Result<BTreeMap<String, String>, ExitCode> {
    let manifest = &prepared.request.manifest;
    let mut known: BTreeMap<String, String> = manifest
        .plugins
        .iter()
        .filter_map(|plugin| Some((plugin.name.value.clone(), plugin.module_path(manifest)?)))
        .collect();
    if known.len() < manifest.plugins.len() {
        let resolved = prepared.modules().await?;
        known.extend(resolved);
    }
    Ok(known)
}

/// The manifest as a service takes it: each plugin by its module path.
fn by_module(
    manifest: &Manifest,
    modules: &BTreeMap<String, String>,
    exact: Option<&LockedRefs>,
) -> Manifest {
    let mut manifest = manifest.clone();
    if let (Some(exact), Some(reference)) = (exact, &mut manifest.roadrunner.reference) {
        reference.value.clone_from(&exact.roadrunner);
    }
    for plugin in &mut manifest.plugins {
        let name = &plugin.name;
        if !matches!(plugin.origin, Origin::Module(_))
            && let Some(module) = modules.get(&name.value)
        {
            plugin.origin = Origin::Module(Spanned { value: module.clone(), span: name.span.clone() });
        }
        // A replaced plugin's version is that of the module that it stands for.
        if plugin.replace.is_none()
            && let Some(version) = exact.and_then(|exact| exact.plugins.get(&name.value))
        {
            plugin.reference.value.clone_from(version);
        }
    }
    manifest
}

/// The requests, one for each target.
fn specs(
    manifest: &Manifest,
    elsewhere: &RemoteBuild<'_>,
    modules: &BTreeMap<String, String>,
) -> Result<Vec<BuildSpec>, Trouble> {
    let settled = elsewhere.settled();
    let exact = elsewhere.exact();
    let sent = by_module(manifest, modules, exact.as_ref());
    let of_target = |target: &GoTarget| {
        let specs = BuildSpec::from_manifest(&sent, Some(target))?;
        specs.into_iter().map(|spec| flagged(spec, &settled).normalized()).collect::<Result<Vec<_>, _>>()
    };
    let specs: Result<Vec<Vec<BuildSpec>>, Vec<Violation>> = settled.targets.iter().map(of_target).collect();
    match specs {
        Ok(specs) => Ok(specs.into_iter().flatten().collect()),
        Err(violations) => {
            let diagnostics = violations.iter().map(|violation| wrong(&violation.message, "")).collect();
            Err(Trouble { ending: Ending::Configuration, diagnostics, output: Vec::new() })
        }
    }
}

/// With what flags and the environment say.
fn flagged(spec: BuildSpec, settled: &RemoteBuildSettings) -> BuildSpec {
    BuildSpec {
        debug: settled.debug,
        race: settled.race,
        strict: settled.strict,
        dependencies: settled.dependencies,
        stamp_version: settled.stamp_version.clone(),
        stamp_time: settled.stamp_time.clone(),
        ..spec
    }
}

/// The builds at a service.
struct Job<'a> {
    client: ServiceClient,
    prepared: &'a Prepared,
    elsewhere: &'a RemoteBuild<'a>,
    modules: BTreeMap<String, String>,
    specs: Vec<BuildSpec>,
    /// Those that the service has.
    ids: Vec<BuildId>,
}

impl Job<'_> {
    async fn run(&mut self, started: Instant) -> Result<ExitCode, Trouble> {
        let report = Arc::clone(&self.prepared.report);
        let request = &self.prepared.request;
        let mut told = Telling::new(Arc::clone(&report), self.client.host());
        let mut views = Vec::new();
        for spec in self.specs.clone() {
            let submit = SubmitRequest {
                build: Some(spec),
                force: request.options.cache.recompile,
                ..SubmitRequest::default()
            };
            let view = self.client.submit(&submit, &mut |what| told.tell(what)).await;
            let view = view.map_err(|error| self.trouble(error))?;
            self.ids.push(view.id);
            views.push(view);
        }
        let mut binaries = Vec::new();
        let mut locks = Vec::new();
        let mut warnings = BTreeSet::new();
        for (view, target) in views.into_iter().zip(self.elsewhere.settled().targets) {
            let reused = view.state == BuildState::Succeeded;
            note(&*report, format!("{} for {target}: {}", word(&view), self.client.page(view.id)));
            let view = match view.state.is_final() {
                true => view,
                false => {
                    let followed = self.client.follow(view.id, &mut |what| told.tell(what)).await;
                    followed.map_err(|error| self.trouble(error))?
                }
            };
            told.phase(None, Timestamp::now());
            if view.state != BuildState::Succeeded {
                return Err(failed(&view));
            }
            locks.push(self.client.lock(view.id).await.map_err(|error| self.trouble(error))?);
            binaries.push(self.fetch(&view, &target, reused, &*report).await?);
            warnings.extend(view.warnings);
        }
        let of_build = |error: velox_build::Error| Trouble {
            ending: Ending::of(error.kind, None),
            diagnostics: error.diagnostics,
            output: error.output,
        };
        let adopted = self.elsewhere.adopt(&locks, &self.modules).map_err(of_build)?;
        // There is at least one target.
        let Some(lock) = adopted else { return Ok(ExitCode::SUCCESS) };
        self.elsewhere.tell(&lock, &*report);
        match self.elsewhere.keep(&lock).map_err(of_build)? {
            LockUpdate::Written | LockUpdate::Stays => {}
            LockUpdate::Differs => warn(
                &*report,
                "the build service chose other versions of some dependencies than velox.lock has",
                "`--locked` makes that an error",
            ),
            LockUpdate::Unwritable(why) => warn(&*report, &why, "the next build resolves the versions again"),
        }
        let mut summary = self.elsewhere.summary(&lock);
        if summary.raised.is_empty() {
            for warning in &warnings {
                warn(&*report, warning, "");
            }
        }
        summary.binaries = binaries;
        Ok(match report.finished(&request.goal, &summary, started.elapsed()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => report::complain(&format!("can't write to the standard output: {error}")),
        })
    }

    /// Downloads a binary, unless it is there already.
    async fn fetch(
        &self,
        view: &BuildView,
        target: &GoTarget,
        reused: bool,
        report: &dyn Report,
    ) -> Result<BuiltBinary, Trouble> {
        let artifact = view.artifact.as_ref().map(|artifact| &artifact.info);
        let Some(artifact) = artifact.filter(|artifact| artifact.target == target.to_string()) else {
            let message = format!("the build service has no binary for {target}, although it built one");
            return Err(Trouble::new(Ending::Build, &message, ""));
        };
        let binary = |path: PathBuf| BuiltBinary {
            target: target.to_string(),
            path,
            size: artifact.size,
            sha256: artifact.sha256.clone(),
            reused,
            archive: None,
        };
        if self.elsewhere.is_there(target, artifact.size, &artifact.sha256) {
            return Ok(binary(self.elsewhere.place(target)));
        }
        let of_build = |error: velox_build::Error| Trouble {
            ending: Ending::of(error.kind, None),
            diagnostics: error.diagnostics,
            output: error.output,
        };
        let started = Instant::now();
        report.report(Event::Started(Phase::Publish));
        let mut receiving = self.elsewhere.receive(target).map_err(of_build)?;
        let item = format!("{} from {}", artifact.file_name, self.client.host());
        let mut told = |what| match what {
            ClientEvent::Downloaded(bytes) => report.report(Event::Progress {
                phase: Phase::Publish,
                done: bytes >> 20,
                total: Some(artifact.size >> 20),
                item: item.clone(),
                bytes: Some(bytes),
            }),
            what => waiting(report, what),
        };
        self.client
            .download(artifact, receiving.file(), &mut told)
            .await
            .map_err(|error| self.trouble(error))?;
        let place = receiving.finish().map_err(of_build)?;
        report.report(Event::Finished(Phase::Publish, started.elapsed()));
        Ok(binary(place))
    }

    fn trouble(&self, error: ClientError) -> Trouble {
        Trouble::of(&by_module(&self.prepared.request.manifest, &self.modules, None), &self.specs, error)
    }

    /// Tells the service that nobody here waits any more.
    async fn unwanted(&self) {
        let cancel = self.ids.iter().map(|id| self.client.cancel(*id));
        // Without an answer the builds go on, and end by themselves.
        let _ = tokio::time::timeout(LAST_WORDS, futures::future::join_all(cancel)).await;
    }
}

fn word(view: &BuildView) -> &'static str {
    match view.state {
        BuildState::Queued => "queued",
        BuildState::Running => "being built",
        BuildState::Succeeded => "built before",
        BuildState::Failed => "failed",
        BuildState::Cancelled => "cancelled",
    }
}

/// Why a build at the service made nothing.
fn failed(view: &BuildView) -> Trouble {
    let Some(failure) = &view.failure else {
        let message = format!("build {} was cancelled", view.id);
        return Trouble::new(Ending::Build, &message, "somebody with the same token may have done it");
    };
    let (message, help) = match failure.kind {
        FailureKind::Invalid => ("the build service can't build this", ""),
        FailureKind::Failed => ("the build failed at the build service", ""),
        FailureKind::Unavailable => (
            "the build service can't get the modules",
            "try again in a while, or tell whoever runs the service",
        ),
        FailureKind::Limit => ("the build ran into a limit of the build service", ""),
        FailureKind::Internal => ("the build service itself is in trouble", ""),
    };
    Trouble {
        output: failure.message.lines().map(str::to_owned).collect(),
        ..Trouble::new(Ending::Build, message, help)
    }
}

fn note(report: &dyn Report, text: String) {
    report.report(Event::Note(Note::Text { text }));
}

fn warn(report: &dyn Report, message: &str, help: &str) {
    report.report(Event::Warning(Diagnostic { level: Level::Warning, ..wrong(message, help) }));
}

fn waiting(report: &dyn Report, what: ClientEvent) {
    if let ClientEvent::Retrying(pause, why) = what
        // Short breaks of a connection are nobody's concern.
        && pause >= Duration::from_secs(1)
    {
        note(report, format!("{why}; asking again in {}s", pause.as_secs()));
    }
}

/// Tells of a build there as of one here.
struct Telling {
    report: Arc<dyn Report>,
    host: String,
    /// The phase that goes on, and since when.
    phase: Option<(Phase, Timestamp)>,
}

impl Telling {
    fn new(report: Arc<dyn Report>, host: String) -> Self {
        Self { report, host, phase: None }
    }

    fn tell(&mut self, what: ClientEvent) {
        match what {
            ClientEvent::Log(entry) => self.entry(entry),
            ClientEvent::State(view) => {
                if view.attempts > 1 && view.state == BuildState::Queued {
                    self.phase(None, Timestamp::now());
                    note(&*self.report, format!("{} builds it anew: its worker went away", self.host));
                }
            }
            what => waiting(&*self.report, what),
        }
    }

    fn entry(&mut self, LogEntry { time, level, text, phase, done, total, .. }: LogEntry) {
        let phase = phase.as_deref().and_then(phase_of);
        if phase.is_some() {
            self.phase(phase, time);
        }
        match (level, phase, done) {
            (Severity::Warning, ..) => warn(&*self.report, &text, ""),
            (Severity::Info, Some(phase), Some(done)) => {
                self.report.report(Event::Progress { phase, done, total, item: text, bytes: None });
            }
            _ => {
                let (program, line) = match text.strip_prefix("go: ") {
                    Some(line) => ("go", line.to_owned()),
                    None => ("server", text),
                };
                self.report.report(Event::Output { program, line });
            }
        }
    }

    /// Another phase goes on from this time.
    fn phase(&mut self, next: Option<Phase>, time: Timestamp) {
        if self.phase.map(|(phase, _)| phase) == next {
            return;
        }
        if let Some((phase, since)) = self.phase.take() {
            let lasted = Duration::try_from(time.duration_since(since)).unwrap_or_default();
            self.report.report(Event::Finished(phase, lasted));
        }
        if let Some(phase) = next {
            self.report.report(Event::Started(phase));
            self.phase = Some((phase, time));
        }
    }
}

/// A phase of the log. Publishing is left out: the service's own copy is not what is waited for here.
fn phase_of(name: &str) -> Option<Phase> {
    match name {
        "resolve" => Some(Phase::Resolve),
        "fetch" => Some(Phase::Fetch),
        "prepare" => Some(Phase::Prepare),
        "compile" => Some(Phase::Compile),
        "link" => Some(Phase::Link),
        "verify" => Some(Phase::Verify),
        _ => None,
    }
}
