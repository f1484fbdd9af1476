//! Queries about a RoadRunner build. Nothing here compiles, and nothing but caches is written.
//!
//! | query        | answers                                                                                   |
//! |--------------|-------------------------------------------------------------------------------------------|
//! | [`list`]     | which plugins the configuration, the lock and RoadRunner's own release name                |
//! | [`ModuleGraph`] | which modules are compiled in and what requires them (`vx tree`, `vx why`)              |
//! | [`check`]    | problems that are visible without compiling: majors, moving refs, known vulnerabilities     |
//! | [`available_versions`] | which plugins have newer versions (`vx outdated`, `vx update`)                   |
//! | [`select_plugins`] | the module paths and versions of plugins as users name them (`vx add`, `vx init`)  |
//! | [`inspect`]  | what an existing binary is built from                                                      |
//! | [`diagnose`] | whether this machine can build: go, git, proxies, forges, caches, disks (`vx doctor`)       |

mod check;
mod doctor;
mod graph;
mod inspect;
mod list;
mod osv;
mod outdated;
mod select;

pub use check::{CheckReport, Finding, LookedUp, Rule, check};
pub use doctor::{Diagnosis, Health, diagnose};
pub use graph::{GraphModule, ModuleGraph, Requirement, Requirer, Why};
pub use inspect::{BinaryModule, Inspection, inspect};
pub use list::{ListedPlugin, PluginList, list};
pub use osv::Vulnerability;
pub use outdated::{AvailableVersions, ROADRUNNER, available_versions};
pub use select::{SelectedPlugin, select_plugins};

use velox_gomod::module::split_path_version;

/// A module path without its major version suffix.
#[must_use]
pub fn without_major(module: &str) -> &str {
    split_path_version(module).map_or(module, |(base, _)| base)
}
