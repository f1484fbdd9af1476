//! `/v1/builds`: ask for a build, see how far it is, cancel it, get what made it.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use data_encoding::HEXLOWER;
use headers::{ETag, HeaderMapExt, IfNoneMatch};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use tokio::time::Instant;
use utoipa::IntoParams;
use velox_api::{BuildId, BuildSpec, BuildView, Problem, SubmitRequest, Violation};
use velox_manifest::parse_target;

use crate::{
    build::{Build, BuildOutcome},
    http::{
        Site,
        body::{self, Name, Query},
        problem::Wrong,
        who::{Builder, Reader},
    },
    store::Submission,
};

/// The longest that a request may ask to be kept waiting.
const WAIT: u64 = 60;

/// What a request for a build asks for, and whether anew.
///
/// # Errors
/// What is wrong, by the fields of [`SubmitRequest`].
pub(crate) fn spec(submit: SubmitRequest) -> Result<(BuildSpec, bool), Vec<Violation>> {
    let SubmitRequest { build, configuration, target, force } = submit;
    match (build, configuration) {
        (Some(spec), None) if target.is_none() => Ok((spec, force)),
        (Some(_), None) => Err(vec![Violation::new(
            "target",
            "it goes with `configuration`: `build` has a target of its own",
        )]),
        (None, Some(text)) => {
            let mut specs = {
                let target = target.as_deref().map(parse_target).transpose();
                let target = target.map_err(|message| vec![Violation::new("target", message)])?;
                BuildSpec::from_configuration(&text, target.as_ref())?
            };
            match (specs.pop(), specs.len()) {
                (Some(spec), 0) => Ok((spec, force)),
                (Some(last), _) => {
                    let targets: Vec<_> =
                        specs.iter().chain([&last]).map(|spec| spec.target.to_string()).collect();
                    let targets = targets.join(", ");
                    let message = format!("the configuration is for {targets}: a build is for one, name it");
                    Err(vec![Violation::new("target", message)])
                }
                (None, _) => Err(vec![Violation::new("configuration", "it asks for no target")]),
            }
        }
        (None, None) => Err(vec![Violation::new("build", "it is missing: send `build`, or `configuration`")]),
        (Some(_), Some(_)) => {
            Err(vec![Violation::new("configuration", "send either `build` or `configuration`, not both")])
        }
    }
}

/// Asks for a build. Requests for the same server share one.
#[utoipa::path(
    post, path = "/v1/builds", tag = "builds", operation_id = "createBuild",
    request_body = SubmitRequest,
    responses(
        (status = 200, description = "It was built before", body = BuildView,
            headers(("location" = String, description = "Its path"))),
        (status = 202, description = "It is queued or running", body = BuildView,
            headers(("location" = String, description = "Its path"))),
        (status = 400, description = "The body isn't JSON", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "A token is needed", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "It isn't allowed", body = Problem, content_type = "application/problem+json"),
        (status = 408, description = "The body took too long", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "The body is too large", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "The body's type isn't JSON", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "It can't be built", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "The queue is full", body = Problem, content_type = "application/problem+json",
            headers(("retry-after" = u64, description = "Seconds"))),
        (status = 503, description = "A store doesn't answer", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn create(
    State(site): State<Arc<Site>>,
    Builder(caller): Builder,
    body::Json(submit): body::Json<SubmitRequest>,
) -> Result<Response, Wrong> {
    let part = if submit.build.is_some() { Some("build") } else { None };
    let (spec, force) = spec(submit).map_err(Wrong::invalid)?;
    let submitted = site.service.submit(&caller, spec, force).await.map_err(|error| match part {
        Some(part) => Wrong::from(error).within(part),
        None => error.into(),
    })?;
    let status = match submitted {
        Submission::Finished(_) => StatusCode::OK,
        Submission::Queued(_) | Submission::Joined(_) => StatusCode::ACCEPTED,
    };
    let view = submitted.build().view();
    let location = [(header::LOCATION, view.links.this.clone())];
    Ok((status, location, Json(view)).into_response())
}

/// How long to wait.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct Wait {
    /// Answer when the build ended, or after so many seconds, 60 at most.
    #[serde(default)]
    #[param(minimum = 0, maximum = 60)]
    wait: u64,
}

/// Shows a build.
#[utoipa::path(
    get, path = "/v1/builds/{id}", tag = "builds", operation_id = "getBuild",
    params(("id" = BuildId, Path, description = "The build"), Wait,
        ("if-none-match" = Option<String>, Header, description = "The ETag of an earlier answer")),
    responses(
        (status = 200, description = "The build", body = BuildView,
            headers(("etag" = String, description = "Changes when the build or its place in the queue does"))),
        (status = 304, description = "It is as the ETag says"),
        (status = 400, description = "The query is wrong", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "A token is needed", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "There is no such build", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn get(
    State(site): State<Arc<Site>>,
    _: Reader,
    Name(id): Name,
    Query(query): Query<Wait>,
    headers: HeaderMap,
) -> Result<Response, Wrong> {
    let id = named(&id)?;
    let build = if query.wait == 0 {
        site.service.build(id).await?
    } else {
        let deadline = Instant::now() + Duration::from_secs(query.wait.min(WAIT));
        tokio::select! {
            build = site.service.wait(id, Some(deadline)) => build?,
            () = site.draining.cancelled() => site.service.build(id).await?,
        }
    };
    let queue = site.service.position(&build).await?;
    Ok(shown(&BuildView { queue, ..build.view() }, &headers))
}

/// Cancels a build of one's own. It ends where nobody else wants it.
#[utoipa::path(
    delete, path = "/v1/builds/{id}", tag = "builds", operation_id = "cancelBuild",
    params(("id" = BuildId, Path, description = "The build")),
    responses(
        (status = 200, description = "It ended, now or before", body = BuildView),
        (status = 202, description = "It goes on for others, or until its worker hears of it", body = BuildView),
        (status = 401, description = "A token is needed", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "It is somebody else's", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "There is no such build", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn cancel(
    State(site): State<Arc<Site>>,
    Builder(caller): Builder,
    Name(id): Name,
) -> Result<Response, Wrong> {
    let build = site.service.cancel(&caller, named(&id)?).await?;
    let status = if build.state.is_final() { StatusCode::OK } else { StatusCode::ACCEPTED };
    Ok((status, Json(build.view())).into_response())
}

/// The `velox.toml` that says what the build asks for.
#[utoipa::path(
    get, path = "/v1/builds/{id}/velox.toml", tag = "builds", operation_id = "getConfiguration",
    params(("id" = BuildId, Path, description = "The build")),
    responses(
        (status = 200, description = "A configuration for vx", body = String, content_type = "application/toml"),
        (status = 404, description = "There is no such build", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn configuration(
    State(site): State<Arc<Site>>,
    _: Reader,
    Name(id): Name,
) -> Result<Response, Wrong> {
    let build = site.service.build(named(&id)?).await?;
    let text = match build.outcome {
        Some(BuildOutcome::Succeeded(made)) => made.configuration,
        _ => build.spec.configuration(),
    };
    Ok(file("velox.toml", text))
}

/// The `velox.lock` of the build: with the `velox.toml` beside it, `vx build --locked` makes the same server.
#[utoipa::path(
    get, path = "/v1/builds/{id}/velox.lock", tag = "builds", operation_id = "getLock",
    params(("id" = BuildId, Path, description = "The build")),
    responses(
        (status = 200, description = "The lock", body = String, content_type = "application/toml"),
        (status = 404, description = "There is no such build, or it has no lock yet", body = Problem,
            content_type = "application/problem+json"),
    )
)]
pub(crate) async fn lock(
    State(site): State<Arc<Site>>,
    _: Reader,
    Name(id): Name,
) -> Result<Response, Wrong> {
    let build = site.service.build(named(&id)?).await?;
    match build.outcome {
        Some(BuildOutcome::Succeeded(made)) => Ok(file("velox.lock", made.lock)),
        _ => Err(Wrong::nothing(format!("build {} has no lock: it is {}", build.id, word(&build)))),
    }
}

fn file(name: &'static str, text: String) -> Response {
    let disposition = format!("attachment; filename=\"{name}\"");
    ([(header::CONTENT_TYPE, "application/toml"), (header::CONTENT_DISPOSITION, &disposition)], text)
        .into_response()
}

/// The state as the JSON names it.
fn word(build: &Build) -> String {
    let word = serde_json::to_value(build.state).ok();
    word.and_then(|word| word.as_str().map(str::to_owned)).unwrap_or_default()
}

/// The build that a path names.
pub(crate) fn named(id: &str) -> Result<BuildId, Wrong> {
    id.parse().map_err(|_| Wrong::nothing(format!("there is no build {id}")))
}

/// The build, unless it is the one that the request knows.
fn shown(view: &BuildView, headers: &HeaderMap) -> Response {
    // A view is made of texts, numbers and lists, for which JSON has a form.
    let body = serde_json::to_vec(view).unwrap_or_default();
    let tag = format!("\"{}\"", HEXLOWER.encode(&Sha256::digest(&body)));
    let known = headers.typed_get::<IfNoneMatch>().zip(tag.parse::<ETag>().ok());
    let known = known.is_some_and(|(known, tag)| !known.precondition_passes(&tag));
    let common = [
        (header::ETAG, HeaderValue::from_str(&tag).ok()),
        (header::CACHE_CONTROL, Some(HeaderValue::from_static("private, no-cache"))),
    ];
    let common = HeaderMap::from_iter(common.into_iter().filter_map(|(name, value)| Some((name, value?))));
    if known {
        return (StatusCode::NOT_MODIFIED, common).into_response();
    }
    (common, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_asks_for_one_build() {
        let fields = |json: serde_json::Value| -> Vec<String> {
            let submit = serde_json::from_value(json).expect("a request");
            spec(submit).expect_err("it is wrong").into_iter().map(|wrong| wrong.field).collect()
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
        let (spec, force) = spec(serde_json::from_value(one).expect("a request")).expect("it is right");
        assert_eq!((spec.target.to_string().as_str(), force), ("linux/arm64", true));
    }
}
