use std::ops::Range;

use velox_build::{BuildRequest, Error, LockedPlugin};
use velox_gomod::{
    module::{ModuleVersion, split_path_version},
    pseudo, semver,
};
use velox_manifest::{
    Level, Manifest, Plugin, Replacement, Spanned,
    catalogue::{self, PluginStatus},
};

use super::{CheckRule, Finding};
use crate::{ModuleGraph, last_part, without_major};

/// The module path prefix of RoadRunner's own plugins, which share one major version.
const OFFICIAL_PREFIX: &str = "github.com/roadrunner-server/";

/// The interface modules of RoadRunner, its plugins and PHP; level and effect of a differing major version.
const INTERFACES: [(&str, Level, &str); 5] = [
    (
        "github.com/roadrunner-server/api",
        Level::Error,
        "declares the interfaces between plugins: a plugin written for another major version is not recognized",
    ),
    (
        "github.com/roadrunner-server/endure",
        Level::Error,
        "starts and connects the plugins: a plugin written for another major version is not started",
    ),
    (
        "github.com/roadrunner-server/goridge",
        Level::Warning,
        "is the protocol between RoadRunner and PHP: its major versions may be incompatible",
    ),
    (
        "github.com/roadrunner-server/pool",
        Level::Warning,
        "runs the PHP workers: RoadRunner does not manage the workers of another major version",
    ),
    (
        "github.com/roadrunner-server/errors",
        Level::Warning,
        "defines error kinds: other plugins do not recognize those of another major version",
    ),
];

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

/// Findings about the resolved versions.
pub(super) fn of_graph(request: &BuildRequest, graph: &ModuleGraph) -> Vec<Finding> {
    let mut findings = Vec::new();
    let span_of = |name: &str| {
        let plugin = request.manifest.plugins.iter().find(|plugin| plugin.name.value == name);
        plugin.and_then(|plugin| plugin.reference.span.clone())
    };
    for locked in graph.lock().plugins.iter().filter(|locked| locked.from.is_some()) {
        findings.extend(plugin_major(locked, span_of(&locked.name), graph));
        findings.extend(interfaces(locked, span_of(&locked.name), graph));
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

/// Findings about a resolution failure.
pub(super) fn of_failure(manifest: &Manifest, error: &Error) -> Vec<Finding> {
    let mut findings: Vec<Finding> = error
        .diagnostics
        .iter()
        .map(|diagnostic| {
            let mut finding = Finding { rule: CheckRule::Resolve, ..Finding::of_warning(diagnostic.clone()) };
            finding.diagnostic.level = Level::Error;
            let at = |plugin: &&Plugin| diagnostic.span.is_some() && plugin.reference.span == diagnostic.span;
            let plugin = manifest.plugins.iter().find(at);
            if let Some(similar) = plugin.and_then(|plugin| similar_plugin(plugin, manifest)) {
                finding.diagnostic.help.insert(0, similar);
            }
            finding
        })
        .collect();
    if let Some(last) = findings.last_mut() {
        last.explanation.extend(error.output.iter().cloned());
    }
    findings
}

/// A suggestion for an unknown plugin: a known one with a similar module path.
fn similar_plugin(plugin: &Plugin, manifest: &Manifest) -> Option<String> {
    let identity = plugin.identity(manifest);
    if !identity.starts_with(OFFICIAL_PREFIX) || catalogue::find(&identity).is_some() {
        return None;
    }
    let known = catalogue::nearest(&identity).into_iter().next()?;
    Some(format!("did you mean {}?", known.module_path()))
}

fn moving_roadrunner(manifest: &Manifest, graph: Option<&ModuleGraph>) -> Option<Finding> {
    let reference = manifest.roadrunner.reference.as_ref();
    let message = match reference {
        Some(reference) if is_fixed(&reference.value) => return None,
        Some(reference) => format!("RoadRunner's ref `{}` is a branch", reference.value),
        None => "RoadRunner has no ref: its default branch is used".to_owned(),
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

/// Whether a ref is a full version, a commit, or `latest`, which selects releases only.
fn is_fixed(reference: &str) -> bool {
    let commit =
        (7..=64).contains(&reference.len()) && reference.bytes().all(|byte| byte.is_ascii_hexdigit());
    semver::canonical(reference).is_some_and(|version| reference.starts_with(&version))
        || commit
        || reference == "latest"
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
fn plugin_major(locked: &LockedPlugin, span: Option<Range<usize>>, graph: &ModuleGraph) -> Option<Finding> {
    let own = major(&locked.module, &locked.version);
    let release = &graph.resolved.release;
    let base = without_major(&locked.module);
    let released = release.plugins.iter().find(|plugin| without_major(&plugin.path) == base);
    let expected = match released {
        Some(plugin) => major(&plugin.path, &plugin.version),
        None if base.starts_with(OFFICIAL_PREFIX) => common_major(&release.plugins)?,
        None => return None,
    };
    if own == expected {
        return None;
    }
    let version = &release.module.version;
    let message = format!(
        "plugin {} has major version v{own}, but the plugins of RoadRunner {version} have v{expected}",
        locked.name
    );
    let label = "major version differs from RoadRunner's plugins";
    let finding = Finding::new(CheckRule::PluginMajor, Level::Error, message, span, label).because(
        "RoadRunner and its plugins are released together: plugins of another major version may fail to compile, \
         fail to start, or not be found by other plugins",
    );
    Some(match released {
        Some(plugin) => {
            let same = if graph.lock().plugins.len() > 1 {
                ", and the same major version for all plugins"
            } else {
                ""
            };
            finding.remedy(format!(
                "use {} {}, which RoadRunner {version} was released with{same}",
                plugin.path, plugin.version
            ))
        }
        None => finding.remedy(format!(
            "RoadRunner {version} was released without it: remove it, or use a RoadRunner release that has it"
        )),
    })
}

/// The most common major version of RoadRunner's own plugins.
fn common_major(plugins: &[ModuleVersion]) -> Option<u64> {
    let majors: Vec<u64> = plugins
        .iter()
        .filter(|plugin| plugin.path.starts_with(OFFICIAL_PREFIX))
        .map(|plugin| major(&plugin.path, &plugin.version))
        .collect();
    majors.iter().copied().max_by_key(|major| majors.iter().filter(|other| *other == major).count())
}

fn interfaces(locked: &LockedPlugin, span: Option<Range<usize>>, graph: &ModuleGraph) -> Vec<Finding> {
    let module = ModuleVersion { path: locked.module.clone(), version: locked.version.clone() };
    let release = &graph.resolved.release;
    let mut findings = Vec::new();
    for line in graph.resolved.graph.requirements(&module).iter().filter(|line| !line.indirect) {
        let base = without_major(&line.path);
        let Some((_, level, effect)) = INTERFACES.iter().find(|(path, ..)| base == *path) else { continue };
        let required: Vec<&str> = release
            .go_mod
            .require
            .iter()
            .map(|other| other.path.as_str())
            .filter(|path| without_major(path) == base)
            .collect();
        if required.is_empty() || required.contains(&line.path.as_str()) {
            continue;
        }
        let (plugin, name) = (&locked.name, last_part(base));
        let message = format!(
            "plugin {plugin} requires {}, but RoadRunner {} requires {}",
            line.path,
            release.module.version,
            required.join(" and ")
        );
        let label = format!("its go.mod requires {name} {}", line.version);
        findings.push(
            Finding::new(CheckRule::Interface, *level, message, span.clone(), &label)
                .because(format!("{name} {effect}"))
                .remedy(format!(
                    "use a version of {plugin} whose go.mod requires {}, or a RoadRunner release of the same time",
                    required.join(" or ")
                )),
        );
    }
    findings
}

/// The major version in the suffix of the path, else that of the version.
fn major(path: &str, version: &str) -> u64 {
    let digits = |text: &str| text.trim_start_matches(['/', '.', 'v']).parse().ok();
    let suffix = split_path_version(path).map_or("", |(_, suffix)| suffix);
    digits(suffix).or_else(|| digits(semver::major(version)?)).unwrap_or(0)
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

    #[test]
    fn majors_come_from_the_path() {
        assert_eq!(major("github.com/a/b/v5", "v5.1.0"), 5);
        assert_eq!(major("github.com/a/b", "v0.3.0"), 0);
        assert_eq!(major("github.com/a/b", "v2.0.0+incompatible"), 2);
        assert_eq!(major("gopkg.in/b.v3", "v3.0.0"), 3);
    }
}
