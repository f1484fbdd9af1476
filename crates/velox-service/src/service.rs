//! The operations of the service, used by REST, Connect, gRPC and the web page.

use std::{ops::Range, path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{
    Stream, StreamExt,
    stream::{self, BoxStream},
};
use jiff::Timestamp;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use velox_api::{ArtifactInfo, BuildId, BuildSpec, BuildState, LogEntry, QueuePosition};
use velox_manifest::GoTarget;

use crate::{
    artifacts::ArtifactBucket,
    auth::TokenEntry,
    build::{Build, BuildOutcome, BuildResult, NewBuild},
    error::{ApiError, ApiErrorKind},
    options::BuildPolicy,
    store::{BuildStore, StoreError, Submission},
    telemetry::{Telemetry, current_trace},
};

/// The maximum number of log entries per read.
const LOG_BATCH: usize = 256;

/// The interval at which a build is read without a notification.
const RECHECK_INTERVAL: Duration = Duration::from_secs(15);

/// How long [`Service::build_or_submit`] returns a failed build.
const FAILURE_TIME_TO_LIVE: Duration = Duration::from_secs(60);

/// The build service: its stores and rules.
#[derive(Clone)]
pub(crate) struct Service {
    /// Builds, their logs and the queue.
    pub(crate) store: Arc<dyn BuildStore>,
    /// The binaries.
    pub(crate) artifacts: Arc<ArtifactBucket>,
    /// The restrictions on requests.
    pub(crate) policy: BuildPolicy,
    /// Cancelled when this node accepts no more builds: it shuts down, and no other node would run them.
    pub(crate) closed: CancellationToken,
    /// Metrics and the audit log.
    pub(crate) telemetry: Arc<Telemetry>,
}

/// An item of a followed log.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum LogEvent {
    /// The build, initially and after each change of its state; a final state ends the log.
    Build(Box<Build>),
    /// A log entry.
    Entry(LogEntry),
}

impl Service {
    /// Queues a build, or joins or reuses an equal one.
    pub(crate) async fn submit(
        &self,
        caller: &TokenEntry,
        spec: BuildSpec,
        force: bool,
    ) -> Result<Submission, ApiError> {
        let spec = self.checked(caller, spec)?;
        if self.closed.is_cancelled() {
            return Err(ApiError::restarting());
        }
        let tenant = caller.tenant();
        let new = NewBuild {
            spec,
            tenant: tenant.clone(),
            force,
            at_once: caller.builds_at_once,
            per_hour: caller.builds_per_hour,
            trace: current_trace(),
        };
        let mut submitted = self.store.submit(new.clone()).await;
        if let Ok(Submission::Finished(build)) = &submitted
            && let Some(BuildOutcome::Succeeded(made)) = &build.outcome
            && self.artifacts.find(&made.artifact.sha256).await?.is_none()
        {
            // The artifact was removed from the store: rebuild it.
            submitted = self.store.submit(NewBuild { force: true, ..new }).await;
        }
        if let Ok(submission) = &submitted {
            self.telemetry.submitted(&tenant, submission);
        }
        Ok(submitted?)
    }

    /// Queues a build as [`Service::submit`], unless an equal one failed within the last minute: a client that
    /// repeats its request until the build has ended receives that one.
    pub(crate) async fn build_or_submit(
        &self,
        caller: &TokenEntry,
        spec: BuildSpec,
    ) -> Result<Build, ApiError> {
        let spec = self.checked(caller, spec)?;
        let key = spec.key().map_err(StoreError::from)?;
        let since = velox_api::now().checked_sub(FAILURE_TIME_TO_LIVE).unwrap_or(Timestamp::MIN);
        if let Some(build) = self.store.last_failure(&key, since).await? {
            return Ok(build);
        }
        Ok(self.submit(caller, spec, false).await?.into_build())
    }

    /// The normalized request, if it is valid and the caller may make it.
    fn checked(&self, caller: &TokenEntry, spec: BuildSpec) -> Result<BuildSpec, ApiError> {
        let spec = spec.normalized().map_err(ApiError::invalid)?;
        self.policy.check(&spec, caller.modules.as_deref())?;
        Ok(spec)
    }

    /// The path of a build's binary in the directory for local clients. `None` without such a directory.
    pub(crate) async fn shared_path(
        &self,
        result: &BuildResult,
        target: &GoTarget,
    ) -> Result<Option<PathBuf>, StoreError> {
        let ArtifactInfo { sha256, size, .. } = &result.artifact;
        self.artifacts.share(sha256, *size, target.os == "windows").await
    }

    /// Returns the build of this ID.
    pub(crate) async fn build(&self, id: BuildId) -> Result<Build, ApiError> {
        self.store.get(id).await?.ok_or_else(|| ApiError::not_found(format!("build {id} not found")))
    }

    /// Waits for the build to finish, until the deadline if any, and returns it.
    pub(crate) async fn wait(&self, id: BuildId, deadline: Option<Instant>) -> Result<Build, ApiError> {
        let mut changes = self.store.watch(id).await?;
        loop {
            let build = self.build(id).await?;
            if build.state.is_final() || deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                return Ok(build);
            }
            let recheck = Instant::now() + RECHECK_INTERVAL;
            let until = deadline.map_or(recheck, |deadline| deadline.min(recheck));
            if let Ok(None) = timeout_at(until, changes.next()).await {
                changes = self.store.watch(id).await?;
            }
        }
    }

    /// Withdraws the caller's request; the build is cancelled if no other tenant requested it.
    pub(crate) async fn cancel(&self, caller: &TokenEntry, id: BuildId) -> Result<Build, ApiError> {
        match self.store.cancel(id, &caller.tenant()).await? {
            Some(build) => {
                self.telemetry.cancelled(&caller.tenant(), id);
                Ok(build)
            }
            None => {
                self.build(id).await?;
                let message = format!("build {id} was requested by somebody else");
                Err(ApiError::new(ApiErrorKind::Forbidden, message))
            }
        }
    }

    /// Follows the log after the entry `after` (0: from the start) until the build has finished.
    pub(crate) async fn log(
        &self,
        id: BuildId,
        after: u64,
    ) -> Result<impl Stream<Item = Result<LogEvent, StoreError>> + Send + use<>, ApiError> {
        self.build(id).await?;
        let changes = self.store.watch(id).await?;
        let reading = LogReader { service: self.clone(), id, after, changes, seen: None, ended: false };
        Ok(stream::try_unfold(reading, LogReader::next).map(|batch| batch.map(stream::iter)).flat_map(
            // An error ends the stream.
            |batch| match batch {
                Ok(events) => events.map(Ok).left_stream(),
                Err(error) => stream::iter([Err(error)]).right_stream(),
            },
        ))
    }

    /// Returns the artifact of this SHA-256 if a build produced it and it is still stored.
    pub(crate) async fn artifact(&self, sha256: &str) -> Result<Option<ArtifactInfo>, StoreError> {
        let Some(info) = self.store.artifact(sha256).await? else { return Ok(None) };
        let stored = self.artifacts.find(sha256).await?;
        Ok(stored.map(|size| ArtifactInfo { size, ..info }))
    }

    /// Streams the bytes of an artifact in `range`.
    /// Errors of the store are items of the stream.
    pub(crate) fn read_artifact(
        &self,
        sha256: &str,
        range: Range<u64>,
    ) -> Result<BoxStream<'static, Result<Bytes, StoreError>>, StoreError> {
        let telemetry = Arc::clone(&self.telemetry);
        let count = move |chunk: &Result<Bytes, StoreError>| {
            if let Ok(chunk) = chunk {
                telemetry.metrics.artifact_bytes.inc_by(chunk.len() as u64);
            }
        };
        Ok(self.artifacts.read(sha256, range)?.inspect(count).boxed())
    }

    /// Returns the position of a queued build.
    pub(crate) async fn position(&self, build: &Build) -> Result<Option<QueuePosition>, StoreError> {
        if build.state == BuildState::Queued { self.store.position(build.id).await } else { Ok(None) }
    }
}

/// The position of a log reader.
struct LogReader {
    service: Service,
    id: BuildId,
    after: u64,
    changes: BoxStream<'static, ()>,
    /// The state and attempt of the last build event.
    seen: Option<(velox_api::BuildState, u32)>,
    ended: bool,
}

impl LogReader {
    /// Waits for new events; `None` after the end.
    async fn next(mut self) -> Result<Option<(Vec<LogEvent>, Self)>, StoreError> {
        while !self.ended {
            // The build before the log: its last entries are stored before its final state.
            let Some(build) = self.service.store.get(self.id).await? else { return Ok(None) };
            let entries = self.service.store.log(self.id, self.after, LOG_BATCH).await?;
            let whole = entries.is_empty();
            self.after = entries.last().map_or(self.after, |entry| entry.seq);
            let mut events: Vec<LogEvent> = entries.into_iter().map(LogEvent::Entry).collect();
            let state = (build.state, build.attempts);
            if build.state.is_final() {
                self.ended = whole;
                if whole {
                    events.push(LogEvent::Build(Box::new(build)));
                }
            } else if self.seen != Some(state) {
                self.seen = Some(state);
                events.insert(0, LogEvent::Build(Box::new(build)));
            }
            if !events.is_empty() {
                return Ok(Some((events, self)));
            }
            if whole {
                let next = tokio::time::timeout(RECHECK_INTERVAL, self.changes.next());
                if let Ok(None) = next.await {
                    self.changes = self.service.store.watch(self.id).await?;
                }
            }
        }
        Ok(None)
    }
}
