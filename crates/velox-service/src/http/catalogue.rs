//! `/v1/catalogue`: the available releases, plugins and targets.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use utoipa::IntoParams;

use crate::{
    catalogue::PluginCatalogue,
    error::ApiError,
    http::{AppState, access::Reader, body::Query},
};

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct CatalogueQuery {
    /// The RoadRunner version that the plugins are for; default: the newest release.
    #[serde(default)]
    roadrunner: Option<String>,
}

/// Lists the releases of RoadRunner, the known plugins, and the supported targets.
#[utoipa::path(
    get, path = "/v1/catalogue", tag = "catalogue", operation_id = "getCatalogue",
    params(CatalogueQuery),
    responses(
        (status = 200, description = "The catalogue", body = PluginCatalogue),
        (status = 400, description = "Invalid query string"),
    )
)]
pub(crate) async fn get(
    State(state): State<Arc<AppState>>,
    _: Reader,
    Query(query): Query<CatalogueQuery>,
) -> Result<Response, ApiError> {
    let catalogue = PluginCatalogue::of(&state.releases, query.roadrunner.as_deref()).await;
    Ok(([(header::CACHE_CONTROL, "private, max-age=60")], Json(catalogue)).into_response())
}
