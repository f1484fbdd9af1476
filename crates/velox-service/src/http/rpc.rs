//! `api.service.v1.BuildService` over Connect, gRPC and gRPC-Web, with the reflection and health services.

use std::{sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::Request,
    http::{HeaderMap, StatusCode, header},
    response::Response,
};
use connectrpc::{
    CompressionPolicy, ConnectError, ConnectRpcService, Encodable, RequestContext, Router, ServiceRequest,
    ServiceResult,
};
use connectrpc_health::{Checker, HealthExt, HealthService, Status, StatusStream};
use connectrpc_reflection::{ReflectionError, Reflector};
use futures::stream;
use tower::ServiceExt;
use uuid::Uuid;
use velox_api::{
    BuildId, BuildSpec, BuildState, FailureKind, ModuleVersionSpec, PluginSpec, ReplaceSpec, Violation,
    artifact_path,
};
use velox_manifest::{GoTarget, parse_target};

use super::{
    AppState,
    body::{self, MAX_BODY_BYTES},
    unknown_fields::{IgnoredFields, UnknownFieldCheck},
};
use crate::{
    auth::{Identity, TokenScope},
    build::{Build, BuildOutcome},
    error::{ApiError, truncated},
    proto::api::{
        request::v1::BuildRequest,
        response::v1::BuildResponse,
        service::v1::{BUILD_SERVICE_SERVICE_NAME, BuildService, BuildServiceExt},
    },
    store::{StoreError, Submission},
    telemetry,
};

/// The maximum size of a log in a response; gRPC clients accept messages of 4 MiB by default.
const MAX_LOG_BYTES: usize = 1 << 20;

/// The interval between health checks of a watched service.
const HEALTH_INTERVAL: Duration = Duration::from_secs(5);

/// The descriptors of the protobuf files, for reflection.
const DESCRIPTORS: &[u8] = include_bytes!("../../proto/api.binpb");

/// All services; fails if the descriptors are invalid.
pub(crate) fn services(state: &Arc<AppState>) -> Result<ConnectRpcService, ReflectionError> {
    let router = Arc::new(BuildHandler(Arc::clone(state))).register(Router::new());
    let router = Arc::new(HealthService::new(HealthChecker(Arc::clone(state)))).register(router);
    let router = connectrpc_health::apply_request_limits(router, connectrpc_health::request_limits());
    let router = connectrpc_reflection::install(router, Reflector::from_descriptor_set_bytes(DESCRIPTORS)?);
    let limits = connectrpc::Limits::default()
        .with_max_request_body_size(MAX_BODY_BYTES)
        .with_max_message_size(MAX_BODY_BYTES);
    Ok(ConnectRpcService::new(router)
        .with_interceptor(UnknownFieldCheck)
        .with_limits(limits)
        .with_compression_policy(CompressionPolicy::default()))
}

/// Serves a streaming call; each message has a size limit.
pub(crate) async fn streaming(services: ConnectRpcService, request: Request) -> Response {
    match services.oneshot(request).await {
        Ok(response) => response.map(Body::new),
        Err(never) => match never {},
    }
}

/// Serves a call after reading its whole body.
pub(crate) async fn unary(services: ConnectRpcService, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    match body::read(&parts.headers, body).await {
        Ok(body) => streaming(services, Request::from_parts(parts, Body::from(body))).await,
        Err(error) => {
            let error = ConnectError::from(error);
            telemetry::record_call_status(error.http_status());
            error.into_http_response(&parts.headers).map(Body::new)
        }
    }
}

/// Whether a request is from a gRPC or Connect client, which expects errors of its protocol.
pub(crate) fn is_call(headers: &HeaderMap) -> bool {
    let media_type =
        headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    ["application/grpc", "application/connect+", "application/proto"]
        .iter()
        .any(|own| media_type.starts_with(own))
}

struct BuildHandler(Arc<AppState>);

impl BuildService for BuildHandler {
    async fn build<'a>(
        &'a self,
        context: RequestContext,
        request: ServiceRequest<'_, BuildRequest>,
    ) -> ServiceResult<impl Encodable<BuildResponse> + Send + use<'a>> {
        let state = &self.0;
        let submission = self.submit(&context, request.to_owned_message()).await.map_err(ConnectError::from);
        let status = submission.as_ref().map_or_else(ConnectError::http_status, |_| StatusCode::OK);
        telemetry::record_call_status(status);
        let submission = submission?;
        let id = submission.build().id;
        let ignored = context.extensions().get::<IgnoredFields>().cloned().unwrap_or_default();
        let (build, is_new) = match submission {
            Submission::Finished(build) => (build, false),
            // The deadline of the call does not cancel the build.
            Submission::Queued(_) | Submission::Joined(_) => (wait(state, id).await?, true),
        };
        let path = artifact_of(state, &build).await?;
        let mut logs: String =
            ignored.0.iter().map(|field| format!("warning: unknown field {field} is ignored\n")).collect();
        logs += &if is_new {
            log_tail(state, id).await.map_err(ApiError::from)?
        } else {
            format!("already built; see the log at /v1/builds/{id}/log\n")
        };
        connectrpc::Response::ok(BuildResponse { path, logs, ..BuildResponse::default() })
    }
}

impl BuildHandler {
    async fn submit(&self, context: &RequestContext, call: BuildRequest) -> Result<Submission, ApiError> {
        let caller = Identity::caller(context.extensions(), TokenScope::Build)?;
        if Uuid::try_parse(&call.request_id).is_ok() {
            telemetry::record_call_id(&call.request_id);
        }
        let force = call.force_rebuild;
        let spec = spec(call).map_err(ApiError::invalid)?;
        let submission = self.0.service.submit(&caller, spec, force).await;
        submission.map_err(|error| error.map_fields(protobuf_field))
    }
}

/// Waits for the end of a build; during shutdown, for running builds only.
async fn wait(state: &AppState, id: BuildId) -> Result<Build, ConnectError> {
    let shutdown = async {
        state.draining.cancelled().await;
        let is_queued = state.service.build(id).await.is_ok_and(|build| build.state == BuildState::Queued);
        if !is_queued {
            state.closing.cancelled().await;
        }
    };
    tokio::select! {
        build = state.service.wait(id, None) => build.map_err(ConnectError::from),
        () = shutdown => {
            Err(ConnectError::unavailable("the service is shutting down and keeps the build; repeat the request"))
        }
    }
}

/// The path of the binary for local clients or for downloads, or the error of the build.
async fn artifact_of(state: &AppState, build: &Build) -> Result<String, ConnectError> {
    match &build.outcome {
        Some(BuildOutcome::Succeeded(result)) => {
            let shared = state.service.shared_path(result, &build.spec.target).await;
            let shared = shared.map_err(|error| {
                tracing::error!(%error, build = %build.id, "failed to share an artifact");
                ConnectError::unavailable(
                    "the binary was built, but can't be written to the shared directory",
                )
            })?;
            Ok(match shared {
                Some(file) => file.to_string_lossy().into_owned(),
                None => artifact_path(&result.artifact.sha256),
            })
        }
        Some(BuildOutcome::Failed(failure)) => {
            let rest = format!("see the rest at /v1/builds/{}/log", build.id);
            let message = truncated(&failure.message, &rest);
            Err(match failure.kind {
                FailureKind::Invalid => ConnectError::invalid_argument(message),
                FailureKind::Limit => ConnectError::resource_exhausted(message),
                FailureKind::Unavailable => ConnectError::unavailable(message),
                FailureKind::Failed | FailureKind::Internal => ConnectError::internal(message),
            })
        }
        None => Err(ConnectError::aborted(format!("build {} was cancelled", build.id))),
    }
}

async fn log_tail(state: &AppState, id: BuildId) -> Result<String, StoreError> {
    let mut text = String::new();
    for entry in state.service.store.log_end(id, MAX_LOG_BYTES).await? {
        text.push_str(&entry.text);
        text.push('\n');
    }
    text.drain(..text.ceil_char_boundary(text.len().saturating_sub(MAX_LOG_BYTES)));
    Ok(text)
}

/// Converts a request. Applies the validation rules of Velox's protobuf files, with their field names;
/// [`BuildSpec::normalized`] has further rules.
pub(crate) fn spec(request: BuildRequest) -> Result<BuildSpec, Vec<Violation>> {
    let platform = request.target_platform.as_option();
    let platform = platform.map(|it| (it.os.clone(), it.arch.clone()));
    let platform = platform.filter(|(os, arch)| !os.is_empty() || !arch.is_empty());
    let plugins = request.plugins.into_iter().map(|it| PluginSpec::new(it.module_name, it.tag)).collect();
    let replaces = request.replaces.into_iter().map(|it| ReplaceSpec::new(it.old, it.new));
    let excludes = request.excludes.into_iter().map(|it| ModuleVersionSpec::new(it.module, it.version));
    let spec = BuildSpec {
        replaces: replaces.collect(),
        excludes: excludes.collect(),
        debug: request.debug,
        race: request.race,
        ..BuildSpec::new(request.rr_version, plugins)
    };
    let rename = |it: Violation| Violation { field: protobuf_field(it.field), ..it };
    spec.check_size().map_err(|violations| violations.into_iter().map(rename).collect::<Vec<_>>())?;

    let mut violations = Vec::new();
    let mut require = |field: String, value: &str| {
        if value.is_empty() {
            violations.push(Violation::new(field, "missing"));
        }
    };
    require("rr_version".to_owned(), &spec.roadrunner);
    for (at, plugin) in spec.plugins.iter().enumerate() {
        require(format!("plugins[{at}].module_name"), &plugin.module);
        require(format!("plugins[{at}].tag"), &plugin.reference);
    }
    for (at, replace) in spec.replaces.iter().enumerate() {
        require(format!("replaces[{at}].new"), &replace.new);
        require(format!("replaces[{at}].old"), &replace.old);
    }
    for (at, exclude) in spec.excludes.iter().enumerate() {
        require(format!("excludes[{at}].module"), &exclude.module);
        require(format!("excludes[{at}].version"), &exclude.version);
    }
    if let Some((os, arch)) = &platform {
        require("target_platform.os".to_owned(), os);
        require("target_platform.arch".to_owned(), arch);
    }
    if spec.plugins.is_empty() {
        violations.push(Violation::new("plugins", "at least one plugin is required"));
    }
    if !request.request_id.is_empty() && Uuid::try_parse(&request.request_id).is_err() {
        violations.push(Violation::new("request_id", "not a UUID"));
    }
    if !violations.is_empty() {
        return Err(violations);
    }
    let target = match platform {
        Some((os, arch)) => parse_target(&format!("{os}/{arch}"))
            .map_err(|message| vec![Violation::new("target_platform", message)])?,
        None => GoTarget::host(),
    };
    Ok(BuildSpec { target, ..spec })
}

/// The protobuf name of a field of [`BuildSpec`].
fn protobuf_field(field: String) -> String {
    match field.as_str() {
        "roadrunner" => "rr_version".to_owned(),
        "target" => "target_platform".to_owned(),
        list if list.starts_with("plugins[") => {
            list.replace("].module", "].module_name").replace("].ref", "].tag")
        }
        _ => field,
    }
}

struct HealthChecker(Arc<AppState>);

impl HealthChecker {
    async fn status(&self) -> Status {
        if self.0.readiness.check().await.is_ok() { Status::Serving } else { Status::NotServing }
    }
}

impl Checker for HealthChecker {
    async fn check(&self, service: &str) -> Result<Status, ConnectError> {
        if !service.is_empty() && service != BUILD_SERVICE_SERVICE_NAME {
            return Err(ConnectError::not_found(format!("no such service: {service}")));
        }
        Ok(self.status().await)
    }

    async fn watch(&self, service: &str) -> Result<StatusStream, ConnectError> {
        let first = self.check(service).await?;
        let checker = Self(Arc::clone(&self.0));
        let changes = stream::unfold((checker, first), async |(checker, last)| {
            let (draining, closing) = (&checker.0.draining, &checker.0.closing);
            let mut status = last;
            while status == last && !closing.is_cancelled() {
                tokio::select! {
                    () = tokio::time::sleep(HEALTH_INTERVAL) => {}
                    () = draining.cancelled(), if status == Status::Serving => {}
                    () = closing.cancelled() => {}
                }
                status = checker.status().await;
            }
            (status != last).then_some((status, (checker, status)))
        });
        Ok(StatusStream::new(stream::StreamExt::chain(stream::iter([first]), changes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_messages_are_truncated() {
        use crate::error::MAX_MESSAGE_BYTES;

        let long = truncated(&"é".repeat(MAX_MESSAGE_BYTES), "see the log");
        assert!(
            long.starts_with('é') && long.len() < MAX_MESSAGE_BYTES + 100 && long.ends_with("see the log")
        );
        assert_eq!(truncated("short", "see the log"), "short");
    }
}
