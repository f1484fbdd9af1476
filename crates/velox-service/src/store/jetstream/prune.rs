//! What is forgotten: builds with their logs, what is known of artifacts, and in the end the marks of what was removed.
//!
//! Any number of nodes does it at once, while others build and download. Whether an artifact may go is decided by its entry in
//! the bucket: it is written anew when a build is about to store the bytes, when it ends, and when somebody asks for them; and
//! who forgets it replaces an entry that is old by a mark. Both name the revision that they replace, so that one of them is
//! first and the other one sees it. A build that wants to store what has just been forgotten waits until the bytes are gone.

use std::{collections::HashSet, time::Duration};

use async_nats::HeaderMap;
use jiff::Timestamp;
use velox_api::{ArtifactInfo, BuildId};

use super::{
    JetStreamState,
    nats::{LastMessage, PutResult, SubjectStore, is_removal, when},
    record::{KeyPointer, RecordLookup, artifact_in, read, state_of, written},
};
use crate::store::{MIN_RETENTION, StoreError};

/// An entry that is older is written anew when it is used: no use is older than [`MIN_RETENTION`] by then.
const FRESH: Duration = Duration::from_secs(MIN_RETENTION.as_secs() / 2);
/// For how long after an artifact was forgotten its bytes may be on their way out: the minute that they have, and a
/// difference of the machines' clocks.
const LEAVING: Duration = Duration::from_secs(150);

impl JetStreamState {
    /// What the artifact is, which stays for [`FRESH`] at least from now on. Where nothing is known of it, `new` is from now on.
    pub(super) async fn touch(
        &self,
        sha256: &str,
        new: Option<&ArtifactInfo>,
    ) -> Result<Option<ArtifactInfo>, StoreError> {
        loop {
            let (info, revision) = match (self.artifacts.read(sha256).await?, new) {
                (LastMessage::There(message), _) => {
                    let info: ArtifactInfo = read(&message.payload)?;
                    if !is_older(when(message.time.unix_timestamp()), FRESH) {
                        return Ok(Some(info));
                    }
                    (info, message.sequence)
                }
                (_, None) => return Ok(None),
                (LastMessage::Removed { at, .. }, _) if !is_older(at, LEAVING) => {
                    return Err(StoreError::Failed(format!("the artifact {sha256} is just being removed")));
                }
                (LastMessage::Removed { revision, .. }, Some(new)) => (new.clone(), revision),
                (LastMessage::Absent, Some(new)) => (new.clone(), 0),
            };
            match self.artifacts.put(sha256, written(&info)?, &HeaderMap::new(), revision).await? {
                PutResult::Done(_) => return Ok(Some(info)),
                PutResult::Conflict => {}
                PutResult::Full | PutResult::TooLarge => {
                    return Err(StoreError::Failed(
                        "NATS takes no more artifacts: look at its limits".to_owned(),
                    ));
                }
            }
        }
    }

    /// Whether a build that stored the artifact may end with it. It mayn't where it took so long that others removed it.
    pub(super) async fn is_stored(&self, artifact: &ArtifactInfo) -> Result<bool, StoreError> {
        if let LastMessage::Removed { .. } = self.artifacts.read(&artifact.sha256).await? {
            return Ok(false);
        }
        Ok(self.touch(&artifact.sha256, Some(artifact)).await?.is_some())
    }

    /// Forgets a finished build. `false`: it isn't finished, or gone.
    async fn remove_build(&self, name: &str) -> Result<bool, StoreError> {
        let Ok(id) = name.parse::<BuildId>() else { return Ok(false) };
        let RecordLookup::There(record, revision) = self.record(id).await? else { return Ok(false) };
        if !record.build.state.is_final() {
            return Ok(false);
        }
        // In this order: what is left of it after a crash is found by its record.
        let key = &record.build.key;
        if let LastMessage::There(message) = self.keys.read(key).await?
            && read::<KeyPointer>(&message.payload)?.build.id == id
        {
            // Where there is a newer build meanwhile, that one stays.
            self.keys.remove(key, message.sequence).await?;
        }
        self.logs.purge(name, u64::MAX).await?;
        let removed = matches!(self.builds.remove(name, revision).await?, PutResult::Done(_));
        if removed {
            self.index.saw_removal(id);
        }
        Ok(removed)
    }

    /// As [`crate::store::BuildStore::prune`] says; and removes the marks of what was removed before `needed`.
    pub(super) async fn prune(
        &self,
        before: Timestamp,
        most: u64,
        needed: Timestamp,
    ) -> Result<u64, StoreError> {
        // Before the builds: an entry that gets a build since is another revision by then.
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
        for bucket in [&self.builds, &self.keys, &self.artifacts] {
            unmark(bucket, needed).await?;
        }
        Ok(pruned)
    }

    pub(super) async fn remove_artifact(&self, sha256: &str, before: Timestamp) -> Result<bool, StoreError> {
        let revision = match self.artifacts.read(sha256).await? {
            LastMessage::There(message) if when(message.time.unix_timestamp()) >= before => return Ok(false),
            LastMessage::There(message) => message.sequence,
            LastMessage::Removed { revision, .. } => revision,
            LastMessage::Absent => 0,
        };
        if !matches!(self.artifacts.remove(sha256, revision).await?, PutResult::Done(_)) {
            return Ok(false);
        }
        for head in self.builds.heads().await? {
            if artifact_in(&head.headers) == Some(sha256) {
                self.remove_build(&head.name).await?;
            }
        }
        Ok(true)
    }
}

/// Removes marks that are older than `before`. Until then they tell those who read what was there before.
async fn unmark(bucket: &SubjectStore, before: Timestamp) -> Result<(), StoreError> {
    for head in bucket.heads().await? {
        if is_removal(&head.headers) && head.at < before {
            bucket.purge(&head.name, head.revision).await?;
        }
    }
    Ok(())
}

fn is_older(at: Timestamp, age: Duration) -> bool {
    Timestamp::now().duration_since(at).unsigned_abs() > age
}
