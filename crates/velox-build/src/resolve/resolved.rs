//! The result of resolving a module.

use std::path::PathBuf;

use velox_gomod::module::ModuleVersion;

/// A downloaded module at an exact version.
#[derive(Debug, Clone)]
pub(crate) struct ResolvedModule {
    pub(crate) module: ModuleVersion,
    pub(crate) commit: Option<String>,
    /// The commit time, in seconds since 1970.
    pub(crate) time: Option<i64>,
    /// The directory with its files.
    pub(crate) tree: PathBuf,
    pub(crate) go_mod: String,
    /// The `h1:` sums of its zip and of its go.mod.
    pub(crate) zip_sum: String,
    pub(crate) mod_sum: String,
}
