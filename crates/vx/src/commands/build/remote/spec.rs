//! The requests of a remote build.

use std::collections::BTreeMap;

use velox_api::{BuildSpec, Violation, with_module_paths};
use velox_build::{Error, ErrorKind, LockedRefs, RemoteBuild};
use velox_manifest::{Diagnostic, GoSelection, Manifest};

/// The module paths of all plugins by name; `None` if one is unknown.
pub(super) fn module_paths(manifest: &Manifest) -> Option<BTreeMap<String, String>> {
    let path =
        |plugin: &velox_manifest::Plugin| Some((plugin.name.value.clone(), plugin.module_path(manifest)?));
    manifest.plugins.iter().map(path).collect()
}

/// Creates a request for each target, with the locked versions of an up-to-date lock.
pub(super) fn build_specs(
    manifest: &Manifest,
    local: &RemoteBuild<'_>,
    modules: &BTreeMap<String, String>,
) -> Result<Vec<BuildSpec>, Error> {
    let settings = local.settled();
    let mut manifest = with_module_paths(manifest, modules);
    if let Some(exact) = local.exact() {
        request_exactly(&mut manifest, exact);
    }
    let mut specs = Vec::new();
    for target in &settings.targets {
        let of_target = BuildSpec::from_manifest(&manifest, Some(target)).and_then(|specs| {
            let with_settings = |spec| BuildSpec {
                debug: settings.debug,
                race: settings.race,
                strict: settings.strict,
                dependencies: settings.dependencies,
                stamp_version: settings.stamp_version.clone(),
                stamp_time: settings.stamp_time.clone(),
                ..spec
            };
            specs.into_iter().map(|spec| with_settings(spec).normalized()).collect::<Result<Vec<_>, _>>()
        });
        specs.extend(of_target.map_err(rejected)?);
    }
    Ok(specs)
}

/// Replaces the requested refs by those of a lock.
pub(super) fn request_exactly(manifest: &mut Manifest, exact: LockedRefs) {
    if let Some(reference) = &mut manifest.roadrunner.reference {
        reference.value = exact.roadrunner;
    }
    if let Some(go) = &mut manifest.go {
        go.value = GoSelection::Exact(exact.go);
    }
    // The locked version of a replaced plugin belongs to the replacement.
    for plugin in manifest.plugins.iter_mut().filter(|plugin| plugin.replace.is_none()) {
        if let Some(version) = exact.plugins.get(&plugin.name.value) {
            plugin.reference.value.clone_from(version);
        }
    }
}

/// The errors of requests, which no place in the configuration belongs to.
pub(super) fn rejected(violations: Vec<Violation>) -> Error {
    let errors = violations.into_iter().map(|violation| Diagnostic::error(violation.message));
    Error::many(ErrorKind::Configuration, errors.collect())
}
