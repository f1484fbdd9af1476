use std::{net::SocketAddr, path::PathBuf};

use clap::{CommandFactory, error::ErrorKind};
use velox_build::{Event, cache_directory};
use velox_manifest::{Diagnostic, Level, LogConfig};
use velox_service::{Retention, ServiceOptions, TlsOptions, serve};

use crate::{
    cli::{
        Cli, OutputFormat,
        build::OverrideArgs,
        service::{ServerCommand, ServerSubcommand},
    },
    commands::{
        service::{
            options::{cluster, finish, invalid_option, program, shutdown_on_signal, sign_key, start_logs},
            token::token,
        },
        session::{LoadedManifest, working_directory},
    },
    report::{self, Report},
    settings::Settings,
    status::{CommandResult, ExitStatus},
};

/// `vx server`: runs the build service until a signal, then shuts it down gracefully.
pub(crate) async fn server(mut settings: Settings, mut arguments: ServerCommand) -> CommandResult {
    if let Some(ServerSubcommand::Token { command }) = arguments.command.take() {
        return token(&settings, command);
    }
    let log = log_config(&settings, arguments.config.take())?;
    let report = report::open(&settings, log, None);
    let listen = listen_addresses(&*report, &arguments).await?;
    let (shutdown, _signals) = shutdown_on_signal(report)?;
    let scheme = if arguments.access.tls_cert.is_some() { "https" } else { "http" };
    let options = options(&mut settings, listen, arguments)?;
    let format = settings.format();
    let ready = |address: SocketAddr| {
        let url = format!("{scheme}://{address}");
        // A closed stdout doesn't stop the service.
        let _ = report::write(&match format {
            OutputFormat::Json => report::event("serving", &serde_json::json!({ "url": url })),
            OutputFormat::Human => format!("serving on {url}\n"),
        });
    };
    let logs = start_logs("vx-server", &settings, log)?;
    finish(&settings, log, logs, serve(options, shutdown, ready).await).await
}

/// `[log]` of the configuration file. Velox accepts any file here without reading it, so that errors are
/// warnings.
fn log_config(settings: &Settings, config: Option<PathBuf>) -> CommandResult<LogConfig> {
    let Some(config) = config else { return Ok(LogConfig::default()) };
    let loaded =
        LoadedManifest::load(settings, Some(config), &OverrideArgs::default(), &working_directory()?);
    Ok(loaded.map(|loaded| loaded.manifest.log).unwrap_or_else(|error| {
        let report = report::open(settings, LogConfig::default(), error.source);
        for diagnostic in error.diagnostics {
            let ignored = Diagnostic { level: Level::Warning, ..diagnostic };
            report
                .report(Event::Warning(ignored.help("the service starts without the `[log]` of this file")));
        }
        LogConfig::default()
    }))
}

/// The addresses to listen on. Those that other machines can reach require tokens or `--allow-anonymous`.
async fn listen_addresses(report: &dyn Report, arguments: &ServerCommand) -> CommandResult<Vec<SocketAddr>> {
    const HELP: &str = "require tokens with --tokens FILE (create them with `vx server token`), or accept all requests \
                        with --allow-anonymous";
    let address = arguments.address.clone().unwrap_or_default();
    let is_public = arguments.access.tokens.is_some() || arguments.access.allow_anonymous;
    let invalid = |message: String| {
        let _ = Cli::command().error(ErrorKind::MissingRequiredArgument, message).print();
        ExitStatus::Configuration
    };
    let resolved = address.resolve(is_public).await;
    let resolved =
        resolved.map_err(|error| invalid(format!("failed to resolve --address {address}: {error}")))?;
    if !is_public && !resolved.iter().all(|address| address.ip().is_loopback()) {
        return Err(invalid(format!("{address} is reachable from the network: {HELP}")));
    }
    if !is_public && address.host.is_none() {
        let warning =
            format!("the service is reachable from this machine only, not at all addresses of `{address}`");
        report.report(Event::Warning(Diagnostic::warning(warning).help(HELP)));
    }
    Ok(resolved)
}

fn options(
    settings: &mut Settings,
    listen: Vec<SocketAddr>,
    arguments: ServerCommand,
) -> CommandResult<ServiceOptions> {
    let ServerCommand { data, access, retention, .. } = arguments;
    let tls = access.tls_cert.zip(access.tls_key);
    Ok(ServiceOptions {
        listen,
        data: data.unwrap_or_else(|| cache_directory(&settings.environment).join("server")),
        share_dir: arguments.share_dir,
        jobs: arguments.jobs,
        queue: arguments.queue,
        time_to_live: arguments.time_to_live,
        tls: tls.map(|(certificate, key)| TlsOptions { certificate, key }),
        tokens: access.tokens,
        anonymous: access.allow_anonymous,
        origins: access.origins,
        policy: arguments.policy.into(),
        limits: arguments.limits.into(),
        retention: Retention { age: retention.age, builds: retention.builds, artifacts: retention.size },
        cluster: cluster(arguments.cluster).map_err(invalid_option)?,
        audit: arguments.audit_log,
        sign_key: sign_key(settings, arguments.sign_key.as_deref())?,
        vulnerability_database: arguments.vulnerability_db,
        job_user: arguments.job_user,
        program: program()?,
        environment: settings.environment.clone(),
        drain: arguments.drain,
    })
}
