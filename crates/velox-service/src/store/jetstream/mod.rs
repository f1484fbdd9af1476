//! The distributed store on NATS JetStream, for any number of nodes and workers.
//!
//! ```text
//!   KV_vx-builds     $KV.vx-builds.ID     a record: the build and its lease; compare-and-set by revision
//!   KV_vx-keys       $KV.vx-keys.KEY      the current build of a spec's key; compare-and-set by revision
//!                    $KV.vx-keys.gate     the lock for adding builds to the queue
//!                    $KV.vx-keys.rate-…   when a tenant's quota of builds per hour is full again
//!   KV_vx-artifacts  $KV.vx-artifacts.SHA an artifact's description
//!   vx-jobs          vx.jobs.LANE.ID      a queued or leased job (work queue; discards new messages)
//!   vx-logs          vx.logs.ID           a chunk of a log
//! ```
//!
//! A build is queued in three idempotent steps: its key points to it (the compare-and-set that deduplicates
//! requests; the pointer contains the whole build), its record is created, its job is published. One node at
//! a time does the first two ([`gate`]). If a node dies after the first, no client got a response, and the
//! next request for the same key resumes there. A build with a record but without a job is found by any node
//! ([`reconcile`]). A job whose record is final is acked.
//!
//! Requires NATS 2.9 with file storage. A killed NATS server loses no acknowledged write; after a power
//! failure, unsynced writes may be lost (2.9 syncs every two minutes) unless there are three replicas.

mod connect;
mod gate;
mod index;
mod log;
mod nats;
mod prune;
mod queue;
mod reconcile;
mod record;
mod submit;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use async_nats::jetstream::{
    AckKind,
    consumer::{DeliverPolicy, push::OrderedConfig},
    message::Message,
    stream::Stream,
};
use async_trait::async_trait;
use futures::{StreamExt, stream::BoxStream};
use jiff::Timestamp;
use tokio::{
    sync::Mutex,
    task::JoinSet,
    time::{sleep, timeout},
};
use velox_api::{ArtifactInfo, BuildId, BuildState, LogEntry, QueuePosition};

use self::{
    index::BuildIndex,
    nats::{SubjectStore, is_removal},
    queue::{MAX_POLL_INTERVAL, MIN_POLL_INTERVAL},
    record::{KeyPointer, RecordChange, state_of, tenants_in},
};
use super::{
    BuildStore, Lease, LeaseStatus, QueueDepth, RESUBMITTED, StoreError, StoreOptions, Submission,
    WORKER_STOPPED,
};
use crate::build::{Build, BuildOutcome, NewBuild, Tenant};

/// The maximum number of conflicts with other submissions.
const MAX_SUBMIT_ATTEMPTS: u32 = 100;
/// The delay before a failed stream is followed again.
const FOLLOW_RETRY_DELAY: Duration = Duration::from_millis(500);
/// The timeout of a readiness check.
const READY_TIMEOUT: Duration = Duration::from_secs(2);

/// The distributed store.
#[derive(Debug)]
pub(crate) struct JetStreamStore {
    state: Arc<JetStreamState>,
    /// Background tasks, aborted on drop.
    _tasks: JoinSet<()>,
}

#[derive(Debug)]
pub(super) struct JetStreamState {
    options: StoreOptions,
    builds: SubjectStore,
    keys: SubjectStore,
    artifacts: SubjectStore,
    jobs: SubjectStore,
    logs: SubjectStore,
    index: Arc<BuildIndex>,
    /// Serializes this node's submissions at the gate.
    turn: Mutex<()>,
    positions: log::LogPositions,
    held_jobs: queue::HeldJobs,
}

impl JetStreamState {
    /// Updates the index from the record stream; signals `whole` after the first complete pass.
    async fn follow_builds(&self, whole: tokio::sync::oneshot::Sender<()>) {
        let mut whole = Some(whole);
        loop {
            let config = self.builds.heads_from(DeliverPolicy::LastPerSubject);
            let followed = follow(&self.builds.stream, config, |message, rest| {
                if let Some(message) = message {
                    self.see(message);
                }
                if rest == 0
                    && let Some(whole) = whole.take()
                {
                    let _ = whole.send(());
                }
            });
            followed.await;
            self.index.missed();
            sleep(FOLLOW_RETRY_DELAY).await;
        }
    }

    fn see(&self, message: &Message) {
        let id = self.builds.name(&message.subject).and_then(|name| name.parse().ok());
        let (Some(id), Ok(info)) = (id, message.info()) else { return };
        let sequence = info.stream_sequence;
        match &message.headers {
            Some(headers) if is_removal(headers) => self.index.saw_removal(id),
            Some(headers) => {
                if let Some(state) = state_of(headers) {
                    self.index.saw(id, sequence, state, tenants_in(headers));
                }
            }
            None => {}
        }
        self.index.reach(sequence);
    }

    async fn follow_logs(&self) {
        loop {
            // Starts at the last message, already seen, so that the consumer resumes there after a reconnect.
            let config = self.logs.heads_from(DeliverPolicy::Last);
            let followed = follow(&self.logs.stream, config, |message, _| {
                let name = message.and_then(|message| self.logs.name(&message.subject));
                if let Some(id) = name.and_then(|name| name.parse().ok()) {
                    self.index.watches.tell(id);
                }
            });
            followed.await;
            self.index.missed();
            sleep(FOLLOW_RETRY_DELAY).await;
        }
    }
}

/// Calls `each` with each message and the number of pending ones, until an error.
async fn follow(stream: &Stream, config: OrderedConfig, mut each: impl FnMut(Option<&Message>, u64)) {
    let Ok(consumer) = stream.create_consumer(config).await else { return };
    if consumer.cached_info().num_pending == 0 {
        each(None, 0);
    }
    let Ok(mut messages) = consumer.messages().await else { return };
    while let Some(Ok(message)) = messages.next().await {
        let rest = message.info().map_or(0, |info| info.pending);
        each(Some(&message), rest);
    }
}

#[async_trait]
impl BuildStore for JetStreamStore {
    async fn submit(&self, new: NewBuild) -> Result<Submission, StoreError> {
        let build = Build::queued(new.clone(), new.spec.key()?);
        let state = Arc::clone(&self.state);
        // A separate task: a caller dropped inside the gate would block all others.
        let submitting = tokio::spawn(async move {
            for _ in 0..MAX_SUBMIT_ATTEMPTS {
                if let Some(submitted) = state.try_submit(&new, &build).await? {
                    return Ok(submitted);
                }
            }
            Err(StoreError::Failed(
                "too many simultaneous submissions of the same build; try again".to_owned(),
            ))
        });
        let broke_off = |error| StoreError::Failed(format!("submission failed: {error}"));
        submitting.await.map_err(broke_off)?
    }

    async fn get(&self, id: BuildId) -> Result<Option<Build>, StoreError> {
        Ok(self.state.record(id).await?.map(|(mut record, _)| {
            record.build.take_lock();
            record.build
        }))
    }

    async fn lock(&self, id: BuildId) -> Result<Option<String>, StoreError> {
        Ok(self.state.record(id).await?.and_then(|(mut record, _)| record.build.take_lock()))
    }

    async fn last_failure(&self, key: &str, since: Timestamp) -> Result<Option<Build>, StoreError> {
        let pointer = self.state.keys.read(key).await?.value()?;
        let Some(KeyPointer { build: newest, .. }) = pointer else { return Ok(None) };
        let newest = self.get(newest.id).await?;
        Ok(newest.filter(|build| {
            build.state == BuildState::Failed && build.finished.is_some_and(|finished| finished >= since)
        }))
    }

    async fn cancel(&self, id: BuildId, tenant: &Tenant) -> Result<Option<Build>, StoreError> {
        let mut tried = false;
        let cancelled = self.state.change(id, |record| {
            let build = &mut record.build;
            let theirs = tried || build.tenant == *tenant || build.wanted_by.contains(tenant);
            if build.state.is_final() || !build.wanted_by.remove(tenant) {
                return RecordChange::Keep(theirs.then(|| build.clone()));
            }
            tried = true;
            if build.wanted_by.is_empty() && build.state == BuildState::Queued {
                build.end(BuildState::Cancelled, None);
            }
            RecordChange::Put(Some(build.clone()))
        });
        let cancelled = cancelled.await?.flatten();
        if let Some(build) = cancelled.as_ref().filter(|build| build.state == BuildState::Cancelled) {
            self.state.remove_jobs(build).await;
        }
        Ok(cancelled)
    }

    async fn log(&self, id: BuildId, after: u64, limit: usize) -> Result<Vec<LogEntry>, StoreError> {
        self.state.read_log(id, after, limit).await
    }

    async fn log_end(&self, id: BuildId, bytes: usize) -> Result<Vec<LogEntry>, StoreError> {
        self.state.read_log_end(id, bytes).await
    }

    async fn watch(&self, id: BuildId) -> Result<BoxStream<'static, ()>, StoreError> {
        Ok(self.state.index.watches.listen(id))
    }

    async fn artifact(&self, sha256: &str) -> Result<Option<ArtifactInfo>, StoreError> {
        if sha256.len() != 64 || !sha256.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Ok(None);
        }
        self.state.touch(sha256, None).await
    }

    async fn ready(&self) -> Result<(), StoreError> {
        let answer = timeout(READY_TIMEOUT, self.state.builds.stream.get_info()).await;
        match answer {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(StoreError::Failed(format!("NATS request failed: {error}"))),
            Err(_) => Err(StoreError::Failed("NATS doesn't answer within 2 s".to_owned())),
        }
    }

    async fn lease(&self, worker: &str) -> Result<Lease, StoreError> {
        let state = &self.state;
        let mut turn = state.held_jobs.turn.lock().await;
        let mut pause = MIN_POLL_INTERVAL;
        loop {
            let queued = state.index.queued.notified();
            if let Some(delivered) = state.take(&mut turn).await? {
                if let Some(lease) = state.begin(delivered).await? {
                    tracing::debug!(build = %lease.build.id, worker, "leased");
                    return Ok(lease);
                }
                continue;
            }
            pause = if timeout(pause, queued).await.is_ok() {
                MIN_POLL_INTERVAL
            } else {
                (pause * 2).min(MAX_POLL_INTERVAL)
            };
        }
    }

    fn lease_time(&self) -> Duration {
        self.state.options.lease_time
    }

    async fn extend(&self, lease: &Lease) -> Result<LeaseStatus, StoreError> {
        let held = self.state.held_jobs.held(lease)?;
        let Some((record, _)) = self.state.record(lease.build.id).await? else {
            return Err(StoreError::LeaseExpired(lease.build.id));
        };
        if record.lease.as_ref() != Some(&lease.token) || record.build.state != BuildState::Running {
            self.state.held_jobs.let_go(lease);
            return Err(StoreError::LeaseExpired(lease.build.id));
        }
        let said = held.message.ack_with(AckKind::Progress).await;
        said.map_err(|error| StoreError::Failed(format!("failed to extend the lease in NATS: {error}")))?;
        Ok(if record.build.wanted_by.is_empty() { LeaseStatus::Cancelled } else { LeaseStatus::Active })
    }

    async fn append_log(&self, lease: &Lease, entries: Vec<LogEntry>) -> Result<(), StoreError> {
        let held = self.state.held_jobs.held(lease)?;
        let mut end = held.end.lock().await;
        self.state.append_log(lease.build.id, &lease.token, entries, &mut end).await
    }

    async fn reserve_artifact(&self, lease: &Lease, artifact: &ArtifactInfo) -> Result<(), StoreError> {
        self.state.held_jobs.held(lease)?;
        self.state.touch(&artifact.sha256, Some(artifact)).await.map(drop)
    }

    async fn finish(&self, lease: &Lease, outcome: BuildOutcome) -> Result<(), StoreError> {
        if let BuildOutcome::Succeeded(made) = &outcome
            && !self.state.is_stored(&made.artifact).await?
        {
            return self
                .put_back(lease, "the binary was removed before the build ended; the build is queued again")
                .await;
        }
        let finished = self.state.change_leased(lease, |build| {
            if build.state.is_final() {
                return RecordChange::Keep(());
            }
            build.end(outcome.state(), Some(outcome.clone()));
            RecordChange::Put(())
        });
        finished.await?;
        self.state.ack(lease).await;
        Ok(())
    }

    async fn finish_cancelled(&self, lease: &Lease) -> Result<(), StoreError> {
        let again = self.state.change_leased(lease, |build| {
            if build.state != BuildState::Running {
                return RecordChange::Keep(build.state == BuildState::Queued);
            }
            build.put_back();
            RecordChange::Put(build.state == BuildState::Queued)
        });
        if again.await? {
            // It was requested again.
            self.log_line(lease, RESUBMITTED).await;
            self.state.give_back(lease).await;
        } else {
            self.state.ack(lease).await;
        }
        Ok(())
    }

    async fn release(&self, lease: &Lease) -> Result<(), StoreError> {
        self.put_back(lease, WORKER_STOPPED).await
    }

    async fn depth(&self) -> Result<QueueDepth, StoreError> {
        Ok(self.state.index.depth())
    }

    async fn position(&self, id: BuildId) -> Result<Option<QueuePosition>, StoreError> {
        Ok(self.state.index.position(id))
    }

    async fn prune(
        &self,
        before: Timestamp,
        max_builds: u64,
        unused_since: Timestamp,
    ) -> Result<u64, StoreError> {
        self.state.prune(before, max_builds, unused_since).await
    }

    async fn artifacts(&self) -> Result<HashMap<String, Timestamp>, StoreError> {
        let heads = self.state.artifacts.heads().await?;
        let there = heads.into_iter().filter(|head| !is_removal(&head.headers));
        Ok(there.map(|head| (head.name, head.at)).collect())
    }

    async fn remove_artifacts(
        &self,
        sha256s: &[String],
        unused_since: Timestamp,
    ) -> Result<HashSet<String>, StoreError> {
        self.state.remove_artifacts(sha256s, unused_since).await
    }
}

#[cfg(test)]
mod tests;
