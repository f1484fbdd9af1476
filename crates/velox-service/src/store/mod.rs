//! Builds, their logs and the queue: one trait with an embedded and a distributed implementation.

#[cfg(test)]
mod behaviour;
mod jetstream;
mod sqlite;
mod turns;

use std::{collections::HashMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::stream::BoxStream;
use jiff::Timestamp;
use velox_api::{ArtifactInfo, BuildFailure, BuildId, FailureKind, LogEntry, QueuePosition};

pub use self::{
    jetstream::{JetStreamOptions, JetStreamStore},
    sqlite::{SqliteOptions, SqliteStore},
};
use crate::build::{Build, BuildOutcome, NewBuild, Tenant};

/// How often a build whose workers die is attempted: it may be what kills them.
const MAX_ATTEMPTS: u32 = 25;

/// What was used within this time is kept, whatever the limits are: a client may be about to download it, and a build about to
/// end with it.
pub(crate) const MIN_RETENTION: Duration = Duration::from_secs(3600);

const WORKER_LOST: &str = "the worker stopped responding; the build is queued again";
const WORKER_STOPPED: &str = "the worker is shutting down; the build is queued again";
const RESUBMITTED: &str = "the build was cancelled and submitted again";

/// The outcome of a build that was attempted too often.
fn too_many_attempts(attempts: u32) -> BuildOutcome {
    let message = format!(
        "the build is abandoned after {attempts} attempts: each time its worker died. The build may cause it, by the memory or \
         the disk space that it needs. The logs of the workers and their machines name the build; submit it again once the \
         cause is fixed."
    );
    BuildOutcome::Failed(BuildFailure { kind: FailureKind::Internal, message })
}

/// Whether a finished build may be reused for the same request: its refs are exact, or it is younger than `time_to_live`.
fn is_fresh(build: &Build, time_to_live: Duration) -> bool {
    let age = build.finished.map(|finished| Timestamp::now().duration_since(finished).unsigned_abs());
    build.spec.is_exact() || age.is_some_and(|age| age < time_to_live)
}

/// An error of a store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The queue takes no more builds.
    #[error("the queue is full: {waiting} builds are waiting")]
    QueueFull {
        /// How many builds are queued.
        waiting: u64,
    },
    /// The tenant has as many unfinished builds as it may.
    #[error("limit of {limit} concurrent builds reached")]
    TenantLimit {
        /// [`NewBuild::at_once`].
        limit: u64,
    },
    /// The lease expired, or another worker has the build.
    #[error("the lease of build {0} expired")]
    LeaseExpired(BuildId),
    /// The store itself failed.
    #[error("{0}")]
    Failed(String),
}

impl From<serde_json::Error> for StoreError {
    fn from(error: serde_json::Error) -> Self {
        Self::Failed(format!("failed to serialize a build: {error}"))
    }
}

/// The result of a submission.
#[derive(Debug, Clone, PartialEq)]
pub enum Submission {
    /// A new build.
    Queued(Build),
    /// An equal build that is queued or running; the tenant is among those who want it now.
    Joined(Build),
    /// An equal build that succeeded and isn't stale.
    Finished(Arc<Build>),
}

impl Submission {
    /// The build.
    #[must_use]
    pub fn build(&self) -> &Build {
        match self {
            Self::Queued(build) | Self::Joined(build) => build,
            Self::Finished(build) => build,
        }
    }
}

/// A worker's temporary ownership of a build.
#[derive(Debug, Clone)]
pub struct Lease {
    /// The build, this attempt counted.
    pub build: Build,
    /// Distinguishes leases of the same build.
    pub token: String,
}

/// Whether a leased build is still wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseStatus {
    /// Go on.
    Active,
    /// All tenants cancelled: stop, then [`BuildStore::finish_cancelled`].
    Cancelled,
}

/// The number of unfinished builds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct QueueDepth {
    /// Builds that wait.
    pub queued: u64,
    /// Builds that workers have.
    pub running: u64,
}

/// Builds, their logs and the queue. What a method returned is durable.
#[async_trait]
pub trait BuildStore: Send + Sync {
    /// Queues a build, or finds one of the same key: a queued or running one, or (without `force`) one that succeeded and is
    /// exact or younger than the store's time to live. Of any number of simultaneous callers on any number of nodes, one gets
    /// [`Submission::Queued`].
    ///
    /// # Errors
    /// [`StoreError::QueueFull`] and [`StoreError::TenantLimit`], for new builds only.
    async fn submit(&self, new: NewBuild) -> Result<Submission, StoreError>;

    /// The build of this id.
    async fn get(&self, id: BuildId) -> Result<Option<Build>, StoreError>;

    /// The newest builds, newest first.
    async fn recent(&self, limit: usize) -> Result<Vec<Build>, StoreError>;

    /// Withdraws the tenant's request. Once no tenant wants the build, it ends: at once where it is queued, else when its worker
    /// extends the lease. `None`: there is no such build, or the tenant never requested it.
    async fn cancel(&self, id: BuildId, tenant: &Tenant) -> Result<Option<Build>, StoreError>;

    /// At most `limit` log entries after the entry `after` (0: from the start).
    async fn log(&self, id: BuildId, after: u64, limit: usize) -> Result<Vec<LogEntry>, StoreError>;

    /// An item at once, and then whenever the build or its log may have changed. Changes in quick succession may share one.
    async fn watch(&self, id: BuildId) -> Result<BoxStream<'static, ()>, StoreError>;

    /// The artifact of any build with this SHA-256.
    async fn artifact(&self, sha256: &str) -> Result<Option<ArtifactInfo>, StoreError>;

    /// Checks that the store answers.
    async fn ready(&self) -> Result<(), StoreError>;

    /// Waits for a build and leases it. Tenants take turns, however many builds each of them has queued. A lease that isn't
    /// extended ends, and its build is queued again.
    async fn lease(&self, worker: &str) -> Result<Lease, StoreError>;

    /// How long a lease lasts without [`BuildStore::extend`].
    fn lease_time(&self) -> Duration;

    /// Extends the lease.
    ///
    /// # Errors
    /// [`StoreError::LeaseExpired`]: another worker may have the build; discard the result.
    async fn extend(&self, lease: &Lease) -> Result<LeaseStatus, StoreError>;

    /// Appends to the build's log, and numbers the entries.
    async fn append_log(&self, lease: &Lease, entries: Vec<LogEntry>) -> Result<(), StoreError>;

    /// Protects the artifact from removal for [`MIN_RETENTION`]. Must be called each time before it is stored.
    async fn reserve_artifact(&self, lease: &Lease, artifact: &ArtifactInfo) -> Result<(), StoreError>;

    /// Ends the build. Its artifact must be stored.
    async fn finish(&self, lease: &Lease, outcome: BuildOutcome) -> Result<(), StoreError>;

    /// Ends a build that no tenant wants.
    async fn finish_cancelled(&self, lease: &Lease) -> Result<(), StoreError>;

    /// Queues the build again, before all others of its tenant: its worker shuts down.
    async fn release(&self, lease: &Lease) -> Result<(), StoreError>;

    /// The length of the queue.
    async fn depth(&self) -> Result<QueueDepth, StoreError>;

    /// The position of a queued build.
    async fn position(&self, id: BuildId) -> Result<Option<QueuePosition>, StoreError>;

    /// Removes finished builds with their logs: those that ended before `before`, and the oldest beyond `max_builds`. Removes
    /// entries of artifacts without builds that weren't used since `unused_since`. Returns the number of builds. Any number of
    /// nodes may do so at once.
    async fn prune(
        &self,
        before: Timestamp,
        max_builds: u64,
        unused_since: Timestamp,
    ) -> Result<u64, StoreError>;

    /// The artifacts of builds, and those reserved, each with its last use as far as this store knows.
    async fn artifacts(&self) -> Result<HashMap<String, Timestamp>, StoreError>;

    /// Removes an artifact's entry and the builds that made it, so that its bytes can be removed, within a minute. `false`: it was
    /// used since `unused_since` and stays.
    async fn remove_artifact(&self, sha256: &str, unused_since: Timestamp) -> Result<bool, StoreError>;
}
