//! Leases jobs: a worker takes a job, extends its lease, and acks it once the record is final.

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
use futures::StreamExt;
use tokio::{sync::Mutex, time::timeout};
use uuid::Uuid;
use velox_api::{BuildId, BuildState, LogEntry, Severity};

use super::{
    JetStreamState, JetStreamStore,
    log::LogEnd,
    nats::{NatsError, REQUEST_TIMEOUT, retry},
    record::{LeasedBuildRecord, RecordChange},
};
use crate::{
    build::Build,
    store::{
        BuildStore, Lease, StoreError, WORKER_LOST,
        turns::{self, TenantLine},
    },
};

/// The delay after no job was found; it doubles up to the maximum. Polling is needed: jobs are published
/// after their records, and expired leases send no notification.
pub(super) const MIN_POLL_INTERVAL: Duration = Duration::from_millis(10);
pub(super) const MAX_POLL_INTERVAL: Duration = Duration::from_secs(1);

/// The jobs leased by this process, and the turns.
#[derive(Debug, Default)]
pub(super) struct HeldJobs {
    held: StdMutex<HashMap<String, Arc<HeldJob>>>,
    pub(super) turn: Mutex<LeaseTurn>,
}

#[derive(Debug)]
pub(super) struct HeldJob {
    pub(super) message: Message,
    pub(super) end: Mutex<LogEnd>,
}

/// The state of the job search, which one caller at a time performs.
#[derive(Debug, Default)]
pub(super) struct LeaseTurn {
    number: u64,
    last_turns: HashMap<String, u64>,
    lanes: HashMap<String, PullConsumer>,
}

/// A delivered job; queued again on drop.
pub(super) struct DeliveredJob {
    lane: String,
    id: Option<BuildId>,
    message: Option<Message>,
}

impl DeliveredJob {
    async fn ack(mut self) {
        if let Some(message) = self.message.take() {
            // If it fails, the job is delivered again and acked then.
            let _ = message.double_ack().await;
        }
    }
}

impl Drop for DeliveredJob {
    fn drop(&mut self) {
        if let (Some(message), Ok(runtime)) = (self.message.take(), tokio::runtime::Handle::try_current()) {
            runtime.spawn(async move { message.ack_with(AckKind::Nak(None)).await });
        }
    }
}

impl HeldJobs {
    pub(super) fn held(&self, lease: &Lease) -> Result<Arc<HeldJob>, StoreError> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.get(&lease.token).cloned().ok_or(StoreError::LeaseExpired(lease.build.id))
    }

    fn hold(&self, token: String, held: HeldJob) {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).insert(token, Arc::new(held));
    }

    pub(super) fn let_go(&self, lease: &Lease) -> Option<Arc<HeldJob>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).remove(&lease.token)
    }
}

impl JetStreamState {
    /// Takes the next job by turn.
    pub(super) async fn take(&self, turn: &mut LeaseTurn) -> Result<Option<DeliveredJob>, StoreError> {
        let names = self.job_names().await?;
        let lanes: BTreeSet<&str> = names.iter().filter_map(|name| Some(name.split_once('.')?.0)).collect();
        let running = self.index.running();
        let line = |lane: &str| TenantLine {
            name: lane.to_owned(),
            running: running.get(lane).copied().unwrap_or(0),
            last_turn: turn.last_turns.get(lane).copied().unwrap_or(0),
        };
        let mut lines: Vec<TenantLine<String>> = lanes.into_iter().map(line).collect();
        turns::sort_by_turn(&mut lines);
        for TenantLine { name: lane, .. } in lines {
            if let Some(job) = self.take_of(turn, &lane).await? {
                turn.number += 1;
                turn.last_turns.insert(lane, turn.number);
                return Ok(Some(job));
            }
        }
        Ok(None)
    }

    async fn take_of(&self, turn: &mut LeaseTurn, lane: &str) -> Result<Option<DeliveredJob>, StoreError> {
        if !turn.lanes.contains_key(lane) {
            let consumer = retry("create a consumer", || async {
                let config = self.lane(lane);
                self.jobs.stream.create_consumer(config).await.map_err(NatsError::again)
            });
            turn.lanes.insert(lane.to_owned(), consumer.await?);
        }
        let Some(consumer) = turn.lanes.get(lane) else { return Ok(None) };
        let taken = timeout(REQUEST_TIMEOUT, async {
            let mut messages = consumer.fetch().max_messages(1).messages().await?;
            messages.next().await.transpose()
        });
        if let Ok(Ok(message)) = taken.await {
            return Ok(message.map(|message| {
                let name = self.jobs.name(&message.subject);
                let id = name.and_then(|name| name.split_once('.')?.1.parse().ok());
                DeliveredJob { lane: lane.to_owned(), id, message: Some(message) }
            }));
        }
        // NATS may have restarted without the consumer: recreate it next time.
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

    /// Leases the build of a job. `None` if the build needs no work.
    pub(super) async fn begin(&self, mut delivered: DeliveredJob) -> Result<Option<Lease>, StoreError> {
        let Some(id) = delivered.id else {
            delivered.ack().await;
            return Ok(None);
        };
        let token = Uuid::new_v4().to_string();
        // A redelivered job means that its previous lease expired.
        let mut was_running = false;
        let taken = self.change(id, |record| {
            let LeasedBuildRecord { build, lease, lane } = record;
            if lease.as_ref() == Some(&token) {
                return RecordChange::Keep(Some(build.clone()));
            }
            was_running = build.state == BuildState::Running;
            if build.state.is_final() || (was_running && lane.as_ref() != Some(&delivered.lane)) {
                return RecordChange::Keep(None);
            }
            build.put_back();
            if build.state.is_final() {
                return RecordChange::Put(None);
            }
            *lease = Some(token.clone());
            *lane = Some(delivered.lane.clone());
            build.start();
            RecordChange::Put(Some(build.clone()))
        });
        let Some(build) = taken.await?.flatten() else {
            delivered.ack().await;
            return Ok(None);
        };
        let mut end = self.begin_log(id, &token).await?;
        if was_running {
            let lost = vec![LogEntry::new(Severity::Info, WORKER_LOST)];
            self.append_log(id, &token, lost, &mut end).await?;
        }
        let end = Mutex::new(end);
        if let Some(message) = delivered.message.take() {
            self.held_jobs.hold(token.clone(), HeldJob { message, end });
        }
        Ok(Some(Lease { build, token }))
    }

    /// Changes the record of a leased build.
    pub(super) async fn change_leased<T>(
        &self,
        lease: &Lease,
        mut change: impl FnMut(&mut Build) -> RecordChange<T>,
    ) -> Result<T, StoreError> {
        let changed = self.change(lease.build.id, |record| {
            if record.lease.as_ref() != Some(&lease.token) {
                return RecordChange::Keep(None);
            }
            match change(&mut record.build) {
                RecordChange::Keep(answer) => RecordChange::Keep(Some(answer)),
                RecordChange::Put(answer) => RecordChange::Put(Some(answer)),
            }
        });
        match changed.await?.flatten() {
            Some(answer) => Ok(answer),
            None => {
                self.held_jobs.let_go(lease);
                Err(StoreError::LeaseExpired(lease.build.id))
            }
        }
    }

    /// Removes the jobs of a finished build from all lanes.
    pub(super) async fn ack(&self, lease: &Lease) {
        if let Some(held) = self.held_jobs.let_go(lease) {
            let _ = held.message.double_ack().await;
        }
        self.remove_jobs(&lease.build).await;
    }

    /// Returns the job to the queue, before all others of its lane.
    pub(super) async fn give_back(&self, lease: &Lease) {
        if let Some(held) = self.held_jobs.let_go(lease) {
            // If it fails, the lease expires.
            let _ = held.message.double_ack_with(AckKind::Nak(None)).await;
        }
    }
}

impl JetStreamStore {
    /// Appends a line to the log; errors are only logged.
    pub(super) async fn log_line(&self, lease: &Lease, text: &str) {
        if let Err(error) = self.append_log(lease, vec![LogEntry::new(Severity::Info, text)]).await {
            tracing::warn!(build = %lease.build.id, %error, "failed to write a log line");
        }
    }

    /// Queues the build again, before all others of its lane.
    pub(super) async fn put_back(&self, lease: &Lease, why: &str) -> Result<(), StoreError> {
        let released = self.state.change_leased(lease, |build| {
            if build.state != BuildState::Running {
                return RecordChange::Keep(());
            }
            // A shutdown isn't the build's fault.
            build.attempts = build.attempts.saturating_sub(1);
            build.put_back();
            RecordChange::Put(())
        });
        released.await?;
        self.log_line(lease, why).await;
        self.state.give_back(lease).await;
        Ok(())
    }
}
