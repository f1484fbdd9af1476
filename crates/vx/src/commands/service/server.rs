use std::net::SocketAddr;

use clap::{CommandFactory, error::ErrorKind};
use velox_build::cache_directory;
use velox_manifest::LogConfig;
use velox_service::{Retention, ServiceOptions, TlsOptions, serve};

use crate::{
    cli::{
        Cli, OutputFormat,
        service::{ServerCommand, ServerSubcommand},
    },
    commands::service::{
        options::{cluster, finish, invalid_option, program, shutdown_on_signal, start_logs},
        token::token,
    },
    report,
    settings::Settings,
    status::{CommandResult, ExitStatus},
};

/// `vx server`: runs the build service until a signal, then shuts it down gracefully.
pub(crate) async fn server(settings: Settings, mut arguments: ServerCommand) -> CommandResult {
    if let Some(ServerSubcommand::Token { command }) = arguments.command.take() {
        return token(&settings, command);
    }
    check_access(&arguments)?;
    let shutdown = shutdown_on_signal(&settings)?;
    let scheme = if arguments.access.tls_cert.is_some() { "https" } else { "http" };
    let options = options(&settings, arguments)?;
    let format = settings.format(LogConfig::default());
    let ready = |address: SocketAddr| {
        let url = format!("{scheme}://{address}");
        // A closed stdout doesn't stop the service.
        let _ = report::write(&match format {
            OutputFormat::Json => report::event("serving", &serde_json::json!({ "url": url })),
            OutputFormat::Human => format!("serving on {url}\n"),
        });
    };
    let logs = start_logs("vx-server", &settings)?;
    finish(&settings, logs, serve(options, shutdown, ready).await).await
}

/// Requires tokens, or `--allow-anonymous`, on an address that other machines can reach.
fn check_access(arguments: &ServerCommand) -> CommandResult {
    let is_restricted = arguments.access.tokens.is_some() || arguments.access.allow_anonymous;
    if is_restricted || arguments.address.ip().is_loopback() {
        return Ok(());
    }
    let message = format!(
        "{} is reachable from the network: require tokens with --tokens FILE (create them with `vx server token`), or \
         accept all requests with --allow-anonymous",
        arguments.address
    );
    let _ = Cli::command().error(ErrorKind::MissingRequiredArgument, message).print();
    Err(ExitStatus::Configuration)
}

fn options(settings: &Settings, arguments: ServerCommand) -> CommandResult<ServiceOptions> {
    let ServerCommand { data, access, retention, .. } = arguments;
    let tls = access.tls_cert.zip(access.tls_key);
    Ok(ServiceOptions {
        listen: arguments.address,
        data: data.unwrap_or_else(|| cache_directory(&settings.environment).join("server")),
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
        program: program()?,
        environment: settings.environment.clone(),
        drain: arguments.drain,
    })
}
