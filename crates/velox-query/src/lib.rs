//! Queries about a RoadRunner build. Nothing is compiled, and nothing but caches is written.
//!
//! | query           | answers                                                                           | command            |
//! |-----------------|-----------------------------------------------------------------------------------|--------------------|
//! | [`list`]        | which plugins the configuration, the lock and RoadRunner's own release contain    | `vx list`          |
//! | [`ModuleGraph`] | which modules are compiled in and which modules require them                      | `vx tree`, `vx why`|
//! | [`available_versions`] | which newer versions exist                                                 | `vx outdated`      |
//! | [`select_plugins`] | the module paths and versions of plugins as users name them                    | `vx add`, `vx init`|
//! | [`check`]       | problems that show without compiling: majors, moving refs, known vulnerabilities   | `vx check`         |
//! | [`inspect`]     | what an existing binary is built from                                             | `vx inspect`       |
//! | [`diagnose`]    | whether this machine can build: go, git, proxies, forges, caches, disks           | `vx doctor`        |

mod check;
mod configuration;
mod doctor;
mod graph;
mod inspect;
mod list;
mod module_paths;
mod osv;
mod outdated;
mod select;
mod why;

pub use check::{CheckReport, CheckRule, Finding, VulnerabilityLookup, check};
pub use configuration::{PluginEntry, plugin_group, plugin_name, render_configuration, render_settings};
pub use doctor::{Diagnosis, Health, diagnose};
pub use graph::{GraphModule, ModuleGraph};
pub use inspect::{BinaryModule, Inspection, inspect};
pub use list::{ListedPlugin, PluginList, list};
pub use module_paths::module_paths;
pub use osv::Vulnerability;
pub use outdated::{AvailableVersions, ROADRUNNER, available_versions};
pub use select::{SelectedPlugin, select_plugins};
pub use why::{ModuleRequirement, Requirer, Why};

use velox_gomod::module::split_path_version;

/// A module path without its major version suffix.
#[must_use]
pub fn without_major(module: &str) -> &str {
    split_path_version(module).map_or(module, |(base, _)| base)
}

/// The last part of a module path, without its major version suffix.
fn last_part(module: &str) -> &str {
    let base = without_major(module);
    base.rsplit_once('/').map_or(base, |(_, last)| last)
}
