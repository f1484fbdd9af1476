//! The catalogue of official and third-party plugins, from `catalogue.toml` in this crate, the plugins of
//! two RoadRunner releases, from `releases.toml`, for as long as no module proxy has responded, and measured sizes of
//! plugins, from `sizes.toml`.

use std::{collections::BTreeMap, sync::LazyLock};

use serde::Deserialize;
use velox_gomod::module::{major_suffix, with_major, without_major};

/// RoadRunner's module path without a major version.
pub const ROADRUNNER_MODULE: &str = "github.com/roadrunner-server/roadrunner";

/// A plugin of the catalogue.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KnownPlugin {
    /// The repository name (`app-logger`).
    pub name: String,
    /// Other common names. Lookups ignore case, `-` and `_`.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// Module path without the major version suffix.
    pub module: String,
    /// The path of its page in RoadRunner's documentation.
    #[serde(default)]
    docs: Option<String>,
    /// The major versions that work with a RoadRunner of [`generations`], or else the newest; lowest first.
    pub majors: Vec<u64>,
    /// Those of them that RoadRunner's own binary does not contain.
    #[serde(default)]
    pub optional: Vec<u64>,
    /// The group.
    pub group: PluginGroup,
    /// The maintenance status.
    pub status: PluginStatus,
    /// The replacement of a deprecated plugin.
    #[serde(default)]
    pub replaced_by: Option<String>,
    /// The names of the plugins that implement parameters of its `Init`: RoadRunner disables it without one of them.
    /// The configuration plugin, which every server has, is not listed.
    #[serde(default)]
    pub needs: Vec<String>,
    /// The names of the plugins that use it: it does nothing without one of each list. Empty if it is of use by itself.
    #[serde(default)]
    pub used_by: Vec<Vec<String>>,
    /// The methods that other plugins require of it in parameters of `Init`, or call on what it provides.
    #[serde(default)]
    pub methods: Vec<String>,
    /// The methods of each interface whose implementers it uses, `Name` apart; only of plugins in a `used_by`.
    #[serde(default)]
    pub collects: Vec<Vec<String>>,
    /// The settings of `.rr.yaml` that need it: its own sections (`http.headers`), and the values that name it
    /// (`kv.*.driver=redis`).
    #[serde(default)]
    pub rr_config: Vec<String>,
    /// A one-line description, without a full stop.
    pub description: String,
}

/// A plugin that a choice of plugins needs and does not contain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingPlugin {
    /// The plugin.
    pub plugin: &'static KnownPlugin,
    /// The plugins that need it: chosen ones, or other missing ones.
    pub needed_by: Vec<&'static KnownPlugin>,
}

/// RoadRunner releases whose plugins share a major version.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PluginGeneration {
    /// The major version of the plugins.
    pub plugins: u64,
    /// The RoadRunner releases, for messages.
    pub roadrunner: String,
    /// Their major versions.
    pub majors: Vec<String>,
}

/// Plugins for one purpose, which work together.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preset {
    /// The name.
    pub name: String,
    /// A one-line description, without a full stop.
    pub description: String,
    /// The names of the plugins; empty: all of the release.
    #[serde(default)]
    plugins: Vec<String>,
}

/// A RoadRunner release.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KnownRelease {
    /// The version.
    pub version: String,
    /// The plugins: module path and version, separated by a space.
    plugins: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct CatalogueFile {
    generations: Vec<PluginGeneration>,
    presets: Vec<Preset>,
    plugins: Vec<KnownPlugin>,
}

/// The module path prefix of RoadRunner's own modules.
const OFFICIAL_PREFIX: &str = "github.com/roadrunner-server/";

/// A minimal application server for PHP.
const STARTER_PLUGINS: [&str; 4] = ["logger", "rpc", "server", "http"];

/// RoadRunner's documentation.
const DOCUMENTATION: &str = "https://docs.roadrunner.dev/docs";

/// The plugins of `rr workers` and `rr reset`, which every binary has: module paths without major versions.
pub const ALWAYS_INCLUDED: [&str; 2] =
    ["github.com/roadrunner-server/informer", "github.com/roadrunner-server/resetter"];

/// The purpose of a plugin, in listing order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "Group::title says it")]
pub enum PluginGroup {
    Server,
    Http,
    Jobs,
    Kv,
    Network,
    Grpc,
    Workflows,
    Logging,
    Observability,
}

/// The maintenance status of a plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PluginStatus {
    /// Maintained by the RoadRunner or Temporal team.
    Supported,
    /// Maintained by a third party.
    ThirdParty,
    /// Deprecated and unmaintained.
    Deprecated,
}

/// All known plugins, sorted by group and name.
#[must_use]
pub fn catalogue() -> &'static [KnownPlugin] {
    &file().plugins
}

/// The RoadRunner releases by the major version of their plugins, newest first.
#[must_use]
pub fn generations() -> &'static [PluginGeneration] {
    &file().generations
}

/// The presets, in listing order.
#[must_use]
pub fn presets() -> &'static [Preset] {
    &file().presets
}

/// The preset with this name.
#[must_use]
pub fn preset(name: &str) -> Option<&'static Preset> {
    presets().iter().find(|preset| preset.name == name)
}

/// The major version of the plugins of a RoadRunner release of [`generations`].
#[must_use]
pub fn generation_major(roadrunner: &str) -> Option<u64> {
    let release = roadrunner.split('.').next()?;
    let is_of = |it: &&PluginGeneration| it.majors.iter().any(|major| major == release);
    generations().iter().find(is_of).map(|it| it.plugins)
}

/// Some RoadRunner releases, newest first.
#[must_use]
pub fn known_releases() -> &'static [KnownRelease] {
    #[derive(Deserialize)]
    struct ReleasesFile {
        releases: Vec<KnownRelease>,
    }
    static RELEASES: LazyLock<Vec<KnownRelease>> = LazyLock::new(|| {
        // Parsing can't fail: a test covers it.
        let file: Option<ReleasesFile> = toml_edit::de::from_str(include_str!("../releases.toml")).ok();
        file.map(|file| file.releases).unwrap_or_default()
    });
    &RELEASES
}

/// About how many bytes a plugin with this module path adds to a binary with all plugins of its RoadRunner release: those
/// of packages that neither another plugin nor RoadRunner itself imports, for linux/amd64.
#[must_use]
pub fn plugin_size(module: &str) -> Option<u64> {
    static SIZES: LazyLock<BTreeMap<String, u64>> =
        // Parsing can't fail: a test covers it.
        LazyLock::new(|| toml_edit::de::from_str(include_str!("../sizes.toml")).unwrap_or_default());
    SIZES.get(module).copied()
}

fn file() -> &'static CatalogueFile {
    static CATALOGUE: LazyLock<CatalogueFile> =
        // Parsing can't fail: a test covers it.
        LazyLock::new(|| toml_edit::de::from_str(include_str!("../catalogue.toml")).unwrap_or_default());
    &CATALOGUE
}

/// Whether a module is a plugin that is released together with RoadRunner, at the same major version as the
/// others; a major version suffix is ignored.
#[must_use]
pub fn is_official(module: &str) -> bool {
    let module = without_major(module);
    module.starts_with(OFFICIAL_PREFIX)
        || find(module).is_some_and(|known| known.module == module && known.status == PluginStatus::Supported)
}

/// Finds a plugin by name, alias or module path; a major version suffix and `https://` are ignored.
#[must_use]
pub fn find(name_or_module: &str) -> Option<&'static KnownPlugin> {
    let module = without_major(name_or_module.trim().trim_start_matches("https://").trim_end_matches('/'));
    let name = normalize(module);
    catalogue()
        .iter()
        .find(|plugin| plugin.module == module || plugin.names().any(|known| normalize(known) == name))
}

/// The plugins that `chosen` ones need, directly or through each other, and that are not among them; the catalogue's
/// order.
#[must_use]
pub fn missing_plugins(chosen: &[&'static KnownPlugin]) -> Vec<MissingPlugin> {
    missing_by(chosen, |plugin| plugin.needs.iter().collect())
}

/// Like [`missing_plugins`], with the plugins without which `chosen` ones start but do nothing, unless there is a choice
/// between several.
#[must_use]
pub fn completing_plugins(chosen: &[&'static KnownPlugin]) -> Vec<MissingPlugin> {
    missing_by(chosen, |plugin| {
        let users = plugin.used_by.iter().filter(|users| users.len() == 1).flatten();
        plugin.needs.iter().chain(users).collect()
    })
}

fn missing_by(
    chosen: &[&'static KnownPlugin],
    needs: impl Fn(&'static KnownPlugin) -> Vec<&'static String>,
) -> Vec<MissingPlugin> {
    let mut included = chosen.to_vec();
    let mut next = 0;
    while let Some(plugin) = included.get(next) {
        next += 1;
        for needed in needs(plugin).into_iter().filter_map(|name| find(name)) {
            if !included.contains(&needed) {
                included.push(needed);
            }
        }
    }
    let is_missing = |plugin: &&KnownPlugin| included.contains(plugin) && !chosen.contains(plugin);
    let needed_by = |plugin: &KnownPlugin| {
        included.iter().copied().filter(|other| needs(other).contains(&&plugin.name)).collect()
    };
    catalogue()
        .iter()
        .filter(is_missing)
        .map(|plugin| MissingPlugin { plugin, needed_by: needed_by(plugin) })
        .collect()
}

/// The plugins whose names, module path or description contain all `words`, by group, matches by name first.
#[must_use]
pub fn search(words: &str) -> Vec<&'static KnownPlugin> {
    let words: Vec<String> = words.split_whitespace().map(str::to_lowercase).collect();
    let in_name = |plugin: &KnownPlugin, word: &str| {
        plugin.names().any(|name| normalize(name).contains(&normalize(word)))
    };
    let in_text = |plugin: &KnownPlugin, word: &str| {
        plugin.module.to_lowercase().contains(word) || plugin.description.to_lowercase().contains(word)
    };
    let mut found: Vec<_> = catalogue()
        .iter()
        .filter(|plugin| words.iter().all(|word| in_name(plugin, word) || in_text(plugin, word)))
        .collect();
    found.sort_by_key(|plugin| (plugin.group, !words.iter().all(|word| in_name(plugin, word))));
    found
}

/// Up to three plugins with the most similar names, best match first.
#[must_use]
pub fn nearest(name: &str) -> Vec<&'static KnownPlugin> {
    const MIN_SIMILARITY: f64 = 0.8;
    let last = without_major(name).rsplit('/').next().unwrap_or(name);
    let target = normalize(last);
    let similarity = |plugin: &KnownPlugin| {
        plugin.names().map(|known| strsim::jaro_winkler(&normalize(known), &target)).fold(0.0, f64::max)
    };
    let mut near: Vec<_> = catalogue()
        .iter()
        .map(|plugin| (similarity(plugin), plugin))
        .filter(|(similarity, _)| *similarity > MIN_SIMILARITY)
        .collect();
    near.sort_by(|(one, _), (other, _)| other.total_cmp(one));
    near.into_iter().take(3).map(|(_, plugin)| plugin).collect()
}

impl KnownPlugin {
    /// The module path at the newest major version.
    #[must_use]
    pub fn module_path(&self) -> String {
        self.module_path_at(self.majors.last().copied().unwrap_or_default())
    }

    /// The module path for a ref of the plugin: at the major version of a tag, else at that of the plugins of a
    /// RoadRunner release, else at the newest.
    #[must_use]
    pub fn module_path_for(&self, reference: &str, roadrunner: Option<&str>) -> String {
        if let Some(major) = crate::check::requested_major(reference) {
            return self.module_path_at(major);
        }
        self.module_path_near(roadrunner.and_then(generation_major))
    }

    /// The module path at the major version of another module path, or else at the newest.
    #[must_use]
    pub fn module_path_like(&self, other: &str) -> String {
        self.module_path_near(major_suffix(other).strip_prefix("/v").and_then(|major| major.parse().ok()))
    }

    /// The module path at a major version that the plugin has, or else at the newest.
    fn module_path_near(&self, major: Option<u64>) -> String {
        match major.filter(|major| self.majors.contains(major)) {
            Some(major) => self.module_path_at(major),
            None => self.module_path(),
        }
    }

    /// The module path at a major version.
    #[must_use]
    pub fn module_path_at(&self, major: u64) -> String {
        with_major(&self.module, major)
    }

    /// The lists of plugins of which `chosen` has none, although one of each has to use this plugin.
    pub fn missing_users<'a>(
        &'a self,
        chosen: &'a [&'static Self],
    ) -> impl Iterator<Item = &'a [String]> + 'a {
        let is_chosen = |name: &String| chosen.iter().any(|plugin| plugin.name == *name);
        self.used_by.iter().filter(move |users| !users.iter().any(is_chosen)).map(Vec::as_slice)
    }

    /// The comment above it in a configuration that `vx init` writes.
    #[must_use]
    pub fn comment(&self) -> String {
        format!("# {}.", self.description)
    }

    /// The address of its page in RoadRunner's documentation.
    #[must_use]
    pub fn documentation(&self) -> Option<String> {
        self.docs.as_ref().map(|page| format!("{DOCUMENTATION}/{page}"))
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.name.as_str()).chain(self.aliases.iter().map(String::as_str))
    }
}

impl Preset {
    /// Whether it contains this plugin of a RoadRunner release, given by module path.
    #[must_use]
    pub fn contains(&self, module: &str) -> bool {
        let is_it = |plugin: &KnownPlugin| self.plugins.contains(&plugin.name);
        self.plugins.is_empty() || find(module).is_some_and(is_it)
    }
}

impl PluginGroup {
    /// All groups, in listing order.
    pub const ALL: [Self; 9] = [
        Self::Server,
        Self::Http,
        Self::Jobs,
        Self::Kv,
        Self::Network,
        Self::Grpc,
        Self::Workflows,
        Self::Logging,
        Self::Observability,
    ];

    /// The heading of the group.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Server => "Server",
            Self::Http => "HTTP",
            Self::Jobs => "Jobs",
            Self::Kv => "Key-value storage",
            Self::Network => "Network",
            Self::Grpc => "gRPC",
            Self::Workflows => "Workflows",
            Self::Logging => "Logging",
            Self::Observability => "Metrics and observability",
        }
    }
}

impl PluginStatus {
    /// The name of the group in the catalogue.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Supported => "supported",
            Self::ThirdParty => "third-party",
            Self::Deprecated => "deprecated",
        }
    }
}

/// A minimal velox.toml for PHP applications: the newest of the [`known_releases`], in the newest format.
#[must_use]
pub fn starter() -> String {
    let Some(release) = known_releases().first() else { return String::new() };
    let plugin = |name: &str| {
        let known = find(name)?;
        let (module, version) =
            release.plugins().find(|(module, _)| without_major(module) == known.module)?;
        Some(format!("\n\n[plugins.{name}]\nmodule_name = \"{module}\"\ntag = \"{version}\""))
    };
    let plugins: String = STARTER_PLUGINS.into_iter().filter_map(plugin).collect();
    format!("[roadrunner]\nref = \"{}\"{plugins}", release.version)
}

impl KnownRelease {
    /// The plugins: module path and version.
    pub fn plugins(&self) -> impl Iterator<Item = (&str, &str)> {
        self.plugins.iter().filter_map(|line| line.split_once(' '))
    }
}

/// Normalizes a name: `appLogger`, `app_logger` and `app-logger` are equal.
fn normalize(name: &str) -> String {
    name.chars().filter(|c| !matches!(c, '-' | '_')).flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::HashSet;

    use super::*;
    use crate::{Manifest, Origin, SourceFile};

    #[test]
    fn it_is_consistent() {
        let CatalogueFile { plugins, generations, presets } =
            toml_edit::de::from_str(include_str!("../catalogue.toml")).unwrap();
        assert_eq!(catalogue(), plugins);
        assert_eq!(super::generations(), generations);
        assert_eq!(super::presets(), presets);
        assert!(generations.is_sorted_by(|newer, older| newer.plugins > older.plugins));

        let order: Vec<_> = plugins.iter().map(|plugin| (plugin.group, normalize(&plugin.name))).collect();
        assert!(order.is_sorted(), "by group, then by name");
        assert_eq!(
            PluginGroup::ALL.len(),
            plugins.iter().map(|plugin| plugin.group).collect::<HashSet<_>>().len()
        );
        assert!(PluginGroup::ALL.is_sorted());

        let mut measured = 0;
        let mut names = HashSet::new();
        let mut modules = HashSet::new();
        for plugin in &plugins {
            assert!(plugin.names().all(|name| names.insert(normalize(name))), "{} twice", plugin.name);
            assert!(modules.insert(&plugin.module), "{} twice", plugin.module);
            assert!(crate::check::module_path(&plugin.module).is_ok(), "{}", plugin.module);
            assert!(crate::check::module_path(&plugin.module_path()).is_ok(), "{}", plugin.module_path());
            let sizes = plugin.majors.iter().filter_map(|major| plugin_size(&plugin.module_path_at(*major)));
            assert!(sizes.clone().all(|bytes| (1_000..20_000_000).contains(&bytes)), "{}", plugin.name);
            measured += sizes.count();
            assert!(!plugin.majors.is_empty() && plugin.majors.is_sorted(), "{}", plugin.name);
            assert!(plugin.optional.iter().all(|major| plugin.majors.contains(major)), "{}", plugin.name);
            let in_a_generation = generations.iter().any(|it| plugin.majors.contains(&it.plugins));
            assert_eq!(in_a_generation, plugin.status == PluginStatus::Supported, "{}", plugin.name);
            assert_eq!(plugin.module, without_major(&plugin.module));
            assert!(plugin.docs.iter().all(|page| page.split('/').count() == 2), "{}", plugin.name);
            assert!(!plugin.description.is_empty() && !plugin.description.ends_with('.'), "{}", plugin.name);
            assert!(plugin.description.chars().count() <= 90, "{}: too long for a line", plugin.name);
            for name in plugin.needs.iter().chain(plugin.used_by.iter().flatten()) {
                let other = find(name).unwrap();
                assert_eq!((&other.name, other.status), (name, PluginStatus::Supported), "{}", plugin.name);
                assert_ne!(name, &plugin.name);
            }
            assert!(plugin.used_by.iter().all(|users| !users.is_empty()), "{}", plugin.name);
            match &plugin.replaced_by {
                Some(other) => {
                    assert_eq!(plugin.status, PluginStatus::Deprecated, "{}", plugin.name);
                    assert_eq!(find(other).unwrap().status, PluginStatus::Supported, "{}", plugin.name);
                }
                None => assert!(plugin.name == "reload" || plugin.status != PluginStatus::Deprecated),
            }
        }
        assert!(measured > 50, "{measured}");
    }

    #[test]
    fn every_plugin_of_the_manual_is_known_by_the_name_that_it_has_there() {
        let source =
            SourceFile { name: "velox.toml".into(), text: include_str!("../tests/manual.toml").into() };
        let (manifest, _) = Manifest::parse(&source, &|_| None).unwrap();
        let mut known = 0;
        for plugin in &manifest.plugins {
            let Origin::GitHub { owner, repository, folder: None } = &plugin.origin else { continue };
            let by_name = find(&plugin.name.value).unwrap();
            assert_eq!(by_name.module, format!("github.com/{}/{}", owner.value, repository.value));
            assert!(by_name.majors.contains(&5));
            known += 1;
        }
        assert_eq!(known, 32);
    }

    #[test]
    fn every_plugin_of_a_release_is_known_by_its_module() {
        assert!(known_releases().len() > 1);
        for release in known_releases() {
            assert_eq!(release.plugins().count(), release.plugins.len());
            assert_eq!(release.plugins().count(), 35);
            for (module, _) in release.plugins() {
                let plugin = find(module).unwrap();
                assert_eq!(plugin.module_path_at(5), module);
                assert_eq!((plugin.module_path_like(module).as_str(), is_official(module)), (module, true));
                assert!(plugin.majors.contains(&5) && !plugin.optional.contains(&5), "{module}");
            }
        }
    }

    #[test]
    fn each_plugin_of_a_preset_is_one_of_a_release() {
        let mut names = HashSet::new();
        for preset in presets() {
            assert_eq!(super::preset(&preset.name), Some(preset));
            assert!(names.insert(&preset.name) && !preset.description.ends_with('.'));
            for name in &preset.plugins {
                let plugin = catalogue().iter().find(|plugin| plugin.name == *name).unwrap();
                assert!(plugin.majors.iter().any(|major| !plugin.optional.contains(major)), "{name}");
                assert!(preset.contains(&plugin.module_path()), "{name}");
            }
        }
        let count = |name: &str| {
            let preset = super::preset(name).unwrap();
            known_releases()[0].plugins().filter(|(module, _)| preset.contains(module)).count()
        };
        assert_eq!((count("minimal"), count("full")), (4, 35));
        assert!(!super::preset("minimal").unwrap().contains("github.com/acme/http"));
        assert_eq!(super::preset("Web"), None);
    }

    #[test]
    fn plugins_of_roadrunner_3() {
        let contains = |major: u64| {
            let in_it =
                |plugin: &&KnownPlugin| plugin.majors.contains(&major) && !plugin.optional.contains(&major);
            catalogue().iter().filter(in_it).map(|plugin| plugin.name.as_str()).collect::<HashSet<_>>()
        };
        let (older, newer) = (contains(5), contains(6));
        let mut added: Vec<_> = newer.difference(&older).copied().collect();
        added.sort_unstable();
        assert_eq!(added, ["nsq", "protoreg", "rate-limiter", "zstd"]);
        assert_eq!(older.difference(&newer).collect::<Vec<_>>(), [&"tcp"]);
        let tcp = find("github.com/roadrunner-server/tcp/v6").unwrap();
        assert_eq!(tcp.module_path(), "github.com/roadrunner-server/tcp/v6");
        assert_eq!(
            find("rate_limiter").unwrap().module_path_like("x/v5"),
            "github.com/roadrunner-server/rate-limiter/v6"
        );
        let http = find("http").unwrap();
        for (reference, roadrunner, suffix) in [
            ("v5.2.0", Some("v3.0.0"), "v5"),
            ("v6.0.0", None, "v6"),
            ("latest", Some("v2025.1.15"), "v5"),
            ("latest", Some("v3.0.0"), "v6"),
            ("main", Some("master"), "v6"),
            ("", None, "v6"),
        ] {
            let path = format!("github.com/roadrunner-server/http/{suffix}");
            assert_eq!(http.module_path_for(reference, roadrunner), path, "{reference} {roadrunner:?}");
        }
        let majors = ["v3.0.0", "v2025.1.15", "master"].map(generation_major);
        assert_eq!(majors, [Some(6), Some(5), None]);
        assert!(ALWAYS_INCLUDED.iter().all(|module| find(module).is_some()));
        assert!(is_official("github.com/roadrunner-server/no-such/v6"));
        assert!(!is_official("github.com/darkweak/souin/plugins/roadrunner") && !is_official("http"));
    }

    #[test]
    fn names_are_found_as_users_write_them() {
        let found = |text| find(text).map(|plugin| plugin.name.as_str());
        for text in
            ["appLogger", "app_logger", "app-logger", "https://github.com/roadrunner-server/app-logger"]
        {
            assert_eq!(found(text), Some("app-logger"));
        }
        assert_eq!(found("googlepubsub"), Some("google-pub-sub"));
        assert_eq!(found("roadrunner_temporal"), Some("roadrunner-temporal"));
        assert_eq!(found("cache"), Some("souin"));
        assert_eq!(found("github.com/roadrunner-server/http/v4"), Some("http"));
        assert_eq!(found("github.com/acme/http"), None);
        assert_eq!(found(""), None);
        assert_eq!(found("/v5"), None);
        assert_eq!(find("souin").unwrap().module_path(), "github.com/darkweak/souin/plugins/roadrunner");
    }

    #[test]
    fn typos_have_their_nearest_names() {
        let near = |text| nearest(text).first().map(|plugin| plugin.name.as_str());
        assert_eq!(near("htttp"), Some("http"));
        assert_eq!(near("premetheus"), Some("prometheus"));
        assert_eq!(near("github.com/roadrunner-server/kakfa/v5"), Some("kafka"));
        assert_eq!(near("tempral"), Some("roadrunner-temporal"));
        assert_eq!(near("xyz"), None);
    }

    #[test]
    fn missing_plugins_follow_from_the_choice() {
        let chosen = |names: &[&str]| names.iter().map(|name| find(name).unwrap()).collect::<Vec<_>>();
        let missing = |names: &[&str]| {
            let missing = missing_plugins(&chosen(names)).into_iter();
            let names =
                |plugins: &[&KnownPlugin]| plugins.iter().map(|it| it.name.clone()).collect::<Vec<_>>();
            missing.map(|it| (it.plugin.name.clone(), names(&it.needed_by).join(" "))).collect::<Vec<_>>()
        };
        let pairs = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
            pairs.iter().map(|(name, by)| ((*name).to_owned(), (*by).to_owned())).collect()
        };
        assert_eq!(missing(&["http", "gzip"]), pairs(&[("server", "http"), ("logger", "http server")]));
        assert_eq!(missing(&["http", "logger", "server"]), []);
        assert_eq!(missing(&["gzip"]), []);
        let completing = |names: &[&str]| {
            let missing = completing_plugins(&chosen(names)).into_iter();
            missing.map(|it| it.plugin.name.as_str()).collect::<Vec<_>>()
        };
        assert_eq!(completing(&["gzip"]), ["server", "http", "logger"]);
        assert_eq!(completing(&["boltdb"]), ["logger"]);

        let unused = |name: &str, names: &[&str]| {
            find(name).unwrap().missing_users(&chosen(names)).map(|users| users.join(" ")).collect::<Vec<_>>()
        };
        assert_eq!(unused("gzip", &["jobs"]), ["http"]);
        assert_eq!(unused("boltdb", &[]), ["jobs kv"]);
        assert_eq!(unused("boltdb", &["kv"]), [""; 0]);
        assert_eq!(unused("prometheus", &["http"]), ["metrics"]);
        assert_eq!(unused("http", &[]), [""; 0]);
    }

    #[test]
    fn words_are_searched_in_names_modules_and_descriptions() {
        let names = |word| search(word).iter().map(|plugin| plugin.name.as_str()).collect::<Vec<_>>();
        assert_eq!(names("kafka"), ["kafka"]);
        assert_eq!(names("RabbitMQ"), ["amqp"]);
        assert_eq!(names("darkweak"), ["souin"]);
        assert_eq!(names("app_log"), ["app-logger"]);
        assert_eq!(
            names("job queues"),
            [
                "amqp",
                "beanstalk",
                "google-pub-sub",
                "jobs",
                "kafka",
                "nats",
                "nsq",
                "sqs",
                "boltdb",
                "memory"
            ]
        );
        assert_eq!(names("temporal php"), ["roadrunner-temporal"]);
        assert_eq!(names("log"), ["app-logger", "logger"]);
        assert_eq!(search("").len(), catalogue().len());
        assert!(search("no such thing").is_empty());
    }
}
