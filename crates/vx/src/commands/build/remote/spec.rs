//! The requests of a remote build, and the places in the configuration that their violations are about.

use std::{collections::BTreeMap, ops::Range};

use velox_api::{BuildSpec, Violation};
use velox_build::{Error, ErrorKind, LockedRefs, RemoteBuild};
use velox_manifest::{Diagnostic, Manifest, Origin, Replacement, Spanned};

/// Rejects directories and self-hosted forges, which the build service can't access.
pub(super) fn check_supported(manifest: &Manifest) -> Result<(), Error> {
    let plugins = manifest.plugins.iter().filter_map(|plugin| plugin.replace.as_ref());
    let replaces = manifest.replaces.iter().map(|replace| &replace.new);
    let directories = plugins.chain(replaces).filter_map(|replacement| match &replacement.value {
        Replacement::Directory(directory) => Some(
            Diagnostic::error(format!("the build service can't access the directory `{directory}`"))
                .at(replacement.span.clone())
                .help("publish the module, or build locally"),
        ),
        Replacement::Module { .. } => None,
    });
    let forges = [&manifest.github, &manifest.gitlab].into_iter().filter_map(|forge| {
        let endpoint = forge.endpoint.as_ref()?;
        Some(
            Diagnostic::error(format!("the build service can't access the forge {}", forge.host()))
                .at(endpoint.span.clone())
                .help("use module paths (`vx migrate`), or build locally"),
        )
    });
    let errors: Vec<Diagnostic> = directories.chain(forges).collect();
    if errors.is_empty() { Ok(()) } else { Err(Error::many(ErrorKind::Configuration, errors)) }
}

/// The module paths of all plugins by name, if the manifest has all of them.
pub(super) fn module_paths(manifest: &Manifest) -> Option<BTreeMap<String, String>> {
    let path =
        |plugin: &velox_manifest::Plugin| Some((plugin.name.value.clone(), plugin.module_path(manifest)?));
    manifest.plugins.iter().map(path).collect()
}

/// A request for each target, at the locked versions if the lock is up to date.
pub(super) fn build_specs(
    manifest: &Manifest,
    local: &RemoteBuild<'_>,
    modules: &BTreeMap<String, String>,
) -> Result<Vec<BuildSpec>, Error> {
    let settings = local.settled();
    let manifest = by_module(manifest, modules, local.exact().as_ref());
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
        specs.extend(of_target.map_err(|violations| {
            let errors = violations.into_iter().map(|violation| Diagnostic::error(violation.message));
            Error::many(ErrorKind::Configuration, errors.collect())
        })?);
    }
    Ok(specs)
}

/// The manifest with the module path of each plugin, and with the refs of `exact`.
pub(super) fn by_module(
    manifest: &Manifest,
    modules: &BTreeMap<String, String>,
    exact: Option<&LockedRefs>,
) -> Manifest {
    let mut manifest = manifest.clone();
    if let (Some(exact), Some(reference)) = (exact, &mut manifest.roadrunner.reference) {
        reference.value.clone_from(&exact.roadrunner);
    }
    for plugin in &mut manifest.plugins {
        let name = &plugin.name;
        if let Some(module) = modules.get(&name.value)
            && !matches!(plugin.origin, Origin::Module(_))
        {
            plugin.origin = Origin::Module(Spanned { value: module.clone(), span: name.span.clone() });
        }
        // The locked version of a replaced plugin is that of its replacement.
        if let Some(version) = exact.and_then(|exact| exact.plugins.get(&name.value))
            && plugin.replace.is_none()
        {
            plugin.reference.value.clone_from(version);
        }
    }
    manifest
}

/// A violation of a request, at the place in the configuration that it is about.
pub(super) fn diagnostic(
    manifest: &Manifest,
    spec: Option<&BuildSpec>,
    Violation { field, message }: &Violation,
) -> Diagnostic {
    match spec.and_then(|spec| span(manifest, spec, field)) {
        Some(span) => Diagnostic::error(message).at(span).label("rejected by the build service"),
        None if matches!(field.as_str(), "" | "configuration") => Diagnostic::error(message),
        None => Diagnostic::error(format!("{field}: {message}")),
    }
}

/// The place in the configuration of a field of a request.
fn span(manifest: &Manifest, spec: &BuildSpec, field: &str) -> Option<Range<usize>> {
    let field = field.strip_prefix("build.").unwrap_or(field);
    let (list, index, key) =
        match field.split_once('[').and_then(|(list, rest)| Some((list, rest.split_once(']')?))) {
            Some((list, (index, key))) => (list, index.parse::<usize>().ok()?, key),
            None => (field, 0, ""),
        };
    match list {
        "roadrunner" => manifest.roadrunner.reference.as_ref()?.span.clone(),
        "target" => manifest.targets.first()?.span.clone(),
        "plugins" => {
            let module = &spec.plugins.get(index)?.module;
            let is_module = |origin: &Origin| matches!(origin, Origin::Module(path) if path.value == *module);
            let plugin = manifest.plugins.iter().find(|plugin| is_module(&plugin.origin))?;
            match &plugin.origin {
                _ if key == ".ref" => plugin.reference.span.clone(),
                Origin::Module(path) => path.span.clone(),
                _ => plugin.name.span.clone(),
            }
        }
        "replaces" => {
            let module = spec.replaces.get(index)?.old.split('@').next()?;
            let replace = manifest.replaces.iter().find(|replace| replace.old.value.0 == module)?;
            if key == ".new" { replace.new.span.clone() } else { replace.old.span.clone() }
        }
        "excludes" => {
            let module = &spec.excludes.get(index)?.module;
            manifest.excludes.iter().find(|exclude| exclude.module.value == *module)?.module.span.clone()
        }
        _ => None,
    }
}
