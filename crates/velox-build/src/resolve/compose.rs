//! Composes the go.mod of a binary from RoadRunner's go.mod and the user's plugins.

use std::collections::{BTreeMap, BTreeSet};

use velox_gomod::{
    modfile::{GoMod, Replace, Require},
    module::{ModuleVersion, without_major},
    semver,
};
use velox_manifest::Dependencies;

use super::plugin::ResolvedPlugin;
use crate::imports::provides;

/// The inputs of a composed go.mod.
pub(super) struct GoModComposition<'a> {
    /// RoadRunner's own go.mod.
    pub(super) release: &'a GoMod,
    /// The imports of the release's `container/plugins.go`: its plugins.
    pub(super) registered: &'a BTreeSet<String>,
    /// The imports of all other packages of the release.
    pub(super) imported: &'a BTreeSet<String>,
    pub(super) plugins: &'a [ResolvedPlugin],
    pub(super) replaces: Vec<Replace>,
    pub(super) excludes: Vec<ModuleVersion>,
    /// The lowest versions that the configuration requires.
    pub(super) floors: Vec<ModuleVersion>,
    /// `None`: see [`Self::go_mod`].
    pub(super) dependencies: Option<Dependencies>,
    /// The plugins whose dependencies are lowered, by module path.
    pub(super) lowered: &'a BTreeSet<String>,
    /// The paths of the compiled modules; `None`: not known yet.
    pub(super) compiled: Option<&'a BTreeSet<String>>,
}

impl GoModComposition<'_> {
    /// Keeps the module, go and godebug lines, the direct requirements that are not plugins, the replaces
    /// (the user's take precedence) and the excludes. Drops the `toolchain` line. Adds the floors as `// indirect` lines.
    ///
    /// The `// indirect` lines are the versions that the release was tested with, including security fixes.
    /// They are kept as long as the result compiles. A plugin older than the release's version of it may not
    /// compile with them: the lines that such a plugin (`lowered`) requires are removed, so that minimal version
    /// selection decides. The lines of modules that are not compiled go with them: what those require must not
    /// raise a version.
    pub(super) fn go_mod(self) -> GoMod {
        let requested: BTreeMap<&str, &str> =
            self.plugins.iter().map(|plugin| (plugin.module.as_str(), plugin.version.as_str())).collect();
        let lowered = self.plugins.iter().filter(|plugin| self.lowered.contains(&plugin.module));
        let unbound: BTreeSet<&str> =
            lowered.flat_map(ResolvedPlugin::requires).map(|line| line.path.as_str()).collect();
        let mut require: Vec<Require> = self
            .release
            .require
            .iter()
            .filter(|line| !requested.contains_key(line.path.as_str()))
            .filter(|line| match line.indirect {
                true => match self.dependencies {
                    Some(Dependencies::Release) => true,
                    Some(Dependencies::Minimal) => false,
                    None if unbound.is_empty() => true,
                    None => {
                        !unbound.contains(line.path.as_str())
                            && self.compiled.is_none_or(|compiled| compiled.contains(&line.path))
                    }
                },
                false => {
                    !provides(line, self.release, self.registered)
                        || provides(line, self.release, self.imported)
                }
            })
            .cloned()
            .collect();
        require.extend(requested.iter().map(|(path, version)| Require {
            path: (*path).to_owned(),
            version: (*version).to_owned(),
            indirect: false,
        }));
        for floor in self.floors {
            match require.iter_mut().find(|line| line.path == floor.path) {
                Some(line) if semver::compare(&line.version, &floor.version).is_lt() => {
                    line.version = floor.version;
                }
                Some(_) => {}
                None => {
                    require.push(Require { path: floor.path, version: floor.version, indirect: true });
                }
            }
        }
        require.sort_by(|a, b| a.path.cmp(&b.path));

        let mut go_mod = self.release.clone();
        go_mod.toolchain = None;
        go_mod.retract.clear();
        go_mod.tool.clear();
        go_mod.require = require;
        go_mod.exclude.extend(self.excludes);
        go_mod.exclude.sort();
        go_mod.exclude.dedup();
        let replaced: BTreeSet<&str> =
            self.replaces.iter().map(|replace| replace.old_path.as_str()).collect();
        go_mod.replace.retain(|replace| !replaced.contains(replace.old_path.as_str()));
        go_mod.replace.extend(self.replaces);
        go_mod
    }

    /// The plugins older than the release's version of them that require an older version of a module in an
    /// `// indirect` line, by module path.
    pub(super) fn held_back(&self) -> BTreeSet<&str> {
        if self.dependencies.is_some() {
            return BTreeSet::new();
        }
        let tested: BTreeMap<&str, &str> = self
            .release
            .require
            .iter()
            .filter(|line| line.indirect)
            .map(|line| (line.path.as_str(), line.version.as_str()))
            .collect();
        let is_older = |line: &Require| {
            let tested = tested.get(line.path.as_str());
            tested.is_some_and(|tested| semver::compare(&line.version, tested).is_lt())
        };
        self.plugins
            .iter()
            .filter(|plugin| self.release.require.iter().any(|line| is_below(plugin, line)))
            .filter(|plugin| plugin.requires().any(is_older))
            .map(|plugin| plugin.module.as_str())
            .collect()
    }
}

/// Whether a plugin is older than the release's version of it; majors have different module paths.
fn is_below(plugin: &ResolvedPlugin, release: &Require) -> bool {
    without_major(&plugin.module) == without_major(&release.path)
        && semver::compare(&plugin.version, &release.version).is_lt()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RELEASE: &str = "\
module github.com/roadrunner-server/roadrunner/v2025

go 1.26.4

toolchain go1.26.8

require (
\tgithub.com/roadrunner-server/api/v4 v4.24.0
\tgithub.com/roadrunner-server/http/v5 v5.3.0
\tgithub.com/roadrunner-server/kv/v5 v5.2.9
\tgithub.com/roadrunner-server/rpc/v5 v5.1.9
)

exclude github.com/spf13/viper v1.18.0

require (
\tgithub.com/aws/smithy-go v1.27.2 // indirect
\tgo.uber.org/zap v1.28.0 // indirect
)

replace github.com/x/y => github.com/z/y v1.0.0
";

    fn composed(
        plugins: &[(&str, &str, &str)],
        dependencies: Option<Dependencies>,
        lowered: &[&str],
        floors: &[(&str, &str)],
    ) -> (GoMod, Vec<String>) {
        let replace = Replace {
            old_path: "github.com/x/y".to_owned(),
            old_version: None,
            new_path: "./replace/y".to_owned(),
            new_version: None,
        };
        let imports = |paths: &[&str]| paths.iter().map(|path| (*path).to_owned()).collect::<BTreeSet<_>>();
        let plugins: Vec<ResolvedPlugin> = plugins
            .iter()
            .map(|(path, version, requires)| ResolvedPlugin {
                module: (*path).to_owned(),
                version: (*version).to_owned(),
                go_mod: Some(GoMod::parse_lax(&format!("module {path}\n{requires}")).unwrap()),
                ..ResolvedPlugin::default()
            })
            .collect();
        let composition = GoModComposition {
            release: &GoMod::parse(RELEASE).unwrap(),
            registered: &imports(
                &["http/v5", "kv/v5", "rpc/v5"]
                    .map(|name| format!("github.com/roadrunner-server/{name}"))
                    .each_ref()
                    .map(String::as_str),
            ),
            imported: &imports(&[
                "github.com/roadrunner-server/api/v4/build/jobs",
                "github.com/roadrunner-server/rpc/v5",
                "fmt",
            ]),
            plugins: &plugins,
            replaces: vec![replace],
            excludes: vec![ModuleVersion::new("github.com/a/b", "v1.0.0")],
            floors: floors.iter().map(|(path, version)| ModuleVersion::new(*path, *version)).collect(),
            dependencies,
            lowered: &imports(lowered),
            compiled: None,
        };
        let held_back = composition.held_back().into_iter().map(str::to_owned).collect();
        (composition.go_mod(), held_back)
    }

    fn required(go_mod: &GoMod) -> Vec<String> {
        go_mod
            .require
            .iter()
            .map(|line| {
                format!(
                    "{} {}",
                    line.path.rsplit_once("com/").map_or(line.path.as_str(), |(_, p)| p),
                    line.version
                )
            })
            .collect()
    }

    const HTTP: &str = "github.com/roadrunner-server/http/v5";

    #[test]
    fn the_users_plugins_take_the_place_of_the_releases() {
        let plugins = [(HTTP, "v5.3.0", "require go.uber.org/zap v1.27.1")];
        let (go_mod, held_back) = composed(&plugins, None, &[], &[]);
        assert!(held_back.is_empty());
        // kv is dropped; rpc is kept, since other packages of RoadRunner import it.
        assert_eq!(
            required(&go_mod),
            [
                "aws/smithy-go v1.27.2",
                "roadrunner-server/api/v4 v4.24.0",
                "roadrunner-server/http/v5 v5.3.0",
                "roadrunner-server/rpc/v5 v5.1.9",
                "go.uber.org/zap v1.28.0",
            ]
        );
        assert_eq!((go_mod.toolchain, go_mod.go.as_deref()), (None, Some("1.26.4")));
        assert_eq!(go_mod.exclude.len(), 2);
        let replaced: Vec<&str> = go_mod.replace.iter().map(|replace| replace.new_path.as_str()).collect();
        assert_eq!(replaced, ["./replace/y"], "the user's own wins");
    }

    #[test]
    fn what_a_lowered_plugin_requires_is_left_to_version_selection() {
        for (module, version) in [(HTTP, "v5.0.2"), ("github.com/roadrunner-server/http/v4", "v4.9.0")] {
            let plugins = [(module, version, "require go.uber.org/zap v1.27.1")];
            let (kept, held_back) = composed(&plugins, None, &[], &[]);
            assert!(required(&kept).contains(&"go.uber.org/zap v1.28.0".to_owned()));
            assert_eq!(held_back, [module]);
            let (lowered, _) = composed(&plugins, None, &[module], &[]);
            assert!(!required(&lowered).iter().any(|line| line.starts_with("go.uber.org/zap")));
            assert!(required(&lowered).contains(&"aws/smithy-go v1.27.2".to_owned()));
        }
        let same = [(HTTP, "v5.0.2", "require go.uber.org/zap v1.28.0")];
        assert!(composed(&same, None, &[], &[]).1.is_empty(), "nothing to lower");
    }

    #[test]
    fn the_choice_can_be_forced() {
        let plugins = [(HTTP, "v5.0.2", "require go.uber.org/zap v1.27.1")];
        let release = composed(&plugins, Some(Dependencies::Release), &[], &[]).0;
        assert!(required(&release).contains(&"go.uber.org/zap v1.28.0".to_owned()));
        let minimal = composed(&plugins, Some(Dependencies::Minimal), &[], &[]).0;
        assert_eq!(minimal.require.iter().filter(|line| line.indirect).count(), 0);
    }

    #[test]
    fn a_floor_only_raises() {
        let plugins = [(HTTP, "v5.0.2", "require go.uber.org/zap v1.27.1")];
        let floors = [
            ("go.uber.org/zap", "v1.27.5"),
            ("github.com/aws/smithy-go", "v1.20.0"),
            ("github.com/roadrunner-server/api/v4", "v4.25.0"),
            ("example.com/floor", "v1.2.0"),
        ];
        let line = |go_mod: &GoMod, path: &str| {
            let line = go_mod.require.iter().find(|line| line.path == path).unwrap();
            (line.version.clone(), line.indirect)
        };
        let kept = composed(&plugins, None, &[], &floors).0;
        assert_eq!(line(&kept, "go.uber.org/zap"), ("v1.28.0".to_owned(), true));
        assert_eq!(line(&kept, "github.com/aws/smithy-go"), ("v1.27.2".to_owned(), true));
        assert_eq!(line(&kept, "github.com/roadrunner-server/api/v4"), ("v4.25.0".to_owned(), false));
        assert_eq!(line(&kept, "example.com/floor"), ("v1.2.0".to_owned(), true));
        let lowered = composed(&plugins, None, &[HTTP], &floors).0;
        assert_eq!(line(&lowered, "go.uber.org/zap"), ("v1.27.5".to_owned(), true));
    }
}
