use std::{collections::BTreeMap, ops::Range};

use velox_build::{BuildRequest, Error, Lock, LockedPlugin};
use velox_gomod::{
    modfile::Require,
    module::{ModuleVersion, with_major},
    pseudo, semver,
};
use velox_manifest::{
    Level, Manifest, Plugin, Replacement, Spanned, VersionConstraint,
    catalogue::{self, KnownRelease, PluginStatus},
};

use super::{CheckRule, Finding};
use crate::{
    ModuleGraph,
    generation::{self, major, plugin_major_of},
    interfaces::{InterfaceConflict, UsedInterfaces},
    last_part, without_major,
};

/// Findings about the configuration, with more precise remedies if `graph` is known.
pub(super) fn of_configuration(manifest: &Manifest, graph: Option<&ModuleGraph>) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(moving_roadrunner(manifest, graph));
    for plugin in &manifest.plugins {
        findings.extend(moving_ref(plugin, manifest, graph));
        findings.extend(deprecated(plugin, manifest));
    }
    findings
}

/// RoadRunner's own plugins that the release doesn't contain and that have another major version than its plugins:
/// their module paths at that major version.
pub(super) fn misplaced(graph: &ModuleGraph) -> Vec<String> {
    let release = &graph.resolved.release;
    let Some(expected) = plugin_major_of(release) else { return Vec::new() };
    let misplaced = |locked: &&LockedPlugin| {
        let base = without_major(&locked.module);
        catalogue::is_official(base)
            && major(&locked.module, &locked.version) != expected
            && !release.plugins.iter().any(|plugin| without_major(&plugin.path) == base)
    };
    let plugins = graph.lock().plugins.iter().filter(misplaced);
    plugins.map(|locked| with_major(without_major(&locked.module), expected)).collect()
}

/// Findings about the resolved versions. `newest` has the newest versions of the [`misplaced`] module paths.
pub(super) fn of_graph(
    request: &BuildRequest,
    graph: &ModuleGraph,
    newest: &BTreeMap<String, String>,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    let span_of = |name: &str| {
        let plugin = request.manifest.plugins.iter().find(|plugin| plugin.name.value == name);
        plugin.and_then(|plugin| plugin.reference.span.clone())
    };
    let used = used_interfaces(graph);
    let (lock, released) = (graph.lock(), &graph.resolved.release.plugins);
    for locked in lock.plugins.iter().filter(|locked| locked.from.is_some()) {
        match plugin_major(locked, span_of(&locked.name), lock, released, newest) {
            Some(finding) => findings.push(finding),
            None => findings.extend(interfaces(locked, span_of(&locked.name), &used, graph)),
        }
    }
    let strict = request.manifest.strict || request.options.versions.strict;
    let level = if strict { Level::Error } else { Level::Warning };
    for raised in &graph.lock().raised {
        let (name, selected) = (&raised.name, &raised.selected);
        let message =
            format!("plugin {name} is compiled at {selected}, not at the requested {}", raised.asked);
        let label = "raised by Go's minimal version selection";
        findings.push(
            Finding::new(CheckRule::Raised, level, message, span_of(name), label)
                .because(format!(
                    "Go compiles a module once, at the highest version that any module requires; {} requires {selected}",
                    raised.demanded_by.join(", "),
                ))
                .remedy(format!("request {selected}, or use an older version of the module that requires it")),
        );
    }
    findings
}

/// Findings about plugins with another major version than those of the RoadRunner release, `released`.
pub(super) fn of_majors(manifest: &Manifest, lock: &Lock, released: &[ModuleVersion]) -> Vec<Finding> {
    let finding = |plugin: &Plugin| {
        let locked = lock.plugins.iter().find(|locked| locked.name == plugin.name.value)?;
        plugin_major(locked, plugin.reference.span.clone(), lock, released, &BTreeMap::new())
    };
    manifest.plugins.iter().filter_map(finding).collect()
}

/// Findings about a resolution failure.
pub(super) fn of_failure(error: &Error) -> Vec<Finding> {
    let mut findings: Vec<Finding> = error
        .diagnostics
        .iter()
        .map(|diagnostic| {
            let mut finding = Finding { rule: CheckRule::Resolve, ..Finding::of_warning(diagnostic.clone()) };
            finding.diagnostic.level = Level::Error;
            finding
        })
        .collect();
    if let Some(last) = findings.last_mut() {
        last.explanation.extend(error.output.iter().cloned());
    }
    findings
}

fn moving_roadrunner(manifest: &Manifest, graph: Option<&ModuleGraph>) -> Option<Finding> {
    let reference = manifest.roadrunner.reference.as_ref();
    let message = match reference {
        Some(reference) if is_fixed(&reference.value) => return None,
        Some(reference) if reference.span.is_some() => {
            format!("RoadRunner's ref `{}` is a branch", reference.value)
        }
        _ => "no ref in `[roadrunner]`: RoadRunner's default branch is used".to_owned(),
    };
    let current = graph
        .map(|graph| graph.lock().roadrunner.version.as_str())
        .filter(|version| !pseudo::is_pseudo_version(version));
    let span = reference.and_then(|reference| reference.span.clone());
    Some(moving(message, span).remedy(match current {
        Some(version) => format!("pin the current version: ref = \"{version}\""),
        None => "use the tag of a release, such as ref = \"v2025.1.15\"".to_owned(),
    }))
}

fn moving_ref(plugin: &Plugin, manifest: &Manifest, graph: Option<&ModuleGraph>) -> Option<Finding> {
    let Spanned { value, span } = match &plugin.replace {
        Some(Spanned { value: Replacement::Directory(_), .. }) => return None,
        Some(Spanned { value: Replacement::Module { version: Some(version), .. }, span }) => {
            Spanned { value: version.clone(), span: span.clone() }
        }
        _ => plugin.reference.clone(),
    };
    if is_fixed(&value) {
        return None;
    }
    let identity = plugin.identity(manifest);
    let release = graph.map(|graph| &graph.resolved.release);
    let released = release.and_then(|release| {
        let plugin = release.plugins.iter().find(|plugin| without_major(&plugin.path) == identity)?;
        Some(format!("RoadRunner {} was released with {}", release.module.version, plugin.version))
    });
    let finding = moving(format!("plugin {}: `{value}` is a branch", plugin.name.value), span);
    Some(finding.remedy(match released {
        Some(released) => format!("use a tag: {released}"),
        None => "use a tag, or a commit if there is no tag".to_owned(),
    }))
}

fn moving(message: String, span: Option<Range<usize>>) -> Finding {
    let label = "may be a different commit tomorrow";
    Finding::new(CheckRule::MovingRef, Level::Warning, message, span, label).because(
        "a branch changes while the configuration stays the same; velox.lock keeps the commit until it is upgraded",
    )
}

/// Whether a ref is a full version, a commit, or selects releases only: `latest` or a version constraint.
fn is_fixed(reference: &str) -> bool {
    let commit =
        (7..=64).contains(&reference.len()) && reference.bytes().all(|byte| byte.is_ascii_hexdigit());
    semver::canonical(reference).is_some_and(|version| reference.starts_with(&version))
        || commit
        || reference == "latest"
        || VersionConstraint::of(reference).is_some()
}

fn deprecated(plugin: &Plugin, manifest: &Manifest) -> Option<Finding> {
    let known = catalogue::find(&plugin.identity(manifest))
        .filter(|known| known.status == PluginStatus::Deprecated)?;
    let message = format!("plugin {} is deprecated", plugin.name.value);
    let span = plugin.name.span.clone();
    let finding = Finding::new(CheckRule::Deprecated, Level::Warning, message, span, "unmaintained")
        .because(format!("{}: {}", known.module, known.description));
    Some(match &known.replaced_by {
        Some(other) => finding.remedy(format!("use {other} instead: see `vx search {other}`")),
        None => finding.remedy("remove it"),
    })
}

/// The rule of RoadRunner's documentation: "use tags with the same major version".
fn plugin_major(
    locked: &LockedPlugin,
    span: Option<Range<usize>>,
    lock: &Lock,
    released: &[ModuleVersion],
    newest: &BTreeMap<String, String>,
) -> Option<Finding> {
    let own = major(&locked.module, &locked.version);
    let base = without_major(&locked.module);
    let of_release = released.iter().find(|plugin| without_major(&plugin.path) == base);
    let expected = match of_release {
        Some(plugin) => major(&plugin.path, &plugin.version),
        None if catalogue::is_official(base) => {
            generation::plugin_major(released.iter().map(|it| (it.path.as_str(), it.version.as_str())))?
        }
        None => return None,
    };
    if own == expected {
        return None;
    }
    let version = &lock.roadrunner.version;
    let message = format!(
        "plugin {} has major version v{own}, but the plugins of RoadRunner {version} have v{expected}",
        locked.name
    );
    let label = "major version differs from RoadRunner's plugins";
    let finding = Finding::new(CheckRule::PluginMajor, Level::Error, message, span, label).because(
        "RoadRunner and its plugins are released together: plugins of another major version may fail to compile, \
         fail to start, or not be found by other plugins",
    );
    let path = with_major(base, expected);
    let has_it = |release: &&KnownRelease| {
        release.plugins().any(|(path, version)| without_major(path) == base && major(path, version) == own)
    };
    let older = catalogue::known_releases().iter().find(has_it);
    let finding = match (of_release, newest.get(&path)) {
        (Some(plugin), _) => {
            let same =
                if lock.plugins.len() > 1 { ", and the same major version for all plugins" } else { "" };
            finding.remedy(format!(
                "use {} {}, which RoadRunner {version} was released with{same}",
                plugin.path, plugin.version
            ))
        }
        (None, Some(newest)) => finding.remedy(format!(
            "use {path} {newest}, the newest version for this RoadRunner, which was released without it"
        )),
        (None, None) => finding.remedy(format!(
            "RoadRunner {version} was released without it: remove it, or use a RoadRunner release that has it"
        )),
    };
    Some(match older {
        Some(release) => {
            finding.remedy(format!("or use RoadRunner {}, whose plugins have v{own}", release.version))
        }
        None => finding,
    })
}

fn interfaces(
    locked: &LockedPlugin,
    span: Option<Range<usize>>,
    used: &UsedInterfaces,
    graph: &ModuleGraph,
) -> Vec<Finding> {
    let (plugin, version) = (&locked.name, &graph.resolved.release.module.version);
    let finding = |conflict: InterfaceConflict| {
        let InterfaceConflict { path, version: required, used, level, effect } = conflict;
        let name = last_part(&path);
        let (message, remedy) = match used.as_slice() {
            [] => (
                format!(
                    "plugin {plugin} requires {path}, but the logger of RoadRunner {version} has log/slog"
                ),
                format!("use a version of {plugin} that logs with log/slog"),
            ),
            used => (
                format!(
                    "plugin {plugin} requires {path}, but RoadRunner {version} requires {}",
                    used.join(" and ")
                ),
                format!(
                    "use a version of {plugin} whose go.mod requires {}, or a RoadRunner release of the same time",
                    used.join(" or ")
                ),
            ),
        };
        let label = format!("its go.mod requires {name} {required}");
        Finding::new(CheckRule::Interface, level, message, span.clone(), &label)
            .because(format!("{name} {effect}"))
            .remedy(remedy)
    };
    used.conflicts(requirements(locked, graph)).into_iter().map(finding).collect()
}

/// The interfaces of the release and of its own plugins in the build.
fn used_interfaces(graph: &ModuleGraph) -> UsedInterfaces {
    let release = &graph.resolved.release;
    let is_own = |locked: &&LockedPlugin| {
        catalogue::is_official(&locked.module)
            && Some(major(&locked.module, &locked.version)) == plugin_major_of(release)
    };
    let plugins = graph.lock().plugins.iter().filter(is_own);
    UsedInterfaces::new(release, plugins.map(|locked| (locked.module.as_str(), requirements(locked, graph))))
}

fn requirements<'a>(locked: &LockedPlugin, graph: &'a ModuleGraph) -> &'a [Require] {
    let module = ModuleVersion::new(&locked.module, &locked.version);
    graph.resolved.graph.requirements(&module)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fixed_refs_are_distinguished_from_moving_ones() {
        for fixed in [
            "v5.0.2",
            "v5.0.2-rc.1",
            "v5.0.2+meta",
            "0a1b2c3",
            "latest",
            "v0.0.0-20240101000000-0123456789ab",
        ] {
            assert!(is_fixed(fixed), "{fixed}");
        }
        for moving in ["master", "v5", "v5.1", "main", "feature/x", "abc", "beef"] {
            assert!(!is_fixed(moving), "{moving}");
        }
    }
}
