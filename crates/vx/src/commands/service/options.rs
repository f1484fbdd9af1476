//! Common parts of `vx server` and `vx worker`: options, logging and shutdown.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use secrecy::SecretString;
use tokio_util::sync::CancellationToken;
use url::Url;
use velox_build::SigningKey;
use velox_manifest::{Diagnostic, LogConfig, LogMode};
use velox_service::{
    ArtifactBucket, BuildPolicy, ClusterOptions, JobLimits, ServeError,
    telemetry::{LogFormat, LogOptions, Logging},
};

use crate::{
    cli::{
        OutputFormat,
        service::{ClusterArgs, LimitArgs, PolicyArgs},
    },
    commands::{build::sign_key, session::watch_signals},
    report::{self, Report},
    settings::{Settings, Verbosity},
    signals::SignalWatch,
    status::{CommandResult, ExitStatus},
};

/// A token that is canceled by the first signal.
pub(super) fn shutdown_on_signal(report: Arc<dyn Report>) -> CommandResult<(CancellationToken, SignalWatch)> {
    let shutdown = CancellationToken::new();
    let signals = watch_signals(&shutdown, move |signal| report.interrupted(signal))?;
    Ok((shutdown, signals))
}

/// Starts logging to stderr, configured by the flags and `[log]`.
pub(super) fn start_logs(
    service: &'static str,
    settings: &Settings,
    log: LogConfig,
) -> CommandResult<Logging> {
    let level = match settings.verbosity(log) {
        Verbosity::Errors => tracing::Level::ERROR,
        Verbosity::Warnings => tracing::Level::WARN,
        Verbosity::Normal => tracing::Level::INFO,
        Verbosity::Verbose => tracing::Level::DEBUG,
        Verbosity::Everything => tracing::Level::TRACE,
    };
    Logging::start(&LogOptions {
        service,
        format: match (settings.format(), settings.log_mode(log)) {
            (OutputFormat::Json, _) | (_, LogMode::Production) => LogFormat::Json,
            (_, LogMode::Raw) => LogFormat::Raw,
            _ => LogFormat::Text { color: settings.terminal.color },
        },
        level,
        environment: settings.environment.clone(),
    })
    .map_err(|error| report::complain(&error))
}

/// Flushes the log, and reports an error of the service.
pub(super) async fn finish(
    settings: &Settings,
    log: LogConfig,
    logs: Logging,
    result: Result<(), ServeError>,
) -> CommandResult {
    let result = result.map_err(|error| {
        let status = if error.is_of_options() { ExitStatus::Configuration } else { ExitStatus::Failure };
        let report = report::open(settings, log, None);
        report.failed(status, &[Diagnostic::error(error.to_string())], &[]);
        status
    });
    logs.finish().await;
    result
}

pub(super) fn invalid_option(message: String) -> ExitStatus {
    report::complain(&message);
    ExitStatus::Configuration
}

/// The key of `--sign-key`. Keys and passwords are removed from the environment.
pub(super) fn sign_key(settings: &mut Settings, path: Option<&Path>) -> CommandResult<Option<SigningKey>> {
    sign_key::take(settings, path.is_some(), path).map_err(|error| report::failed(settings, &error))
}

/// The path of the vx executable, which runs each build in a child process.
pub(super) fn program() -> CommandResult<PathBuf> {
    std::env::current_exe()
        .map_err(|error| report::complain(&format!("failed to get the path of vx: {error}")))
}

impl From<PolicyArgs> for BuildPolicy {
    fn from(PolicyArgs { modules, direct, cgo }: PolicyArgs) -> Self {
        Self { modules, direct, cgo }
    }
}

impl From<LimitArgs> for JobLimits {
    fn from(limits: LimitArgs) -> Self {
        let LimitArgs { time, memory, disk, download, log, artifact, cache } = limits;
        Self { time, memory, disk, download, log, artifact, cache }
    }
}

/// The options of a cluster; `None` without `--artifacts`.
pub(super) fn cluster(arguments: ClusterArgs) -> Result<Option<ClusterOptions>, String> {
    let Some(artifacts) = arguments.artifacts else { return Ok(None) };
    let artifacts = ArtifactBucket::parse(&artifacts)?;
    let parse = |text: &String| {
        let url = text.parse().ok().filter(|url: &Url| {
            matches!(url.scheme(), "nats" | "tls") && url.host_str().is_some_and(|host| !host.is_empty())
        });
        // Don't show the URL, which may contain a password.
        url.ok_or_else(|| "invalid URL for --nats: expected nats://host:4222 or tls://host:4222".to_owned())
    };
    let read = |file: &PathBuf| match std::fs::read_to_string(file) {
        Ok(text) => Ok(SecretString::from(text)),
        Err(error) => Err(format!("failed to read `{}`: {error}", file.display())),
    };
    Ok(Some(ClusterOptions {
        nats: arguments.nats.iter().map(parse).collect::<Result<_, _>>()?,
        credentials: arguments.nats_credentials.as_ref().map(read).transpose()?,
        artifacts,
        replicas: arguments.nats_replicas.into(),
        lease_time: arguments.lease_time,
    }))
}
