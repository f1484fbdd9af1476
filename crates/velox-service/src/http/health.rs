//! `/healthz` (liveness), `/readyz` (readiness) and `/metrics`.

use std::sync::Arc;

use axum::{
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use velox_api::Problem;

use super::{AppState, access::MetricsReader, error::ApiError};

/// Liveness: responds while the process runs.
#[utoipa::path(
    get, path = "/healthz", tag = "operations", operation_id = "isAlive",
    responses((status = 200, description = "The process is running", body = String, content_type = "text/plain")),
)]
pub(crate) async fn alive() -> Response {
    ok()
}

/// Readiness: whether the stores respond and the service is not shutting down.
#[utoipa::path(
    get, path = "/readyz", tag = "operations", operation_id = "isReady",
    responses(
        (status = 200, description = "The service is ready", body = String, content_type = "text/plain"),
        (status = 503, description = "The service is not ready", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn ready(State(state): State<Arc<AppState>>) -> Result<Response, ApiError> {
    state.is_ready().await.map(|()| ok())
}

/// `GET /metrics`
pub(crate) async fn metrics(
    State(state): State<Arc<AppState>>,
    _: MetricsReader,
) -> Result<Response, ApiError> {
    Ok(openmetrics(state.telemetry.metrics(state.service.depth().await?)))
}

pub(crate) fn openmetrics(text: String) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}

pub(crate) fn ok() -> Response {
    ([(header::CACHE_CONTROL, "no-store")], "ok\n").into_response()
}
