//! What a request is answered with that comes to nothing: `application/problem+json`.

use std::fmt::Display;

use axum::{
    Json,
    http::{HeaderMap, HeaderValue, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use velox_api::{Problem, Violation};

use crate::{policy::PolicyError, service::ServiceError, store::StoreError};

/// When to ask again where the queue is full, in seconds: a build takes about as long.
pub(crate) const FULL: u64 = 15;

/// When to ask again where a store is in trouble, in seconds.
const TROUBLE: u64 = 5;

/// A problem, and the headers that belong to it.
#[derive(Debug)]
pub(crate) struct Wrong {
    status: StatusCode,
    problem: Box<Problem>,
    headers: HeaderMap,
}

impl Wrong {
    pub(crate) fn new(status: StatusCode, kind: &str, title: &str, detail: impl Display) -> Self {
        let problem = Box::new(Problem {
            kind: kind.to_owned(),
            title: title.to_owned(),
            status: status.as_u16(),
            detail: detail.to_string(),
            errors: Vec::new(),
        });
        Self { status, problem, headers: HeaderMap::new() }
    }

    pub(crate) fn header(mut self, name: header::HeaderName, value: impl Into<HeaderValue>) -> Self {
        self.headers.append(name, value.into());
        self
    }

    /// There is nothing of that name.
    pub(crate) fn nothing(what: impl Display) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", "There is nothing here", what)
    }

    /// Fields that are wrong.
    pub(crate) fn invalid(errors: Vec<Violation>) -> Self {
        Self::of_fields(
            StatusCode::UNPROCESSABLE_ENTITY,
            "invalid_request",
            "The request asks for what can't be",
            errors,
        )
    }

    fn of_fields(status: StatusCode, kind: &str, title: &str, errors: Vec<Violation>) -> Self {
        let detail = sentences(&errors);
        let mut wrong = Self::new(status, kind, title, detail);
        wrong.problem.errors = errors;
        wrong
    }

    /// The same with `prefix` before the names of the fields: what was checked was a part of the request.
    pub(crate) fn within(mut self, prefix: &str) -> Self {
        for error in &mut self.problem.errors {
            error.field = match error.field.as_str() {
                "" => prefix.to_owned(),
                field => format!("{prefix}.{field}"),
            };
        }
        if !self.problem.errors.is_empty() {
            self.problem.detail = sentences(&self.problem.errors);
        }
        self
    }
}

/// The violations as one line.
pub(crate) fn sentences(errors: &[Violation]) -> String {
    let said = |error: &Violation| match error.field.as_str() {
        "" => error.message.clone(),
        field => format!("{field}: {}", error.message),
    };
    errors.iter().map(said).collect::<Vec<_>>().join("; ")
}

impl IntoResponse for Wrong {
    fn into_response(self) -> Response {
        let mut response = (self.status, self.headers, Json(&self.problem)).into_response();
        let json = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(header::CONTENT_TYPE, json);
        // Whoever reads HTML gets a page instead.
        response.extensions_mut().insert(*self.problem);
        response
    }
}

impl From<ServiceError> for Wrong {
    fn from(error: ServiceError) -> Self {
        match error {
            ServiceError::Rejected(PolicyError::Invalid(errors)) => Self::invalid(errors),
            ServiceError::Rejected(PolicyError::Forbidden(errors)) => Self::of_fields(
                StatusCode::FORBIDDEN,
                "forbidden",
                "This service doesn't allow what is asked for",
                errors,
            ),
            ServiceError::Rejected(PolicyError::Precondition(error)) => Self::of_fields(
                StatusCode::UNPROCESSABLE_ENTITY,
                "failed_precondition",
                "This service isn't set up for what is asked for",
                vec![error],
            ),
            ServiceError::RateLimited { wait } => Self::new(
                StatusCode::TOO_MANY_REQUESTS,
                "too_many_builds",
                "Too many builds in an hour",
                &error,
            )
            .header(header::RETRY_AFTER, wait.as_secs() + 1),
            ServiceError::NotFound(_) => Self::nothing(error),
            ServiceError::NotOwner(_) => {
                Self::new(StatusCode::FORBIDDEN, "forbidden", "The build is somebody else's", error)
            }
            ServiceError::Store(error) => error.into(),
        }
    }
}

impl From<StoreError> for Wrong {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::QueueFull { .. } => {
                Self::new(StatusCode::TOO_MANY_REQUESTS, "queue_full", "The queue is full", error)
                    .header(header::RETRY_AFTER, FULL)
            }
            StoreError::TenantLimit { .. } => Self::new(
                StatusCode::TOO_MANY_REQUESTS,
                "too_many_builds",
                "Too many builds of yours are on their way",
                error,
            )
            .header(header::RETRY_AFTER, FULL),
            StoreError::LeaseExpired(_) | StoreError::Failed(_) => {
                // What a store says may name what only the operator knows.
                tracing::error!(%error, "a store is in trouble");
                let title = "The service is in trouble";
                let detail = "one of its stores doesn't answer; ask again later";
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", title, detail)
                    .header(header::RETRY_AFTER, TROUBLE)
            }
        }
    }
}

/// The answer of every path that is none.
pub(crate) fn no_such_path(uri: &Uri) -> Wrong {
    Wrong::nothing(format!("there is no {}; /v1/openapi.json describes what there is", uri.path()))
}

/// The answer of every method that a path doesn't have.
pub(crate) async fn no_such_method(method: axum::http::Method, uri: Uri) -> Wrong {
    Wrong::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        "The path has no such method",
        format!("{method} isn't for {}; the Allow header says what is", uri.path()),
    )
}
