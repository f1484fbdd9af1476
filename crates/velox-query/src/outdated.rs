//! Which newer versions of the plugins and of RoadRunner exist.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use velox_build::{
    BuildRequest, Error, MajorVersions, QuerySession, Reporter, VersionSubject, Versions, locked_versions,
};
use velox_gomod::{module::split_path_version, semver};

/// A plugin, or RoadRunner itself, and the versions that exist of it.
pub struct PluginVersions {
    /// The name in the configuration; `roadrunner` for RoadRunner.
    pub name: String,
    /// Whose versions are listed.
    pub subject: VersionSubject,
    /// The module path; empty: unknown.
    pub module: String,
    /// The ref in the configuration.
    pub asked: String,
    /// The version in the lock.
    pub locked: Option<String>,
    /// Whether the configuration replaces it.
    pub replaced: bool,
    /// All versions.
    pub versions: Versions,
}

impl PluginVersions {
    /// The newest version of the same major, with its module path.
    #[must_use]
    pub fn newest_of_same_major(&self) -> Option<(&str, &str)> {
        let version =
            self.locked.as_deref().filter(|_| !semver::is_valid(&self.asked)).unwrap_or(&self.asked);
        let suffix =
            split_path_version(&self.module).map(|(_, suffix)| suffix).filter(|suffix| !suffix.is_empty());
        let by_path = |major: &&MajorVersions| match suffix {
            Some(suffix) => split_path_version(&major.module).is_some_and(|(_, other)| other == suffix),
            None => major.module == self.module,
        };
        // v0 and v1 share a module path.
        let number =
            |version: &str| semver::major(version).map(|it| if it == "v0" { "v1" } else { it }.to_owned());
        let by_version = |major: &&MajorVersions| {
            let first = major.versions.first().and_then(|first| number(first));
            first.is_some() && first == number(version)
        };
        let majors = || self.versions.majors.iter();
        let major = majors().find(by_path).or_else(|| majors().find(by_version))?;
        Some((major.module.as_str(), major.newest()?))
    }

    /// The newest version of the newest major, with its module path.
    #[must_use]
    pub fn newest(&self) -> Option<(&str, &str)> {
        let major = self.versions.newest_major()?;
        Some((major.module.as_str(), major.newest()?))
    }

    /// Whether a newer version or another major exists.
    #[must_use]
    pub fn is_outdated(&self) -> bool {
        let current = self.locked.as_deref().unwrap_or(&self.asked);
        let (same, newest) = (self.newest_of_same_major(), self.newest());
        let is_newer = |(_, version): (&str, &str)| semver::compare(version, current).is_gt();
        same.is_some_and(is_newer)
            || newest.is_some_and(is_newer)
            || newest.is_some_and(|(module, _)| Some(module) != same.map(|(same, _)| same))
    }
}

/// The name that stands for RoadRunner itself, unless a plugin has it.
const ROADRUNNER: &str = "roadrunner";

/// Lists the versions of the plugins with these names, and of RoadRunner for `roadrunner`.
///
/// # Errors
/// The lock can't be read, the go command fails, or an interruption.
pub async fn outdated(
    request: &BuildRequest,
    names: &[String],
    reporter: Arc<dyn Reporter>,
    cancel: CancellationToken,
) -> Result<Vec<PluginVersions>, Error> {
    let manifest = &request.manifest;
    let locked = locked_versions(request)?;
    let mut plugins = Vec::new();
    for name in names {
        let plugin = manifest.plugins.iter().find(|plugin| plugin.name.value == *name);
        let (subject, in_lock, module, asked) = match plugin {
            Some(plugin) => (
                VersionSubject::Plugin(name.clone()),
                locked.plugins.get(name),
                plugin.module_path(manifest),
                plugin.reference.value.clone(),
            ),
            None if name == ROADRUNNER => {
                let reference = manifest.roadrunner.reference.as_ref();
                let asked = reference.map_or_else(|| "(default branch)".to_owned(), |it| it.value.clone());
                (VersionSubject::RoadRunner, locked.roadrunner.as_ref(), None, asked)
            }
            None => continue,
        };
        plugins.push(PluginVersions {
            name: name.clone(),
            subject,
            module: in_lock.map(|it| it.path.clone()).or(module).unwrap_or_default(),
            asked,
            locked: in_lock.map(|it| it.version.clone()),
            replaced: plugin.is_some_and(|plugin| plugin.replace.is_some()),
            versions: Versions::default(),
        });
    }
    let subjects: Vec<VersionSubject> = plugins.iter().map(|plugin| plugin.subject.clone()).collect();
    let versions = QuerySession::new(request, reporter, cancel).versions(&subjects).await?;
    for (plugin, versions) in plugins.iter_mut().zip(versions) {
        plugin.versions = versions;
    }
    Ok(plugins)
}
