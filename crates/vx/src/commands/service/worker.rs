use std::net::SocketAddr;

use velox_build::cache_directory;
use velox_manifest::LogConfig;
use velox_service::{ClusterOptions, ServiceOptions, work};

use crate::{
    cli::{OutputFormat, service::WorkerCommand},
    commands::service::options::{
        cluster, finish, invalid_option, program, shutdown_on_signal, sign_key, start_logs,
    },
    report,
    settings::Settings,
    status::CommandResult,
};

/// `vx worker`: runs builds of a cluster until a signal. Unfinished builds are requeued.
pub(crate) async fn worker(mut settings: Settings, arguments: WorkerCommand) -> CommandResult {
    let log = LogConfig::default();
    let (shutdown, _signals) = shutdown_on_signal(report::open(&settings, log, None))?;
    let metrics_address = arguments.metrics_address;
    let (options, cluster) = options(&mut settings, arguments)?;
    let (format, jobs) = (settings.format(), options.jobs);
    let ready = |metrics: Option<SocketAddr>| {
        let url = metrics.map(|address| format!("http://{address}"));
        // A closed stdout doesn't stop the worker.
        let _ = report::write(&match format {
            OutputFormat::Json => report::event("working", &serde_json::json!({ "jobs": jobs, "url": url })),
            OutputFormat::Human => {
                let builds = if jobs == 1 { "1 build".to_owned() } else { format!("up to {jobs} builds") };
                let metrics = url.map_or_else(String::new, |url| format!("; metrics: {url}/metrics"));
                format!("working, {builds} at a time{metrics}\n")
            }
        });
    };
    let logs = start_logs("vx-worker", &settings, log)?;
    let result = work(options, cluster, metrics_address, shutdown, ready).await;
    finish(&settings, log, logs, result).await
}

fn options(
    settings: &mut Settings,
    arguments: WorkerCommand,
) -> CommandResult<(ServiceOptions, ClusterOptions)> {
    let cluster = cluster(arguments.cluster)
        .and_then(|cluster| cluster.ok_or_else(|| "--nats and --artifacts are required".to_owned()))
        .map_err(invalid_option)?;
    let data = arguments.data.unwrap_or_else(|| cache_directory(&settings.environment).join("worker"));
    let options = ServiceOptions {
        data,
        sign_key: sign_key(settings, arguments.sign_key.as_deref())?,
        jobs: arguments.jobs,
        policy: arguments.policy.into(),
        limits: arguments.limits.into(),
        job_user: arguments.job_user,
        program: program()?,
        environment: settings.environment.clone(),
        drain: arguments.drain,
        ..ServiceOptions::default()
    };
    Ok((options, cluster))
}
