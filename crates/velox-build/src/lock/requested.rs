//! The part of a configuration that a [`Lock`] has to match.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::Path,
};

use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};
use velox_fetch::modcache::ModCache;
use velox_gomod::{gosum::GoSum, module::ModuleVersion};
use velox_manifest::{Dependencies, Forge, GoSelection, Manifest, Origin, Plugin, Replacement, Spanned};

use super::{
    model::{Lock, LockedPlugin},
    release::{ReleaseComparison, ReleaseModules},
    unrequested,
};
use crate::{digest, imports::imports_of, local_module::LocalDirectives, settings::BuildSettings};

/// What the configuration requests, in the format of the lock.
#[derive(Debug)]
pub(crate) struct RequestedVersions {
    pub(crate) roadrunner: String,
    /// By the user's name.
    pub(crate) plugins: BTreeMap<String, String>,
    pub(crate) settings: Vec<String>,
    manifest: Manifest,
    /// Those of all local replacements.
    local: LocalDirectives,
    module_cache: Option<ModCache>,
}

impl RequestedVersions {
    /// Relative paths start from `base`.
    pub(crate) fn new(manifest: &Manifest, settings: &BuildSettings, base: &Path) -> Self {
        let github = address(&manifest.github);
        let reference =
            manifest.roadrunner.reference.as_ref().map_or("the default branch", |r| r.value.as_str());
        let plugins = manifest
            .plugins
            .iter()
            .map(|plugin| (plugin.name.value.clone(), plugin_source(plugin, manifest, base)))
            .collect();
        let mut rest: Vec<String> = manifest
            .replaces
            .iter()
            .map(|replace| {
                let (old, version) = &replace.old.value;
                let version = version.as_ref().map(|version| format!(" {version}")).unwrap_or_default();
                format!("replace {old}{version} => {}", replacement(&replace.new.value, base))
            })
            .collect();
        rest.extend(
            manifest
                .excludes
                .iter()
                .map(|exclude| format!("exclude {} {}", exclude.module.value, exclude.version.value)),
        );
        rest.extend(
            manifest
                .requires
                .iter()
                .map(|require| format!("require {} {}", require.module.value, require.version.value)),
        );
        rest.extend(manifest.go.as_ref().map(|go| go_setting(&go.value)));
        rest.extend(settings.dependencies.map(|choice| match choice {
            Dependencies::Release => "dependencies = release".to_owned(),
            Dependencies::Minimal => "dependencies = minimal".to_owned(),
        }));
        rest.sort();
        Self {
            roadrunner: format!("{github}/roadrunner-server/roadrunner {reference}"),
            plugins,
            settings: rest,
            manifest: manifest.clone(),
            local: local_directives(manifest, base),
            module_cache: settings.module_cache.as_ref().map(ModCache::new),
        }
    }

    /// A digest of what is requested.
    pub(crate) fn digest(&self) -> String {
        let plugins = self.plugins.iter().flat_map(|(name, source)| [name, source]);
        digest::of_texts([&self.roadrunner].into_iter().chain(plugins).chain(&self.settings))
    }

    /// How a lock differs, one sentence each.
    pub(crate) fn differences(&self, lock: &Lock) -> Vec<String> {
        self.differences_from(lock, self.release(lock).as_ref())
    }

    /// As [`Self::differences`], with the locked RoadRunner's own modules.
    pub(crate) fn differences_from(&self, lock: &Lock, release: Option<&ReleaseModules>) -> Vec<String> {
        let changed = self.changes(lock);
        if !changed.is_empty() {
            return changed;
        }
        let mut found = unrequested::differences(lock, &self.manifest, &self.local, release);
        found.extend(self.comparison(lock, release).into_iter().flat_map(|it| it.unused_sums()));
        found
    }

    /// The modules whose go.mod is needed to compare a lock completely, and not in the cache.
    pub(crate) fn unread_go_mods(&self, lock: &Lock, release: Option<&ReleaseModules>) -> Vec<ModuleVersion> {
        let Some(comparison) = self.comparison(lock, release) else { return Vec::new() };
        comparison.differences();
        comparison.unused_sums();
        comparison.unread_go_mods().to_vec()
    }

    /// The sums of a lock without those that nothing needs; `None` without its RoadRunner in the cache.
    pub(crate) fn used_sums(&self, cache: ModCache, lock: &Lock) -> Option<GoSum> {
        let release = ReleaseModules::cached(cache, lock);
        Some(self.comparison(lock, release.as_ref())?.used_sums())
    }

    /// As [`Self::used_sums`], of a lock that was just resolved with this cache.
    pub(crate) fn read_sums(&self, cache: ModCache, lock: &Lock) -> Option<GoSum> {
        let release = ReleaseModules::cached(cache, lock);
        Some(self.comparison(lock, release.as_ref())?.read_sums())
    }

    /// Whether the module cache has all that a lock is compared with.
    pub(crate) fn is_comparable(&self, lock: &Lock) -> bool {
        let release = self.release(lock);
        release.is_some() && self.unread_go_mods(lock, release.as_ref()).is_empty()
    }

    /// Whether something in a lock may be RoadRunner's own, or somebody's edit that decides what is compiled.
    pub(crate) fn needs_release(&self, lock: &Lock) -> bool {
        self.release(lock).is_none() && unrequested::needs_release(lock, &self.manifest, &self.local)
    }

    /// The plugins of a lock's RoadRunner release; `None` without it in the cache.
    pub(crate) fn released_plugins(&self, lock: &Lock) -> Option<Vec<ModuleVersion>> {
        self.release(lock).map(|release| release.plugins())
    }

    fn release(&self, lock: &Lock) -> Option<ReleaseModules> {
        ReleaseModules::cached(self.module_cache.clone()?, lock)
    }

    fn comparison<'a>(
        &'a self,
        lock: &'a Lock,
        release: Option<&'a ReleaseModules>,
    ) -> Option<ReleaseComparison<'a>> {
        Some(ReleaseComparison::new(lock, &self.manifest, &self.local, release?))
    }

    /// The sums that a lock of this configuration lacks.
    pub(crate) fn missing_sums(&self, lock: &Lock) -> Vec<String> {
        if self.changes(lock).is_empty() { unrequested::missing_sums(lock) } else { Vec::new() }
    }

    /// What somebody changed in a lock: it must not decide about the next one.
    pub(crate) fn edits(&self, lock: &Lock) -> Vec<String> {
        if self.changes(lock).is_empty() {
            // Earlier versions of vx left sums of earlier versions of modules behind.
            return unrequested::differences(lock, &self.manifest, &self.local, self.release(lock).as_ref());
        }
        let mut found = unrequested::missing_sums(lock);
        let is_unchanged = |plugin: &LockedPlugin| plugin.from.as_ref() == self.plugins.get(&plugin.name);
        found.extend(unrequested::plugin_differences(lock, &self.manifest, is_unchanged));
        found
    }

    /// What the configuration requests in another way than the lock says.
    fn changes(&self, lock: &Lock) -> Vec<String> {
        let mut differences = Vec::new();
        let mut differ = |what: &str, locked: &str, asked: &str| {
            if locked != asked {
                differences
                    .push(format!("{what}: the lock has {locked}, the configuration requests {asked}"));
            }
        };
        differ("RoadRunner", &lock.roadrunner.from, &self.roadrunner);
        let locked: BTreeMap<&str, &str> = lock
            .plugins
            .iter()
            .filter_map(|plugin| Some((plugin.name.as_str(), plugin.from.as_deref()?)))
            .collect();
        for (name, asked) in &self.plugins {
            differ(&format!("plugin {name}"), locked.get(name.as_str()).unwrap_or(&"nothing"), asked);
        }
        for (name, from) in locked {
            if !self.plugins.contains_key(name) {
                differ(&format!("plugin {name}"), from, "nothing");
            }
        }
        let (locked, asked): (BTreeSet<&String>, BTreeSet<&String>) =
            (lock.settings.iter().collect(), self.settings.iter().collect());
        differences.extend(locked.difference(&asked).map(|gone| format!("only the lock has: {gone}")));
        differences.extend(asked.difference(&locked).map(|new| format!("the lock lacks: {new}")));
        differences
    }
}

/// `[go] version` in [`Lock::settings`].
pub(crate) fn go_setting(selection: &GoSelection) -> String {
    format!("go {selection}")
}

fn local_directives(manifest: &Manifest, base: &Path) -> LocalDirectives {
    let of_plugins = manifest.plugins.iter().filter_map(|plugin| plugin.replace.as_ref());
    let of_modules = manifest.replaces.iter().map(|replace| &replace.new);
    let mut all = LocalDirectives::default();
    for replacement in of_plugins.chain(of_modules) {
        if let Replacement::Directory(directory) = &replacement.value {
            let LocalDirectives { replaces, excludes, requires } =
                LocalDirectives::read(&base.join(directory));
            for replace in replaces.iter().filter(|replace| replace.new_version.is_none()) {
                all.requires.extend(LocalDirectives::read(Path::new(&replace.new_path)).requires);
            }
            all.replaces.extend(replaces);
            all.excludes.extend(excludes);
            all.requires.extend(requires);
        }
    }
    all
}

/// The origin of a plugin, its ref, and its replacement.
fn plugin_source(plugin: &Plugin, manifest: &Manifest, base: &Path) -> String {
    let on_forge = |forge: &Forge, path: &dyn fmt::Display, folder: &Option<Spanned<String>>| {
        let folder = folder.as_ref().map(|folder| format!("//{}", folder.value)).unwrap_or_default();
        format!("{}/{path}{folder}", address(forge))
    };
    let origin = match &plugin.origin {
        Origin::Module(path) => path.value.clone(),
        Origin::GitHub { owner, repository, folder } => {
            on_forge(&manifest.github, &format!("{}/{}", owner.value, repository.value), folder)
        }
        Origin::GitLab { project, folder } => on_forge(&manifest.gitlab, &project.value, folder),
    };
    let replaced = plugin
        .replace
        .as_ref()
        .map(|new| format!(" => {}", replacement(&new.value, base)))
        .unwrap_or_default();
    format!("{origin} {}{replaced}", plugin.reference.value)
}

fn replacement(replacement: &Replacement, base: &Path) -> String {
    match replacement {
        Replacement::Directory(directory) => {
            format!("{directory} ({})", needs(&base.join(directory)))
        }
        Replacement::Module { path, version: None } => path.clone(),
        Replacement::Module { path, version: Some(version) } => format!("{path} {version}"),
    }
}

/// A digest of the go.mod and the imports of a local module; other changes don't require a new lock.
fn needs(directory: &Path) -> String {
    let mut hash = Sha256::new();
    let mut add = |directory: &Path| {
        hash.update(std::fs::read(directory.join("go.mod")).unwrap_or_default());
        for import in imports_of(directory, &|_| true).unwrap_or_default() {
            hash.update(import);
            hash.update("\n");
        }
    };
    add(directory);
    let replaces = LocalDirectives::read(directory).replaces.into_iter();
    replaces
        .filter(|replace| replace.new_version.is_none())
        .for_each(|replace| add(Path::new(&replace.new_path)));
    let mut hex = HEXLOWER.encode(&hash.finalize());
    hex.truncate(16);
    format!("needs {hex}")
}

/// The public host, or the endpoint of a self-hosted forge.
fn address(forge: &Forge) -> String {
    forge.endpoint.as_ref().map_or_else(
        || forge.host().to_owned(),
        |endpoint| endpoint.value.as_str().trim_end_matches('/').to_owned(),
    )
}
