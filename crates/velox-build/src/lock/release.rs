//! A lock beside the RoadRunner release that it is made from.

use std::{
    cell::{Cell, OnceCell},
    collections::HashSet,
    path::PathBuf,
};

use velox_fetch::modcache::ModCache;
use velox_gomod::{
    gosum::GoSum,
    modfile::{GoMod, Replace, Require},
    module::{ModuleVersion, without_major},
    semver,
};
use velox_manifest::{Manifest, ModuleDirective};

use super::{model::Lock, required::RequiredModules};
use crate::{
    imports::{PLUGINS_GO, imports_of, provides, registered_plugins},
    local_module::LocalDirectives,
};

/// The go.mod and go.sum of a RoadRunner release in the module cache.
pub(crate) struct ReleaseModules {
    go_mod: GoMod,
    go_sum: GoSum,
    tree: PathBuf,
    cache: ModCache,
}

impl ReleaseModules {
    /// Reads those of a lock's RoadRunner; `None`: the cache lacks it.
    pub(crate) fn cached(cache: ModCache, lock: &Lock) -> Option<Self> {
        let tree = cache.dir(&lock.roadrunner()).ok()?;
        let read = |name: &str| std::fs::read_to_string(tree.join(name));
        let go_mod = GoMod::parse(&read("go.mod").ok()?).ok()?;
        let go_sum = GoSum::parse(&read("go.sum").unwrap_or_default()).ok()?;
        Some(Self { go_mod, go_sum, tree, cache })
    }

    pub(super) fn go_mod(&self) -> &GoMod {
        &self.go_mod
    }

    /// Its plugins; none if its source can't be read.
    pub(crate) fn plugins(&self) -> Vec<ModuleVersion> {
        registered_plugins(&self.tree, &self.go_mod).unwrap_or_default()
    }

    /// Whether its `container/plugins.go` imports the module: a plugin, which a configuration may omit.
    fn is_plugin(&self, line: &Require) -> bool {
        imports_of(&self.tree, &|path| path == PLUGINS_GO)
            .is_ok_and(|registered| provides(line, &self.go_mod, &registered))
    }
}

/// Compares a lock with the release, and with what the modules of both require.
pub(super) struct ReleaseComparison<'a> {
    lock: &'a Lock,
    manifest: &'a Manifest,
    local: &'a LocalDirectives,
    release: &'a ReleaseModules,
    /// Read only if the release doesn't explain everything.
    required: OnceCell<RequiredModules<'a>>,
    /// Whether an answer depends on a go.mod that is not in the cache.
    is_undecided: Cell<bool>,
}

impl<'a> ReleaseComparison<'a> {
    pub(super) fn new(
        lock: &'a Lock,
        manifest: &'a Manifest,
        local: &'a LocalDirectives,
        release: &'a ReleaseModules,
    ) -> Self {
        Self { lock, manifest, local, release, required: OnceCell::new(), is_undecided: Cell::new(false) }
    }

    /// What neither the release nor the configuration nor a module asks for, one sentence each; without sums.
    pub(super) fn differences(&self) -> Vec<String> {
        let mut found = Vec::new();
        let release = &self.release.go_mod;
        let is_excluded = |module: &ModuleVersion| {
            release.exclude.contains(module)
                || self.local.excludes.contains(module)
                || self.manifest.excludes.iter().any(|exclude| exclude.is(module))
        };
        let excluded = self.lock.go_mod.exclude.iter().filter(|module| !is_excluded(module));
        found.extend(excluded.map(|module| format!("go.mod: only the lock excludes {module}")));
        if self.lock.go_mod.godebug != release.godebug {
            found.push("go.mod: its godebug lines are not those of RoadRunner".to_owned());
        }
        found.extend(self.lock.go_mod.require.iter().filter_map(|line| self.of_requirement(line)));
        found.extend(self.missing_requirements());
        found.extend(self.other_sums());
        found
    }

    /// The lines of go.sum for modules that nothing requires, one sentence each.
    pub(super) fn unused_sums(&self) -> Vec<String> {
        let lines = self.lock.go_sum.modules().filter(|line| !self.is_used(line));
        lines.map(|line| format!("go.sum: nothing requires {} {}", line.path, line.version)).collect()
    }

    /// The lines of go.sum that may be needed.
    pub(super) fn used_sums(&self) -> GoSum {
        self.sums_of(|line| self.is_used(line))
    }

    /// The lines of go.sum that are needed if the go command has read each go.mod from this cache: without those of
    /// earlier versions, and of modules that are not compiled.
    pub(super) fn read_sums(&self) -> GoSum {
        self.sums_of(|line| {
            self.is_named(line)
                || (line.version.ends_with("/go.mod") && self.required().contains(&module_of_sum(line)))
        })
    }

    fn sums_of(&self, is_kept: impl Fn(&ModuleVersion) -> bool) -> GoSum {
        let mut kept = GoSum::default();
        for line in self.lock.go_sum.modules().filter(|line| is_kept(line)) {
            self.lock.go_sum.of(line).for_each(|sum| kept.insert(&line.path, &line.version, sum));
        }
        kept
    }

    /// The modules whose go.mod has to be in the cache for a complete comparison.
    pub(super) fn unread_go_mods(&self) -> &[ModuleVersion] {
        if self.is_undecided.get() { self.required().unread() } else { &[] }
    }

    fn of_requirement(&self, line: &Require) -> Option<String> {
        let (Require { path, version, .. }, module) = (line, line.module());
        let own = self.release.go_mod.require.iter().find(|own| own.path == *path);
        if own.is_some_and(|own| own.version == *version) || self.is_floor(&module) {
            return None;
        }
        if let Some(plugin) = self.lock.plugins.iter().find(|plugin| plugin.module == *path) {
            let is_requested = plugin.from.is_some() && !self.is_raised(path);
            return (!is_requested && !self.is_required(&module))
                .then(|| format!("plugin {}: nothing requires {path} {version}", plugin.name));
        }
        match own {
            // Version selection only raises.
            Some(own)
                if semver::compare(version, &own.version).is_lt()
                    && !(self.is_excluded(own)
                        || self.release.is_plugin(own)
                        || (self.may_lower() && own.indirect)) =>
            {
                Some(format!("go.mod: requires {path} {version}, but RoadRunner requires {}", own.version))
            }
            None if !line.indirect => Some(format!("go.mod: only the lock requires {path} {version}")),
            _ if self.is_required(&module) => None,
            // Imported, but required by no go.mod: the go command chose the version.
            None if !self.required().has_path(path) && self.compiled().contains(path.as_str()) => None,
            _ => Some(format!("go.mod: nothing requires {path} {version}")),
        }
    }

    /// The versions that the release was tested with, unless the configuration leaves them to version selection.
    fn missing_requirements(&self) -> Vec<String> {
        if self.may_lower() {
            return Vec::new();
        }
        let listed: HashSet<&str> = self.lock.go_mod.require.iter().map(|line| line.path.as_str()).collect();
        let own = self.release.go_mod.require.iter().filter(|own| own.indirect);
        own.filter(|own| !listed.contains(own.path.as_str()) && !self.is_excluded(own))
            .map(|own| format!("go.mod: lacks {} {}, which RoadRunner requires", own.path, own.version))
            .collect()
    }

    /// The lines of go.sum that contradict the release's own.
    fn other_sums(&self) -> Vec<String> {
        let release = &self.release.go_sum;
        let is_other = |line: &&ModuleVersion| {
            release.of(line).next().is_some()
                && !self.lock.go_sum.of(line).all(|sum| release.of(line).any(|own| own == sum))
        };
        let lines = self.lock.go_sum.modules().filter(is_other);
        lines
            .map(|line| format!("go.sum: RoadRunner has another sum of {} {}", line.path, line.version))
            .collect()
    }

    fn is_used(&self, line: &ModuleVersion) -> bool {
        self.is_named(line) || self.is_required(&module_of_sum(line))
    }

    /// Whether the release has a sum of this, or go.mod names it.
    fn is_named(&self, line: &ModuleVersion) -> bool {
        self.release.go_sum.of(line).next().is_some() || self.is_listed(&module_of_sum(line))
    }

    /// Whether some go.mod requires a module at this version, or one that is not in the cache may.
    fn is_required(&self, module: &ModuleVersion) -> bool {
        let required = self.required();
        if required.contains(module) {
            return true;
        }
        self.is_undecided.set(self.is_undecided.get() || !required.unread().is_empty());
        !required.unread().is_empty()
    }

    fn is_listed(&self, module: &ModuleVersion) -> bool {
        self.lock.roadrunner() == *module
            || self.lock.go_mod.require.iter().any(|line| line.module() == *module)
            || self.replacements().any(|new| new == *module)
    }

    /// Whether the configuration may lead to earlier versions than those of the release
    /// (`GoModComposition::go_mod`).
    fn may_lower(&self) -> bool {
        let has = |setting: &str| self.lock.settings.iter().any(|known| known == setting);
        let is_below = |own: &Require| {
            self.lock.plugins.iter().any(|plugin| {
                without_major(&plugin.module) == without_major(&own.path)
                    && semver::compare(&plugin.version, &own.version).is_lt()
            })
        };
        has("dependencies = minimal")
            || (!has("dependencies = release") && self.release.go_mod.require.iter().any(is_below))
    }

    fn is_excluded(&self, own: &Require) -> bool {
        self.lock.go_mod.exclude.contains(&own.module())
    }

    fn is_floor(&self, module: &ModuleVersion) -> bool {
        self.manifest.requires.iter().any(|floor| floor.is(module))
    }

    fn is_raised(&self, module: &str) -> bool {
        self.lock.raised.iter().any(|raised| raised.module == module)
    }

    fn compiled(&self) -> HashSet<&str> {
        let targets = self.lock.targets.values();
        targets.flat_map(|target| &target.modules).map(|module| module.path.as_str()).collect()
    }

    fn replacements(&self) -> impl Iterator<Item = ModuleVersion> {
        self.lock.go_mod.replace.iter().filter_map(Replace::new_module)
    }

    fn required(&self) -> &RequiredModules<'a> {
        self.required.get_or_init(|| {
            let mut required = RequiredModules::of(self.roots(), &self.lock.go_sum, &self.release.cache);
            loop {
                // Modules that the go command added because a package is imported.
                let compiled = self.compiled();
                let lines = self.lock.go_mod.require.iter().filter(|line| line.indirect);
                let imported: Vec<ModuleVersion> = lines
                    .filter(|line| compiled.contains(line.path.as_str()) && !required.has_path(&line.path))
                    .map(Require::module)
                    .collect();
                if imported.is_empty() {
                    return required;
                }
                required.add(imported);
            }
        })
    }

    /// What RoadRunner and the configuration name.
    fn roots(&self) -> Vec<ModuleVersion> {
        let requested =
            self.lock.plugins.iter().filter(|it| it.from.is_some() && !self.is_raised(&it.module));
        let floors = self.manifest.requires.iter();
        let release = self.release.go_mod.require.iter().map(Require::module);
        release
            .chain(requested.map(|plugin| ModuleVersion::new(&plugin.module, &plugin.version)))
            .chain(self.lock.raised.iter().map(|it| ModuleVersion::new(&it.module, &it.asked)))
            .chain(floors.map(ModuleDirective::module_version))
            .chain(self.replacements())
            .chain(self.local.requires.iter().cloned())
            .collect()
    }
}

/// The module of a line in go.sum.
fn module_of_sum(line: &ModuleVersion) -> ModuleVersion {
    let version = line.version.strip_suffix("/go.mod").unwrap_or(&line.version);
    ModuleVersion::new(&line.path, version)
}
