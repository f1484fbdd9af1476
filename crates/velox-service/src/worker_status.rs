//! The status endpoints of a worker: `/metrics`, `/healthz` and `/readyz`.

use std::sync::Arc;

use axum::{Router, extract::State, middleware::from_fn, response::Response, routing::get};
use tokio_util::sync::CancellationToken;

use crate::{
    http::{
        access,
        error::{self, ApiError},
        health, shutting_down,
    },
    readiness::Readiness,
    store::BuildStore,
    telemetry::Telemetry,
};

/// The status of a worker.
pub(crate) struct WorkerStatus {
    pub(crate) telemetry: Arc<Telemetry>,
    pub(crate) store: Arc<dyn BuildStore>,
    pub(crate) readiness: Readiness,
    /// The worker is shutting down.
    pub(crate) draining: CancellationToken,
}

impl WorkerStatus {
    /// The routes, served under this machine's own host names only.
    pub(crate) fn router(self) -> Router {
        Router::new()
            .route("/metrics", get(metrics))
            .route("/healthz", get(health::alive))
            .route("/readyz", get(ready))
            .fallback(async |uri| error::no_such_path(&uri))
            .layer(from_fn(access::require_local_host))
            .with_state(Arc::new(self))
    }
}

async fn metrics(State(status): State<Arc<WorkerStatus>>) -> Result<Response, ApiError> {
    Ok(health::openmetrics(status.telemetry.metrics(status.store.depth().await?)))
}

async fn ready(State(status): State<Arc<WorkerStatus>>) -> Result<Response, ApiError> {
    if status.draining.is_cancelled() {
        return Err(shutting_down());
    }
    status.readiness.check().await?;
    Ok(health::ok())
}
