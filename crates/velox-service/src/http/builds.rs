//! `/v1/builds`: submits, shows and cancels builds.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use data_encoding::HEXLOWER;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use tokio::time::Instant;
use utoipa::IntoParams;
use velox_api::{BuildId, BuildSpec, BuildView, SubmitRequest, Violation};
use velox_manifest::parse_target;

use super::{
    AppState,
    access::{Builder, Reader},
    artifacts::lists_tag,
    body::{self, BuildPath, Query},
};
use crate::{
    build::BuildOutcome,
    error::{ApiError, ApiErrorKind},
    store::Submission,
};

/// The maximum `wait` of a request.
pub(super) const MAX_WAIT_SECONDS: u64 = 60;

/// The spec of a request, whether to force a rebuild, and the warnings about its configuration; or the violations by field
/// of [`SubmitRequest`].
pub(crate) fn spec(request: SubmitRequest) -> Result<(BuildSpec, bool, Vec<String>), Vec<Violation>> {
    let SubmitRequest { build, configuration, target, force } = request;
    let invalid = |field: &str, message: &str| Err(vec![Violation::new(field, message)]);
    match (build, configuration) {
        (Some(spec), None) if target.is_none() => Ok((spec, force, Vec::new())),
        (Some(_), None) => invalid("target", "only valid with `configuration`; use `build.target` instead"),
        (None, Some(text)) => {
            let target = target.as_deref().map(parse_target).transpose();
            let target = target.map_err(|message| vec![Violation::new("target", message)])?;
            let (mut specs, warnings) = BuildSpec::from_configuration(&text, target.as_ref())?;
            match (specs.pop(), specs.len()) {
                (Some(spec), 0) => Ok((spec, force, warnings)),
                (Some(last), _) => {
                    let targets: Vec<_> =
                        specs.iter().chain([&last]).map(|spec| spec.target.to_string()).collect();
                    let targets = targets.join(", ");
                    invalid("target", &format!("the configuration has the targets {targets}; select one"))
                }
                (None, _) => invalid("configuration", "the configuration has no target"),
            }
        }
        (None, None) => invalid("build", "missing; send `build` or `configuration`"),
        (Some(_), Some(_)) => invalid("configuration", "send either `build` or `configuration`, not both"),
    }
}

/// Submits a build. Requests for the same binary share one build.
#[utoipa::path(
    post, path = "/v1/builds", tag = "builds", operation_id = "createBuild",
    request_body = SubmitRequest,
    responses(
        (status = 200, description = "An earlier build has the binary", body = BuildView,
            headers(("location" = String, description = "The path of the build"))),
        (status = 202, description = "The build is queued or running", body = BuildView,
            headers(("location" = String, description = "The path of the build"))),
        (status = 400, description = "The body is malformed JSON"),
        (status = 403, description = "Not allowed"),
        (status = 408, description = "Timed out reading the body"),
        (status = 413, description = "The body is too large"),
        (status = 415, description = "The body is not JSON"),
        (status = 422, description = "Invalid request"),
        (status = 429, description = "The queue is full",
            headers(("retry-after" = u64, description = "Seconds"))),
        (status = 503, description = "A store does not respond"),
    )
)]
pub(crate) async fn create(
    State(state): State<Arc<AppState>>,
    Builder(caller): Builder,
    body::Json(request): body::Json<SubmitRequest>,
) -> Result<Response, ApiError> {
    let has_build = request.build.is_some();
    let (spec, force, warnings) = if has_build {
        spec(request)
    } else {
        // Parsing a large configuration takes long.
        let parsed = tokio::task::spawn_blocking(move || spec(request)).await;
        parsed.map_err(|error| ApiError::new(ApiErrorKind::Internal, error))?
    }
    .map_err(ApiError::invalid)?;
    let submission = state.service.submit(&caller, spec, force).await.map_err(|error| {
        error.map_fields(|field| match field.as_str() {
            _ if !has_build => field,
            "" => "build".to_owned(),
            _ => format!("build.{field}"),
        })
    })?;
    let status = match submission {
        Submission::Finished(_) => StatusCode::OK,
        Submission::Queued(_) | Submission::Joined(_) => StatusCode::ACCEPTED,
    };
    let mut view = submission.build().view();
    view.warnings.splice(0..0, warnings);
    let location = [(header::LOCATION, view.links.this.clone())];
    Ok((status, location, Json(view)).into_response())
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct WaitQuery {
    /// Respond when the build has ended, or after this many seconds (at most 60).
    #[serde(default)]
    #[param(minimum = 0, maximum = 60)]
    wait: u64,
}

/// Shows a build.
#[utoipa::path(
    get, path = "/v1/builds/{id}", tag = "builds", operation_id = "getBuild",
    params(("id" = BuildId, Path, description = "The build"), WaitQuery,
        ("if-none-match" = Option<String>, Header, description = "The ETag of an earlier response")),
    responses(
        (status = 200, description = "The build", body = BuildView,
            headers(("etag" = String, description = "Changes with the build and its position in the queue"))),
        (status = 304, description = "Not modified"),
        (status = 400, description = "Invalid query string"),
        (status = 404, description = "No such build"),
    )
)]
pub(crate) async fn get(
    State(state): State<Arc<AppState>>,
    _: Reader,
    BuildPath(id): BuildPath,
    Query(query): Query<WaitQuery>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let build = if query.wait == 0 {
        state.service.build(id).await?
    } else {
        let deadline = Instant::now() + Duration::from_secs(query.wait.min(MAX_WAIT_SECONDS));
        tokio::select! {
            build = state.service.wait(id, Some(deadline)) => build?,
            () = state.draining.cancelled() => state.service.build(id).await?,
        }
    };
    let queue = state.service.position(&build).await?;
    Ok(json_with_etag(&BuildView { queue, ..build.view() }, &headers))
}

/// Cancels the caller's request for a build. The build ends when no other caller wants it.
#[utoipa::path(
    delete, path = "/v1/builds/{id}", tag = "builds", operation_id = "cancelBuild",
    params(("id" = BuildId, Path, description = "The build")),
    responses(
        (status = 200, description = "The build has ended", body = BuildView),
        (status = 202, description = "Others want the build, or its worker is still stopping it", body = BuildView),
        (status = 403, description = "The build belongs to another caller"),
        (status = 404, description = "No such build"),
    )
)]
pub(crate) async fn cancel(
    State(state): State<Arc<AppState>>,
    Builder(caller): Builder,
    BuildPath(id): BuildPath,
) -> Result<Response, ApiError> {
    let build = state.service.cancel(&caller, id).await?;
    let status = if build.state.is_final() { StatusCode::OK } else { StatusCode::ACCEPTED };
    Ok((status, Json(build.view())).into_response())
}

/// Returns the build's `velox.toml`.
#[utoipa::path(
    get, path = "/v1/builds/{id}/velox.toml", tag = "builds", operation_id = "getConfiguration",
    params(("id" = BuildId, Path, description = "The build")),
    responses(
        (status = 200, description = "The configuration", body = String, content_type = "application/toml"),
        (status = 404, description = "No such build"),
    )
)]
pub(crate) async fn configuration(
    State(state): State<Arc<AppState>>,
    _: Reader,
    BuildPath(id): BuildPath,
) -> Result<Response, ApiError> {
    let build = state.service.build(id).await?;
    let text = match build.outcome {
        Some(BuildOutcome::Succeeded(result)) => result.configuration,
        _ => build.spec.configuration(),
    };
    Ok(attachment("velox.toml", TOML, text))
}

/// Returns the build's `velox.lock`. With it and the `velox.toml`, `vx build --locked` builds the same binary.
#[utoipa::path(
    get, path = "/v1/builds/{id}/velox.lock", tag = "builds", operation_id = "getLock",
    params(("id" = BuildId, Path, description = "The build")),
    responses(
        (status = 200, description = "The lock", body = String, content_type = "application/toml"),
        (status = 404, description = "No such build, or it has not succeeded"),
    )
)]
pub(crate) async fn lock(
    State(state): State<Arc<AppState>>,
    _: Reader,
    BuildPath(id): BuildPath,
) -> Result<Response, ApiError> {
    let build = state.service.build(id).await?;
    match state.service.store.lock(build.id).await? {
        Some(lock) => Ok(attachment("velox.lock", TOML, lock)),
        None => Err(ApiError::not_found(format!("build {} has no lock yet", build.id))),
    }
}

pub(crate) const TOML: &str = "application/toml";
pub(crate) const TEXT: &str = "text/plain; charset=utf-8";

/// A file for download.
pub(crate) fn attachment(name: &str, kind: &str, content: impl Into<Body>) -> Response {
    let disposition = format!("attachment; filename=\"{name}\"");
    let headers = [(header::CONTENT_TYPE, kind), (header::CONTENT_DISPOSITION, &disposition)];
    (headers, content.into()).into_response()
}

/// Responds with the build, or with 304 if the client has this version.
fn json_with_etag(view: &BuildView, headers: &HeaderMap) -> Response {
    // Serializing a view can't fail.
    let body = serde_json::to_vec(view).unwrap_or_default();
    let tag = format!("\"{}\"", HEXLOWER.encode(&Sha256::digest(&body)));
    let is_unchanged = lists_tag(headers, header::IF_NONE_MATCH, &tag) == Some(true);
    let common = [(header::ETAG, tag), (header::CACHE_CONTROL, "private, no-cache".to_owned())];
    if is_unchanged {
        return (StatusCode::NOT_MODIFIED, common).into_response();
    }
    (common, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_have_one_build() {
        let fields = |json: serde_json::Value| -> Vec<String> {
            let submit = serde_json::from_value(json).expect("a request");
            spec(submit).expect_err("invalid").into_iter().map(|violation| violation.field).collect()
        };
        let build = serde_json::json!({"roadrunner": "v2025.1.5", "plugins": []});
        assert_eq!(fields(serde_json::json!({})), ["build"]);
        assert_eq!(fields(serde_json::json!({"build": build, "configuration": ""})), ["configuration"]);
        assert_eq!(fields(serde_json::json!({"build": build, "target": "linux/amd64"})), ["target"]);
        let configuration = "
            [roadrunner]
            ref = 'v2025.1.5'
            [plugins.http]
            module_name = 'github.com/roadrunner-server/http/v5'
            tag = 'v5.2.7'
            [[targets]]
            os = 'linux'
            arch = 'amd64'
            [[targets]]
            os = 'linux'
            arch = 'arm64'
        ";
        assert_eq!(fields(serde_json::json!({"configuration": configuration})), ["target"]);
        let one = serde_json::json!({"configuration": configuration, "target": "linux/arm64", "force": true});
        let (spec, force, _) = spec(serde_json::from_value(one).expect("a request")).expect("valid");
        assert_eq!((spec.target.to_string().as_str(), force), ("linux/arm64", true));
    }
}
