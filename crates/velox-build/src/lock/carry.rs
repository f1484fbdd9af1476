//! A lock that stays while its configuration is written in other words.

use std::collections::BTreeMap;

use velox_gomod::module::ModuleVersion;
use velox_manifest::Manifest;

use super::{Asked, LockFile};
use crate::{Error, Request, resolve::with_replaces_at_plugins, settings::Settings};

/// What a lock has of the things that the configuration asks for still as it did then.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Locked {
    /// RoadRunner.
    pub roadrunner: Option<ModuleVersion>,
    /// The plugins, by their names.
    pub plugins: BTreeMap<String, ModuleVersion>,
}

/// What the lock of this request knows.
///
/// # Errors
/// A lock that can't be read.
pub fn locked(request: &Request) -> Result<Locked, Error> {
    let found = LockFile::read(request)?;
    let Some(lock) = found.lock else { return Ok(Locked::default()) };
    let asked = asked(request);
    let roadrunner = Some(lock.roadrunner()).filter(|_| lock.roadrunner.from == asked.roadrunner);
    let plugins = lock
        .plugins
        .into_iter()
        .filter(|plugin| plugin.from.is_some() && plugin.from.as_ref() == asked.plugins.get(&plugin.name))
        .map(|plugin| (plugin.name, ModuleVersion { path: plugin.module, version: plugin.version }))
        .collect();
    Ok(Locked { roadrunner, plugins })
}

/// The text of the lock of `old`, saying that it is made from `new`, where that names the same modules in other words;
/// `None`: there is no lock, or it doesn't fit the old configuration either.
///
/// # Errors
/// A lock that can't be read.
pub fn carried_over(old: &Request, new: &Manifest) -> Result<Option<String>, Error> {
    let found = LockFile::read(old)?;
    let Ok(lock) = found.fitting(&asked(old)) else { return Ok(None) };
    let renamed = asked(&Request { manifest: new.clone(), ..old.clone() });
    let mut lock = lock.clone();
    for plugin in lock.plugins.iter_mut().filter(|plugin| plugin.from.is_some()) {
        plugin.from = renamed.plugins.get(&plugin.name).cloned();
    }
    lock.settings = renamed.settings;
    Ok(Some(lock.to_string()))
}

fn asked(request: &Request) -> Asked {
    let manifest = with_replaces_at_plugins(&request.manifest);
    let settings = Settings::new(&manifest, &request.options, &request.environment);
    Asked::new(&manifest, &settings, &request.base)
}
