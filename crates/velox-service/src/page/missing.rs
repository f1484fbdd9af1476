//! The plugins that a selection lacks: without them, others do not start or do nothing.

use maud::{Markup, html};
use velox_gomod::module::without_major;
use velox_manifest::catalogue::{self, KnownPlugin, MissingPlugin};

use super::selection::Selection;
use crate::catalogue::PluginCatalogue;

/// The number of plugins that a sentence names.
const MAX_NAMES: usize = 4;

pub(super) struct MissingPlugins {
    /// Without these, others do not start.
    needed: Vec<MissingPlugin>,
    /// Selected plugins that do nothing, each with the plugins of which one would use it.
    unused: Vec<(&'static KnownPlugin, Vec<String>)>,
    /// The module paths that complete the selection, with their names; without those that are a matter of choice.
    additions: Vec<(String, String)>,
    /// The module paths of which one completes the selection.
    choices: Vec<(String, String)>,
}

impl MissingPlugins {
    pub(super) fn new(selection: &Selection, catalogue: &PluginCatalogue) -> Self {
        let always = catalogue::ALWAYS_INCLUDED.into_iter();
        let known = |module: &str| {
            catalogue::find(without_major(module)).filter(|known| known.module == without_major(module))
        };
        let chosen: Vec<&'static KnownPlugin> = selection.modules().chain(always).filter_map(known).collect();
        let needed = catalogue::missing_plugins(&chosen);
        let unused: Vec<(&'static KnownPlugin, Vec<String>)> = chosen
            .iter()
            .flat_map(|plugin| plugin.missing_users(&chosen).map(|users| (*plugin, users.to_vec())))
            .collect();
        let offered = |name: &str| catalogue.plugins().find(|plugin| plugin.name == name);
        let pair = |name: &str| offered(name).map(|plugin| (plugin.module.clone(), plugin.name.clone()));
        let choices = unused.iter().filter(|(_, users)| users.len() > 1).flat_map(|(_, users)| users.iter());
        let mut choices: Vec<_> = choices.filter_map(|name| pair(name)).collect();
        choices.sort();
        choices.dedup();
        let completing = catalogue::completing_plugins(&chosen);
        let additions = completing.iter().filter_map(|missing| pair(&missing.plugin.name)).collect();
        Self { needed, unused, additions, choices }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.needed.is_empty() && self.unused.is_empty()
    }

    /// Identifies the warning: a user who has seen it may build nevertheless.
    pub(super) fn key(&self) -> String {
        let needed = self.needed.iter().map(|missing| missing.plugin.name.clone());
        let unused = self.unused.iter().map(|(plugin, users)| format!("{}:{}", plugin.name, users.join("|")));
        needed.chain(unused).collect::<Vec<_>>().join(",")
    }

    /// The warning, with buttons that add plugins; an empty element if nothing is missing.
    pub(super) fn markup(&self) -> Markup {
        html! {
            div id="missing" data-missing=(self.key()) {
                @if !self.is_empty() {
                    div.alert.warn {
                        h3 { "Incomplete selection" }
                        ul {
                            @for MissingPlugin { plugin, needed_by } in &self.needed {
                                li {
                                    (names(needed_by.iter().map(|plugin| plugin.name.as_str())))
                                    @if needed_by.len() == 1 { " does" } @else { " do" }
                                    " not start without " code { (plugin.name) } "."
                                    span.why { (plugin.description) "." }
                                }
                            }
                            @for (plugin, users) in &self.unused {
                                li {
                                    code { (plugin.name) } " does nothing without "
                                    @for (at, user) in users.iter().enumerate() {
                                        @if at > 0 { @if at + 1 == users.len() { " or " } @else { ", " } }
                                        code { (user) }
                                    }
                                    "."
                                }
                            }
                        }
                        div.actions {
                            @if !self.additions.is_empty() { (add_button(&self.additions)) }
                            @for choice in &self.choices { (add_button(std::slice::from_ref(choice))) }
                        }
                    }
                }
            }
        }
    }
}

fn add_button(plugins: &[(String, String)]) -> Markup {
    let modules: Vec<&str> = plugins.iter().map(|(module, _)| module.as_str()).collect();
    let names: Vec<&str> = plugins.iter().map(|(_, name)| name.as_str()).collect();
    html! {
        button type="submit" formmethod="get" formaction="/" name="add" value=(modules.join(",")) data-add {
            "Add " (names.join(", "))
        }
    }
}

/// The first names, and how many more there are.
fn names<'a>(all: impl ExactSizeIterator<Item = &'a str>) -> Markup {
    let count = all.len();
    let shown = if count > MAX_NAMES { MAX_NAMES - 1 } else { count };
    html! {
        @for (at, name) in all.take(shown).enumerate() {
            @if at > 0 { @if at + 1 == count { " and " } @else { ", " } }
            code { (name) }
        }
        @if shown < count { " and " (count - shown) " more" }
    }
}
