//! A build: what was asked for, how far it is, and what came of it.

use std::{collections::BTreeSet, fmt, str::FromStr};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::Spec;

/// The name of a build. It can't be guessed, and names sort by the time at which they were given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
#[schema(value_type = String, format = "uuid")]
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

/// On whose account a build runs: the name of a token, or an address where nobody needs one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Tenant(pub String);

/// How far a build is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum State {
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

impl State {
    /// Whether nothing will change any more.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }
}

/// A build that is to be queued, unless there is one like it.
#[derive(Debug, Clone)]
pub struct NewBuild {
    /// What is asked for.
    pub spec: Spec,
    /// Who asks.
    pub tenant: Tenant,
    /// Anew, even where the binary is there already. One that is queued or running is shared all the same.
    pub force: bool,
    /// How many builds of the tenant may be queued or running with this one; `None`: as many as the queue takes.
    pub at_once: Option<u64>,
    /// [`Build::trace`].
    pub trace: Option<String>,
}

/// A build as the store keeps it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Build {
    /// Its name.
    pub id: BuildId,
    /// [`Spec::key`].
    pub key: String,
    /// What is asked for.
    pub spec: Spec,
    /// Compile anew, whatever the caches have.
    pub force: bool,
    /// How far it is.
    pub state: State,
    /// On whose account it runs: who asked first.
    pub tenant: Tenant,
    /// Who still wants it; where the last one cancels, it ends.
    pub wanted_by: BTreeSet<Tenant>,
    /// The `traceparent` of the request that asked first (<https://www.w3.org/TR/trace-context/#traceparent-header>), where
    /// traces are kept: whichever process builds, its trace leads there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<String>,
    /// How often a worker took it: more than once where one died.
    pub attempts: u32,
    /// When it was asked for.
    pub created: Timestamp,
    /// When a worker took it, the last time.
    pub started: Option<Timestamp>,
    /// When it ended.
    pub finished: Option<Timestamp>,
    /// What came of it; there with the final states, save for [`State::Cancelled`].
    pub outcome: Option<Outcome>,
}

/// How a build ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// With a binary.
    Made(Box<Made>),
    /// Without one.
    Failed(Failure),
}

/// What a build made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Made {
    /// The binary.
    pub artifact: ArtifactInfo,
    /// RoadRunner's exact version.
    pub version: String,
    /// The Go version that compiled it (`go1.26.8`).
    pub go_version: String,
    /// The `velox.toml` that says the same.
    pub configuration: String,
    /// The `velox.lock` that belongs to it.
    pub lock: String,
    /// The plugins raised by minimal version selection, a sentence each.
    pub warnings: Vec<String>,
}

/// A binary in the artifact store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Failure {
    /// What kind of failure.
    pub kind: FailureKind,
    /// What happened and what to do, for people; several lines.
    pub message: String,
}

/// What kind of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Level {
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Entry {
    /// Its number within the build, from 1, without gaps; the store gives it.
    #[serde(default)]
    pub seq: u64,
    /// When it was said.
    #[schema(value_type = String, format = "date-time")]
    pub time: Timestamp,
    /// How much it matters.
    pub level: Level,
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

impl Entry {
    /// A line that is said now, of no phase.
    pub fn new(level: Level, text: impl Into<String>) -> Self {
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
