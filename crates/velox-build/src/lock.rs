use std::{collections::BTreeMap, path::PathBuf};

use velox_manifest::GoTarget;

use crate::{PluginRow, Raised};

/// Everything that a build is made from, exactly: the answer to "which versions".
///
/// Only the resolver makes one.
#[derive(Debug, Clone)]
pub struct Lock {
    /// RoadRunner itself.
    pub roadrunner: LockedRoadRunner,
    /// The plugins, sorted by name.
    pub plugins: Vec<LockedPlugin>,
    /// The plugins that minimal version selection raised.
    pub raised: Vec<Raised>,
    /// The target that `modules` and `packages` were listed for.
    pub target: GoTarget,
    /// Every module that is compiled in, by its path.
    pub modules: BTreeMap<String, Selected>,
    /// How many packages are compiled in.
    pub packages: u64,
    /// The complete go.mod.
    pub go_mod: String,
    /// The complete go.sum.
    pub go_sum: String,
    /// The Go version that compiles it (`go1.26.8`).
    pub go_version: String,
}

/// RoadRunner in a [`Lock`].
#[derive(Debug, Clone)]
pub struct LockedRoadRunner {
    /// Its module path, with the major suffix.
    pub module: String,
    /// Its exact version.
    pub version: String,
    /// The ref that the configuration names; `None`: the default branch.
    pub reference: Option<String>,
    /// The full commit id, where it is known.
    pub commit: Option<String>,
    /// The commit's time, in seconds since 1970.
    pub time: i64,
}

/// A plugin in a [`Lock`].
#[derive(Debug, Clone)]
pub struct LockedPlugin {
    /// The user's name for it.
    pub name: String,
    /// Module path; its root package is the plugin.
    pub module: String,
    /// What the configuration asked for.
    pub asked: String,
    /// The version that is compiled in (of the module that is replaced, where one is).
    pub version: String,
    /// The full commit id, where it is known.
    pub commit: Option<String>,
    /// What replaces it.
    pub replacement: Option<LockedReplacement>,
    /// Whether it was added because every server has it.
    pub added: bool,
}

/// What stands in for a plugin's module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LockedReplacement {
    /// Another module, at an exact version.
    Module {
        /// Module path.
        path: String,
        /// Exact version.
        version: String,
    },
    /// A directory of this machine.
    Directory {
        /// Where it is.
        source: PathBuf,
    },
}

/// A module that is compiled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selected {
    /// The version that minimal version selection chose.
    pub version: String,
    /// The replacement's path and version (none for a directory).
    pub replacement: Option<(String, Option<String>)>,
}

impl LockedPlugin {
    pub(crate) fn row(&self) -> PluginRow {
        let local = matches!(self.replacement, Some(LockedReplacement::Directory { .. }));
        PluginRow {
            name: self.name.clone(),
            module: self.module.clone(),
            asked: self.asked.clone(),
            version: (!local).then(|| self.version.clone()),
            commit: self.commit.clone(),
            replacement: self.replacement.as_ref().map(|replacement| match replacement {
                LockedReplacement::Module { path, version } => format!("{path} {version}"),
                LockedReplacement::Directory { source } => source.display().to_string(),
            }),
            added: self.added,
        }
    }
}
