//! Who adds a build to the queue: one at a time, of all nodes, so that the bound of the queue and those of tenants hold.
//!
//! The gate is a message beside the keys, changed by revision. It says whether somebody is in it, and which record whoever
//! comes next has to have seen before counting. A node that dies in the gate is waited for until [`STUCK`]; only then may
//! there be a build more than was counted.

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

/// Its name among the keys, which have others.
const GATE: &str = "gate";
/// For how long whoever is in it may do nothing.
const STUCK: Duration = Duration::from_secs(3);
/// How often to look.
const PAUSE: Duration = Duration::from_millis(2);

#[derive(Debug, Default, Serialize, Deserialize)]
struct QueueGate {
    taken: bool,
    /// The revision of the last record that was made in it.
    last: u64,
}

/// The right to add a build.
pub(super) struct Admission<'a> {
    revision: u64,
    last: u64,
    /// Of one node there is one at the gate.
    _turn: MutexGuard<'a, ()>,
}

impl JetStreamState {
    /// Waits for the right to add this build, if there is room for it.
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
            if must_wait && seen.1.elapsed() < STUCK {
                sleep(PAUSE).await;
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

    /// Lets the next one in, who has to see this record first.
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
    StoreError::Failed("NATS takes no more keys: look at its limits".to_owned())
}
