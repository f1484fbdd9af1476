//! The worker loop: lease a build, run it, store its result and log, until shutdown.
//!
//! Store errors never lose a build: writes are retried, and if the lease expires meanwhile, another worker
//! takes over.

use std::{
    future::{Future, pending},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::mpsc,
    task::{JoinSet, spawn_blocking},
    time::{Instant, sleep, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;
use velox_api::{ArtifactInfo, BuildFailure, BuildId, FailureKind, LogEntry, Severity};
use velox_build::SigningKey;

use crate::{
    artifacts::ArtifactBucket,
    build::{BuildOutcome, BuildResult},
    documents::NewDocuments,
    runner::{JobRunner, RunOutcome},
    store::{BuildStore, Lease, LeaseStatus, StoreError},
    telemetry::{BuildEnd, Telemetry},
};

/// The longest interval between lease extensions, which also detect cancellation.
const MAX_EXTEND_INTERVAL: Duration = Duration::from_secs(1);
/// How long log entries are buffered.
const LOG_FLUSH_INTERVAL: Duration = Duration::from_millis(100);
/// The number of buffered log entries; a job that logs more blocks.
const MAX_BUFFERED_ENTRIES: usize = 256;
/// The maximum length of a log line in bytes; longer lines are truncated.
const MAX_LINE_BYTES: usize = 16 << 10;
/// The size of a log entry besides its text, in bytes.
const ENTRY_OVERHEAD_BYTES: u64 = 64;
/// The space reserved for warnings, errors and progress in a full log, in bytes.
const RESERVED_LOG_BYTES: u64 = 64 << 10;
/// How long storing a binary is retried before the build fails.
const STORE_TIMEOUT: Duration = Duration::from_secs(300);
/// How long final writes are retried at shutdown.
const FINAL_WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// A worker.
#[derive(Clone)]
pub(crate) struct Worker {
    /// The builds and the queue.
    pub(crate) store: Arc<dyn BuildStore>,
    /// The artifact store.
    pub(crate) artifacts: Arc<ArtifactBucket>,
    /// Runs the jobs.
    pub(crate) runner: Arc<dyn JobRunner>,
    /// The worker's name, for the operator.
    pub(crate) name: String,
    /// The number of concurrent builds.
    pub(crate) jobs: usize,
    /// [`crate::options::JobLimits::log`].
    pub(crate) log: u64,
    /// [`crate::options::ServiceOptions::sign_key`].
    pub(crate) sign_key: Option<SigningKey>,
    /// How long running builds may continue after the shutdown before they are released.
    pub(crate) drain: Duration,
    /// Metrics and traces.
    pub(crate) telemetry: Arc<Telemetry>,
}

impl Worker {
    /// Runs builds until the shutdown. Returns once all leased builds are finished or released.
    pub(crate) async fn work(self, shutdown: CancellationToken) {
        let stop = CancellationToken::new();
        let mut slots = JoinSet::new();
        for _ in 0..self.jobs {
            slots.spawn(self.clone().run_slot(shutdown.clone(), stop.clone()));
        }
        let mut all = std::pin::pin!(async {
            while let Some(ended) = slots.join_next().await {
                if let Err(error) = ended {
                    tracing::error!(%error, "a worker panicked");
                }
            }
        });
        let drained = async {
            shutdown.cancelled().await;
            sleep(self.drain).await;
        };
        tokio::select! {
            () = &mut all => return,
            () = drained => stop.cancel(),
        }
        all.await;
    }

    async fn run_slot(self, shutdown: CancellationToken, stop: CancellationToken) {
        let mut backoff = Backoff::new();
        loop {
            match shutdown.run_until_cancelled(self.store.lease(&self.name)).await {
                None => return,
                Some(Ok(lease)) => {
                    backoff = Backoff::new();
                    self.build(LeasedBuild::new(lease, &stop)).await;
                }
                Some(Err(error)) => {
                    tracing::warn!(%error, "failed to lease a build; retrying");
                    if shutdown.run_until_cancelled(backoff.wait()).await.is_none() {
                        return;
                    }
                }
            }
        }
    }

    async fn build(&self, held: LeasedBuild) {
        tracing::info!(build = %held.id(), attempt = held.lease.build.attempts, "build started");
        self.telemetry.build_started(&held.lease);
        tokio::select! {
            () = self.run_leased(&held) => {}
            () = self.extend_lease(&held) => {}
        }
        self.telemetry.build_ended(held.id(), BuildEnd::Released);
    }

    /// Extends the lease periodically, and cancels the job if the build is cancelled or the lease expired.
    async fn extend_lease(&self, held: &LeasedBuild) {
        let every = (self.store.lease_time() / 3).min(MAX_EXTEND_INTERVAL);
        loop {
            sleep(every).await;
            match timeout(self.store.lease_time() / 3, self.store.extend(&held.lease)).await {
                Ok(Ok(LeaseStatus::Active)) => {}
                Ok(Ok(LeaseStatus::Cancelled)) => {
                    held.unwanted.store(true, Ordering::Relaxed);
                    held.cancel.cancel();
                }
                Ok(Err(StoreError::LeaseExpired(_))) => {
                    tracing::warn!(build = %held.id(), "the lease of a build expired; its result is discarded");
                    self.telemetry.build_ended(held.id(), BuildEnd::Released);
                    held.lost.cancel();
                    held.cancel.cancel();
                    // Nothing left to extend; the job's processes exit meanwhile.
                    return pending().await;
                }
                // No other worker can lease it either while the store fails.
                Ok(Err(error)) => {
                    tracing::warn!(%error, build = %held.id(), "failed to extend a lease; retrying");
                }
                Err(_) => {
                    tracing::warn!(build = %held.id(), "extending a lease timed out; retrying");
                }
            }
        }
    }

    async fn run_leased(&self, held: &LeasedBuild) {
        let (sender, receiver) = mpsc::channel(MAX_BUFFERED_ENTRIES);
        let runner = Arc::clone(&self.runner);
        let (build, cancel) = (held.lease.build.clone(), held.cancel.clone());
        let ended = CancellationToken::new();
        let run = async {
            // A separate task: a panic of the runner fails the build, not the worker.
            let ran = tokio::spawn(async move { runner.run(&build, sender, cancel).await }).await;
            ended.cancel();
            ran.unwrap_or_else(|error| {
                tracing::error!(%error, build = %held.id(), "a job panicked");
                RunOutcome::Failed(internal(
                    "internal error: the job panicked; see the service's log".to_owned(),
                ))
            })
        };
        let (ran, ()) = tokio::join!(run, self.forward_log(held, receiver, &ended));
        if held.lost.is_cancelled() {
            return;
        }
        let unwanted = held.unwanted.load(Ordering::Relaxed);
        let id = held.id();
        match ran {
            RunOutcome::Succeeded { mut made, file, directory } => {
                let documents = self.documents(held, &made, &file).await;
                made.documents = documents.index();
                let outcome = match self.store_artifact(held, &made.artifact, &file, &documents).await {
                    Ok(()) => BuildOutcome::Succeeded(made),
                    Err(failure) => BuildOutcome::Failed(failure),
                };
                self.finish(held, outcome).await;
                // Removing many files blocks.
                tokio::task::spawn_blocking(move || drop(directory));
            }
            // The error of a cancelled build only reports its killed processes.
            RunOutcome::Failed(_) | RunOutcome::Cancelled if unwanted => {
                tracing::info!(build = %id, "build cancelled");
                self.retry_write(held, "failed to record a cancelled build", || {
                    self.store.finish_cancelled(&held.lease)
                })
                .await;
                self.telemetry.build_ended(id, BuildEnd::Cancelled);
            }
            RunOutcome::Failed(_) | RunOutcome::Cancelled if held.cancel.is_cancelled() => {
                tracing::info!(build = %id, "build released");
                self.retry_write(held, "failed to release a build", || self.store.release(&held.lease)).await;
            }
            RunOutcome::Failed(failure) => self.finish(held, BuildOutcome::Failed(failure)).await,
            RunOutcome::Cancelled => {
                let failure = internal("internal error: the job was cancelled without a request".to_owned());
                self.finish(held, BuildOutcome::Failed(failure)).await;
            }
        }
    }

    async fn finish(&self, held: &LeasedBuild, outcome: BuildOutcome) {
        let end = match &outcome {
            BuildOutcome::Succeeded(result) => {
                tracing::info!(build = %held.id(), sha256 = result.artifact.sha256, "build succeeded");
                BuildEnd::Succeeded
            }
            BuildOutcome::Failed(failure) => {
                tracing::info!(build = %held.id(), kind = ?failure.kind, "build failed");
                BuildEnd::Failed
            }
        };
        let finish = || async {
            self.store.finish(&held.lease, outcome.clone()).await?;
            self.telemetry.build_ended(held.id(), end);
            Ok(())
        };
        self.retry_write(held, "failed to record the end of a build", finish).await;
    }

    /// Reads the bills of materials of a job, and signs the provenance of the binary. What fails is left out.
    async fn documents(&self, held: &LeasedBuild, result: &BuildResult, file: &Path) -> NewDocuments {
        let (spec, key, result) = (held.lease.build.spec.clone(), self.sign_key.clone(), result.clone());
        let file = file.to_owned();
        let made = spawn_blocking(move || NewDocuments::of_job(&spec, key.as_ref(), &result, &file)).await;
        made.unwrap_or_else(|error| {
            tracing::error!(%error, build = %held.id(), "failed to write the documents of a build");
            NewDocuments::default()
        })
    }

    /// Stores the binary with its documents, with retries.
    async fn store_artifact(
        &self,
        held: &LeasedBuild,
        artifact: &ArtifactInfo,
        file: &Path,
        documents: &NewDocuments,
    ) -> Result<(), BuildFailure> {
        let until = Instant::now() + STORE_TIMEOUT;
        let mut backoff = Backoff::new();
        loop {
            let stored = async {
                self.store.reserve_artifact(&held.lease, artifact).await?;
                for (name, content) in documents.files(held.id()) {
                    self.artifacts.put_document(&artifact.sha256, &name, content).await?;
                }
                self.artifacts.put(&artifact.sha256, file).await
            };
            let Err(error) = stored.await else { return Ok(()) };
            tracing::warn!(%error, build = %held.id(), "failed to store an artifact; retrying");
            if held.is_over() || Instant::now() > until {
                let message =
                    "failed to store the binary; contact the operator of this service, then build again";
                return Err(internal(message.to_owned()));
            }
            backoff.wait().await;
        }
    }

    /// Retries a write until it succeeds, the lease expires, or the shutdown timeout is reached.
    async fn retry_write<F>(&self, held: &LeasedBuild, trouble: &str, write: impl Fn() -> F)
    where
        F: Future<Output = Result<(), StoreError>>,
    {
        let mut backoff = Backoff::new();
        let mut last = None;
        loop {
            match write().await {
                Ok(()) | Err(StoreError::LeaseExpired(_)) => return,
                Err(error) => tracing::warn!(%error, build = %held.id(), "{trouble}; retrying"),
            }
            if held.stop.is_cancelled() {
                let last = *last.get_or_insert_with(|| Instant::now() + FINAL_WRITE_TIMEOUT);
                if Instant::now() > last {
                    tracing::error!(build = %held.id(), "{trouble}; the build is queued again once its lease expires");
                    return;
                }
            }
            if held.lost.run_until_cancelled(backoff.wait()).await.is_none() {
                return;
            }
        }
    }

    /// Writes the log in batches until the runner has ended and all entries are written.
    async fn forward_log(
        &self,
        held: &LeasedBuild,
        mut receiver: mpsc::Receiver<LogEntry>,
        ended: &CancellationToken,
    ) {
        let mut budget = LogBudget::new(self.log);
        let mut open = true;
        while open {
            let mut entries = Vec::new();
            let mut until = None;
            while open && entries.len() < MAX_BUFFERED_ENTRIES {
                let room = MAX_BUFFERED_ENTRIES - entries.len();
                let gather = async {
                    match until {
                        Some(until) => timeout_at(until, receiver.recv_many(&mut entries, room)).await.ok(),
                        None => Some(receiver.recv_many(&mut entries, room).await),
                    }
                };
                match ended.run_until_cancelled(gather).await {
                    Some(Some(0)) => open = false,
                    Some(Some(_)) => _ = until.get_or_insert_with(|| Instant::now() + LOG_FLUSH_INTERVAL),
                    Some(None) => break,
                    None => {
                        // The runner has ended: ignore other holders of the sender.
                        receiver.close();
                        while receiver.recv_many(&mut entries, MAX_BUFFERED_ENTRIES).await > 0 {}
                        open = false;
                    }
                }
            }
            let mut entries: Vec<LogEntry> =
                entries.into_iter().flat_map(|entry| budget.admit(entry)).collect();
            if !open {
                entries.extend(budget.end());
            }
            if !entries.is_empty() && !held.lost.is_cancelled() {
                self.telemetry.build_logged(held.id(), &entries);
                self.retry_write(held, "failed to write a build's log", || {
                    self.store.append_log(&held.lease, entries.clone())
                })
                .await;
            }
        }
    }
}

/// A build leased by this worker.
struct LeasedBuild {
    lease: Lease,
    /// The build was cancelled.
    unwanted: AtomicBool,
    /// The lease expired.
    lost: CancellationToken,
    /// The worker's drain time is over.
    stop: CancellationToken,
    /// The job must end for any of these reasons.
    cancel: CancellationToken,
}

impl LeasedBuild {
    fn new(lease: Lease, stop: &CancellationToken) -> Self {
        Self {
            lease,
            unwanted: AtomicBool::new(false),
            lost: CancellationToken::new(),
            stop: stop.clone(),
            cancel: stop.child_token(),
        }
    }

    fn id(&self) -> BuildId {
        self.lease.build.id
    }

    fn is_over(&self) -> bool {
        self.lost.is_cancelled() || self.stop.is_cancelled()
    }
}

/// The remaining size of a log.
struct LogBudget {
    limit: u64,
    left: u64,
    reserve: u64,
    /// The number of dropped entries.
    cut: u64,
}

impl LogBudget {
    fn new(limit: u64) -> Self {
        Self { limit, left: limit, reserve: RESERVED_LOG_BYTES, cut: 0 }
    }

    /// Returns the entry if it fits, and a warning in place of the first one that doesn't.
    fn admit(&mut self, mut entry: LogEntry) -> Option<LogEntry> {
        if entry.text.len() > MAX_LINE_BYTES {
            let cut = entry.text.len() - entry.text.floor_char_boundary(MAX_LINE_BYTES);
            entry.text.truncate(entry.text.floor_char_boundary(MAX_LINE_BYTES));
            entry.text.push_str(&format!("… ({cut} bytes more)"));
        }
        let size = entry.text.len() as u64 + ENTRY_OVERHEAD_BYTES;
        if self.cut == 0 && size <= self.left {
            self.left -= size;
            return Some(entry);
        }
        let matters = matches!(entry.level, Severity::Warning | Severity::Error) || entry.phase.is_some();
        if matters && size <= self.reserve {
            self.reserve -= size;
            return Some(entry);
        }
        self.cut += 1;
        (self.cut == 1).then(|| {
            let text = format!("the log is longer than {} bytes: what follows of it is left out", self.limit);
            LogEntry::new(Severity::Warning, text)
        })
    }

    fn end(&self) -> Option<LogEntry> {
        (self.cut > 0)
            .then(|| LogEntry::new(Severity::Warning, format!("{} lines of the log were left out", self.cut)))
    }
}

/// Exponential backoff between retries.
struct Backoff {
    next: Duration,
}

impl Backoff {
    const FIRST: Duration = Duration::from_millis(200);
    const MAX: Duration = Duration::from_secs(10);

    fn new() -> Self {
        Self { next: Self::FIRST }
    }

    async fn wait(&mut self) {
        let now = self.next;
        self.next = (self.next * 2).min(Self::MAX);
        sleep(now).await;
    }
}

fn internal(message: String) -> BuildFailure {
    BuildFailure { kind: FailureKind::Internal, message }
}

#[cfg(test)]
mod tests;
