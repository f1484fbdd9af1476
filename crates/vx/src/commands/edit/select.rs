//! Plugins as users name them for `vx add` and `vx init`.

use std::path::{Path, PathBuf};

use velox_build::{Error, ErrorKind, QuerySession};
use velox_manifest::{Diagnostic, Replacement, is_directory};
use velox_query::{SelectedPlugin, plugin_name, select_plugins};

/// The plugins that a user names: as for [`select_plugins`], or by directories relative to `directory`, which are
/// replacements in a file in `base`.
pub(super) async fn select(
    query: &QuerySession<'_>,
    texts: &[String],
    github_host: &str,
    prereleases: bool,
    (directory, base): (&Path, &Path),
) -> Result<Vec<SelectedPlugin>, Error> {
    let (local, named): (Vec<String>, Vec<String>) =
        texts.iter().cloned().partition(|text| is_directory(text));
    let mut selected = select_plugins(query, &named, github_host, prereleases).await?;
    for text in local {
        let plugin = local_plugin(&text, directory, base);
        selected.push(plugin.map_err(|error| Error::many(ErrorKind::Configuration, vec![error]))?);
    }
    Ok(selected)
}

fn local_plugin(text: &str, directory: &Path, base: &Path) -> Result<SelectedPlugin, Diagnostic> {
    let path: PathBuf = directory.join(text).components().collect();
    let module = velox_build::module_in(&path)?;
    Ok(SelectedPlugin {
        name: plugin_name(&module),
        module,
        reference: "latest".to_owned(),
        is_explicit: false,
        replace: Some(relative_to(base, directory, text.parse()?)),
    })
}

/// A replacement that a user names in `directory`, as a file in `base` names it.
pub(super) fn relative_to(base: &Path, directory: &Path, replacement: Replacement) -> Replacement {
    let Replacement::Directory(named) = &replacement else { return replacement };
    let path = Path::new(named);
    if path.is_absolute() || base == directory {
        return replacement;
    }
    let path: PathBuf = directory.join(path).components().collect();
    Replacement::Directory(match path.strip_prefix(base) {
        Ok(below) => format!("./{}", below.display()),
        Err(_) => path.display().to_string(),
    })
}
