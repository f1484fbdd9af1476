//! Available versions of the plugins and of RoadRunner.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use velox_build::{
    BuildRequest, Error, MajorVersions, QuerySession, Reporter, VersionSubject, Versions, locked_versions,
};
use velox_gomod::{module::split_path_version, semver};

/// The name of RoadRunner itself among the plugins.
pub const ROADRUNNER: &str = "roadrunner";

/// The available versions of a plugin or of RoadRunner.
#[derive(Debug, Clone)]
pub struct AvailableVersions {
    /// The name in the configuration, or [`ROADRUNNER`].
    pub name: String,
    /// Whether this is RoadRunner.
    pub is_roadrunner: bool,
    /// The module path, or empty if it is unknown.
    pub module: String,
    /// The ref in the configuration.
    pub requested: String,
    /// The version in an up-to-date lock.
    pub locked: Option<String>,
    /// Whether the plugin is replaced.
    pub is_replaced: bool,
    /// All versions, by major version.
    pub versions: Versions,
}

/// Lists the versions of the named plugins, and of RoadRunner as [`ROADRUNNER`]. Unknown names are ignored.
///
/// # Errors
/// An unreadable lock, a missing go command, or an interruption. A failed listing is not an error.
pub async fn available_versions(
    request: &BuildRequest,
    names: &[String],
    reporter: Arc<dyn Reporter>,
    cancel: CancellationToken,
) -> Result<Vec<AvailableVersions>, Error> {
    let manifest = &request.manifest;
    let locked = locked_versions(request)?;
    let row = |name: &String| {
        let Some(plugin) = manifest.plugins.iter().find(|plugin| plugin.name.value == *name) else {
            let reference = manifest.roadrunner.reference.as_ref();
            return (name == ROADRUNNER).then(|| AvailableVersions {
                name: name.clone(),
                is_roadrunner: true,
                module: locked.roadrunner.as_ref().map(|locked| locked.path.clone()).unwrap_or_default(),
                requested: reference.map_or("(default branch)", |reference| &reference.value).to_owned(),
                locked: locked.roadrunner.as_ref().map(|locked| locked.version.clone()),
                is_replaced: false,
                versions: Versions::default(),
            });
        };
        let locked = locked.plugins.get(name);
        let module = locked.map(|locked| locked.path.clone());
        Some(AvailableVersions {
            name: name.clone(),
            is_roadrunner: false,
            module: module.or_else(|| plugin.module_path(manifest)).unwrap_or_default(),
            requested: plugin.reference.value.clone(),
            locked: locked.map(|locked| locked.version.clone()),
            is_replaced: plugin.replace.is_some(),
            versions: Versions::default(),
        })
    };
    let mut rows: Vec<AvailableVersions> = names.iter().filter_map(row).collect();
    let subjects: Vec<VersionSubject> = rows
        .iter()
        .map(|row| match row.is_roadrunner {
            true => VersionSubject::RoadRunner,
            false => VersionSubject::Plugin(row.name.clone()),
        })
        .collect();
    let versions = QuerySession::new(request, reporter, cancel)?.versions(&subjects).await?;
    for (row, versions) in rows.iter_mut().zip(versions) {
        row.versions = versions;
    }
    Ok(rows)
}

impl AvailableVersions {
    /// The module path and version of the newest release with the same major version.
    #[must_use]
    pub fn latest_compatible(&self) -> Option<(&str, &str)> {
        let is_tag = semver::is_valid(&self.requested);
        let version = self.locked.as_ref().filter(|_| !is_tag).unwrap_or(&self.requested);
        fn suffix(module: &str) -> &str {
            split_path_version(module).map(|(_, suffix)| suffix).unwrap_or_default()
        }
        let is_same = |major: &&MajorVersions| match suffix(&self.module) {
            "" => major.module == self.module,
            own => suffix(&major.module) == own,
        };
        let number = |version: &str| semver::major(version).map(|major| major.replace("v0", "v1"));
        let has_number = |major: &&MajorVersions| {
            let first = major.versions.first().and_then(|version| number(version));
            first.is_some() && first == number(version)
        };
        let majors = &self.versions.majors;
        let major = majors.iter().find(is_same).or_else(|| majors.iter().find(has_number))?;
        Some((major.module.as_str(), major.newest()?))
    }

    /// The module path and version of the newest release.
    #[must_use]
    pub fn latest(&self) -> Option<(&str, &str)> {
        let major = self.versions.newest_major()?;
        Some((major.module.as_str(), major.newest()?))
    }

    /// Whether there is a newer version, or another major version.
    #[must_use]
    pub fn is_outdated(&self) -> bool {
        let current = self.locked.as_ref().unwrap_or(&self.requested);
        let (compatible, latest) = (self.latest_compatible(), self.latest());
        let is_newer = |version: Option<(&str, &str)>| {
            version.is_some_and(|(_, version)| semver::compare(version, current).is_gt())
        };
        let is_other = latest.is_some_and(|(module, _)| compatible.is_none_or(|(same, _)| same != module));
        is_newer(compatible) || is_newer(latest) || is_other
    }
}
