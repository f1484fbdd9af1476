//! A build as the API shows it: its id, state, artifact, failure and log.

use std::{fmt, str::FromStr};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The ID of a build: a UUIDv7, so that IDs sort by creation time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(transparent)]
#[cfg_attr(feature = "schema", schema(value_type = String, format = "uuid"))]
pub struct BuildId(Uuid);

impl BuildId {
    /// Creates a new ID.
    #[must_use]
    pub fn new() -> Self {
        Self(Uuid::now_v7())
    }
}

impl Default for BuildId {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for BuildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for BuildId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

/// The state of a build.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum BuildState {
    /// In the queue.
    Queued,
    /// Leased by a worker.
    Running,
    /// Finished with a binary.
    Succeeded,
    /// Finished with an error.
    Failed,
    /// Cancelled by all tenants that requested it.
    Cancelled,
}

impl BuildState {
    /// All states.
    pub const ALL: [Self; 5] = [Self::Queued, Self::Running, Self::Succeeded, Self::Failed, Self::Cancelled];

    /// The name in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether the state is final.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }
}

/// A binary in the artifact store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct ArtifactInfo {
    /// The SHA-256, in hexadecimal.
    pub sha256: String,
    /// The size in bytes.
    pub size: u64,
    /// The file name for downloads: `rr`, `rr.exe`.
    pub file_name: String,
    /// The target, `os/arch`.
    pub target: String,
}

/// The error of a failed build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct BuildFailure {
    /// The kind of failure.
    pub kind: FailureKind,
    /// The error message and help; may have several lines.
    pub message: String,
}

/// The kind of a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// The request can't be built, such as for a missing version. It isn't cached: the version may be
    /// published later.
    Invalid,
    /// The compiler or an earlier phase failed.
    Failed,
    /// A module proxy or forge is unavailable; retrying later may succeed.
    Unavailable,
    /// The build exceeded a limit of time, memory, disk or output.
    Limit,
    /// An internal error of the service.
    Internal,
}

/// The severity of a log entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Output of the compiler and other programs.
    Output,
    /// Progress.
    Info,
    /// A warning.
    Warning,
    /// An error.
    Error,
}

/// An entry of a build's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct LogEntry {
    /// The number within the build, assigned by the store: from 1, without gaps.
    #[serde(default)]
    pub seq: u64,
    /// The time of the entry.
    #[cfg_attr(feature = "schema", schema(value_type = String, format = "date-time"))]
    pub time: Timestamp,
    /// The severity.
    pub level: Severity,
    /// The text.
    pub text: String,
    /// The phase: `resolve`, `fetch`, `prepare`, `compile`, `link`, `verify`, `publish`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    /// The number of completed items of the phase.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub done: Option<u64>,
    /// The number of items of the phase.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
}

impl LogEntry {
    /// Creates an entry with the current time and without a phase.
    pub fn new(level: Severity, text: impl Into<String>) -> Self {
        Self { seq: 0, time: crate::now(), level, text: text.into(), phase: None, done: None, total: None }
    }
}

/// The queue position of a build. Later builds may still overtake it: tenants take turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct QueuePosition {
    /// The position; 1 is next.
    pub at: u64,
    /// The number of queued builds, including this one.
    pub of: u64,
}
