//! Request telemetry: an id, a span, a log line and metrics, and an audit log entry for rejected requests.

use std::{net::SocketAddr, sync::Arc, time::Instant};

use axum::{
    extract::{ConnectInfo, MatchedPath, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method},
    middleware::Next,
    response::Response,
};
use opentelemetry::global;
use opentelemetry_http::HeaderExtractor;
use tracing::Instrument as _;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use uuid::Uuid;

use super::{
    Telemetry,
    audit::{AuditEntry, AuditedRequest},
};
use crate::auth::{Denied, Identity};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The maximum length of a client's request id.
const MAX_ID_BYTES: usize = 64;

pub(crate) async fn observe(
    State(telemetry): State<Arc<Telemetry>>,
    request: Request,
    next: Next,
) -> Response {
    let started = Instant::now();
    let id = request_id(request.headers());
    let from = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|peer| peer.0.ip());
    // Arbitrary paths would create too many metrics.
    let route =
        request.extensions().get::<MatchedPath>().map_or("other".to_owned(), |path| path.as_str().to_owned());
    let method = method_name(request.method());
    let span = tracing::info_span!(
        "request",
        otel.name = format!("{method} {route}"),
        otel.kind = "server",
        otel.status_code = tracing::field::Empty,
        http.request.method = method,
        http.route = route,
        http.response.status_code = tracing::field::Empty,
        request_id = id,
    );
    let parent =
        global::get_text_map_propagator(|propagator| propagator.extract(&HeaderExtractor(request.headers())));
    // Fails if tracing is disabled.
    let _ = span.set_parent(parent);
    let audited = AuditedRequest { id: id.clone(), from, call: Arc::default() };
    let mut response = audited.scope(next.run(request)).instrument(span.clone()).await;
    let (status, took) = (response.status().as_u16(), started.elapsed());
    span.record("http.response.status_code", status);
    if status >= 500 {
        span.record("otel.status_code", "ERROR");
    }
    telemetry.metrics.request(method, &route, status, took);
    let identity = response.extensions_mut().remove::<Identity>().map(|Identity(caller)| caller);
    let call_status = audited.call.status.get().copied().unwrap_or(status);
    telemetry.record_rejection(&audited, method, &route, call_status, identity);
    let from = from.map(|from| from.to_string()).unwrap_or_default();
    let milliseconds = (took.as_secs_f64() * 1e6).round() / 1e3;
    let call_id = audited.call.id.get();
    span.in_scope(|| tracing::info!(status, milliseconds, from, call_id, "handled request"));
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response
}

impl Telemetry {
    /// Counts a rejected request and adds it to the audit log.
    fn record_rejection(
        &self,
        request: &AuditedRequest,
        method: &str,
        route: &str,
        status: u16,
        identity: Option<Result<crate::caller::Caller, Denied>>,
    ) {
        let changes = matches!(method, "POST" | "DELETE");
        let (reason, who) = match &identity {
            // Some routes require no token.
            Some(Err(Denied::TokenMissing)) if status < 400 => return,
            Some(Err(denied)) => (denied.reason(), None),
            Some(Ok(caller)) if status == 403 => ("forbidden", Some(caller.tenant.0.as_str())),
            Some(Ok(caller)) if changes && status >= 400 => ("refused", Some(caller.tenant.0.as_str())),
            _ => return,
        };
        self.metrics.denied(reason);
        let (status, route) = (Some(status), Some(route));
        let entry =
            AuditEntry { action: "request", decision: reason, who, status, route, ..AuditEntry::default() };
        self.audit.write(Some(request), &entry);
    }
}

/// The client's request id if valid, else a new one.
fn request_id(headers: &HeaderMap) -> String {
    let is_valid = |id: &&str| {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        (1..=MAX_ID_BYTES).contains(&id.len()) && id.bytes().all(is_allowed)
    };
    let given = headers.get(REQUEST_ID).and_then(|id| id.to_str().ok());
    given.filter(is_valid).map_or_else(|| Uuid::now_v7().to_string(), str::to_owned)
}

/// The name of a supported method, or `other`.
fn method_name(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_request_ids_are_replaced() {
        let id = |id: &'static str| {
            request_id(&HeaderMap::from_iter([(REQUEST_ID, HeaderValue::from_static(id))]))
        };
        assert_eq!(id("a-B_1.x"), "a-B_1.x");
        for invalid in [
            "",
            "a b",
            "a\tb",
            "<a>",
            "0123456789012345678901234567890123456789012345678901234567890123456789",
        ] {
            assert!(Uuid::try_parse(&id(invalid)).is_ok(), "{invalid}");
        }
    }
}
