//! What the module cache knows of modules. Nothing is downloaded.

use std::{collections::BTreeMap, fs};

use velox_fetch::{
    goenv::GoEnv,
    modcache::{CacheFile, ModCache},
};
use velox_gomod::{
    modfile::{GoMod, Require},
    module::{ModuleVersion, split_path_version},
    pseudo::is_pseudo_version,
    semver,
};

use crate::{
    licenses::{LicenseFinder, ModuleLicense},
    resolve::versions::candidate_paths,
};

/// Reads requirements and licenses of modules from GOMODCACHE.
pub struct CachedModules {
    /// `None`: the environment names no directory.
    cache: Option<ModCache>,
    licenses: LicenseFinder,
}

impl CachedModules {
    /// Opens the module cache of an environment, as `go env GOMODCACHE` names it.
    #[must_use]
    pub fn new(environment: &BTreeMap<String, String>) -> Self {
        let directory = GoEnv::read(environment, None).gomodcache();
        Self { cache: directory.map(ModCache::new), licenses: LicenseFinder::default() }
    }

    /// The requirements in the go.mod of a module; empty if the cache lacks it.
    #[must_use]
    pub fn requirements(&self, module: &ModuleVersion) -> Vec<Require> {
        let path = self.cache.as_ref().and_then(|cache| cache.path(module, CacheFile::Mod).ok());
        let text = path.and_then(|path| fs::read_to_string(path).ok());
        let go_mod = text.and_then(|text| GoMod::parse_lax(&text).ok());
        go_mod.map(|go_mod| go_mod.require).unwrap_or_default()
    }

    /// The tagged versions that the cache knows of a module, newest first; without a major version in its path, of all
    /// its major versions.
    #[must_use]
    pub fn versions(&self, path: &str) -> Vec<String> {
        let paths = match split_path_version(path) {
            Some((_, "")) => candidate_paths(path),
            _ => vec![path.to_owned()],
        };
        let known = |path: &String| self.cache.as_ref().map(|cache| cache.known_versions(path));
        let versions = paths.iter().filter_map(known).flatten();
        let is_tag = |version: &String| semver::is_valid(version) && !is_pseudo_version(version);
        let mut versions: Vec<String> = versions.filter(is_tag).collect();
        versions.sort_by(|one, other| semver::compare(other, one));
        versions.dedup();
        versions
    }

    /// The license of a module; `None` if the cache lacks the module.
    pub fn license(&mut self, module: &ModuleVersion) -> Option<ModuleLicense> {
        let directory = self.cache.as_ref()?.dir(module).ok().filter(|directory| directory.is_dir())?;
        self.licenses.find(&directory).ok()
    }
}
