//! Applies the retention limits.
//!
//! Builds are removed with their logs and binaries: the records first, so that none refers to a missing
//! binary. Artifacts without a build, such as those of dead workers, are removed too. Every node does so.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use jiff::Timestamp;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::{
    artifacts::{ArtifactBucket, ListedArtifact},
    options::Retention,
    store::{BuildStore, MIN_RETENTION, StoreError},
};

/// How often the limits are applied.
const APPLY_INTERVAL: Duration = Duration::from_secs(600);
/// How many artifacts are removed at once: a cluster's store lists all builds for it.
const REMOVAL_BATCH: usize = 100;
/// The timeout of removing a binary after its record; later a build may store it again.
const REMOVAL_TIMEOUT: Duration = Duration::from_secs(60);

impl Retention {
    /// Applies the limits until the shutdown.
    pub(crate) async fn run(
        self,
        store: Arc<dyn BuildStore>,
        artifacts: Arc<ArtifactBucket>,
        shutdown: CancellationToken,
    ) {
        let mut ticks = interval(APPLY_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
            if let Err(error) = self.apply(&*store, &artifacts, SystemTime::now()).await {
                tracing::warn!(%error, "failed to remove old builds; retrying later");
            }
            let verified = shutdown.run_until_cancelled(artifacts.verify_all()).await;
            if let Some(Err(error)) = verified {
                tracing::warn!(%error, "failed to verify the artifacts; retrying later");
            }
        }
    }

    async fn apply(
        &self,
        store: &dyn BuildStore,
        artifacts: &ArtifactBucket,
        now: SystemTime,
    ) -> Result<(), StoreError> {
        let pruned = store.prune(before(now, self.age), self.builds, before(now, MIN_RETENTION)).await?;
        let mut all = artifacts.list().await?;
        // After the listing, so that artifacts stored meanwhile aren't removed.
        let known = store.artifacts().await?;
        let used = |artifact: &ListedArtifact| {
            let used = Timestamp::try_from(artifact.last_used).unwrap_or(Timestamp::MAX);
            known.get(&artifact.sha256).map_or(used, |known| used.max(*known))
        };
        all.sort_by_key(used);
        let mut total: u64 = all.iter().map(|artifact| artifact.size).sum();
        all.retain(|artifact| {
            let needed = used(artifact) > before(now, MIN_RETENTION);
            let fits = total <= self.artifacts;
            if needed || (fits && known.contains_key(&artifact.sha256)) {
                return false;
            }
            // Counted as removed even if another node removes it or it was just used; the next run counts
            // again.
            total -= artifact.size;
            true
        });
        let mut removed = 0;
        for batch in all.chunks(REMOVAL_BATCH) {
            let until = Instant::now() + REMOVAL_TIMEOUT;
            let sha256s: Vec<String> = batch.iter().map(|artifact| artifact.sha256.clone()).collect();
            let unused = store.remove_artifacts(&sha256s, before(now, MIN_RETENTION)).await?;
            for artifact in batch.iter().filter(|artifact| unused.contains(&artifact.sha256)) {
                let late = |_| StoreError::Failed("removing an artifact timed out".to_owned());
                if timeout_at(until, artifacts.remove(artifact.clone())).await.map_err(late)?? {
                    removed += 1;
                }
            }
        }
        artifacts.prune_shared().await?;
        if pruned > 0 || removed > 0 {
            tracing::info!(builds = pruned, artifacts = removed, "removed old builds");
        }
        if total > self.artifacts {
            tracing::warn!(
                bytes = total,
                limit = self.artifacts,
                "artifacts used within the last hour exceed the limit"
            );
        }
        Ok(())
    }
}

fn before(now: SystemTime, age: Duration) -> Timestamp {
    let age = i64::try_from(age.as_secs()).unwrap_or(i64::MAX);
    let second = Timestamp::try_from(now).unwrap_or(Timestamp::MAX).as_second().saturating_sub(age);
    Timestamp::from_second(second).unwrap_or(Timestamp::MIN)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use data_encoding::HEXLOWER;
    use sha2::{Digest as _, Sha256};
    use url::Url;
    use velox_api::{BuildId, BuildSpec, PluginSpec};
    use velox_testkit::NatsServer;

    use super::*;
    use crate::{
        build::{BuildOutcome, NewBuild, Tenant},
        options::ClusterOptions,
        store::{
            JetStreamStore, SqliteStore, StoreOptions, Submission,
            behaviour::{artifact, result},
        },
    };

    const DAY: Duration = Duration::from_secs(86_400);

    struct Fixture {
        directory: tempfile::TempDir,
        store: Box<dyn BuildStore>,
        artifacts: ArtifactBucket,
        _nats: Option<NatsServer>,
    }

    impl Fixture {
        async fn embedded() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let file = directory.path().join("builds.db");
            let store = SqliteStore::open(&file, StoreOptions::LARGE).await.unwrap();
            let folder = ArtifactBucket::open_directory(&directory.path().join("artifacts")).unwrap();
            Self { store: Box::new(store), artifacts: folder, directory, _nats: None }
        }

        /// `None` if no NATS server is available.
        async fn shared() -> Option<Self> {
            let nats = NatsServer::start().inspect_err(|error| println!("skipped: {error}")).ok()?;
            let directory = tempfile::tempdir().unwrap();
            let cluster = ClusterOptions {
                nats: vec![nats.url().parse().unwrap()],
                credentials: None,
                artifacts: Url::from_directory_path(directory.path().join("artifacts")).unwrap(),
                replicas: 1,
                lease_time: Duration::from_secs(30),
            };
            let artifacts = ArtifactBucket::open(&cluster.artifacts, &BTreeMap::new()).unwrap();
            Some(Self {
                store: Box::new(JetStreamStore::connect(&cluster, StoreOptions::LARGE).await.unwrap()),
                artifacts,
                directory,
                _nats: Some(nats),
            })
        }

        async fn keep(&self, retention: Retention, now: SystemTime) {
            retention.apply(&*self.store, &self.artifacts, now).await.unwrap();
        }

        /// Stores an artifact without a build.
        async fn orphan(&self, bytes: &[u8]) -> String {
            let sha256 = HEXLOWER.encode(&Sha256::digest(bytes));
            let file = self.directory.path().join("rr");
            std::fs::write(&file, bytes).unwrap();
            self.artifacts.put(&sha256, &file).await.unwrap();
            sha256
        }

        async fn submit(&self, version: &str) -> Submission {
            let spec = BuildSpec::new(version, vec![PluginSpec::new("example.com/a", "v1.0.0")]);
            self.store.submit(NewBuild::new(spec, Tenant("somebody".to_owned()))).await.unwrap()
        }

        /// Finishes a build with these bytes.
        async fn made(&self, version: &str, bytes: &[u8]) -> (BuildId, String) {
            self.submit(version).await;
            let lease = self.store.lease("worker").await.unwrap();
            let sha256 = self.orphan(bytes).await;
            let made = result(artifact(sha256.clone(), bytes.len()));
            self.store.finish(&lease, BuildOutcome::Succeeded(made)).await.unwrap();
            (lease.build.id, sha256)
        }

        async fn there(&self, sha256: &str) -> bool {
            self.artifacts.find(sha256).await.unwrap().is_some()
        }
    }

    #[tokio::test]
    async fn an_embedded_service_keeps_to_it() {
        keeps_to_it(Fixture::embedded().await).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_cluster_keeps_to_it() {
        if let Some(place) = Fixture::shared().await {
            keeps_to_it(place).await;
        }
    }

    /// Binaries and builds are removed together, and artifacts without a build are removed.
    async fn keeps_to_it(place: Fixture) {
        let (first, one) = place.made("v1.0.0", b"one").await;
        let (second, two) = place.made("v2.0.0", b"binary two").await;
        let lost = place.orphan(b"whoever stored it died").await;
        let (now, tomorrow) = (SystemTime::now(), SystemTime::now() + DAY);
        let keep = Retention::default();
        let little = Retention { artifacts: 1, ..keep };
        place.keep(little, now).await;
        assert!(place.there(&one).await && place.there(&two).await, "they are needed still");
        assert!(place.there(&lost).await, "a build may be about to end with it");
        place.keep(keep, tomorrow).await;
        assert!(place.there(&one).await && place.there(&two).await && !place.there(&lost).await);
        // Nodes may prune concurrently.
        let fewer = Retention { builds: 1, ..keep };
        tokio::join!(place.keep(fewer, tomorrow), place.keep(fewer, tomorrow));
        assert!(place.store.get(first).await.unwrap().is_none());
        assert!(!place.there(&one).await && place.there(&two).await);
        tokio::join!(place.keep(little, tomorrow), place.keep(little, tomorrow));
        assert!(!place.there(&two).await);
        assert!(place.store.get(second).await.unwrap().is_none());
        assert!(matches!(place.submit("v2.0.0").await, Submission::Queued(_)), "it is built again");
    }
}
