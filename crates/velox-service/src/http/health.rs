//! `/healthz`: the process answers. `/readyz`: it can be sent requests. `/metrics`: what it did so far.

use std::sync::Arc;

use axum::{
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use velox_api::Problem;

use crate::{
    http::{Site, problem::Wrong, who::Observer},
    store::StoreError,
};

/// Answers while the process runs: restart it where this doesn't answer.
#[utoipa::path(
    get, path = "/healthz", tag = "operations", operation_id = "isAlive",
    responses((status = 200, description = "It is alive", body = String, content_type = "text/plain")),
)]
pub(crate) async fn alive() -> Response {
    fine()
}

/// Answers whether requests should be sent here: its stores answer, and it isn't being shut down.
#[utoipa::path(
    get, path = "/readyz", tag = "operations", operation_id = "isReady",
    responses(
        (status = 200, description = "It is ready", body = String, content_type = "text/plain"),
        (status = 503, description = "It isn't", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn ready(State(site): State<Arc<Site>>) -> Result<Response, Wrong> {
    Ok(site.is_ready().await.map(|()| fine())?)
}

impl From<NotReady> for Wrong {
    fn from(why: NotReady) -> Self {
        match why {
            NotReady::Draining => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "shutting_down",
                "The service is being shut down",
                "send requests to another node",
            ),
            NotReady::Store(error) => error.into(),
        }
    }
}

/// `GET /metrics`
pub(crate) async fn metrics(State(site): State<Arc<Site>>, _: Observer) -> Result<Response, Wrong> {
    Ok(openmetrics(site.telemetry.metrics(site.service.depth().await?)))
}

pub(crate) fn openmetrics(text: String) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}

pub(crate) fn fine() -> Response {
    ([(header::CACHE_CONTROL, "no-store")], "ok\n").into_response()
}

/// Why no requests should be sent here.
#[derive(Debug)]
pub(crate) enum NotReady {
    Draining,
    Store(StoreError),
}

impl Site {
    /// Whether requests should be sent here.
    pub(crate) async fn is_ready(&self) -> Result<(), NotReady> {
        if self.draining.is_cancelled() {
            return Err(NotReady::Draining);
        }
        self.service.ready().await.map_err(NotReady::Store)
    }
}
