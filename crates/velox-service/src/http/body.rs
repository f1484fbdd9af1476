//! Extractors of bodies, queries and path parameters, with limits on size and time.

use std::time::Duration;

use axum::{
    body::Body,
    extract::{FromRequest, FromRequestParts, Path, Request},
    http::{HeaderMap, header, request::Parts},
};
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use tokio::sync::{Semaphore, SemaphorePermit};
use velox_api::{BuildId, Violation};

use crate::error::{ApiError, ApiErrorKind, no_such_path};

/// The maximum size of a body: five times the size of a request with a thousand plugins.
pub(crate) const MAX_BODY_BYTES: usize = 1 << 20;

/// The timeout for receiving a body.
const BODY_TIMEOUT: Duration = Duration::from_secs(20);

/// The memory limit for all bodies being received.
const MAX_BUFFERED_BYTES: usize = 64 << 20;

static BUFFER_BYTES: Semaphore = Semaphore::const_new(MAX_BUFFERED_BYTES);

pub(crate) async fn read(headers: &HeaderMap, body: Body) -> Result<Bytes, ApiError> {
    let length = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    if length.is_some_and(|length: u64| length > MAX_BODY_BYTES as u64) {
        return Err(too_large());
    }
    let collected = tokio::time::timeout(BODY_TIMEOUT, collect(Limited::new(body, MAX_BODY_BYTES))).await;
    collected.unwrap_or_else(|_| {
        let message = "the request body was not received within 20 seconds";
        Err(ApiError::new(ApiErrorKind::TooSlow, message))
    })
}

async fn collect(mut body: Limited<Body>) -> Result<Bytes, ApiError> {
    let mut permits: Option<SemaphorePermit<'static>> = None;
    let mut buffer = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            if error.is::<LengthLimitError>() {
                too_large()
            } else {
                ApiError::new(
                    ApiErrorKind::BrokenBody,
                    "the request body ended early; send the request again",
                )
            }
        })?;
        let Ok(data) = frame.into_data() else { continue };
        let size = u32::try_from(data.len()).map_err(|_| too_large())?;
        let more = BUFFER_BYTES.try_acquire_many(size).map_err(|_| {
            ApiError::new(ApiErrorKind::Overloaded, "too many requests in progress; try again later")
                .retry_after(1)
        })?;
        match &mut permits {
            Some(permits) => permits.merge(more),
            None => permits = Some(more),
        }
        buffer.extend_from_slice(&data);
    }
    Ok(buffer.freeze())
}

fn too_large() -> ApiError {
    ApiError::new(ApiErrorKind::TooLarge, "the request body is larger than 1 MiB")
}

/// A JSON body. Unlike a form, it requires a CORS preflight if sent by a page of another site.
pub(crate) struct Json<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        if !is_json(request.headers()) {
            let message = "expected `Content-Type: application/json` without a Content-Encoding";
            return Err(ApiError::new(ApiErrorKind::UnsupportedMediaType, message));
        }
        let (parts, body) = request.into_parts();
        parse_json(&read(&parts.headers, body).await?).map(Self)
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or("?").trim());
    let media_type = text(header::CONTENT_TYPE).and_then(|value| value.split(';').next()).unwrap_or_default();
    media_type.trim().eq_ignore_ascii_case("application/json")
        && text(header::CONTENT_ENCODING).is_none_or(|encoding| encoding.eq_ignore_ascii_case("identity"))
}

/// Parses JSON; errors contain the field, or the line and column.
pub(crate) fn parse_json<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    let mut reader = serde_json::Deserializer::from_slice(body);
    let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let path = error.path().to_string();
        let error = error.into_inner();
        if !error.is_data() {
            return ApiError::new(ApiErrorKind::MalformedJson, error);
        }
        let field = if path == "." { String::new() } else { path };
        ApiError::invalid(vec![Violation::new(field, error.to_string())])
    })?;
    reader.end().map_err(|error| ApiError::new(ApiErrorKind::MalformedJson, error))?;
    Ok(value)
}

pub(crate) struct Query<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        match axum::extract::Query::try_from_uri(&parts.uri) {
            Ok(axum::extract::Query(query)) => Ok(Self(query)),
            Err(error) => Err(ApiError::new(ApiErrorKind::InvalidQuery, error.body_text())),
        }
    }
}

pub(crate) struct PathParameter(pub(crate) String);

impl<S: Send + Sync> FromRequestParts<S> for PathParameter {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let path = Path::from_request_parts(parts, state).await;
        path.map(|Path(parameter)| Self(parameter)).map_err(|_| no_such_path(&parts.uri))
    }
}

/// The build id of a path.
pub(crate) struct BuildPath(pub(crate) BuildId);

impl<S: Send + Sync> FromRequestParts<S> for BuildPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let PathParameter(id) = PathParameter::from_request_parts(parts, state).await?;
        id.parse().map(Self).map_err(|_| ApiError::not_found(format!("no such build: {id}")))
    }
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse;
    use velox_api::{Problem, SubmitRequest};

    use super::*;

    async fn problem(body: &str) -> Problem {
        let response =
            parse_json::<SubmitRequest>(body.as_bytes()).expect_err("invalid JSON").into_response();
        let body = response.into_body().collect().await.expect("a body").to_bytes();
        serde_json::from_slice(&body).expect("a problem")
    }

    #[tokio::test]
    async fn json_errors_have_a_location() {
        let malformed = problem("{\"build\": {\n  \"roadrunner\": }}").await;
        assert_eq!((malformed.status, malformed.kind.as_str()), (400, "malformed_json"));
        assert!(malformed.detail.contains("line 2 column"), "{}", malformed.detail);
        let data = problem(r#"{"build": {"roadrunner": "v1.0.0", "plugins": [{"module": 3}]}}"#).await;
        assert_eq!((data.status, data.errors[0].field.as_str()), (422, "build.plugins[0].module"));
        let unknown = problem(r#"{"bulid": {}}"#).await;
        assert!(unknown.detail.contains("unknown field `bulid`"), "{}", unknown.detail);
        let trailing = problem("{} {}").await;
        assert_eq!((trailing.status, trailing.kind.as_str()), (400, "malformed_json"));
        let deep = problem(&format!("{{\"build\": {}", "[".repeat(100_000))).await;
        assert!(deep.status == 400 || deep.status == 422, "{}", deep.status);
    }
}
