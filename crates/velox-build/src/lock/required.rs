//! The modules that version selection can select.

use std::collections::HashSet;

use velox_fetch::modcache::{CacheFile, ModCache};
use velox_gomod::{
    gosum::GoSum,
    modfile::{GoMod, Require},
    module::ModuleVersion,
};

/// What some modules require, directly or through each other, according to the go.mod files in the module cache.
///
/// A superset of the module graph (<https://go.dev/ref/mod#graph-pruning>): every go.mod whose sum is known counts, also
/// those of versions that are not selected.
pub(super) struct RequiredModules<'a> {
    sums: &'a GoSum,
    cache: &'a ModCache,
    modules: HashSet<ModuleVersion>,
    paths: HashSet<String>,
    /// The modules whose go.mod the cache lacks.
    unread: Vec<ModuleVersion>,
}

impl<'a> RequiredModules<'a> {
    /// What `roots` require, and the roots themselves.
    pub(super) fn of(roots: Vec<ModuleVersion>, sums: &'a GoSum, cache: &'a ModCache) -> Self {
        let mut required =
            Self { sums, cache, modules: HashSet::new(), paths: HashSet::new(), unread: Vec::new() };
        required.add(roots);
        required
    }

    /// Adds modules and what they require.
    pub(super) fn add(&mut self, mut modules: Vec<ModuleVersion>) {
        while let Some(module) = modules.pop() {
            if self.modules.contains(&module) {
                continue;
            }
            let go_mod = format!("{}/go.mod", module.version);
            if self.sums.get(&module.path, &go_mod).next().is_some() {
                match self.go_mod(&module) {
                    Some(go_mod) => modules.extend(go_mod.require.iter().map(Require::module)),
                    None => self.unread.push(module.clone()),
                }
            }
            self.paths.insert(module.path.clone());
            self.modules.insert(module);
        }
    }

    /// Whether a module is required at this version, as far as the go.mod files are in the cache.
    pub(super) fn contains(&self, module: &ModuleVersion) -> bool {
        self.modules.contains(module)
    }

    /// Whether a module is required at any version.
    pub(super) fn has_path(&self, path: &str) -> bool {
        self.paths.contains(path)
    }

    /// The required modules whose go.mod is not in the cache: they may require others.
    pub(super) fn unread(&self) -> &[ModuleVersion] {
        &self.unread
    }

    fn go_mod(&self, module: &ModuleVersion) -> Option<GoMod> {
        let path = self.cache.path(module, CacheFile::Mod).ok()?;
        let text = std::fs::read_to_string(path).ok()?;
        // Go ignores the rest of an invalid go.mod of a dependency, too.
        Some(GoMod::parse_lax(&text).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_known_go_mod_counts() {
        let directory = tempfile::tempdir().unwrap();
        let cache = ModCache::new(directory.path());
        let module = |path: &str, version: &str| ModuleVersion::new(format!("a.b/{path}"), version);
        let mut sums = GoSum::default();
        for (name, version, go_mod) in [
            ("one", "v1.0.0", "require a.b/two v1.0.0"),
            ("two", "v1.0.0", "require (\n\ta.b/one v1.0.0\n\ta.b/three v1.5.0 // indirect\n)"),
            ("pruned", "v1.0.0", "require a.b/four v1.0.0"),
        ] {
            let module = module(name, version);
            let path = cache.path(&module, CacheFile::Mod).unwrap();
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, format!("module {}\n\n{go_mod}\n", module.path)).unwrap();
            if name != "pruned" {
                sums.insert(&module.path, &format!("{version}/go.mod"), "h1:x");
            }
        }
        let mut required = RequiredModules::of(vec![module("one", "v1.0.0")], &sums, &cache);
        assert!(required.contains(&module("three", "v1.5.0")) && required.has_path("a.b/three"));
        assert!(!required.contains(&module("three", "v1.6.0")) && !required.has_path("a.b/four"));
        required.add(vec![module("pruned", "v1.0.0")]);
        assert!(!required.contains(&module("four", "v1.0.0")), "its go.mod is not in go.sum");
        assert_eq!(required.unread(), []);

        sums.insert("a.b/three", "v1.5.0/go.mod", "h1:x");
        let required = RequiredModules::of(vec![module("one", "v1.0.0")], &sums, &cache);
        assert_eq!(required.unread(), [module("three", "v1.5.0")]);
    }
}
