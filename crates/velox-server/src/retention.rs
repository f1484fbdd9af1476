//! What an embedded service keeps, and for how long.
//!
//! Builds go with their logs and binaries: first the records, then the bytes, so that nothing leads to a binary that isn't
//! there.

use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::{Folder, Records as _, Sqlite, StoreError};

/// How often it is looked after.
const EVERY: Duration = Duration::from_secs(600);
/// What was asked for within this time is needed still, whatever the limits are: a client may be about to download it, and
/// a build about to end with it.
const NEEDED: Duration = Duration::from_secs(3600);

/// What an embedded service keeps, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// For how long a finished build is kept.
    pub age: Duration,
    /// How many finished builds are kept; the oldest go first.
    pub builds: u64,
    /// How many bytes the binaries may take; those that nobody asked for the longest go first.
    pub artifacts: u64,
}

impl Default for Retention {
    fn default() -> Self {
        Self { age: Duration::from_secs(90 * 86_400), builds: 10_000, artifacts: 20 << 30 }
    }
}

impl Retention {
    /// Keeps to it until the shutdown.
    pub async fn keep(self, store: Sqlite, folder: Folder, shutdown: CancellationToken) {
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
            if let Err(error) = self.apply(&store, &folder, SystemTime::now()).await {
                tracing::warn!(%error, "old builds can't be tidied up; it is tried again");
            }
        }
    }

    async fn apply(&self, store: &Sqlite, folder: &Folder, now: SystemTime) -> Result<(), StoreError> {
        let age = i64::try_from(self.age.as_secs()).unwrap_or(i64::MAX);
        let before = Timestamp::try_from(now).unwrap_or(Timestamp::MAX).as_second().saturating_sub(age);
        let before = Timestamp::from_second(before).unwrap_or(Timestamp::MIN);
        let pruned = store.prune(before, self.builds).await?;
        let mut all = folder.list().await?;
        all.sort_by_key(|filed| filed.used);
        let mut total: u64 = all.iter().map(|filed| filed.size).sum();
        let mut removed = 0;
        for filed in all {
            let needed = now.duration_since(filed.used).map_or(true, |age| age < NEEDED);
            let fits = total <= self.artifacts;
            if needed || (fits && store.artifact(&filed.sha256).await?.is_some()) {
                continue;
            }
            store.forget(&filed.sha256).await?;
            let size = filed.size;
            if folder.remove(filed).await? {
                total -= size;
                removed += 1;
            }
        }
        if pruned > 0 || removed > 0 {
            tracing::info!(builds = pruned, artifacts = removed, "old builds are gone");
        }
        if total > self.artifacts {
            tracing::warn!(
                bytes = total,
                limit = self.artifacts,
                "binaries of the last hour exceed the limit"
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use sha2::{Digest as _, Sha256};

    use data_encoding::HEXLOWER;

    use super::*;
    use crate::{
        ArtifactInfo, Artifacts as _, BuildId, Made, NewBuild, Outcome, Plugin, Queue as _, Spec,
        SqliteOptions, Submitted, Tenant,
    };

    struct Place {
        directory: tempfile::TempDir,
        store: Sqlite,
        folder: Folder,
    }

    impl Place {
        async fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let store =
                Sqlite::open(&directory.path().join("builds.db"), SqliteOptions::default()).await.unwrap();
            let folder = Folder::open(&directory.path().join("artifacts")).unwrap();
            Self { directory, store, folder }
        }

        async fn submit(&self, version: &str) -> Submitted {
            let spec = Spec::new(version, vec![Plugin::new("example.com/a", "v1.0.0")]);
            let tenant = Tenant("somebody".to_owned());
            self.store.submit(NewBuild { spec, tenant, force: false, at_once: None }).await.unwrap()
        }

        /// A build that made these bytes.
        async fn made(&self, version: &str, bytes: &[u8]) -> (BuildId, String) {
            self.submit(version).await;
            let lease = self.store.lease("worker").await.unwrap();
            let sha256 = HEXLOWER.encode(&Sha256::digest(bytes));
            let file = self.directory.path().join("rr");
            std::fs::write(&file, bytes).unwrap();
            self.folder.put(&sha256, &file).await.unwrap();
            let artifact = ArtifactInfo {
                sha256: sha256.clone(),
                size: bytes.len() as u64,
                file_name: "rr".to_owned(),
                target: "linux/amd64".to_owned(),
            };
            let made = Made {
                artifact,
                version: version.to_owned(),
                go_version: "go1.26.8".to_owned(),
                configuration: String::new(),
                lock: String::new(),
                warnings: Vec::new(),
            };
            self.store.finish(&lease, Outcome::Made(Box::new(made))).await.unwrap();
            (lease.build.id, sha256)
        }

        async fn there(&self, sha256: &str) -> bool {
            self.folder.find(sha256).await.unwrap().is_some()
        }
    }

    const DAY: Duration = Duration::from_secs(86_400);

    #[tokio::test]
    async fn binaries_go_with_their_builds_and_builds_with_their_binaries() {
        let place = Place::new().await;
        let (first, one) = place.made("v1.0.0", b"one").await;
        let (second, two) = place.made("v2.0.0", b"binary two").await;
        let tomorrow = SystemTime::now() + DAY;
        let keep = Retention::default();
        keep.apply(&place.store, &place.folder, tomorrow).await.unwrap();
        assert!(place.there(&one).await && place.there(&two).await);
        let little = Retention { artifacts: 1, ..keep };
        little.apply(&place.store, &place.folder, SystemTime::now()).await.unwrap();
        assert!(place.there(&one).await && place.there(&two).await, "they are needed still");
        Retention { builds: 1, ..keep }.apply(&place.store, &place.folder, tomorrow).await.unwrap();
        assert!(place.store.get(first).await.unwrap().is_none());
        assert!(!place.there(&one).await && place.there(&two).await);
        little.apply(&place.store, &place.folder, tomorrow).await.unwrap();
        assert!(!place.there(&two).await);
        assert!(place.store.get(second).await.unwrap().is_none());
        assert!(matches!(place.submit("v2.0.0").await, Submitted::Queued(_)), "it is built again");
    }
}
