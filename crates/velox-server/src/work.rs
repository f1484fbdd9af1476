//! A worker as a whole: what it shares with the nodes that take requests, and the builds that it runs.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::{Cluster, Options, ServeError, Worker, job::Jobs, stores::Stores, telemetry::Telemetry};

/// Builds what nodes of the cluster were asked for, until `shutdown` is cancelled and what was on its way is done or given back
/// to the queue; `ready` is called once it can build. Of the options, those count that aren't about requests.
///
/// # Errors
/// It can't be started.
pub async fn work(
    options: Options,
    cluster: Cluster,
    shutdown: CancellationToken,
    ready: impl FnOnce(),
) -> Result<(), ServeError> {
    let in_data = |error| ServeError::Data { directory: options.data.clone(), error };
    tokio::fs::create_dir_all(&options.data).await.map_err(in_data)?;
    let runner = Jobs::new(&options).map_err(in_data)?;
    // Nobody asks a worker for metrics, but its builds have their spans.
    let telemetry = Telemetry::new(None).map_err(ServeError::Audit)?;
    let stores = Stores::shared(&options, &cluster).await?.observed(&telemetry);
    let system = rustix::system::uname();
    let worker = Worker {
        queue: stores.queue,
        artifacts: stores.artifacts,
        runner: Arc::new(runner),
        jobs: options.jobs,
        name: format!("{}/{}", system.nodename().to_string_lossy(), std::process::id()),
        log: options.limits.log,
        drain: options.drain,
    };
    ready();
    worker.work(shutdown).await;
    Ok(())
}
