//! `api.service.v1.BuildService` over Connect, gRPC and gRPC-web, with reflection and health beside it.

use std::{sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::Request,
    http::{HeaderMap, HeaderValue, StatusCode, header},
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
    BuildId, BuildSpec, BuildState, ExcludeSpec, FailureKind, PluginSpec, ReplaceSpec, Violation,
    artifact_path,
};
use velox_manifest::{GoTarget, parse_target};

use crate::{
    auth::{Denied, Identity},
    build::{Build, BuildOutcome},
    caller::TokenScope,
    http::{
        Site,
        body::{self, LIMIT, Unread},
        problem::sentences,
    },
    policy::PolicyError,
    proto::api::{
        request::v1::BuildRequest,
        response::v1::BuildResponse,
        service::v1::{BUILD_SERVICE_SERVICE_NAME, BuildService, BuildServiceExt},
    },
    service::ServiceError,
    store::{StoreError, Submission},
    telemetry,
};

/// How much of a log is sent along: clients of gRPC take 4 MiB at most where nobody told them otherwise.
const LOGS: usize = 1 << 20;

/// How much of a failure is sent as the error's message: over gRPC it is a header.
const MESSAGE: usize = 6 << 10;

/// How often the health that somebody watches is looked at.
const GLANCE: Duration = Duration::from_secs(5);

/// What the protobuf files say, for reflection.
const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/api.binpb"));

/// All services.
///
/// # Errors
/// What reflection would tell can't be read.
pub(crate) fn services(site: &Arc<Site>) -> Result<ConnectRpcService, ReflectionError> {
    let router = Arc::new(Builds(Arc::clone(site))).register(Router::new());
    let router = Arc::new(HealthService::new(Health(Arc::clone(site)))).register(router);
    let router = connectrpc_health::apply_request_limits(router, connectrpc_health::request_limits());
    let router = connectrpc_reflection::install(router, Reflector::from_descriptor_set_bytes(DESCRIPTORS)?);
    let limits = connectrpc::Limits::default().with_max_request_body_size(LIMIT).with_max_message_size(LIMIT);
    Ok(ConnectRpcService::new(router)
        .with_limits(limits)
        .with_compression_policy(CompressionPolicy::default()))
}

/// Hands a call on as it comes: for calls whose messages are bounded one by one.
pub(crate) async fn streaming(services: ConnectRpcService, request: Request) -> Response {
    match services.oneshot(request).await {
        Ok(response) => response.map(Body::new),
        Err(never) => match never {},
    }
}

/// Hands a call on once it is there.
pub(crate) async fn unary(services: ConnectRpcService, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    match body::read(&parts.headers, body).await {
        Ok(body) => streaming(services, Request::from_parts(parts, Body::from(body))).await,
        Err(unread) => {
            let error = unread_error(unread);
            telemetry::judged(error.http_status());
            error.into_http_response(&parts.headers).map(Body::new)
        }
    }
}

fn unread_error(unread: Unread) -> ConnectError {
    match unread {
        Unread::TooLarge => ConnectError::resource_exhausted("the request is larger than 1 MiB")
            .with_http_status(StatusCode::PAYLOAD_TOO_LARGE),
        Unread::TooSlow => ConnectError::deadline_exceeded("the request took longer than 20 seconds")
            .with_http_status(StatusCode::REQUEST_TIMEOUT),
        Unread::Broken => ConnectError::invalid_argument("the request ended too early"),
        Unread::NoRoom => again(ConnectError::unavailable("too many requests are on their way"), 1),
    }
}

/// Whether a request to no path of this service came from a client of gRPC or Connect, which understands only its own.
pub(crate) fn is_call(headers: &HeaderMap) -> bool {
    let media_type =
        headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    ["application/grpc", "application/connect+", "application/proto"]
        .iter()
        .any(|own| media_type.starts_with(own))
}

struct Builds(Arc<Site>);

impl BuildService for Builds {
    async fn build<'a>(
        &'a self,
        context: RequestContext,
        request: ServiceRequest<'_, BuildRequest>,
    ) -> ServiceResult<impl Encodable<BuildResponse> + Send + use<'a>> {
        let site = &self.0;
        let submitted = self.submit(&context, request.to_owned_message()).await;
        telemetry::judged(submitted.as_ref().map_or_else(ConnectError::http_status, |_| StatusCode::OK));
        let submitted = submitted?;
        let id = submitted.build().id;
        let (build, is_new) = match submitted {
            Submission::Finished(build) => (build, false),
            // When the client's deadline is over, only this waiting ends.
            Submission::Queued(_) | Submission::Joined(_) => (Arc::new(ended(site, id).await?), true),
        };
        let path = outcome(&build)?;
        let logs = if is_new {
            text(site, id).await.map_err(refused)?
        } else {
            format!("built before: the log is at /v1/builds/{id}/log\n")
        };
        connectrpc::Response::ok(BuildResponse { path, logs, ..BuildResponse::default() })
    }
}

impl Builds {
    async fn submit(&self, context: &RequestContext, call: BuildRequest) -> Result<Submission, ConnectError> {
        let caller = Identity::caller(context.extensions(), TokenScope::Build).map_err(denied)?;
        if Uuid::try_parse(&call.request_id).is_ok() {
            telemetry::called(&call.request_id);
        }
        let force = call.force_rebuild;
        let spec = spec(call).map_err(invalid)?;
        self.0.service.submit(&caller, spec, force).await.map_err(refused)
    }
}

/// The build once it ended. A service that is shut down still waits for those that run by then.
async fn ended(site: &Site, id: BuildId) -> Result<Build, ConnectError> {
    let left = async {
        site.draining.cancelled().await;
        let waits = site.service.build(id).await.is_ok_and(|build| build.state == BuildState::Queued);
        if !waits {
            site.closing.cancelled().await;
        }
    };
    tokio::select! {
        build = site.service.wait(id, None) => build.map_err(refused),
        () = left => Err(ConnectError::unavailable("the service is shut down, and the build isn't lost: ask again")),
    }
}

/// The path of what was made, or why nothing was.
fn outcome(build: &Build) -> Result<String, ConnectError> {
    match &build.outcome {
        Some(BuildOutcome::Succeeded(made)) => Ok(artifact_path(&made.artifact.sha256)),
        Some(BuildOutcome::Failed(failure)) => {
            let message = shortened(&failure.message, build.id);
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

fn shortened(message: &str, id: BuildId) -> String {
    if message.len() <= MESSAGE {
        return message.to_owned();
    }
    let start = message.get(..message.floor_char_boundary(MESSAGE)).unwrap_or_default();
    format!("{start}…\nthe rest is at /v1/builds/{id}/log")
}

/// The end of the log.
async fn text(site: &Site, id: BuildId) -> Result<String, ServiceError> {
    let mut text = String::new();
    let mut after = 0;
    loop {
        let entries = site.service.store.log(id, after, 1024).await?;
        let Some(last) = entries.last() else { return Ok(text) };
        after = last.seq;
        for entry in &entries {
            text.push_str(&entry.text);
            text.push('\n');
        }
        if text.len() > LOGS {
            text.drain(..text.ceil_char_boundary(text.len() - LOGS));
        }
    }
}

/// What a request asks for.
///
/// # Errors
/// The rules of the existing service's protobuf files, by their names of the fields; [`BuildSpec::normalized`] knows more.
pub(crate) fn spec(request: BuildRequest) -> Result<BuildSpec, Vec<Violation>> {
    let mut wrong = Vec::new();
    let mut needed = |field: String, value: &str| {
        if value.is_empty() {
            wrong.push(Violation::new(field, "it is missing"));
        }
    };
    needed("rr_version".to_owned(), &request.rr_version);
    for (at, plugin) in request.plugins.iter().enumerate() {
        needed(format!("plugins[{at}].module_name"), &plugin.module_name);
        needed(format!("plugins[{at}].tag"), &plugin.tag);
    }
    for (at, replace) in request.replaces.iter().enumerate() {
        needed(format!("replaces[{at}].new"), &replace.new);
        needed(format!("replaces[{at}].old"), &replace.old);
    }
    for (at, exclude) in request.excludes.iter().enumerate() {
        needed(format!("excludes[{at}].module"), &exclude.module);
        needed(format!("excludes[{at}].version"), &exclude.version);
    }
    let platform = request.target_platform.as_option().filter(|it| !it.os.is_empty() || !it.arch.is_empty());
    if let Some(platform) = platform {
        needed("target_platform.os".to_owned(), &platform.os);
        needed("target_platform.arch".to_owned(), &platform.arch);
    }
    if request.plugins.is_empty() {
        wrong.push(Violation::new("plugins", "there has to be one at least"));
    }
    if !request.request_id.is_empty() && Uuid::try_parse(&request.request_id).is_err() {
        wrong.push(Violation::new("request_id", "it is no UUID"));
    }
    if !request.rr_version.is_empty() && !is_version(&request.rr_version) {
        let message = "it has to be a version with its `v` (v2025.1.5), `master`, or a commit of 7 to 40 hexadecimal digits";
        wrong.push(Violation::new("rr_version", message));
    }
    if !wrong.is_empty() {
        return Err(wrong);
    }
    let target = match platform {
        Some(platform) => parse_target(&format!("{}/{}", platform.os, platform.arch))
            .map_err(|message| vec![Violation::new("target_platform", message)])?,
        None => GoTarget::host(),
    };
    let replace = |it: crate::proto::api::request::v1::Replace| ReplaceSpec { old: it.old, new: it.new };
    let exclude =
        |it: crate::proto::api::request::v1::Exclude| ExcludeSpec { module: it.module, version: it.version };
    let plugins = request.plugins.into_iter().map(|it| PluginSpec::new(it.module_name, it.tag)).collect();
    Ok(BuildSpec {
        replaces: request.replaces.into_iter().map(replace).collect(),
        excludes: request.excludes.into_iter().map(exclude).collect(),
        target,
        debug: request.debug,
        race: request.race,
        ..BuildSpec::new(request.rr_version, plugins)
    })
}

/// `^(v\d+\.\d+\.\d+.*|master|[a-f0-9]{7,40})$`, as the existing service has it.
fn is_version(text: &str) -> bool {
    let is_number =
        |part: Option<&str>| part.is_some_and(|part| part.starts_with(|c: char| c.is_ascii_digit()));
    let is_tag = text.strip_prefix('v').is_some_and(|numbers| {
        let mut parts = numbers.splitn(3, '.');
        let mut whole = || {
            parts
                .next()
                .is_some_and(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()))
        };
        whole() && whole() && is_number(parts.next()) && !text.contains(['\n', '\r'])
    });
    let is_commit =
        (7..=40).contains(&text.len()) && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    is_tag || is_commit || text == "master"
}

/// The field of a [`BuildSpec`] as the protobuf files call it.
fn as_protobuf(violation: Violation) -> Violation {
    let Violation { field, message } = violation;
    let renamed = match field.as_str() {
        "roadrunner" => "rr_version".to_owned(),
        "target" => "target_platform".to_owned(),
        list if list.starts_with("plugins[") => {
            list.replace("].module", "].module_name").replace("].ref", "].tag")
        }
        _ => field,
    };
    Violation { field: renamed, message }
}

fn invalid(wrong: Vec<Violation>) -> ConnectError {
    ConnectError::invalid_argument(sentences(&wrong))
}

fn refused(error: ServiceError) -> ConnectError {
    let said = |wrong: Vec<Violation>| sentences(&wrong.into_iter().map(as_protobuf).collect::<Vec<_>>());
    match error {
        ServiceError::Rejected(PolicyError::Invalid(wrong)) => ConnectError::invalid_argument(said(wrong)),
        ServiceError::Rejected(PolicyError::Forbidden(wrong)) => ConnectError::permission_denied(said(wrong)),
        ServiceError::Rejected(PolicyError::Precondition(wrong)) => {
            ConnectError::failed_precondition(said(vec![wrong]))
        }
        ServiceError::NotFound(_) => ConnectError::not_found(error.to_string()),
        ServiceError::NotOwner(_) => ConnectError::permission_denied(error.to_string()),
        ServiceError::RateLimited { wait } => {
            again(ConnectError::resource_exhausted(error.to_string()), wait.as_secs() + 1)
        }
        ServiceError::Store(error @ (StoreError::QueueFull { .. } | StoreError::TenantLimit { .. })) => {
            again(ConnectError::resource_exhausted(error.to_string()), super::problem::FULL)
        }
        ServiceError::Store(error) => {
            // What a store says may name what only the operator knows.
            tracing::error!(%error, "a store is in trouble");
            ConnectError::unavailable("a store of the service doesn't answer; ask again later")
        }
    }
}

fn denied(denied: Denied) -> ConnectError {
    let error = match denied.status() {
        401 => ConnectError::unauthenticated(denied.to_string()),
        429 => ConnectError::resource_exhausted(denied.to_string()),
        _ => ConnectError::permission_denied(denied.to_string()),
    };
    match denied.retry_after() {
        Some(seconds) => again(error, seconds),
        None => error,
    }
}

fn again(error: ConnectError, seconds: u64) -> ConnectError {
    error.with_headers(HeaderMap::from_iter([(header::RETRY_AFTER, HeaderValue::from(seconds))]))
}

struct Health(Arc<Site>);

impl Checker for Health {
    async fn check(&self, service: &str) -> Result<Status, ConnectError> {
        if !service.is_empty() && service != BUILD_SERVICE_SERVICE_NAME {
            return Err(ConnectError::not_found(format!("there is no service {service}")));
        }
        Ok(status(&self.0).await)
    }

    async fn watch(&self, service: &str) -> Result<StatusStream, ConnectError> {
        let first = self.check(service).await?;
        let changes = stream::unfold((Arc::clone(&self.0), first), async |(site, mut known)| {
            let told = known;
            while known == told && !site.closing.is_cancelled() {
                tokio::select! {
                    () = tokio::time::sleep(GLANCE) => {}
                    () = site.draining.cancelled(), if known == Status::Serving => {}
                    () = site.closing.cancelled() => {}
                }
                known = status(&site).await;
            }
            (known != told).then_some((known, (site, known)))
        });
        Ok(StatusStream::new(stream::StreamExt::chain(stream::iter([first]), changes)))
    }
}

async fn status(site: &Site) -> Status {
    if site.is_ready().await.is_ok() { Status::Serving } else { Status::NotServing }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_as_the_existing_service_takes_them() {
        for right in ["v2025.1.5", "v2025.1.5-rc.1", "v1.2.3anything", "master", "abcdef0", &"0".repeat(40)] {
            assert!(is_version(right), "{right}");
        }
        for wrong in [
            "2025.1.5",
            "v2025.1",
            "v2025.1.",
            "vx.1.2",
            "main",
            "abcdef",
            "ABCDEF0",
            &"0".repeat(41),
            "v1.2.3\n",
        ] {
            assert!(!is_version(wrong), "{wrong}");
        }
    }

    #[test]
    fn a_long_message_keeps_its_start() {
        let id = BuildId::new();
        let long = shortened(&"é".repeat(MESSAGE), id);
        assert!(long.starts_with('é') && long.len() < MESSAGE + 100 && long.contains(&id.to_string()));
        assert_eq!(shortened("short", id), "short");
    }
}
