//! Fair scheduling between tenants: the next tenant, queue positions and admission.

use std::{
    collections::{BTreeMap, HashMap},
    hash::Hash,
};

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

/// The position of a queued build: `waiting` has the queued builds of each line in order, `running` the
/// number of running builds of each line.
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
