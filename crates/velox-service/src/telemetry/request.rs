//! What is seen of a request: its id, a span, a line in the log, a count, and, where it is refused, an entry in the audit
//! log.

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
    audit::{Act, Asked},
};
use crate::auth::{Denied, Identity};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The longest id that is taken from a client.
const LONGEST: usize = 64;

/// Watches a request from its start to its answer.
pub(crate) async fn observe(
    State(telemetry): State<Arc<Telemetry>>,
    request: Request,
    next: Next,
) -> Response {
    let started = Instant::now();
    let id = request_id(request.headers());
    let from = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|peer| peer.0.ip());
    // Only paths that the service knows: what others ask for would fill metrics and logs.
    let route =
        request.extensions().get::<MatchedPath>().map_or("other".to_owned(), |path| path.as_str().to_owned());
    let method = known(request.method());
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
    let parent = global::get_text_map_propagator(|known| known.extract(&HeaderExtractor(request.headers())));
    // Without traces nothing is to be set.
    let _ = span.set_parent(parent);
    let asked = Asked { id: id.clone(), from, call: Arc::default() };
    let mut response = asked.answered(next.run(request)).instrument(span.clone()).await;
    let (status, took) = (response.status().as_u16(), started.elapsed());
    span.record("http.response.status_code", status);
    if status >= 500 {
        span.record("otel.status_code", "ERROR");
    }
    telemetry.metrics.request(method, &route, status, took);
    let identity = response.extensions_mut().remove::<Identity>().map(|Identity(caller)| caller);
    let judged = asked.call.status.get().copied().unwrap_or(status);
    telemetry.refusal(&asked, method, &route, judged, identity);
    let from = from.map(|from| from.to_string()).unwrap_or_default();
    let milliseconds = (took.as_secs_f64() * 1e6).round() / 1e3;
    let call_id = asked.call.id.get();
    span.in_scope(|| tracing::info!(status, milliseconds, from, call_id, "answered"));
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response
}

impl Telemetry {
    /// Counts and writes down what was refused.
    fn refusal(
        &self,
        asked: &Asked,
        method: &str,
        route: &str,
        status: u16,
        identity: Option<Result<crate::caller::Caller, Denied>>,
    ) {
        let changes = matches!(method, "POST" | "DELETE");
        let (why, who) = match &identity {
            // Some paths need no token.
            Some(Err(Denied::Missing)) if status < 400 => return,
            Some(Err(denied)) => (denied.word(), None),
            Some(Ok(caller)) if status == 403 => ("forbidden", Some(caller.tenant.0.as_str())),
            Some(Ok(caller)) if changes && status >= 400 => ("refused", Some(caller.tenant.0.as_str())),
            _ => return,
        };
        self.metrics.denied(why);
        let act = Act {
            action: "request",
            decision: why,
            who,
            build: None,
            status: Some(status),
            route: Some(route),
        };
        self.audit.write(Some(asked), &act);
    }
}

/// What the client calls the request, where that is a sane name; else a new one.
fn request_id(headers: &HeaderMap) -> String {
    let sane = |id: &&str| {
        let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        (1..=LONGEST).contains(&id.len()) && id.bytes().all(good)
    };
    let given = headers.get(REQUEST_ID).and_then(|id| id.to_str().ok());
    given.filter(sane).map_or_else(|| Uuid::now_v7().to_string(), str::to_owned)
}

/// A method by its name; all that the service has no use for by one.
fn known(method: &Method) -> &'static str {
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
    fn ids_of_clients_are_taken_where_they_are_sane() {
        let id = |id: &'static str| {
            request_id(&HeaderMap::from_iter([(REQUEST_ID, HeaderValue::from_static(id))]))
        };
        assert_eq!(id("a-B_1.x"), "a-B_1.x");
        for wrong in [
            "",
            "a b",
            "a\tb",
            "<a>",
            "0123456789012345678901234567890123456789012345678901234567890123456789",
        ] {
            assert!(Uuid::try_parse(&id(wrong)).is_ok(), "{wrong}");
        }
    }
}
