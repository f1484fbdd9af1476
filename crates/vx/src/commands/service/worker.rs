use std::{
    net::{Ipv4Addr, SocketAddr},
    process::ExitCode,
    sync::Arc,
};

use tokio_util::sync::CancellationToken;
use velox_build::cache_directory;
use velox_manifest::LogConfig;
use velox_service::{ClusterOptions, Retention, ServiceOptions, telemetry::Logging, work};

use crate::commands::service::server::{cluster, failed, logs, of_builds, policy};
use crate::{
    cli::{self, Format},
    report,
    settings::Settings,
    signals,
    status::Ending,
};

/// `vx worker`: builds until a signal; what it can't bring to an end by then goes back to the queue.
pub(crate) async fn worker(settings: Settings, arguments: cli::service::Work) -> ExitCode {
    let report = report::open(&settings, LogConfig::default(), None);
    let shutdown = CancellationToken::new();
    let told = Arc::clone(&report);
    if let Err(error) = signals::watch(shutdown.clone(), move |signal| told.interrupted(signal)) {
        return report::complain(&format!("can't listen to signals: {error}"));
    }
    let watched = arguments.metrics_address;
    let (options, cluster) = match options(&settings, arguments) {
        Ok(options) => options,
        Err(error) => {
            report::complain(&error);
            return Ending::Configuration.into();
        }
    };
    let (format, jobs) = (settings.format(LogConfig::default()), options.jobs);
    let ready = |watched: Option<SocketAddr>| {
        let url = watched.map(|address| format!("http://{address}"));
        let line = match format {
            Format::Json => report::event("working", &serde_json::json!({ "jobs": jobs, "url": url })),
            Format::Human => {
                let most = if jobs == 1 { "a build".to_owned() } else { format!("up to {jobs} builds") };
                let watched = url.map_or_else(String::new, |url| format!("; metrics: {url}/metrics"));
                format!("working, {most} at a time{watched}\n")
            }
        };
        // Whoever started it and went away needs no line.
        let _ = report::print(&line);
    };
    let logs = match Logging::start(&logs("vx-worker", &settings)) {
        Ok(logs) => logs,
        Err(error) => return report::complain(&error),
    };
    let code = match work(options, cluster, watched, shutdown, ready).await {
        // It was told to stop, and did.
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&*report, &error),
    };
    logs.finish().await;
    code
}

fn options(
    settings: &Settings,
    arguments: cli::service::Work,
) -> Result<(ServiceOptions, ClusterOptions), String> {
    let cli::service::Work { data, jobs, drain, metrics_address: _, nodes, allowed, limits } = arguments;
    let data = data.unwrap_or_else(|| cache_directory(&settings.environment).join("worker"));
    let program = std::env::current_exe().map_err(|error| format!("can't tell where vx is: {error}"))?;
    let cluster = cluster(nodes)?.ok_or("a worker needs --nats and --artifacts")?;
    let options = ServiceOptions {
        data,
        jobs,
        policy: policy(allowed),
        limits: of_builds(&limits),
        cluster: None,
        program,
        environment: settings.environment.clone(),
        drain,
        // It takes no requests.
        listen: (Ipv4Addr::LOCALHOST, 0).into(),
        queue: 0,
        time_to_live: std::time::Duration::ZERO,
        tls: None,
        tokens: None,
        anonymous: false,
        origins: Vec::new(),
        retention: Retention::default(),
        audit: None,
    };
    Ok((options, cluster))
}
