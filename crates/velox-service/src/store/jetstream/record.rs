//! The records of builds, changed by compare-and-set, and the pointers from keys to builds.

use async_nats::HeaderMap;
use bytes::Bytes;
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use velox_api::{BuildFailure, BuildId, BuildState, FailureKind};

use super::{JetStreamState, nats::PutResult};
use crate::{
    build::{Build, BuildOutcome, Tenant},
    store::StoreError,
};

/// The maximum number of conflicts of a change.
const MAX_CHANGE_ATTEMPTS: u32 = 200;
/// Headers: the state and the requesting tenants, for consumers of headers only.
const STATE: &str = "Vx-State";
const TENANTS: &str = "Vx-Tenants";
/// Header: the SHA-256 of the build's artifact.
const ARTIFACT: &str = "Vx-Artifact";

/// A build and its lease.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct LeasedBuildRecord {
    pub(super) build: Build,
    /// The token of the last lease; kept in final states, so that a repeated finish succeeds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) lease: Option<String>,
    /// The lane of the leased job: a job in another lane is a duplicate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) lane: Option<String>,
}

/// The builds of a key.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct KeyPointer {
    /// The newest build of the key, as queued.
    pub(super) build: Build,
    /// The previous successful build.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) made: Option<BuildId>,
}

/// Whether to keep or write a record, and the caller's result.
pub(super) enum RecordChange<T> {
    Keep(T),
    Put(T),
}

impl JetStreamState {
    /// The record of a build and its revision.
    pub(super) async fn record(
        &self,
        id: BuildId,
    ) -> Result<Option<(Box<LeasedBuildRecord>, u64)>, StoreError> {
        let last = self.builds.read(&id.to_string()).await?;
        Ok(last.value()?.map(|record| (record, last.revision)))
    }

    /// Creates the record of a build.
    pub(super) async fn create_record(&self, build: &Build) -> Result<PutResult, StoreError> {
        self.put_record(&LeasedBuildRecord { build: build.clone(), lease: None, lane: None }, 0).await
    }

    async fn put_record(&self, record: &LeasedBuildRecord, expected: u64) -> Result<PutResult, StoreError> {
        let mut headers = HeaderMap::new();
        headers.insert(STATE, record.build.state.name());
        let tenants = tenants_of(&record.build);
        headers.insert(TENANTS, tenants.join(","));
        if let Some(BuildOutcome::Succeeded(made)) = &record.build.outcome {
            headers.insert(ARTIFACT, made.artifact.sha256.as_str());
        }
        let put = self.builds.put(&record.build.id.to_string(), written(record)?, &headers, expected).await?;
        if let PutResult::Done(revision) = put {
            self.index.saw(record.build.id, revision, record.build.state, tenants);
        }
        Ok(put)
    }

    /// Changes a record. `change` is called again after each conflict and must recognize its own earlier
    /// change. `None` if there is no record.
    pub(super) async fn change<T>(
        &self,
        id: BuildId,
        mut change: impl FnMut(&mut LeasedBuildRecord) -> RecordChange<T>,
    ) -> Result<Option<T>, StoreError> {
        for _ in 0..MAX_CHANGE_ATTEMPTS {
            let Some((mut record, revision)) = self.record(id).await? else { return Ok(None) };
            let answer = match change(&mut record) {
                RecordChange::Keep(answer) => return Ok(Some(answer)),
                RecordChange::Put(answer) => answer,
            };
            let mut put = self.put_record(&record, revision).await?;
            if put == PutResult::TooLarge {
                let message = "what came of the build is larger than a message of NATS may be: raise its \
                               max_payload";
                let failure = BuildFailure { kind: FailureKind::Internal, message: message.to_owned() };
                record.build.end(BuildState::Failed, Some(BuildOutcome::Failed(failure)));
                put = self.put_record(&record, revision).await?;
            }
            if put.revision("a record")?.is_some() {
                return Ok(Some(answer));
            }
        }
        Err(StoreError::Failed(format!("the record of build {id} changes all the time")))
    }
}

pub(super) fn written(value: &impl Serialize) -> Result<Bytes, StoreError> {
    let text = serde_json::to_vec(value);
    text.map(Bytes::from).map_err(|error| StoreError::Failed(format!("a record can't be written: {error}")))
}

/// Digests of the requesting tenants, the build's own first. Names may have any characters.
pub(super) fn tenants_of(build: &Build) -> Vec<String> {
    let others = build.wanted_by.iter().filter(|tenant| **tenant != build.tenant);
    std::iter::once(&build.tenant).chain(others).map(digest).collect()
}

pub(super) fn digest(tenant: &Tenant) -> String {
    let mut digest = HEXLOWER.encode(&Sha256::digest(tenant.0.as_bytes()));
    digest.truncate(24);
    digest
}

/// The lane of a tenant digest.
pub(super) fn lane(digest: &str) -> &str {
    digest.get(..2).unwrap_or(digest)
}

pub(super) fn tenants_in(headers: &HeaderMap) -> Vec<String> {
    let tenants = headers.get(TENANTS).map(|tenants| tenants.as_str()).unwrap_or_default();
    tenants.split(',').map(str::to_owned).collect()
}

pub(super) fn artifact_in(headers: &HeaderMap) -> Option<&str> {
    headers.get(ARTIFACT).map(|sha256| sha256.as_str())
}

pub(super) fn state_of(headers: &HeaderMap) -> Option<BuildState> {
    let word = headers.get(STATE)?.as_str();
    BuildState::ALL.into_iter().find(|state| state.name() == word)
}
