//! `[[replaces]]` and `[[excludes]]` that contradict the rest of a manifest, or have no effect.

use velox_gomod::module::ModuleVersion;
use velox_manifest::{Diagnostic, Manifest};

use super::plugin::{ResolvedPlugin, without_major};
use crate::{
    error::{Error, ErrorKind},
    lock::Lock,
};

/// Fails for a replacement of RoadRunner, and for an excluded version that is requested.
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
    let errors: Vec<Diagnostic> = replaced.chain(excluded).collect();
    if errors.is_empty() { Ok(()) } else { Err(Error::many(ErrorKind::Configuration, errors)) }
}

/// A warning for each replacement of a module or version that the build doesn't contain.
pub(crate) fn unused_replaces(manifest: &Manifest, lock: &Lock) -> Result<Vec<Diagnostic>, Error> {
    let go_mod = lock.go_mod()?;
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
    Ok(manifest.replaces.iter().filter_map(warning).collect())
}
