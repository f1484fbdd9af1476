//! Publishes missing jobs of builds whose node died while queueing them.

use std::{collections::HashSet, time::Duration};

use futures::TryStreamExt;
use tokio::time::{Instant, sleep};
use velox_api::BuildId;

use super::{
    JetStreamState,
    nats::{NatsError, retry},
    record::tenants_of,
};
use crate::store::StoreError;

/// The interval of the check. Every node runs it; it is idempotent.
const RECONCILE_INTERVAL: Duration = Duration::from_secs(5);
/// The minimum age of a record: younger builds may still be in submission.
const MIN_RECORD_AGE: Duration = Duration::from_secs(3);

impl JetStreamState {
    /// Publishes missing jobs periodically.
    pub(super) async fn reconcile(&self) {
        loop {
            if let Err(error) = self.publish_missing().await {
                tracing::warn!(%error, "failed to look for builds without a job");
            }
            sleep(RECONCILE_INTERVAL).await;
        }
    }

    /// Publishes missing jobs. Records are read after the jobs were listed, since jobs are removed after the
    /// record is final.
    async fn publish_missing(&self) -> Result<(), StoreError> {
        let Some(before) = Instant::now().checked_sub(MIN_RECORD_AGE) else { return Ok(()) };
        let unfinished = self.index.unfinished(before);
        if unfinished.is_empty() {
            return Ok(());
        }
        let jobs: HashSet<BuildId> =
            self.job_names().await?.iter().filter_map(|name| name.split_once('.')?.1.parse().ok()).collect();
        for id in unfinished.into_iter().filter(|id| !jobs.contains(id)) {
            match self.record(id).await? {
                Some((record, _)) if !record.build.state.is_final() => {
                    tracing::info!(build = %id, "publishing the job that was missing");
                    self.publish(&record.build, &record.build.tenant).await?;
                }
                Some((record, revision)) => {
                    self.index.saw(id, revision, record.build.state, tenants_of(&record.build));
                }
                None => self.index.saw_removal(id),
            }
        }
        Ok(())
    }

    /// The names of the jobs in the stream, `LANE.ID`.
    pub(super) async fn job_names(&self) -> Result<Vec<String>, StoreError> {
        retry("list the jobs in NATS", || async {
            let info = self.jobs.stream.info_with_subjects(self.jobs.subject(">"));
            let info = info.await.map_err(NatsError::again)?;
            let subjects: Vec<(String, usize)> = info.try_collect().await.map_err(NatsError::again)?;
            Ok(subjects.iter().filter_map(|(subject, _)| Some(self.jobs.name(subject)?.to_owned())).collect())
        })
        .await
    }
}
