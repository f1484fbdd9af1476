use anyhow::{Context, Result};
use toml_edit::{DocumentMut, Item, Table, value};

/// RoadRunner with all its plugins, as the acceptance tests build it.
const ALL: &str = include_str!("../../crates/vx/tests/real-35-plugins.toml");

/// The plugins of [`BenchPlugins::Small`].
const SMALL: [&str; 5] = ["http", "server", "rpc", "logger", "fileserver"];

/// RoadRunner's own module, at the release that the configuration names.
pub(crate) const ROADRUNNER: &str = "github.com/roadrunner-server/roadrunner/v2025";
/// The release of [`ROADRUNNER`].
pub(crate) const RELEASE: &str = "v2025.1.15";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BenchPlugins {
    All,
    Small,
}

impl BenchPlugins {
    /// The plugin that `plugin-added` adds.
    pub(crate) const fn last(self) -> &'static str {
        match self {
            Self::All => "app_logger",
            Self::Small => "fileserver",
        }
    }

    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::All => "35 plugins",
            Self::Small => "5 plugins",
        }
    }
}

/// A velox.toml.
#[derive(Clone, Debug)]
pub(crate) struct BenchConfig(DocumentMut);

impl BenchConfig {
    pub(crate) fn new(set: BenchPlugins) -> Result<Self> {
        let document: DocumentMut = ALL.parse().context("the configuration of all plugins")?;
        let mut new = Self(document);
        if set == BenchPlugins::Small {
            new.plugins()?.retain(|name, _| SMALL.contains(&name));
        }
        Ok(new)
    }

    pub(crate) fn without(mut self, plugin: &str) -> Result<Self> {
        self.plugins()?.remove(plugin).with_context(|| format!("no plugin named {plugin}"))?;
        Ok(self)
    }

    /// Only this many plugins, those of [`BenchPlugins::Small`] first.
    pub(crate) fn first(mut self, count: usize) -> Result<Self> {
        let mut left = count.saturating_sub(SMALL.len());
        self.plugins()?.retain(|name, _| {
            let is_small = SMALL.contains(&name);
            let is_next = !is_small && left > 0;
            left -= usize::from(is_next);
            is_small || is_next
        });
        Ok(self)
    }

    /// Downloads RoadRunner from this forge, as Velox does.
    pub(crate) fn with_forge(mut self, base_url: &str) -> Self {
        let mut github = Table::new();
        github["base_url"] = value(base_url);
        github["token"] = Item::Table(Table::from_iter([("token", "x")]));
        self.0["github"] = Item::Table(github);
        self
    }

    pub(crate) fn target(mut self, os: &str, arch: &str) -> Self {
        self.0["target_platform"] = Item::Table(Table::from_iter([("os", os), ("arch", arch)]));
        self
    }

    /// The plugins' modules, each with its version.
    pub(crate) fn modules(mut self) -> Result<Vec<(String, String)>> {
        let read = |(name, plugin): (&str, &Item)| {
            let text = |key| plugin.get(key).and_then(Item::as_str).map(str::to_owned);
            text("module_name").zip(text("tag")).with_context(|| format!("{name} lacks a key"))
        };
        self.plugins()?.iter().map(read).collect()
    }

    pub(crate) fn text(&self) -> String {
        self.0.to_string()
    }

    fn plugins(&mut self) -> Result<&mut Table> {
        self.0["plugins"].as_table_mut().context("the configuration has no plugins")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_and_places_are_what_they_are_called() {
        let count = |mut configuration: BenchConfig| configuration.plugins().unwrap().len();
        assert!(ALL.contains(RELEASE));
        assert_eq!(count(BenchConfig::new(BenchPlugins::All).unwrap()), 35);
        assert_eq!(count(BenchConfig::new(BenchPlugins::Small).unwrap()), 5);
        for size in [5, 10, 35] {
            assert_eq!(count(BenchConfig::new(BenchPlugins::All).unwrap().first(size).unwrap()), size);
        }
        for set in [BenchPlugins::All, BenchPlugins::Small] {
            BenchConfig::new(set).unwrap().without(set.last()).unwrap();
        }
        let text = BenchConfig::new(BenchPlugins::Small)
            .unwrap()
            .with_forge("http://localhost")
            .target("linux", "arm64")
            .text();
        assert!(text.contains("[github]\nbase_url = \"http://localhost\"\n"), "{text}");
        assert!(text.contains("[github.token]\ntoken = \"x\"\n"), "{text}");
        assert!(text.contains("[target_platform]\nos = \"linux\"\narch = \"arm64\"\n"), "{text}");
    }
}
