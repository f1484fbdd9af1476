//! The versions in a lock or in a binary, and what differs between two of them.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use serde::Serialize;
use velox_build::{Lock, LockedPlugin, LockedReplacement, SelectedModule};
use velox_gomod::{goversion::GoVersion, module::ModuleVersion, semver};

use crate::{BinaryModule, Inspection, without_major};

/// The versions of modules, by module path.
pub type ModuleVersions = BTreeMap<String, String>;

/// What differs between two locks, or between two binaries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LockChange {
    /// Its kind.
    pub kind: LockChangeKind,
    /// The plugin's name in velox.toml, a module path, or a setting.
    pub name: String,
    /// The version before; `None`: it was added.
    pub from: Option<String>,
    /// The version after; `None`: it was removed.
    pub to: Option<String>,
}

/// The kind of a [`LockChange`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LockChangeKind {
    /// The Go version.
    Go,
    /// RoadRunner's version.
    #[serde(rename = "roadrunner")]
    RoadRunner,
    /// A plugin.
    Plugin,
    /// A module that RoadRunner or a plugin requires.
    Module,
    /// A `[[replaces]]`, an `[[excludes]]`, or `dependencies`.
    Setting,
}

/// How a version changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeDirection {
    /// It was not there before.
    Added,
    /// It is no longer there.
    Removed,
    /// To a newer version.
    Up,
    /// To an older version.
    Down,
    /// To something that is neither newer nor older, such as a directory.
    Other,
}

/// The versions in a lock or in a binary.
#[derive(Debug, Clone)]
pub struct BuildVersions {
    /// The Go version (`go1.26.8`).
    pub go: String,
    /// RoadRunner; the version of a binary can be empty, which is an unknown one.
    pub roadrunner: ModuleVersion,
    /// The plugins.
    pub plugins: Vec<BuildPlugin>,
    /// The compiled modules of each target platform (`linux/amd64`), plugins included, by path.
    pub modules: BTreeMap<String, BTreeMap<String, SelectedModule>>,
    /// The settings of a lock; `None` for a binary, which does not have them.
    pub settings: Option<BTreeSet<String>>,
}

/// A plugin in [`BuildVersions`].
#[derive(Debug, Clone)]
pub struct BuildPlugin {
    /// The name in the configuration; of a binary, the one in the catalogue.
    pub name: String,
    /// Its module path.
    pub module: String,
    /// Its version.
    pub selected: SelectedModule,
}

impl fmt::Display for LockChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, name, from, to } = self;
        match kind {
            LockChangeKind::Go => write!(f, "Go")?,
            LockChangeKind::RoadRunner => write!(f, "RoadRunner")?,
            LockChangeKind::Plugin => write!(f, "plugin {name}")?,
            LockChangeKind::Module => write!(f, "module {name}")?,
            LockChangeKind::Setting => write!(f, "setting `{name}`")?,
        }
        match (kind, from, to) {
            (LockChangeKind::Setting, None, _) => write!(f, " added"),
            (LockChangeKind::Setting, ..) => write!(f, " removed"),
            (_, Some(from), Some(to)) => write!(f, " {from} to {to}"),
            (_, None, Some(to)) => write!(f, " added at {to}"),
            (_, Some(from), None) => write!(f, " removed ({from})"),
            (_, None, None) => Ok(()),
        }
    }
}

impl LockChange {
    /// How the version changes.
    #[must_use]
    pub fn direction(&self) -> ChangeDirection {
        let (Some(from), Some(to)) = (&self.from, &self.to) else {
            return if self.from.is_none() { ChangeDirection::Added } else { ChangeDirection::Removed };
        };
        let order = match self.kind {
            LockChangeKind::Go => {
                let version = |text: &str| text.trim_start_matches("go").parse::<GoVersion>().ok();
                version(to).partial_cmp(&version(from)).unwrap_or(Ordering::Equal)
            }
            _ if semver::is_valid(from) && semver::is_valid(to) => semver::compare(to, from),
            _ => Ordering::Equal,
        };
        match order {
            Ordering::Greater => ChangeDirection::Up,
            Ordering::Less => ChangeDirection::Down,
            Ordering::Equal => ChangeDirection::Other,
        }
    }
}

impl BuildVersions {
    /// The versions in a lock.
    #[must_use]
    pub fn of_lock(lock: &Lock) -> Self {
        Self { modules: lock.compiled_modules(), ..Self::without_modules(lock, &|_| true) }
    }

    /// The versions in a lock, with these of its plugins.
    pub(crate) fn without_modules(lock: &Lock, is_included: &dyn Fn(&LockedPlugin) -> bool) -> Self {
        // An earlier state of a local directory is not known, so its digest is left out.
        let without_digest =
            |setting: &String| setting.split(" (needs ").next().unwrap_or(setting).to_owned();
        let plugin = |plugin: &LockedPlugin| BuildPlugin {
            name: plugin.name.clone(),
            module: plugin.module.clone(),
            selected: SelectedModule {
                version: plugin.version.clone(),
                replacement: plugin.replacement.as_ref().map(|replacement| match replacement {
                    LockedReplacement::Module { path, version } => (path.clone(), Some(version.clone())),
                    LockedReplacement::Directory { path } => (path.display().to_string(), None),
                }),
            },
        };
        Self {
            go: lock.go_version.clone(),
            roadrunner: lock.roadrunner(),
            plugins: lock.plugins.iter().filter(|plugin| is_included(plugin)).map(plugin).collect(),
            modules: BTreeMap::new(),
            settings: Some(lock.settings.iter().map(without_digest).collect()),
        }
    }

    /// The versions in a binary.
    #[must_use]
    pub fn of_binary(inspection: &Inspection) -> Self {
        let selected = |module: &BinaryModule| SelectedModule {
            version: module.version.clone(),
            replacement: module.replacement.as_ref().map(|new| match new.split_once(' ') {
                Some((path, version)) => (path.to_owned(), Some(version.to_owned())),
                None => (new.clone(), None),
            }),
        };
        let plugin = |module: &BinaryModule| BuildPlugin {
            name: module.name.clone(),
            module: module.module.clone(),
            selected: selected(module),
        };
        let all = inspection.plugins.iter().chain(&inspection.modules);
        let modules = all.map(|module| (module.module.clone(), selected(module))).collect();
        Self {
            go: inspection.go_version.clone(),
            roadrunner: ModuleVersion::new(
                &inspection.roadrunner,
                inspection.roadrunner_version().unwrap_or_default(),
            ),
            plugins: inspection.plugins.iter().map(plugin).collect(),
            modules: [(inspection.target.clone().unwrap_or_default(), modules)].into(),
            settings: None,
        }
    }

    /// The compiled modules of the target platforms that `other` has too; of all, if it has none of them: a lock knows the
    /// modules of those targets that were built.
    pub(crate) fn compiled(&self, other: &Self) -> BTreeMap<String, SelectedModule> {
        let is_common = |target: &String| other.modules.contains_key(target);
        let has_common = self.modules.keys().any(is_common);
        let targets = self.modules.iter().filter(|(target, _)| !has_common || is_common(target));
        targets.flat_map(|(_, modules)| modules.clone()).collect()
    }

    /// The plugins by what stays when their names or major versions change. Other tools don't record which modules are
    /// plugins: those that are plugins of `other` are.
    fn plugins_by_identity(&self, other: &Self) -> BTreeMap<String, BuildPlugin> {
        let mut plugins: BTreeMap<String, BuildPlugin> =
            self.plugins.iter().map(|plugin| (identity(&plugin.module), plugin.clone())).collect();
        let modules: BTreeMap<String, (&String, &SelectedModule)> =
            self.modules.values().flatten().map(|(path, it)| (identity(path), (path, it))).collect();
        for plugin in &other.plugins {
            let key = identity(&plugin.module);
            if let Some((module, selected)) = modules.get(&key) {
                plugins.entry(key).or_insert_with(|| BuildPlugin {
                    name: plugin.name.clone(),
                    module: (*module).clone(),
                    selected: (*selected).clone(),
                });
            }
        }
        plugins
    }
}

/// The changes of Go, RoadRunner, settings and plugins between two builds.
pub(crate) fn compare(before: &BuildVersions, after: &BuildVersions) -> Vec<LockChange> {
    let mut changes = Vec::new();
    let mut add = |kind, name: &str, from: Option<String>, to: Option<String>| {
        if from != to {
            changes.push(LockChange { kind, name: name.to_owned(), from, to });
        }
    };
    add(LockChangeKind::Go, "go", Some(before.go.clone()), Some(after.go.clone()));
    let version = |versions: &BuildVersions| {
        let version = &versions.roadrunner.version;
        Some(if version.is_empty() { "unknown".to_owned() } else { version.clone() })
    };
    add(LockChangeKind::RoadRunner, "roadrunner", version(before), version(after));
    if let (Some(old), Some(new)) = (&before.settings, &after.settings) {
        for setting in old.symmetric_difference(new) {
            let is_in = |settings: &BTreeSet<String>| settings.contains(setting).then(|| setting.clone());
            add(LockChangeKind::Setting, setting, is_in(old), is_in(new));
        }
    }
    let (old, new) = (before.plugins_by_identity(after), after.plugins_by_identity(before));
    for key in old.keys().chain(new.keys().filter(|key| !old.contains_key(*key))) {
        let (old, new) = (old.get(key), new.get(key));
        let name = new.or(old).map_or("", |plugin| &plugin.name);
        let version = |plugin: &BuildPlugin| described(&plugin.selected);
        add(LockChangeKind::Plugin, name, old.map(version), new.map(version));
    }
    changes
}

/// The changes between two sets of modules, sorted by path.
pub(crate) fn compare_modules(before: &ModuleVersions, after: &ModuleVersions) -> Vec<LockChange> {
    let paths: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let change = |path: &String| {
        let (from, to) = (before.get(path), after.get(path));
        let (from, to) = (from != to).then(|| (from.cloned(), to.cloned()))?;
        Some(LockChange { kind: LockChangeKind::Module, name: path.clone(), from, to })
    };
    paths.into_iter().filter_map(change).collect()
}

/// A plugin keeps its identity when its name or its major version changes.
pub(crate) fn identity(module: &str) -> String {
    without_major(module).to_lowercase()
}

/// A version, or what replaces it.
pub(crate) fn described(selected: &SelectedModule) -> String {
    match &selected.replacement {
        None => selected.version.clone(),
        Some((path, Some(version))) => format!("{path} {version}"),
        Some((path, None)) => path.clone(),
    }
}
