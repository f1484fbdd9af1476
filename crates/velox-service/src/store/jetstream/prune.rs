//! Removes old builds with their logs, artifact entries and finally tombstones.
//!
//! Nodes prune concurrently with builds and downloads. An artifact's entry in the bucket decides whether it
//! may be removed: it is rewritten before the bytes are stored, when a build finishes and when a client
//! requests them; pruning replaces an old entry with a tombstone. Both name the revision that they replace,
//! so one of them conflicts. A build that stores a just removed artifact waits until its bytes are removed.

use std::{collections::HashSet, time::Duration};

use async_nats::HeaderMap;
use jiff::Timestamp;
use velox_api::{ArtifactInfo, BuildId};

use super::{
    JetStreamState,
    gate::RATE_PREFIX,
    nats::{PutResult, is_removal},
    record::{KeyPointer, artifact_in, state_of, written},
};
use crate::store::{MIN_RETENTION, StoreError};

/// The age at which an entry is rewritten when used, so that no recorded use exceeds [`MIN_RETENTION`].
const REFRESH_AGE: Duration = Duration::from_secs(MIN_RETENTION.as_secs() / 2);
/// How long the bytes of a removed artifact may still be in removal: a minute plus clock skew.
const REMOVAL_TIMEOUT: Duration = Duration::from_secs(150);

impl JetStreamState {
    /// Marks the artifact as used, which keeps it for at least [`REFRESH_AGE`], and returns it. A missing
    /// entry is created from `new`.
    pub(super) async fn touch(
        &self,
        sha256: &str,
        new: Option<&ArtifactInfo>,
    ) -> Result<Option<ArtifactInfo>, StoreError> {
        loop {
            let entry = self.artifacts.read(sha256).await?;
            let info = match (entry.value::<ArtifactInfo>()?, new) {
                (Some(info), _) if !is_older(entry.at, REFRESH_AGE) => return Ok(Some(info)),
                (Some(info), _) => info,
                (None, None) => return Ok(None),
                (None, Some(_)) if entry.is_tombstone() && !is_older(entry.at, REMOVAL_TIMEOUT) => {
                    return Err(StoreError::Failed(format!("the artifact {sha256} is just being removed")));
                }
                (None, Some(new)) => new.clone(),
            };
            let put = self.artifacts.put(sha256, written(&info)?, &HeaderMap::new(), entry.revision).await?;
            if put.revision("an artifact record")?.is_some() {
                return Ok(Some(info));
            }
        }
    }

    /// Whether a build may finish with the artifact; `false` if it was removed since it was stored.
    pub(super) async fn is_stored(&self, artifact: &ArtifactInfo) -> Result<bool, StoreError> {
        if self.artifacts.read(&artifact.sha256).await?.is_tombstone() {
            return Ok(false);
        }
        Ok(self.touch(&artifact.sha256, Some(artifact)).await?.is_some())
    }

    /// Removes a finished build. `false` if it is unfinished or already removed.
    async fn remove_build(&self, name: &str) -> Result<bool, StoreError> {
        let Ok(id) = name.parse::<BuildId>() else { return Ok(false) };
        let Some((record, revision)) = self.record(id).await? else { return Ok(false) };
        if !record.build.state.is_final() {
            return Ok(false);
        }
        // The record last: after a crash, it leads to the remains.
        let key = &record.build.key;
        let pointer = self.keys.read(key).await?;
        if pointer.value::<KeyPointer>()?.is_some_and(|pointer| pointer.build.id == id) {
            // Conflicts with a newer build of the key, which stays.
            self.keys.remove(key, pointer.revision).await?;
        }
        self.logs.purge(name, u64::MAX).await?;
        let removed = matches!(self.builds.remove(name, revision).await?, PutResult::Done(_));
        if removed {
            self.index.saw_removal(id);
        }
        Ok(removed)
    }

    /// Implements [`crate::store::BuildStore::prune`]; also removes tombstones and quotas older than `needed`.
    pub(super) async fn prune(
        &self,
        before: Timestamp,
        most: u64,
        needed: Timestamp,
    ) -> Result<u64, StoreError> {
        // Before the builds: an entry used by a build since then has another revision.
        let entries = self.artifacts.heads().await?;
        let mut builds = self.builds.heads().await?;
        builds.retain(|head| state_of(&head.headers).is_some_and(velox_api::BuildState::is_final));
        builds.sort_by_key(|head| std::cmp::Reverse(head.revision));
        let mut pruned = 0;
        let mut made = HashSet::new();
        for (place, head) in (0_u64..).zip(&builds) {
            if place >= most || head.at < before {
                pruned += u64::from(self.remove_build(&head.name).await?);
            } else {
                made.extend(artifact_in(&head.headers));
            }
        }
        for entry in entries {
            if entry.at < needed && !is_removal(&entry.headers) && !made.contains(entry.name.as_str()) {
                self.artifacts.remove(&entry.name, entry.revision).await?;
            }
        }
        for head in self.keys.heads().await? {
            // An unused quota is full after an hour, and `needed` is no later than that.
            if head.name.starts_with(RATE_PREFIX) && head.at < needed {
                self.keys.purge(&head.name, head.revision).await?;
            }
        }
        for bucket in [&self.builds, &self.keys, &self.artifacts] {
            for head in bucket.heads().await? {
                if is_removal(&head.headers) && head.at < needed {
                    bucket.purge(&head.name, head.revision).await?;
                }
            }
        }
        Ok(pruned)
    }

    /// Implements [`crate::store::BuildStore::remove_artifacts`]. The builds are listed once for all.
    pub(super) async fn remove_artifacts(
        &self,
        sha256s: &[String],
        before: Timestamp,
    ) -> Result<HashSet<String>, StoreError> {
        let mut removed = HashSet::new();
        for sha256 in sha256s {
            let entry = self.artifacts.read(sha256).await?;
            let is_used = entry.message.is_some() && entry.at >= before;
            if !is_used && let PutResult::Done(_) = self.artifacts.remove(sha256, entry.revision).await? {
                removed.insert(sha256.clone());
            }
        }
        let heads = if removed.is_empty() { Vec::new() } else { self.builds.heads().await? };
        for head in heads {
            if artifact_in(&head.headers).is_some_and(|sha256| removed.contains(sha256)) {
                self.remove_build(&head.name).await?;
            }
        }
        Ok(removed)
    }
}

fn is_older(at: Timestamp, age: Duration) -> bool {
    velox_api::now().duration_since(at).unsigned_abs() > age
}
