//! Readiness: whether a node can accept and run builds.

use std::{sync::Arc, time::Instant};

use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use crate::{
    artifacts::ArtifactBucket,
    error::{ApiError, ApiErrorKind},
    job::disk::Disk,
    store::{BuildStore, StoreError},
};

/// The checks of `/readyz`: the process isn't shutting down, and each store and the disk are written to and read from.
pub(crate) struct Readiness {
    pub(crate) store: Arc<dyn BuildStore>,
    artifacts: Arc<ArtifactBucket>,
    disk: Disk,
    /// Cancelled when the process shuts down.
    draining: CancellationToken,
    /// When the last successful check started. Requests that wait for a check share the next one.
    last: Mutex<Option<Instant>>,
}

impl Readiness {
    pub(crate) fn new(
        store: Arc<dyn BuildStore>,
        artifacts: Arc<ArtifactBucket>,
        disk: Disk,
        draining: CancellationToken,
    ) -> Self {
        Self { store, artifacts, disk, draining, last: Mutex::default() }
    }

    pub(crate) async fn check(&self) -> Result<(), ApiError> {
        if self.draining.is_cancelled() {
            return Err(ApiError::new(ApiErrorKind::ShuttingDown, "send requests to another node"));
        }
        let requested = Instant::now();
        let mut last = self.last.lock().await;
        if last.is_some_and(|started| started >= requested) {
            return Ok(());
        }
        let started = Instant::now();
        if self.disk.is_full() {
            return Err(StoreError::DiskFull.into());
        }
        let disk = async {
            let failed =
                |error| StoreError::Failed(format!("failed to write to the data directory: {error}"));
            self.disk.probe().await.map_err(failed)
        };
        tokio::try_join!(self.store.ready(), self.artifacts.ready(), disk)?;
        *last = Some(started);
        Ok(())
    }
}
