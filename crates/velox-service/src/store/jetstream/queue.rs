//! Who is built next: a worker takes a job, says that it is at it, and acks it when the record says how it ended.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex as StdMutex, PoisonError},
    time::Duration,
};

use async_nats::jetstream::{
    AckKind,
    consumer::{AckPolicy, PullConsumer, pull},
    message::Message,
};
use async_trait::async_trait;
use futures::StreamExt;
use jiff::Timestamp;
use tokio::{sync::Mutex, time::timeout};
use uuid::Uuid;
use velox_api::{ArtifactInfo, BuildId, BuildState, LogEntry, QueuePosition, Severity};

use super::{
    super::{ATTEMPTS, given_up},
    JetStreamStore, Shared,
    log::End,
    nats::{ANSWER, Trouble, patiently},
    record::{Change, Found, Record},
};
use crate::{
    build::{Build, BuildOutcome},
    store::{Lease, LeaseStatus, Queue, QueueDepth, StoreError},
};

/// How long to wait after nothing was found; it doubles up to [`LONGEST`]. A job is in its stream a moment after its record,
/// and nobody tells when a lease ended.
const SHORTEST: Duration = Duration::from_millis(10);
const LONGEST: Duration = Duration::from_secs(1);

/// The jobs in this worker's hands, and whose turn it is.
#[derive(Debug, Default)]
pub(super) struct Hands {
    held: StdMutex<HashMap<String, Arc<Held>>>,
    turn: Mutex<Turn>,
}

#[derive(Debug)]
struct Held {
    message: Message,
    end: Mutex<End>,
}

/// One lease at a time looks for a job.
#[derive(Debug, Default)]
struct Turn {
    last: Option<String>,
    lanes: HashMap<String, PullConsumer>,
}

/// A job that was delivered; it goes back to the queue when it is dropped.
struct Delivered {
    lane: String,
    id: Option<BuildId>,
    message: Option<Message>,
}

impl Delivered {
    async fn ack(mut self) {
        if let Some(message) = self.message.take() {
            // A job that stays is found again, and acked then.
            let _ = message.double_ack().await;
        }
    }
}

impl Drop for Delivered {
    fn drop(&mut self) {
        if let (Some(message), Ok(runtime)) = (self.message.take(), tokio::runtime::Handle::try_current()) {
            runtime.spawn(async move { message.ack_with(AckKind::Nak(None)).await });
        }
    }
}

impl Hands {
    fn held(&self, lease: &Lease) -> Result<Arc<Held>, StoreError> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.get(&lease.token).cloned().ok_or(StoreError::LeaseExpired(lease.build.id))
    }

    fn hold(&self, token: String, held: Held) {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).insert(token, Arc::new(held));
    }

    fn let_go(&self, lease: &Lease) -> Option<Arc<Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).remove(&lease.token)
    }
}

impl Shared {
    /// Takes the next job that there is.
    async fn take(&self, turn: &mut Turn) -> Result<Option<Delivered>, StoreError> {
        let names = self.job_names().await?;
        let lanes: BTreeSet<&str> = names.iter().filter_map(|name| Some(name.split_once('.')?.0)).collect();
        let last = turn.last.clone().unwrap_or_default();
        let running = self.mirror.running();
        let mut lanes: Vec<&str> = lanes.into_iter().collect();
        lanes.sort_by_key(|lane| (running.get(*lane).copied().unwrap_or(0), *lane <= last.as_str(), *lane));
        for lane in lanes {
            if let Some(message) = self.take_of(turn, lane).await? {
                turn.last = Some(lane.to_owned());
                return Ok(Some(message));
            }
        }
        Ok(None)
    }

    async fn take_of(&self, turn: &mut Turn, lane: &str) -> Result<Option<Delivered>, StoreError> {
        if !turn.lanes.contains_key(lane) {
            let consumer = patiently("give a job", || async {
                let config = self.lane(lane);
                self.jobs.stream().create_consumer(config).await.map_err(Trouble::again)
            });
            turn.lanes.insert(lane.to_owned(), consumer.await?);
        }
        let Some(consumer) = turn.lanes.get(lane) else { return Ok(None) };
        let taken = timeout(ANSWER, async {
            let mut messages = consumer.fetch().max_messages(1).messages().await?;
            messages.next().await.transpose()
        });
        if let Ok(Ok(message)) = taken.await {
            return Ok(message.map(|message| {
                let name = self.jobs.name(&message.subject);
                let id = name.and_then(|name| name.split_once('.')?.1.parse().ok());
                Delivered { lane: lane.to_owned(), id, message: Some(message) }
            }));
        }
        // NATS may have restarted, and may have forgotten the lane: the next round makes it again.
        turn.lanes.remove(lane);
        Ok(None)
    }

    fn lane(&self, lane: &str) -> pull::Config {
        pull::Config {
            durable_name: Some(format!("lane-{lane}")),
            description: Some("Jobs of some tenants".to_owned()),
            filter_subject: self.jobs.subject(&format!("{lane}.*")),
            ack_policy: AckPolicy::Explicit,
            ack_wait: self.options.lease_time,
            max_deliver: -1,
            max_ack_pending: 100_000,
            ..pull::Config::default()
        }
    }

    /// Makes a lease of a job. `None`: there is nothing to do for it.
    async fn begin(&self, mut delivered: Delivered) -> Result<Option<Lease>, StoreError> {
        let Some(id) = delivered.id else {
            delivered.ack().await;
            return Ok(None);
        };
        let token = Uuid::new_v4().to_string();
        // Whoever had it before by this job has it no more: else the job wouldn't have come.
        let mut was_running = false;
        let taken = self.change(id, |record| {
            let Record { build, lease, lane } = record;
            if lease.as_ref() == Some(&token) {
                return Change::Keep(Some(build.clone()));
            }
            was_running = build.state == BuildState::Running;
            if build.state.is_final() || (was_running && lane.as_ref() != Some(&delivered.lane)) {
                return Change::Keep(None);
            }
            if build.wanted_by.is_empty() {
                end(build, BuildState::Cancelled);
                return Change::Put(None);
            }
            if build.attempts >= ATTEMPTS {
                end(build, BuildState::Failed);
                build.outcome = Some(given_up(build.attempts));
                return Change::Put(None);
            }
            *lease = Some(token.clone());
            *lane = Some(delivered.lane.clone());
            build.state = BuildState::Running;
            build.attempts += 1;
            build.started = Some(Timestamp::now());
            Change::Put(Some(build.clone()))
        });
        let Some(build) = taken.await?.flatten() else {
            delivered.ack().await;
            return Ok(None);
        };
        let mut end = self.begin_log(id, &token).await?;
        if was_running {
            let said = vec![LogEntry::new(
                Severity::Info,
                "the worker stopped answering: another one has the build",
            )];
            self.append_log(id, &token, said, &mut end).await?;
        }
        let end = Mutex::new(end);
        if let Some(message) = delivered.message.take() {
            self.hands.hold(token.clone(), Held { message, end });
        }
        Ok(Some(Lease { build, token }))
    }

    /// Changes the record of a build that the lease has.
    async fn change_leased<T>(
        &self,
        lease: &Lease,
        mut change: impl FnMut(&mut Build) -> Change<T>,
    ) -> Result<T, StoreError> {
        let changed = self.change(lease.build.id, |record| {
            if record.lease.as_ref() != Some(&lease.token) {
                return Change::Keep(None);
            }
            match change(&mut record.build) {
                Change::Keep(answer) => Change::Keep(Some(answer)),
                Change::Put(answer) => Change::Put(Some(answer)),
            }
        });
        match changed.await?.flatten() {
            Some(answer) => Ok(answer),
            None => {
                self.hands.let_go(lease);
                Err(StoreError::LeaseExpired(lease.build.id))
            }
        }
    }

    /// The build is over: its job goes, from the lines of all tenants.
    async fn ack(&self, lease: &Lease) {
        if let Some(held) = self.hands.let_go(lease) {
            let _ = held.message.double_ack().await;
        }
        self.remove_jobs(&lease.build).await;
    }

    /// The job goes back, before all others of its lane.
    pub(super) async fn give_back(&self, lease: &Lease) {
        if let Some(held) = self.hands.let_go(lease) {
            // Without it the lease ends by itself.
            let _ = held.message.double_ack_with(AckKind::Nak(None)).await;
        }
    }
}

fn end(build: &mut Build, state: BuildState) {
    build.state = state;
    build.finished = Some(Timestamp::now());
}

fn put_back(build: &mut Build) {
    build.state = BuildState::Queued;
    build.started = None;
}

impl JetStreamStore {
    /// Adds a line to the log; the build goes on without it.
    async fn say(&self, lease: &Lease, text: &str) {
        if let Err(error) = self.append(lease, vec![LogEntry::new(Severity::Info, text)]).await {
            tracing::warn!(build = %lease.build.id, %error, "a line of the log is lost");
        }
    }

    /// Queues the build again, before all others of its lane.
    async fn put_back(&self, lease: &Lease, why: &str) -> Result<(), StoreError> {
        let released = self.shared.change_leased(lease, |build| {
            if build.state != BuildState::Running {
                return Change::Keep(());
            }
            if build.wanted_by.is_empty() {
                end(build, BuildState::Cancelled);
            } else {
                put_back(build);
                // It wasn't the build's doing.
                build.attempts = build.attempts.saturating_sub(1);
            }
            Change::Put(())
        });
        released.await?;
        self.say(lease, why).await;
        self.shared.give_back(lease).await;
        Ok(())
    }
}

#[async_trait]
impl Queue for JetStreamStore {
    async fn lease(&self, worker: &str) -> Result<Lease, StoreError> {
        let shared = &self.shared;
        let mut turn = shared.hands.turn.lock().await;
        let mut pause = SHORTEST;
        loop {
            let queued = shared.mirror.queued();
            if let Some(delivered) = shared.take(&mut turn).await? {
                if let Some(lease) = shared.begin(delivered).await? {
                    tracing::debug!(build = %lease.build.id, worker, "leased");
                    return Ok(lease);
                }
                continue;
            }
            pause = if timeout(pause, queued).await.is_ok() { SHORTEST } else { (pause * 2).min(LONGEST) };
        }
    }

    fn lease_time(&self) -> Duration {
        self.shared.options.lease_time
    }

    async fn extend(&self, lease: &Lease) -> Result<LeaseStatus, StoreError> {
        let held = self.shared.hands.held(lease)?;
        let Found::There(record, _) = self.shared.record(lease.build.id).await? else {
            return Err(StoreError::LeaseExpired(lease.build.id));
        };
        if record.lease.as_ref() != Some(&lease.token) || record.build.state != BuildState::Running {
            self.shared.hands.let_go(lease);
            return Err(StoreError::LeaseExpired(lease.build.id));
        }
        let said = held.message.ack_with(AckKind::Progress).await;
        said.map_err(|error| StoreError::Failed(format!("NATS can't be told of the lease: {error}")))?;
        Ok(if record.build.wanted_by.is_empty() { LeaseStatus::Cancelled } else { LeaseStatus::Active })
    }

    async fn append(&self, lease: &Lease, entries: Vec<LogEntry>) -> Result<(), StoreError> {
        let held = self.shared.hands.held(lease)?;
        let mut end = held.end.lock().await;
        self.shared.append_log(lease.build.id, &lease.token, entries, &mut end).await
    }

    async fn announce(&self, lease: &Lease, artifact: &ArtifactInfo) -> Result<(), StoreError> {
        self.shared.hands.held(lease)?;
        self.shared.touch(&artifact.sha256, Some(artifact)).await.map(drop)
    }

    async fn finish(&self, lease: &Lease, outcome: BuildOutcome) -> Result<(), StoreError> {
        if let BuildOutcome::Succeeded(made) = &outcome
            && !self.shared.is_stored(&made.artifact).await?
        {
            return self
                .put_back(lease, "the binary was removed before the build ended: it is queued again")
                .await;
        }
        let finished = self.shared.change_leased(lease, |build| {
            if build.state.is_final() {
                return Change::Keep(());
            }
            let state = match outcome {
                BuildOutcome::Succeeded(_) => BuildState::Succeeded,
                BuildOutcome::Failed(_) => BuildState::Failed,
            };
            end(build, state);
            build.outcome = Some(outcome.clone());
            Change::Put(())
        });
        finished.await?;
        self.shared.ack(lease).await;
        Ok(())
    }

    async fn stopped(&self, lease: &Lease) -> Result<(), StoreError> {
        let again = self.shared.change_leased(lease, |build| {
            if build.state != BuildState::Running {
                return Change::Keep(build.state == BuildState::Queued);
            }
            if build.wanted_by.is_empty() {
                end(build, BuildState::Cancelled);
                return Change::Put(false);
            }
            put_back(build);
            Change::Put(true)
        });
        if again.await? {
            // It was asked for since.
            self.say(lease, "the build was cancelled, and asked for again").await;
            self.shared.give_back(lease).await;
        } else {
            self.shared.ack(lease).await;
        }
        Ok(())
    }

    async fn release(&self, lease: &Lease) -> Result<(), StoreError> {
        self.put_back(lease, "the worker is shut down: the build is queued again").await
    }

    async fn depth(&self) -> Result<QueueDepth, StoreError> {
        Ok(self.shared.mirror.depth())
    }

    async fn position(&self, id: BuildId) -> Result<Option<QueuePosition>, StoreError> {
        Ok(self.shared.mirror.position(id))
    }
}
