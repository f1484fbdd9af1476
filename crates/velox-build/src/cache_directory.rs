//! The cache directory of vx.

use std::{collections::BTreeMap, path::PathBuf};

/// VX_CACHE_DIR, else `velox` in the user's cache directory, else in the temporary directory.
#[must_use]
pub fn cache_directory(environment: &BTreeMap<String, String>) -> PathBuf {
    let variable = |name: &str| environment.get(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let absolute = |path: PathBuf| path.is_absolute().then_some(path);
    variable("VX_CACHE_DIR")
        .and_then(absolute)
        .or_else(|| variable("XDG_CACHE_HOME").and_then(absolute).map(|path| path.join("velox")))
        .or_else(|| variable("LOCALAPPDATA").and_then(absolute).map(|path| path.join("velox")))
        .or_else(|| {
            let home = variable("HOME").or_else(|| variable("USERPROFILE")).and_then(absolute)?;
            let caches = if cfg!(target_os = "macos") { "Library/Caches" } else { ".cache" };
            Some(home.join(caches).join("velox"))
        })
        .unwrap_or_else(|| std::env::temp_dir().join("velox"))
}
