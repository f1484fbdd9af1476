//! `/healthz` (liveness), `/readyz` (readiness) and `/metrics`.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{AppState, access::MetricsReader};
use crate::error::ApiError;

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
        (status = 503, description = "The service is not ready"),
    )
)]
pub(crate) async fn ready(State(state): State<Arc<AppState>>) -> Result<Response, ApiError> {
    state.readiness.check().await.map(|()| ok())
}

/// Readiness, as clients of other build services request it.
#[utoipa::path(
    get, path = "/health", tag = "operations", operation_id = "getHealth",
    responses(
        (status = 200, description = "The service is ready", body = HealthView),
        (status = 503, description = "The service is not ready"),
    )
)]
pub(crate) async fn health(State(state): State<Arc<AppState>>) -> Result<Json<HealthView>, ApiError> {
    state.readiness.check().await.map(|()| Json(HealthView { status: "ok" }))
}

#[derive(Serialize, ToSchema)]
pub(crate) struct HealthView {
    /// `ok`.
    status: &'static str,
}

/// Returns the version of the service.
#[utoipa::path(
    get, path = "/version", tag = "operations", operation_id = "getVersion",
    responses((status = 200, description = "The version", body = VersionView)),
)]
pub(crate) async fn version() -> Json<VersionView> {
    Json(VersionView { version: env!("CARGO_PKG_VERSION") })
}

#[derive(Serialize, ToSchema)]
pub(crate) struct VersionView {
    /// The version, such as `3.1.0`.
    version: &'static str,
}

/// `GET /metrics`
pub(crate) async fn metrics(
    State(state): State<Arc<AppState>>,
    _: MetricsReader,
) -> Result<Response, ApiError> {
    Ok(openmetrics(state.service.telemetry.metrics.text(state.service.store.depth().await?)))
}

pub(crate) fn openmetrics(text: String) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}

pub(crate) fn ok() -> Response {
    ([(header::CACHE_CONTROL, "no-store")], "ok\n").into_response()
}
