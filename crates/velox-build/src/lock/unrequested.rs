//! Content of a lock that neither the configuration nor RoadRunner's own release asks for: somebody edited it.

use std::{collections::BTreeSet, path::Path};

use velox_gomod::{
    goversion::{GoVersion, is_older},
    modfile::Replace,
    module::{ModuleVersion, without_major},
    semver,
};
use velox_manifest::{
    GoSelection, Manifest, Origin, Plugin, Project, Replacement, VersionConstraint,
    catalogue::ALWAYS_INCLUDED,
};

use super::{
    model::{Lock, LockedPlugin, LockedReplacement},
    release::{ReleaseComparison, ReleaseModules},
};
use crate::local_module::LocalDirectives;

const OFFICIAL: &str = "github.com/roadrunner-server/";
/// Module paths there name the repository; other hosts may redirect to any (`go-import`).
const FORGES: [&str; 2] = ["github.com/", "gitlab.com/"];

/// The plugins that `is_unchanged` in the configuration, but not in the lock.
pub(super) fn plugin_differences(
    lock: &Lock,
    manifest: &Manifest,
    is_unchanged: impl Fn(&LockedPlugin) -> bool,
) -> Vec<String> {
    let plugins = lock.plugins.iter().filter(|plugin| is_unchanged(plugin));
    plugins.filter_map(|plugin| of_plugin(plugin, lock, manifest)).collect()
}

/// What only the lock has, one sentence each. Without a `release`, what it could ask for is not compared.
pub(crate) fn differences(
    lock: &Lock,
    manifest: &Manifest,
    local: &LocalDirectives,
    release: Option<&ReleaseModules>,
) -> Vec<String> {
    let go_mod = &lock.go_mod;
    let mut found = plugin_differences(lock, manifest, |_| true);
    if go_mod.module.as_deref() != Some(lock.roadrunner.module.as_str()) {
        found.push(format!("go.mod: the module is not {}", lock.roadrunner.module));
    }
    found.extend(of_roadrunner(lock, manifest));
    found.extend(
        go_mod
            .replace
            .iter()
            .filter(|replace| !is_requested(replace, lock, manifest, local))
            .filter(|replace| match release {
                Some(release) => !release.go_mod().replace.contains(replace),
                None => lock.plugins.iter().any(|plugin| plugin.module == replace.old_path),
            })
            .map(|replace| format!("go.mod: only the lock replaces {}", text(replace))),
    );
    if let Some(name) = &go_mod.toolchain {
        found.push(format!("go.mod: only the lock has the line `toolchain {name}`"));
    }
    found.extend(go_mod.tool.iter().map(|tool| format!("go.mod: only the lock has the tool {tool}")));
    if let Some(line) = go_mod.go.as_ref().filter(|line| is_older(&lock.go_version, line)) {
        found.push(format!("the lock has {}, but its go.mod requires Go {line}", lock.go_version));
    }
    found.extend(manifest.requires.iter().filter_map(|floor| {
        let (module, version) = (&floor.module.value, &floor.version.value);
        let required = go_mod.require.iter().find(|line| line.path == *module);
        match required {
            Some(line) if semver::compare(&line.version, version).is_ge() => None,
            Some(line) => Some(format!(
                "go.mod: requires {module} {}, but the configuration requires {version}",
                line.version
            )),
            None => Some(format!("go.mod: lacks {module} {version}, which the configuration requires")),
        }
    }));
    found.extend(of_go(lock, manifest, release));
    found.extend(missing_sums(lock));
    if let Some(release) = release {
        found.extend(ReleaseComparison::new(lock, manifest, local, release).differences());
    }
    found
}

/// The lines of go.sum that verify what is compiled: without one, the go command stops, or trusts what a proxy sends.
pub(super) fn missing_sums(lock: &Lock) -> Vec<String> {
    let targets: Vec<_> = lock.targets.values().collect();
    let lines = lock.zips(&targets).into_iter().collect::<BTreeSet<_>>().into_iter().flat_map(
        |ModuleVersion { path, version }| {
            let go_mod = format!("{version}/go.mod");
            [version, go_mod].map(|version| ModuleVersion { path: path.clone(), version })
        },
    );
    lines
        .filter(|line| lock.go_sum.of(line).next().is_none())
        .map(|line| format!("the lock has no sum for {} {}", line.path, line.version))
        .collect()
}

/// Whether a replace without a known release could be RoadRunner's own.
pub(crate) fn needs_release(lock: &Lock, manifest: &Manifest, local: &LocalDirectives) -> bool {
    !lock.go_mod.replace.iter().all(|new| is_requested(new, lock, manifest, local))
}

fn of_plugin(plugin: &LockedPlugin, lock: &Lock, manifest: &Manifest) -> Option<String> {
    let LockedPlugin { name, module, version, replacement, .. } = plugin;
    let Some(requested) = manifest.plugins.iter().find(|plugin| plugin.name.value == *name) else {
        // A plugin that the configuration had is a difference already.
        let is_added = ALWAYS_INCLUDED
            .iter()
            .any(|added| without_major(module) == *added && added.strip_prefix(OFFICIAL) == Some(name));
        return (plugin.from.is_none() && !is_added)
            .then(|| format!("plugin {name}: only the lock has it ({module} {version})"));
    };
    match (requested.replace.as_ref().map(|replace| &replace.value), replacement) {
        (None, None) if is_foreign(requested, module, manifest) => {
            Some(format!("plugin {name}: the lock has {module}, which the configuration doesn't name"))
        }
        (None, None) => changed_version(plugin, requested, lock),
        // A fork whose go.mod declares the path of the original.
        (None, Some(LockedReplacement::Module { path, .. })) if requested.is_module(path, manifest) => None,
        (None, Some(_)) => Some(format!("plugin {name}: only the lock replaces {module}")),
        (Some(Replacement::Directory(directory)), Some(LockedReplacement::Directory { path }))
            if Path::new(directory) == path =>
        {
            None
        }
        (
            Some(Replacement::Module { path, version }),
            Some(LockedReplacement::Module { path: locked, version: at }),
        ) if is_same_module(path, locked)
            && version.as_ref().is_none_or(|version| is_same_version(version, at)) =>
        {
            None
        }
        (Some(_), _) => {
            Some(format!("plugin {name}: the lock has another replacement than the configuration"))
        }
    }
}

/// Whether a module can't be that of the plugin. A path on another host may lead to its repository, and a
/// self-hosted forge may mirror any.
fn is_foreign(requested: &Plugin, module: &str, manifest: &Manifest) -> bool {
    let is_numbered =
        |project: &Project| matches!(project, Project::Id(_)) && module.starts_with("gitlab.com/");
    if requested.is_module(module, manifest) {
        return false;
    }
    match (requested.forge(manifest), &requested.origin) {
        (None, _) => true,
        (Some(forge), _) if forge.is_self_hosted() => false,
        (Some(_), Origin::GitLab { project, .. }) if is_numbered(&project.value) => false,
        _ => !is_vanity(module),
    }
}

fn is_vanity(module: &str) -> bool {
    !FORGES.iter().any(|forge| module.starts_with(forge))
}

/// A version tag can only be raised, which the lock must say.
fn changed_version(plugin: &LockedPlugin, requested: &Plugin, lock: &Lock) -> Option<String> {
    let (asked, version) = (&requested.reference.value, &plugin.version);
    if is_same_version(asked, version) {
        return None;
    }
    let is_raised = lock.raised.iter().any(|raised| {
        raised.module == plugin.module
            && raised.selected == *version
            && semver::compare(version, asked).is_gt()
    });
    (!is_raised).then(|| {
        format!("plugin {}: the lock has {version}, the configuration requests {asked}", plugin.name)
    })
}

/// A Go version that `[go] version` doesn't select.
fn of_go(lock: &Lock, manifest: &Manifest, release: Option<&ReleaseModules>) -> Option<String> {
    let selection = &manifest.go.as_ref()?.value;
    let locked = &lock.go_version;
    let is_selected = match selection {
        GoSelection::Exact(version) => locked.strip_prefix("go") == Some(version),
        GoSelection::Minor(minor) => {
            let (locked, minor) = (GoVersion::from_toolchain_name(locked), minor.parse::<GoVersion>());
            locked.zip(minor.ok()).is_some_and(|(locked, minor)| locked.is_same_minor(&minor))
        }
        GoSelection::Release => {
            release.is_none_or(|release| release.go_mod().preferred_toolchain().as_ref() == Some(locked))
        }
    };
    (!is_selected).then(|| format!("the lock has {locked}, but [go] version is {selection}"))
}

fn of_roadrunner(lock: &Lock, manifest: &Manifest) -> Option<String> {
    let asked = &manifest.roadrunner.reference.as_ref()?.value;
    let version = &lock.roadrunner.version;
    (!is_same_version(asked, version))
        .then(|| format!("RoadRunner: the lock has {version}, the configuration requests {asked}"))
}

/// Whether a version is the requested one; anything is the version of a branch or a commit.
fn is_same_version(asked: &str, version: &str) -> bool {
    if let Some(constraint) = VersionConstraint::of(asked) {
        return constraint.matches(version);
    }
    semver::canonical(asked).as_deref() != Some(asked) || version.trim_end_matches("+incompatible") == asked
}

fn is_same_module(asked: &str, module: &str) -> bool {
    without_major(asked).eq_ignore_ascii_case(without_major(module))
}

fn is_requested(replace: &Replace, lock: &Lock, manifest: &Manifest, local: &LocalDirectives) -> bool {
    // The replacement in the lock is the one in go.mod: `Lock::parse` checks it.
    let of_plugin =
        lock.plugins.iter().any(|plugin| plugin.module == replace.old_path && plugin.replacement.is_some());
    // A directory in the go.mod of a local module is copied, too.
    let of_local = |own: &Replace| {
        own.old_path == replace.old_path
            && own.new_version == replace.new_version
            && (own.new_version.is_none() || own.new_path == replace.new_path)
    };
    of_plugin
        || local.replaces.iter().any(of_local)
        || manifest.replaces.iter().any(|requested| {
            let (old, version) = &requested.old.value;
            let is_new = match &requested.new.value {
                Replacement::Directory(_) => replace.new_version.is_none(),
                Replacement::Module { path, version } => {
                    is_same_module(path, &replace.new_path)
                        && replace.new_version.as_ref().is_some_and(|new| {
                            version.as_ref().is_none_or(|version| is_same_version(version, new))
                        })
                }
            };
            *old == replace.old_path && *version == replace.old_version && is_new
        })
}

fn text(replace: &Replace) -> String {
    let version =
        |version: &Option<String>| version.as_ref().map(|version| format!(" {version}")).unwrap_or_default();
    format!(
        "{}{} with {}{}",
        replace.old_path,
        version(&replace.old_version),
        replace.new_path,
        version(&replace.new_version)
    )
}
