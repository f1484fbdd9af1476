use std::ops::Range;

use velox_gomod::{module::Version, module::split_path_version, pseudo, semver};
use velox_manifest::{
    Level, Manifest, Plugin, Replacement, Spanned,
    catalogue::{self, PluginStatus},
};

use super::{Finding, Rule};
use velox_build::{BuildRequest, Error, LockedPlugin};

use crate::{ModuleGraph, list::place, without_major};

/// RoadRunner's own team keeps its plugins at one major.
const OFFICIAL: &str = "github.com/roadrunner-server/";

/// The modules through which RoadRunner, its plugins and PHP speak with each other: how bad another major is, and why.
const INTERFACES: [(&str, Level, &str); 5] = [
    (
        "github.com/roadrunner-server/api",
        Level::Error,
        "declares what plugins expect of each other: one written for another major is not seen by them",
    ),
    (
        "github.com/roadrunner-server/endure",
        Level::Error,
        "starts the plugins and hands them to each other: one written for another major is not started",
    ),
    (
        "github.com/roadrunner-server/goridge",
        Level::Warning,
        "is the protocol between the server and PHP: two majors of it may not understand each other",
    ),
    (
        "github.com/roadrunner-server/pool",
        Level::Warning,
        "runs the PHP workers: a plugin with another major of it has workers that the server doesn't know",
    ),
    (
        "github.com/roadrunner-server/errors",
        Level::Warning,
        "has errors of kinds that other plugins look at: those of another major they don't know",
    ),
];

/// What the configuration alone shows; `study` has better remedies.
pub(super) fn of_configuration(manifest: &Manifest, study: Option<&ModuleGraph>) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(moving_roadrunner(manifest, study));
    for plugin in &manifest.plugins {
        findings.extend(moving_ref(plugin, study));
        findings.extend(deprecated(plugin));
    }
    findings
}

/// What needs the exact versions.
pub(super) fn of_study(request: &BuildRequest, study: &ModuleGraph) -> Vec<Finding> {
    let mut findings = Vec::new();
    for locked in study.resolved.lock.plugins.iter().filter(|locked| locked.from.is_some()) {
        let plugin = request.manifest.plugins.iter().find(|plugin| plugin.name.value == locked.name);
        let span = plugin.and_then(|plugin| plugin.reference.span.clone());
        findings.extend(plugin_major(locked, span.clone(), study));
        findings.extend(interfaces(locked, span, study));
    }
    let strict = request.manifest.strict || request.options.versions.strict;
    for raised in &study.resolved.lock.raised {
        let plugin = request.manifest.plugins.iter().find(|plugin| plugin.name.value == raised.name);
        let message = format!(
            "plugin {} is compiled at {}, not at {} as asked",
            raised.name, raised.selected, raised.asked
        );
        let span = plugin.and_then(|plugin| plugin.reference.span.clone());
        let because = format!(
            "Go compiles a module once, at the highest version that anything demands; {} demands {}",
            raised.demanded_by.join(", "),
            raised.selected
        );
        findings.push(
            Finding::new(
                Rule::Raised,
                if strict { Level::Error } else { Level::Warning },
                message,
                span,
                "raised by Go's minimal version selection",
            )
            .because(because)
            .remedy(format!("ask for {}, or for an older version of what demands it", raised.selected)),
        );
    }
    findings
}

/// Why there are no exact versions.
pub(super) fn of_failure(manifest: &Manifest, error: &Error) -> Vec<Finding> {
    let mut findings: Vec<Finding> = error
        .diagnostics
        .iter()
        .map(|diagnostic| {
            let mut finding = Finding { rule: Rule::Resolve, ..Finding::of_warning(diagnostic.clone()) };
            finding.diagnostic.level = Level::Error;
            let at = |plugin: &&Plugin| diagnostic.span.is_some() && plugin.reference.span == diagnostic.span;
            if let Some(near) = manifest.plugins.iter().find(at).and_then(near) {
                finding.diagnostic.help.insert(0, near);
            }
            finding
        })
        .collect();
    if let Some(last) = findings.last_mut() {
        last.explanation.extend(error.output.iter().cloned());
    }
    findings
}

/// A known plugin of nearly this name, where the module isn't a known one.
fn near(plugin: &Plugin) -> Option<String> {
    let place = place(&plugin.origin);
    if !place.starts_with(OFFICIAL) || catalogue::find(&place).is_some() {
        return None;
    }
    let known = catalogue::nearest(&place).into_iter().next()?;
    Some(format!("did you mean {}?", known.module_path()))
}

fn moving_roadrunner(manifest: &Manifest, study: Option<&ModuleGraph>) -> Option<Finding> {
    let reference = manifest.roadrunner.reference.as_ref();
    let message = match reference {
        Some(reference) if is_fixed(&reference.value) => return None,
        Some(reference) => format!("RoadRunner's ref {} is a branch", reference.value),
        None => "RoadRunner has no ref, which means its default branch".to_owned(),
    };
    let release = study
        .map(|study| study.resolved.lock.roadrunner.version.as_str())
        .filter(|version| !pseudo::is_pseudo_version(version));
    let span = reference.and_then(|reference| reference.span.clone());
    Some(moving(message, span).remedy(match release {
        Some(release) => format!("write ref = \"{release}\", which it is by now"),
        None => "write the tag of a release, such as ref = \"v2025.1.15\"".to_owned(),
    }))
}

fn moving_ref(plugin: &Plugin, study: Option<&ModuleGraph>) -> Option<Finding> {
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
    let place = place(&plugin.origin);
    let released = study.and_then(|study| {
        let plugin = study
            .resolved
            .release
            .plugins
            .iter()
            .find(|plugin| without_major(&plugin.path) == without_major(&place))?;
        Some((study.resolved.release.module.version.as_str(), plugin.version.as_str()))
    });
    let finding = moving(format!("plugin {}: {value} is a branch", plugin.name.value), span);
    Some(match released {
        Some((release, version)) => {
            finding.remedy(format!("ask for a tag: RoadRunner {release} was released with {version}"))
        }
        None => finding.remedy("ask for a tag, or for a commit where there is none"),
    })
}

fn moving(message: String, span: Option<Range<usize>>) -> Finding {
    Finding::new(Rule::MovingRef, Level::Warning, message, span, "may be another commit tomorrow").because(
        "a branch holds what is being worked on, and changes under a configuration that stays the same; \
         velox.lock keeps the commit until it is upgraded",
    )
}

/// A full version, a commit, or `latest`, which asks for a release and says so.
fn is_fixed(reference: &str) -> bool {
    let commit =
        (7..=64).contains(&reference.len()) && reference.bytes().all(|byte| byte.is_ascii_hexdigit());
    semver::canonical(reference).is_some_and(|version| reference.starts_with(&version))
        || commit
        || reference == "latest"
}

fn deprecated(plugin: &Plugin) -> Option<Finding> {
    let known =
        catalogue::find(&place(&plugin.origin)).filter(|known| known.status == PluginStatus::Deprecated)?;
    let message = format!("plugin {} is deprecated", plugin.name.value);
    let label = "nobody looks after it any more";
    let finding = Finding::new(Rule::Deprecated, Level::Warning, message, plugin.name.span.clone(), label)
        .because(format!("{}: {}", known.module, known.description));
    Some(match &known.replaced_by {
        Some(other) => finding.remedy(format!("use {other} instead: `vx search {other}` shows it")),
        None => finding.remedy("leave it out"),
    })
}

/// The manual: "use tags with the same major version".
fn plugin_major(locked: &LockedPlugin, span: Option<Range<usize>>, study: &ModuleGraph) -> Option<Finding> {
    let own = major(&locked.module, &locked.version);
    let release = &study.resolved.release;
    let of_release =
        release.plugins.iter().find(|plugin| without_major(&plugin.path) == without_major(&locked.module));
    let wanted = match of_release {
        Some(plugin) => major(&plugin.path, &plugin.version),
        None if locked.module.starts_with(OFFICIAL) => common_major(&release.plugins)?,
        None => return None,
    };
    if own == wanted {
        return None;
    }
    let message = format!(
        "plugin {} has the major v{own}, the plugins of RoadRunner {} have v{wanted}",
        locked.name, release.module.version
    );
    let finding = Finding::new(
        Rule::PluginMajor,
        Level::Error,
        message,
        span,
        "another major than RoadRunner's",
    )
    .because(
        "RoadRunner and its plugins are made for each other: those of one major speak through the same \
             interfaces, those of another may not compile, not start, or not be found by the others",
    );
    Some(match of_release {
        Some(plugin) => {
            let same = if study.resolved.lock.plugins.len() > 1 {
                ", and the same major for all plugins"
            } else {
                ""
            };
            finding.remedy(format!(
                "ask for {} {}, which RoadRunner {} was released with{same}",
                plugin.path, plugin.version, release.module.version
            ))
        }
        None => finding.remedy(format!(
            "RoadRunner {} was released without it: leave it out, or choose a RoadRunner of its time",
            release.module.version
        )),
    })
}

/// The major that most of RoadRunner's own plugins have.
fn common_major(plugins: &[Version]) -> Option<u64> {
    let majors: Vec<u64> = plugins
        .iter()
        .filter(|plugin| plugin.path.starts_with(OFFICIAL))
        .map(|plugin| major(&plugin.path, &plugin.version))
        .collect();
    majors.iter().copied().max_by_key(|major| majors.iter().filter(|other| *other == major).count())
}

fn interfaces(locked: &LockedPlugin, span: Option<Range<usize>>, study: &ModuleGraph) -> Vec<Finding> {
    let module = Version { path: locked.module.clone(), version: locked.version.clone() };
    let release = &study.resolved.release.go_mod.require;
    let mut findings = Vec::new();
    for line in study.resolved.graph.requirements(&module).iter().filter(|line| !line.indirect) {
        let Some((path, level, why)) =
            INTERFACES.iter().find(|(path, ..)| without_major(&line.path) == *path)
        else {
            continue;
        };
        let of_release: Vec<_> = release.iter().filter(|other| without_major(&other.path) == *path).collect();
        if of_release.is_empty() || of_release.iter().any(|other| other.path == line.path) {
            continue;
        }
        let theirs: Vec<_> = of_release.iter().map(|other| other.path.as_str()).collect();
        let message = format!(
            "plugin {} is written for {}, RoadRunner {} for {}",
            locked.name,
            line.path,
            study.resolved.release.module.version,
            theirs.join(" and ")
        );
        let name = path.rsplit('/').next().unwrap_or_default();
        let label = format!("its go.mod requires {name} {}", line.version);
        findings.push(
            Finding::new(Rule::Interface, *level, message, span.clone(), &label)
                .because(format!("{name} {why}"))
                .remedy(format!(
                    "ask for a version of {} whose go.mod requires {}, or choose a RoadRunner of its time",
                    locked.name,
                    theirs.join(" or ")
                )),
        );
    }
    findings
}

/// By the path's suffix; without one the version tells v0 from v1, which are the same to Go.
fn major(path: &str, version: &str) -> u64 {
    let digits = |text: &str| text.trim_start_matches(['/', '.', 'v']).parse().ok();
    let suffix = split_path_version(path).map_or("", |(_, suffix)| suffix);
    digits(suffix).or_else(|| digits(semver::major(version)?)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refs_that_stay_are_told_from_those_that_move() {
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
    fn majors_are_the_path_s() {
        assert_eq!(major("github.com/a/b/v5", "v5.1.0"), 5);
        assert_eq!(major("github.com/a/b", "v0.3.0"), 0);
        assert_eq!(major("github.com/a/b", "v2.0.0+incompatible"), 2);
        assert_eq!(major("gopkg.in/b.v3", "v3.0.0"), 3);
    }
}
