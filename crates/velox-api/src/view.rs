//! The JSON of the REST API; `/v1/openapi.json` describes it to others.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    build::{ArtifactInfo, BuildFailure, BuildId, BuildState, QueuePosition},
    spec::{BuildSpec, Violation},
};

/// The body of `POST /v1/builds`: `build`, or `configuration`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct SubmitRequest {
    /// What is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build: Option<BuildSpec>,
    /// A `velox.toml` that asks for one target, in any of its formats, as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configuration: Option<String>,
    /// With `configuration`: what to compile for, `os/arch`, instead of what it says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Compile anew, even where the very same server is there already.
    #[serde(default)]
    pub force: bool,
}

/// A build, as `POST /v1/builds` and `GET /v1/builds/{id}` answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct BuildView {
    /// Its name.
    pub id: BuildId,
    /// How far it is.
    pub state: BuildState,
    /// What is asked for.
    pub build: BuildSpec,
    /// Where it waits; with `GET /v1/builds/{id}` alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<QueuePosition>,
    /// How often a worker took it.
    pub attempts: u32,
    /// When it was asked for.
    #[cfg_attr(feature = "schema", schema(value_type = String, format = "date-time"))]
    pub created: Timestamp,
    /// When a worker took it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>, format = "date-time"))]
    pub started: Option<Timestamp>,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>, format = "date-time"))]
    pub finished: Option<Timestamp>,
    /// The binary.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub artifact: Option<ArtifactView>,
    /// RoadRunner's exact version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The Go version that compiled it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub go_version: Option<String>,
    /// What the user should know of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// Why there is no binary.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<BuildFailure>,
    /// Where the rest is.
    pub links: BuildLinks,
}

/// A binary, and where it is.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct ArtifactView {
    /// What it is.
    #[serde(flatten)]
    pub info: ArtifactInfo,
    /// Where it can be downloaded from: a path on this service.
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
    /// The `velox.toml` that says the same.
    pub configuration: String,
    /// Its `velox.lock`, once it succeeded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lock: Option<String>,
    /// Its page.
    pub page: String,
}

/// What is wrong with a request: `application/problem+json` (<https://www.rfc-editor.org/rfc/rfc9457>).
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Problem {
    /// A word for the kind of problem: `invalid_request`, `not_found`, `queue_full`, …
    #[serde(rename = "type")]
    pub kind: String,
    /// A short sentence.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What happened this time, and what to do.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// What is wrong, field by field.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<Violation>,
}

/// Where an artifact is downloaded from.
#[must_use]
pub fn artifact_path(sha256: &str) -> String {
    format!("/v1/artifacts/{sha256}")
}
