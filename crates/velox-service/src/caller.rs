//! The caller of a request and its permissions.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::build::Tenant;

/// A permission of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenScope {
    /// Submit builds, and cancel one's own.
    Build,
    /// Read builds, logs and artifacts.
    Read,
    /// Read the metrics.
    Metrics,
}

impl TokenScope {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Build, Self::Read, Self::Metrics];

    /// As it is written.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Build => "build",
            Self::Read => "read",
            Self::Metrics => "metrics",
        }
    }
}

/// The caller of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The account.
    pub tenant: Tenant,
    /// The permissions.
    pub scopes: BTreeSet<TokenScope>,
    /// How many builds of theirs may be queued or running at once; `None`: as many as the queue takes.
    pub builds_at_once: Option<u64>,
    /// How many builds they may ask for in an hour; `None`: any number.
    pub builds_per_hour: Option<u64>,
    /// The modules that they may build from, as GOPRIVATE's patterns; `None`: what the service allows.
    pub modules: Option<Vec<String>>,
}
