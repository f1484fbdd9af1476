//! The build store (builds, logs and the queue): a trait with an embedded and a distributed implementation.

#[cfg(test)]
pub(crate) mod behaviour;
mod jetstream;
mod sqlite;
mod turns;
mod watch;

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use async_trait::async_trait;
use futures::stream::BoxStream;
use jiff::Timestamp;
use velox_api::{ArtifactInfo, BuildId, LogEntry, QueuePosition};

pub(crate) use self::{jetstream::JetStreamStore, sqlite::SqliteStore};
use crate::build::{Build, BuildOutcome, NewBuild, Tenant};

/// Artifacts used within this time are kept despite all limits: a client may be about to download one, or a
/// build about to finish with it.
pub(crate) const MIN_RETENTION: Duration = Duration::from_secs(3600);

/// The approximate maximum size of the log entries that are read at once.
pub(crate) const MAX_LOG_READ_BYTES: usize = 256 << 10;

const WORKER_LOST: &str = "the worker stopped responding; the build is queued again";
const WORKER_STOPPED: &str = "the worker is shutting down; the build is queued again";
const RESUBMITTED: &str = "the build was cancelled and submitted again";

/// The options of a store.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StoreOptions {
    /// The maximum length of the queue; `None`: as set up by the nodes that accept requests. Tenants without queued
    /// builds may exceed it up to twofold, so that one tenant can't lock out the others.
    pub(crate) queue: Option<u64>,
    /// How long a build with inexact refs is reused.
    pub(crate) time_to_live: Duration,
    /// How long a lease lasts without being extended; in a cluster, the last worker to start sets it for all.
    pub(crate) lease_time: Duration,
}

/// Whether a finished build may be reused: its refs are exact, or it is younger than `time_to_live`.
fn is_fresh(build: &Build, time_to_live: Duration) -> bool {
    let age = build.finished.map(|finished| velox_api::now().duration_since(finished).unsigned_abs());
    build.spec.is_exact() || age.is_some_and(|age| age < time_to_live)
}

/// An error of a store. `waiting` is the number of queued builds, `limit` that of the tenant's unfinished ones, and
/// `wait` the time until another build is accepted.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the fields are described once, above")]
pub enum StoreError {
    /// The queue takes no more builds.
    #[error("the queue is full: {waiting} builds are waiting")]
    QueueFull { waiting: u64 },
    /// The tenant reached its limit of unfinished builds.
    #[error("limit of {limit} concurrent builds reached")]
    TenantLimit { limit: u64 },
    /// The tenant reached its limit of builds per hour.
    #[error("rate limit exceeded: no more builds this hour; retry in {} s", wait.as_secs() + 1)]
    RateLimit { wait: Duration },
    /// The lease expired, or another worker has the build.
    #[error("the lease of build {0} expired")]
    LeaseExpired(BuildId),
    /// The disk has no more space than the service needs for itself.
    #[error("the disk of the service is full")]
    DiskFull,
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
pub(crate) enum Submission {
    Queued(Build),
    /// An equal build that is queued or running, now also requested by the tenant.
    Joined(Build),
    /// An equal build that succeeded and is fresh.
    Finished(Build),
}

impl Submission {
    pub(crate) fn build(&self) -> &Build {
        match self {
            Self::Queued(build) | Self::Joined(build) | Self::Finished(build) => build,
        }
    }

    pub(crate) fn into_build(self) -> Build {
        match self {
            Self::Queued(build) | Self::Joined(build) | Self::Finished(build) => build,
        }
    }
}

/// A worker's temporary ownership of a build.
#[derive(Debug, Clone)]
pub(crate) struct Lease {
    /// The build, including this attempt.
    pub(crate) build: Build,
    /// Distinguishes leases of the same build.
    pub(crate) token: String,
}

/// Whether a leased build is still wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LeaseStatus {
    /// Continue.
    Active,
    /// All tenants cancelled: stop, then call [`BuildStore::finish_cancelled`].
    Cancelled,
}

/// The number of unfinished builds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct QueueDepth {
    /// Queued builds.
    pub(crate) queued: u64,
    /// Running builds.
    pub(crate) running: u64,
}

/// Builds, their logs and the queue. Changes are durable once a method returns.
#[async_trait]
pub(crate) trait BuildStore: Send + Sync {
    /// Queues a build, or returns one of the same key: a queued or running one, or (without `force`) a
    /// successful one that is exact or younger than the store's time to live. Exactly one of several
    /// simultaneous callers on all nodes gets [`Submission::Queued`].
    ///
    /// # Errors
    /// [`StoreError::QueueFull`], [`StoreError::TenantLimit`] and [`StoreError::RateLimit`], for new builds only. The
    /// limits hold for all nodes together.
    async fn submit(&self, new: NewBuild) -> Result<Submission, StoreError>;

    /// The build of this id, without its lock.
    async fn get(&self, id: BuildId) -> Result<Option<Build>, StoreError>;

    /// The `velox.lock` of a successful build.
    async fn lock(&self, id: BuildId) -> Result<Option<String>, StoreError>;

    /// The newest build of this key, if it failed at `since` or later.
    async fn last_failure(&self, key: &str, since: Timestamp) -> Result<Option<Build>, StoreError>;

    /// Withdraws the tenant's request. Without any requesting tenant, a queued build is cancelled at once, a
    /// running one when its worker extends the lease. `None` if the build doesn't exist or the tenant never
    /// requested it.
    async fn cancel(&self, id: BuildId, tenant: &Tenant) -> Result<Option<Build>, StoreError>;

    /// Reads at most `limit` log entries after the entry `after` (0: from the start), and not many more than
    /// `MAX_LOG_READ_BYTES`. Returns none only at the end of the log.
    async fn log(&self, id: BuildId, after: u64, limit: usize) -> Result<Vec<LogEntry>, StoreError>;

    /// The last entries of a build's log, in order: as many as have `bytes` of text, and at least one. Reads
    /// nothing before them.
    async fn log_end(&self, id: BuildId, bytes: usize) -> Result<Vec<LogEntry>, StoreError>;

    /// Yields an item at once, and after changes of the build or its log. Several changes may share one item.
    async fn watch(&self, id: BuildId) -> Result<BoxStream<'static, ()>, StoreError>;

    /// The artifact of any build with this SHA-256.
    async fn artifact(&self, sha256: &str) -> Result<Option<ArtifactInfo>, StoreError>;

    /// Checks that the store responds.
    async fn ready(&self) -> Result<(), StoreError>;

    /// Waits for a build and leases it. Tenants take turns regardless of their number of builds. A lease that
    /// isn't extended expires, and its build is queued again.
    async fn lease(&self, worker: &str) -> Result<Lease, StoreError>;

    /// How long a lease lasts without [`BuildStore::extend`].
    fn lease_time(&self) -> Duration;

    /// Extends the lease.
    ///
    /// # Errors
    /// [`StoreError::LeaseExpired`]: another worker may have the build; discard the result.
    async fn extend(&self, lease: &Lease) -> Result<LeaseStatus, StoreError>;

    /// Numbers the entries and appends them to the build's log.
    async fn append_log(&self, lease: &Lease, entries: Vec<LogEntry>) -> Result<(), StoreError>;

    /// Protects the artifact from removal for one hour. Must be called before each upload.
    async fn reserve_artifact(&self, lease: &Lease, artifact: &ArtifactInfo) -> Result<(), StoreError>;

    /// Finishes the build. Its artifact must be stored.
    async fn finish(&self, lease: &Lease, outcome: BuildOutcome) -> Result<(), StoreError>;

    /// Finishes a cancelled build.
    async fn finish_cancelled(&self, lease: &Lease) -> Result<(), StoreError>;

    /// Queues the build again, before all others of its tenant, since its worker shuts down.
    async fn release(&self, lease: &Lease) -> Result<(), StoreError>;

    /// The length of the queue.
    async fn depth(&self) -> Result<QueueDepth, StoreError>;

    /// The position of a queued build.
    async fn position(&self, id: BuildId) -> Result<Option<QueuePosition>, StoreError>;

    /// Removes finished builds with their logs: those that ended before `before`, and the oldest beyond
    /// `max_builds`. Removes entries of artifacts without builds that weren't used since `unused_since`.
    /// Returns the number of builds. Nodes may do so concurrently.
    async fn prune(
        &self,
        before: Timestamp,
        max_builds: u64,
        unused_since: Timestamp,
    ) -> Result<u64, StoreError>;

    /// The artifacts of builds and the reserved ones, each with its last use as recorded in this store.
    async fn artifacts(&self) -> Result<HashMap<String, Timestamp>, StoreError>;

    /// Removes the entries of artifacts and their builds, except of those that were used since `unused_since`. Returns the
    /// removed ones; the caller must then remove their bytes within a minute.
    async fn remove_artifacts(
        &self,
        sha256s: &[String],
        unused_since: Timestamp,
    ) -> Result<HashSet<String>, StoreError>;
}
