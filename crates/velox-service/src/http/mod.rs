//! The service over HTTP: REST with its OpenAPI document, Connect and gRPC, all on one port.

mod artifacts;
pub(crate) mod body;
pub(crate) mod builds;
mod catalogue;
pub(crate) mod health;
pub(crate) mod listener;
mod log;
pub(crate) mod problem;
pub(crate) mod rpc;
pub(crate) mod tls;
pub(crate) mod who;

use std::sync::Arc;

use axum::{
    Router,
    extract::Request,
    http::{HeaderName, HeaderValue, Method, StatusCode, header},
    middleware::{from_fn, from_fn_with_state},
    response::IntoResponse,
    routing::{any, get},
};
use bytes::Bytes;
use connectrpc_reflection::ReflectionError;
use tokio_util::sync::CancellationToken;
use tower::ServiceBuilder;
use tower_http::{
    catch_panic::CatchPanicLayer,
    cors::{AllowHeaders, AllowOrigin, CorsLayer, ExposeHeaders},
    set_header::SetResponseHeaderLayer,
};
use utoipa::{
    OpenApi,
    openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme},
};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    auth::Tokens,
    http::problem::Wrong,
    page,
    releases::Releases,
    service::Service,
    telemetry::{self, Telemetry},
};

/// What all requests share.
pub(crate) struct Site {
    pub(crate) telemetry: Arc<Telemetry>,
    pub(crate) service: Service,
    pub(crate) tokens: Tokens,
    pub(crate) releases: Releases,
    /// The service is to be shut down: what would go on for long ends, and can be asked for again.
    pub(crate) draining: CancellationToken,
    /// The time to drain is over: all that is left ends.
    pub(crate) closing: CancellationToken,
}

/// Who may come, from where.
#[derive(Debug, Clone, Default)]
pub(crate) struct Entrance {
    /// Pages of these origins may use the API.
    pub(crate) origins: Vec<HeaderValue>,
    /// Only this machine's own names are served.
    pub(crate) own_names: bool,
    /// It is reached by TLS alone.
    pub(crate) secure: bool,
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "vx server",
        description = "RoadRunner servers on demand.",
        license(name = "MIT", identifier = "MIT")
    ),
    tags(
        (name = "builds", description = "Ask for a server, and follow how it is built"),
        (name = "artifacts", description = "The binaries"),
        (name = "catalogue", description = "What can be chosen from"),
        (name = "operations", description = "For those who run the service"),
    ),
    components(schemas(velox_api::LogEntry)),
)]
struct Document;

/// All paths.
///
/// # Errors
/// What reflection would tell can't be read.
pub(crate) fn router(site: &Arc<Site>, entrance: &Entrance) -> Result<Router, ReflectionError> {
    let (api, mut document) = api().split_for_parts();
    secured(&mut document);
    // A document is made of texts and maps, for which JSON has a form.
    let document = Bytes::from(serde_json::to_vec(&document).unwrap_or_default());
    let document = move || {
        let document = document.clone();
        async move { ([(header::CONTENT_TYPE, "application/json")], document) }
    };
    let services = rpc::services(site)?;
    let (calls, streams, others) = (services.clone(), services.clone(), services);
    let unary = any(move |request: Request| rpc::unary(calls.clone(), request));
    let streaming = any(move |request: Request| rpc::streaming(streams.clone(), request));
    let fallback = move |request: Request| {
        let others = others.clone();
        async move {
            if rpc::is_call(request.headers()) {
                rpc::streaming(others, request).await
            } else {
                problem::no_such_path(request.uri()).into_response()
            }
        }
    };
    let mut router = api
        .merge(page::routes(site.service.clone(), site.releases.clone()))
        .route("/metrics", get(health::metrics))
        .route("/v1/openapi.json", get(document))
        .route("/api.service.v1.BuildService/{method}", unary)
        .route("/grpc.health.v1.Health/{method}", streaming.clone())
        .route("/grpc.reflection.v1.ServerReflection/{method}", streaming.clone())
        .route("/grpc.reflection.v1alpha.ServerReflection/{method}", streaming)
        .fallback(fallback)
        .method_not_allowed_fallback(problem::no_such_method)
        .layer(from_fn_with_state(Arc::clone(site), who::identify))
        .with_state(Arc::clone(site));
    if !entrance.origins.is_empty() {
        router = router.layer(cors(&entrance.origins));
    }
    if entrance.own_names {
        router = router.layer(from_fn(who::own_names));
    }
    if entrance.secure {
        let always = HeaderValue::from_static("max-age=31536000");
        router =
            router.layer(SetResponseHeaderLayer::if_not_present(header::STRICT_TRANSPORT_SECURITY, always));
    }
    Ok(router
        .layer(
            ServiceBuilder::new()
                .layer(default_header(header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
                .layer(default_header(header::X_FRAME_OPTIONS, "DENY"))
                .layer(default_header(header::REFERRER_POLICY, "no-referrer"))
                .layer(default_header(header::CACHE_CONTROL, "no-store"))
                .layer(default_header(
                    header::CONTENT_SECURITY_POLICY,
                    "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
                ))
                .layer(from_fn(page::for_people))
                .layer(CatchPanicLayer::custom(|_| {
                    let title = "The service has a defect";
                    let detail = "what it was asked to do made it fail; please report it";
                    Wrong::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", title, detail).into_response()
                })),
        )
        .layer(from_fn_with_state(Arc::clone(&site.telemetry), telemetry::observe)))
}

/// What the OpenAPI document describes.
fn api() -> OpenApiRouter<Arc<Site>> {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(builds::create))
        .routes(routes!(builds::get, builds::cancel))
        .routes(routes!(builds::configuration))
        .routes(routes!(builds::lock))
        .routes(routes!(log::follow))
        .routes(routes!(artifacts::get))
        .routes(routes!(catalogue::get))
        .routes(routes!(health::alive))
        .routes(routes!(health::ready))
}

/// Says how a token is sent, where one is needed.
fn secured(document: &mut utoipa::openapi::OpenApi) {
    let token = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
    document.components.get_or_insert_default().add_security_scheme("token", token);
    document.security = Some(vec![
        SecurityRequirement::default(),
        SecurityRequirement::new::<_, [String; 0], String>("token", []),
    ]);
}

fn default_header(name: HeaderName, value: &'static str) -> SetResponseHeaderLayer<HeaderValue> {
    SetResponseHeaderLayer::if_not_present(name, HeaderValue::from_static(value))
}

/// Lets pages of these origins use the API: their scripts send a token of their own, never a browser's.
fn cors(origins: &[HeaderValue]) -> CorsLayer {
    let sent = [
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
    let seen = [
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
        .allow_headers(AllowHeaders::list(sent))
        .expose_headers(ExposeHeaders::list(seen))
        .max_age(std::time::Duration::from_secs(600))
}

#[cfg(test)]
mod tests;
