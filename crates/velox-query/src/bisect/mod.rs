//! The changes between two locks, and builds with some of them.

mod search;

use std::collections::{BTreeMap, BTreeSet};

use velox_build::{BuildRequest, Goal, Lock, LockedPlugin, LockedReplacement};
use velox_gomod::pseudo::is_pseudo_version;
use velox_manifest::{Manifest, ModuleDirective, Origin, Plugin, ReplaceDirective, Replacement, Spanned};

pub use search::{SearchResult, StepOutcome, search_changes};

use crate::{
    BuildVersions, LockChange, LockChangeKind, ModuleVersions,
    diff::{compare, compare_modules, identity},
};

/// The changes between two locks, each of which can be made alone.
#[derive(Debug, Clone)]
pub struct Bisection {
    good: Lock,
    bad: Lock,
    keep_go: bool,
    /// Those that a search decides about.
    changes: Vec<LockChange>,
}

impl Bisection {
    /// Compares two locks. With `keep_go`, all builds have the same Go version.
    #[must_use]
    pub fn new(good: Lock, bad: Lock, keep_go: bool) -> Self {
        let versions = |lock: &Lock| BuildVersions::without_modules(lock, &is_requested);
        let mut changes = compare(&versions(&good), &versions(&bad));
        changes.retain(|change| !keep_go || change.kind != LockChangeKind::Go);
        Self { good, bad, keep_go, changes }
    }

    /// The changes that a search decides about.
    #[must_use]
    pub fn changes(&self) -> &[LockChange] {
        &self.changes
    }

    /// The changes with these indices.
    #[must_use]
    pub fn selected(&self, indices: &BTreeSet<usize>) -> Vec<LockChange> {
        indices.iter().filter_map(|index| self.changes.get(*index)).cloned().collect()
    }

    /// A further search in these changes, and in the modules whose versions they change: each of them can be held at its
    /// version before. `None`: no other module changes.
    #[must_use]
    pub fn in_modules(
        &self,
        indices: &BTreeSet<usize>,
        before: &ModuleVersions,
        after: &ModuleVersions,
    ) -> Option<Self> {
        let is_direct = |module: &str| {
            let plugins = requested(&self.good).chain(requested(&self.bad));
            plugins
                .map(|plugin| plugin.module.as_str())
                .chain([self.good.roadrunner.module.as_str()])
                .any(|it| it == module)
        };
        let mut changes = compare_modules(before, after);
        changes.retain(|change| change.from.is_some() && change.to.is_some() && !is_direct(&change.name));
        if changes.is_empty() {
            return None;
        }
        changes.extend(self.selected(indices));
        Some(Self { changes, ..self.clone() })
    }

    /// The request of a build with the versions of the good lock, and those of the bad one where a change is applied.
    /// `base` has the settings of the build.
    #[must_use]
    pub fn request(&self, base: &BuildRequest, applied: &BTreeSet<usize>, goal: Goal) -> BuildRequest {
        let is_applied = |kind: LockChangeKind, name: &str| {
            self.changes
                .iter()
                .enumerate()
                .any(|(index, change)| change.kind == kind && change.name == name && applied.contains(&index))
        };
        let side = |is_bad: bool| if is_bad { &self.bad } else { &self.good };
        let mut request = BuildRequest { goal, lock: None, updates_lock: false, ..base.clone() };

        let go = &side(is_applied(LockChangeKind::Go, "go")).go_version;
        if self.good.go_version != self.bad.go_version && !self.keep_go {
            request.environment.insert("GOTOOLCHAIN".to_owned(), go.clone());
        }
        let roadrunner = &side(is_applied(LockChangeKind::RoadRunner, "roadrunner")).roadrunner;
        let commit = roadrunner.commit.clone().filter(|_| is_pseudo_version(&roadrunner.version));
        let reference = Spanned::from(commit.unwrap_or_else(|| roadrunner.version.clone()));
        let manifest = &mut request.manifest;
        manifest.roadrunner.reference = Some(reference);

        let entries = manifest.clone();
        let names: BTreeMap<String, &str> = requested(&self.good)
            .chain(requested(&self.bad))
            .map(|plugin| (identity(&plugin.module), plugin.name.as_str()))
            .collect();
        manifest.plugins = names
            .iter()
            .filter_map(|(key, name)| {
                let lock = side(is_applied(LockChangeKind::Plugin, name));
                requested(lock).find(|plugin| identity(&plugin.module) == *key)
            })
            .map(|plugin| pinned(plugin, &entries))
            .collect();

        manifest.replaces.clear();
        manifest.excludes.clear();
        manifest.roadrunner.dependencies = None;
        let settings =
            |lock: &Lock| BuildVersions::without_modules(lock, &|_| false).settings.unwrap_or_default();
        let (before, after) = (settings(&self.good), settings(&self.bad));
        for setting in before.union(&after) {
            let is_changed = is_applied(LockChangeKind::Setting, setting);
            if if is_changed { after.contains(setting) } else { before.contains(setting) } {
                add_setting(manifest, setting);
            }
        }
        for (index, change) in self.changes.iter().enumerate() {
            let version = if applied.contains(&index) { &change.to } else { &change.from };
            if let (LockChangeKind::Module, Some(version)) = (change.kind, version) {
                let new = Replacement::Module { path: change.name.clone(), version: Some(version.clone()) };
                manifest.replaces.retain(|replace| replace.old.value.0 != change.name);
                manifest.replaces.push(replaced((change.name.clone(), None), new));
            }
        }
        request
    }
}

/// The plugins of the configuration, without those that every binary has.
fn requested(lock: &Lock) -> impl Iterator<Item = &LockedPlugin> {
    lock.plugins.iter().filter(|plugin| is_requested(plugin))
}

fn is_requested(plugin: &LockedPlugin) -> bool {
    plugin.from.is_some()
}

/// The plugin at exactly its locked version.
fn pinned(locked: &LockedPlugin, manifest: &Manifest) -> Plugin {
    let LockedPlugin { name, module, version, asked, commit, replacement, .. } = locked;
    let entry = manifest.plugins.iter().find(|plugin| plugin.is_module(module, manifest));
    let own_forge =
        entry.filter(|plugin| plugin.forge(manifest).is_some_and(velox_manifest::Forge::is_self_hosted));
    let (origin, reference) = match own_forge {
        // Public proxies must not be queried for it.
        Some(entry) => (entry.origin.clone(), commit.as_ref().unwrap_or(asked)),
        None => (Origin::Module(module.clone().into()), version),
    };
    let replace = replacement.as_ref().map(|replacement| match replacement {
        LockedReplacement::Module { path, version } => {
            Replacement::Module { path: path.clone(), version: Some(version.clone()) }
        }
        LockedReplacement::Directory { path } => Replacement::Directory(path.to_string_lossy().into_owned()),
    });
    // The version of a directory is not known.
    let reference = if matches!(replace, Some(Replacement::Directory(_))) { asked } else { reference };
    Plugin {
        name: name.clone().into(),
        origin,
        reference: reference.clone().into(),
        replace: replace.map(Spanned::from),
    }
}

/// Adds a setting of a lock: `replace A => B v1.0.0`, `exclude A v1.0.0`, `dependencies = minimal`.
fn add_setting(manifest: &mut Manifest, setting: &str) {
    let pair = |text: &str| match text.split_once(' ') {
        Some((path, version)) => (path.to_owned(), Some(version.to_owned())),
        None => (text.to_owned(), None),
    };
    if let Some((old, new)) = setting.strip_prefix("replace ").and_then(|text| text.split_once(" => ")) {
        let is_directory = new.starts_with(['.', '/']) || new.contains('\\');
        let new = match (is_directory, pair(new)) {
            (true, _) => Replacement::Directory(new.to_owned()),
            (false, (path, version)) => Replacement::Module { path, version },
        };
        manifest.replaces.push(replaced(pair(old), new));
    } else if let Some((module, Some(version))) = setting.strip_prefix("exclude ").map(pair) {
        manifest.excludes.push(ModuleDirective { module: module.into(), version: version.into() });
    } else if let Some(choice) = setting.strip_prefix("dependencies = ") {
        manifest.roadrunner.dependencies = choice.parse().ok();
    }
}

fn replaced(old: (String, Option<String>), new: Replacement) -> ReplaceDirective {
    ReplaceDirective { old: old.into(), new: new.into() }
}
