//! `vx build --remote`: remote builds.

mod progress;
mod spec;
mod verify;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use secrecy::SecretString;
use velox_api::{
    BuildId, BuildSpec, BuildState, BuildView, FailureKind, SubmitRequest,
    client::{ClientError, ClientEvent, ServiceClient},
    unsupported_sources, with_module_paths,
};
use velox_build::{
    Attestation, BuildSummary, BuiltBinary, Error, ErrorKind, Event, LockUpdate, Phase, RemoteBuild,
    VerifyingKey,
};
use velox_manifest::{Diagnostic, GoTarget};
use velox_query::check_known_plugins;

pub(super) use self::verify::lock_from_service;

use self::progress::{RemoteProgress, report_retry};
use crate::{
    cli::build::{BuildCommand, RemoteArgs},
    commands::session::Session,
    settings::Settings,
    status::CommandResult,
};

/// Limits the cancellation of builds after an interruption.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(5);

const ADDRESS_VARIABLE: &str = "VX_REMOTE";
const TOKEN_VARIABLE: &str = "VX_REMOTE_TOKEN";

/// A build service and its token.
pub(super) struct RemoteService {
    address: String,
    token: Option<SecretString>,
    /// `--trusted-key`.
    trusted_key: Option<PathBuf>,
}

impl RemoteService {
    /// The build service from flags or environment; `None`: none is selected. Removes the token from the environment,
    /// which builds can read. `unsupported`: an option that only works without a service, and why.
    pub(super) fn select(
        settings: &mut Settings,
        arguments: &RemoteArgs,
        unsupported: Option<(&str, &str)>,
    ) -> Result<Option<Self>, Diagnostic> {
        let token = take_token(settings);
        let (flag, token_file) = (&arguments.remote, &arguments.remote_token_file);
        let address = flag.as_ref().or(settings.environment.get(ADDRESS_VARIABLE)).cloned();
        let address = address.unwrap_or_default();
        if matches!(address.as_str(), "" | "off") {
            return match token_file {
                Some(_) if flag.is_none() => {
                    Err(Diagnostic::error("--remote-token-file requires a build service")
                        .help(format!("set it with `--remote URL` or {ADDRESS_VARIABLE}")))
                }
                _ if arguments.trusted_key.is_some() => {
                    Err(Diagnostic::error("--trusted-key requires a build service")
                        .help("`vx verify --attestation FILE --key PUB` verifies a local binary"))
                }
                _ => Ok(None),
            };
        }
        if let Some((option, reason)) = unsupported {
            let help = match flag {
                Some(_) => "remove --remote",
                None => "build locally with `--remote off`",
            };
            let message = format!("{option} is not supported by remote builds: {reason}");
            return Err(Diagnostic::error(message).help(help));
        }
        let token = match token_file {
            Some(file) => Some(read_token(file)?),
            None => token,
        };
        Ok(Some(Self { address, token, trusted_key: arguments.trusted_key.clone() }))
    }

    fn client(&self, session: &Session) -> Result<ServiceClient, Error> {
        let http = velox_build::http_client(&session.request.environment)?;
        ServiceClient::new(http, &self.address, self.token.as_ref()).map_err(client_error)
    }

    /// Builds all targets, and downloads the binaries. A successful build isn't reported yet.
    pub(super) async fn build(self, session: &mut Session) -> CommandResult<BuildSummary> {
        session.report_warnings();
        let client = self.client(session).map_err(|error| session.failed(&error))?;
        let unsupported = unsupported_sources(&session.request.manifest);
        if !unsupported.is_empty() {
            return Err(session.failed(&Error::many(ErrorKind::Configuration, unsupported)));
        }
        let local = RemoteBuild::new(&session.request).map_err(|error| session.failed(&error))?;
        if let Some(ignored) = local.ignored_variables() {
            session.report.report(Event::Warning(ignored));
        }
        let modules = match spec::module_paths(&session.request.manifest) {
            Some(modules) => modules,
            None => session.module_paths().await?,
        };
        let named = with_module_paths(&session.request.manifest, &modules);
        check_known_plugins(&named, local.settled().strict, &*session.reporter())
            .map_err(|error| session.failed(&error))?;
        let specs = spec::build_specs(&session.request.manifest, &local, &modules)
            .map_err(|error| session.failed(&error))?;
        let key = self.trusted_key.as_deref().map(VerifyingKey::read).transpose();
        let trusted_key = key.map_err(|error| session.failed(&error))?;
        let (session, local) = (&*session, &local);
        let mut build = RemoteBuilds { client, session, local, modules, specs, ids: Vec::new(), trusted_key };
        let result = session.interruptible(build.run()).await;
        if result.is_err() {
            build.cancel().await;
        }
        result
    }
}

/// The token in the environment, which is removed from it.
fn take_token(settings: &mut Settings) -> Option<SecretString> {
    let token = settings.environment.remove(TOKEN_VARIABLE);
    token.filter(|token| !token.trim().is_empty()).map(SecretString::from)
}

fn read_token(file: &Path) -> Result<SecretString, Diagnostic> {
    let text = std::fs::read_to_string(file).map_err(|error| {
        Diagnostic::error(format!("failed to read the token from `{}`: {error}", file.display()))
    })?;
    Ok(SecretString::from(text.trim().to_owned()))
}

/// The first option that only a local build supports, and why.
pub(super) fn local_option(arguments: &BuildCommand) -> Option<(&'static str, &'static str)> {
    let source = &arguments.project.source;
    [
        (source.go.is_some(), "--go", "the build service has its own Go toolchain"),
        (source.offline, "--offline", "the build service needs network access"),
        (arguments.keep_workspace, "--keep-workspace", "the source tree is on the build service"),
        (arguments.archive, "--archive", "the build service only creates binaries"),
        (arguments.attestation.is_some(), "--attestation", "the build service only creates binaries"),
        (!arguments.sbom.is_empty(), "--sbom", "the build service only creates binaries"),
        (arguments.remote_cache.is_some(), "--remote-cache", "the build service has its own caches"),
        (arguments.max_size.is_some(), "--max-size", "the sizes of modules are measured on this machine"),
        (arguments.dry_run, "--dry-run", "the build service always compiles"),
    ]
    .into_iter()
    .find_map(|(is_set, option, reason)| is_set.then_some((option, reason)))
}

struct RemoteBuilds<'a> {
    client: ServiceClient,
    session: &'a Session,
    local: &'a RemoteBuild<'a>,
    /// The module paths of the plugins, by name.
    modules: BTreeMap<String, String>,
    specs: Vec<BuildSpec>,
    ids: Vec<BuildId>,
    /// The key that must have signed the provenance of the binaries.
    trusted_key: Option<VerifyingKey>,
}

impl RemoteBuilds<'_> {
    async fn run(&mut self) -> Result<BuildSummary, Error> {
        let report = &*self.session.report;
        let mut progress = RemoteProgress::new(report, self.client.host());
        let mut views = Vec::new();
        for spec in self.specs.clone() {
            let force = self.session.request.options.cache.recompile;
            let submit = SubmitRequest { build: Some(spec), force, ..SubmitRequest::default() };
            let view = self.client.submit(&submit, &mut |event| progress.report(event)).await;
            let view = view.map_err(|error| self.error(error))?;
            self.ids.push(view.id);
            views.push(view);
        }
        let (mut binaries, mut locks, mut warnings) = (Vec::new(), Vec::new(), BTreeSet::new());
        for (view, target) in views.into_iter().zip(self.local.settled().targets) {
            let reused = view.state == BuildState::Succeeded;
            let view = finished(self.session, &self.client, &mut progress, view, &target)
                .await
                .map_err(|error| self.error(error))?;
            if view.state != BuildState::Succeeded {
                return Err(build_error(&view));
            }
            locks.push(self.client.lock(view.id).await.map_err(|error| self.error(error))?);
            binaries.push(self.download(&view, &target, reused).await?);
            warnings.extend(view.warnings);
        }
        let lock = self.local.adopt(&locks, &self.modules)?;
        let lock = lock.ok_or_else(|| Error::build("internal error: a build without targets"))?;
        self.local.report_versions(&lock, report);
        let warn = |warning| report.report(Event::Warning(warning));
        match self.local.keep(&lock)? {
            LockUpdate::Written | LockUpdate::Stays => {}
            LockUpdate::Differs => warn(
                Diagnostic::warning("the build service selected other versions than velox.lock")
                    .help("make this an error with `--locked`"),
            ),
            LockUpdate::Unwritable(cause) => {
                warn(Diagnostic::warning(cause).help("the next build resolves the versions again"));
            }
        }
        let summary = BuildSummary { binaries, ..self.local.summary(&lock) };
        // Raised versions are reported separately.
        if summary.raised.is_empty() {
            warnings.into_iter().map(Diagnostic::warning).for_each(warn);
        }
        Ok(summary)
    }

    /// Downloads a binary, unless the output file is identical.
    async fn download(
        &self,
        view: &BuildView,
        target: &GoTarget,
        reused: bool,
    ) -> Result<BuiltBinary, Error> {
        let artifact = view.artifact.as_ref().map(|artifact| &artifact.info);
        let artifact =
            artifact.filter(|artifact| artifact.target == target.to_string()).ok_or_else(|| {
                Error::build(format!("the build service has no binary of the finished build for {target}"))
            })?;
        if let Some(key) = &self.trusted_key {
            self.check_attestation(view.id, &artifact.sha256, key).await?;
        }
        let mut path = self.local.place(target);
        if !self.local.is_there(target, artifact.size, &artifact.sha256) {
            let (report, started) = (&*self.session.report, Instant::now());
            report.report(Event::Started(Phase::Publish));
            let mut file = self.local.create_binary(target)?;
            let item = format!("{} from {}", artifact.file_name, self.client.host());
            let mut on_event = |event| match event {
                ClientEvent::Downloaded(bytes) => report.report(Event::Progress {
                    phase: Phase::Publish,
                    done: bytes >> 20,
                    total: Some(artifact.size >> 20),
                    item: item.clone(),
                    bytes: Some(bytes),
                }),
                event => report_retry(report, event),
            };
            let downloaded = self.client.download(artifact, file.file(), &mut on_event).await;
            downloaded.map_err(|error| self.error(error))?;
            path = self.local.persist_binary(file, target)?;
            report.report(Event::Finished(Phase::Publish, started.elapsed()));
        }
        let (target, sha256) = (target.to_string(), artifact.sha256.clone());
        Ok(BuiltBinary {
            target,
            path,
            size: artifact.size,
            sha256,
            reused,
            archive: None,
            sboms: Vec::new(),
        })
    }

    /// Fails unless the key signed the provenance of a binary with this SHA-256.
    async fn check_attestation(&self, id: BuildId, sha256: &str, key: &VerifyingKey) -> Result<(), Error> {
        let text = self.client.attestation(id).await.map_err(|error| {
            self.error(error)
                .help("--trusted-key needs a service that signs its builds (`vx server --sign-key`)")
        })?;
        let name = format!("the attestation from {}", self.client.host());
        let attestation = Attestation::verify(&name, &text, key)?;
        match attestation.subject.iter().any(|file| file.sha256 == sha256) {
            true => Ok(()),
            false => Err(Error::build(format!("verification failed: {name} is not about the binary"))),
        }
    }

    /// Converts a client error, with the violations of a rejected request at their configuration spans.
    fn error(&self, error: ClientError) -> Error {
        let violations = match &error {
            ClientError::Rejected(problem) => problem.errors.clone(),
            _ => Vec::new(),
        };
        let mut error = client_error(error);
        if !violations.is_empty() {
            let manifest = with_module_paths(&self.session.request.manifest, &self.modules);
            let help = error.diagnostics.pop().map(|diagnostic| diagnostic.help).unwrap_or_default();
            error.diagnostics = violations
                .iter()
                .map(|violation| {
                    let diagnostic = violation.diagnostic(&manifest, self.specs.first());
                    Diagnostic { help: help.clone(), ..diagnostic }
                })
                .collect();
        }
        error
    }

    async fn cancel(&self) {
        let cancel = self.ids.iter().map(|id| self.client.cancel(*id));
        // A build that can't be canceled runs to completion.
        let _ = tokio::time::timeout(CANCEL_TIMEOUT, futures::future::join_all(cancel)).await;
    }
}

/// Follows a build to its end.
async fn finished(
    session: &Session,
    client: &ServiceClient,
    progress: &mut RemoteProgress<'_>,
    view: BuildView,
    target: &GoTarget,
) -> Result<BuildView, ClientError> {
    let state = match view.state {
        BuildState::Queued => "queued",
        BuildState::Running => "running",
        BuildState::Succeeded => "cached",
        BuildState::Failed => "failed",
        BuildState::Cancelled => "canceled",
    };
    session.note(format!("build for {target} is {state}: {}", client.page(view.id)));
    let view = match view.state.is_final() {
        true => view,
        false => client.follow(view.id, &mut |event| progress.report(event)).await?,
    };
    progress.finish();
    Ok(view)
}

/// Converts a client error, with help.
fn client_error(error: ClientError) -> Error {
    let message = error.to_string();
    match error {
        ClientError::Rejected(problem) => match problem.status {
            400 | 413 | 422 => Error::configuration(message),
            401 => Error::configuration(message)
                .help(format!("set the token with {TOKEN_VARIABLE} or --remote-token-file")),
            403 => Error::configuration(message).help("ask the operator of the build service for access"),
            _ => Error::build(message),
        },
        ClientError::Address { .. } | ClientError::InsecureToken { .. } | ClientError::InvalidToken => {
            Error::configuration(message)
        }
        ClientError::Certificate { .. } => Error::build(message)
            .help("set SSL_CERT_FILE to a file with the certificate of the authority that signed it"),
        ClientError::Network { .. } | ClientError::InvalidResponse { .. } => Error::build(message)
            .help("check the address (--remote, VX_REMOTE), and whether its /healthz responds"),
        ClientError::Checksum { .. } | ClientError::Io(_) => Error::build(message),
    }
}

fn build_error(view: &BuildView) -> Error {
    let Some(failure) = &view.failure else {
        return Error::build(format!("build {} was canceled", view.id))
            .help("it may have been canceled by another user of the same token");
    };
    let mut error = match failure.kind {
        FailureKind::Invalid => Error::build("the build service rejected the build"),
        FailureKind::Failed => Error::build("the build failed on the build service"),
        FailureKind::Unavailable => Error::build("the build service failed to download modules")
            .help("try again later, or tell the operator of the build service"),
        FailureKind::Limit => Error::build("the build exceeded a limit of the build service"),
        FailureKind::Internal => Error::build("internal error of the build service"),
    };
    error.output = failure.message.lines().map(str::to_owned).collect();
    error
}
