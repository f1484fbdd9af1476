use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use velox_gomod::{
    gosum::GoSum,
    modfile::{GoMod, Replace},
    module::Version,
};
use velox_manifest::GoTarget;

use crate::{
    error::Error,
    event::{PluginRow, RaisedPlugin},
    settings::BuildSettings,
};

/// Everything that a server is made from, exactly: the answer to "which versions".
///
/// Only the resolver makes one, and [`Lock::parse`] reads what it made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lock {
    /// The Go version that compiles it (`go1.26.8`).
    pub go_version: String,
    /// The `h1:` sums of that Go as a module, by the platform that it runs on (`linux/amd64`), where one was fetched.
    pub toolchain: BTreeMap<String, String>,
    /// RoadRunner itself.
    pub roadrunner: LockedRoadRunner,
    /// The plugins, sorted by name.
    pub plugins: Vec<LockedPlugin>,
    /// What else of the configuration it was made from: replaces, excludes, the choice of dependencies.
    pub settings: Vec<String>,
    /// The plugins that minimal version selection raised.
    pub raised: Vec<RaisedPlugin>,
    /// What is compiled in, for each target that was asked for so far.
    pub targets: BTreeMap<TargetVariant, LockedTarget>,
    /// The complete go.mod.
    pub go_mod: String,
    /// The complete go.sum.
    pub go_sum: String,
}

/// RoadRunner in a [`Lock`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockedRoadRunner {
    /// Where it comes from, and the ref that the configuration names.
    pub from: String,
    /// Its module path, with the major suffix.
    pub module: String,
    /// Its exact version.
    pub version: String,
    /// The full commit id, where it is known.
    pub commit: Option<String>,
    /// The commit's time, in seconds since 1970.
    pub time: i64,
}

/// A plugin in a [`Lock`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockedPlugin {
    /// The user's name for it.
    pub name: String,
    /// Where it comes from, the ref that the configuration names, and what replaces it; `None` for one that was added
    /// because every server has it.
    pub from: Option<String>,
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
        /// As the configuration names it.
        path: PathBuf,
    },
}

/// What of a target changes which packages are compiled in.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TargetVariant {
    /// The target.
    pub target: GoTarget,
    /// Whether C code is compiled in.
    pub cgo: bool,
    /// Build tags, sorted.
    pub tags: Vec<String>,
}

/// What is compiled in for one target.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LockedTarget {
    /// The modules that provide a package.
    pub modules: BTreeSet<Version>,
    /// The modules that Go looks into besides, since their path is the beginning of an import
    /// (<https://go.dev/ref/mod#resolve-pkg-mod>).
    pub looked_into: BTreeSet<Version>,
    /// How many packages are compiled in.
    pub packages: u64,
}

/// A module that is compiled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SelectedModule {
    /// The version that minimal version selection chose.
    pub version: String,
    /// The replacement's path and version (none for a directory).
    pub replacement: Option<(String, Option<String>)>,
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

    /// The module whose files are compiled; `None`: a directory's.
    #[must_use]
    pub fn source(&self) -> Option<Version> {
        match &self.replacement {
            None => Some(Version { path: self.module.clone(), version: self.version.clone() }),
            Some(LockedReplacement::Module { path, version }) => {
                Some(Version { path: path.clone(), version: version.clone() })
            }
            Some(LockedReplacement::Directory { .. }) => None,
        }
    }
}

impl TargetVariant {
    pub(crate) fn new(target: &GoTarget, settings: &BuildSettings) -> Self {
        let mut tags = settings.tags();
        tags.sort();
        tags.dedup();
        Self { target: target.clone(), cgo: settings.cgo, tags }
    }
}

impl Lock {
    /// RoadRunner's own module.
    #[must_use]
    pub fn roadrunner(&self) -> Version {
        Version { path: self.roadrunner.module.clone(), version: self.roadrunner.version.clone() }
    }

    /// The sum that its Go has to have as a module for this machine, if it is known.
    pub(crate) fn toolchain_sum(&self) -> Option<&str> {
        self.toolchain.get(&GoTarget::host().to_string()).map(String::as_str)
    }

    pub(crate) fn sums(&self) -> Result<GoSum, Error> {
        GoSum::parse(&self.go_sum)
            .map_err(|error| Error::build(format!("the lock's go.sum can't be read: {error}")))
    }

    pub(crate) fn go_mod(&self) -> Result<GoMod, Error> {
        GoMod::parse(&self.go_mod)
            .map_err(|error| Error::build(format!("the lock's go.mod can't be read: {error}")))
    }

    /// Every module that is compiled in, by its path, as the build information of the binary will name it.
    pub(crate) fn selected(&self, target: &LockedTarget) -> Result<BTreeMap<String, SelectedModule>, Error> {
        let replaces = self.go_mod()?.replace;
        Ok(target
            .modules
            .iter()
            .map(|module| {
                let replacement = replacement_of(&replaces, module)
                    .map(|replace| (replace.new_path.clone(), replace.new_version.clone()));
                (module.path.clone(), SelectedModule { version: module.version.clone(), replacement })
            })
            .collect())
    }

    /// The modules whose zips a build for `target` reads, RoadRunner's own first.
    pub(crate) fn zips(&self, targets: &[&LockedTarget]) -> Result<Vec<Version>, Error> {
        let replaces = self.go_mod()?.replace;
        let read: BTreeSet<&Version> =
            targets.iter().flat_map(|target| target.modules.iter().chain(&target.looked_into)).collect();
        let of_module = |module: &Version| match replacement_of(&replaces, module) {
            None => Some(module.clone()),
            Some(Replace { new_path, new_version: Some(version), .. }) => {
                Some(Version { path: new_path.clone(), version: version.clone() })
            }
            Some(Replace { new_version: None, .. }) => None,
        };
        Ok(std::iter::once(self.roadrunner()).chain(read.into_iter().filter_map(of_module)).collect())
    }

    /// Takes over what another lock of the very same modules knows of other targets. What local replacements import is
    /// part of that: it may change without go.mod.
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

    /// Whether all of these were locked.
    pub(crate) fn covers(&self, variants: &[TargetVariant]) -> bool {
        variants.iter().all(|variant| self.targets.contains_key(variant))
    }
}

/// Whether this is a commit's id, and no other word that git or a terminal would make something of.
pub(crate) fn is_commit(text: &str) -> bool {
    (7..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// A replace for this very version wins over one for all (<https://go.dev/ref/mod#go-mod-file-replace>).
pub(crate) fn replacement_of<'a>(replaces: &'a [Replace], module: &Version) -> Option<&'a Replace> {
    let of = |version: Option<&String>| {
        replaces
            .iter()
            .find(|replace| replace.old_path == module.path && replace.old_version.as_ref() == version)
    };
    of(Some(&module.version)).or_else(|| of(None))
}
