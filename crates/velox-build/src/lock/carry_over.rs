//! Reuse of a lock after its configuration has changed.

use std::collections::BTreeMap;

use velox_gomod::module::ModuleVersion;
use velox_manifest::Manifest;

use super::{file::LockFile, requested::RequestedVersions};
use crate::{error::Error, request::BuildRequest, settings::BuildSettings};

/// The versions of a lock whose requested refs are unchanged.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LockedVersions {
    /// RoadRunner.
    pub roadrunner: Option<ModuleVersion>,
    /// By the user's names.
    pub plugins: BTreeMap<String, ModuleVersion>,
}

/// The still requested versions in the lock of this request.
///
/// # Errors
/// The lock can't be read.
pub fn locked_versions(request: &BuildRequest) -> Result<LockedVersions, Error> {
    let found = LockFile::read(request)?;
    let Some(lock) = found.lock else { return Ok(LockedVersions::default()) };
    let requested = requested_versions(request)?;
    let roadrunner = Some(lock.roadrunner()).filter(|_| lock.roadrunner.from == requested.roadrunner);
    let plugins = lock
        .plugins
        .into_iter()
        .filter(|plugin| plugin.from.is_some() && plugin.from.as_ref() == requested.plugins.get(&plugin.name))
        .map(|plugin| (plugin.name, ModuleVersion::new(plugin.module, plugin.version)))
        .collect();
    Ok(LockedVersions { roadrunner, plugins })
}

/// The Go version in the lock of a request; `None`: there is no readable lock.
#[must_use]
pub fn locked_go_version(request: &BuildRequest) -> Option<String> {
    Some(LockFile::read(request).ok()?.lock?.go_version)
}

/// Converts the lock of `old` for the manifest `new`, which requests the same modules in another format;
/// `None`: no lock matches the old configuration.
///
/// # Errors
/// The lock can't be read.
pub fn carry_over_lock(old: &BuildRequest, new: &Manifest) -> Result<Option<String>, Error> {
    let found = LockFile::read(old)?;
    let Ok(lock) = found.matching(&requested_versions(old)?) else { return Ok(None) };
    let renamed = requested_versions(&BuildRequest { manifest: new.clone(), ..old.clone() })?;
    let mut lock = lock.clone();
    for plugin in lock.plugins.iter_mut().filter(|plugin| plugin.from.is_some()) {
        plugin.from = renamed.plugins.get(&plugin.name).cloned();
    }
    lock.settings = renamed.settings;
    Ok(Some(lock.to_string()))
}

fn requested_versions(request: &BuildRequest) -> Result<RequestedVersions, Error> {
    let manifest = request.manifest.with_plugin_replacements();
    let settings = BuildSettings::new(&manifest, &request.options, &request.environment)?;
    Ok(RequestedVersions::new(&manifest, &settings, &request.base))
}
