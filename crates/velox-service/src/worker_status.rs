//! The status endpoints of a worker: `/metrics`, `/healthz` and `/readyz`.

use std::sync::Arc;

use axum::{Router, extract::State, middleware::from_fn, response::Response, routing::get};

use crate::{
    error::{self, ApiError},
    http::{access, health},
    readiness::Readiness,
    telemetry::Telemetry,
};

/// The status of a worker.
pub(crate) struct WorkerStatus {
    pub(crate) telemetry: Arc<Telemetry>,
    pub(crate) readiness: Readiness,
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
    Ok(health::openmetrics(status.telemetry.metrics.text(status.readiness.store.depth().await?)))
}

async fn ready(State(status): State<Arc<WorkerStatus>>) -> Result<Response, ApiError> {
    status.readiness.check().await.map(|()| health::ok())
}
