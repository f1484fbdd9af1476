//! The error type of the HTTP interfaces. REST clients receive `application/problem+json`
//! (<https://www.rfc-editor.org/rfc/rfc9457>), Connect and gRPC clients a Connect error, browsers a page.

use std::fmt::Display;

use axum::{
    Json,
    http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use connectrpc::ConnectError;
use velox_api::{BuildFailure, FailureKind, Problem, Violation};

use crate::{
    auth::{CHALLENGES, Denied},
    store::StoreError,
};

/// `Retry-After` in seconds for a full queue: the typical duration of a build.
const QUEUE_RETRY_SECONDS: u64 = 15;
/// `Retry-After` in seconds while the service shuts down: the default drain period.
const RESTART_RETRY_SECONDS: u64 = 30;
/// `Retry-After` in seconds for a store failure.
const STORE_RETRY_SECONDS: u64 = 5;

/// The maximum length of the message of a Connect error, which gRPC sends as a header.
pub(crate) const MAX_MESSAGE_BYTES: usize = 6 << 10;
/// The maximum number of violations in a response.
const MAX_VIOLATIONS: usize = 50;
/// `Retry-After` in seconds after a module proxy failed.
const BUILD_RETRY_SECONDS: u64 = 60;

/// The kind of an [`ApiError`], which determines its status, problem type and title.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ApiErrorKind {
    BrokenBody,
    BuildFailed,
    Denied(Denied),
    FailedPrecondition,
    Forbidden,
    Internal,
    InvalidQuery,
    InvalidRequest,
    MalformedJson,
    MethodNotAllowed,
    MisdirectedRequest,
    NotFound,
    Overloaded,
    PreconditionFailed,
    QueueFull,
    RangeNotSatisfiable { size: u64 },
    ShuttingDown,
    TooLarge,
    TooManyBuilds,
    TooSlow,
    Unavailable,
    UnsupportedMediaType,
}

impl ApiErrorKind {
    fn parts(self) -> (StatusCode, &'static str, &'static str) {
        use StatusCode as S;
        match self {
            Self::BrokenBody => (S::BAD_REQUEST, "broken_body", "Incomplete body"),
            Self::BuildFailed => (S::UNPROCESSABLE_ENTITY, "build_failed", "The build failed"),
            Self::Denied(denied) => (denied.status(), denied.reason(), "Access denied"),
            Self::FailedPrecondition => {
                (S::UNPROCESSABLE_ENTITY, "failed_precondition", "Not supported by this service")
            }
            Self::Forbidden => (S::FORBIDDEN, "forbidden", "Not allowed"),
            Self::Internal => (S::INTERNAL_SERVER_ERROR, "internal", "Internal error"),
            Self::InvalidQuery => (S::BAD_REQUEST, "invalid_query", "Invalid query string"),
            Self::InvalidRequest => (S::UNPROCESSABLE_ENTITY, "invalid_request", "Invalid request"),
            Self::MalformedJson => (S::BAD_REQUEST, "malformed_json", "Malformed JSON"),
            Self::MethodNotAllowed => (S::METHOD_NOT_ALLOWED, "method_not_allowed", "Method not allowed"),
            Self::MisdirectedRequest => (S::MISDIRECTED_REQUEST, "misdirected_request", "Unknown host name"),
            Self::NotFound => (S::NOT_FOUND, "not_found", "Not found"),
            Self::Overloaded => (S::SERVICE_UNAVAILABLE, "overloaded", "Too many requests in progress"),
            Self::PreconditionFailed => {
                (S::PRECONDITION_FAILED, "precondition_failed", "Precondition failed")
            }
            Self::QueueFull => (S::TOO_MANY_REQUESTS, "queue_full", "The queue is full"),
            Self::RangeNotSatisfiable { .. } => {
                (S::RANGE_NOT_SATISFIABLE, "range_not_satisfiable", "Range not satisfiable")
            }
            Self::ShuttingDown => (S::SERVICE_UNAVAILABLE, "shutting_down", "The service is shutting down"),
            Self::TooLarge => (S::PAYLOAD_TOO_LARGE, "too_large", "Body too large"),
            Self::TooManyBuilds => (S::TOO_MANY_REQUESTS, "too_many_builds", "Too many builds"),
            Self::TooSlow => (S::REQUEST_TIMEOUT, "too_slow", "Timed out reading the body"),
            Self::Unavailable => {
                (S::SERVICE_UNAVAILABLE, "unavailable", "The service is temporarily unavailable")
            }
            Self::UnsupportedMediaType => {
                (S::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", "Unsupported media type")
            }
        }
    }
}

#[derive(Debug)]
pub(crate) struct ApiError {
    pub(crate) kind: ApiErrorKind,
    message: String,
    /// The invalid fields, which replace the message.
    pub(crate) violations: Vec<Violation>,
    /// `Retry-After`, in seconds.
    pub(crate) retry_after: Option<u64>,
}

impl ApiError {
    pub(crate) fn new(kind: ApiErrorKind, message: impl Display) -> Self {
        Self { kind, message: message.to_string(), violations: Vec::new(), retry_after: None }
    }

    pub(crate) fn not_found(message: impl Display) -> Self {
        Self::new(ApiErrorKind::NotFound, message)
    }

    pub(crate) fn invalid(mut violations: Vec<Violation>) -> Self {
        if let more @ 1.. = violations.len().saturating_sub(MAX_VIOLATIONS) {
            violations.truncate(MAX_VIOLATIONS);
            violations.push(Violation::new("", format!("{more} more fields are invalid")));
        }
        Self::of_fields(ApiErrorKind::InvalidRequest, violations)
    }

    pub(crate) fn of_fields(kind: ApiErrorKind, violations: Vec<Violation>) -> Self {
        Self { violations, ..Self::new(kind, "") }
    }

    /// The error of a request to a service that shuts down; no other node may accept it.
    pub(crate) fn restarting() -> Self {
        let message = "this service accepts no more builds until it has restarted";
        Self::new(ApiErrorKind::ShuttingDown, message).retry_after(RESTART_RETRY_SECONDS)
    }

    /// The error of a failed build.
    pub(crate) fn from_failure(failure: &BuildFailure) -> Self {
        let error = |kind| Self::new(kind, &failure.message);
        match failure.kind {
            FailureKind::Invalid | FailureKind::Failed | FailureKind::Limit => {
                error(ApiErrorKind::BuildFailed)
            }
            FailureKind::Unavailable => error(ApiErrorKind::Unavailable).retry_after(BUILD_RETRY_SECONDS),
            FailureKind::Internal => error(ApiErrorKind::Internal),
        }
    }

    pub(crate) fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    pub(crate) fn status(&self) -> StatusCode {
        self.kind.parts().0
    }

    /// Renames the fields of the violations to those of the client's request.
    pub(crate) fn map_fields(mut self, rename: impl Fn(String) -> String) -> Self {
        for violation in &mut self.violations {
            violation.field = rename(std::mem::take(&mut violation.field));
        }
        self
    }

    pub(crate) fn detail(&self) -> String {
        if self.violations.is_empty() {
            return self.message.clone();
        }
        self.violations.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    }

    fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if self.status() == StatusCode::UNAUTHORIZED {
            for challenge in CHALLENGES {
                headers.append(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
            }
        }
        match self.kind {
            ApiErrorKind::UnsupportedMediaType => {
                headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
            }
            ApiErrorKind::RangeNotSatisfiable { size } => {
                let range = HeaderValue::from_str(&format!("bytes */{size}"));
                headers.extend(range.ok().map(|range| (header::CONTENT_RANGE, range)));
            }
            _ => {}
        }
        headers
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (status, kind, title) = self.kind.parts();
        let problem = Problem {
            kind: kind.to_owned(),
            title: title.to_owned(),
            status: status.as_u16(),
            detail: self.detail(),
            errors: self.violations.clone(),
        };
        let mut response = (status, self.headers(), Json(&problem)).into_response();
        let json = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(header::CONTENT_TYPE, json);
        // For the error page that browsers get instead.
        response.extensions_mut().insert(problem);
        response
    }
}

impl From<ApiError> for ConnectError {
    fn from(error: ApiError) -> Self {
        let message = truncated(&error.detail(), "(the rest is omitted)");
        let converted = match error.kind {
            ApiErrorKind::InvalidRequest | ApiErrorKind::BrokenBody => Self::invalid_argument(message),
            ApiErrorKind::FailedPrecondition => Self::failed_precondition(message),
            ApiErrorKind::Forbidden => Self::permission_denied(message),
            ApiErrorKind::NotFound => Self::not_found(message),
            ApiErrorKind::QueueFull | ApiErrorKind::TooManyBuilds => Self::resource_exhausted(message),
            ApiErrorKind::TooLarge => Self::resource_exhausted(message).with_http_status(error.status()),
            ApiErrorKind::TooSlow => Self::deadline_exceeded(message).with_http_status(error.status()),
            ApiErrorKind::Overloaded | ApiErrorKind::ShuttingDown | ApiErrorKind::Unavailable => {
                Self::unavailable(message)
            }
            ApiErrorKind::Denied(denied) => match denied.status() {
                StatusCode::UNAUTHORIZED => Self::unauthenticated(message),
                StatusCode::TOO_MANY_REQUESTS => Self::resource_exhausted(message),
                _ => Self::permission_denied(message),
            },
            _ => Self::internal(message),
        };
        match error.retry_after {
            Some(seconds) => {
                converted.with_headers(HeaderMap::from_iter([(header::RETRY_AFTER, seconds.into())]))
            }
            None => converted,
        }
    }
}

impl From<Denied> for ApiError {
    fn from(denied: Denied) -> Self {
        Self { retry_after: denied.retry_after(), ..Self::new(ApiErrorKind::Denied(denied), denied) }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::QueueFull { .. } => {
                Self::new(ApiErrorKind::QueueFull, error).retry_after(QUEUE_RETRY_SECONDS)
            }
            StoreError::TenantLimit { .. } => {
                Self::new(ApiErrorKind::TooManyBuilds, error).retry_after(QUEUE_RETRY_SECONDS)
            }
            StoreError::RateLimit { wait } => {
                Self::new(ApiErrorKind::TooManyBuilds, error).retry_after(wait.as_secs() + 1)
            }
            StoreError::DiskFull => {
                Self::new(ApiErrorKind::Unavailable, error).retry_after(STORE_RETRY_SECONDS)
            }
            StoreError::LeaseExpired(_) | StoreError::Failed(_) => {
                // The cause may contain details for the operator only.
                tracing::error!(%error, "a store failed");
                let message = "a store of the service does not respond; try again later";
                Self::new(ApiErrorKind::Unavailable, message).retry_after(STORE_RETRY_SECONDS)
            }
        }
    }
}

/// Shortens a message for a header; `rest` says where the rest is.
pub(crate) fn truncated(message: &str, rest: &str) -> String {
    if message.len() <= MAX_MESSAGE_BYTES {
        return message.to_owned();
    }
    let start = message.get(..message.floor_char_boundary(MAX_MESSAGE_BYTES)).unwrap_or_default();
    format!("{start}…\n{rest}")
}

/// The error for an unknown path.
pub(crate) fn no_such_path(uri: &Uri) -> ApiError {
    ApiError::not_found(format!("no such path: {}; see /v1/openapi.json", uri.path()))
}

/// The error for an unsupported method of a known path.
pub(crate) async fn no_such_method(method: Method, uri: Uri) -> ApiError {
    let message = format!("{method} is not supported by {}; see the Allow header", uri.path());
    ApiError::new(ApiErrorKind::MethodNotAllowed, message)
}
