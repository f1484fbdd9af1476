//! Which plugins RoadRunner starts: endure's rules, without running it.
//!
//! 1. A plugin with a parameter that nobody implements is disabled, and those that need it.
//! 2. endure visits plugins in a random order. A plugin that was connected to a disabled one before that was disabled
//!    waits for it forever, and is disabled as well. Which of these it hits differs from start to start.
//! 3. `Init` runs in the order of the dependencies. A plugin that returns `errors.Disabled` takes those with it that
//!    get it through a parameter, even if another plugin implements the parameter through a method.

use std::collections::BTreeSet;

use super::{FactKind, PluginGraph, PluginNeed, StartCondition};

/// How RoadRunner starts a plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PluginStart {
    /// It is not part of the binary.
    NotIncluded,
    /// It starts.
    Starts,
    /// It starts, unless one of these expressions says otherwise.
    Unknown(Vec<String>),
    /// It starts or not, differently at each start of RoadRunner: it waits for these plugins, which are disabled.
    Random(Vec<usize>),
    /// It is disabled, which RoadRunner only logs at the level `debug`.
    Disabled(DisabledCause),
}

/// Why a plugin is disabled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DisabledCause {
    /// Nothing implements a parameter of its `Init`: the index of the parameter.
    Missing(usize),
    /// The plugins that implement a parameter of its `Init` are disabled themselves.
    Dependency {
        /// The index of the parameter.
        parameter: usize,
        /// Those plugins.
        plugins: Vec<usize>,
    },
    /// It disables itself without these sections of `.rr.yaml`.
    Sections(Vec<String>),
    /// It is part of a cycle of dependencies, or depends on one.
    Cycle,
}

impl PluginStart {
    /// Whether it is certainly disabled.
    #[must_use]
    pub fn is_disabled(&self) -> bool {
        matches!(self, Self::Disabled(_))
    }
}

impl PluginGraph {
    /// The start of each plugin of a binary with the plugins that `is_included` selects. `has` says whether `.rr.yaml`
    /// has a value for a key, or `None` if that is unknown.
    #[must_use]
    pub fn start(
        &self,
        is_included: &dyn Fn(usize) -> bool,
        has: &dyn Fn(&str) -> Option<bool>,
    ) -> Vec<PluginStart> {
        let state = |index| if is_included(index) { PluginStart::Starts } else { PluginStart::NotIncluded };
        let mut starting = Starting { graph: self, states: (0..self.plugins.len()).map(state).collect() };
        starting.resolve();
        let disabled = starting.all_disabled();
        starting.wait_for(&disabled);
        for index in starting.order() {
            starting.init(index, has);
        }
        starting.states
    }
}

struct Starting<'a> {
    graph: &'a PluginGraph,
    states: Vec<PluginStart>,
}

impl Starting<'_> {
    /// Whether a plugin takes part.
    fn is_active(&self, index: usize) -> bool {
        !matches!(self.states.get(index), None | Some(PluginStart::NotIncluded | PluginStart::Disabled(_)))
    }

    fn all_disabled(&self) -> BTreeSet<usize> {
        (0..self.states.len())
            .filter(|index| self.states.get(*index).is_some_and(PluginStart::is_disabled))
            .collect()
    }

    fn set(&mut self, index: usize, state: PluginStart) {
        if let Some(slot) = self.states.get_mut(index) {
            *slot = state;
        }
    }

    /// Disables plugins with a parameter that no active plugin implements.
    fn resolve(&mut self) {
        loop {
            let found = (0..self.states.len()).find_map(|index| Some((index, self.unmet(index)?)));
            let Some((index, state)) = found else { return };
            self.set(index, state);
        }
    }

    /// The state of an active plugin with a parameter that no active plugin implements.
    fn unmet(&self, index: usize) -> Option<PluginStart> {
        let plugin = self.graph.plugins.get(index).filter(|_| self.is_active(index))?;
        let is_met = |need: &PluginNeed| need.implementers.iter().any(|it| self.is_active(it.plugin));
        let (parameter, need) = plugin.init.iter().enumerate().find(|(_, need)| !is_met(need))?;
        let included: Vec<usize> = need
            .implementers
            .iter()
            .map(|implementer| implementer.plugin)
            .filter(|index| !matches!(self.states.get(*index), None | Some(PluginStart::NotIncluded)))
            .collect();
        if !included.is_empty() {
            return Some(PluginStart::Disabled(DisabledCause::Dependency { parameter, plugins: included }));
        }
        // A plugin whose types can't be read may implement it.
        let may_implement = |other: &usize| {
            let facts =
                self.graph.plugins.get(*other).map(|other| other.unknown.as_slice()).unwrap_or_default();
            *other != index
                && self.is_active(*other)
                && facts.iter().any(|fact| matches!(fact.what, FactKind::Types | FactKind::Provides))
        };
        if (0..self.states.len()).any(|other| may_implement(&other)) {
            let text = format!("who implements {}", need.type_name);
            return match self.states.get(index) {
                Some(PluginStart::Unknown(_)) => None,
                _ => Some(PluginStart::Unknown(vec![text])),
            };
        }
        Some(PluginStart::Disabled(DisabledCause::Missing(parameter)))
    }

    /// Marks the plugins that get one of `disabled`, directly or through each other.
    fn wait_for(&mut self, disabled: &BTreeSet<usize>) {
        let edges = self.graph.edges();
        let mut stopped = disabled.clone();
        loop {
            let before = stopped.len();
            for edge in &edges {
                if stopped.contains(&edge.from) && self.is_active(edge.to) {
                    match self.states.get_mut(edge.to) {
                        Some(PluginStart::Random(causes)) if !causes.contains(&edge.from) => {
                            causes.push(edge.from)
                        }
                        Some(PluginStart::Random(_)) | None => {}
                        Some(state) => *state = PluginStart::Random(vec![edge.from]),
                    }
                    stopped.insert(edge.to);
                }
            }
            if stopped.len() == before {
                return;
            }
        }
    }

    /// The active plugins, each after those that it gets. Those in a cycle are disabled.
    fn order(&mut self) -> Vec<usize> {
        let edges = self.graph.edges();
        let mut left: BTreeSet<usize> =
            (0..self.states.len()).filter(|index| self.is_active(*index)).collect();
        let mut order = Vec::new();
        while let Some(next) = left
            .iter()
            .copied()
            .find(|index| !edges.iter().any(|edge| edge.to == *index && left.contains(&edge.from)))
        {
            left.remove(&next);
            order.push(next);
        }
        for index in left {
            self.set(index, PluginStart::Disabled(DisabledCause::Cycle));
        }
        order
    }

    /// Decides whether a plugin disables itself, and with it those that get it through a parameter.
    fn init(&mut self, index: usize, has: &dyn Fn(&str) -> Option<bool>) {
        let Some(plugin) = self.graph.plugins.get(index).filter(|_| self.is_active(index)) else { return };
        if let Some(unmet @ PluginStart::Disabled(_)) = self.unmet(index) {
            self.set(index, unmet);
            return;
        }
        let mut unknown = Vec::new();
        for condition in &plugin.disabled_when {
            match condition.is_met(has) {
                Some(false) => {}
                None => condition.unknown(has, &mut unknown),
                Some(true) => {
                    let mut sections = Vec::new();
                    condition.missing(has, &mut sections);
                    self.set(index, PluginStart::Disabled(DisabledCause::Sections(sections)));
                    self.remove(index);
                    return;
                }
            }
        }
        if !unknown.is_empty() && self.states.get(index) == Some(&PluginStart::Starts) {
            self.set(index, PluginStart::Unknown(unknown));
        }
    }

    /// Disables the plugins that get a disabled one through a parameter. endure looks for a replacement among the
    /// plugins themselves only, not among what they provide.
    fn remove(&mut self, disabled: usize) {
        for (index, plugin) in self.graph.plugins.iter().enumerate() {
            let gets = |need: &PluginNeed| need.implementers.iter().any(|it| it.plugin == disabled);
            let Some(parameter) = plugin.init.iter().position(gets).filter(|_| self.is_active(index)) else {
                continue;
            };
            let is_replaced = plugin.init.iter().all(|need| {
                need.implementers.iter().any(|it| it.method.is_empty() && self.is_active(it.plugin))
            });
            if !is_replaced {
                let cause = DisabledCause::Dependency { parameter, plugins: vec![disabled] };
                self.set(index, PluginStart::Disabled(cause));
            }
        }
    }
}

impl StartCondition {
    /// Whether it is met; `None` if that can't be said.
    #[must_use]
    pub fn is_met(&self, has: &dyn Fn(&str) -> Option<bool>) -> Option<bool> {
        let all = |parts: &[Self], decisive: bool| {
            let met = || parts.iter().map(|part| part.is_met(has));
            if met().any(|met| met == Some(decisive)) {
                Some(decisive)
            } else if met().all(|met| met.is_some()) {
                Some(!decisive)
            } else {
                None
            }
        };
        match self {
            Self::Has(key) => has(key),
            Self::Not(part) => part.is_met(has).map(|met| !met),
            Self::All(parts) => all(parts, false),
            Self::Any(parts) => all(parts, true),
            Self::Is(value) => Some(*value),
            Self::Unknown(_) => None,
        }
    }

    /// The keys in it that have no value.
    fn missing(&self, has: &dyn Fn(&str) -> Option<bool>, keys: &mut Vec<String>) {
        match self {
            Self::Has(key) if has(key) == Some(false) && !keys.contains(key) => keys.push(key.clone()),
            Self::Not(part) => part.missing(has, keys),
            Self::All(parts) | Self::Any(parts) => parts.iter().for_each(|part| part.missing(has, keys)),
            Self::Has(_) | Self::Is(_) | Self::Unknown(_) => {}
        }
    }

    /// The expressions in it that can't be decided.
    fn unknown(&self, has: &dyn Fn(&str) -> Option<bool>, texts: &mut Vec<String>) {
        match self {
            Self::Unknown(text) if !texts.contains(text) => texts.push(text.clone()),
            Self::Has(key) if has(key).is_none() => texts.push(format!("section {key}")),
            Self::Not(part) => part.unknown(has, texts),
            Self::All(parts) | Self::Any(parts) => parts.iter().for_each(|part| part.unknown(has, texts)),
            Self::Has(_) | Self::Is(_) | Self::Unknown(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use velox_manifest::catalogue;

    use super::*;

    /// What the reader printed for the plugins of a release, what endure printed of its graph
    /// (`endure: {print_graph: true}`), and which plugins it disabled at several starts with other plugins or sections.
    struct Recording {
        graph: &'static str,
        dot: &'static str,
        starts: &'static str,
    }

    const RECORDINGS: [Recording; 2] = [
        Recording {
            graph: include_str!("testdata/roadrunner-2025.json"),
            dot: include_str!("testdata/roadrunner-2025.dot"),
            starts: include_str!("testdata/roadrunner-2025-starts.json"),
        },
        Recording {
            graph: include_str!("testdata/roadrunner-3.json"),
            dot: include_str!("testdata/roadrunner-3.dot"),
            starts: include_str!("testdata/roadrunner-3-starts.json"),
        },
    ];

    #[derive(Deserialize)]
    struct RecordedStarts {
        /// Packages that were left out.
        without: Vec<String>,
        /// The keys of `.rr.yaml`.
        sections: Vec<String>,
        /// The disabled types, once for each different outcome of eight starts.
        disabled: Vec<BTreeSet<String>>,
    }

    fn graph(text: &str) -> PluginGraph {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn the_edges_are_those_that_endure_prints() {
        for recording in RECORDINGS {
            let graph = graph(recording.graph);
            let name = |index: usize| &graph.plugins[index].go_type;
            let ours: BTreeSet<String> = graph
                .edges()
                .iter()
                .map(|edge| format!("{:?} -> {:?};", name(edge.from), name(edge.to)))
                .collect();
            let theirs: BTreeSet<String> = recording.dot.lines().map(|line| line.trim().to_owned()).collect();
            assert_eq!(ours, theirs);
        }
    }

    #[test]
    fn the_disabled_plugins_are_those_that_endure_disables() {
        for recording in RECORDINGS {
            let graph = graph(recording.graph);
            let recorded: Vec<RecordedStarts> = serde_json::from_str(recording.starts).unwrap();
            assert_eq!(recorded.len(), 20);
            for RecordedStarts { without, sections, disabled } in recorded {
                let is_included = |index: usize| !without.contains(&graph.plugins[index].package);
                let has = |key: &str| Some(sections.iter().any(|section| section == key));
                let states = graph.start(&is_included, &has);
                let named = |wanted: fn(&PluginStart) -> bool| -> BTreeSet<String> {
                    let plugins = graph.plugins.iter().zip(&states).filter(|(_, state)| wanted(state));
                    plugins.map(|(plugin, _)| plugin.go_type.trim_start_matches('*').to_owned()).collect()
                };
                let always = named(PluginStart::is_disabled);
                let sometimes = named(|state| matches!(state, PluginStart::Random(_)));
                // The table of the subsets: `cargo test … -- --nocapture`.
                println!("without {without:?}: {always:?}, sometimes {sometimes:?}");
                let ever: BTreeSet<String> = disabled.iter().flatten().cloned().collect();
                let expected: BTreeSet<String> = always.union(&sometimes).cloned().collect();
                assert_eq!(expected, ever, "without {without:?}, with {sections:?}");
                for outcome in &disabled {
                    assert!(always.is_subset(outcome), "{always:?} {outcome:?}");
                }
                assert_eq!(sometimes.is_empty(), disabled.len() == 1, "{sometimes:?} {disabled:?}");
            }
        }
    }

    /// The names in the catalogue of the plugins that get `index`, through `Init` or by collecting it.
    fn names(graph: &PluginGraph, plugins: impl Iterator<Item = usize>) -> BTreeSet<&str> {
        plugins
            .filter(|index| !graph.plugins[*index].is_configuration)
            .map(|index| catalogue::find(&graph.plugins[index].module).unwrap().name.as_str())
            .collect()
    }

    #[test]
    fn the_catalogue_has_what_plugins_need() {
        for recording in RECORDINGS {
            let graph = graph(recording.graph);
            for (index, plugin) in graph.plugins.iter().enumerate().filter(|(_, it)| !it.is_configuration) {
                let known = catalogue::find(&plugin.module).unwrap();
                let needed = graph.edges().into_iter().filter(|edge| edge.to == index && edge.is_required);
                let needed = names(&graph, needed.map(|edge| edge.from));
                let listed: BTreeSet<&str> = known.needs.iter().map(String::as_str).collect();
                assert_eq!(listed, needed, "{}", known.name);
            }
        }
    }

    /// Plugins that give access to others, or show something of them; only a plugin that lists them in `used_by` is of
    /// no use without them.
    const OBSERVERS: [&str; 5] = ["informer", "metrics", "resetter", "rpc", "status"];

    #[test]
    fn the_catalogue_has_what_uses_plugins() {
        for recording in RECORDINGS {
            let graph = graph(recording.graph);
            let included = names(&graph, 0..graph.plugins.len());
            for (index, plugin) in graph.plugins.iter().enumerate().filter(|(_, it)| !it.is_configuration) {
                let known = catalogue::find(&plugin.module).unwrap();
                let listed: BTreeSet<&str> = known
                    .used_by
                    .iter()
                    .flatten()
                    .map(String::as_str)
                    .filter(|it| included.contains(it))
                    .collect();
                let edges = graph.edges();
                let users = names(&graph, edges.iter().filter(|edge| edge.from == index).map(|edge| edge.to));
                // The method RPC of app-logger v6.0.0-beta.3 is still that of v5.
                if plugin.module != "github.com/roadrunner-server/app-logger/v6" {
                    assert!(listed.is_subset(&users), "{}: {listed:?} {users:?}", known.name);
                }
                if edges.iter().any(|edge| edge.from == index && edge.is_required) {
                    assert!(listed.is_empty(), "{} implements parameters of others", known.name);
                    continue;
                }
                // A user that is only used by others counts through these.
                let is_counted = |user: &&&str| {
                    !OBSERVERS.contains(*user)
                        && (listed.contains(**user) || catalogue::find(user).unwrap().used_by.is_empty())
                };
                let missing: Vec<_> = users.difference(&listed).filter(is_counted).collect();
                assert!(missing.is_empty(), "{} is also used by {missing:?}", known.name);
            }
        }
    }

    #[test]
    fn the_catalogue_has_the_methods_between_plugins() {
        let (mut required, mut collected) = (BTreeSet::new(), BTreeSet::new());
        for recording in RECORDINGS {
            let graph = graph(recording.graph);
            for plugin in graph.plugins.iter().filter(|plugin| !plugin.is_configuration) {
                for need in
                    plugin.init.iter().filter(|need| !need.methods.contains(&"UnmarshalKey".to_owned()))
                {
                    let has = |known: &&catalogue::KnownPlugin| {
                        need.methods.iter().all(|method| known.methods.contains(method))
                    };
                    let found: BTreeSet<&str> =
                        catalogue::catalogue().iter().filter(has).map(|known| known.name.as_str()).collect();
                    let implementers = need.implementers.iter().map(|implementer| implementer.plugin);
                    assert_eq!(found, names(&graph, implementers), "{} {}", plugin.label, need.type_name);
                    required.extend(need.methods.clone());
                }
                let known = catalogue::find(&plugin.module).unwrap();
                for need in plugin.collects.iter().filter(|_| !known.collects.is_empty()) {
                    let methods =
                        need.methods.iter().filter(|method| *method != "Name").cloned().collect::<Vec<_>>();
                    assert!(known.collects.contains(&methods), "{} collects {methods:?}", known.name);
                    collected.insert((known.name.clone(), methods));
                }
            }
        }
        for known in catalogue::catalogue() {
            let users = catalogue::catalogue().iter().flat_map(|other| other.used_by.iter().flatten());
            assert_eq!(
                known.collects.is_empty(),
                !users.into_iter().any(|name| *name == known.name),
                "{}",
                known.name
            );
            for methods in &known.collects {
                assert!(
                    collected.contains(&(known.name.clone(), methods.clone())),
                    "{} {methods:?}",
                    known.name
                );
            }
            // For plugins that start single workers.
            let is_used = |method: &&String| *method == "NewWorker" || required.contains(*method);
            let collected = |method: &String| collected.iter().any(|(_, methods)| methods.contains(method));
            assert!(
                known.methods.iter().all(|method| is_used(&method) || collected(method)),
                "{}",
                known.name
            );
        }
    }

    #[test]
    fn a_plugin_whose_types_are_unknown_may_implement_anything() {
        let mut graph = graph(RECORDINGS[0].graph);
        let index = |graph: &PluginGraph, name: &str| {
            graph.plugins.iter().position(|plugin| plugin.name.as_deref() == Some(name)).unwrap()
        };
        let (server, http, gzip) = (index(&graph, "server"), index(&graph, "http"), index(&graph, "gzip"));
        let state =
            |graph: &PluginGraph| graph.start(&|index| index != server, &|_| Some(true)).swap_remove(http);
        assert_eq!(state(&graph), PluginStart::Disabled(DisabledCause::Missing(2)));
        let text = "undefined: missing".to_owned();
        graph.plugins[gzip].unknown.push(crate::plugin_graph::UnknownFact {
            what: FactKind::Types,
            place: String::new(),
            text,
        });
        assert!(matches!(state(&graph), PluginStart::Unknown(_)));
    }
}
