//! What the catalogue tells of released plugins without reading their packages: tests compare it with the plugin graphs
//! of releases.

use velox_build::{Error, Lock, Reporter, report_findings};
use velox_gomod::semver;
use velox_manifest::{
    Level, Manifest, VersionConstraint,
    catalogue::{self, KnownPlugin},
};

use super::{CheckRule, Finding};

/// A plugin of a build: the user's name for it, and its entry of the catalogue.
type NamedPlugin = (String, &'static KnownPlugin);

/// The name, the module path, and whether the version is a release that no replacement changes.
type CandidatePlugin = (String, String, bool);

/// Reports plugins that do not start or that nothing uses, as far as the catalogue knows all plugins of a configuration
/// with module paths.
///
/// # Errors
/// With `strict`, such a plugin.
pub fn check_known_plugins(manifest: &Manifest, strict: bool, reporter: &dyn Reporter) -> Result<(), Error> {
    let findings = of_manifest(manifest).map(|plugins| findings(manifest, &plugins)).unwrap_or_default();
    report_findings(reporter, strict, findings.into_iter().map(|finding| finding.diagnostic).collect())
}

/// Findings about the plugins of a lock; `None` if the catalogue doesn't know all of them.
pub(super) fn of_lock(manifest: &Manifest, lock: &Lock) -> Option<Vec<Finding>> {
    let roadrunner = &lock.roadrunner.version;
    let major = catalogue::generation_major(roadrunner).filter(|_| semver::is_release(roadrunner))?;
    let plugins = lock.plugins.iter().map(|plugin| {
        let is_released = plugin.replacement.is_none() && semver::is_release(&plugin.version);
        (plugin.name.clone(), plugin.module.clone(), is_released)
    });
    Some(findings(manifest, &known(major, plugins)?))
}

fn of_manifest(manifest: &Manifest) -> Option<Vec<NamedPlugin>> {
    let manifest = manifest.with_plugin_replacements();
    let of_major = |major| {
        let plugins = manifest.plugins.iter().map(|plugin| {
            let reference = plugin.reference.value.as_str();
            let selects_releases = semver::is_release(reference)
                || reference == "latest"
                || VersionConstraint::of(reference).is_some();
            let module = plugin.module_path(&manifest).unwrap_or_default();
            (plugin.name.value.clone(), module, selects_releases && plugin.replace.is_none())
        });
        known(major, plugins)
    };
    let roadrunner = manifest.roadrunner.reference.as_ref().map_or("latest", |it| it.value.as_str());
    match catalogue::generation_major(roadrunner) {
        Some(major) => of_major(major),
        // The plugins tell which release they are for.
        None => catalogue::generations().iter().find_map(|generation| of_major(generation.plugins)),
    }
}

/// The plugins, if all are released plugins of the catalogue for the same release of RoadRunner.
fn known(major: u64, plugins: impl Iterator<Item = CandidatePlugin>) -> Option<Vec<NamedPlugin>> {
    let known = |(name, module, is_released): CandidatePlugin| {
        let known = catalogue::find(&module)?;
        (is_released && module == known.module_path_at(major)).then_some((name, known))
    };
    plugins.map(known).collect()
}

fn findings(manifest: &Manifest, plugins: &[NamedPlugin]) -> Vec<Finding> {
    let chosen: Vec<&'static KnownPlugin> = plugins.iter().map(|(_, known)| *known).collect();
    let is_chosen = |name: &String| chosen.iter().any(|plugin| plugin.name == *name);
    // Those without a plugin that they need, and those that need one of these.
    let mut dead: Vec<&str> = Vec::new();
    let is_lost = |dead: &[&str], name: &String| !is_chosen(name) || dead.contains(&name.as_str());
    while let Some(next) = chosen.iter().find(|plugin| {
        !dead.contains(&plugin.name.as_str()) && plugin.needs.iter().any(|name| is_lost(&dead, name))
    }) {
        dead.push(&next.name);
    }
    let add = |finding: Finding, names: &[String]| {
        names.iter().fold(finding, |finding, name| finding.remedy(format!("add {name}: `vx add {name}`")))
    };
    let finding = |(name, plugin): &NamedPlugin| {
        let configured = manifest.plugins.iter().find(|it| it.name.value == *name);
        let span = configured.and_then(|it| it.name.span.clone());
        let lost: Vec<String> = plugin.needs.iter().filter(|name| is_lost(&dead, name)).cloned().collect();
        if !lost.is_empty() {
            let message = format!("plugin {name} does not start without {}", lost.join(" and "));
            let finding =
                Finding::new(CheckRule::DeadPlugin, Level::Error, message, span, "disabled at the start");
            let missing: Vec<String> = lost.into_iter().filter(|name| !is_chosen(name)).collect();
            return Some(add(finding, &missing));
        }
        let users = plugin.missing_users(&chosen).next()?;
        let message = format!("plugin {name} has no effect: no plugin uses it");
        Some(add(Finding::new(CheckRule::UnusedPlugin, Level::Warning, message, span, "not used"), users))
    };
    plugins.iter().filter_map(finding).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{PluginGraph, PluginNode};

    #[test]
    fn released_plugins_are_known_without_their_packages() {
        let graph: PluginGraph =
            serde_json::from_str(include_str!("../plugin_graph/testdata/roadrunner-2025.json")).unwrap();
        let manifest = Manifest::without_a_file();
        let entry =
            |plugin: &PluginNode| (plugin.name.clone().unwrap_or_default(), plugin.module.clone(), true);
        let plugins = graph.plugins.iter().filter(|plugin| !plugin.is_configuration);
        let plugins: Vec<CandidatePlugin> = plugins.map(entry).collect();
        assert!(plugins.len() > 30);
        let found = |major, plugins: &[CandidatePlugin]| {
            let findings = findings(&manifest, &known(major, plugins.iter().cloned())?);
            let found =
                findings.into_iter().map(|finding| (finding.diagnostic.message, finding.diagnostic.help));
            Some(found.collect::<BTreeMap<_, _>>())
        };
        assert_eq!(found(5, &plugins), Some(BTreeMap::new()));
        assert_eq!(found(6, &plugins), None);
        let without = |module: &str| -> Vec<_> {
            let module = format!("github.com/roadrunner-server/{module}/v5");
            let rest: Vec<_> = plugins.iter().filter(|plugin| plugin.1 != module).cloned().collect();
            assert_eq!(rest.len(), plugins.len() - 1);
            rest
        };
        let dead = found(5, &without("server")).unwrap();
        assert_eq!(dead["plugin http does not start without server"], ["add server: `vx add server`"]);
        assert!(!dead.contains_key("plugin logger does not start without server"));
        let dead = found(5, &without("logger")).unwrap();
        assert_eq!(
            dead["plugin http does not start without logger and server"],
            ["add logger: `vx add logger`"]
        );
        let unused = found(5, &without("http")).unwrap();
        assert_eq!(unused["plugin gzip has no effect: no plugin uses it"], ["add http: `vx add http`"]);
        let changes: [fn(&mut CandidatePlugin); 2] =
            [|plugin| plugin.2 = false, |plugin| plugin.1 = "example.com/acme/plugin/v5".to_owned()];
        for change in changes {
            let mut plugins = plugins.clone();
            change(&mut plugins[7]);
            assert_eq!(found(5, &plugins), None, "{:?}", plugins[7]);
        }
    }
}
