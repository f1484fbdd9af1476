use std::{collections::BTreeMap, sync::Arc};

use tokio_util::sync::CancellationToken;
use velox_build::{BuildRequest, Error, Goal, Reporter, locked_versions};

/// The module paths of the plugins by name, from an up-to-date lock or the manifest, else resolved.
pub async fn module_paths(
    request: &BuildRequest,
    reporter: Arc<dyn Reporter>,
    cancel: CancellationToken,
) -> Result<BTreeMap<String, String>, Error> {
    let manifest = &request.manifest;
    let locked = locked_versions(request)?.plugins;
    let mut paths: BTreeMap<String, String> =
        locked.into_iter().map(|(name, module)| (name, module.path)).collect();
    let is_known = |name: &String| paths.contains_key(name);
    if !manifest
        .plugins
        .iter()
        .all(|plugin| is_known(&plugin.name.value) || plugin.module_path(manifest).is_some())
    {
        let request = BuildRequest { goal: Goal::Plan, ..request.clone() };
        let summary = velox_build::build(&request, reporter, cancel).await?;
        let requested = summary.plugins.into_iter().filter(|plugin| !plugin.added);
        paths.extend(requested.map(|plugin| (plugin.name, plugin.module)));
    }
    Ok(paths)
}
