//! Request telemetry: an id, a span, a log line and metrics, and an audit log entry for rejected requests.
//!
//! Requests without a valid token get few lines of their own: anybody could fill a disk with them. The others are
//! counted by address, see [`throttle`](super::throttle).

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Instant,
};

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
    throttle::{LogThrottle, ThrottleKey},
};
use crate::auth::{Denied, Identity, TokenEntry, client_network};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The number of requests per address and interval that have lines of their own, if no token is required.
const MAX_SERVED_LINES: u64 = 100;

/// The maximum length of a client's request id.
const MAX_ID_BYTES: usize = 64;

pub(crate) async fn observe(
    State((telemetry, is_token_required)): State<(Arc<Telemetry>, bool)>,
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
    let rejection = rejection(method, call_status, identity.as_ref());
    if let Some(reason) = rejection {
        telemetry.metrics.denied(reason);
    }
    let has_token = is_token_required && matches!(identity, Some(Ok(_)));
    if has_token || telemetry.throttle.admit_request(from, rejection, identity.as_ref()) {
        if let Some(decision) = rejection {
            let who = identity.as_ref().and_then(|it| it.as_ref().ok()).map(|it| it.name.as_str());
            let (status, route) = (Some(call_status), Some(route.as_str()));
            let entry =
                AuditEntry { action: "request", decision, who, status, route, ..AuditEntry::default() };
            telemetry.audit.write(Some(&audited), &entry);
        }
        let from = from.map(|from| from.to_string()).unwrap_or_default();
        let milliseconds = (took.as_secs_f64() * 1e6).round() / 1e3;
        let call_id = audited.call.id.get();
        span.in_scope(|| tracing::info!(status, milliseconds, from, call_id, "handled request"));
    }
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response
}

/// Why a request was rejected, if it was.
fn rejection(
    method: &str,
    status: u16,
    identity: Option<&Result<TokenEntry, Denied>>,
) -> Option<&'static str> {
    let changes = matches!(method, "POST" | "DELETE");
    match identity? {
        // Some routes require no token.
        Err(Denied::TokenMissing) if status < 400 => None,
        Err(denied) => Some(denied.reason()),
        Ok(_) if status == 403 => Some("forbidden"),
        Ok(_) if changes && status >= 400 => Some("refused"),
        Ok(_) => None,
    }
}

impl LogThrottle {
    /// Whether a request without a token gets a line of its own.
    fn admit_request(
        &self,
        from: Option<IpAddr>,
        reason: Option<&'static str>,
        identity: Option<&Result<TokenEntry, Denied>>,
    ) -> bool {
        // Where no token is required, all users are served without one.
        let is_served = reason.is_none() && matches!(identity, Some(Ok(_)));
        let lines = if is_served { MAX_SERVED_LINES } else { 1 };
        self.admit(ThrottleKey { from: from.map(client_network), reason }, lines)
    }
}

impl Telemetry {
    /// Logs the requests of the last interval that have no lines of their own.
    pub(crate) fn log_counts(&self) {
        for (ThrottleKey { from, reason }, count) in self.throttle.take() {
            let network = from.map_or_else(|| "others".to_owned(), |from| from.to_string());
            if let Some(decision) = reason {
                let (count, network) = (Some(count), Some(network.as_str()));
                let entry =
                    AuditEntry { action: "request", decision, count, network, ..AuditEntry::default() };
                self.audit.write(None, &entry);
            }
            tracing::info!(count, network, reason, "handled more requests");
        }
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
