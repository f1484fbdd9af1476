//! The plugins of the configuration, the lock and the RoadRunner release.

use std::{collections::BTreeSet, sync::Arc};

use serde::Serialize;
use tokio_util::sync::CancellationToken;
use velox_build::{BuildRequest, Error, ErrorKind, Lock, QuerySession, Reporter, RoadRunnerRelease};
use velox_manifest::Manifest;

use crate::{last_part, without_major};

/// The plugins of the configuration, the lock and the RoadRunner release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PluginList {
    /// RoadRunner's ref in the configuration; `None` for the default branch.
    pub roadrunner_asked: Option<String>,
    /// RoadRunner's version in the lock, if the lock matches the requested ref.
    pub roadrunner_locked: Option<String>,
    /// The RoadRunner release to compare with; `None` if it can't be resolved.
    pub release: Option<String>,
    /// The reason why [`PluginList::release`] is `None`.
    pub release_unknown: Option<String>,
    /// Whether there is a lock.
    pub has_lock: bool,
    /// Descriptions of the differences between the configuration and the lock.
    pub differences: Vec<String>,
    /// The plugins, sorted by name; those that only the release has come last.
    pub plugins: Vec<ListedPlugin>,
}

/// A plugin of a [`PluginList`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ListedPlugin {
    /// The name in the configuration, else the last element of the module path.
    pub name: String,
    /// The module path, or the configured repository if the module path is unknown.
    pub module: String,
    /// The ref in the configuration.
    pub asked: Option<String>,
    /// The version in the lock.
    pub locked: Option<String>,
    /// The version in the RoadRunner release.
    pub released: Option<String>,
    /// The replacement.
    pub replacement: Option<String>,
    /// Whether vx added the plugin because every binary needs it.
    pub added: bool,
}

/// Lists the plugins. Only RoadRunner itself is downloaded, if the module cache lacks it.
///
/// # Errors
/// The lock can't be read, or an interruption. An unknown release is not an error.
pub async fn list(
    request: &BuildRequest,
    reporter: Arc<dyn Reporter>,
    cancel: CancellationToken,
) -> Result<PluginList, Error> {
    let session = QuerySession::new(request, reporter, cancel)?;
    let status = session.lock_status()?;
    let (release, release_unknown) = match session.release().await {
        Ok(release) => (Some(release), None),
        Err(error) if error.kind == ErrorKind::Interrupted => return Err(error),
        Err(error) => (None, Some(error.to_string())),
    };
    let (manifest, lock) = (session.manifest(), status.lock.as_ref());
    Ok(PluginList {
        roadrunner_asked: manifest.roadrunner.reference.as_ref().map(|reference| reference.value.clone()),
        roadrunner_locked: lock.filter(|_| status.has_roadrunner).map(|lock| lock.roadrunner.version.clone()),
        release: release.as_ref().map(|release| release.module.version.clone()),
        release_unknown,
        has_lock: lock.is_some(),
        plugins: rows(manifest, lock, release.as_ref()),
        differences: status.differences,
    })
}

fn rows(manifest: &Manifest, lock: Option<&Lock>, release: Option<&RoadRunnerRelease>) -> Vec<ListedPlugin> {
    let mut locked: Vec<_> = lock.map_or(&[][..], |lock| &lock.plugins).iter().map(|it| it.row()).collect();
    let mut rows: Vec<ListedPlugin> = Vec::new();
    for plugin in &manifest.plugins {
        let index = locked.iter().position(|locked| locked.name == plugin.name.value);
        let row = index.map(|index| locked.swap_remove(index));
        rows.push(ListedPlugin {
            name: plugin.name.value.clone(),
            module: match &row {
                Some(row) => row.module.clone(),
                None => plugin.module_path(manifest).unwrap_or_else(|| plugin.identity(manifest)),
            },
            asked: Some(plugin.reference.value.clone()),
            // A directory in the lock has no version.
            locked: row.as_ref().map(|row| row.version.clone().unwrap_or_else(|| "local".to_owned())),
            replacement: row.and_then(|row| row.replacement),
            ..ListedPlugin::default()
        });
    }
    rows.extend(locked.into_iter().map(|row| ListedPlugin {
        name: row.name,
        module: row.module,
        locked: row.version,
        replacement: row.replacement,
        added: row.added,
        ..ListedPlugin::default()
    }));
    rows.sort_by(|one, other| one.name.cmp(&other.name));
    let released = release.map_or(&[][..], |release| &release.plugins);
    let mut listed = BTreeSet::new();
    for row in &mut rows {
        let base = without_major(&row.module);
        if let Some(plugin) = released.iter().find(|plugin| without_major(&plugin.path) == base) {
            row.released = Some(plugin.version.clone());
            listed.insert(&plugin.path);
        }
    }
    let others = released.iter().filter(|plugin| !listed.contains(&plugin.path));
    rows.extend(others.map(|plugin| ListedPlugin {
        name: last_part(&plugin.path).to_owned(),
        module: plugin.path.clone(),
        released: Some(plugin.version.clone()),
        ..ListedPlugin::default()
    }));
    rows
}
