//! `/v1/builds/{id}/sbom`, `/attestation` and `/audit`: what is known of the binary of a build.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use utoipa::IntoParams;
use velox_api::BuildId;
use velox_build::SbomFormat;

use super::{
    AppState,
    access::Reader,
    body::{BuildPath, Query},
    builds::attachment,
};
use crate::{
    build::{BuildOutcome, BuildResult, attestation_name},
    error::{ApiError, ApiErrorKind},
};

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct SbomQuery {
    /// The format.
    #[serde(default = "default_format")]
    #[param(value_type = Option<String>, example = "spdx")]
    format: SbomFormat,
}

fn default_format() -> SbomFormat {
    SbomFormat::CycloneDx
}

/// Returns the bill of materials of the binary, as CycloneDX 1.6 or SPDX 2.3.
#[utoipa::path(
    get, path = "/v1/builds/{id}/sbom", tag = "builds", operation_id = "getSbom",
    params(("id" = BuildId, Path, description = "The build"), SbomQuery),
    responses(
        (status = 200, description = "The document", body = String, content_type = "application/json"),
        (status = 400, description = "Unknown format"),
        (status = 404, description = "No such build, or it has no bill of materials"),
    )
)]
pub(crate) async fn sbom(
    State(state): State<Arc<AppState>>,
    _: Reader,
    BuildPath(id): BuildPath,
    Query(SbomQuery { format }): Query<SbomQuery>,
) -> Result<Response, ApiError> {
    let result = result(&state, id).await?;
    let name = format.file_name("rr");
    let kind = match format {
        SbomFormat::CycloneDx => "application/vnd.cyclonedx+json; version=1.6",
        SbomFormat::Spdx => "application/spdx+json",
    };
    document(&state, &result, &name, &name, kind)
        .await?
        .ok_or_else(|| ApiError::not_found(format!("build {id} has no bill of materials: build it again")))
}

/// Returns the SLSA provenance of the binary, in a DSSE envelope signed by this service.
#[utoipa::path(
    get, path = "/v1/builds/{id}/attestation", tag = "builds", operation_id = "getAttestation",
    params(("id" = BuildId, Path, description = "The build")),
    responses(
        (status = 200, description = "The envelope", body = String, content_type = "application/json"),
        (status = 404, description = "No such build, or the service didn't sign it"),
    )
)]
pub(crate) async fn attestation(
    State(state): State<Arc<AppState>>,
    _: Reader,
    BuildPath(id): BuildPath,
) -> Result<Response, ApiError> {
    let result = result(&state, id).await?;
    // https://github.com/in-toto/attestation/blob/main/spec/v1/envelope.md
    let kind = "application/vnd.in-toto+dsse";
    document(&state, &result, &attestation_name(id), "rr.intoto.jsonl", kind).await?.ok_or_else(|| {
        ApiError::not_found(format!("build {id} has no attestation: the service had no key to sign it"))
    })
}

/// Looks up the versions in the binary in the vulnerability database of the service. Whether the vulnerable code is called
/// is not analyzed: `vx audit` does that.
#[utoipa::path(
    get, path = "/v1/builds/{id}/audit", tag = "builds", operation_id = "getAudit",
    params(("id" = BuildId, Path, description = "The build")),
    responses(
        (status = 200, description = "`database`, `database_modified`, `modules` (the number), `vulnerabilities`: `id`, `aliases`, `summary`, `module`, `version`, `fixed`",
            body = Object, content_type = "application/json"),
        (status = 404, description = "No such build, or the service has no vulnerability database"),
        (status = 503, description = "The database can't be read"),
    )
)]
pub(crate) async fn audit(
    State(state): State<Arc<AppState>>,
    _: Reader,
    BuildPath(id): BuildPath,
) -> Result<Response, ApiError> {
    result(&state, id).await?;
    let vulnerabilities = state.vulnerabilities.as_ref().ok_or_else(|| {
        ApiError::not_found("this service has no vulnerability database (--vulnerability-db)".to_owned())
    })?;
    let lock = state.service.store.lock(id).await?;
    let lock = lock.ok_or_else(|| ApiError::not_found(format!("build {id} has no lock")))?;
    let found = vulnerabilities.of_build(id, lock).await.map_err(|error| {
        tracing::warn!(%error, build = %id, "failed to look up vulnerabilities");
        ApiError::new(ApiErrorKind::Unavailable, "the vulnerability database can't be read; try again later")
    })?;
    Ok(Json(&*found).into_response())
}

async fn result(state: &AppState, id: BuildId) -> Result<Box<BuildResult>, ApiError> {
    match state.service.build(id).await?.outcome {
        Some(BuildOutcome::Succeeded(result)) => Ok(result),
        _ => Err(ApiError::not_found(format!("build {id} has no binary"))),
    }
}

async fn document(
    state: &AppState,
    result: &BuildResult,
    name: &str,
    file_name: &str,
    kind: &str,
) -> Result<Option<Response>, ApiError> {
    let content = state.service.artifacts.document(&result.artifact.sha256, name).await?;
    Ok(content.map(|content| attachment(file_name, kind, content)))
}
