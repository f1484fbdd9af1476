//! Fair scheduling between tenants: the next tenant, queue positions and admission.

use std::{collections::HashMap, hash::Hash};

use velox_api::{BuildId, QueuePosition};

use super::StoreError;

/// The queue of a tenant, or of several tenants.
#[derive(Debug)]
pub(super) struct TenantLine<L> {
    pub(super) name: L,
    /// The number of its running builds.
    pub(super) running: u64,
    /// The number of its last turn; 0: none.
    pub(super) last_turn: u64,
}

/// Sorts the lines by turn: the fewest running builds first, then the longest time since the last turn. The
/// sort is stable.
pub(super) fn sort_by_turn<L>(lines: &mut [TenantLine<L>]) {
    lines.sort_by_key(|line| (line.running, line.last_turn));
}

/// The positions of all queued builds in one state of the queue.
#[derive(Debug, Default)]
pub(super) struct QueuePositions(HashMap<BuildId, u64>);

impl QueuePositions {
    /// `waiting` has the queued builds of each line in order, `running` the number of running builds of each line.
    pub(super) fn new<L: Hash + Eq>(
        waiting: impl IntoIterator<Item = (L, BuildId)>,
        mut running: HashMap<L, u64>,
    ) -> Self {
        let mut rounds: HashMap<BuildId, u64> = HashMap::new();
        for (line, build) in waiting {
            let round = running.entry(line).or_default();
            *round += 1;
            rounds.entry(build).and_modify(|least| *least = (*least).min(*round)).or_insert(*round);
        }
        let mut order: Vec<(u64, BuildId)> =
            rounds.into_iter().map(|(build, round)| (round, build)).collect();
        order.sort_unstable();
        Self(order.into_iter().map(|(_, build)| build).zip(1..).collect())
    }

    /// The position of a build; `None` if it isn't queued.
    pub(super) fn of(&self, id: BuildId) -> Option<QueuePosition> {
        self.0.get(&id).map(|at| QueuePosition { at: *at, of: self.0.len() as u64 })
    }
}

/// The numbers of builds for the admission of another one.
#[derive(Debug, Clone, Copy)]
pub(super) struct QueueLoad {
    /// Queued builds of all tenants.
    pub(super) queued: u64,
    /// Queued builds of the tenant.
    pub(super) queued_of_tenant: u64,
    /// Queued and running builds of the tenant.
    pub(super) unfinished_of_tenant: u64,
}

impl QueueLoad {
    /// Admits another build of the tenant to a queue of this length. Tenants without queued builds may exceed
    /// the length up to twofold, so that one tenant can't lock out the others.
    pub(super) fn admit(self, length: u64, tenant_limit: Option<u64>) -> Result<(), StoreError> {
        if let Some(limit) = tenant_limit.filter(|limit| self.unfinished_of_tenant >= *limit) {
            return Err(StoreError::TenantLimit { limit });
        }
        let hard_limit = length.saturating_mul(2);
        if self.queued >= length && (self.queued_of_tenant > 0 || self.queued >= hard_limit) {
            return Err(StoreError::QueueFull { waiting: self.queued });
        }
        Ok(())
    }
}
