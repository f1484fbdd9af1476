//! The catalogue: RoadRunner's versions, the known plugins and the targets.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use velox_gomod::module::without_major;
use velox_manifest::{
    GoTarget,
    catalogue::{self, KnownPlugin, PluginGroup, PluginStatus},
};
use velox_query::plugin_major;

use crate::releases::Releases;

/// The response of `GET /v1/catalogue`. Other plugins can be built by their module paths.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct PluginCatalogue {
    /// RoadRunner's releases, newest first.
    pub(crate) roadrunner: Vec<String>,
    /// The RoadRunner version that the plugins' versions belong to.
    pub(crate) of: String,
    /// Whether that release's plugins are known; otherwise no plugin has a version.
    pub(crate) complete: bool,
    /// The plugins by purpose.
    pub(crate) groups: Vec<CatalogueGroup>,
    /// The supported targets, `os/arch` in Go's names: Linux, macOS and Windows first.
    pub(crate) targets: Vec<String>,
    /// The default target: the service's own platform.
    pub(crate) target: String,
}

/// Plugins for one purpose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct CatalogueGroup {
    /// The heading.
    pub(crate) title: String,
    /// The plugins, sorted by name.
    pub(crate) plugins: Vec<CataloguePlugin>,
}

/// A plugin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct CataloguePlugin {
    /// The name.
    pub(crate) name: String,
    /// The module path: as in the selected RoadRunner release, else with the newest major version.
    pub(crate) module: String,
    /// `supported`, `third-party` or `deprecated`; absent for plugins that aren't in vx's list.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) status: Option<String>,
    /// A one-line description.
    pub(crate) description: String,
    /// The address of its page in RoadRunner's documentation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) documentation: Option<String>,
    /// Whether every binary contains it, selected or not.
    pub(crate) always_included: bool,
    /// The replacement of a deprecated plugin.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) replaced_by: Option<String>,
    /// The version in this RoadRunner release.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) version: Option<String>,
    /// About how many bytes it adds to a binary with all plugins of its release, if that was measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) size: Option<u64>,
}

impl PluginCatalogue {
    /// The catalogue for this RoadRunner ref; default: the newest release.
    pub(crate) async fn of(releases: &Releases, roadrunner: Option<&str>) -> Self {
        let versions = releases.versions();
        let of = roadrunner.or(versions.first().map(String::as_str)).unwrap_or_default().to_owned();
        let plugins = releases.plugins(&of).await;
        Self {
            groups: groups(&of, plugins.as_ref().map_or(&[], |plugins| plugins.as_slice())),
            complete: plugins.is_some(),
            of,
            roadrunner: versions,
            targets: targets(),
            target: GoTarget::host().to_string(),
        }
    }

    /// All plugins in display order.
    pub(crate) fn plugins(&self) -> impl Iterator<Item = &CataloguePlugin> {
        self.groups.iter().flat_map(|group| &group.plugins)
    }

    /// Whether the preset with this name contains a plugin, for this release.
    pub(crate) fn is_in_preset(&self, plugin: &CataloguePlugin, preset: &str) -> bool {
        let is_supported = plugin.status.as_deref() == Some(PluginStatus::Supported.word());
        (plugin.version.is_some() || !self.complete && is_supported)
            && catalogue::preset(preset).is_some_and(|preset| preset.contains(&plugin.module))
    }
}

impl CataloguePlugin {
    /// The default ref: the released version, else `latest`.
    pub(crate) fn reference(&self) -> &str {
        self.version.as_deref().unwrap_or("latest")
    }
}

/// The targets, those that most binaries are for first.
fn targets() -> Vec<String> {
    const SYSTEMS: [&str; 3] = ["linux", "darwin", "windows"];
    const ARCHITECTURES: [&str; 2] = ["amd64", "arm64"];
    let rank = |list: &[&str], name: &str| list.iter().position(|known| *known == name).unwrap_or(list.len());
    let mut targets = velox_manifest::targets();
    targets.sort_by_cached_key(|target| {
        (rank(&SYSTEMS, &target.os), target.os.clone(), rank(&ARCHITECTURES, &target.arch))
    });
    targets.iter().map(GoTarget::to_string).collect()
}

/// The known plugins that work with a release, and the other plugins of the release, if these are known.
fn groups(roadrunner: &str, released: &[(String, String)]) -> Vec<CatalogueGroup> {
    let major = plugin_major(released.iter().map(|(module, version)| (module.as_str(), version.as_str())))
        .or_else(|| catalogue::generation_major(roadrunner));
    let mut groups: Vec<CatalogueGroup> = PluginGroup::ALL
        .iter()
        .map(|group| CatalogueGroup {
            title: group.title().to_owned(),
            plugins: catalogue::catalogue()
                .iter()
                .filter(|known| known.group == *group)
                .filter_map(|known| plugin(known, released, major))
                .collect(),
        })
        .collect();
    let others: Vec<CataloguePlugin> = released
        .iter()
        .filter(|(module, _)| {
            catalogue::find(module).is_none_or(|known| known.module != without_major(module))
        })
        .map(|(module, version)| CataloguePlugin {
            name: without_major(module).rsplit('/').next().unwrap_or_default().to_owned(),
            module: module.clone(),
            status: None,
            description: "Part of this RoadRunner".to_owned(),
            documentation: None,
            always_included: false,
            replaced_by: None,
            version: Some(version.clone()),
            size: None,
        })
        .collect();
    if !others.is_empty() {
        groups.push(CatalogueGroup { title: "Others".to_owned(), plugins: others });
    }
    groups
}

/// A known plugin; `None` if no version of it works with the release, whose plugins have the major version
/// `major`. Deprecated plugins work with the releases that contain them.
fn plugin(known: &KnownPlugin, released: &[(String, String)], major: Option<u64>) -> Option<CataloguePlugin> {
    let inside = released.iter().find(|(module, _)| without_major(module) == known.module);
    let module = match (inside, major) {
        (Some((module, _)), _) => module.clone(),
        (None, Some(major)) if known.status == PluginStatus::Supported => {
            known.majors.contains(&major).then(|| known.module_path_at(major))?
        }
        (None, _) if known.status == PluginStatus::Deprecated => return None,
        (None, _) => known.module_path(),
    };
    let always_included = catalogue::ALWAYS_INCLUDED.contains(&known.module.as_str());
    Some(CataloguePlugin {
        name: known.name.clone(),
        size: catalogue::plugin_size(&module).filter(|_| !always_included),
        module,
        status: Some(known.status.word().to_owned()),
        description: known.description.clone(),
        documentation: known.documentation(),
        always_included,
        replaced_by: known.replaced_by.clone(),
        version: inside.map(|(_, version)| version.clone()),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[tokio::test]
    async fn a_release_gives_its_plugins_their_versions() {
        let releases = Releases::built_in();
        let newest = PluginCatalogue::of(&releases, None).await;
        assert_eq!(Some(&newest.of), newest.roadrunner.first());
        assert!(newest.complete && newest.targets.contains(&newest.target));
        let http = newest.plugins().find(|plugin| plugin.name == "http").unwrap();
        assert_eq!(http.module, "github.com/roadrunner-server/http/v5");
        assert_ne!(http.reference(), "latest");
        assert!(http.size.is_some_and(|bytes| bytes > 100_000), "{:?}", http.size);
        let souin = newest.plugins().find(|plugin| plugin.name == "souin").unwrap();
        assert_eq!((souin.reference(), souin.status.as_deref()), ("latest", Some("third-party")));
        let released = newest.plugins().filter(|plugin| plugin.version.is_some()).count();
        assert_eq!(released, 35);

        let older = PluginCatalogue::of(&releases, Some("v2024.2.1")).await;
        assert_ne!(older.plugins().find(|plugin| plugin.name == "http").unwrap().version, http.version);

        let tcp = newest.plugins().find(|plugin| plugin.name == "tcp").unwrap();
        assert_eq!(tcp.module, "github.com/roadrunner-server/tcp/v5");
        let protoreg = newest.plugins().find(|plugin| plugin.name == "protoreg").unwrap();
        assert_eq!(
            (protoreg.module.as_str(), protoreg.reference()),
            ("github.com/roadrunner-server/protoreg/v5", "latest")
        );
        assert!(!newest.plugins().any(|plugin| plugin.name == "nsq"), "it has no v5");
        assert!(!newest.plugins().any(|plugin| plugin.status.as_deref() == Some("deprecated")));
        let always: Vec<&str> =
            newest.plugins().filter(|it| it.always_included).map(|it| it.name.as_str()).collect();
        assert_eq!(always, ["informer", "resetter"]);
        assert_eq!(http.documentation.as_deref(), Some("https://docs.roadrunner.dev/docs/http/http"));
        assert_eq!(newest.targets[..2], ["linux/amd64", "linux/arm64"]);
        let systems: Vec<&str> =
            newest.targets.iter().filter_map(|target| target.split('/').next()).collect();
        let distinct: std::collections::HashSet<&&str> = systems.iter().collect();
        assert_eq!(systems.chunk_by(|one, other| one == other).count(), distinct.len(), "{systems:?}");

        let branch = PluginCatalogue::of(&releases, Some("master")).await;
        assert!(!branch.complete && branch.plugins().all(|plugin| plugin.reference() == "latest"));
        // The list of a release may be missing; its plugins have a major version nevertheless.
        for (of, suffix) in [("master", "/v6"), ("v3.9.0", "/v6"), ("v2025.9.9", "/v5")] {
            let catalogue = PluginCatalogue::of(&releases, Some(of)).await;
            assert!(!catalogue.complete, "{of}");
            for plugin in catalogue.plugins().filter(|it| it.status.as_deref() == Some("supported")) {
                assert!(plugin.module.ends_with(suffix), "{of}: {}", plugin.module);
            }
        }
    }

    #[test]
    fn deprecated_plugins_are_offered_for_releases_that_contain_them() {
        let released = [("github.com/roadrunner-server/websockets/v4", "v4.1.0")]
            .map(|(module, version)| (module.to_owned(), version.to_owned()));
        let groups = groups("v2023.1.0", &released);
        let deprecated = groups
            .iter()
            .flat_map(|group| &group.plugins)
            .filter(|it| it.status.as_deref() == Some("deprecated"));
        assert_eq!(deprecated.map(|it| it.name.as_str()).collect::<Vec<_>>(), ["websockets"]);
    }

    #[test]
    fn what_only_a_release_knows_comes_last() {
        let released = [
            ("github.com/roadrunner-server/http/v6", "v6.0.1"),
            ("github.com/roadrunner-server/brand-new/v6", "v6.1.0"),
        ]
        .map(|(module, version)| (module.to_owned(), version.to_owned()));
        let groups = groups("v3.0.0", &released);
        let last = groups.last().unwrap();
        assert_eq!((last.title.as_str(), last.plugins.len()), ("Others", 1));
        assert_eq!((last.plugins[0].name.as_str(), last.plugins[0].reference()), ("brand-new", "v6.1.0"));
        let http =
            groups.iter().flat_map(|group| &group.plugins).find(|plugin| plugin.name == "http").unwrap();
        assert_eq!(
            (http.module.as_str(), http.reference()),
            ("github.com/roadrunner-server/http/v6", "v6.0.1")
        );
        let tcp = groups.iter().flat_map(|group| &group.plugins).find(|plugin| plugin.name == "tcp").unwrap();
        assert_eq!(
            (tcp.module.as_str(), tcp.reference()),
            ("github.com/roadrunner-server/tcp/v6", "latest"),
            "optional in RoadRunner 3"
        );
    }
}
