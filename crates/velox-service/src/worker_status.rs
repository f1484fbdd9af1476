//! What a worker tells those who watch it: `/metrics`, `/healthz` and `/readyz`, as a node that takes requests has them.

use std::sync::Arc;

use axum::{Router, extract::State, middleware::from_fn, response::Response, routing::get};
use tokio_util::sync::CancellationToken;

use crate::{
    artifacts::ArtifactBucket,
    http::{
        health::{self, NotReady},
        problem::{self, Wrong},
        who,
    },
    store::BuildStore,
    telemetry::Telemetry,
};

/// What a worker tells of itself.
pub(crate) struct WorkerStatus {
    pub(crate) telemetry: Arc<Telemetry>,
    pub(crate) store: Arc<dyn BuildStore>,
    pub(crate) artifacts: Arc<ArtifactBucket>,
    /// The worker takes no more builds.
    pub(crate) draining: CancellationToken,
}

impl WorkerStatus {
    /// The paths, for programs on this machine that call it by its own names.
    pub(crate) fn router(self) -> Router {
        Router::new()
            .route("/metrics", get(metrics))
            .route("/healthz", get(health::alive))
            .route("/readyz", get(ready))
            .fallback(async |uri| problem::no_such_path(&uri))
            .layer(from_fn(who::own_names))
            .with_state(Arc::new(self))
    }
}

async fn metrics(State(status): State<Arc<WorkerStatus>>) -> Result<Response, Wrong> {
    Ok(health::openmetrics(status.telemetry.metrics(status.store.depth().await?)))
}

async fn ready(State(status): State<Arc<WorkerStatus>>) -> Result<Response, Wrong> {
    if status.draining.is_cancelled() {
        return Err(NotReady::Draining.into());
    }
    tokio::try_join!(status.store.ready(), status.artifacts.ready())?;
    Ok(health::fine())
}
