//! `vx worker`: a process of a cluster that runs builds and serves its health and metrics.

use std::{future, net::SocketAddr, sync::Arc};

use tokio_util::sync::CancellationToken;

use crate::{
    http::listener,
    job::disk::Disk,
    options::{ClusterOptions, ServiceOptions},
    readiness::Readiness,
    serve::{ServeError, runner},
    stores::Stores,
    telemetry::Telemetry,
    worker::Worker,
    worker_status::WorkerStatus,
};

/// Runs builds of the cluster until `shutdown` is cancelled and running builds are finished or released.
/// Calls `ready` once it can build, with the address of the status endpoints (`watched`). Options about
/// requests are ignored.
///
/// # Errors
/// The worker fails to start.
pub async fn work(
    options: ServiceOptions,
    cluster: ClusterOptions,
    watched: Option<SocketAddr>,
    shutdown: CancellationToken,
    ready: impl FnOnce(Option<SocketAddr>),
) -> Result<(), ServeError> {
    let in_data = |error| ServeError::Data { directory: options.data.clone(), error };
    tokio::fs::create_dir_all(&options.data).await.map_err(in_data)?;
    let listener = match watched {
        Some(address) => {
            let listening = |error| ServeError::Listen { addresses: vec![address], error };
            let listener = listener::bind(&[address]).map_err(listening)?;
            Some((listener.local_addr().map_err(listening)?, listener))
        }
        None => None,
    };
    let telemetry = Telemetry::new(None).map_err(ServeError::Audit)?;
    let runner = runner(&options, &telemetry)?;
    let stores = Stores::cluster(&options, &cluster, None, None).await?;
    let over = CancellationToken::new();
    let address = listener.map(|(address, listener)| {
        let vitals = WorkerStatus {
            telemetry: Arc::clone(&telemetry),
            readiness: Readiness::new(
                Arc::clone(&stores.builds),
                Arc::clone(&stores.artifacts),
                Disk::new(&options.data),
                shutdown.clone(),
            ),
        };
        tokio::spawn(listener::run(
            listener,
            None,
            vitals.router(),
            future::ready(()),
            over.clone(),
            over.clone(),
        ));
        address
    });
    let system = rustix::system::uname();
    let worker = Worker {
        store: stores.builds,
        artifacts: stores.artifacts,
        runner: Arc::new(runner),
        jobs: options.jobs,
        name: format!("{}/{}", system.nodename().to_string_lossy(), std::process::id()),
        log: options.limits.log,
        sign_key: options.sign_key.clone(),
        drain: options.drain,
        telemetry,
    };
    ready(address);
    worker.work(shutdown).await;
    over.cancel();
    Ok(())
}
