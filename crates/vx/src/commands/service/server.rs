use std::{net::SocketAddr, path::PathBuf, process::ExitCode, sync::Arc};

use clap::{CommandFactory, error::ErrorKind};
use secrecy::SecretString;
use tokio_util::sync::CancellationToken;
use url::Url;
use velox_build::cache_directory;
use velox_manifest::{Diagnostic, Level, LogConfig};
use velox_service::{
    BuildPolicy, ClusterOptions, JobLimits, Objects, Retention, ServeError, ServiceOptions, TlsOptions,
    serve,
    telemetry::{LogOptions, Logging},
};

use crate::{
    cli::{self, Cli, Format, token::ServerCommand},
    commands::service::token::token,
    report::{self, Failure},
    settings::{Settings, Verbosity},
    signals,
    status::Ending,
};

/// `vx server`: serves until a signal, and leaves nothing undone that was promised.
pub(crate) async fn server(settings: Settings, mut arguments: cli::service::Serve) -> ExitCode {
    if let Some(ServerCommand::Token { command }) = arguments.command.take() {
        return token(&settings, command);
    }
    let is_open = arguments.entrance.tokens.is_none() && !arguments.entrance.allow_anonymous;
    if is_open && !arguments.address.ip().is_loopback() {
        let message = format!(
            "others can reach {}: name the tokens that they need (--tokens FILE; `vx server token` makes them), or \
             let everybody in (--allow-anonymous)",
            arguments.address
        );
        let _ = Cli::command().error(ErrorKind::MissingRequiredArgument, message).print();
        return Ending::Configuration.into();
    }
    let report = report::open(&settings, LogConfig::default(), None);
    let shutdown = CancellationToken::new();
    let told = Arc::clone(&report);
    if let Err(error) = signals::watch(shutdown.clone(), move |signal| told.interrupted(signal)) {
        return report::complain(&format!("can't listen to signals: {error}"));
    }
    let scheme = if arguments.entrance.tls_cert.is_some() { "https" } else { "http" };
    let options = match options(&settings, arguments) {
        Ok(options) => options,
        Err(error) => {
            report::complain(&error);
            return Ending::Configuration.into();
        }
    };
    let format = settings.format(LogConfig::default());
    let ready = |address: SocketAddr| {
        let url = format!("{scheme}://{address}");
        let line = match format {
            Format::Json => report::event("serving", &serde_json::json!({ "url": url })),
            Format::Human => format!("serving on {url}\n"),
        };
        // Whoever started it and went away needs no line.
        let _ = report::print(&line);
    };
    let logs = match Logging::start(&logs("vx-server", &settings)) {
        Ok(logs) => logs,
        Err(error) => return report::complain(&error),
    };
    let code = match serve(options, shutdown, ready).await {
        // It was told to stop, and did.
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&*report, &error),
    };
    logs.finish().await;
    code
}

/// As the flags ask for it: a service has no `[log]`.
pub(crate) fn logs(service: &'static str, settings: &Settings) -> LogOptions {
    let level = match settings.verbosity(LogConfig::default()) {
        Verbosity::Errors => tracing::Level::ERROR,
        Verbosity::Warnings => tracing::Level::WARN,
        Verbosity::Normal => tracing::Level::INFO,
        Verbosity::Verbose => tracing::Level::DEBUG,
        Verbosity::Everything => tracing::Level::TRACE,
    };
    LogOptions {
        service,
        json: settings.format(LogConfig::default()) == Format::Json,
        color: settings.terminal.color,
        level,
        environment: settings.environment.clone(),
    }
}

pub(crate) fn failed(report: &dyn report::Report, error: &ServeError) -> ExitCode {
    let ending = if error.is_of_options() { Ending::Configuration } else { Ending::Build };
    let (level, message) = (Level::Error, error.to_string());
    let diagnostic = Diagnostic { level, message, span: None, label: None, help: Vec::new() };
    report.failed(&Failure { ending, diagnostics: &[diagnostic], output: &[] });
    ending.into()
}

fn options(settings: &Settings, arguments: cli::service::Serve) -> Result<ServiceOptions, String> {
    let cli::service::Serve {
        address,
        data,
        jobs,
        queue,
        time_to_live,
        drain,
        entrance,
        allowed,
        limits,
        kept,
        nodes,
        audit_log,
        command: _,
    } = arguments;
    let data = data.unwrap_or_else(|| cache_directory(&settings.environment).join("server"));
    let program = std::env::current_exe().map_err(|error| format!("can't tell where vx is: {error}"))?;
    Ok(ServiceOptions {
        listen: address,
        data,
        jobs,
        queue,
        time_to_live,
        tls: entrance
            .tls_cert
            .zip(entrance.tls_key)
            .map(|(certificate, key)| TlsOptions { certificate, key }),
        tokens: entrance.tokens,
        anonymous: entrance.allow_anonymous,
        origins: entrance.origins,
        policy: policy(allowed),
        limits: of_builds(&limits),
        retention: Retention { age: kept.age, builds: kept.builds, artifacts: kept.size },
        cluster: cluster(nodes)?,
        audit: audit_log,
        program,
        environment: settings.environment.clone(),
        drain,
    })
}

pub(crate) fn policy(allowed: cli::service::Allowed) -> BuildPolicy {
    BuildPolicy { modules: allowed.modules, direct: allowed.direct, cgo: allowed.cgo }
}

pub(crate) fn of_builds(limits: &cli::service::Limits) -> JobLimits {
    JobLimits {
        time: limits.time,
        memory: limits.memory,
        disk: limits.disk,
        download: limits.download,
        log: limits.log,
        artifact: limits.artifact,
        cache: limits.cache,
    }
}

/// What many nodes share, if this is one of many.
pub(crate) fn cluster(nodes: cli::service::Nodes) -> Result<Option<ClusterOptions>, String> {
    let Some(artifacts) = nodes.artifacts else { return Ok(None) };
    let artifacts = Objects::parse(&artifacts)?;
    let nats = nodes.nats.iter().map(|text| {
        // The text may hold a password.
        let url = text.parse().ok().filter(|url: &Url| {
            matches!(url.scheme(), "nats" | "tls") && url.host_str().is_some_and(|host| !host.is_empty())
        });
        url.ok_or_else(|| "--nats takes URLs such as nats://host:4222 or tls://host:4222".to_owned())
    });
    let nats = nats.collect::<Result<_, _>>()?;
    let read = |file: &PathBuf| {
        let text = std::fs::read_to_string(file);
        text.map(SecretString::from).map_err(|error| format!("can't read {}: {error}", file.display()))
    };
    Ok(Some(ClusterOptions {
        nats,
        credentials: nodes.nats_credentials.as_ref().map(read).transpose()?,
        artifacts,
        replicas: nodes.nats_replicas.into(),
        lease_time: nodes.lease_time,
    }))
}
