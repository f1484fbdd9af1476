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

/// A change that removes vulnerabilities. Versions are those of the lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "change", rename_all = "snake_case")]
pub enum SecurityChange {
    /// Another patch release of Go.
    Go {
        /// The version (`1.26.8`).
        from: String,
        /// The new version.
        to: String,
    },
    /// Another release of RoadRunner.
    Roadrunner {
        /// The version.
        from: String,
        /// The new version.
        to: String,
    },
    /// Another version of a plugin.
    Plugin {
        /// The name in the configuration.
        name: String,
        /// The module path.
        module: String,
        /// The version.
        from: String,
        /// The new version.
        to: String,
    },
    /// The lowest version of another module, in `[[requires]]`.
    Requires {
        /// The module path.
        module: String,
        /// The version.
        from: String,
        /// The new version.
        to: String,
    },
}

impl SecurityChange {
    /// The version.
    #[must_use]
    pub fn from(&self) -> &str {
        let (Self::Go { from, .. }
        | Self::Roadrunner { from, .. }
        | Self::Plugin { from, .. }
        | Self::Requires { from, .. }) = self;
        from
    }

    /// The new version.
    #[must_use]
    pub fn to(&self) -> &str {
        let (Self::Go { to, .. }
        | Self::Roadrunner { to, .. }
        | Self::Plugin { to, .. }
        | Self::Requires { to, .. }) = self;
        to
    }

    /// The same change, to another version.
    #[must_use]
    pub fn with_target(mut self, version: &str) -> Self {
        let (Self::Go { to, .. }
        | Self::Roadrunner { to, .. }
        | Self::Plugin { to, .. }
        | Self::Requires { to, .. }) = &mut self;
        version.clone_into(to);
        self
    }
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
            let fixed = known.iter().filter_map(|known| known.fixed.as_deref());
            let newest = fixed.max_by(|one, other| semver::compare(one, other));
            let change = newest
                .map(|to| change(module, known.first().map_or("", |it| &it.version), to, manifest, lock));
            let why = match change {
                Some(Ok(change)) => {
                    plan.changes.push(change);
                    None
                }
                Some(Err(why)) => Some(why),
                None => None,
            };
            for known in known {
                let why = match (&known.fixed, &why) {
                    (None, _) => "no fix is available".to_owned(),
                    (Some(_), Some(why)) => why.clone(),
                    (Some(_), None) => continue,
                };
                let Vulnerability { id, module, version, reach, .. } = known.clone();
                plan.unfixed.push(UnfixedVulnerability { id, module, version, reach, why });
            }
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
            true => Ok(SecurityChange::Go { from, to }),
            false => Err(format!("it is fixed in Go {to}, another minor version: set version in [go]")),
        };
    }
    if module == lock.roadrunner.module {
        let requested = manifest.roadrunner.reference.as_ref().map_or("", |reference| &reference.value);
        return match semver::is_valid(requested) {
            true => Ok(SecurityChange::Roadrunner { from, to }),
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
    let Some(plugin) = plugin else {
        return Ok(SecurityChange::Requires { module: module.to_owned(), from, to });
    };
    match semver::is_valid(&plugin.asked) {
        true => Ok(SecurityChange::Plugin { name: plugin.name.clone(), module: module.to_owned(), from, to }),
        false => Err(format!(
            "it is fixed in {to}, but the ref of plugin {} is no exact version: change it",
            plugin.name
        )),
    }
}
