//! The JSON of the REST API, described by `/v1/openapi.json`.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    build::{ArtifactInfo, BuildFailure, BuildId, BuildState, QueuePosition},
    spec::{BuildSpec, Violation},
};

/// The body of `POST /v1/builds`: either `build` or `configuration`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct SubmitRequest {
    /// The request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build: Option<BuildSpec>,
    /// A `velox.toml` for one target, in any of its formats, as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configuration: Option<String>,
    /// The target, `os/arch`; overrides the target of `configuration`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Rebuild even if an equal binary exists.
    #[serde(default)]
    pub force: bool,
}

/// A build: the response of `POST /v1/builds` and `GET /v1/builds/{id}`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct BuildView {
    /// The build's ID.
    pub id: BuildId,
    /// The state.
    pub state: BuildState,
    /// The request.
    pub build: BuildSpec,
    /// The queue position; in responses of `GET /v1/builds/{id}` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<QueuePosition>,
    /// The number of attempts.
    pub attempts: u32,
    /// When the build was requested.
    #[cfg_attr(feature = "schema", schema(value_type = String, format = "date-time"))]
    pub created: Timestamp,
    /// When the last attempt started.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>, format = "date-time"))]
    pub started: Option<Timestamp>,
    /// When the build finished.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>, format = "date-time"))]
    pub finished: Option<Timestamp>,
    /// The binary of a successful build.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub artifact: Option<ArtifactView>,
    /// RoadRunner's exact version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The Go version that compiled the binary.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub go_version: Option<String>,
    /// The warnings.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// The error of a failed build.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<BuildFailure>,
    /// Related resources.
    pub links: BuildLinks,
}

/// A binary and its download path.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct ArtifactView {
    /// The binary.
    #[serde(flatten)]
    pub info: ArtifactInfo,
    /// The download path on this service.
    pub path: String,
}

/// Paths on this service.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct BuildLinks {
    /// This build.
    #[serde(rename = "self")]
    pub this: String,
    /// Its log, as server-sent events.
    pub log: String,
    /// The request as a `velox.toml`.
    pub configuration: String,
    /// The `velox.lock` of a successful build.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lock: Option<String>,
    /// The bill of materials of the binary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sbom: Option<String>,
    /// The provenance of the binary, signed by this service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attestation: Option<String>,
    /// Its web page.
    pub page: String,
}

/// An error response: `application/problem+json` (<https://www.rfc-editor.org/rfc/rfc9457>).
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Problem {
    /// The kind of problem: `invalid_request`, `not_found`, `queue_full`, …
    #[serde(rename = "type")]
    pub kind: String,
    /// A short summary.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// The cause and help.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// The violations by field.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<Violation>,
}

/// The download path of an artifact.
#[must_use]
pub fn artifact_path(sha256: &str) -> String {
    format!("/v1/artifacts/{sha256}")
}
