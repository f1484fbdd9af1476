//! Bodies, queries and names of requests: read whole, within limits of size and time.

use std::time::Duration;

use axum::{
    body::Body,
    extract::{FromRequest, FromRequestParts, Path, Request},
    http::{HeaderMap, StatusCode, header, request::Parts},
};
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use tokio::sync::{Semaphore, SemaphorePermit};
use velox_api::Violation;

use crate::http::problem::{Wrong, no_such_path};

/// The largest body that is read: a thousand plugins fit in a fifth of it.
pub(crate) const LIMIT: usize = 1 << 20;

/// How long a body may take, however it comes.
const PATIENCE: Duration = Duration::from_secs(20);

/// What all bodies that are on their way may take together, in bytes: however many clients there are, memory has an end.
const TOGETHER: usize = 64 << 20;

static ROOM: Semaphore = Semaphore::const_new(TOGETHER);

/// Why a body wasn't read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unread {
    TooLarge,
    TooSlow,
    Broken,
    /// Too many are on their way.
    NoRoom,
}

impl From<Unread> for Wrong {
    fn from(unread: Unread) -> Self {
        let (status, kind, title, detail) = match unread {
            Unread::TooLarge => {
                (StatusCode::PAYLOAD_TOO_LARGE, "too_large", "The body is too large", "at most 1 MiB is read")
            }
            Unread::TooSlow => (
                StatusCode::REQUEST_TIMEOUT,
                "too_slow",
                "The body took too long",
                "it has to be there within 20 seconds",
            ),
            Unread::Broken => {
                (StatusCode::BAD_REQUEST, "broken_body", "The body ended too early", "send it again")
            }
            Unread::NoRoom => (
                StatusCode::SERVICE_UNAVAILABLE,
                "overloaded",
                "Too many requests are on their way",
                "ask again later",
            ),
        };
        let wrong = Self::new(status, kind, title, detail);
        match unread {
            Unread::NoRoom => wrong.header(header::RETRY_AFTER, 1),
            Unread::TooLarge | Unread::TooSlow | Unread::Broken => wrong,
        }
    }
}

/// The whole body.
pub(crate) async fn read(headers: &HeaderMap, body: Body) -> Result<Bytes, Unread> {
    let length = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    if length.is_some_and(|length: u64| length > LIMIT as u64) {
        return Err(Unread::TooLarge);
    }
    tokio::time::timeout(PATIENCE, collect(Limited::new(body, LIMIT))).await.unwrap_or(Err(Unread::TooSlow))
}

async fn collect(mut body: Limited<Body>) -> Result<Bytes, Unread> {
    let mut room: Option<SemaphorePermit<'static>> = None;
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame =
            frame.map_err(
                |error| {
                    if error.is::<LengthLimitError>() { Unread::TooLarge } else { Unread::Broken }
                },
            )?;
        let Ok(data) = frame.into_data() else { continue };
        let size = u32::try_from(data.len()).map_err(|_| Unread::TooLarge)?;
        let more = ROOM.try_acquire_many(size).map_err(|_| Unread::NoRoom)?;
        match &mut room {
            Some(room) => room.merge(more),
            None => room = Some(more),
        }
        whole.extend_from_slice(&data);
    }
    Ok(whole.freeze())
}

/// A body of JSON. Pages of other sites can't send one without asking first (CORS), which a form could.
pub(crate) struct Json<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Wrong;

    async fn from_request(request: Request, _: &S) -> Result<Self, Wrong> {
        let headers = request.headers();
        if !is_json(headers) {
            let title = "The body has to be JSON";
            let detail = "send it with Content-Type: application/json, and without a Content-Encoding";
            return Err(Wrong::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "unsupported_media_type",
                title,
                detail,
            )
            .header(header::ACCEPT, axum::http::HeaderValue::from_static("application/json")));
        }
        let (parts, body) = request.into_parts();
        parse(&read(&parts.headers, body).await?).map(Self)
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or("?").trim());
    let media_type = text(header::CONTENT_TYPE).and_then(|value| value.split(';').next()).unwrap_or_default();
    media_type.trim().eq_ignore_ascii_case("application/json")
        && text(header::CONTENT_ENCODING).is_none_or(|encoding| encoding.eq_ignore_ascii_case("identity"))
}

/// Reads JSON. What is wrong names its field and its place.
pub(crate) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Wrong> {
    let mut reader = serde_json::Deserializer::from_slice(body);
    let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let path = error.path().to_string();
        let error = error.into_inner();
        if !error.is_data() {
            return malformed(&error);
        }
        let field = if path == "." { String::new() } else { path };
        Wrong::invalid(vec![Violation::new(field, error.to_string())])
    })?;
    reader.end().map_err(|error| malformed(&error))?;
    Ok(value)
}

fn malformed(error: &serde_json::Error) -> Wrong {
    Wrong::new(StatusCode::BAD_REQUEST, "malformed_json", "The body isn't JSON", error)
}

/// The query of a URL.
pub(crate) struct Query<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Wrong;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Wrong> {
        match axum::extract::Query::try_from_uri(&parts.uri) {
            Ok(axum::extract::Query(query)) => Ok(Self(query)),
            Err(error) => Err(Wrong::new(
                StatusCode::BAD_REQUEST,
                "invalid_query",
                "The query of the URL is wrong",
                error.body_text(),
            )),
        }
    }
}

/// What stands in a path where its route leaves a place open.
pub(crate) struct Name(pub(crate) String);

impl<S: Send + Sync> FromRequestParts<S> for Name {
    type Rejection = Wrong;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Wrong> {
        match Path::from_request_parts(parts, state).await {
            Ok(Path(name)) => Ok(Self(name)),
            Err(_) => Err(no_such_path(&parts.uri)),
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse;
    use velox_api::SubmitRequest;

    use super::*;

    async fn problem(body: &str) -> velox_api::Problem {
        let response = parse::<SubmitRequest>(body.as_bytes()).expect_err("it is wrong").into_response();
        let body = response.into_body().collect().await.expect("a body").to_bytes();
        serde_json::from_slice(&body).expect("a problem")
    }

    #[tokio::test]
    async fn what_is_wrong_has_a_place() {
        let malformed = problem("{\"build\": {\n  \"roadrunner\": }}").await;
        assert_eq!((malformed.status, malformed.kind.as_str()), (400, "malformed_json"));
        assert!(malformed.detail.contains("line 2 column"), "{}", malformed.detail);
        let data = problem(r#"{"build": {"roadrunner": "v1.0.0", "plugins": [{"module": 3}]}}"#).await;
        assert_eq!((data.status, data.errors[0].field.as_str()), (422, "build.plugins[0].module"));
        let unknown = problem(r#"{"bulid": {}}"#).await;
        assert!(unknown.detail.contains("unknown field `bulid`"), "{}", unknown.detail);
        let more = problem("{} {}").await;
        assert_eq!((more.status, more.kind.as_str()), (400, "malformed_json"));
        let deep = problem(&format!("{{\"build\": {}", "[".repeat(100_000))).await;
        assert!(deep.status == 400 || deep.status == 422, "{}", deep.status);
    }
}
