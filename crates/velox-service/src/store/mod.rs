//! Where builds are kept, and who is next: traits with an embedded and a distributed implementation.

#[cfg(test)]
mod behaviour;
mod jetstream;
mod sqlite;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use async_trait::async_trait;
use futures::stream::BoxStream;
use jiff::Timestamp;
use velox_api::{BuildFailure, BuildId, FailureKind, LogEntry, QueuePosition};

pub use self::{
    jetstream::{JetStreamOptions, JetStreamStore},
    sqlite::{SqliteOptions, SqliteStore},
};
use crate::build::{Build, BuildOutcome, NewBuild, Tenant};

/// How often a build is tried whose workers die: it may be what kills them.
const ATTEMPTS: u32 = 25;

/// The end of a build that was tried so often.
fn given_up(attempts: u32) -> BuildOutcome {
    let message = format!(
        "the build is given up: {attempts} times it was taken, and each time the process that built it was gone before the \
         end. It may be the build that ends them, by the memory or the disk that it takes. Whoever runs the service \
         finds the reason in the logs of the workers and of their machines, where they name the build; once it is mended, \
         ask for the build again."
    );
    BuildOutcome::Failed(BuildFailure { kind: FailureKind::Internal, message })
}

/// What went wrong in a store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It has no room for more queued builds.
    #[error("the queue is full: there are {waiting} builds in it")]
    QueueFull {
        /// How many wait.
        waiting: u64,
    },
    /// The tenant has as many builds on their way as it may.
    #[error("{limit} builds of yours are on their way, and more aren't allowed at once")]
    TenantLimit {
        /// [`NewBuild::at_once`].
        limit: u64,
    },
    /// The lease ran out, or its build was given to another worker.
    #[error("the lease of build {0} is over")]
    LeaseExpired(BuildId),
    /// The store itself is in trouble; says which one, and how.
    #[error("{0}")]
    Failed(String),
}

impl From<serde_json::Error> for StoreError {
    fn from(error: serde_json::Error) -> Self {
        Self::Failed(format!("failed to serialize a build: {error}"))
    }
}

/// What became of a submission.
#[derive(Debug, Clone, PartialEq)]
pub enum Submission {
    /// It is a new build.
    Queued(Build),
    /// There is one like it on its way; the tenant is among those who want it now.
    Joined(Build),
    /// There is one like it that succeeded, and it isn't stale.
    Finished(Arc<Build>),
}

impl Submission {
    /// The build, whichever it is.
    #[must_use]
    pub fn build(&self) -> &Build {
        match self {
            Self::Queued(build) | Self::Joined(build) => build,
            Self::Finished(build) => build,
        }
    }
}

/// Builds and their logs. Whatever a method answered with is there after any crash.
#[async_trait]
pub trait Records: Send + Sync {
    /// Queues a build, or finds one of the same [`velox_api::BuildSpec::key`]: one that is queued or running, or (without `force`)
    /// one that succeeded, whose spec is exact or which is younger than the time to live of the store. Of any number of
    /// simultaneous callers on any number of nodes, one gets [`Submission::Queued`].
    ///
    /// # Errors
    /// [`StoreError::QueueFull`], [`StoreError::TenantLimit`] (for a build that would be queued, not for one that is joined or
    /// finished): nothing was kept.
    async fn submit(&self, new: NewBuild) -> Result<Submission, StoreError>;

    /// The build of this name.
    async fn get(&self, id: BuildId) -> Result<Option<Build>, StoreError>;

    /// The newest builds first.
    async fn recent(&self, limit: usize) -> Result<Vec<Build>, StoreError>;

    /// The tenant doesn't want it any more. The build ends where nobody else does: at once where it is queued, as soon as
    /// its worker hears of it where it runs. `None`: there is no such build, or it isn't theirs.
    async fn cancel(&self, id: BuildId, tenant: &Tenant) -> Result<Option<Build>, StoreError>;

    /// The log after the entry `after` (0: from the start), at most `limit` entries.
    async fn log(&self, id: BuildId, after: u64, limit: usize) -> Result<Vec<LogEntry>, StoreError>;

    /// An item at once, and then whenever the build or its log may have changed; it may come for nothing, and changes
    /// that follow each other quickly may share one. Who hears it reads again.
    async fn changes(&self, id: BuildId) -> Result<BoxStream<'static, ()>, StoreError>;

    /// The artifact of any build that has this SHA-256.
    async fn artifact(&self, sha256: &str) -> Result<Option<velox_api::ArtifactInfo>, StoreError>;

    /// Whether the store answers: for readiness.
    async fn ready(&self) -> Result<(), StoreError>;
}

/// A store that forgets what is old. Any number of nodes may make it do so at once, while others build and download.
#[async_trait]
pub trait Forgets: Records {
    /// Forgets finished builds and their logs: those that ended before `before`, and the oldest beyond `most`. How many. Of
    /// artifacts that no build is left of it forgets those that nobody needed since `needed`.
    async fn prune(&self, before: Timestamp, most: u64, needed: Timestamp) -> Result<u64, StoreError>;

    /// The artifacts that builds made or are about to store, by SHA-256, each with when it was needed last as far as this
    /// store knows.
    async fn artifacts(&self) -> Result<HashMap<String, Timestamp>, StoreError>;

    /// Forgets an artifact and the builds that made it: its bytes are to be removed next, within a minute, and nothing may
    /// lead to them. `false`: it was needed since `before` as far as this store knows, and stays.
    async fn forget(&self, sha256: &str, before: Timestamp) -> Result<bool, StoreError>;
}

/// A build in a worker's hands, until the lease ends.
#[derive(Debug, Clone)]
pub struct Lease {
    /// The build, with its `attempts` counted.
    pub build: Build,
    /// What tells this lease from others of the same build.
    pub token: String,
}

/// What a worker is told when it extends a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseStatus {
    /// Go on.
    Active,
    /// Nobody wants the build any more: stop, and [`Queue::stopped`].
    Cancelled,
}

/// How long the queue is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct QueueDepth {
    /// Builds that wait.
    pub queued: u64,
    /// Builds in workers' hands.
    pub running: u64,
}

/// Of a build in a queue whose lines take turns: `waiting` has the builds of each line in their order, `running` how
/// many of a line are in workers' hands.
fn position_of<L: std::hash::Hash + Eq>(
    id: BuildId,
    waiting: impl IntoIterator<Item = (L, BuildId)>,
    mut running: HashMap<L, u64>,
) -> Option<QueuePosition> {
    let mut rounds = BTreeMap::new();
    for (line, build) in waiting {
        let round = running.entry(line).or_default();
        *round += 1;
        rounds.entry(build).and_modify(|least: &mut u64| *least = (*least).min(*round)).or_insert(*round);
    }
    let turn = |(build, round): (&BuildId, &u64)| (*round, *build);
    let mine = turn(rounds.get_key_value(&id)?);
    let at = rounds.iter().filter(|other| turn(*other) <= mine).count() as u64;
    Some(QueuePosition { at, of: rounds.len() as u64 })
}

/// Who is built next. A lease ends by itself when it isn't extended: then the build is queued again.
#[async_trait]
pub trait Queue: Send + Sync {
    /// Waits for a build and takes it. Tenants take turns, however many builds each of them has queued.
    async fn lease(&self, worker: &str) -> Result<Lease, StoreError>;

    /// How long a lease lasts without [`Queue::extend`], which is called three times as often.
    fn lease_time(&self) -> std::time::Duration;

    /// The worker is still at it.
    ///
    /// # Errors
    /// [`StoreError::LeaseExpired`]: another worker may have it; what was made is to be dropped.
    async fn extend(&self, lease: &Lease) -> Result<LeaseStatus, StoreError>;

    /// Adds to the build's log; gives the entries their numbers.
    async fn append(&self, lease: &Lease, entries: Vec<LogEntry>) -> Result<(), StoreError>;

    /// The artifact is about to be stored, and is the build's for an hour from now: nobody removes it. To be called each time
    /// before it is stored, even where it seems to be there.
    async fn announce(&self, lease: &Lease, artifact: &velox_api::ArtifactInfo) -> Result<(), StoreError>;

    /// It ended. The artifact is in the artifact store by then.
    async fn finish(&self, lease: &Lease, outcome: BuildOutcome) -> Result<(), StoreError>;

    /// It ended since nobody wants it.
    async fn stopped(&self, lease: &Lease) -> Result<(), StoreError>;

    /// The worker can't go on (it is shut down): the build is queued again, before all others of its tenant.
    async fn release(&self, lease: &Lease) -> Result<(), StoreError>;

    /// How long it is.
    async fn depth(&self) -> Result<QueueDepth, StoreError>;

    /// Where the build stands; `None`: it doesn't wait.
    async fn position(&self, id: BuildId) -> Result<Option<QueuePosition>, StoreError>;
}
