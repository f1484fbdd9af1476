//! The router of the service: the API and the web page, with the layers that apply to all requests.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    http::{HeaderName, HeaderValue, Method, header},
    middleware::{from_fn, from_fn_with_state},
    response::IntoResponse,
};
use connectrpc_reflection::ReflectionError;
use tower::ServiceBuilder;
use tower_http::{
    catch_panic::CatchPanicLayer,
    cors::{AllowHeaders, AllowOrigin, CorsLayer, ExposeHeaders},
    set_header::SetResponseHeaderLayer,
};

use crate::{
    error::{ApiError, ApiErrorKind},
    http::{
        self, AppState,
        access::{self, AccessConfig},
    },
    page,
    telemetry::observe,
};

/// Builds the router; fails if the protobuf descriptors are invalid.
pub(crate) fn router(state: &Arc<AppState>, access: &AccessConfig) -> Result<Router, ReflectionError> {
    let mut router = http::routes(state)?
        .merge(page::routes(state))
        .layer(from_fn_with_state(Arc::clone(state), access::authenticate))
        .with_state(Arc::clone(state));
    if !access.origins.is_empty() {
        router = router.layer(cors(&access.origins));
    }
    if access.local_only {
        router = router.layer(from_fn(access::require_local_host));
    }
    if access.https_only {
        router = router.layer(default_header(header::STRICT_TRANSPORT_SECURITY, "max-age=31536000"));
    }
    let layers = ServiceBuilder::new()
        .layer(default_header(header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .layer(default_header(header::X_FRAME_OPTIONS, "DENY"))
        .layer(default_header(header::REFERRER_POLICY, "no-referrer"))
        .layer(default_header(header::CACHE_CONTROL, "no-store"))
        .layer(default_header(
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
        ))
        .layer(from_fn(page::show_errors_as_pages))
        .layer(CatchPanicLayer::custom(|_| {
            ApiError::new(ApiErrorKind::Internal, "the request failed unexpectedly; please report this")
                .into_response()
        }));
    let observed = (Arc::clone(&state.service.telemetry), state.tokens.is_token_required());
    Ok(router.layer(layers).layer(from_fn_with_state(observed, observe)))
}

fn default_header(name: HeaderName, value: &'static str) -> SetResponseHeaderLayer<HeaderValue> {
    SetResponseHeaderLayer::if_not_present(name, HeaderValue::from_static(value))
}

/// CORS: scripts of these origins may use the API with their own token; browsers send no credentials.
fn cors(origins: &[HeaderValue]) -> CorsLayer {
    let request_headers = [
        header::ACCEPT,
        header::AUTHORIZATION,
        header::CONTENT_TYPE,
        header::IF_NONE_MATCH,
        header::IF_RANGE,
        header::RANGE,
        HeaderName::from_static("connect-protocol-version"),
        HeaderName::from_static("connect-timeout-ms"),
        HeaderName::from_static("grpc-timeout"),
        HeaderName::from_static("last-event-id"),
        HeaderName::from_static("x-grpc-web"),
        HeaderName::from_static("x-request-id"),
        HeaderName::from_static("x-user-agent"),
    ];
    let response_headers = [
        header::CONTENT_DISPOSITION,
        header::CONTENT_RANGE,
        header::ETAG,
        header::LOCATION,
        header::RETRY_AFTER,
        HeaderName::from_static("grpc-message"),
        HeaderName::from_static("grpc-status"),
        HeaderName::from_static("repr-digest"),
        HeaderName::from_static("x-request-id"),
    ];
    CorsLayer::new()
        .allow_origin(AllowOrigin::list(origins.iter().cloned()))
        .allow_methods([Method::GET, Method::HEAD, Method::POST, Method::DELETE])
        .allow_headers(AllowHeaders::list(request_headers))
        .expose_headers(ExposeHeaders::list(response_headers))
        .max_age(Duration::from_secs(600))
}
