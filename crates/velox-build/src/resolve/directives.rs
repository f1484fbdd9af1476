//! `[[replaces]]`, `[[excludes]]` and `[[requires]]` that contradict the rest of a manifest, or have no effect.

use velox_gomod::module::{ModuleVersion, without_major};
use velox_manifest::{Diagnostic, Manifest};

use super::plugin::ResolvedPlugin;
use crate::{
    error::{Error, ErrorKind},
    lock::Lock,
};

/// Fails for a replacement of RoadRunner, for an excluded version that is requested, and for a required plugin.
pub(super) fn check(
    manifest: &Manifest,
    roadrunner: &ModuleVersion,
    plugins: &[ResolvedPlugin],
) -> Result<(), Error> {
    let replaced = manifest.replaces.iter().filter_map(|replace| {
        let (old, _) = &replace.old.value;
        let is_roadrunner = without_major(old) == without_major(&roadrunner.path);
        let message = format!("{old} is RoadRunner itself, which can't be replaced");
        is_roadrunner.then(|| {
            Diagnostic::error(message).at(replace.old.span.clone()).label("the main module of the binary").help(
                "remove it, and set ref in [roadrunner] to a tag, a branch or a commit; base_url in [github] names another host",
            )
        })
    });
    let excluded = manifest.excludes.iter().filter_map(|exclude| {
        let (path, version) = (&exclude.module.value, &exclude.version.value);
        let requests = |plugin: &&ResolvedPlugin| plugin.module == *path && plugin.version == *version;
        let name = match plugins.iter().filter(|plugin| !plugin.added).find(requests) {
            Some(plugin) => format!("plugin {}", plugin.name),
            None if roadrunner.path == *path && roadrunner.version == *version => "RoadRunner".to_owned(),
            None => return None,
        };
        let diagnostic = Diagnostic::error(format!("{path} {version} is excluded, but requested as {name}"));
        Some(
            diagnostic
                .at(exclude.version.span.clone())
                .label("this version is requested")
                .help("remove the exclude, or request another version"),
        )
    });
    let required = manifest.requires.iter().filter_map(|require| {
        let (path, version) = (&require.module.value, &require.version.value);
        let plugin = plugins.iter().find(|plugin| !plugin.added && plugin.module == *path);
        let (message, help) = if let Some(plugin) = plugin {
            let name = &plugin.name;
            (
                format!("{path} is the plugin {name}, whose version is its ref"),
                format!("remove it, and set the version of plugin {name} to {version}"),
            )
        } else if roadrunner.path == *path {
            (format!("{path} is RoadRunner itself"), "remove it, and set ref in [roadrunner]".to_owned())
        } else if manifest.excludes.iter().any(|exclude| exclude.is(&require.module_version())) {
            (format!("{path} {version} is both required and excluded"), "remove one of them".to_owned())
        } else {
            return None;
        };
        Some(Diagnostic::error(message).at(require.module.span.clone()).label("required here").help(help))
    });
    let errors: Vec<Diagnostic> = replaced.chain(excluded).chain(required).collect();
    if errors.is_empty() { Ok(()) } else { Err(Error::many(ErrorKind::Configuration, errors)) }
}

/// A warning for each requirement and each replacement that has no effect.
pub(crate) fn unused(manifest: &Manifest, lock: &Lock) -> Vec<Diagnostic> {
    let go_mod = &lock.go_mod;
    let is_compiled = |path: &str| {
        lock.targets.values().flat_map(|target| &target.modules).any(|module| module.path == path)
    };
    let floors = manifest.requires.iter().filter_map(|require| {
        let (path, version) = (&require.module.value, &require.version.value);
        let replaced = go_mod.replace.iter().find(|replace| replace.old_path == *path);
        let why = match replaced {
            Some(replace) => format!("{} replaces it", replace.new_path),
            None if is_compiled(path) => return None,
            None => "the build does not contain it".to_owned(),
        };
        let message = format!("the requirement of {path} {version} has no effect: {why}");
        Some(Diagnostic::warning(message).at(require.module.span.clone()).label("unused"))
    });
    let floors: Vec<Diagnostic> = floors.collect();
    let compiled = lock.targets.values().flat_map(|target| &target.modules);
    let required = go_mod.require.iter().map(|line| (line.path.as_str(), line.version.as_str()));
    let modules: Vec<(&str, &str)> =
        compiled.map(|module| (module.path.as_str(), module.version.as_str())).chain(required).collect();
    let warning = |replace: &velox_manifest::ReplaceDirective| {
        let (old, version) = &replace.old.value;
        let versions: Vec<&str> =
            modules.iter().filter(|(path, _)| path == old).map(|(_, version)| *version).collect();
        let is_used =
            version.as_ref().map_or(!versions.is_empty(), |version| versions.contains(&version.as_str()));
        let (message, help) = match versions.first() {
            _ if is_used => return None,
            Some(selected) => (
                format!("the replacement of {old} {} has no effect", version.as_deref().unwrap_or_default()),
                Some(format!("the build has {old} {selected}: remove the version, or use that one")),
            ),
            None => {
                let similar = modules.iter().find(|(path, _)| without_major(path) == without_major(old));
                let help = similar.map(|(path, version)| format!("the build has {path} {version}"));
                (format!("the replacement of {old} has no effect: the build does not contain it"), help)
            }
        };
        let warning = Diagnostic::warning(message).at(replace.old.span.clone()).label("unused");
        Some(Diagnostic { help: help.into_iter().collect(), ..warning })
    };
    floors.into_iter().chain(manifest.replaces.iter().filter_map(warning)).collect()
}
