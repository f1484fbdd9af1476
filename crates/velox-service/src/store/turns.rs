//! Fairness between tenants, for every store: who is next, where a build stands, and whether the queue takes another build.

use std::{
    collections::{BTreeMap, HashMap},
    hash::Hash,
};

use velox_api::{BuildId, QueuePosition};

use super::StoreError;

/// The queued builds of a tenant, or of several.
#[derive(Debug)]
pub(super) struct TenantLine<L> {
    pub(super) name: L,
    /// How many of its builds are running.
    pub(super) running: u64,
    /// The number of its last turn; 0: it had none.
    pub(super) last_turn: u64,
}

/// Sorts the lines by whose turn it is: the fewest running builds first, then the longest time since the last turn. Equal
/// lines stay in their order.
pub(super) fn sort_by_turn<L>(lines: &mut [TenantLine<L>]) {
    lines.sort_by_key(|line| (line.running, line.last_turn));
}

/// The position of a build: `waiting` has the builds of each line in their order, `running` the number of running builds of
/// each line. `None`: it doesn't wait.
pub(super) fn position<L: Hash + Eq>(
    id: BuildId,
    waiting: impl IntoIterator<Item = (L, BuildId)>,
    mut running: HashMap<L, u64>,
) -> Option<QueuePosition> {
    let mut rounds = BTreeMap::new();
    for (line, build) in waiting {
        let round = running.entry(line).or_default();
        *round += 1;
        rounds.entry(build).and_modify(|least: &mut u64| *least = (*least).min(*round)).or_insert(*round);
    }
    let turn = |(build, round): (&BuildId, &u64)| (*round, *build);
    let mine = turn(rounds.get_key_value(&id)?);
    let at = rounds.iter().filter(|other| turn(*other) <= mine).count() as u64;
    Some(QueuePosition { at, of: rounds.len() as u64 })
}

/// How many builds there are when another one is to be queued.
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
    /// Whether a queue of this length takes another build of the tenant. A tenant without queued builds may exceed the length,
    /// up to twice: a full queue of one tenant doesn't lock out the others.
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
