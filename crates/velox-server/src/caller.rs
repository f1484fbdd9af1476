//! Who asks, and what they may do.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::Tenant;

/// What a token allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Ask for builds, and cancel one's own.
    Build,
    /// See builds, logs and artifacts.
    Read,
    /// See the metrics.
    Metrics,
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// On whose account.
    pub tenant: Tenant,
    /// What they may do.
    pub scopes: BTreeSet<Scope>,
    /// How many builds of theirs may be queued or running at once; `None`: as many as the queue takes.
    pub builds_at_once: Option<u64>,
    /// The modules that they may build from, as GOPRIVATE's patterns; `None`: what the service allows.
    pub modules: Option<Vec<String>>,
}
