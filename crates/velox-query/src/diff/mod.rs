//! The differences between two builds, each known from its lock or its binary.
//!
//! ```text
//! velox.lock, rr ──► BuildVersions ──┐                     module cache ──► plugins that bring them, licenses
//!                                    ├─compare─► BuildDiff velox.size.json, binaries ──► sizes
//! velox.lock, rr ──► BuildVersions ──┘                     vulnerability database ──► closed and opened ones
//! ```

mod origin;
mod versions;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use serde::Serialize;
use tokio_util::sync::CancellationToken;
use velox_build::{CachedModules, Error, ModuleLicense, SelectedModule, until_cancelled};
use velox_gomod::module::ModuleVersion;

use self::origin::Requirements;
pub use self::versions::{
    BuildPlugin, BuildVersions, ChangeDirection, LockChange, LockChangeKind, ModuleVersions,
};
pub(crate) use self::versions::{compare, compare_modules, described, identity};
use crate::{RecordedSize, RecordedSizes, VulnerabilityDiff, binary_size, inspect};

/// A smaller change of a module is not shown: sizes of modules are estimates.
const MIN_SIZE_CHANGE_BYTES: u64 = 1024;

/// A build to compare.
#[derive(Debug, Clone)]
pub struct ComparedBuild {
    /// Its versions.
    pub versions: BuildVersions,
    /// The sizes of its binaries, as far as they are known.
    pub sizes: RecordedSizes,
}

/// The differences between two builds.
#[derive(Debug, Clone, Default, Serialize)]
pub struct BuildDiff {
    /// Go, RoadRunner, settings, plugins, and then other modules.
    pub changes: Vec<BuildChange>,
    /// The sizes of the target platforms for which both are known.
    pub sizes: Vec<SizeChange>,
    /// Licenses that changed.
    pub licenses: Vec<LicenseChange>,
    /// The changed modules, as `path version`, whose licenses are unknown because the module cache lacks them.
    pub without_license: Vec<String>,
    /// The vulnerabilities; `None`: no database was read.
    pub vulnerabilities: Option<VulnerabilityDiff>,
}

/// A [`LockChange`] with what is known about it.
#[derive(Debug, Clone, Serialize)]
pub struct BuildChange {
    /// The change.
    #[serde(flatten)]
    pub change: LockChange,
    /// How the version changes.
    pub direction: ChangeDirection,
    /// For a module: who requires this version, or required the removed module; `roadrunner`, and names of plugins. Empty
    /// if the module cache lacks their go.mod files.
    pub brought_by: Vec<String>,
    /// For an added plugin or module: its license, if it is known.
    pub license: Option<String>,
}

/// A license that changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LicenseChange {
    /// The module path.
    pub module: String,
    /// An SPDX expression; `None`: not recognized.
    pub from: Option<String>,
    /// An SPDX expression; `None`: not recognized.
    pub to: Option<String>,
}

/// The change of a binary's size.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SizeChange {
    /// The target platform.
    pub target: String,
    /// Bytes before.
    pub from: u64,
    /// Bytes after.
    pub to: u64,
    /// The modules whose size changed by 1 KiB or more, largest change first.
    pub modules: Vec<ModuleSizeChange>,
}

/// The change of a module's size.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ModuleSizeChange {
    /// The module path.
    pub module: String,
    /// Bytes before; zero for a new module.
    pub from: u64,
    /// Bytes after; zero for a removed module.
    pub to: u64,
}

impl ComparedBuild {
    /// Reads a binary.
    ///
    /// # Errors
    /// It can't be read, or is no RoadRunner binary.
    pub fn of_binary(path: &Path) -> Result<Self, Error> {
        let inspection = inspect(path)?;
        let mut sizes = RecordedSizes::default();
        // A compressed binary has versions, but no symbols.
        if let (Some(target), Ok(report)) = (&inspection.target, binary_size(path)) {
            sizes.0.insert(target.clone(), RecordedSize::of(&report));
        }
        Ok(Self { versions: BuildVersions::of_binary(&inspection), sizes })
    }
}

impl BuildDiff {
    /// Compares two builds, without vulnerabilities. Only files on this machine are read.
    #[must_use]
    pub fn new(before: &ComparedBuild, after: &ComparedBuild, cache: &mut CachedModules) -> Self {
        let (old, new) = (&before.versions, &after.versions);
        let (old_modules, new_modules) = (old.compiled(new), new.compiled(old));
        let is_plugin: BTreeSet<String> =
            old.plugins.iter().chain(&new.plugins).map(|plugin| identity(&plugin.module)).collect();
        let versions = |modules: &BTreeMap<String, SelectedModule>| -> ModuleVersions {
            let others = modules.iter().filter(|(path, _)| !is_plugin.contains(&identity(path)));
            others.map(|(path, selected)| (path.clone(), described(selected))).collect()
        };
        let mut changes = compare(old, new);
        let plugins = changes.iter().filter(|change| change.kind == LockChangeKind::Plugin);
        let changed: BTreeSet<String> = plugins.map(|change| change.name.clone()).collect();
        changes.extend(compare_modules(&versions(&old_modules), &versions(&new_modules)));

        let was_required = Requirements::read(old, &old_modules, cache);
        let is_required = Requirements::read(new, &new_modules, cache);
        let mut diff = Self { sizes: sizes(&before.sizes, &after.sizes), ..Self::default() };
        for change in changes {
            let mut brought_by = Vec::new();
            if change.kind == LockChangeKind::Module {
                let side = if change.to.is_some() { &is_required } else { &was_required };
                brought_by = side.users(&change.name, &changed);
            }
            let license = diff.compare_licenses(&change, [old, new], [&old_modules, &new_modules], cache);
            diff.changes.push(BuildChange { direction: change.direction(), change, brought_by, license });
        }
        diff
    }

    /// Looks up the vulnerabilities of the versions on both sides in the database at a URL.
    ///
    /// # Errors
    /// The database can't be read or is invalid; an interruption.
    pub async fn load_vulnerabilities(
        &mut self,
        before: &BuildVersions,
        after: &BuildVersions,
        database: &str,
        environment: &BTreeMap<String, String>,
        cancel: &CancellationToken,
    ) -> Result<(), Error> {
        let sources = |versions: &BuildVersions, other| -> BTreeSet<ModuleVersion> {
            let modules = versions.compiled(other);
            let sources = modules.iter().filter_map(|(path, selected)| selected.source(path));
            let version = format!("v{}", versions.go.trim_start_matches("go"));
            let go = ModuleVersion::new(crate::audit::STANDARD_LIBRARY, version);
            sources.chain([versions.roadrunner.clone(), go]).collect()
        };
        let (before, after) = (sources(before, after), sources(after, before));
        let loading = VulnerabilityDiff::load(database, environment, &before, &after);
        self.vulnerabilities = Some(until_cancelled(cancel, loading).await??);
        Ok(())
    }

    /// Compares the licenses of both versions. Returns the license of what was added.
    fn compare_licenses(
        &mut self,
        change: &LockChange,
        versions: [&BuildVersions; 2],
        modules: [&BTreeMap<String, SelectedModule>; 2],
        cache: &mut CachedModules,
    ) -> Option<String> {
        let [old, new] = [0, 1].map(|side| {
            let (versions, modules) = (versions.get(side)?, modules.get(side)?);
            match change.kind {
                LockChangeKind::RoadRunner => {
                    Some(versions.roadrunner.clone()).filter(|module| !module.version.is_empty())
                }
                LockChangeKind::Module => modules.get(&change.name)?.source(&change.name),
                LockChangeKind::Plugin => {
                    let is_it = |name: &str| name == change.name;
                    let plugin = versions.plugins.iter().find(|plugin| is_it(&plugin.name))?;
                    plugin.selected.source(&plugin.module)
                }
                LockChangeKind::Go | LockChangeKind::Setting => None,
            }
        });
        let mut license = |module: &Option<ModuleVersion>| -> Option<ModuleLicense> {
            let module = module.as_ref()?;
            let license = cache.license(module);
            if license.is_none() {
                self.without_license.push(module.to_string());
            }
            license
        };
        let to = license(&new);
        if change.from.is_none() {
            return to?.expression;
        }
        if let (Some(to), Some(module)) = (to, new)
            && let Some(from) = license(&old)
            && from.expression != to.expression
        {
            self.licenses.push(LicenseChange {
                module: module.path,
                from: from.expression,
                to: to.expression,
            });
        }
        None
    }
}

fn sizes(before: &RecordedSizes, after: &RecordedSizes) -> Vec<SizeChange> {
    let change = |(target, new): (&String, &RecordedSize)| {
        let old = before.0.get(target)?;
        let paths: BTreeSet<&String> = old.modules.keys().chain(new.modules.keys()).collect();
        let size =
            |sizes: &BTreeMap<String, u64>, path: &String| sizes.get(path).copied().unwrap_or_default();
        let mut modules: Vec<ModuleSizeChange> = paths
            .into_iter()
            .map(|path| ModuleSizeChange {
                module: path.clone(),
                from: size(&old.modules, path),
                to: size(&new.modules, path),
            })
            .filter(|change| change.from.abs_diff(change.to) >= MIN_SIZE_CHANGE_BYTES)
            .collect();
        modules.sort_by_key(|change| std::cmp::Reverse(change.from.abs_diff(change.to)));
        Some(SizeChange { target: target.clone(), from: old.total, to: new.total, modules })
    };
    after.0.iter().filter_map(change).collect()
}
