//! The plugins of a server, in the three places that name them.

use std::{collections::BTreeSet, sync::Arc};

use serde::Serialize;
use tokio_util::sync::CancellationToken;
use velox_manifest::{Origin, Plugin};

use velox_build::{BuildRequest, Error, ErrorKind, Lock, QuerySession, Reporter, RoadRunnerRelease};

use crate::without_major;

/// The plugins that a configuration, its lock and RoadRunner's own release name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PluginList {
    /// The ref of RoadRunner that the configuration names; `None`: the default branch.
    pub roadrunner_asked: Option<String>,
    /// RoadRunner's version in the lock, where the lock has the RoadRunner that is asked for.
    pub roadrunner_locked: Option<String>,
    /// RoadRunner's version whose plugins are compared; `None`: it couldn't be found out.
    pub release: Option<String>,
    /// Why [`PluginList::release`] is `None`.
    pub release_unknown: Option<String>,
    /// Whether there is a lock.
    pub has_lock: bool,
    /// Where the lock doesn't say what the configuration asks for, a sentence each.
    pub differences: Vec<String>,
    /// By name; those that only the release has come last.
    pub plugins: Vec<ListedPlugin>,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ListedPlugin {
    /// The user's name for it; of one that only the release has, the last part of its module path.
    pub name: String,
    /// Its module path, or the repository that the configuration names, where only that is known.
    pub module: String,
    /// The ref in the configuration.
    pub asked: Option<String>,
    /// The version in the lock.
    pub locked: Option<String>,
    /// The version in RoadRunner's release.
    pub released: Option<String>,
    /// What replaces it.
    pub replacement: Option<String>,
    /// Whether vx added it, since every server has it.
    pub added: bool,
}

/// Lists them. Of the network only RoadRunner itself is asked for, where the module cache lacks it.
///
/// # Errors
/// A lock that can't be read, or an interruption. A release that can't be found is none.
pub async fn list(
    request: &BuildRequest,
    reporter: Arc<dyn Reporter>,
    cancel: CancellationToken,
) -> Result<PluginList, Error> {
    let session = QuerySession::new(request, reporter, cancel);
    let status = session.lock_status()?;
    let release = match session.release().await {
        Err(error) if error.kind == ErrorKind::Interrupted => return Err(error),
        release => release,
    };
    let unknown = release.as_ref().err().map(ToString::to_string);
    let release = release.ok();
    let lock = status.lock.as_ref();
    let reference = session.manifest().roadrunner.reference.as_ref().map(|reference| reference.value.clone());
    Ok(PluginList {
        roadrunner_asked: reference,
        roadrunner_locked: lock.filter(|_| status.has_roadrunner).map(|lock| lock.roadrunner.version.clone()),
        release: release.as_ref().map(|release| release.module.version.clone()),
        release_unknown: unknown,
        has_lock: lock.is_some(),
        differences: status.differences.clone(),
        plugins: rows(&session.manifest().plugins, lock, release.as_ref()),
    })
}

fn rows(asked: &[Plugin], lock: Option<&Lock>, release: Option<&RoadRunnerRelease>) -> Vec<ListedPlugin> {
    let locked = lock.map_or(&[][..], |lock| &lock.plugins);
    let mut rows: Vec<ListedPlugin> = Vec::new();
    for plugin in asked {
        let row = locked.iter().find(|locked| locked.name == plugin.name.value).map(|locked| locked.row());
        rows.push(ListedPlugin {
            name: plugin.name.value.clone(),
            module: row.as_ref().map_or_else(|| place(&plugin.origin), |row| row.module.clone()),
            asked: Some(plugin.reference.value.clone()),
            // A directory has no version, but it is in the lock.
            locked: row.as_ref().map(|row| row.version.clone().unwrap_or_else(|| "local".to_owned())),
            released: None,
            replacement: row.and_then(|row| row.replacement),
            added: false,
        });
    }
    for locked in locked.iter().filter(|locked| !asked.iter().any(|plugin| plugin.name.value == locked.name))
    {
        let row = locked.row();
        rows.push(ListedPlugin {
            name: row.name,
            module: row.module,
            asked: None,
            locked: row.version,
            released: None,
            replacement: row.replacement,
            added: row.added,
        });
    }
    rows.sort_by(|one, other| one.name.cmp(&other.name));
    let plugins = release.map_or(&[][..], |release| &release.plugins);
    let mut listed = BTreeSet::new();
    for row in &mut rows {
        if let Some(plugin) =
            plugins.iter().find(|plugin| without_major(&plugin.path) == without_major(&row.module))
        {
            row.released = Some(plugin.version.clone());
            listed.insert(plugin.path.as_str());
        }
    }
    let others = plugins.iter().filter(|plugin| !listed.contains(plugin.path.as_str()));
    rows.extend(others.map(|plugin| ListedPlugin {
        name: without_major(&plugin.path).rsplit('/').next().unwrap_or_default().to_owned(),
        module: plugin.path.clone(),
        asked: None,
        locked: None,
        released: Some(plugin.version.clone()),
        replacement: None,
        added: false,
    }));
    rows
}

/// Where a plugin comes from, as far as the configuration says it.
pub(crate) fn place(origin: &Origin) -> String {
    let below = |root: String, folder: &Option<velox_manifest::Spanned<String>>| match folder {
        Some(folder) => format!("{root}/{}", folder.value),
        None => root,
    };
    match origin {
        Origin::Module(path) => path.value.clone(),
        Origin::GitHub { owner, repository, folder } => {
            below(format!("github.com/{}/{}", owner.value, repository.value), folder)
        }
        Origin::GitLab { project, folder } => match &project.value {
            velox_manifest::Project::Id(id) => below(format!("gitlab.com/projects/{id}"), folder),
            velox_manifest::Project::Path(path) => below(format!("gitlab.com/{path}"), folder),
        },
    }
}
