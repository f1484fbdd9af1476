//! The selection on the form page: parsed from forms and links, converted to links and build specs.

use std::{collections::HashMap, fmt::Write as _};

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use url::form_urlencoded;
use velox_api::{BuildSpec, ModuleVersionSpec, PluginSpec, ReplaceSpec, Violation};
use velox_gomod::module::without_major;
use velox_manifest::{GoTarget, parse_target};

use crate::catalogue::{CataloguePlugin, PluginCatalogue};

/// The plugins selected by default: the smallest binary that runs PHP.
const DEFAULT_PLUGINS: [&str; 4] = ["http", "logger", "rpc", "server"];

/// The characters escaped in queries; `/` and `@` keep links readable.
const QUERY_ESCAPES: &AsciiSet = &CONTROLS
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

/// The values of the form; possibly invalid, so that the form can be shown again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Selection {
    pub(super) roadrunner: String,
    /// Plugins of the catalogue.
    pub(super) plugins: Vec<PluginSpec>,
    /// Other plugins, one `module@ref` per line.
    pub(super) more: String,
    pub(super) target: String,
    pub(super) debug: bool,
    pub(super) race: bool,
    pub(super) strict: bool,
    pub(super) dependencies: String,
    pub(super) tags: String,
    /// Replacements, one `old => new` per line.
    pub(super) replaces: String,
    /// Excluded versions, one `module@version` per line.
    pub(super) excludes: String,
    /// The lowest versions of modules, one `module@version` per line.
    pub(super) requires: String,
    pub(super) go: String,
    pub(super) stamp_version: String,
    pub(super) stamp_time: String,
}

/// The maximum number of fields of a form, more than the plugins of any release.
const MAX_FIELDS: usize = 2000;
/// The maximum number of lines of a text field: one more than the items of a list, so that the list is
/// rejected.
const MAX_LINES: usize = 501;
/// The maximum number of violations for invalid lines.
const MAX_INVALID_LINES: usize = 10;
/// The maximum length of a quoted line.
const MAX_SHOWN_BYTES: usize = 200;

/// A submitted form or a followed link, before its values are resolved with the catalogue.
#[derive(Debug, Default)]
pub(super) struct SubmittedForm {
    selection: Selection,
    /// The RoadRunner ref that the form was rendered for. Plugins at the versions of that release are updated
    /// to those of the selected one.
    pub(super) previous_roadrunner: Option<String>,
    /// Versions from the version fields of plugins.
    versions: HashMap<String, String>,
    changes: Vec<SelectionChange>,
    /// Whether the form contains a plugin list, possibly empty.
    has_plugins: bool,
    /// The warning about missing plugins that the user has seen: [`MissingPlugins::key`](super::missing::MissingPlugins::key).
    pub(super) accepted: String,
    /// The text of a `.rr.yaml`.
    pub(super) configuration: String,
}

/// A change of the selected plugins, from a button or a link.
#[derive(Debug)]
enum SelectionChange {
    Clear,
    /// Adds the plugins of the preset with this name.
    AddPreset(String),
    /// Adds the plugin with this module path.
    Add(String),
}

impl SubmittedForm {
    /// Parses a query or a form body; unknown fields and those after the first [`MAX_FIELDS`] are ignored.
    pub(super) fn parse(encoded: &[u8]) -> Self {
        let mut form = Self::default();
        let mut other_ref = String::new();
        for (name, value) in form_urlencoded::parse(encoded).take(MAX_FIELDS) {
            let text = value.trim().replace("\r\n", "\n");
            match &*name {
                "rr" => form.selection.roadrunner = text,
                "ref" => other_ref = text,
                "was" => form.previous_roadrunner = Some(text),
                "accepted" => form.accepted = text,
                "configuration" => form.configuration = value.replace("\r\n", "\n"),
                "set" if text == "none" => form.changes.push(SelectionChange::Clear),
                "preset" => form.changes.push(SelectionChange::AddPreset(text)),
                "add" => {
                    form.changes
                        .extend(text.split(',').map(|module| SelectionChange::Add(module.trim().to_owned())));
                }
                "p" => {
                    form.has_plugins = true;
                    if !text.is_empty() {
                        let (module, reference) = text.split_once('@').unwrap_or((&text, ""));
                        form.selection.plugins.push(PluginSpec::new(module, reference));
                    }
                }
                "target" => form.selection.target = text,
                other => {
                    if let Some(module) = other.strip_prefix("v.") {
                        form.versions.entry(module.to_owned()).or_insert(text);
                    } else if let Some(field) = named(form.selection.texts(), other) {
                        *field = text;
                    } else if let Some(field) = named(form.selection.flags(), other) {
                        *field = true;
                    }
                }
            }
        }
        if !other_ref.is_empty() {
            form.selection.roadrunner = other_ref;
        }
        // A submitted form has no `p` if nothing is selected.
        form.has_plugins |= form.previous_roadrunner.is_some();
        form
    }

    /// Parses the body of a request to build, which selects no plugins by default.
    pub(super) fn parse_body(encoded: &[u8]) -> Self {
        Self { has_plugins: true, ..Self::parse(encoded) }
    }

    /// The RoadRunner ref, if any.
    pub(super) fn roadrunner(&self) -> Option<&str> {
        Some(self.selection.roadrunner.as_str()).filter(|reference| !reference.is_empty())
    }

    /// Whether [`Selection::link`] differs from the submitted query.
    pub(super) fn needs_redirect(&self) -> bool {
        self.previous_roadrunner.is_some() || !self.changes.is_empty() || !self.versions.is_empty()
    }

    /// Whether a target is selected.
    pub(super) fn has_target(&self) -> bool {
        !self.selection.target.is_empty()
    }

    /// Resolves the selection; `previous` is the catalogue that the form was rendered for.
    pub(super) fn resolve(
        mut self,
        catalogue: &PluginCatalogue,
        previous: Option<&PluginCatalogue>,
        default_target: &str,
    ) -> Selection {
        let mut selection = std::mem::take(&mut self.selection);
        if selection.roadrunner.is_empty() {
            selection.roadrunner.clone_from(&catalogue.of);
        }
        if selection.target.is_empty() {
            default_target.clone_into(&mut selection.target);
        }
        let mut by_module: HashMap<&str, &CataloguePlugin> = HashMap::new();
        let mut by_base: HashMap<&str, &CataloguePlugin> = HashMap::new();
        for plugin in catalogue.plugins() {
            by_module.entry(&plugin.module).or_insert(plugin);
            by_base.entry(without_major(&plugin.module)).or_insert(plugin);
        }
        let before: HashMap<&str, &CataloguePlugin> = previous
            .into_iter()
            .flat_map(|previous| previous.plugins().map(|plugin| (plugin.module.as_str(), plugin)))
            .collect();
        let at_release = |plugin: &CataloguePlugin| PluginSpec::new(&plugin.module, plugin.reference());
        let mut plugins: Vec<PluginSpec> = Vec::new();
        for PluginSpec { module, mut reference } in std::mem::take(&mut selection.plugins) {
            if reference.is_empty() {
                reference = self.versions.get(&module).cloned().unwrap_or_default();
            }
            let follows_release = before
                .get(module.as_str())
                .is_some_and(|before| reference.is_empty() || reference == before.reference());
            let same_major = by_module.get(module.as_str());
            match by_base.get(without_major(&module)) {
                Some(plugin)
                    if plugin.always_included
                        && (follows_release
                            || same_major.is_some()
                                && (reference.is_empty() || reference == plugin.reference())) => {}
                Some(plugin) if !plugin.always_included && follows_release => {
                    plugins.push(at_release(plugin));
                }
                Some(plugin) if !plugin.always_included && same_major.is_some() => {
                    let selected = match reference.is_empty() {
                        true => at_release(plugin),
                        false => PluginSpec::new(&module, &reference),
                    };
                    plugins.push(selected);
                }
                _ => {
                    let reference = if reference.is_empty() { "latest" } else { &reference };
                    let separator = if selection.more.is_empty() { "" } else { "\n" };
                    // Writing to a String can't fail.
                    let _ = write!(selection.more, "{separator}{module}@{reference}");
                }
            }
        }
        let selectable = || catalogue.plugins().filter(|plugin| !plugin.always_included);
        if !self.has_plugins && self.changes.is_empty() && selection.more.is_empty() {
            let default = selectable().filter(|plugin| DEFAULT_PLUGINS.contains(&plugin.name.as_str()));
            plugins = default.map(at_release).collect();
        }
        for change in self.changes {
            let is_added: &dyn Fn(&CataloguePlugin) -> bool = match &change {
                SelectionChange::Clear => {
                    plugins.clear();
                    selection.more.clear();
                    continue;
                }
                SelectionChange::AddPreset(name) => &|plugin| catalogue.is_in_preset(plugin, name),
                SelectionChange::Add(module) => &|plugin| plugin.module == *module,
            };
            for plugin in selectable().filter(|plugin| is_added(plugin)) {
                if !plugins.iter().any(|selected| selected.module == plugin.module) {
                    plugins.push(at_release(plugin));
                }
            }
        }
        let position: HashMap<&str, usize> =
            catalogue.plugins().enumerate().map(|(at, plugin)| (plugin.module.as_str(), at)).collect();
        plugins.sort_by_key(|selected| position.get(selected.module.as_str()).copied());
        selection.plugins = plugins;
        selection
    }
}

impl Selection {
    /// The selection for a spec.
    pub(super) fn of(spec: &BuildSpec) -> Self {
        let replaces = spec.replaces.iter().map(|ReplaceSpec { old, new }| format!("{old} => {new}"));
        let versions = |list: &[ModuleVersionSpec]| {
            let lines =
                list.iter().map(|ModuleVersionSpec { module, version }| format!("{module}@{version}"));
            lines.collect::<Vec<_>>().join("\n")
        };
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
            replaces: replaces.collect::<Vec<_>>().join("\n"),
            excludes: versions(&spec.excludes),
            requires: versions(&spec.requires),
            go: spec.go.clone().unwrap_or_default(),
            stamp_version: spec.stamp_version.clone().unwrap_or_default(),
            stamp_time: spec.stamp_time.clone().unwrap_or_default(),
        }
    }

    /// The optional text fields, by their form names.
    fn texts(&mut self) -> [(&'static str, &mut String); 9] {
        [
            ("more", &mut self.more),
            ("dependencies", &mut self.dependencies),
            ("tags", &mut self.tags),
            ("replaces", &mut self.replaces),
            ("excludes", &mut self.excludes),
            ("requires", &mut self.requires),
            ("go", &mut self.go),
            ("stamp_version", &mut self.stamp_version),
            ("stamp_time", &mut self.stamp_time),
        ]
    }

    /// The checkboxes, by their form names.
    fn flags(&mut self) -> [(&'static str, &mut bool); 3] {
        [("debug", &mut self.debug), ("race", &mut self.race), ("strict", &mut self.strict)]
    }

    /// Whether an advanced field is set.
    pub(super) fn is_advanced(&self) -> bool {
        let mut copy = Self { more: String::new(), ..self.clone() };
        copy.texts().into_iter().any(|(_, text)| !text.is_empty())
            || copy.flags().into_iter().any(|(_, set)| *set)
    }

    pub(super) fn count(&self) -> usize {
        self.modules().count()
    }

    /// The module paths of all plugins.
    pub(super) fn modules(&self) -> impl Iterator<Item = &str> {
        let more = lines(&self.more).map(|line| line.split('@').next().unwrap_or(line));
        self.plugins.iter().map(|plugin| plugin.module.as_str()).chain(more)
    }

    /// The selected ref of a plugin of the catalogue.
    pub(super) fn reference(&self, module: &str) -> Option<&str> {
        let plugin = self.plugins.iter().find(|plugin| plugin.module == module);
        plugin.map(|plugin| plugin.reference.as_str())
    }

    /// The path and query of the form page with this selection.
    pub(super) fn link(&self) -> String {
        let mut link = String::from("/?rr=");
        link.extend(utf8_percent_encode(&self.roadrunner, QUERY_ESCAPES));
        let mut add = |name: &str, value: &str| {
            let _ = write!(link, "&{name}={}", utf8_percent_encode(value, QUERY_ESCAPES));
        };
        for plugin in &self.plugins {
            add("p", &format!("{}@{}", plugin.module, plugin.reference));
        }
        if self.plugins.is_empty() {
            add("p", "");
        }
        add("target", &self.target);
        let mut copy = self.clone();
        for (name, text) in copy.texts().into_iter().filter(|(_, text)| !text.is_empty()) {
            add(name, text);
        }
        for (name, _) in copy.flags().into_iter().filter(|(_, set)| **set) {
            add(name, "1");
        }
        link
    }

    /// The build spec, with sorted plugins, and the violations of lines that can't be parsed.
    pub(super) fn spec(&self) -> (BuildSpec, Vec<Violation>) {
        let mut violations = Vec::new();
        let mut plugins = self.plugins.clone();
        plugins.extend(parse_lines("more", &self.more, "module@version", &mut violations, |line| {
            let (module, reference) = line.split_once('@')?;
            (!reference.is_empty()).then(|| PluginSpec::new(module, reference))
        }));
        plugins.sort();
        let replaces =
            parse_lines("replaces", &self.replaces, "module => module@version", &mut violations, |line| {
                let (old, new) = line.split_once("=>").or_else(|| line.split_once(' '))?;
                Some(ReplaceSpec::new(old.trim(), new.trim()))
            });
        let mut versions = |field, text| {
            parse_lines(field, text, "module@version", &mut violations, |line| {
                let (module, version) = line.split_once('@').or_else(|| line.split_once(' '))?;
                Some(ModuleVersionSpec::new(module.trim(), version.trim()))
            })
        };
        let excludes = versions("excludes", &self.excludes);
        let requires = versions("requires", &self.requires);
        if plugins.is_empty() && violations.is_empty() {
            violations.push(Violation::new("plugins", "select at least one plugin"));
        }
        let mut invalid = |field, message: String| violations.push(Violation::new(field, message));
        let target = parse_target(&self.target).unwrap_or_else(|message| {
            invalid("target", message);
            GoTarget::host()
        });
        let dependencies = match self.dependencies.as_str() {
            "" => None,
            word => word.parse().map_err(|message| invalid("dependencies", message)).ok(),
        };
        let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        let spec = BuildSpec {
            roadrunner: self.roadrunner.clone(),
            plugins,
            replaces,
            excludes,
            requires,
            go: some(self.go.trim()),
            target,
            tags: self.tags.split([',', ' ']).filter(|tag| !tag.is_empty()).map(str::to_owned).collect(),
            debug: self.debug,
            race: self.race,
            strict: self.strict,
            dependencies,
            stamp_version: some(&self.stamp_version),
            stamp_time: some(&self.stamp_time),
        };
        (spec, violations)
    }
}

fn named<'a, T, const N: usize>(fields: [(&'static str, &'a mut T); N], name: &str) -> Option<&'a mut T> {
    fields.into_iter().find(|(field, _)| *field == name).map(|(_, value)| value)
}

fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty())
}

fn parse_lines<T>(
    field: &str,
    text: &str,
    expected: &str,
    violations: &mut Vec<Violation>,
    parse: impl Fn(&str) -> Option<T>,
) -> Vec<T> {
    let mut parsed = Vec::new();
    let mut invalid = Vec::new();
    for line in lines(text).take(MAX_LINES) {
        match parse(line) {
            Some(value) => parsed.push(value),
            None => invalid.push(line),
        }
    }
    for line in invalid.iter().take(MAX_INVALID_LINES) {
        let end = line.floor_char_boundary(MAX_SHOWN_BYTES);
        let shown = line.get(..end).unwrap_or_default();
        violations.push(Violation::new(field, format!("expected `{expected}`, found `{shown}`")));
    }
    if let more @ 1.. = invalid.len().saturating_sub(MAX_INVALID_LINES) {
        violations.push(Violation::new(field, format!("{more} more lines are invalid")));
    }
    parsed
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

    async fn selection(query: &str) -> Selection {
        let form = SubmittedForm::parse(query.as_bytes());
        let previous = match &form.previous_roadrunner {
            Some(previous) => Some(catalogue(Some(previous)).await),
            None => None,
        };
        let catalogue = catalogue(form.roadrunner()).await;
        form.resolve(&catalogue, previous.as_ref(), "linux/amd64")
    }

    fn of_query(link: &str) -> &str {
        link.split_once('?').unwrap().1
    }

    #[tokio::test]
    async fn default_selection_is_the_smallest_binary_of_the_newest_release() {
        let selected = selection("").await;
        assert_eq!(selected.roadrunner, Releases::built_in().versions()[0]);
        assert_eq!(selected.count(), DEFAULT_PLUGINS.len());
        let (spec, violations) = selected.spec();
        assert!(violations.is_empty());
        assert!(spec.normalized().unwrap().is_exact());
    }

    #[tokio::test]
    async fn links_round_trip() {
        let spec = BuildSpec {
            roadrunner: "feature/a b&c".to_owned(),
            plugins: vec![
                PluginSpec::new("example.com/acme/x", "master"),
                // Of an unknown RoadRunner, the form shows the newest major version.
                PluginSpec::new("github.com/roadrunner-server/http/v6", "v6.2.7"),
            ],
            replaces: vec![ReplaceSpec::new("a.b/c", "a.b/d@v1.0.0+incompatible")],
            excludes: vec![ModuleVersionSpec::new("a.b/c", "v1.0.0")],
            requires: vec![ModuleVersionSpec::new("a.b/e", "v1.2.0")],
            go: Some("1.26".to_owned()),
            target: parse_target("windows/arm64").unwrap(),
            tags: vec!["one".to_owned(), "two".to_owned()],
            debug: true,
            race: true,
            strict: true,
            dependencies: Some(Dependencies::Minimal),
            stamp_version: Some("1.2.3+x=y".to_owned()),
            stamp_time: Some("2026-01-02T03:04:05Z".to_owned()),
        };
        let link = Selection::of(&spec).link();
        let selected = selection(of_query(&link)).await;
        assert_eq!(selected.more, "example.com/acme/x@master");
        assert_eq!(selected.spec(), (spec, Vec::new()));
        assert_eq!(selection(of_query(&selected.link())).await, selected);
    }

    #[tokio::test]
    async fn empty_selection_round_trips() {
        let selected = selection("set=none").await;
        assert_eq!(selected.count(), 0);
        assert_eq!(selection(of_query(&selected.link())).await, selected);
        assert_eq!(selected.spec().1[0].field, "plugins");
        // The form has no `p` without a selection.
        assert_eq!(selection("was=v2025.1.15&rr=v2025.1.15&target=linux/amd64").await.count(), 0);
        let submitted = SubmittedForm::parse_body(b"rr=v2025.1.15");
        let submitted = submitted.resolve(&catalogue(Some("v2025.1.15")).await, None, "linux/amd64");
        assert_eq!(submitted.count(), 0);
    }

    #[tokio::test]
    async fn plugins_are_added_to_the_selection() {
        let full = selection("preset=full").await;
        assert_eq!(full.count(), 33, "without informer and resetter");
        let web = selection("preset=web").await;
        assert!(web.reference(HTTP).is_some() && web.count() < full.count());
        let both =
            selection(&format!("preset=web&p={HTTP}@v5.2.0&add=github.com/roadrunner-server/kv/v5,no")).await;
        assert_eq!((both.count(), both.reference(HTTP)), (web.count() + 1, Some("v5.2.0")));
        assert_eq!(selection(of_query(&both.link())).await, both);
        assert_eq!(selection("more=a.b/c@v1&set=none&preset=minimal").await.count(), DEFAULT_PLUGINS.len());
        assert_eq!(selection("preset=no").await.count(), 0);
    }

    #[tokio::test]
    async fn only_other_versions_of_always_included_plugins_are_selected() {
        const INFORMER: &str = "github.com/roadrunner-server/informer/v5";
        let own =
            catalogue(None).await.plugins().find(|it| it.module == INFORMER).unwrap().reference().to_owned();
        for query in [format!("p={INFORMER}"), format!("p={INFORMER}@{own}")] {
            assert_eq!(selection(&query).await.count(), 0, "{query}");
        }
        assert_eq!(selection(&format!("p={INFORMER}@v5.0.0")).await.more, format!("{INFORMER}@v5.0.0"));
        let query = format!("rr=v2024.2.1&was={}&p={INFORMER}@{own}", catalogue(None).await.of);
        assert_eq!(selection(&query).await.count(), 0);
    }

    #[tokio::test]
    async fn unchanged_versions_follow_the_release() {
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
        let selected = selection(&query).await;
        assert_eq!(selected.reference(HTTP), Some(&*of(&older, HTTP)));
        assert_eq!(selected.reference(rpc), Some("v5.0.0"));
    }

    #[tokio::test]
    async fn other_majors_are_kept() {
        let selected = selection("p=github.com/roadrunner-server/http/v4@v4.7.0").await;
        assert_eq!(
            (selected.plugins.len(), &*selected.more),
            (0, "github.com/roadrunner-server/http/v4@v4.7.0")
        );
    }

    #[test]
    fn invalid_lines_are_reported_by_field() {
        let selected = Selection {
            more: "example.com/x\n".to_owned(),
            replaces: "a.b/c".to_owned(),
            excludes: "a.b/c".to_owned(),
            requires: "a.b/c".to_owned(),
            target: "linux/amd64".to_owned(),
            ..Selection::default()
        };
        let fields: Vec<String> = selected.spec().1.into_iter().map(|violation| violation.field).collect();
        assert_eq!(fields, ["more", "replaces", "excludes", "requires"]);
    }
}
