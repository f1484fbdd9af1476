//! The REST API with its OpenAPI document, and the RPC services.

pub(crate) mod access;
mod artifacts;
pub(crate) mod body;
pub(crate) mod builds;
mod catalogue;
mod documents;
pub(crate) mod download;
pub(crate) mod health;
pub(crate) mod listener;
mod log;
pub(crate) mod rpc;
pub(crate) mod tls;
mod unknown_fields;

use std::sync::Arc;

use axum::{
    Router,
    extract::Request,
    http::header,
    response::IntoResponse,
    routing::{any, get, post},
};
use bytes::Bytes;
use connectrpc_reflection::ReflectionError;
use tokio_util::sync::CancellationToken;
use utoipa::{
    OpenApi,
    openapi::{
        Content, Ref, RefOr, Response,
        security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme},
    },
};

use crate::{
    auth::TokenStore, error, readiness::Readiness, releases::Releases, service::Service,
    vulnerabilities::Vulnerabilities,
};

/// The shared state of the request handlers.
pub(crate) struct AppState {
    pub(crate) service: Service,
    pub(crate) readiness: Readiness,
    pub(crate) tokens: TokenStore,
    pub(crate) releases: Releases,
    /// `None`: no vulnerability database is configured.
    pub(crate) vulnerabilities: Option<Vulnerabilities>,
    /// Cancelled when the service shuts down: long-running responses end, and clients may retry them.
    pub(crate) draining: CancellationToken,
    /// Cancelled after the drain period: all responses end.
    pub(crate) closing: CancellationToken,
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "vx server",
        description = "RoadRunner binaries on demand.",
        license(name = "MIT", identifier = "MIT")
    ),
    tags(
        (name = "builds", description = "Submit builds and follow their progress"),
        (name = "artifacts", description = "The binaries"),
        (name = "catalogue", description = "Releases, plugins and targets"),
        (name = "operations", description = "Health checks for operators"),
    ),
    paths(
        builds::create,
        builds::get,
        builds::cancel,
        builds::configuration,
        builds::lock,
        documents::sbom,
        documents::attestation,
        documents::audit,
        log::follow,
        artifacts::get,
        download::get,
        catalogue::get,
        health::alive,
        health::ready,
        health::health,
        health::version,
    ),
    components(schemas(velox_api::LogEntry, velox_api::Problem)),
)]
struct Document;

/// Builds the routes of the API; fails if the protobuf descriptors are invalid.
pub(crate) fn routes(state: &Arc<AppState>) -> Result<Router<Arc<AppState>>, ReflectionError> {
    let mut document = Document::openapi();
    complete(&mut document);
    // Serializing the document can't fail.
    let document = Bytes::from(serde_json::to_vec(&document).unwrap_or_default());
    let document = async || ([(header::CONTENT_TYPE, "application/json")], document);
    let services = rpc::services(state)?;
    let (calls, streams, others) = (services.clone(), services.clone(), services);
    let unary = any(move |request: Request| rpc::unary(calls.clone(), request));
    let streaming = any(move |request: Request| rpc::streaming(streams.clone(), request));
    let fallback = async move |request: Request| {
        if rpc::is_call(request.headers()) {
            rpc::streaming(others, request).await
        } else {
            error::no_such_path(request.uri()).into_response()
        }
    };
    Ok(Router::new()
        .route("/v1/builds", post(builds::create))
        .route("/v1/builds/{id}", get(builds::get).delete(builds::cancel))
        .route("/v1/builds/{id}/velox.toml", get(builds::configuration))
        .route("/v1/builds/{id}/velox.lock", get(builds::lock))
        .route("/v1/builds/{id}/sbom", get(documents::sbom))
        .route("/v1/builds/{id}/attestation", get(documents::attestation))
        .route("/v1/builds/{id}/audit", get(documents::audit))
        .route("/v1/builds/{id}/log", get(log::follow))
        .route("/v1/artifacts/{sha256}", get(artifacts::get))
        .route("/v1/download", get(download::get))
        .route("/v1/catalogue", get(catalogue::get))
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready))
        .route("/health", get(health::health))
        .route("/version", get(health::version))
        .route("/metrics", get(health::metrics))
        .route("/v1/openapi.json", get(document))
        .route("/api.service.v1.BuildService/{method}", unary)
        .route("/grpc.health.v1.Health/{method}", streaming.clone())
        .route("/grpc.reflection.v1.ServerReflection/{method}", streaming.clone())
        .route("/grpc.reflection.v1alpha.ServerReflection/{method}", streaming)
        .fallback(fallback)
        .method_not_allowed_fallback(error::no_such_method))
}

/// Adds what the operations have in common: the bearer token, which is optional, and the body of errors.
fn complete(document: &mut utoipa::openapi::OpenApi) {
    let token = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
    document.components.get_or_insert_default().add_security_scheme("token", token);
    document.security = Some(vec![
        SecurityRequirement::default(),
        SecurityRequirement::new::<_, [String; 0], String>("token", []),
    ]);
    let problem = Content::new(Some(Ref::from_schema_name("Problem")));
    for (path, item) in &mut document.paths.paths {
        for operation in [&mut item.get, &mut item.post, &mut item.delete].into_iter().flatten() {
            let responses = &mut operation.responses.responses;
            if path.starts_with("/v1/") {
                let unauthorized = Response::new("Authentication required");
                responses.insert("401".to_owned(), RefOr::T(unauthorized));
            }
            for (_, response) in responses.iter_mut().filter(|(status, _)| status.as_str() >= "400") {
                if let RefOr::T(response) = response {
                    let problem = RefOr::T(problem.clone());
                    response.content.insert("application/problem+json".to_owned(), problem);
                }
            }
        }
    }
}
