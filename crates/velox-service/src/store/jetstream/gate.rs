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
    nats::{LastMessage, PutResult},
    record::{digest, read, written},
};
use crate::{build::NewBuild, store::StoreError};

/// Its name in the key bucket; no key has this form.
const GATE: &str = "gate";
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
    /// Only one submission per node polls the gate.
    _turn: MutexGuard<'a, ()>,
}

impl JetStreamState {
    /// Acquires the lock and checks the limits for this build.
    pub(super) async fn admit(&self, new: &NewBuild) -> Result<Admission<'_>, StoreError> {
        let turn = self.turn.lock().await;
        let mut seen = (0, Instant::now());
        loop {
            let (gate, revision) = match self.keys.read(GATE).await? {
                LastMessage::There(message) => (read::<QueueGate>(&message.payload)?, message.sequence),
                LastMessage::Removed { revision, .. } => (QueueGate::default(), revision),
                LastMessage::Absent => (QueueGate::default(), 0),
            };
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
            match self.keys.put(GATE, taken, &HeaderMap::new(), revision).await? {
                PutResult::Done(revision) => return Ok(Admission { revision, last: gate.last, _turn: turn }),
                PutResult::Conflict => {}
                PutResult::Full | PutResult::TooLarge => return Err(no_more_keys()),
            }
        }
    }

    /// Releases the lock; the next holder must have seen this record.
    pub(super) async fn leave(&self, admission: Admission<'_>, record: Option<u64>) {
        let gate = QueueGate { taken: false, last: record.unwrap_or(admission.last) };
        let left =
            async { self.keys.put(GATE, written(&gate)?, &HeaderMap::new(), admission.revision).await };
        if let Err(error) = left.await {
            tracing::warn!(%error, "the next build has to wait a moment");
        }
    }
}

pub(super) fn no_more_keys() -> StoreError {
    StoreError::Failed("NATS rejected a key: check its limits".to_owned())
}
