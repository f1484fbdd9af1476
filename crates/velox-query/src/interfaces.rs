//! The interface modules that RoadRunner and its own plugins use.

use std::collections::BTreeSet;

use velox_build::RoadRunnerRelease;
use velox_gomod::modfile::Require;
use velox_manifest::Level;

use crate::without_major;

/// The interface modules of RoadRunner, its plugins and PHP; level and effect of a differing major version.
const INTERFACES: [(&str, Level, &str); 7] = [
    (
        "github.com/roadrunner-server/api",
        Level::Error,
        "declares the interfaces between plugins: a plugin written for another major version is not recognized",
    ),
    (
        "github.com/roadrunner-server/api-plugins",
        Level::Error,
        "declares the interfaces between plugins: a plugin written for another major version is not recognized",
    ),
    (
        "github.com/roadrunner-server/api-go",
        Level::Error,
        "declares the messages between plugins: a plugin written for another major version is not recognized",
    ),
    (
        "github.com/roadrunner-server/endure",
        Level::Error,
        "starts and connects the plugins: a plugin written for another major version is not started",
    ),
    (
        "github.com/roadrunner-server/goridge",
        Level::Warning,
        "is the protocol between RoadRunner and PHP: its major versions may be incompatible",
    ),
    (
        "github.com/roadrunner-server/pool",
        Level::Warning,
        "runs the PHP workers: RoadRunner does not manage the workers of another major version",
    ),
    (
        "github.com/roadrunner-server/errors",
        Level::Warning,
        "defines error kinds: other plugins do not recognize those of another major version",
    ),
];

/// The modules that replace each other: RoadRunner 3 has the interfaces of `api` in `api-go` and `api-plugins`.
const API_MODULES: [&str; 3] = [
    "github.com/roadrunner-server/api",
    "github.com/roadrunner-server/api-go",
    "github.com/roadrunner-server/api-plugins",
];

pub(crate) const LOGGER: &str = "github.com/roadrunner-server/logger";
const ZAP: &str = "go.uber.org/zap";

/// The interface modules that a RoadRunner release and its own plugins use.
#[derive(Debug, Clone, Default)]
pub(crate) struct UsedInterfaces {
    direct: BTreeSet<String>,
    indirect: BTreeSet<String>,
    /// Whether the logger plugin is known and does not use zap.
    logs_without_zap: bool,
}

/// A requirement on an interface module that RoadRunner uses at other major versions, or not at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct InterfaceConflict {
    /// The module path that the plugin requires.
    pub(crate) path: String,
    pub(crate) version: String,
    /// The module paths that RoadRunner uses instead; empty for a logger that is not zap.
    pub(crate) used: Vec<String>,
    pub(crate) level: Level,
    pub(crate) effect: &'static str,
}

impl UsedInterfaces {
    /// Of a release and the requirements of its own plugins, each with its module path.
    pub(crate) fn new<'a>(
        release: &RoadRunnerRelease,
        plugins: impl IntoIterator<Item = (&'a str, &'a [Require])>,
    ) -> Self {
        let mut used = Self::default();
        let lines = &release.go_mod.require;
        used.direct.extend(direct(lines).map(|line| line.path.clone()));
        used.indirect.extend(lines.iter().map(|line| line.path.clone()));
        for (module, requirements) in plugins {
            used.direct.extend(direct(requirements).map(|line| line.path.clone()));
            if without_major(module) == LOGGER {
                let has_zap = direct(requirements).any(|line| line.path == ZAP);
                used.logs_without_zap = !requirements.is_empty() && !has_zap;
            }
        }
        used
    }

    /// The conflicts of a plugin with these requirements.
    pub(crate) fn conflicts(&self, requirements: &[Require]) -> Vec<InterfaceConflict> {
        let interface = |line: &Require| {
            let base = without_major(&line.path);
            let (_, level, effect) = INTERFACES.iter().find(|(path, ..)| base == *path)?;
            let used = self.instead_of(base);
            let differs = !used.is_empty() && !used.contains(&line.path);
            let (path, version) = (line.path.clone(), line.version.clone());
            differs.then_some(InterfaceConflict { path, version, used, level: *level, effect })
        };
        let logging = |line: &Require| {
            (self.logs_without_zap && line.path == ZAP).then(|| InterfaceConflict {
                path: line.path.clone(),
                version: line.version.clone(),
                used: Vec::new(),
                level: Level::Warning,
                effect: "is not what the logger plugin provides: a plugin whose Init method requests a `*zap.Logger` is \
                         not started",
            })
        };
        direct(requirements).filter_map(|line| interface(line).or_else(|| logging(line))).collect()
    }

    /// The module paths that are used of the interface module `base`, or else of the modules that replace it. What only
    /// an `// indirect` line names counts if nothing else does.
    fn instead_of(&self, base: &str) -> Vec<String> {
        let wanted = |paths: &BTreeSet<String>, is_wanted: fn(&str, &str) -> bool| -> Vec<String> {
            paths.iter().filter(|path| is_wanted(without_major(path), base)).cloned().collect()
        };
        let is_base = |path: &str, base: &str| path == base;
        let is_sibling = |path: &str, base: &str| API_MODULES.contains(&base) && API_MODULES.contains(&path);
        [wanted(&self.direct, is_base), wanted(&self.direct, is_sibling), wanted(&self.indirect, is_base)]
            .into_iter()
            .find(|paths| !paths.is_empty())
            .unwrap_or_default()
    }
}

fn direct(lines: &[Require]) -> impl Iterator<Item = &Require> {
    lines.iter().filter(|line| !line.indirect)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use velox_gomod::{modfile::GoMod, module::ModuleVersion};

    use super::*;

    fn go_mod(lines: &str) -> GoMod {
        GoMod::parse(&format!("module example.com/x\n\nrequire (\n{lines}\n)\n")).unwrap()
    }

    fn used(release: &str, plugins: &[(&str, &str)]) -> UsedInterfaces {
        let module = ModuleVersion::new("example.com/rr/v3", "v3.0.0");
        let release = RoadRunnerRelease { module, go_mod: go_mod(release), plugins: Vec::new() };
        let go_mods: Vec<(&str, GoMod)> =
            plugins.iter().map(|(path, lines)| (*path, go_mod(lines))).collect();
        UsedInterfaces::new(&release, go_mods.iter().map(|(path, it)| (*path, it.require.as_slice())))
    }

    fn conflicts(used: &UsedInterfaces, lines: &str) -> Vec<(String, Vec<String>)> {
        used.conflicts(&go_mod(lines).require).into_iter().map(|it| (it.path, it.used)).collect()
    }

    const RR: &str = "github.com/roadrunner-server";

    #[test]
    fn plugins_for_v2025_on_roadrunner_3() {
        let release = format!(
            "{RR}/api-go/v6 v6.0.0\n{RR}/endure/v2 v2.6.2\n{RR}/api/v4 v4.22.1 // indirect\n\
             {RR}/pool v1.1.3 // indirect\n{RR}/goridge/v3 v3.8.3 // indirect"
        );
        let server = format!("{RR}/pool/v2 v2.0.0\n{RR}/goridge/v4 v4.0.0\n{RR}/api-plugins/v6 v6.0.0");
        let logger = format!("{RR}/endure/v2 v2.6.2");
        let used =
            used(&release, &[(&format!("{RR}/server/v6"), &server), (&format!("{RR}/logger/v6"), &logger)]);
        let old = format!(
            "{RR}/api/v4 v4.20.0\n{RR}/pool v1.1.3\n{RR}/goridge/v3 v3.8.3\n{RR}/endure/v2 v2.6.0\n{ZAP} v1.27.0"
        );
        let found = conflicts(&used, &old);
        let path = |name: &str| format!("{RR}/{name}");
        assert_eq!(
            found,
            [
                (path("api/v4"), vec![path("api-go/v6"), path("api-plugins/v6")]),
                (path("pool"), vec![path("pool/v2")]),
                (path("goridge/v3"), vec![path("goridge/v4")]),
                (ZAP.to_owned(), Vec::new()),
            ]
        );
        let new = format!("{RR}/api-plugins/v6 v6.1.0\n{RR}/pool/v2 v2.0.0\n{ZAP} v1.27.0 // indirect");
        assert_eq!(conflicts(&used, &new), []);
    }

    #[test]
    fn plugins_for_roadrunner_3_on_v2025() {
        let release = format!("{RR}/api/v4 v4.22.1\n{RR}/endure/v2 v2.6.2\n{RR}/pool v1.1.3 // indirect");
        let logger = format!("{ZAP} v1.27.0");
        let used = used(&release, &[(&format!("{RR}/logger/v5"), &logger)]);
        let found =
            conflicts(&used, &format!("{RR}/api-plugins/v6 v6.0.0\n{RR}/pool/v2 v2.0.0\n{ZAP} v1.27.0"));
        let path = |name: &str| format!("{RR}/{name}");
        assert_eq!(
            found,
            [(path("api-plugins/v6"), vec![path("api/v4")]), (path("pool/v2"), vec![path("pool")])]
        );
    }
}
