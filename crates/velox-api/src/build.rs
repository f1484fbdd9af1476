//! A build as the API shows it: its id, state, artifact, failure and log.

use std::{fmt, str::FromStr};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The name of a build. It can't be guessed, and names sort by the time at which they were given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(transparent)]
#[cfg_attr(feature = "schema", schema(value_type = String, format = "uuid"))]
pub struct BuildId(Uuid);

impl BuildId {
    /// A new one.
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

/// How far a build is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum BuildState {
    /// It waits for its turn.
    Queued,
    /// A worker has it.
    Running,
    /// The binary is there.
    Succeeded,
    /// It ended without one.
    Failed,
    /// Nobody wanted it any more.
    Cancelled,
}

impl BuildState {
    /// Whether nothing will change any more.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }
}

/// A binary in the artifact store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct ArtifactInfo {
    /// Its SHA-256, in hexadecimal: its name.
    pub sha256: String,
    /// Its size in bytes.
    pub size: u64,
    /// What it is called where it is saved: `rr`, `rr.exe`.
    pub file_name: String,
    /// What it was compiled for, `os/arch`.
    pub target: String,
}

/// Why there is no binary.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct BuildFailure {
    /// What kind of failure.
    pub kind: FailureKind,
    /// What happened and what to do, for people; several lines.
    pub message: String,
}

/// What kind of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// What was asked for can't be built: no such version, for example. A version may be published later: who asks
    /// again gets another try.
    Invalid,
    /// The compiler, or something on the way to it, failed.
    Failed,
    /// Where modules come from doesn't answer as it should: the same may work in a while.
    Unavailable,
    /// It ran into a limit of time, memory, disk or output.
    Limit,
    /// The service itself is in trouble.
    Internal,
}

/// How much a line of the log matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// What the compiler and other programs print.
    Output,
    /// What goes on.
    Info,
    /// What the user should know.
    Warning,
    /// Why it ended.
    Error,
}

/// A line of a build's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct LogEntry {
    /// Its number within the build, from 1, without gaps; the store gives it.
    #[serde(default)]
    pub seq: u64,
    /// When it was said.
    #[cfg_attr(feature = "schema", schema(value_type = String, format = "date-time"))]
    pub time: Timestamp,
    /// How much it matters.
    pub level: Severity,
    /// The line, for people.
    pub text: String,
    /// The phase that it belongs to: `resolve`, `fetch`, `prepare`, `compile`, `link`, `verify`, `publish`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    /// How many things of the phase are done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub done: Option<u64>,
    /// Of how many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
}

impl LogEntry {
    /// A line that is said now, of no phase.
    pub fn new(level: Severity, text: impl Into<String>) -> Self {
        Self {
            seq: 0,
            time: Timestamp::now(),
            level,
            text: text.into(),
            phase: None,
            done: None,
            total: None,
        }
    }
}

/// Where a build stands in the queue. Others may still come before it: tenants take turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct QueuePosition {
    /// From 1, which is next.
    pub at: u64,
    /// How many builds wait, this one included.
    pub of: u64,
}
