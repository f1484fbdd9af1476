//! The module requirement graph with minimal version selection and graph pruning
//! (<https://go.dev/ref/mod#minimal-version-selection>, <https://go.dev/ref/mod#graph-pruning>).

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    modfile::{GoMod, Require},
    module::ModuleVersion,
    semver,
};

/// The requirement graph of a main module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequirementGraph {
    roots: Vec<Require>,
    requires: BTreeMap<ModuleVersion, Vec<Require>>,
    selected: BTreeMap<String, String>,
}

/// The modules whose go.mod is missing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("missing go.mod of {}", .0.iter().map(ModuleVersion::to_string).collect::<Vec<_>>().join(", "))]
pub struct MissingGoMods(pub Vec<ModuleVersion>);

/// An edge of the requirement graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequirementEdge<'a> {
    /// The requiring module.
    pub by: &'a ModuleVersion,
    /// The requirement.
    pub require: &'a Require,
}

impl RequirementGraph {
    /// Loads the graph of a main module. `read` returns the go.mod of a module version or its replacement.
    pub fn load(main: &GoMod, read: &dyn Fn(&ModuleVersion) -> Option<GoMod>) -> Result<Self, MissingGoMods> {
        let mut loading = GraphLoader {
            main,
            read,
            requires: BTreeMap::new(),
            unpruned: BTreeMap::new(),
            missing: BTreeSet::new(),
        };
        let roots = loading.without_excluded(&main.require);
        // Without graph pruning, the whole graph is loaded.
        let mut queue: Vec<(ModuleVersion, bool)> =
            roots.iter().map(|root| (root.module(), is_unpruned(main))).collect();
        let mut seen = BTreeSet::new();
        while let Some((module, whole)) = queue.pop() {
            if !seen.insert((module.clone(), whole)) {
                continue;
            }
            let own = loading.load(&module);
            if whole || own {
                let next = loading.requires.get(&module).into_iter().flatten();
                queue.extend(next.map(|require| (require.module(), whole || own)));
            }
        }
        if !loading.missing.is_empty() {
            return Err(MissingGoMods(loading.missing.into_iter().collect()));
        }
        let mut selected: BTreeMap<String, String> = BTreeMap::new();
        for require in roots.iter().chain(loading.requires.values().flatten()) {
            let newest = selected.entry(require.path.clone()).or_insert_with(|| require.version.clone());
            if semver::compare(&require.version, newest).is_gt() {
                require.version.clone_into(newest);
            }
        }
        Ok(Self { roots, requires: loading.requires, selected })
    }

    /// The requirements of the main module.
    pub fn roots(&self) -> &[Require] {
        &self.roots
    }

    /// The selected version of a module.
    pub fn selected(&self, path: &str) -> Option<&str> {
        self.selected.get(path).map(String::as_str)
    }

    /// All module paths of the graph with their selected versions.
    pub fn modules(&self) -> &BTreeMap<String, String> {
        &self.selected
    }

    /// The requirements of a module; empty if pruned.
    pub fn requirements(&self, module: &ModuleVersion) -> &[Require] {
        self.requires.get(module).map_or(&[], Vec::as_slice)
    }

    /// The requirements on a module by others than the main module, highest version first. Includes those by
    /// unselected versions, which also count in minimal version selection.
    pub fn edges_to(&self, path: &str) -> Vec<RequirementEdge<'_>> {
        let mut demands: Vec<RequirementEdge<'_>> = self
            .requires
            .iter()
            .flat_map(|(by, requires)| requires.iter().map(move |require| RequirementEdge { by, require }))
            .filter(|demand| demand.require.path == path)
            .collect();
        demands.sort_by(|one, other| {
            semver::compare(&other.require.version, &one.require.version).then_with(|| one.by.cmp(other.by))
        });
        demands
    }
}

struct GraphLoader<'a> {
    main: &'a GoMod,
    read: &'a dyn Fn(&ModuleVersion) -> Option<GoMod>,
    requires: BTreeMap<ModuleVersion, Vec<Require>>,
    unpruned: BTreeMap<ModuleVersion, bool>,
    missing: BTreeSet<ModuleVersion>,
}

impl GraphLoader<'_> {
    /// Reads the go.mod of a module once; returns whether it is unpruned.
    fn load(&mut self, module: &ModuleVersion) -> bool {
        if let Some(unpruned) = self.unpruned.get(module) {
            return *unpruned;
        }
        let Some(go_mod) = (self.read)(module) else {
            self.missing.insert(module.clone());
            return false;
        };
        let unpruned = is_unpruned(&go_mod);
        self.requires.insert(module.clone(), self.without_excluded(&go_mod.require));
        self.unpruned.insert(module.clone(), unpruned);
        unpruned
    }

    /// The requirements without versions that the main module excludes.
    fn without_excluded(&self, requires: &[Require]) -> Vec<Require> {
        let excluded =
            |require: &&Require| !self.main.exclude.iter().any(|version| *version == require.module());
        requires.iter().filter(excluded).cloned().collect()
    }
}

/// Whether a go.mod predates graph pruning (Go 1.17) and lists only direct requirements.
fn is_unpruned(go_mod: &GoMod) -> bool {
    let Some(go) = go_mod.go.as_deref() else { return true };
    let mut numbers = go.split(|c: char| !c.is_ascii_digit()).map_while(|part| part.parse::<u32>().ok());
    let (major, minor) = (numbers.next().unwrap_or(1), numbers.next().unwrap_or(0));
    (major, minor) < (1, 17)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn graph(main: &str, modules: &[(&str, &str)]) -> Result<RequirementGraph, MissingGoMods> {
        let read = |module: &ModuleVersion| {
            let (_, text) = modules.iter().find(|(name, _)| *name == module.to_string())?;
            Some(GoMod::parse_lax(text).unwrap())
        };
        RequirementGraph::load(&GoMod::parse(main).unwrap(), &read)
    }

    #[test]
    fn the_highest_demanded_version_is_selected() {
        let graph = graph(
            "module m\ngo 1.26\nrequire (\na.b/a v1.0.0\na.b/b v1.0.0\n)",
            &[
                ("a.b/a@v1.0.0", "module a.b/a\ngo 1.20\nrequire a.b/c v1.2.0"),
                ("a.b/b@v1.0.0", "module a.b/b\ngo 1.20\nrequire a.b/c v1.10.0 // indirect"),
            ],
        )
        .unwrap();
        assert_eq!(graph.selected("a.b/c"), Some("v1.10.0"));
        assert_eq!(graph.selected("a.b/d"), None);
        let demands = graph.edges_to("a.b/c");
        let demands: Vec<_> = demands.iter().map(|d| (d.by.to_string(), d.require.indirect)).collect();
        assert_eq!(demands, [("a.b/b@v1.0.0".to_owned(), true), ("a.b/a@v1.0.0".to_owned(), false)]);
    }

    #[test]
    fn behind_a_module_with_pruning_nothing_is_loaded() {
        let old = "module a.b/a\ngo 1.16\nrequire a.b/c v1.0.0";
        let new = "module a.b/a\ngo 1.17\nrequire a.b/c v1.0.0";
        let main = "module m\ngo 1.26\nrequire a.b/a v1.0.0";
        let missing = graph(main, &[("a.b/a@v1.0.0", old)]).unwrap_err();
        assert_eq!(missing.to_string(), "missing go.mod of a.b/c@v1.0.0");
        assert_eq!(graph(main, &[("a.b/a@v1.0.0", new)]).unwrap().selected("a.b/c"), Some("v1.0.0"));
        // An unpruned main module loads the whole graph.
        assert!(graph("module m\ngo 1.16\nrequire a.b/a v1.0.0", &[("a.b/a@v1.0.0", new)]).is_err());
        // All transitive requirements of an unpruned module count.
        let behind = [
            ("a.b/a@v1.0.0", old),
            ("a.b/c@v1.0.0", "module a.b/c\ngo 1.20\nrequire a.b/d v1.0.0"),
            ("a.b/d@v1.0.0", "module a.b/d\nrequire a.b/a v1.0.0"),
        ];
        assert_eq!(graph(main, &behind).unwrap().selected("a.b/d"), Some("v1.0.0"));
    }

    #[test]
    fn excluded_versions_are_not_required() {
        let main = "module m\ngo 1.26\nrequire a.b/a v1.0.0\nexclude a.b/c v1.9.0";
        let modules = [("a.b/a@v1.0.0", "module a.b/a\ngo 1.20\nrequire a.b/c v1.9.0")];
        assert_eq!(graph(main, &modules).unwrap().selected("a.b/c"), None);
    }
}
