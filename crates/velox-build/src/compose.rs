//! The go.mod of a server: what stays of RoadRunner's own, and what the user's plugins put in its place.

use std::collections::{BTreeMap, BTreeSet};

use velox_gomod::{
    modfile::{GoMod, Replace, Require},
    module::{Version, split_path_version},
    semver,
};
use velox_manifest::Dependencies;

/// A plugin's module as it is asked for.
pub(crate) struct Wanted {
    pub(crate) path: String,
    pub(crate) version: String,
    /// Its go.mod, or its replacement's; `None` for one that RoadRunner itself names at this version.
    pub(crate) go_mod: Option<GoMod>,
}

/// All that a composition is made from.
pub(crate) struct Composition<'a> {
    /// RoadRunner's own go.mod.
    pub(crate) release: &'a GoMod,
    /// What the release's `container/plugins.go` imports: its plugins.
    pub(crate) registered: &'a BTreeSet<String>,
    /// What all other packages of the release import.
    pub(crate) imported: &'a BTreeSet<String>,
    pub(crate) plugins: &'a [Wanted],
    pub(crate) replaces: Vec<Replace>,
    pub(crate) excludes: Vec<Version>,
    /// `None`: the rule below.
    pub(crate) dependencies: Option<Dependencies>,
}

impl Composition<'_> {
    /// The module, go and godebug lines stay, and so do the direct requirements that are no plugins, the replaces and the
    /// excludes (a replace of the user's wins). The `toolchain` line goes: the go command that runs is in the Lock.
    ///
    /// The `// indirect` lines are the versions that this release was tested with, security fixes included. They stay,
    /// unless a plugin that the user holds below the release's own version of it requires that module: raised past what
    /// such a plugin was written for, it may not compile, so there minimal version selection decides.
    pub(crate) fn go_mod(self) -> GoMod {
        let wanted: BTreeMap<&str, &str> =
            self.plugins.iter().map(|plugin| (plugin.path.as_str(), plugin.version.as_str())).collect();
        let unbound = self.unbound();
        let mut require: Vec<Require> = self
            .release
            .require
            .iter()
            .filter(|line| !wanted.contains_key(line.path.as_str()))
            .filter(|line| match line.indirect {
                true => match self.dependencies {
                    Some(Dependencies::Release) => true,
                    Some(Dependencies::Minimal) => false,
                    None => !unbound.contains(line.path.as_str()),
                },
                false => !provides(line, self.release, self.registered) || provides(line, self.release, self.imported),
            })
            .cloned()
            .collect();
        require.extend(wanted.iter().map(|(path, version)| Require {
            path: (*path).to_owned(),
            version: (*version).to_owned(),
            indirect: false,
        }));
        require.sort_by(|a, b| a.path.cmp(&b.path));

        let mut go_mod = self.release.clone();
        go_mod.toolchain = None;
        go_mod.retract.clear();
        go_mod.tool.clear();
        go_mod.require = require;
        go_mod.exclude.extend(self.excludes);
        go_mod.exclude.sort();
        go_mod.exclude.dedup();
        let replaced: BTreeSet<&str> = self.replaces.iter().map(|replace| replace.old_path.as_str()).collect();
        go_mod.replace.retain(|replace| !replaced.contains(replace.old_path.as_str()));
        go_mod.replace.extend(self.replaces);
        go_mod
    }

    /// The modules that are required by a plugin held below the release's own version of it.
    fn unbound(&self) -> BTreeSet<&str> {
        self.plugins
            .iter()
            .filter(|plugin| self.release.require.iter().any(|line| is_below(plugin, line)))
            .filter_map(|plugin| plugin.go_mod.as_ref())
            .flat_map(|go_mod| go_mod.require.iter().map(|line| line.path.as_str()))
            .collect()
    }
}

/// An older major is another module path, and below just the same.
fn is_below(plugin: &Wanted, release: &Require) -> bool {
    let base = |path: &str| split_path_version(path).map_or_else(|| path.to_owned(), |(base, _)| base.to_owned());
    base(&plugin.path) == base(&release.path) && semver::compare(&plugin.version, &release.version).is_lt()
}

/// Whether the module of a requirement provides one of the imported packages: the longest module path that is a prefix
/// of the package's path (<https://go.dev/ref/mod#resolve-pkg-mod>).
fn provides(line: &Require, release: &GoMod, imports: &BTreeSet<String>) -> bool {
    imports.iter().any(|import| module_of(import, release.require.iter().map(|r| r.path.as_str())) == Some(&line.path))
}

/// The longest of the module paths that is `package`, or a parent of it.
pub(crate) fn module_of<'a>(package: &str, modules: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    modules
        .filter(|module| {
            package.strip_prefix(module).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
        .max_by_key(|module| module.len())
}
