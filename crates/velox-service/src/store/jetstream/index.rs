//! A node's in-memory index of builds: the unfinished ones and the watchers.
//!
//! It follows the headers of all records and log chunks on NATS, and may lag except for this node's own
//! writes.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{sync::Notify, time::Instant};
use velox_api::{BuildId, BuildState, QueuePosition};

use super::record::lane;
use crate::store::{
    QueueDepth,
    turns::{QueueLoad, QueuePositions},
    watch::Watches,
};

#[derive(Debug, Default)]
pub(super) struct BuildIndex {
    state: Mutex<IndexState>,
    pub(super) watches: Arc<Watches>,
    /// A build was queued.
    pub(super) queued: Notify,
}

#[derive(Debug, Default)]
struct IndexState {
    unfinished: HashMap<BuildId, UnfinishedBuild>,
    /// The queue positions of `unfinished`, once somebody asked for one.
    positions: Option<QueuePositions>,
    /// All records up to this revision were seen.
    reached: u64,
}

#[derive(Debug, Clone)]
struct UnfinishedBuild {
    state: BuildState,
    revision: u64,
    since: Instant,
    /// Digests of the requesting tenants ([`super::record::digest`]); the first determines the lane.
    tenants: Vec<String>,
}

impl BuildIndex {
    /// Updates the index from a record: its state, revision and requesting tenants.
    pub(super) fn saw(&self, id: BuildId, revision: u64, state: BuildState, tenants: Vec<String>) {
        let mut index = self.hold();
        index.positions = None;
        if state.is_final() {
            index.unfinished.remove(&id);
        } else if index.unfinished.get(&id).is_none_or(|old| old.revision < revision) {
            let new = UnfinishedBuild { state, revision, since: Instant::now(), tenants };
            index.unfinished.insert(id, new);
        }
        drop(index);
        self.watches.tell(id);
        if state == BuildState::Queued {
            self.queued.notify_waiters();
        }
    }

    /// Removes a build whose record was removed.
    pub(super) fn saw_removal(&self, id: BuildId) {
        let mut index = self.hold();
        index.positions = None;
        index.unfinished.remove(&id);
        drop(index);
        self.watches.tell(id);
    }

    /// Notifies all watchers, since changes may have been missed.
    pub(super) fn missed(&self) {
        self.watches.tell_all();
        self.queued.notify_waiters();
    }

    /// Records that all records up to this revision were seen.
    pub(super) fn reach(&self, revision: u64) {
        let mut index = self.hold();
        index.reached = index.reached.max(revision);
    }

    pub(super) fn reached(&self) -> u64 {
        self.hold().reached
    }

    /// The numbers of builds for the admission of another one of this tenant.
    pub(super) fn load(&self, tenant: &str) -> QueueLoad {
        let index = self.hold();
        let of_tenant = |only: Option<BuildState>| {
            let counts = |build: &&UnfinishedBuild| {
                only.is_none_or(|only| build.state == only) && build.tenants.iter().any(|of| of == tenant)
            };
            index.unfinished.values().filter(counts).count() as u64
        };
        QueueLoad {
            queued: index.depth().queued,
            queued_of_tenant: of_tenant(Some(BuildState::Queued)),
            unfinished_of_tenant: of_tenant(None),
        }
    }

    /// The number of running builds of each lane.
    pub(super) fn running(&self) -> HashMap<String, u64> {
        self.hold().running()
    }

    /// The queue position of a build.
    pub(super) fn position(&self, id: BuildId) -> Option<QueuePosition> {
        let mut index = self.hold();
        if let Some(positions) = &index.positions {
            return positions.of(id);
        }
        let mut waiting: Vec<(BuildId, &UnfinishedBuild)> =
            index.unfinished.iter().map(|(id, build)| (*id, build)).collect();
        waiting.retain(|(_, build)| build.state == BuildState::Queued);
        waiting.sort_unstable_by_key(|(id, _)| *id);
        let lines = waiting.into_iter().flat_map(|(id, build)| {
            let lanes: BTreeSet<&str> = build.tenants.iter().map(|tenant| lane(tenant)).collect();
            lanes.into_iter().map(move |lane| (lane.to_owned(), id))
        });
        let positions = QueuePositions::new(lines, index.running());
        index.positions.insert(positions).of(id)
    }

    pub(super) fn depth(&self) -> QueueDepth {
        self.hold().depth()
    }

    /// The unfinished builds that didn't change since `before`.
    pub(super) fn unfinished(&self, before: Instant) -> Vec<BuildId> {
        let index = self.hold();
        index.unfinished.iter().filter(|(_, state)| state.since <= before).map(|(id, _)| *id).collect()
    }

    /// Locks the state, which is consistent even after a panic.
    fn hold(&self) -> MutexGuard<'_, IndexState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl IndexState {
    fn running(&self) -> HashMap<String, u64> {
        let mut running = HashMap::new();
        for build in self.unfinished.values().filter(|build| build.state == BuildState::Running) {
            if let Some(tenant) = build.tenants.first() {
                *running.entry(lane(tenant).to_owned()).or_default() += 1;
            }
        }
        running
    }

    fn depth(&self) -> QueueDepth {
        let count = |state| self.unfinished.values().filter(|build| build.state == state).count() as u64;
        QueueDepth { queued: count(BuildState::Queued), running: count(BuildState::Running) }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::{FutureExt, StreamExt};

    use super::*;

    fn tenant() -> Vec<String> {
        vec!["00ab".to_owned()]
    }

    #[test]
    fn an_older_revision_changes_nothing() {
        let index = BuildIndex::default();
        let id = BuildId::new();
        index.saw(id, 2, BuildState::Running, tenant());
        index.saw(id, 1, BuildState::Queued, tenant());
        assert_eq!(index.depth(), QueueDepth { queued: 0, running: 1 });
        assert_eq!(index.unfinished(Instant::now() + Duration::from_secs(1)), [id]);
        index.saw(id, 3, BuildState::Succeeded, Vec::new());
        assert_eq!(index.depth(), QueueDepth::default());
    }

    #[test]
    fn news_come_at_once_and_then_together() {
        let index = BuildIndex::default();
        let id = BuildId::new();
        let mut news = index.watches.listen(id);
        assert_eq!(news.next().now_or_never(), Some(Some(())));
        assert_eq!(news.next().now_or_never(), None);
        index.watches.tell(id);
        index.watches.tell(id);
        assert_eq!(news.next().now_or_never(), Some(Some(())));
        assert_eq!(news.next().now_or_never(), None);
    }
}
