//! Available versions of the plugins and of RoadRunner.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use velox_build::{
    BuildRequest, Error, ErrorKind, MajorVersions, QuerySession, Reporter, RoadRunnerRelease, VersionSubject,
    Versions, locked_versions,
};
use velox_gomod::{
    module::{major_suffix, with_major},
    pseudo::is_pseudo_version,
    semver,
};
use velox_manifest::{Origin, VersionConstraint, catalogue};

use crate::{
    generation::{major, plugin_major_of, release_at},
    without_major,
};

/// The name of RoadRunner itself among the plugins.
pub const ROADRUNNER: &str = "roadrunner";

/// The available versions of a plugin or of RoadRunner.
#[derive(Debug, Clone, Default)]
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
    /// Whether the configuration has the module path, with its major version.
    pub has_module: bool,
    /// Whether the plugin is replaced.
    pub is_replaced: bool,
    /// The major version of the plugins of this RoadRunner, for RoadRunner's own plugins.
    pub plugin_major: Option<u64>,
    /// The versions by major version; of RoadRunner and its own plugins, those that work together.
    pub versions: Versions,
    /// Whether pre-releases are offered too. Otherwise they are left out, unless the ref names one.
    pub prereleases: bool,
    /// For RoadRunner: a newer release whose plugins have another major version.
    pub newer_generation: Option<NewerGeneration>,
}

/// A RoadRunner release whose plugins have a newer major version than those of the configuration's RoadRunner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewerGeneration {
    /// RoadRunner's version.
    pub roadrunner: String,
    /// The major version of its plugins.
    pub plugin_major: u64,
}

/// Lists the versions of the named plugins, and of RoadRunner as [`ROADRUNNER`]. Unknown names are ignored.
///
/// # Errors
/// An unreadable lock, a missing go command, or an interruption. A failed listing is not an error.
pub async fn available_versions(
    request: &BuildRequest,
    names: &[String],
    prereleases: bool,
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
                prereleases,
                ..AvailableVersions::default()
            });
        };
        let locked = locked.plugins.get(name);
        let module = locked.map(|locked| locked.path.clone());
        Some(AvailableVersions {
            name: name.clone(),
            module: module.or_else(|| plugin.module_path(manifest)).unwrap_or_default(),
            requested: plugin.reference.value.clone(),
            locked: locked.map(|locked| locked.version.clone()),
            has_module: matches!(plugin.origin, Origin::Module(_)),
            is_replaced: plugin.replace.is_some(),
            prereleases,
            ..AvailableVersions::default()
        })
    };
    let mut rows: Vec<AvailableVersions> = names.iter().filter_map(row).collect();
    let session = QuerySession::new(request, Arc::clone(&reporter), cancel.clone())?;
    let needs_release = |row: &AvailableVersions| row.is_roadrunner || catalogue::is_official(&row.module);
    // Without the release, the versions of the same major version are the compatible ones.
    let release = match rows.iter().any(needs_release) {
        true => match session.release().await {
            Err(error) if error.kind == ErrorKind::Interrupted => return Err(error),
            release => release.ok(),
        },
        false => None,
    };
    let own_major = release.as_ref().and_then(plugin_major_of);
    for row in rows.iter_mut().filter(|row| !row.is_roadrunner && catalogue::is_official(&row.module)) {
        row.plugin_major = own_major.filter(|_| !row.is_replaced);
    }
    let subjects: Vec<VersionSubject> = rows
        .iter()
        .map(|row| match row.plugin_major {
            Some(major) => VersionSubject::Module(with_major(without_major(&row.module), major)),
            None if row.is_roadrunner => VersionSubject::RoadRunner,
            None => VersionSubject::Plugin(row.name.clone()),
        })
        .collect();
    let versions = session.versions(&subjects).await?;
    for (row, versions) in rows.iter_mut().zip(versions) {
        row.versions = versions;
        row.leave_out_prereleases();
        if let (Some(major), Some(release)) = (row.plugin_major, &release) {
            row.keep_only(major, release);
        }
    }
    if let (Some(own), Some(row)) = (own_major, rows.iter_mut().find(|row| row.is_roadrunner)) {
        let current = release.as_ref().map(|release| release.module.path.as_str()).unwrap_or_default();
        while let Some((module, version)) = row.latest().filter(|(module, _)| *module != current) {
            let (module, version) = (module.to_owned(), version.to_owned());
            let newer = match release_at(request, &version, &reporter, &cancel).await {
                Err(error) if error.kind == ErrorKind::Interrupted => return Err(error),
                release => release.ok(),
            };
            match newer.as_ref().and_then(plugin_major_of) {
                Some(plugin_major) if plugin_major > own => {
                    let newer = NewerGeneration { roadrunner: version, plugin_major };
                    row.newer_generation.get_or_insert(newer);
                    row.versions.majors.retain(|major| major.module != module);
                }
                // No proxy lists this RoadRunner: all others are older.
                Some(plugin_major) if plugin_major < own => row.versions.majors.clear(),
                _ => break,
            }
        }
    }
    Ok(rows)
}

/// The plugins whose versions are unknown, by cause: one that all share, such as an unreachable proxy, occurs once.
pub fn failed_listings<'a>(
    rows: impl IntoIterator<Item = &'a AvailableVersions>,
) -> Vec<(Vec<&'a str>, &'a str)> {
    let mut causes: Vec<(Vec<&str>, &str)> = Vec::new();
    for row in rows {
        let Some(cause) = row.versions.error.as_deref() else { continue };
        match causes.iter_mut().find(|(_, known)| *known == cause) {
            Some((names, _)) => names.push(&row.name),
            None => causes.push((vec![&row.name], cause)),
        }
    }
    causes
}

impl AvailableVersions {
    fn leave_out_prereleases(&mut self) {
        let is_prerelease = |version: &str| {
            semver::is_valid(version) && !semver::is_release(version) && !is_pseudo_version(version)
        };
        if self.prereleases || self.constraint().is_some() || is_prerelease(&self.requested) {
            return;
        }
        for major in &mut self.versions.majors {
            major.versions.retain(|version| semver::is_release(version));
        }
        self.versions.majors.retain(|major| !major.versions.is_empty());
    }

    /// Keeps the versions at a major version; without one, the version in the RoadRunner release.
    fn keep_only(&mut self, plugin_major: u64, release: &RoadRunnerRelease) {
        let module = with_major(without_major(&self.module), plugin_major);
        self.versions.majors.retain(|major| major.module == module);
        if !self.versions.majors.is_empty() {
            return;
        }
        if let Some(released) = release.plugins.iter().find(|plugin| plugin.path == module) {
            self.versions.majors.push(MajorVersions { module, versions: vec![released.version.clone()] });
            self.versions.error = None;
        } else if self.versions.error.is_none() {
            let version = &release.module.version;
            self.versions.error = Some(format!("there is no {module} for RoadRunner {version}"));
        }
    }

    /// The version constraint in the configuration.
    #[must_use]
    pub fn constraint(&self) -> Option<VersionConstraint> {
        VersionConstraint::of(&self.requested)
    }

    /// The module path and version of the newest version that the constraint allows; without a constraint, of the
    /// newest release with the same major version; of RoadRunner's own plugins, with that of the plugins of this
    /// RoadRunner.
    #[must_use]
    pub fn latest_compatible(&self) -> Option<(&str, &str)> {
        if let Some(constraint) = self.constraint() {
            let majors = self.versions.majors.iter();
            return majors
                .filter(|major| !self.has_module || major.module == self.module)
                .filter_map(|major| Some((major.module.as_str(), constraint.newest(&major.versions)?)))
                .max_by(|(_, one), (_, other)| semver::compare(one, other));
        }
        if self.plugin_major.is_some() {
            return self.latest();
        }
        let is_tag = semver::is_valid(&self.requested);
        let version = self.locked.as_ref().filter(|_| !is_tag).unwrap_or(&self.requested);
        let is_same = |major: &&MajorVersions| match major_suffix(&self.module) {
            "" => major.module == self.module,
            own => major_suffix(&major.module) == own,
        };
        let number = |version: &str| semver::major(version).map(|major| major.replace("v0", "v1"));
        let has_number = |major: &&MajorVersions| {
            let first = major.versions.first().and_then(|version| number(version));
            first.is_some() && first == number(version)
        };
        let majors = &self.versions.majors;
        let major = majors.iter().find(is_same).or_else(|| majors.iter().find(has_number))?;
        Some((major.module.as_str(), major.newest_with(self.prereleases)?))
    }

    /// The module path and version of the newest release, or pre-release.
    #[must_use]
    pub fn latest(&self) -> Option<(&str, &str)> {
        let major = self.versions.newest_major_with(self.prereleases)?;
        Some((major.module.as_str(), major.newest_with(self.prereleases)?))
    }

    /// Whether there is a newer version, or another major version.
    #[must_use]
    pub fn is_outdated(&self) -> bool {
        let (compatible, latest) = (self.latest_compatible(), self.latest());
        let allowed = compatible.filter(|_| self.constraint().is_some()).map(|(_, version)| version);
        let current = self.locked.as_deref().or(allowed).unwrap_or(&self.requested);
        if let Some(plugin_major) = self.plugin_major
            && major(&self.module, current) != plugin_major
        {
            return latest.is_some();
        }
        let is_newer = |version: Option<(&str, &str)>| {
            version.is_some_and(|(_, version)| semver::compare(version, current).is_gt())
        };
        let is_other = latest.is_some_and(|(module, _)| compatible.is_none_or(|(same, _)| same != module));
        is_newer(compatible) || is_newer(latest) || is_other
    }
}
