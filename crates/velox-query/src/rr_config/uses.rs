//! The settings that need a plugin, and the plugins that serve them.

use std::{collections::BTreeSet, ops::Range};

use velox_manifest::{
    ConfigNode, Diagnostic, Level,
    catalogue::{self, KnownPlugin, PluginStatus},
};

use super::{MAX_FINDINGS, RrConfig, RrConfigReport, entries, find, is_null, is_variable, list_items, v3};
use crate::{DisabledCause, FactKind, PluginGraph, PluginNode, PluginStart, last_part, without_major};

/// Keys whose values name plugins. The plugin that reads the key collects them by an interface with this method.
const LISTS: [PluginNames; 5] = [
    PluginNames { key: "http.middleware", method: "Middleware", title: "HTTP middleware" },
    PluginNames { key: "jobs.pipelines.*.driver", method: "DriverFromConfig", title: "queue driver" },
    PluginNames { key: "kv.*.driver", method: "KvFromConfig", title: "key-value driver" },
    PluginNames { key: "grpc.interceptors", method: "UnaryServerInterceptor", title: "gRPC interceptor" },
    PluginNames { key: "temporal.interceptors", method: "WorkerInterceptor", title: "Temporal interceptor" },
];

/// The sections that RoadRunner reads itself, with or without plugins.
const OWN_SECTIONS: [&str; 4] = ["version", "include", "envfile", "endure"];

/// The plugin that starts without a section, and that others need.
const LOGGER: &str = "logger";

/// The first major version of the plugins of RoadRunner 3.
const V3_PLUGINS: u64 = 6;

struct PluginNames {
    key: &'static str,
    method: &'static str,
    title: &'static str,
}

/// A setting that needs a plugin: a section, or a value that names a plugin.
struct ConfigUse {
    /// The key, with `*` for names.
    key: String,
    name: Option<String>,
    file: usize,
    span: Option<Range<usize>>,
}

impl ConfigUse {
    /// As in the catalogue: `kafka`, `http.middleware=gzip`.
    fn setting(&self) -> String {
        match &self.name {
            Some(name) => format!("{}={name}", self.key),
            None => self.key.clone(),
        }
    }

    fn list(&self) -> Option<&'static PluginNames> {
        LISTS.iter().find(|list| self.name.is_some() && list.key == self.key)
    }

    fn is_nested_section(&self) -> bool {
        self.name.is_none() && self.key.contains('.')
    }
}

/// The plugins of the binary.
#[derive(Clone, Copy)]
pub enum CompiledPlugins<'a> {
    /// What their source says.
    Graph(&'a PluginGraph),
    /// Their names and module paths, before anything was compiled: what the catalogue says of them.
    Modules(&'a [(String, String)]),
}

/// The result of [`RrConfig::check`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RrConfigCheck {
    /// The findings of each file.
    pub reports: Vec<RrConfigReport>,
    /// The plugins of the binary that no setting uses: their names and module paths.
    pub unused: Vec<(String, String)>,
}

/// The plugins that a configuration needs.
pub struct RrConfigPlugins {
    /// The plugins, by name.
    pub plugins: Vec<&'static KnownPlugin>,
    /// The settings that no known plugin serves, and what else was found.
    pub reports: Vec<RrConfigReport>,
}

impl RrConfig {
    /// Checks that the plugins of a binary serve each setting. `plugin_major` is the major version of RoadRunner's own
    /// plugins, if it is known.
    #[must_use]
    pub fn check(&self, compiled: CompiledPlugins<'_>, plugin_major: Option<u64>) -> RrConfigCheck {
        if self.is_invalid() {
            return RrConfigCheck { reports: self.reports(Vec::new()), unused: Vec::new() };
        }
        let served = match compiled {
            CompiledPlugins::Graph(graph) => ServedSettings::of_graph(graph),
            CompiledPlugins::Modules(modules) => ServedSettings::of_modules(modules),
        };
        let uses = self.uses();
        let missing = uses.iter().filter_map(|used| served.finding(self, used, plugin_major));
        let mut findings: Vec<(usize, Diagnostic)> = missing.take(2 * MAX_FINDINGS).collect();
        if let CompiledPlugins::Graph(graph) = compiled {
            self.check_starts(graph, &uses, &mut findings);
        }
        if plugin_major.is_some_and(|major| major >= V3_PLUGINS) {
            let modules = match compiled {
                CompiledPlugins::Graph(graph) => {
                    graph.plugins.iter().map(|plugin| plugin.module.clone()).collect()
                }
                CompiledPlugins::Modules(modules) => {
                    modules.iter().map(|(_, module)| module.clone()).collect::<Vec<_>>()
                }
            };
            for (index, file) in self.files.iter().enumerate() {
                // Changes of behavior are for `vx migrate`.
                let is_new = |finding: &Diagnostic| {
                    finding.level == Level::Error
                        && !findings
                            .iter()
                            .any(|(other, known)| *other == index && known.span == finding.span)
                        && !file.findings.iter().any(|known| known.span == finding.span)
                };
                let changes = v3::changes(&file.root, &self.directory, &modules);
                let changes: Vec<_> = changes.into_iter().filter(is_new).collect();
                findings.extend(changes.into_iter().map(|finding| (index, finding)));
            }
        }
        let used: BTreeSet<String> = uses.iter().map(ConfigUse::setting).collect();
        RrConfigCheck { reports: self.reports(findings), unused: served.unused(&used) }
    }

    /// The plugins that serve the settings, and those that they need, according to the catalogue.
    #[must_use]
    pub fn plugins(&self) -> RrConfigPlugins {
        let uses = self.uses();
        let served = ServedSettings::of_modules(&[]);
        let is_unknown = |used: &&ConfigUse| {
            provider(&used.setting()).is_none_or(|known| known.status == PluginStatus::Deprecated)
        };
        let unknown = uses.iter().filter(is_unknown).filter_map(|used| served.finding(self, used, None));
        let known = uses.iter().filter_map(|used| provider(&used.setting()));
        let mut plugins: Vec<&KnownPlugin> =
            known.filter(|plugin| plugin.status != PluginStatus::Deprecated).collect();
        plugins.extend(catalogue::missing_plugins(&plugins).into_iter().map(|missing| missing.plugin));
        plugins.sort_by(|one, other| one.name.cmp(&other.name));
        plugins.dedup_by(|one, other| one.name == other.name);
        RrConfigPlugins { plugins, reports: self.reports(unknown.take(2 * MAX_FINDINGS).collect()) }
    }

    fn uses(&self) -> Vec<ConfigUse> {
        let mut uses = Vec::new();
        for (file, entry) in self.sections() {
            let key = entry.key.to_lowercase();
            // A conventional place for anchors.
            if key.starts_with("x-") || key.starts_with('.') {
                continue;
            }
            let section = |key: String, span| ConfigUse { key, name: None, file, span };
            let nested = entries(&entry.node).iter().filter(|nested| !is_null(&nested.node));
            uses.extend(
                nested.map(|nested| {
                    section(format!("{key}.{}", nested.key.to_lowercase()), nested.span.clone())
                }),
            );
            for list in &LISTS {
                let mut parts = list.key.split('.');
                if parts.next() == Some(key.as_str()) {
                    let mut found = Vec::new();
                    names_at(&entry.node, &parts.collect::<Vec<_>>(), &mut found);
                    uses.extend(found.into_iter().map(|(name, span)| ConfigUse {
                        key: list.key.to_owned(),
                        name: Some(name),
                        file,
                        span,
                    }));
                }
            }
            uses.push(section(key, entry.span.clone()));
        }
        uses
    }

    /// Finds used plugins that do not start with this configuration.
    fn check_starts(&self, graph: &PluginGraph, uses: &[ConfigUse], findings: &mut Vec<(usize, Diagnostic)>) {
        let states = graph.start(&|_| true, &|key| Some(self.has(key)));
        for (index, plugin) in graph.plugins.iter().enumerate() {
            let Some(PluginStart::Disabled(cause)) = states.get(index) else { continue };
            let settings = settings_of(graph, index);
            let is_own = |used: &&ConfigUse| match used.name {
                Some(_) => settings.contains(&used.setting()),
                None => plugin.name.as_ref() == Some(&used.key),
            };
            let (why, help) = match cause {
                DisabledCause::Sections(sections) if !sections.is_empty() => {
                    (missing_sections(sections), format!("add the section `{}`", sections.join("`, `")))
                }
                DisabledCause::Dependency { plugins: others, .. } => {
                    let missing = others.iter().find_map(|other| match states.get(*other)? {
                        PluginStart::Disabled(DisabledCause::Sections(sections)) if !sections.is_empty() => {
                            Some((graph.plugins.get(*other)?, sections))
                        }
                        _ => None,
                    });
                    let Some((other, sections)) = missing else { continue };
                    let why = format!("it requires {}, and {}", other.label, missing_sections(sections));
                    (why, format!("add the section `{}`", sections.join("`, `")))
                }
                // `vx check` says so of velox.toml.
                _ => continue,
            };
            let Some(used) = uses.iter().find(is_own) else { continue };
            let message = format!("plugin {} does not start: {why}", plugin.label);
            let error = Diagnostic::error(message).at(used.span.clone()).label("has no effect").help(help);
            findings.push((used.file, error));
        }
    }
}

fn missing_sections(sections: &[String]) -> String {
    match sections {
        [section] => format!("the section `{section}` is missing"),
        sections => format!("the sections `{}` are missing", sections.join("`, `")),
    }
}

/// The names in the values at a path, in which `*` is any key.
fn names_at(node: &ConfigNode, path: &[&str], found: &mut Vec<(String, Option<Range<usize>>)>) {
    match path {
        [] => found.extend(list_items(node)),
        ["*", rest @ ..] => entries(node).iter().for_each(|entry| names_at(&entry.node, rest, found)),
        [key, rest @ ..] => {
            if let Some(entry) = find(node, key) {
                names_at(&entry.node, rest, found);
            }
        }
    }
}

/// The plugin of the catalogue that serves a setting.
fn provider(setting: &str) -> Option<&'static KnownPlugin> {
    catalogue::catalogue().iter().find(|plugin| plugin.rr_config.iter().any(|known| known == setting))
}

/// What a plugin serves: the sections that it reads, and the lists that may name it.
pub(super) fn settings_of(graph: &PluginGraph, index: usize) -> BTreeSet<String> {
    let Some(plugin) = graph.plugins.get(index) else { return BTreeSet::new() };
    let mut settings: BTreeSet<String> = plugin.sections.iter().map(|key| key.to_lowercase()).collect();
    for list in &LISTS {
        let section = list.key.split('.').next().unwrap_or_default();
        let collectors = graph.plugins.iter().filter(|node| node.sections.iter().any(|key| key == section));
        let needs = collectors.flat_map(|node| &node.collects);
        let is_member = needs
            .filter(|need| need.methods.iter().any(|method| method == list.method))
            .any(|need| need.implementers.iter().any(|it| it.plugin == index));
        if let (true, Some(name)) = (is_member, &plugin.name) {
            settings.insert(format!("{}={name}", list.key));
        }
    }
    settings
}

/// A plugin of the binary.
struct ServedPlugin {
    label: String,
    module: String,
    /// What it serves.
    settings: BTreeSet<String>,
    /// What only it serves, if it starts for nothing else.
    own: BTreeSet<String>,
}

/// The settings that the plugins of a binary serve.
struct ServedSettings {
    plugins: Vec<ServedPlugin>,
    /// The names of the plugins, and their module paths without major versions.
    names: BTreeSet<String>,
    /// Whether a plugin may serve further settings.
    is_open: bool,
}

impl ServedSettings {
    fn of_graph(graph: &PluginGraph) -> Self {
        let is_open = |plugin: &PluginNode| {
            !catalogue::is_official(&plugin.module)
                && plugin
                    .unknown
                    .iter()
                    .any(|fact| matches!(fact.what, FactKind::Section | FactKind::Types | FactKind::Name))
        };
        let mut served = Self { plugins: Vec::new(), names: BTreeSet::new(), is_open: false };
        for (index, plugin) in graph.plugins.iter().enumerate().filter(|(_, plugin)| !plugin.is_configuration)
        {
            let settings = settings_of(graph, index);
            let is_own = |setting: &&String| {
                let named = |node: &PluginNode| node.name.as_ref() == Some(*setting);
                named(plugin) || !graph.plugins.iter().any(named)
            };
            let own: BTreeSet<String> = settings.iter().filter(is_own).cloned().collect();
            let starts_anyway = plugin.disabled_when.is_empty() && own.iter().all(|key| !key.contains('='));
            served.names.extend(plugin.name.clone());
            served.names.insert(without_major(&plugin.module).to_owned());
            served.is_open |= is_open(plugin);
            let own = if starts_anyway { BTreeSet::new() } else { own };
            let (label, module) = (plugin.label.clone(), plugin.module.clone());
            served.plugins.push(ServedPlugin { label, module, settings, own });
        }
        served
    }

    fn of_modules(modules: &[(String, String)]) -> Self {
        let mut served = Self { plugins: Vec::new(), names: BTreeSet::new(), is_open: false };
        for (label, path) in modules {
            let module = without_major(path);
            let known = catalogue::find(module).filter(|known| known.module == module);
            let settings: BTreeSet<String> =
                known.map(|known| known.rr_config.iter().cloned().collect()).unwrap_or_default();
            served.names.extend([module.to_owned(), last_part(module).to_owned()]);
            served.is_open |= known.is_none();
            let own = if known.is_some_and(|known| known.name == LOGGER) {
                BTreeSet::new()
            } else {
                settings.clone()
            };
            let (label, module) = (label.clone(), path.clone());
            served.plugins.push(ServedPlugin { label, module, settings, own });
        }
        served
    }

    fn is_served(&self, setting: &str) -> bool {
        self.plugins.iter().any(|plugin| plugin.settings.contains(setting))
    }

    /// Whether the binary has a plugin of the catalogue, or another one of its name.
    fn has(&self, known: &KnownPlugin) -> bool {
        let names = known.rr_config.iter().filter_map(|setting| setting.rsplit('=').next());
        self.names.contains(&known.module)
            || names.chain([known.name.as_str()]).any(|name| self.names.contains(name))
    }

    /// The finding about a setting that no plugin serves.
    fn finding(
        &self,
        config: &RrConfig,
        used: &ConfigUse,
        major: Option<u64>,
    ) -> Option<(usize, Diagnostic)> {
        let setting = used.setting();
        let shown = used.name.as_ref().unwrap_or(&used.key);
        let is_served = self.is_served(&setting);
        if is_variable(shown) || OWN_SECTIONS.contains(&setting.as_str()) {
            return None;
        }
        let diagnostic = match provider(&setting) {
            // That another plugin reads the section is not enough, as of `rpc`.
            Some(known) if self.has(known) || (used.name.is_some() && is_served) => return None,
            Some(known) => {
                let message = match used.list() {
                    Some(list) => format!("the {} `{shown}` is not compiled in", list.title),
                    None => format!("`{shown}` is configured, but not compiled in"),
                };
                let label = format!("requires plugin {}", known.name);
                Diagnostic::error(message).label(label).help(remedy(known, major))
            }
            None if is_served || self.is_open || used.is_nested_section() => return None,
            // The driver of a key-value storage reads the section of its name.
            None if used.name.is_none() && config.has(&format!("kv.{}", used.key)) => return None,
            None => {
                let unknown = match used.list() {
                    Some(list) => {
                        Diagnostic::error(format!("no plugin provides the {} `{shown}`", list.title))
                    }
                    None => Diagnostic::warning(format!("no plugin reads the section `{shown}`")),
                };
                let unknown = unknown.label("has no effect");
                match self.similar(used) {
                    Some(similar) => unknown.help(format!("did you mean `{similar}`?")),
                    None => unknown.help("remove it, or add its plugin with `vx add MODULE`"),
                }
            }
        };
        Some((used.file, diagnostic.at(used.span.clone())))
    }

    /// The most similar setting of the same kind.
    fn similar(&self, used: &ConfigUse) -> Option<String> {
        const MIN_SIMILARITY: f64 = 0.8;
        let known = catalogue::catalogue().iter().flat_map(|plugin| &plugin.rr_config);
        let served = self.plugins.iter().flat_map(|plugin| &plugin.settings);
        let candidates = known.chain(served).map(String::as_str).chain(OWN_SECTIONS);
        let value = used.name.as_ref().unwrap_or(&used.key);
        let similar = candidates.filter_map(|setting| {
            let (key, name) =
                setting.split_once('=').map_or((setting, None), |(key, name)| (key, Some(name)));
            let candidate = match (&used.name, name) {
                (None, None) if !key.contains('.') => key,
                (Some(_), Some(name)) if key == used.key => name,
                _ => return None,
            };
            Some((strsim::jaro_winkler(candidate, value), candidate))
        });
        let best = similar.max_by(|(one, _), (other, _)| one.total_cmp(other))?;
        (best.0 > MIN_SIMILARITY).then(|| best.1.to_owned())
    }

    /// The names and module paths of the plugins none of whose own settings is used.
    fn unused(&self, used: &BTreeSet<String>) -> Vec<(String, String)> {
        let unused = self.plugins.iter().filter(|it| !it.own.is_empty() && it.own.is_disjoint(used));
        unused.map(|plugin| (plugin.label.clone(), plugin.module.clone())).collect()
    }
}

fn remedy(known: &KnownPlugin, major: Option<u64>) -> String {
    if known.status == PluginStatus::Deprecated {
        return match &known.replaced_by {
            Some(other) => format!("{} is unmaintained (deprecated): use {other}", known.name),
            None => format!("{} is unmaintained (deprecated): remove it", known.name),
        };
    }
    let generation =
        catalogue::generations().iter().find(|it| known.majors.contains(&it.plugins)).filter(|_| {
            major.is_some_and(|major| !known.majors.contains(&major)) && catalogue::is_official(&known.module)
        });
    match generation {
        Some(generation) => format!("{} needs {}", known.name, generation.roadrunner),
        None => format!("add it with `vx add {}`, or remove the setting", known.name),
    }
}
