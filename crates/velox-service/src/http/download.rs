//! `/v1/download`: a binary by the query of its request, for clients that only know GET.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use axum::{
    Json,
    extract::{RawQuery, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use tokio::time::Instant;
use url::form_urlencoded;
use velox_api::{ArtifactInfo, BuildSpec, BuildView, ModuleVersionSpec, PluginSpec, ReplaceSpec, Violation};
use velox_manifest::{catalogue, parse_target};

use super::{
    AppState,
    access::{Builder, Reader, check_origin},
    artifacts,
    builds::MAX_WAIT_SECONDS,
};
use crate::{build::BuildOutcome, error::ApiError};

/// `Retry-After` in seconds while a build is queued or running.
const RETRY_SECONDS: u64 = 5;

/// Returns the binary of a request, which is built if no equal one exists.
#[utoipa::path(
    get, path = "/v1/download", tag = "artifacts", operation_id = "download",
    params(
        ("roadrunner" = String, Query, description = "RoadRunner's tag, branch or commit"),
        ("plugin" = Vec<String>, Query, explode, description = "A plugin as `MODULE@REF`, or a known plugin as `NAME@REF`; without REF the latest release. Can be repeated"),
        ("target" = Option<String>, Query, description = "The target, `os/arch`; default: the service's own platform"),
        ("replace" = Option<Vec<String>>, Query, explode, description = "A replacement as `OLD=NEW@VERSION`. Can be repeated"),
        ("exclude" = Option<Vec<String>>, Query, explode, description = "An excluded version as `MODULE@VERSION`. Can be repeated"),
        ("require" = Option<Vec<String>>, Query, explode, description = "The lowest version of a module as `MODULE@VERSION`. Can be repeated"),
        ("go" = Option<String>, Query, description = "The Go toolchain: `1.26` (its newest patch release), `1.26.4`, or `release`"),
        ("tag" = Option<Vec<String>>, Query, explode, description = "A build tag. Can be repeated"),
        ("debug" = Option<bool>, Query, description = "Keep debug information"),
        ("race" = Option<bool>, Query, description = "Compile with the race detector"),
        ("strict" = Option<bool>, Query, description = "Fail if minimal version selection raises a plugin's version"),
        ("dependencies" = Option<String>, Query, description = "`release` or `minimal`"),
        ("stamp_version" = Option<String>, Query, description = "The version stamped into the binary"),
        ("stamp_time" = Option<String>, Query, description = "The build time stamped into the binary"),
        ("wait" = Option<u64>, Query, minimum = 0, maximum = 60, description = "Respond when the build has ended, or after this many seconds (at most 60)"),
        ("range" = Option<String>, Header, description = "One range of bytes"),
        ("if-range" = Option<String>, Header, description = "The ETag that the range belongs to"),
        ("if-none-match" = Option<String>, Header, description = "The ETag of an earlier response")),
    responses(
        (status = 200, description = "The binary", body = Vec<u8>, content_type = "application/octet-stream",
            headers(("etag" = String, description = "The SHA-256"),
                ("content-disposition" = String, description = "The file name, `rr` or `rr.exe`"),
                ("repr-digest" = String, description = "The SHA-256 in the format of RFC 9530"))),
        (status = 202, description = "The build is queued or running; repeat the request", body = BuildView,
            headers(("retry-after" = u64, description = "Seconds"),
                ("location" = String, description = "The path of the build"))),
        (status = 206, description = "The range", body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 304, description = "Not modified"),
        (status = 403, description = "Not allowed"),
        (status = 412, description = "The ETag does not match If-Match"),
        (status = 416, description = "The range is not satisfiable"),
        (status = 422, description = "Invalid request, or the build failed"),
        (status = 429, description = "The queue is full",
            headers(("retry-after" = u64, description = "Seconds"))),
        (status = 503, description = "A store does not respond"),
    )
)]
pub(crate) async fn get(
    State(state): State<Arc<AppState>>,
    Builder(caller): Builder,
    _: Reader,
    RawQuery(query): RawQuery,
    uri: Uri,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    // A page of another site must not start builds. Browsers send no bearer token by themselves.
    let authorization = headers.get(header::AUTHORIZATION).map(|value| value.to_str().unwrap_or_default());
    if !authorization.is_some_and(|text| text.starts_with("Bearer ")) {
        check_origin(&headers, &uri)?;
    }
    let DownloadQuery { spec, wait } = parse(&query.unwrap_or_default()).map_err(ApiError::invalid)?;
    let build = state.service.build_or_submit(&caller, spec).await;
    let mut build = build.map_err(|error| error.map_fields(query_field))?;
    if wait > 0 && !build.state.is_final() {
        let deadline = Instant::now() + Duration::from_secs(wait);
        tokio::select! {
            ended = state.service.wait(build.id, Some(deadline)) => build = ended?,
            () = state.draining.cancelled() => {}
        }
    }
    match &build.outcome {
        Some(BuildOutcome::Succeeded(result)) => {
            let info: &ArtifactInfo = &result.artifact;
            let mut response = artifacts::respond(&state, info, method, headers)?;
            // A later request may have another binary: the release of `latest`, the commit of a branch.
            response
                .headers_mut()
                .insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
            Ok(response)
        }
        Some(BuildOutcome::Failed(failure)) => Err(ApiError::from_failure(failure)),
        None => {
            let queue = state.service.position(&build).await?;
            let view = BuildView { queue, ..build.view() };
            let headers = [
                (header::LOCATION, view.links.this.clone()),
                (header::RETRY_AFTER, RETRY_SECONDS.to_string()),
            ];
            Ok((StatusCode::ACCEPTED, headers, Json(view)).into_response())
        }
    }
}

pub(crate) struct DownloadQuery {
    pub(crate) spec: BuildSpec,
    /// In seconds.
    wait: u64,
}

/// Parses a query.
pub(crate) fn parse(query: &str) -> Result<DownloadQuery, Vec<Violation>> {
    let mut spec = BuildSpec::new("", Vec::new());
    let mut wait = 0;
    let mut violations = Vec::new();
    let mut seen = BTreeSet::new();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        let value = value.trim();
        let is_list = matches!(&*name, "plugin" | "replace" | "exclude" | "require" | "tag");
        let result = if !is_list && !seen.insert(name.clone()) {
            Err("given twice".to_owned())
        } else if value.is_empty() {
            Err("expected a value".to_owned())
        } else {
            set(&mut spec, &mut wait, &name, value)
        };
        if let Err(message) = result {
            violations.push(Violation::new(name, message));
        }
    }
    for (field, is_missing) in
        [("roadrunner", spec.roadrunner.is_empty()), ("plugin", spec.plugins.is_empty())]
    {
        if is_missing && !violations.iter().any(|violation| violation.field == field) {
            violations.push(Violation::new(field, "missing"));
        }
    }
    // Their major versions depend on RoadRunner, which may come last.
    for plugin in spec.plugins.iter_mut().filter(|plugin| !plugin.module.contains('/')) {
        if let Some(known) = catalogue::find(&plugin.module) {
            plugin.module = known.module_path_for(&plugin.reference, Some(&spec.roadrunner));
        }
    }
    if violations.is_empty() { Ok(DownloadQuery { spec, wait }) } else { Err(violations) }
}

/// Sets a field of the request.
fn set(spec: &mut BuildSpec, wait: &mut u64, name: &str, value: &str) -> Result<(), String> {
    match name {
        "roadrunner" => spec.roadrunner = value.to_owned(),
        "plugin" => {
            let (module, reference) = value.split_once('@').unwrap_or((value, "latest"));
            spec.plugins.push(PluginSpec::new(module, reference));
        }
        "replace" => {
            let (old, new) = value.split_once('=').ok_or("expected OLD=NEW@VERSION")?;
            spec.replaces.push(ReplaceSpec::new(old, new));
        }
        "exclude" | "require" => {
            let (module, version) = value.split_once('@').ok_or("expected MODULE@VERSION")?;
            let list = if name == "exclude" { &mut spec.excludes } else { &mut spec.requires };
            list.push(ModuleVersionSpec::new(module, version));
        }
        "go" => spec.go = Some(value.to_owned()),
        "tag" => spec.tags.push(value.to_owned()),
        "target" => spec.target = parse_target(value)?,
        "debug" => spec.debug = parse_flag(value)?,
        "race" => spec.race = parse_flag(value)?,
        "strict" => spec.strict = parse_flag(value)?,
        "dependencies" => spec.dependencies = Some(value.parse()?),
        "stamp_version" => spec.stamp_version = Some(value.to_owned()),
        "stamp_time" => spec.stamp_time = Some(value.to_owned()),
        "wait" => {
            let seconds: u64 = value.parse().map_err(|_| "expected a number of seconds")?;
            *wait = seconds.min(MAX_WAIT_SECONDS);
        }
        _ => return Err("unknown parameter; see /v1/openapi.json".to_owned()),
    }
    Ok(())
}

fn parse_flag(value: &str) -> Result<bool, String> {
    match value {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err("expected true or false".to_owned()),
    }
}

/// The name of a field in the query: `plugins[2].ref` is `plugin`, the third of its name.
fn query_field(field: String) -> String {
    match field.split('[').next().unwrap_or_default() {
        list @ ("plugins" | "replaces" | "excludes" | "requires" | "tags") => {
            field.replacen(list, list.trim_end_matches('s'), 1)
        }
        _ => field,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(query: &str) -> Vec<String> {
        parse(query).err().unwrap_or_default().into_iter().map(|violation| violation.field).collect()
    }

    #[test]
    fn queries() {
        let query = "roadrunner=v2025.1.15&plugin=example.com/a@v1.0.0&plugin=http%40v5.2.0&plugin=rpc&target=linux/arm64\
                     &replace=example.com/b=example.com/c@v1.0.0&exclude=example.com/d@v1.2.3&require=example.com/e@v1.3.0&require=example.com/f@v1.4.0&go=1.26&tag=x&debug=1&strict=false&wait=999";
        let parsed = parse(query).expect("valid");
        let plugins = [
            PluginSpec::new("example.com/a", "v1.0.0"),
            PluginSpec::new("github.com/roadrunner-server/http/v5", "v5.2.0"),
            PluginSpec::new("github.com/roadrunner-server/rpc/v5", "latest"),
        ];
        let spec = BuildSpec {
            target: parse_target("linux/arm64").expect("a target"),
            replaces: vec![ReplaceSpec::new("example.com/b", "example.com/c@v1.0.0")],
            excludes: vec![ModuleVersionSpec::new("example.com/d", "v1.2.3")],
            requires: vec![
                ModuleVersionSpec::new("example.com/e", "v1.3.0"),
                ModuleVersionSpec::new("example.com/f", "v1.4.0"),
            ],
            go: Some("1.26".into()),
            tags: vec!["x".into()],
            debug: true,
            ..BuildSpec::new("v2025.1.15", plugins.into())
        };
        assert_eq!((parsed.spec, parsed.wait), (spec, MAX_WAIT_SECONDS));
    }

    #[test]
    fn errors_name_the_parameter() {
        assert_eq!(fields(""), ["roadrunner", "plugin"]);
        let base = "roadrunner=v1.0.0&plugin=a.b/c@v1.0.0";
        for (more, field) in [
            ("&roadrunner=v2.0.0", "roadrunner"),
            ("&target=linux", "target"),
            ("&debug=yes", "debug"),
            ("&replace=a", "replace"),
            ("&exclude=a", "exclude"),
            ("&wait=soon", "wait"),
            ("&plugins=a", "plugins"),
            ("&plugin=", "plugin"),
            ("&dependencies=newest", "dependencies"),
        ] {
            assert_eq!(fields(&format!("{base}{more}")), [field], "{more}");
        }
        assert_eq!(query_field("plugins[2].ref".to_owned()), "plugin[2].ref");
        assert_eq!(query_field("target".to_owned()), "target");
    }
}
