//! The smallest changes that remove vulnerabilities: a patch release of Go, fixed versions of RoadRunner and plugins within
//! their major versions, and `[[requires]]` for all other modules.

use std::collections::BTreeMap;

use serde::Serialize;
use velox_build::{Lock, LockedPlugin};
use velox_gomod::{goversion::GoVersion, semver};
use velox_manifest::Manifest;

use super::{AuditReport, Reach, STANDARD_LIBRARY, Vulnerability, number};

/// What removes vulnerabilities, and what can't be removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SecurityPlan {
    /// The changes of the configuration and the lock.
    pub changes: Vec<SecurityChange>,
    /// The vulnerabilities that stay.
    pub unfixed: Vec<UnfixedVulnerability>,
}

/// A change that removes vulnerabilities.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SecurityChange {
    /// What changes.
    #[serde(flatten)]
    pub subject: SecuritySubject,
    /// The version in the lock.
    pub from: String,
    /// The new version.
    pub to: String,
}

/// What a [`SecurityChange`] changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "change", rename_all = "snake_case")]
pub enum SecuritySubject {
    /// The patch release of Go.
    Go,
    /// The release of RoadRunner.
    Roadrunner,
    /// The version of a plugin.
    Plugin {
        /// The name in the configuration.
        name: String,
        /// The module path.
        module: String,
    },
    /// The lowest version of another module, in `[[requires]]`.
    Requires {
        /// The module path.
        module: String,
    },
}

/// A vulnerability that stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UnfixedVulnerability {
    /// The id in the database.
    pub id: String,
    /// The module path.
    pub module: String,
    /// The version in the binary.
    pub version: String,
    /// How much of it the binary uses.
    pub reach: Reach,
    /// The reason.
    pub why: String,
}

impl UnfixedVulnerability {
    /// A vulnerability, and why it stays.
    #[must_use]
    pub fn new(known: Vulnerability, why: String) -> Self {
        let Vulnerability { id, module, version, reach, .. } = known;
        Self { id, module, version, reach, why }
    }
}

impl AuditReport {
    /// What removes the vulnerabilities of the binary of this configuration.
    #[must_use]
    pub fn security_plan(&self, manifest: &Manifest) -> SecurityPlan {
        let lock = &self.lock;
        let mut by_module: BTreeMap<&str, Vec<&Vulnerability>> = BTreeMap::new();
        for known in &self.vulnerabilities {
            by_module.entry(&known.module).or_default().push(known);
        }
        let mut plan = SecurityPlan::default();
        for (module, known) in by_module {
            let mut newest: Option<(&str, SecurityChange)> = None;
            for known in known {
                let why = match known.fixed.as_deref() {
                    None => "no fix is available".to_owned(),
                    Some(to) => match change(module, &known.version, to, manifest, lock) {
                        Err(why) => why,
                        Ok(change) => {
                            if newest.as_ref().is_none_or(|(old, _)| semver::compare(old, to).is_lt()) {
                                newest = Some((to, change));
                            }
                            continue;
                        }
                    },
                };
                plan.unfixed.push(UnfixedVulnerability::new(known.clone(), why));
            }
            plan.changes.extend(newest.map(|(_, change)| change));
        }
        plan
    }
}

/// What raises a module to a version, or why nothing does.
fn change(
    module: &str,
    from: &str,
    to: &str,
    manifest: &Manifest,
    lock: &Lock,
) -> Result<SecurityChange, String> {
    let (from, to) = (from.to_owned(), to.to_owned());
    if module == STANDARD_LIBRARY {
        let (from, to) = (number(&lock.go_version).to_owned(), number(&to).to_owned());
        let is_patch = |(from, to): (GoVersion, GoVersion)| from.is_same_minor(&to);
        let versions = from.parse().ok().zip(to.parse().ok());
        return match versions.is_some_and(is_patch) {
            true => Ok(SecurityChange { subject: SecuritySubject::Go, from, to }),
            false => Err(format!("it is fixed in Go {to}, another minor version: set version in [go]")),
        };
    }
    if module == lock.roadrunner.module {
        let requested = manifest.roadrunner.reference.as_ref().map_or("", |reference| &reference.value);
        return match semver::is_valid(requested) {
            true => Ok(SecurityChange { subject: SecuritySubject::Roadrunner, from, to }),
            false => {
                Err(format!("it is fixed in {to}, but the ref of RoadRunner is no exact version: change it"))
            }
        };
    }
    let is_source = |plugin: &&LockedPlugin| plugin.source().is_some_and(|source| source.path == module);
    if lock.plugins.iter().any(|plugin| plugin.replacement.is_some() && is_source(&plugin))
        || manifest.replaces.iter().any(|replace| replace.new.value.to_string().starts_with(module))
    {
        return Err(format!("it is fixed in {to}, but it replaces another module: change the replacement"));
    }
    let plugin = lock.plugins.iter().find(|plugin| plugin.module == module && plugin.from.is_some());
    let module = module.to_owned();
    let subject = match plugin {
        None => SecuritySubject::Requires { module },
        Some(plugin) if semver::is_valid(&plugin.asked) => {
            SecuritySubject::Plugin { name: plugin.name.clone(), module }
        }
        Some(plugin) => {
            return Err(format!(
                "it is fixed in {to}, but the ref of plugin {} is no exact version: change it",
                plugin.name
            ));
        }
    };
    Ok(SecurityChange { subject, from, to })
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use velox_build::{LockedReplacement, LockedRoadRunner};
    use velox_gomod::module::ModuleVersion;
    use velox_manifest::SourceFile;

    use super::*;

    const CONFIGURATION: &str = r#"
        [roadrunner]
        ref = "v2025.1.15"
        [plugins.http]
        module_name = "example.com/http/v5"
        tag = "v5.1.0"
        [plugins.branch]
        module_name = "example.com/branch"
        tag = "main"
        [plugins.fork]
        module_name = "example.com/fork"
        tag = "v1.0.0"
        replace = "example.com/other v1.0.0"
    "#;

    fn manifest(text: &str) -> Manifest {
        let source = SourceFile { name: "velox.toml".to_owned(), text: text.to_owned() };
        Manifest::parse(&source, &|_| None).expect("a configuration").0
    }

    fn lock() -> Lock {
        let plugin = |name: &str, module: &str, asked: &str, from: bool| LockedPlugin {
            name: name.to_owned(),
            from: from.then(|| module.to_owned()),
            module: module.to_owned(),
            asked: asked.to_owned(),
            version: "v5.1.0".to_owned(),
            ..LockedPlugin::default()
        };
        let other = LockedReplacement::Module { path: "example.com/other".into(), version: "v1.0.0".into() };
        Lock {
            go_version: "go1.26.8".to_owned(),
            roadrunner: LockedRoadRunner {
                module: "github.com/roadrunner-server/roadrunner/v2025".to_owned(),
                version: "v2025.1.15".to_owned(),
                ..LockedRoadRunner::default()
            },
            plugins: vec![
                plugin("http", "example.com/http/v5", "v5.1.0", true),
                plugin("branch", "example.com/branch", "main", true),
                LockedPlugin {
                    replacement: Some(other),
                    ..plugin("fork", "example.com/fork", "v1.0.0", true)
                },
                plugin("informer", "example.com/informer", "v5.1.0", false),
            ],
            ..Lock::default()
        }
    }

    /// The plan for vulnerabilities, each with its module and the fixed version.
    fn plan(known: &[(&str, Option<&str>)]) -> SecurityPlan {
        let vulnerability = |(at, (module, fixed)): (usize, &(&str, Option<&str>))| Vulnerability {
            id: format!("GO-{at}"),
            module: (*module).to_owned(),
            version: "v1.0.0".to_owned(),
            fixed: fixed.map(str::to_owned),
            ..Vulnerability::default()
        };
        let lock = lock();
        AuditReport {
            roadrunner: ModuleVersion::new(&lock.roadrunner.module, "v2025.1.15"),
            go_version: lock.go_version.clone(),
            lock,
            database: String::new(),
            database_modified: Timestamp::UNIX_EPOCH,
            is_database_old: false,
            scanner: String::new(),
            targets: Vec::new(),
            modules: 0,
            not_checked: Vec::new(),
            vulnerabilities: known.iter().enumerate().map(vulnerability).collect(),
        }
        .security_plan(&manifest(CONFIGURATION))
    }

    #[test]
    fn each_kind_of_module_has_its_own_change() {
        let plan = plan(&[
            ("stdlib", Some("v1.26.9")),
            ("stdlib", Some("v1.26.11")),
            ("stdlib", Some("v1.27.1")),
            ("github.com/roadrunner-server/roadrunner/v2025", Some("v2025.1.16")),
            ("example.com/http/v5", Some("v5.1.3")),
            ("example.com/lib", Some("v1.0.2")),
            ("example.com/lib", Some("v1.0.10")),
            ("example.com/lib", None),
            ("example.com/informer", Some("v5.1.3")),
        ]);
        let shown: Vec<String> = plan.changes.iter().map(|it| format!("{} {}", it.from, it.to)).collect();
        assert_eq!(
            shown,
            ["v1.0.0 v5.1.3", "v1.0.0 v5.1.3", "v1.0.0 v1.0.10", "v1.0.0 v2025.1.16", "1.26.8 1.26.11"],
            "the newest fix of a module removes all of its vulnerabilities"
        );
        assert!(matches!(&plan.changes[0].subject, SecuritySubject::Plugin { name, .. } if name == "http"));
        // The user didn't request informer, so that there is no ref to change.
        assert!(
            matches!(&plan.changes[1].subject, SecuritySubject::Requires { module } if module.ends_with("informer"))
        );
        assert_eq!(plan.changes[3].subject, SecuritySubject::Roadrunner);
        assert_eq!(plan.changes[4].subject, SecuritySubject::Go);
        let unfixed: Vec<_> = plan.unfixed.iter().map(|it| (it.id.as_str(), it.why.as_str())).collect();
        let another_minor = "it is fixed in Go 1.27.1, another minor version: set version in [go]";
        assert_eq!(unfixed, [("GO-7", "no fix is available"), ("GO-2", another_minor)]);
    }

    #[test]
    fn what_the_user_has_to_decide_is_not_changed() {
        let plan = plan(&[
            ("stdlib", Some("v1.27.1")),
            ("example.com/branch", Some("v1.0.1")),
            ("example.com/other", Some("v1.0.1")),
        ]);
        assert_eq!(plan.changes, []);
        let why: Vec<&str> = plan.unfixed.iter().map(|it| it.why.as_str()).collect();
        assert_eq!(
            why,
            [
                "it is fixed in v1.0.1, but the ref of plugin branch is no exact version: change it",
                "it is fixed in v1.0.1, but it replaces another module: change the replacement",
                "it is fixed in Go 1.27.1, another minor version: set version in [go]",
            ]
        );
    }
}
