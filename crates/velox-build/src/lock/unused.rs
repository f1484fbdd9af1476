//! `[[replaces]]` and `[[requires]]` that have no effect on a lock.

use velox_gomod::module::without_major;
use velox_manifest::{Diagnostic, Manifest};

use super::Lock;

/// A warning for each requirement and each replacement that has no effect.
pub(crate) fn unused_directives(manifest: &Manifest, lock: &Lock) -> Vec<Diagnostic> {
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
