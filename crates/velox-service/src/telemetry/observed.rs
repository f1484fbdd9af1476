//! The stores, watched: what goes through them is what the metrics, the spans and the audit log tell of builds.

use std::{ops::Range, path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt as _, stream::BoxStream};
use velox_api::{ArtifactInfo, BuildId, LogEntry, QueuePosition};

use super::{
    Telemetry,
    audit::{AuditEntry, AuditedRequest},
    spans,
};
use crate::{
    artifacts::{Artifacts, Stored},
    build::{Build, BuildOutcome, NewBuild, Tenant},
    store::{Lease, LeaseStatus, Queue, QueueDepth, Records, StoreError, Submission},
};

/// A store, watched.
pub(crate) struct Observed<T: ?Sized> {
    inner: Arc<T>,
    telemetry: Arc<Telemetry>,
}

impl<T: ?Sized> Observed<T> {
    /// What goes through `inner` is told.
    pub(crate) fn new(inner: Arc<T>, telemetry: &Arc<Telemetry>) -> Self {
        Self { inner, telemetry: Arc::clone(telemetry) }
    }

    fn act(&self, action: &str, decision: &str, tenant: &Tenant, build: Option<BuildId>) {
        let build = build.map(|id| id.to_string());
        let who = Some(tenant.0.as_str());
        let act = AuditEntry { action, decision, who, build, ..AuditEntry::default() };
        self.telemetry.audit.write(AuditedRequest::current().as_ref(), &act);
    }

    fn ended(&self, id: BuildId, how: &'static str) {
        if let Some((last, took)) = self.telemetry.spans.end(id, how) {
            self.phases(last);
            self.telemetry.metrics.ended((how != "released").then_some(how), took);
        }
    }

    fn phases(&self, ended: impl IntoIterator<Item = (String, Duration)>) {
        for (phase, took) in ended {
            self.telemetry.metrics.phase(&phase, took);
        }
    }
}

#[async_trait]
impl<T: Records + ?Sized> Records for Observed<T> {
    async fn submit(&self, new: NewBuild) -> Result<Submission, StoreError> {
        let tenant = new.tenant.clone();
        let submitted = self.inner.submit(NewBuild { trace: spans::current(), ..new }).await;
        if let Ok(submitted) = &submitted {
            let id = submitted.build().id;
            let result = match submitted {
                Submission::Queued(_) => "queued",
                Submission::Joined(_) => "joined",
                Submission::Finished(_) => "finished",
            };
            self.telemetry.metrics.submission(result);
            self.act("submit", result, &tenant, Some(id));
        }
        submitted
    }

    async fn get(&self, id: BuildId) -> Result<Option<Build>, StoreError> {
        self.inner.get(id).await
    }

    async fn recent(&self, limit: usize) -> Result<Vec<Build>, StoreError> {
        self.inner.recent(limit).await
    }

    async fn cancel(&self, id: BuildId, tenant: &Tenant) -> Result<Option<Build>, StoreError> {
        let cancelled = self.inner.cancel(id, tenant).await;
        if let Ok(Some(_)) = &cancelled {
            self.act("cancel", "cancelled", tenant, Some(id));
        }
        cancelled
    }

    async fn log(&self, id: BuildId, after: u64, limit: usize) -> Result<Vec<LogEntry>, StoreError> {
        self.inner.log(id, after, limit).await
    }

    async fn changes(&self, id: BuildId) -> Result<BoxStream<'static, ()>, StoreError> {
        self.inner.changes(id).await
    }

    async fn artifact(&self, sha256: &str) -> Result<Option<ArtifactInfo>, StoreError> {
        self.inner.artifact(sha256).await
    }

    async fn ready(&self) -> Result<(), StoreError> {
        self.inner.ready().await
    }
}

#[async_trait]
impl<T: Queue + ?Sized> Queue for Observed<T> {
    async fn lease(&self, worker: &str) -> Result<Lease, StoreError> {
        let lease = self.inner.lease(worker).await?;
        self.telemetry.spans.begin(&lease);
        self.telemetry.metrics.begun();
        Ok(lease)
    }

    fn lease_time(&self) -> Duration {
        self.inner.lease_time()
    }

    async fn extend(&self, lease: &Lease) -> Result<LeaseStatus, StoreError> {
        let standing = self.inner.extend(lease).await;
        if let Err(StoreError::LeaseExpired(id)) = &standing {
            self.ended(*id, "released");
        }
        standing
    }

    async fn append(&self, lease: &Lease, entries: Vec<LogEntry>) -> Result<(), StoreError> {
        self.phases(self.telemetry.spans.entries(lease.build.id, &entries));
        self.inner.append(lease, entries).await
    }

    async fn announce(&self, lease: &Lease, artifact: &ArtifactInfo) -> Result<(), StoreError> {
        self.inner.announce(lease, artifact).await
    }

    async fn finish(&self, lease: &Lease, outcome: BuildOutcome) -> Result<(), StoreError> {
        let how = match &outcome {
            BuildOutcome::Succeeded(_) => "succeeded",
            BuildOutcome::Failed(_) => "failed",
        };
        self.inner.finish(lease, outcome).await?;
        self.ended(lease.build.id, how);
        Ok(())
    }

    async fn stopped(&self, lease: &Lease) -> Result<(), StoreError> {
        self.inner.stopped(lease).await?;
        self.ended(lease.build.id, "cancelled");
        Ok(())
    }

    async fn release(&self, lease: &Lease) -> Result<(), StoreError> {
        let released = self.inner.release(lease).await;
        self.ended(lease.build.id, "released");
        released
    }

    async fn depth(&self) -> Result<QueueDepth, StoreError> {
        self.inner.depth().await
    }

    async fn position(&self, id: BuildId) -> Result<Option<QueuePosition>, StoreError> {
        self.inner.position(id).await
    }
}

#[async_trait]
impl<T: Artifacts + ?Sized> Artifacts for Observed<T> {
    async fn put(&self, sha256: &str, file: &Path) -> Result<(), StoreError> {
        self.inner.put(sha256, file).await
    }

    async fn find(&self, sha256: &str) -> Result<Option<Stored>, StoreError> {
        self.inner.find(sha256).await
    }

    async fn read(
        &self,
        sha256: &str,
        range: Range<u64>,
    ) -> Result<BoxStream<'static, Result<Bytes, StoreError>>, StoreError> {
        let telemetry = Arc::clone(&self.telemetry);
        let pieces = self.inner.read(sha256, range).await?;
        Ok(pieces
            .inspect(move |piece| {
                if let Ok(piece) = piece {
                    telemetry.metrics.served(piece.len() as u64);
                }
            })
            .boxed())
    }

    async fn ready(&self) -> Result<(), StoreError> {
        self.inner.ready().await
    }
}
