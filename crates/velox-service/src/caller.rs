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
    /// All scopes.
    pub(crate) const ALL: [Self; 3] = [Self::Build, Self::Read, Self::Metrics];

    /// The name of the scope in token files.
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
pub(crate) struct Caller {
    /// The account.
    pub(crate) tenant: Tenant,
    /// The permissions.
    pub(crate) scopes: BTreeSet<TokenScope>,
    /// The maximum number of unfinished builds; `None`: unlimited.
    pub(crate) builds_at_once: Option<u64>,
    /// The maximum number of builds per hour; `None`: unlimited.
    pub(crate) builds_per_hour: Option<u64>,
    /// The allowed modules, as GOPRIVATE patterns; `None`: no further restriction.
    pub(crate) modules: Option<Vec<String>>,
}
