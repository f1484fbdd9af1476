use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use serde::Deserialize;
use velox_gomod::{
    buildinfo::BuildInfo,
    gosum::GoSum,
    modfile::{GoModFile, Replace},
    module::ModuleVersion,
};
use velox_manifest::{GoTarget, Manifest, Replacement, parse_target};

use crate::{
    event::{LoweredModule, PluginRow, RaisedPlugin},
    go_variables::InstructionSet,
    local_module::LocalDirectives,
    settings::BuildSettings,
};

/// The exact versions that a binary is compiled from, from the resolver or [`Lock::parse`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lock {
    /// The Go version (`go1.26.8`).
    pub go_version: String,
    /// The known `h1:` sums of the Go toolchain module, by host platform (`linux/amd64`).
    pub toolchain: BTreeMap<String, String>,
    /// RoadRunner.
    pub roadrunner: LockedRoadRunner,
    /// The plugins, sorted by name.
    pub plugins: Vec<LockedPlugin>,
    /// The other inputs: replaces, excludes, the choice of dependencies. Compared, never interpreted.
    pub settings: Vec<String>,
    /// The plugins that minimal version selection raised.
    pub raised: Vec<RaisedPlugin>,
    /// The modules below RoadRunner's own versions, in the order of the plugins.
    pub lowered: Vec<LoweredModule>,
    /// The compiled modules of each target so far.
    pub targets: BTreeMap<TargetVariant, LockedTarget>,
    /// The complete go.mod.
    pub go_mod: GoModFile,
    /// The complete go.sum: the checksums of all modules.
    pub go_sum: GoSum,
}

/// RoadRunner in a [`Lock`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedRoadRunner {
    /// Its origin and the requested ref. Compared, never interpreted.
    pub from: String,
    /// Module path, with the major suffix.
    pub module: String,
    /// Exact version.
    pub version: String,
    /// The full commit id, if known.
    pub commit: Option<String>,
    /// The commit time, in seconds since 1970.
    pub time: i64,
}

/// A plugin in a [`Lock`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LockedPlugin {
    /// The user's name for it.
    pub name: String,
    /// Its origin, requested ref and replacement; `None` for an added plugin. Compared, never interpreted.
    pub from: Option<String>,
    /// Module path; its root package is the plugin.
    pub module: String,
    /// The requested ref.
    pub asked: String,
    /// The version that is compiled (or replaced).
    pub version: String,
    /// The full commit id, if known.
    pub commit: Option<String>,
    /// The replacement.
    pub replacement: Option<LockedReplacement>,
    /// Whether RoadRunner's own code registers it, so that only its version counts.
    pub built_in: bool,
}

/// The replacement of a plugin's module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LockedReplacement {
    /// Another module, at an exact version.
    Module {
        /// Module path.
        path: String,
        /// Exact version.
        version: String,
    },
    /// A local directory.
    Directory {
        /// As the configuration names it.
        path: PathBuf,
    },
}

/// The properties of a target that affect which packages are compiled.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TargetVariant {
    /// The target.
    pub target: GoTarget,
    /// Whether cgo is enabled.
    pub cgo: bool,
    /// Build tags, sorted.
    pub tags: Vec<String>,
    /// The instruction set: Go has build tags for it, too (`amd64.v3`).
    pub instruction_set: Option<InstructionSet>,
}

/// The modules that are compiled for one target.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LockedTarget {
    /// The modules that provide a package.
    pub modules: BTreeSet<ModuleVersion>,
    /// Other modules whose path is a prefix of an import path: Go checks that they don't provide the package
    /// (<https://go.dev/ref/mod#resolve-pkg-mod>).
    pub looked_into: BTreeSet<ModuleVersion>,
    /// The number of compiled packages.
    pub packages: u64,
}

/// The selected version of a compiled module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SelectedModule {
    /// The version that minimal version selection chose.
    pub version: String,
    /// The path and version of the replacement (no version for a directory).
    pub replacement: Option<(String, Option<String>)>,
}

impl SelectedModule {
    /// The module whose files are compiled for the module at `path`; `None` for a directory.
    #[must_use]
    pub fn source(&self, path: &str) -> Option<ModuleVersion> {
        match &self.replacement {
            None => Some(ModuleVersion::new(path, &self.version)),
            Some((path, version)) => Some(ModuleVersion::new(path, version.as_ref()?)),
        }
    }
}

impl LockedPlugin {
    /// The row of the plugin in reports.
    #[must_use]
    pub fn row(&self) -> PluginRow {
        let local = matches!(self.replacement, Some(LockedReplacement::Directory { .. }));
        PluginRow {
            name: self.name.clone(),
            module: self.module.clone(),
            asked: self.asked.clone(),
            version: (!local).then(|| self.version.clone()),
            commit: self.commit.clone(),
            replacement: self.replacement.as_ref().map(|replacement| match replacement {
                LockedReplacement::Module { path, version } => format!("{path} {version}"),
                LockedReplacement::Directory { path } => path.display().to_string(),
            }),
            added: self.from.is_none(),
        }
    }

    /// The module whose files are compiled; `None` for a directory.
    #[must_use]
    pub fn source(&self) -> Option<ModuleVersion> {
        match &self.replacement {
            None => Some(ModuleVersion::new(&self.module, &self.version)),
            Some(LockedReplacement::Module { path, version }) => Some(ModuleVersion::new(path, version)),
            Some(LockedReplacement::Directory { .. }) => None,
        }
    }
}

impl TargetVariant {
    pub(crate) fn new(target: &GoTarget, settings: &BuildSettings) -> Self {
        let mut tags = settings.tags();
        tags.sort();
        tags.dedup();
        let instruction_set = settings.instruction_sets.iter().find(|set| set.applies_to(target)).cloned();
        Self { target: target.clone(), cgo: settings.cgo, tags, instruction_set }
    }

    /// The target that a binary with these build tags was compiled for; `None`: its build information doesn't say it.
    #[must_use]
    pub fn of_binary(info: &BuildInfo, tags: &[String], debug: bool) -> Option<Self> {
        let setting = |name: &str| Some(info.settings.iter().find(|(key, _)| key == name)?.1.as_str());
        let target = parse_target(&format!("{}/{}", setting("GOOS")?, setting("GOARCH")?)).ok()?;
        let mut tags = tags.to_vec();
        tags.extend(debug.then(|| "debug".to_owned()));
        tags.sort();
        tags.dedup();
        let instruction_set = InstructionSet::of_settings(&info.settings, &target.arch);
        Some(Self { target, cgo: setting("CGO_ENABLED") == Some("1"), tags, instruction_set })
    }
}

impl Lock {
    /// RoadRunner's module.
    #[must_use]
    pub fn roadrunner(&self) -> ModuleVersion {
        ModuleVersion::new(&self.roadrunner.module, &self.roadrunner.version)
    }

    /// The expected sum of the Go toolchain for this machine, if known.
    pub(crate) fn toolchain_sum(&self) -> Option<&str> {
        self.toolchain.get(&GoTarget::host().to_string()).map(String::as_str)
    }

    /// The compiled modules by path, as in the build information of the binary.
    #[must_use]
    pub fn selected(&self, target: &LockedTarget) -> BTreeMap<String, SelectedModule> {
        let of_module = |module: &ModuleVersion| {
            let replacement = replacement_of(&self.go_mod.replace, module)
                .map(|replace| (replace.new_path.clone(), replace.new_version.clone()));
            (module.path.clone(), SelectedModule { version: module.version.clone(), replacement })
        };
        target.modules.iter().map(of_module).collect()
    }

    /// The compiled modules of each target platform (`linux/amd64`), by path.
    #[must_use]
    pub fn compiled_modules(&self) -> BTreeMap<String, BTreeMap<String, SelectedModule>> {
        let mut compiled: BTreeMap<String, BTreeMap<String, SelectedModule>> = BTreeMap::new();
        for (variant, target) in &self.targets {
            compiled.entry(variant.target.to_string()).or_default().extend(self.selected(target));
        }
        compiled
    }

    /// The directories of local replacements, each with the path of the replaced module.
    pub(crate) fn replaced_directories(&self, manifest: &Manifest, base: &Path) -> Vec<(String, PathBuf)> {
        let of_plugins = self.plugins.iter().filter_map(|plugin| match &plugin.replacement {
            Some(LockedReplacement::Directory { path }) => Some((plugin.module.clone(), base.join(path))),
            _ => None,
        });
        let of_replaces = manifest.replaces.iter().filter_map(|replace| match &replace.new.value {
            Replacement::Directory(path) => Some((replace.old.value.0.clone(), base.join(path))),
            Replacement::Module { .. } => None,
        });
        let mut directories: Vec<(String, PathBuf)> = of_plugins.chain(of_replaces).collect();
        // The go.mod of the lock has those replace lines of a local go.mod that apply.
        let applies = |replace: &Replace| {
            let same = |locked: &Replace| {
                locked.old_path == replace.old_path
                    && locked.old_version == replace.old_version
                    && locked.new_version.is_none()
            };
            self.go_mod.replace.iter().any(same)
        };
        for (_, directory) in directories.clone() {
            for replace in LocalDirectives::read(&directory).replaces {
                let is_known = directories.iter().any(|(module, _)| *module == replace.old_path);
                if replace.new_version.is_none() && !is_known && applies(&replace) {
                    directories.push((replace.old_path, replace.new_path.into()));
                }
            }
        }
        directories
    }

    /// The modules whose zips a build of these targets reads, RoadRunner first.
    pub(crate) fn zips(&self, targets: &[&LockedTarget]) -> Vec<ModuleVersion> {
        let read: BTreeSet<&ModuleVersion> =
            targets.iter().flat_map(|target| target.modules.iter().chain(&target.looked_into)).collect();
        let sources = read.into_iter().filter_map(|module| source_of(&self.go_mod.replace, module));
        std::iter::once(self.roadrunner()).chain(sources).collect()
    }

    /// Adds the targets of another lock with the same modules and plugins.
    pub(crate) fn adopt_targets(&mut self, other: &Self) {
        if other.go_mod == self.go_mod
            && other.go_version == self.go_version
            && other.plugins == self.plugins
            && other.settings == self.settings
        {
            for (variant, target) in &other.targets {
                self.targets.entry(variant.clone()).or_insert_with(|| target.clone());
            }
        }
    }

    pub(crate) fn covers(&self, variants: &[TargetVariant]) -> bool {
        variants.iter().all(|variant| self.targets.contains_key(variant))
    }
}

/// Whether this is a commit id.
pub(crate) fn is_commit(text: &str) -> bool {
    (7..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The module whose files are compiled for `module`; `None` for a directory.
pub(crate) fn source_of(replaces: &[Replace], module: &ModuleVersion) -> Option<ModuleVersion> {
    replacement_of(replaces, module).map_or_else(|| Some(module.clone()), Replace::new_module)
}

/// A replace for this version wins over one for all versions (<https://go.dev/ref/mod#go-mod-file-replace>).
pub(crate) fn replacement_of<'a>(replaces: &'a [Replace], module: &ModuleVersion) -> Option<&'a Replace> {
    let of = |version: Option<&String>| {
        replaces
            .iter()
            .find(|replace| replace.old_path == module.path && replace.old_version.as_ref() == version)
    };
    of(Some(&module.version)).or_else(|| of(None))
}
