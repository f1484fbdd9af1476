//! A distributed lock for adding builds, so that the limits of the queue and of tenants hold across nodes.
//!
//! The gate is a message in the key bucket, changed by compare-and-set. It has the lock state and the
//! revision of the last record, which the next holder must have seen before counting. The lock of a dead node
//! is taken over after [`HOLDER_TIMEOUT`]; only then may a limit be exceeded by one.

use std::time::Duration;

use async_nats::HeaderMap;
use serde::{Deserialize, Serialize};
use tokio::{
    sync::MutexGuard,
    time::{Instant, sleep},
};

use super::{
    JetStreamState,
    record::{digest, written},
};
use crate::{
    build::{NewBuild, Tenant},
    rate::{self, unix_time},
    store::StoreError,
};

/// Its name in the key bucket; no key has this form.
const GATE: &str = "gate";
/// The keys of quotas begin with it.
pub(super) const RATE_PREFIX: &str = "rate-";
/// How long a holder may be inactive.
const HOLDER_TIMEOUT: Duration = Duration::from_secs(3);
/// The poll interval.
const POLL_INTERVAL: Duration = Duration::from_millis(2);

#[derive(Debug, Default, Serialize, Deserialize)]
struct QueueGate {
    taken: bool,
    /// The revision of the last record created under the lock.
    last: u64,
}

/// The lock, held to add a build.
pub(super) struct Admission<'a> {
    revision: u64,
    last: u64,
    permit: Option<BuildPermit>,
    /// Only one submission per node polls the gate.
    _turn: MutexGuard<'a, ()>,
}

/// A permit of a tenant's builds per hour, consumed under the lock.
struct BuildPermit {
    key: String,
    revision: u64,
    /// When the quota was full again before, in milliseconds since 1970.
    before: u64,
}

impl JetStreamState {
    /// Acquires the lock and checks the limits for this build.
    pub(super) async fn admit(&self, new: &NewBuild) -> Result<Admission<'_>, StoreError> {
        let turn = self.turn.lock().await;
        let mut seen = (0, Instant::now());
        loop {
            let current = self.keys.read(GATE).await?;
            let (gate, revision) = (current.value::<QueueGate>()?.unwrap_or_default(), current.revision);
            if seen.0 != revision {
                seen = (revision, Instant::now());
            }
            let must_wait = gate.taken || self.index.reached() < gate.last;
            if must_wait && seen.1.elapsed() < HOLDER_TIMEOUT {
                sleep(POLL_INTERVAL).await;
                continue;
            }
            let length = self.options.queue.unwrap_or(u64::MAX);
            self.index.load(&digest(&new.tenant)).admit(length, new.at_once)?;
            let taken = written(&QueueGate { taken: true, last: gate.last })?;
            let put = self.keys.put(GATE, taken, &HeaderMap::new(), revision).await?;
            let Some(revision) = put.revision("a key")? else { continue };
            let mut admission = Admission { revision, last: gate.last, permit: None, _turn: turn };
            let Some(an_hour) = new.per_hour else { return Ok(admission) };
            match self.take_permit(&new.tenant, an_hour).await {
                Ok(permit) => admission.permit = Some(permit),
                Err(error) => {
                    self.leave(admission, None, false).await;
                    return Err(error);
                }
            }
            return Ok(admission);
        }
    }

    async fn take_permit(&self, tenant: &Tenant, an_hour: u64) -> Result<BuildPermit, StoreError> {
        let key = format!("{RATE_PREFIX}{}", digest(tenant));
        loop {
            let quota = self.keys.read(&key).await?;
            let before: u64 = quota.value()?.unwrap_or_default();
            let next = rate::take_permit(Duration::from_millis(before), unix_time(), an_hour)
                .map_err(|wait| StoreError::RateLimit { wait })?;
            let next = u64::try_from(next.as_millis()).unwrap_or(u64::MAX);
            let put = self.keys.put(&key, written(&next)?, &HeaderMap::new(), quota.revision).await?;
            if let Some(revision) = put.revision("a key")? {
                return Ok(BuildPermit { key, revision, before });
            }
        }
    }

    /// Releases the lock; the next holder must have seen this record. Returns the permit if no build was added.
    pub(super) async fn leave(&self, admission: Admission<'_>, record: Option<u64>, is_added: bool) {
        if let Some(BuildPermit { key, revision, before }) = admission.permit.as_ref().filter(|_| !is_added) {
            let back = async { self.keys.put(key, written(before)?, &HeaderMap::new(), *revision).await };
            if let Err(error) = back.await {
                tracing::warn!(%error, "failed to return a permit of a tenant");
            }
        }
        let gate = QueueGate { taken: false, last: record.unwrap_or(admission.last) };
        let left =
            async { self.keys.put(GATE, written(&gate)?, &HeaderMap::new(), admission.revision).await };
        if let Err(error) = left.await {
            tracing::warn!(%error, "the next build has to wait a moment");
        }
    }
}
