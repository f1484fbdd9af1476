//! Conversions between manifests and requests.

use std::{collections::BTreeMap, ops::Range};

use velox_manifest::{Diagnostic, Manifest, Origin, Replacement, Spanned};

use crate::{BuildSpec, Violation};

/// Adds the module path of each plugin, which a request needs, from `modules` by plugin name.
#[must_use]
pub fn with_module_paths(manifest: &Manifest, modules: &BTreeMap<String, String>) -> Manifest {
    let mut manifest = manifest.clone();
    for plugin in &mut manifest.plugins {
        if let Some(module) = modules.get(&plugin.name.value)
            && !matches!(plugin.origin, Origin::Module(_))
        {
            let span = plugin.name.span.clone();
            plugin.origin = Origin::Module(Spanned { value: module.clone(), span });
        }
    }
    manifest
}

/// The directories and self-hosted forges of a manifest, which a build service can't access.
#[must_use]
pub fn unsupported_sources(manifest: &Manifest) -> Vec<Diagnostic> {
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
    directories.chain(forges).collect()
}

impl Violation {
    /// A diagnostic that points to the violated field of `spec` in the manifest that `spec` was made from.
    #[must_use]
    pub fn diagnostic(&self, manifest: &Manifest, spec: Option<&BuildSpec>) -> Diagnostic {
        match spec.and_then(|spec| span(manifest, spec, &self.field)) {
            Some(span) => Diagnostic::error(&self.message).at(span).label("rejected by the build service"),
            None if self.field == "configuration" => Diagnostic::error(&self.message),
            None => Diagnostic::error(self.to_string()),
        }
    }
}

/// The span of a request's field in the configuration.
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
        "requires" => {
            let module = &spec.requires.get(index)?.module;
            manifest.requires.iter().find(|require| require.module.value == *module)?.module.span.clone()
        }
        "go" => manifest.go.as_ref()?.span.clone(),
        _ => None,
    }
}
