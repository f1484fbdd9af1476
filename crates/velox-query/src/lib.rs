//! Queries about a RoadRunner build. Only caches are written; what a query compiles stays in the build cache of Go.
//!
//! | query                  | result                                                 | command             |
//! |------------------------|--------------------------------------------------------|---------------------|
//! | [`list`]               | plugins of the configuration, the lock and the release | `vx list`           |
//! | [`ModuleGraph`]        | compiled modules and the requirements between them     | `vx tree`, `vx why` |
//! | [`PluginGraph`]        | connections between plugins, sections of `.rr.yaml`    | `vx graph`          |
//! | [`available_versions`] | available versions of plugins                          | `vx outdated`       |
//! | [`select_plugins`]     | module paths and versions of plugin selectors          | `vx add`, `vx init` |
//! | [`check`]              | problems such as moving refs                           | `vx check`          |
//! | [`AuditReport`]        | known vulnerabilities, and whether they are called     | `vx audit`          |
//! | [`licenses`]           | licenses of everything that is compiled in             | `vx licenses`       |
//! | [`RrConfig`]           | a `.rr.yaml`, and the plugins that its settings need   | `vx check`, `vx init` |
//! | [`inspect`]            | plugins and build settings of a binary                 | `vx inspect`        |
//! | [`BuildDiff`]          | differences between two locks or binaries              | `vx diff`           |
//! | [`RecordedBinary`]     | whether the same inputs build the same binary          | `vx verify`         |
//! | [`Bisection`]          | changes between two locks, and builds with some        | `vx bisect`         |
//! | [`BuildSize`]          | bytes of plugins, modules and packages                 | `vx size`           |
//! | [`diagnose`]           | problems of go, git, proxies, forges, caches and disks | `vx doctor`         |

mod audit;
mod bisect;
mod check;
mod configuration;
mod diff;
mod doctor;
mod foreign_plugins;
mod generation;
mod graph;
mod inspect;
mod interfaces;
mod licenses;
mod list;
mod module_paths;
mod outdated;
mod plugin_graph;
mod rr_config;
mod select;
mod size;
mod upgrade;
mod verify;
mod why;

pub use audit::{
    AuditReport, CallFrame, PUBLIC_VULNERABILITY_DATABASE, Reach, SecurityChange, SecurityPlan,
    SecuritySubject, UnfixedVulnerability, VersionAudit, VersionVulnerability, Vulnerability,
    VulnerabilityDiff, module_display_name,
};
pub use bisect::{Bisection, SearchResult, StepOutcome, search_changes};
pub use check::{CheckReport, CheckRule, Finding, build, check, check_known_plugins, check_majors};
pub use configuration::{PluginEntry, plugin_group, plugin_name, render_configuration, render_settings};
pub use diff::{
    BuildChange, BuildDiff, BuildPlugin, BuildVersions, ChangeDirection, ComparedBuild, LicenseChange,
    LockChange, LockChangeKind, ModuleSizeChange, ModuleVersions, SizeChange,
};
pub use doctor::{Diagnosis, Health, diagnose};
pub use generation::{plugin_major, plugin_major_of};
pub use graph::{GraphModule, ModuleGraph};
pub use inspect::{BinaryModule, Inspection, inspect};
pub use licenses::{DeniedLicense, LicenseGroup, LicenseReport, LicensedModule, licenses};
pub use list::{ListedPlugin, PluginList, list};
pub use module_paths::module_paths;
pub use outdated::{AvailableVersions, NewerGeneration, ROADRUNNER, available_versions, failed_listings};
pub use plugin_graph::{
    DisabledCause, FactKind, Implementer, LoadedPluginGraph, PluginEdge, PluginGraph, PluginNeed, PluginNode,
    PluginStart, ProvidedType, StartCondition, UnknownFact,
};
pub use rr_config::{
    CompiledPlugins, DryStart, RR_CONFIG_FILE_NAME, RrConfig, RrConfigCheck, RrConfigPlugins, RrConfigReport,
    check_rr_config, is_rr_config,
};
pub use select::{SelectedPlugin, select_plugins};
pub use size::{
    BinaryContents, BuildSize, ModuleGrowth, ModuleSize, PackageSize, PluginSize, RecordedSize,
    RecordedSizes, SizePrediction, SizeReport, binary_size, is_binary,
};
pub use upgrade::{PluginUpgrade, UpgradePlan, UpgradeStep, plan_upgrade};
pub use verify::{BinaryDifference, BuildVerification, DifferenceKind, RecordedBinary, read_lock};
pub use why::{ModuleRequirement, Requirer, Why};

pub use velox_gomod::module::without_major;

/// The last element of a module path, without its major version suffix.
fn last_part(module: &str) -> &str {
    let base = without_major(module);
    base.rsplit_once('/').map_or(base, |(_, last)| last)
}
