//! `[[replaces]]`, `[[excludes]]` and `[[requires]]` that contradict the rest of a manifest.

use velox_gomod::module::{ModuleVersion, without_major};
use velox_manifest::{Diagnostic, Manifest};

use super::plugin::ResolvedPlugin;
use crate::error::{Error, ErrorKind};

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
