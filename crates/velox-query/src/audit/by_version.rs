//! The known vulnerabilities of versions, without looking at code.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use jiff::Timestamp;
use serde::Serialize;
use velox_build::{Error, Lock, http_client};
use velox_gomod::module::ModuleVersion;

use super::{
    STANDARD_LIBRARY, database::VulnerabilityDatabase, govulncheck::OsvEntry, module_display_name, number,
};

/// How many entries of a database are read at once.
const MAX_CONCURRENT_ENTRIES: usize = 16;

/// The vulnerabilities that only one of two builds has.
#[derive(Debug, Clone, Serialize)]
pub struct VulnerabilityDiff {
    /// The URL of the database.
    pub database: String,
    /// When it was modified.
    pub database_modified: Timestamp,
    /// Those of the first build alone.
    pub closed: Vec<VersionVulnerability>,
    /// Those of the second build alone.
    pub opened: Vec<VersionVulnerability>,
}

/// A known vulnerability of a version of a module. Whether its code is called is not known.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct VersionVulnerability {
    /// The id in the database (`GO-2024-2687`).
    pub id: String,
    /// Aliases (`CVE-…`, `GHSA-…`).
    pub aliases: Vec<String>,
    /// One line.
    pub summary: String,
    /// The module path; `stdlib` for the standard library.
    pub module: String,
    /// The vulnerable version.
    pub version: String,
    /// The lowest higher version with a fix.
    pub fixed: Option<String>,
}

/// The known vulnerabilities of the versions in a lock.
#[derive(Debug, Clone, Serialize)]
pub struct VersionAudit {
    /// The URL of the database.
    pub database: String,
    /// When it was modified.
    pub database_modified: Timestamp,
    /// The number of modules that were looked up, RoadRunner and the standard library included.
    pub modules: usize,
    /// The vulnerabilities.
    pub vulnerabilities: Vec<VersionVulnerability>,
}

impl VersionAudit {
    /// Looks up the compiled modules of a lock in a database, the URL of which is `database`.
    ///
    /// # Errors
    /// The database can't be read, or is invalid.
    pub async fn load(
        database: &str,
        environment: &BTreeMap<String, String>,
        lock: &Lock,
    ) -> Result<Self, Error> {
        let go = format!("v{}", number(&lock.go_version));
        let go = ModuleVersion::new(STANDARD_LIBRARY, go);
        let mut modules = BTreeSet::from([lock.roadrunner(), go]);
        for target in lock.targets.values() {
            let selected = lock.selected(target);
            modules.extend(selected.iter().filter_map(|(path, selected)| selected.source(path)));
        }
        let VulnerabilityDiff { database, database_modified, opened, .. } =
            VulnerabilityDiff::load(database, environment, &BTreeSet::new(), &modules).await?;
        Ok(Self { database, database_modified, modules: modules.len(), vulnerabilities: opened })
    }
}

impl VersionVulnerability {
    /// The module as Go users name it: `Go 1.26.8` or `example.com/acme/lib v1.2.0`.
    #[must_use]
    pub fn subject(&self) -> String {
        module_display_name(&self.module, &self.version)
    }
}

impl VulnerabilityDiff {
    /// Looks up the modules of two builds whose versions differ. The standard library is a module, too.
    ///
    /// # Errors
    /// The database can't be read, or is invalid.
    pub(crate) async fn load(
        database: &str,
        environment: &BTreeMap<String, String>,
        before: &BTreeSet<ModuleVersion>,
        after: &BTreeSet<ModuleVersion>,
    ) -> Result<Self, Error> {
        let database = VulnerabilityDatabase::open(database, http_client(environment)?, false)?;
        let (database_modified, _) = database.modified().await?;
        let changed: BTreeSet<&ModuleVersion> = before.symmetric_difference(after).collect();
        let paths: Vec<&str> = changed.iter().map(|module| module.path.as_str()).collect();
        let index = database.index(&paths).await?;
        let ids: BTreeSet<&String> = paths.iter().filter_map(|path| index.get(*path)).flatten().collect();
        let entries: Vec<OsvEntry> = stream::iter(ids)
            .map(|id| database.entry(id))
            .buffer_unordered(MAX_CONCURRENT_ENTRIES)
            .try_collect()
            .await?;
        let of = |modules: &BTreeSet<ModuleVersion>| -> BTreeSet<VersionVulnerability> {
            let modules = modules.iter().filter(|module| changed.contains(module));
            let of_module = |module| {
                let known = entries.iter().filter(|entry| entry.withdrawn.is_none());
                known.filter_map(move |entry| vulnerability(entry, module))
            };
            modules.flat_map(of_module).collect()
        };
        let (old, new) = (of(before), of(after));
        let only = |one: &BTreeSet<VersionVulnerability>, other: &BTreeSet<VersionVulnerability>| {
            let is_in_other = |known: &VersionVulnerability| {
                other.iter().any(|it| (&it.id, &it.module) == (&known.id, &known.module))
            };
            one.iter().filter(|known| !is_in_other(known)).cloned().collect()
        };
        let (closed, opened) = (only(&old, &new), only(&new, &old));
        Ok(Self { database: database.argument(), database_modified, closed, opened })
    }
}

fn vulnerability(entry: &OsvEntry, module: &ModuleVersion) -> Option<VersionVulnerability> {
    let ModuleVersion { path, version } = module;
    entry.is_affected(path, version).then(|| VersionVulnerability {
        id: entry.id.clone(),
        aliases: entry.aliases.clone(),
        summary: entry.title(),
        module: path.clone(),
        version: version.clone(),
        fixed: entry.fixed(path, version),
    })
}
