//! What is chosen on the page: what its form and its links say, and the request that it makes.

use std::fmt::Write as _;

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use url::form_urlencoded;
use velox_api::{BuildSpec, ExcludeSpec, PluginSpec, ReplaceSpec, Violation};
use velox_manifest::{GoTarget, parse_target};

use crate::catalogue::{CataloguePlugin, PluginCatalogue, base};

/// The smallest server that runs PHP: what is chosen before the user chooses.
const USUAL: [&str; 4] = ["http", "logger", "rpc", "server"];

/// What may not stand in a query as it is; `/` and `@` may, which keeps links readable.
const ESCAPED: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'&')
    .add(b'\'')
    .add(b'+')
    .add(b'<')
    .add(b'=')
    .add(b'>');

/// What a form or a link says, with all that is wrong in it, so that the form can be shown again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Choice {
    /// RoadRunner's ref; empty: the newest release.
    pub(super) roadrunner: String,
    /// Those of the catalogue.
    pub(super) plugins: Vec<PluginSpec>,
    /// Others, `module@ref`, one a line.
    pub(super) more: String,
    pub(super) target: String,
    pub(super) debug: bool,
    pub(super) race: bool,
    pub(super) strict: bool,
    pub(super) dependencies: String,
    pub(super) tags: String,
    /// `old => new`, one a line.
    pub(super) replaces: String,
    /// `module@version`, one a line.
    pub(super) excludes: String,
    pub(super) stamp_version: String,
    pub(super) stamp_time: String,
}

/// What was sent, before the catalogue is asked about it.
#[derive(Debug, Default)]
pub(super) struct Sent {
    choice: Choice,
    /// The RoadRunner that the form was shown for. Versions that were its own follow to the one that is chosen now.
    pub(super) was: Option<String>,
    /// Versions that stand beside the plugins instead of in their values.
    versions: Vec<(String, String)>,
    set: Option<Set>,
    /// Whether plugins are named at all, be it that there are none.
    named: bool,
}

#[derive(Debug, Clone, Copy)]
enum Set {
    Release,
    None,
}

impl Sent {
    /// Reads a query or the body of a form. What isn't known is left out.
    pub(super) fn read(encoded: &[u8]) -> Self {
        let mut sent = Self::default();
        let mut typed = String::new();
        for (name, value) in form_urlencoded::parse(encoded) {
            let choice = &mut sent.choice;
            let text = value.trim().to_owned();
            match &*name {
                "rr" => choice.roadrunner = text,
                "ref" => typed = text,
                "was" => sent.was = Some(text),
                "set" if text == "release" => sent.set = Some(Set::Release),
                "set" if text == "none" => sent.set = Some(Set::None),
                "p" => {
                    sent.named = true;
                    if !text.is_empty() {
                        let (module, reference) = text.split_once('@').unwrap_or((&text, ""));
                        choice.plugins.push(PluginSpec::new(module, reference));
                    }
                }
                "more" => choice.more = value.trim_end().replace("\r\n", "\n"),
                "target" => choice.target = text,
                "debug" => choice.debug = true,
                "race" => choice.race = true,
                "strict" => choice.strict = true,
                "dependencies" => choice.dependencies = text,
                "tags" => choice.tags = text,
                "replaces" => choice.replaces = value.trim_end().replace("\r\n", "\n"),
                "excludes" => choice.excludes = value.trim_end().replace("\r\n", "\n"),
                "stamp_version" => choice.stamp_version = text,
                "stamp_time" => choice.stamp_time = text,
                other => {
                    if let Some(module) = other.strip_prefix("v.") {
                        sent.versions.push((module.to_owned(), text));
                    }
                }
            }
        }
        if !typed.is_empty() {
            sent.choice.roadrunner = typed;
        }
        sent
    }

    /// RoadRunner's ref, where one is named.
    pub(super) fn roadrunner(&self) -> Option<&str> {
        Some(self.choice.roadrunner.as_str()).filter(|named| !named.is_empty())
    }

    /// Whether there is a plainer way to say the same.
    pub(super) fn is_roundabout(&self) -> bool {
        self.was.is_some() || self.set.is_some() || !self.versions.is_empty()
    }

    /// What was chosen, of what there is; `was` is what there was for the RoadRunner that the form was shown for.
    pub(super) fn settled(mut self, catalogue: &PluginCatalogue, was: Option<&PluginCatalogue>) -> Choice {
        let mut choice = std::mem::take(&mut self.choice);
        if choice.roadrunner.is_empty() {
            choice.roadrunner.clone_from(&catalogue.of);
        }
        if choice.target.is_empty() {
            choice.target.clone_from(&catalogue.target);
        }
        let offered = |module: &str| catalogue.plugins().find(|offered| offered.module == module);
        let own = |offered: &CataloguePlugin| PluginSpec::new(&offered.module, offered.reference());
        let mut chosen: Vec<PluginSpec> = Vec::new();
        for PluginSpec { module, mut reference } in std::mem::take(&mut choice.plugins) {
            if reference.is_empty() {
                let beside = self.versions.iter().find(|(of, _)| *of == module);
                reference = beside.map(|(_, version)| version.clone()).unwrap_or_default();
            }
            let before = was.and_then(|was| was.plugins().find(|offered| offered.module == module));
            let follows =
                before.is_some_and(|before| reference.is_empty() || reference == before.reference());
            let now = catalogue.plugins().find(|offered| base(&offered.module) == base(&module));
            match (now, offered(&module)) {
                (Some(now), _) if follows => chosen.push(own(now)),
                (_, Some(offered)) if reference.is_empty() => chosen.push(own(offered)),
                (_, Some(_)) => chosen.push(PluginSpec::new(&module, &reference)),
                (_, None) => {
                    let reference = if reference.is_empty() { "latest" } else { &reference };
                    let gap = if choice.more.is_empty() { "" } else { "\n" };
                    // Writing to a String can't fail.
                    let _ = write!(choice.more, "{gap}{module}@{reference}");
                }
            }
        }
        match self.set {
            Some(Set::Release) => {
                chosen = catalogue.plugins().filter(|offered| offered.version.is_some()).map(own).collect();
            }
            Some(Set::None) => chosen.clear(),
            None if !self.named && choice.more.is_empty() => {
                let usual = catalogue.plugins().filter(|offered| USUAL.contains(&offered.name.as_str()));
                chosen = usual.map(own).collect();
            }
            None => {}
        }
        choice.plugins = chosen;
        choice
    }
}

impl Choice {
    /// The choice that asks for this.
    pub(super) fn of(spec: &BuildSpec) -> Self {
        let lines = |lines: Vec<String>| lines.join("\n");
        Self {
            roadrunner: spec.roadrunner.clone(),
            plugins: spec.plugins.clone(),
            more: String::new(),
            target: spec.target.to_string(),
            debug: spec.debug,
            race: spec.race,
            strict: spec.strict,
            dependencies: spec.dependencies.map(|choice| choice.word().to_owned()).unwrap_or_default(),
            tags: spec.tags.join(","),
            replaces: lines(
                spec.replaces.iter().map(|ReplaceSpec { old, new }| format!("{old} => {new}")).collect(),
            ),
            excludes: lines(
                spec.excludes
                    .iter()
                    .map(|ExcludeSpec { module, version }| format!("{module}@{version}"))
                    .collect(),
            ),
            stamp_version: spec.stamp_version.clone().unwrap_or_default(),
            stamp_time: spec.stamp_time.clone().unwrap_or_default(),
        }
    }

    /// How many plugins are chosen.
    pub(super) fn count(&self) -> usize {
        self.plugins.len() + self.more.lines().filter(|line| !line.trim().is_empty()).count()
    }

    /// The ref of a plugin of the catalogue, where it is chosen.
    pub(super) fn reference(&self, module: &str) -> Option<&str> {
        let chosen = self.plugins.iter().find(|plugin| plugin.module == module);
        chosen.map(|plugin| plugin.reference.as_str())
    }

    /// The path and query that show this choice again.
    pub(super) fn link(&self) -> String {
        let mut link = String::from("/?rr=");
        link.extend(utf8_percent_encode(&self.roadrunner, ESCAPED));
        let mut add = |name: &str, value: &str| {
            let _ = write!(link, "&{name}={}", utf8_percent_encode(value, ESCAPED));
        };
        for plugin in &self.plugins {
            add("p", &format!("{}@{}", plugin.module, plugin.reference));
        }
        if self.plugins.is_empty() {
            add("p", "");
        }
        add("target", &self.target);
        let texts = [
            ("more", &self.more),
            ("dependencies", &self.dependencies),
            ("tags", &self.tags),
            ("replaces", &self.replaces),
            ("excludes", &self.excludes),
            ("stamp_version", &self.stamp_version),
            ("stamp_time", &self.stamp_time),
        ];
        for (name, text) in texts.into_iter().filter(|(_, text)| !text.is_empty()) {
            add(name, text);
        }
        for (name, set) in [("debug", self.debug), ("race", self.race), ("strict", self.strict)] {
            if set {
                add(name, "1");
            }
        }
        link
    }

    /// The request, its lists sorted; what can't be read of it is left out and said.
    pub(super) fn spec(&self) -> (BuildSpec, Vec<Violation>) {
        let mut wrong = Vec::new();
        let mut plugins = self.plugins.clone();
        for line in lines(&self.more) {
            match line.split_once('@') {
                Some((module, reference)) if !reference.is_empty() => {
                    plugins.push(PluginSpec::new(module, reference))
                }
                _ => wrong.push(Violation::new(
                    "more",
                    format!("`{line}` has no version: write it as module@version, or module@latest"),
                )),
            }
        }
        plugins.sort();
        let mut replaces = Vec::new();
        for line in lines(&self.replaces) {
            match line.split_once("=>").or_else(|| line.split_once(' ')) {
                Some((old, new)) => {
                    replaces.push(ReplaceSpec { old: old.trim().to_owned(), new: new.trim().to_owned() });
                }
                None => wrong.push(Violation::new(
                    "replaces",
                    format!("`{line}` doesn't say by what: write it as module => module@version"),
                )),
            }
        }
        let mut excludes = Vec::new();
        for line in lines(&self.excludes) {
            match line.split_once('@').or_else(|| line.split_once(' ')) {
                Some((module, version)) => {
                    let (module, version) = (module.trim().to_owned(), version.trim().to_owned());
                    excludes.push(ExcludeSpec { module, version });
                }
                None => wrong.push(Violation::new(
                    "excludes",
                    format!("`{line}` has no version: write it as module@version"),
                )),
            }
        }
        if plugins.is_empty() && wrong.is_empty() {
            wrong.push(Violation::new("plugins", "a server is made of plugins: choose at least one"));
        }
        let target = parse_target(&self.target).unwrap_or_else(|message| {
            wrong.push(Violation::new("target", message));
            GoTarget::host()
        });
        let dependencies = match self.dependencies.as_str() {
            "" => None,
            word => word.parse().map_err(|message| wrong.push(Violation::new("dependencies", message))).ok(),
        };
        let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        let spec = BuildSpec {
            roadrunner: self.roadrunner.clone(),
            plugins,
            replaces,
            excludes,
            target,
            tags: self.tags.split([',', ' ']).filter(|tag| !tag.is_empty()).map(str::to_owned).collect(),
            debug: self.debug,
            race: self.race,
            strict: self.strict,
            dependencies,
            stamp_version: some(&self.stamp_version),
            stamp_time: some(&self.stamp_time),
        };
        (spec, wrong)
    }
}

fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use velox_manifest::Dependencies;

    use super::*;
    use crate::releases::Releases;

    const HTTP: &str = "github.com/roadrunner-server/http/v5";

    async fn catalogue(roadrunner: Option<&str>) -> PluginCatalogue {
        PluginCatalogue::of(&Releases::built_in(), roadrunner).await
    }

    async fn chosen(query: &str) -> Choice {
        let sent = Sent::read(query.as_bytes());
        let was = match &sent.was {
            Some(was) => Some(catalogue(Some(was)).await),
            None => None,
        };
        let catalogue = catalogue(sent.roadrunner()).await;
        sent.settled(&catalogue, was.as_ref())
    }

    fn of_query(link: &str) -> &str {
        link.split_once('?').unwrap().1
    }

    #[tokio::test]
    async fn at_first_it_is_the_smallest_server_of_the_newest_release() {
        let choice = chosen("").await;
        assert_eq!(choice.roadrunner, Releases::built_in().versions()[0]);
        assert_eq!(choice.count(), USUAL.len());
        let (spec, wrong) = choice.spec();
        assert!(wrong.is_empty());
        assert!(spec.normalized().unwrap().is_exact(), "so that it is built only once");
    }

    #[tokio::test]
    async fn a_link_shows_the_same_choice_again() {
        let spec = BuildSpec {
            roadrunner: "feature/a b&c".to_owned(),
            plugins: vec![PluginSpec::new("example.com/acme/x", "master"), PluginSpec::new(HTTP, "v5.2.7")],
            replaces: vec![ReplaceSpec {
                old: "a.b/c".to_owned(),
                new: "a.b/d@v1.0.0+incompatible".to_owned(),
            }],
            excludes: vec![ExcludeSpec { module: "a.b/c".to_owned(), version: "v1.0.0".to_owned() }],
            target: parse_target("windows/arm64").unwrap(),
            tags: vec!["one".to_owned(), "two".to_owned()],
            debug: true,
            race: true,
            strict: true,
            dependencies: Some(Dependencies::Minimal),
            stamp_version: Some("1.2.3+x=y".to_owned()),
            stamp_time: Some("2026-01-02T03:04:05Z".to_owned()),
        };
        let link = Choice::of(&spec).link();
        let choice = chosen(of_query(&link)).await;
        assert_eq!(choice.more, "example.com/acme/x@master");
        assert_eq!(choice.spec(), (spec, Vec::new()));
        assert_eq!(chosen(of_query(&choice.link())).await, choice);
    }

    #[tokio::test]
    async fn nothing_chosen_stays_nothing() {
        let choice = chosen("set=none").await;
        assert_eq!(choice.count(), 0);
        assert_eq!(chosen(of_query(&choice.link())).await, choice);
        assert_eq!(choice.spec().1[0].field, "plugins");
        assert_eq!(chosen("set=release").await.count(), 35);
    }

    #[tokio::test]
    async fn versions_follow_to_another_release_unless_they_were_changed() {
        let newest = catalogue(None).await;
        let older = catalogue(Some("v2024.2.1")).await;
        let of = |catalogue: &PluginCatalogue, module: &str| {
            catalogue.plugins().find(|plugin| plugin.module == module).unwrap().reference().to_owned()
        };
        let rpc = "github.com/roadrunner-server/rpc/v5";
        let query = format!(
            "rr=v2024.2.1&was={}&p={HTTP}&v.{HTTP}={}&p={rpc}&v.{rpc}=v5.0.0",
            newest.of,
            of(&newest, HTTP)
        );
        let choice = chosen(&query).await;
        assert_eq!(choice.reference(HTTP), Some(&*of(&older, HTTP)));
        assert_eq!(choice.reference(rpc), Some("v5.0.0"));
    }

    #[tokio::test]
    async fn another_major_than_the_releases_own_is_kept_as_it_is() {
        let choice = chosen("p=github.com/roadrunner-server/http/v4@v4.7.0").await;
        assert_eq!((choice.plugins.len(), &*choice.more), (0, "github.com/roadrunner-server/http/v4@v4.7.0"));
    }

    #[test]
    fn what_cannot_be_read_is_said_where_it_stands() {
        let choice = Choice {
            more: "example.com/x\n".to_owned(),
            replaces: "a.b/c".to_owned(),
            excludes: "a.b/c".to_owned(),
            target: GoTarget::host().to_string(),
            ..Choice::default()
        };
        let fields: Vec<String> = choice.spec().1.into_iter().map(|wrong| wrong.field).collect();
        assert_eq!(fields, ["more", "replaces", "excludes"]);
    }
}
