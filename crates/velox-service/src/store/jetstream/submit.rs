//! Queues a build: writes its key, record and job.

use async_nats::HeaderMap;
use velox_api::{BuildId, BuildState};

use super::{
    JetStreamState,
    nats::PutResult,
    record::{KeyPointer, RecordChange, digest, lane, written},
};
use crate::{
    build::{Build, BuildOutcome, NewBuild, Tenant},
    store::{StoreError, Submission, is_fresh},
};

impl JetStreamState {
    /// Joins or reuses the current build of the key, else adds this one. `None` after a conflict.
    pub(super) async fn try_submit(
        &self,
        new: &NewBuild,
        build: &Build,
    ) -> Result<Option<Submission>, StoreError> {
        let current = self.keys.read(&build.key).await?;
        let revision = current.revision;
        let mut made = None;
        if let Some(pointer) = current.value::<KeyPointer>()? {
            // An earlier attempt succeeded and its response was lost.
            if pointer.build.id == build.id {
                let added = self.record_of(build, revision).await?;
                return self.enqueue(build, added).await.map(Some);
            }
            match self.join(&pointer, new).await? {
                JoinResult::Accepted(submitted) => return Ok(Some(*submitted)),
                JoinResult::Finished(last) => made = last,
            }
        }
        let admission = self.admit(new).await?;
        let added = self.add(build, made, revision).await;
        let record = added.as_ref().ok().and_then(|added| added.as_ref()?.record);
        let is_added = matches!(added, Ok(Some(_)));
        self.leave(admission, record, is_added).await;
        match added? {
            Some(added) => self.enqueue(build, added).await.map(Some),
            None => Ok(None),
        }
    }

    /// Points the key at this build, replacing this revision, and creates its record. `None` after a
    /// conflict.
    async fn add(
        &self,
        build: &Build,
        made: Option<BuildId>,
        revision: u64,
    ) -> Result<Option<AddedBuild>, StoreError> {
        let pointer = written(&KeyPointer { build: build.clone(), made })?;
        let put = self.keys.put(&build.key, pointer, &HeaderMap::new(), revision).await?;
        match put.revision("a key")? {
            Some(pointer) => self.record_of(build, pointer).await.map(Some),
            None => Ok(None),
        }
    }

    /// Creates the record of a build unless a joining request did; `pointer` is the key's revision.
    async fn record_of(&self, build: &Build, pointer: u64) -> Result<AddedBuild, StoreError> {
        let record = match self.create_record(build).await? {
            PutResult::Done(revision) => Some(revision),
            _ => None,
        };
        Ok(AddedBuild { pointer, record })
    }

    /// Publishes the job of a build, or removes the build if the queue is full.
    async fn enqueue(&self, build: &Build, added: AddedBuild) -> Result<Submission, StoreError> {
        if self.publish(build, &build.tenant).await? == PutResult::Full {
            // If the record changed, another tenant joined: the job is published once there is room.
            if let Some(revision) = added.record
                && let PutResult::Done(_) = self.builds.remove(&build.id.to_string(), revision).await?
            {
                self.index.saw_removal(build.id);
                self.keys.remove(&build.key, added.pointer).await?;
                return Err(StoreError::QueueFull { waiting: self.index.depth().queued });
            }
        }
        Ok(Submission::Queued(build.clone()))
    }

    /// Publishes the build's job in a tenant's lane, unless it exists.
    pub(super) async fn publish(&self, build: &Build, tenant: &Tenant) -> Result<PutResult, StoreError> {
        let name = format!("{}.{}", lane(&digest(tenant)), build.id);
        self.jobs.put(&name, bytes::Bytes::new(), &HeaderMap::new(), 0).await
    }

    /// Removes the build's jobs from all lanes. Remaining ones are acked by the worker that finds them.
    pub(super) async fn remove_jobs(&self, build: &Build) {
        let subject = self.jobs.subject(&format!("*.{}", build.id));
        let _ = self.jobs.stream.purge().filter(subject).await;
    }

    /// Joins or reuses the build that the key points to, if possible.
    async fn join(&self, pointer: &KeyPointer, new: &NewBuild) -> Result<JoinResult, StoreError> {
        let pointed = &pointer.build;
        if self.builds.read(&pointed.id.to_string()).await?.revision == 0 {
            // Its node is still submitting it, or died.
            self.create_record(pointed).await?;
            self.publish(pointed, &pointed.tenant).await?;
        }
        let mut joined_now = false;
        let joined = self.change(pointed.id, |record| {
            let build = &mut record.build;
            if build.state.is_final() || !build.wanted_by.insert(new.tenant.clone()) {
                return RecordChange::Keep(build.clone());
            }
            joined_now = true;
            RecordChange::Put(build.clone())
        });
        let joined = joined.await?;
        match joined {
            Some(build) if !build.state.is_final() => {
                // The build is queued in the lane of each requesting tenant.
                if joined_now && build.state == BuildState::Queued {
                    self.publish(&build, &new.tenant).await?;
                }
                Ok(JoinResult::Accepted(Box::new(Submission::Joined(build))))
            }
            over => {
                let over = over.filter(|build| build.state == BuildState::Succeeded);
                let made = match (over, pointer.made) {
                    (None, Some(made)) => self.record(made).await?.map(|(record, _)| record.build),
                    (over, _) => over,
                };
                Ok(match made {
                    Some(mut made) if !new.force && self.is_reusable(&made).await? => {
                        made.take_lock();
                        JoinResult::Accepted(Box::new(Submission::Finished(made)))
                    }
                    made => JoinResult::Finished(made.map(|made| made.id)),
                })
            }
        }
    }

    /// Whether a successful build is fresh and its artifact still stored.
    async fn is_reusable(&self, build: &Build) -> Result<bool, StoreError> {
        let fresh = is_fresh(build, self.options.time_to_live);
        let Some(BuildOutcome::Succeeded(made)) = build.outcome.as_ref().filter(|_| fresh) else {
            return Ok(false);
        };
        Ok(self.touch(&made.artifact.sha256, None).await?.is_some())
    }
}

/// The revisions of an added build; `record` is `None` if another node created the record.
struct AddedBuild {
    pointer: u64,
    record: Option<u64>,
}

/// The result of joining a build.
enum JoinResult {
    /// Joined or reused.
    Accepted(Box<Submission>),
    /// Finished and not reusable; has the last successful build.
    Finished(Option<BuildId>),
}
