//! `/v1/catalogue`: what can be chosen from.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use utoipa::IntoParams;
use velox_api::Problem;

use crate::{
    catalogue::PluginCatalogue,
    http::{Site, body::Query, problem::Wrong, who::Reader},
};

/// For which RoadRunner.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct Choice {
    /// The RoadRunner whose plugins are asked for; the newest release where it is missing.
    #[serde(default)]
    roadrunner: Option<String>,
}

/// Lists RoadRunner's releases, the plugins that vx knows, and what can be compiled for.
#[utoipa::path(
    get, path = "/v1/catalogue", tag = "catalogue", operation_id = "getCatalogue",
    params(Choice),
    responses(
        (status = 200, description = "What can be chosen from", body = PluginCatalogue),
        (status = 400, description = "The query is wrong", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "A token is needed", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn get(
    State(site): State<Arc<Site>>,
    _: Reader,
    Query(choice): Query<Choice>,
) -> Result<Response, Wrong> {
    let catalogue = PluginCatalogue::of(&site.releases, choice.roadrunner.as_deref()).await;
    Ok(([(header::CACHE_CONTROL, "private, max-age=60")], Json(catalogue)).into_response())
}
