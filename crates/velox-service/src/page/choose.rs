//! The page on which a server is chosen.

use maud::{Markup, html};
use velox_api::{BuildSpec, Violation};

use super::{
    choice::Choice,
    layout::{Page, prose},
};
use crate::catalogue::{CataloguePlugin, PluginCatalogue};

/// The same choice again, with what is wrong with it.
pub(super) struct Wrong {
    places: Vec<Place>,
}

/// A field and what is wrong with it.
struct Place {
    /// The `id` of what can be changed.
    id: String,
    message: String,
}

impl Wrong {
    pub(super) fn nothing() -> Self {
        Self { places: Vec::new() }
    }

    /// Something that isn't about a field.
    pub(super) fn whole(message: &str) -> Self {
        Self { places: vec![Place { id: "main".to_owned(), message: message.to_owned() }] }
    }

    /// Says of each violation where on the page it is; `spec` is what was asked for.
    pub(super) fn of(violations: &[Violation], spec: &BuildSpec, catalogue: &PluginCatalogue) -> Self {
        let place = |violation: &Violation| {
            let field = violation.field.as_str();
            let (list, index) = match field.split_once('[') {
                Some((list, rest)) => (list, rest.split(']').next().and_then(|at| at.parse::<usize>().ok())),
                None => (field, None),
            };
            let mut message = violation.message.clone();
            let id = match list {
                "plugins" => match index.and_then(|at| spec.plugins.get(at)) {
                    Some(plugin) => match offered(catalogue, &plugin.module) {
                        Some(offered) => version_id(offered),
                        None => {
                            message = format!("{}: {message}", plugin.module);
                            "more".to_owned()
                        }
                    },
                    None => "plugins".to_owned(),
                },
                "roadrunner" => "ref".to_owned(),
                "more" | "replaces" | "excludes" | "target" | "tags" | "race" | "strict" | "debug"
                | "dependencies" | "stamp_version" | "stamp_time" => list.to_owned(),
                _ => "main".to_owned(),
            };
            Place { id, message }
        };
        Self { places: violations.iter().map(place).collect() }
    }

    fn at(&self, id: &str) -> Vec<&str> {
        self.places.iter().filter(|place| place.id == id).map(|place| place.message.as_str()).collect()
    }

    fn is_among(&self, ids: &[&str]) -> bool {
        self.places.iter().any(|place| ids.contains(&place.id.as_str()))
    }

    /// What is wrong with a field, beside it.
    fn beside(&self, id: &str) -> Markup {
        let messages = self.at(id);
        html! {
            @if !messages.is_empty() {
                p.wrong id=(format!("{id}-wrong")) {
                    @for message in &messages { span { (prose(message)) } }
                }
            }
        }
    }

    /// The `id` of what is said beside a field.
    fn described(&self, id: &str) -> Option<String> {
        (!self.at(id).is_empty()).then(|| format!("{id}-wrong"))
    }

    fn invalid(&self, id: &str) -> Option<&'static str> {
        (!self.at(id).is_empty()).then_some("true")
    }

    fn summary(&self) -> Markup {
        html! {
            @if !self.places.is_empty() {
                div.alert.bad role="alert" tabindex="-1" id="wrong" {
                    h2 { "This can’t be built yet" }
                    ul {
                        @for place in &self.places {
                            li { a href=(format!("#{}", place.id)) { (prose(&place.message)) } }
                        }
                    }
                }
            }
        }
    }
}

fn offered<'a>(catalogue: &'a PluginCatalogue, module: &str) -> Option<&'a CataloguePlugin> {
    catalogue.plugins().find(|plugin| plugin.module == module)
}

fn version_id(plugin: &CataloguePlugin) -> String {
    format!("v-{}", plugin.name)
}

/// The page.
pub(super) fn page(catalogue: &PluginCatalogue, choice: &Choice, wrong: &Wrong) -> Page {
    let main = html! {
        div.intro {
            h1 { "Build a RoadRunner server" }
            p {
                "Choose the plugins that you need, and get one binary with exactly these. "
                "The same choice is compiled only once."
            }
        }
        (wrong.summary())
        form.choose method="post" action="/build" data-choose {
            input type="hidden" name="was" value=(catalogue.of);
            div.steps {
                div.pair {
                    (version(catalogue, choice, wrong))
                    (target(catalogue, choice, wrong))
                }
                (plugins(catalogue, choice, wrong))
                (advanced(choice, wrong))
            }
            (summary(choice))
        }
    };
    let title =
        if wrong.places.is_empty() { "Build a RoadRunner server" } else { "Not built yet: look again" };
    Page { title: format!("{title} · velox"), refresh: None, main }
}

fn version(catalogue: &PluginCatalogue, choice: &Choice, wrong: &Wrong) -> Markup {
    let listed = catalogue.roadrunner.contains(&choice.roadrunner);
    html! {
        section.step aria-labelledby="step-version" {
            h2 id="step-version" { "RoadRunner" }
            div.fields {
                div.field {
                    label for="rr" { "Release" }
                    select id="rr" name="rr" {
                        @for (at, version) in catalogue.roadrunner.iter().enumerate() {
                            option value=(version) selected[*version == choice.roadrunner] {
                                (version) @if at == 0 { " (newest)" }
                            }
                        }
                        option value="" selected[!listed] { "Another ref…" }
                    }
                }
                div.field.grow.other data-other {
                    label for="ref" { "Another tag, branch or commit" }
                    input.code type="text" id="ref" name="ref" value=(if listed { "" } else { &choice.roadrunner })
                        placeholder="master" autocomplete="off" autocapitalize="off" spellcheck="false"
                        aria-invalid=[wrong.invalid("ref")] aria-describedby=[wrong.described("ref")];
                }
                button.quiet.no-script type="submit" formmethod="get" formaction="/" { "Show its plugins" }
            }
            (wrong.beside("ref"))
            p.hint data-follows {
                @if catalogue.complete {
                    "The plugins have the versions of this release."
                } @else {
                    "What " (catalogue.of) " was released with isn’t known here: the plugins have their newest versions."
                }
            }
        }
    }
}

fn plugins(catalogue: &PluginCatalogue, choice: &Choice, wrong: &Wrong) -> Markup {
    let other = |set: &str| {
        let plain = Choice { plugins: Vec::new(), ..choice.clone() };
        format!("{}&set={set}", plain.link())
    };
    html! {
        section.step id="plugins" tabindex="-1" aria-labelledby="step-plugins" {
            h2 id="step-plugins" { "Plugins" }
            (wrong.beside("plugins"))
            div.tools {
                div.search.script role="search" {
                    label.hidden for="search" { "Search the plugins" }
                    input type="search" id="search" placeholder="Search: kafka, metrics, cache…" autocomplete="off"
                        aria-keyshortcuts="/" aria-controls="groups";
                    kbd aria-hidden="true" { "/" }
                }
                @if catalogue.complete {
                    a.button.quiet href=(other("release")) data-set="release" { "RoadRunner’s own set" }
                }
                a.button.quiet href=(other("none")) data-set="none" { "Clear" }
            }
            p.found role="status" data-found {}
            div id="groups" {
                @for group in &catalogue.groups {
                    @let chosen =
                        group.plugins.iter().filter(|plugin| choice.reference(&plugin.module).is_some()).count();
                    fieldset.group data-group {
                        legend {
                            (group.title)
                            span.script.tally data-tally { (chosen) " of " (group.plugins.len()) }
                        }
                        div.cards {
                            @for plugin in &group.plugins { (card(plugin, choice, wrong)) }
                        }
                    }
                }
            }
            p.nothing data-nothing hidden {
                "No known plugin is like that. Any Go module can be one: name it below."
            }
            div.field.wide {
                label for="more" { "Other plugins" }
                p.hint id="more-hint" { "Any public Go module, one a line: " code { "module@version" } }
                textarea.code id="more" name="more" rows="2" spellcheck="false" autocapitalize="off"
                    placeholder="github.com/acme/rr-plugin/v2@v2.1.0"
                    aria-invalid=[wrong.invalid("more")]
                    aria-describedby=(described("more-hint", wrong.described("more"))) { (choice.more) }
                (wrong.beside("more"))
            }
        }
    }
}

fn card(plugin: &CataloguePlugin, choice: &Choice, wrong: &Wrong) -> Markup {
    let chosen = choice.reference(&plugin.module);
    let own = plugin.reference();
    let (id, version) = (format!("p-{}", plugin.name), version_id(plugin));
    let described_by = format!("d-{}", plugin.name);
    html! {
        div.card data-plugin {
            input type="checkbox" name="p" id=(id) value=(plugin.module) checked[chosen.is_some()]
                aria-describedby=(described_by) data-released[plugin.version.is_some()];
            div.name {
                label for=(id) { (plugin.name) }
                @match plugin.status.as_deref() {
                    Some("third-party") => span.badge { "third-party" },
                    Some("deprecated") => span.badge.old { "deprecated" },
                    _ => {},
                }
            }
            p.what id=(described_by) {
                (prose(&plugin.description))
                @if let Some(other) = &plugin.replaced_by { ". By now: " (other) }
            }
            input.version.code type="text" name=(format!("v.{}", plugin.module)) id=(version)
                value=(chosen.unwrap_or(own)) data-own=(own) aria-label=(format!("Version of {}", plugin.name))
                autocomplete="off" autocapitalize="off" spellcheck="false"
                aria-invalid=[wrong.invalid(&version)] aria-describedby=[wrong.described(&version)];
            (wrong.beside(&version))
        }
    }
}

fn target(catalogue: &PluginCatalogue, choice: &Choice, wrong: &Wrong) -> Markup {
    let systems: Vec<&str> = {
        let mut systems: Vec<&str> =
            catalogue.targets.iter().filter_map(|target| target.split('/').next()).collect();
        systems.dedup();
        systems
    };
    html! {
        section.step aria-labelledby="step-target" {
            h2 id="step-target" { "Target" }
            div.fields {
                div.field {
                    label for="target" { "Operating system and architecture" }
                    select id="target" name="target" aria-describedby=[wrong.described("target")] {
                        @if !catalogue.targets.contains(&choice.target) {
                            option value=(choice.target) selected { (choice.target) }
                        }
                        @for system in systems {
                            optgroup label=(system_name(system)) {
                                @for target in catalogue.targets.iter().filter(|target| {
                                    target.split('/').next() == Some(system)
                                }) {
                                    option value=(target) selected[*target == choice.target] { (target) }
                                }
                            }
                        }
                    }
                }
            }
            (wrong.beside("target"))
        }
    }
}

fn system_name(system: &str) -> &str {
    match system {
        "darwin" => "macOS",
        "freebsd" => "FreeBSD",
        "linux" => "Linux",
        "netbsd" => "NetBSD",
        "openbsd" => "OpenBSD",
        "windows" => "Windows",
        other => other,
    }
}

fn advanced(choice: &Choice, wrong: &Wrong) -> Markup {
    let plain = Choice {
        roadrunner: choice.roadrunner.clone(),
        plugins: choice.plugins.clone(),
        more: choice.more.clone(),
        target: choice.target.clone(),
        ..Choice::default()
    };
    let fields = [
        "debug",
        "race",
        "strict",
        "dependencies",
        "tags",
        "replaces",
        "excludes",
        "stamp_version",
        "stamp_time",
    ];
    let open = *choice != plain || wrong.is_among(&fields);
    let check = |name: &str, set: bool, label: &str, hint: &str| {
        html! {
            div.check {
                input type="checkbox" id=(name) name=(name) value="1" checked[set]
                    aria-describedby=(described(&format!("{name}-hint"), wrong.described(name)));
                div {
                    label for=(name) { (label) }
                    p.hint id=(format!("{name}-hint")) { (hint) }
                    (wrong.beside(name))
                }
            }
        }
    };
    let line = |name: &str, value: &str, label: &str, placeholder: &str| {
        html! {
            div.field.grow {
                label for=(name) { (label) }
                input.code type="text" id=(name) name=(name) value=(value) placeholder=(placeholder)
                    autocomplete="off" autocapitalize="off" spellcheck="false"
                    aria-invalid=[wrong.invalid(name)] aria-describedby=[wrong.described(name)];
                (wrong.beside(name))
            }
        }
    };
    let area = |name: &str, value: &str, label: &str, hint: &str, placeholder: &str| {
        html! {
            div.field.wide {
                label for=(name) { (label) }
                p.hint id=(format!("{name}-hint")) { (hint) }
                textarea.code id=(name) name=(name) rows="2" placeholder=(placeholder) spellcheck="false"
                    autocapitalize="off" aria-invalid=[wrong.invalid(name)]
                    aria-describedby=(described(&format!("{name}-hint"), wrong.described(name))) { (value) }
                (wrong.beside(name))
            }
        }
    };
    html! {
        details.step.advanced open[open] {
            summary { h2 { "Advanced" } }
            fieldset.checks {
                legend.hidden { "How it is compiled" }
                (check("strict", choice.strict, "Strict versions",
                    "Fail where a plugin would be raised above the version asked for"))
                (check("debug", choice.debug, "Debug information",
                    "Keep it, and compile without optimizations"))
                (check("race", choice.race, "Race detector",
                    "Needs a C compiler; not every service allows one"))
            }
            div.fields {
                div.field {
                    label for="dependencies" { "Dependencies" }
                    select id="dependencies" name="dependencies" aria-describedby=[wrong.described("dependencies")] {
                        @for (value, label) in [
                            ("", "As the plugins allow"),
                            ("release", "RoadRunner’s own"),
                            ("minimal", "The lowest that fit"),
                        ] {
                            option value=(value) selected[value == choice.dependencies] { (label) }
                        }
                    }
                    (wrong.beside("dependencies"))
                }
                (line("tags", &choice.tags, "Build tags", "netgo,osusergo"))
                (line("stamp_version", &choice.stamp_version, "Version that it says", "the release’s own"))
                (line("stamp_time", &choice.stamp_time, "Build time that it says", "the release’s own"))
            }
            (area("replaces", &choice.replaces, "Replaces", "Modules that take other modules’ places, one a line",
                "github.com/acme/old => github.com/acme/new@v1.2.3"))
            (area("excludes", &choice.excludes, "Excludes", "Versions that are never used, one a line",
                "github.com/acme/module@v1.2.3"))
        }
    }
}

/// What describes a field: its hint, and what is wrong with it.
fn described(hint: &str, wrong: Option<String>) -> String {
    wrong.map_or_else(|| hint.to_owned(), |wrong| format!("{wrong} {hint}"))
}

fn summary(choice: &Choice) -> Markup {
    let count = choice.count();
    html! {
        aside.summary aria-labelledby="summary" {
            h2 id="summary" { "Your server" }
            dl.script {
                div { dt { "RoadRunner" } dd data-said="rr" { (choice.roadrunner) } }
                div { dt { "Target" } dd data-said="target" { (choice.target) } }
                div { dt { "Plugins" } dd { span role="status" data-said="count" { (count) } } }
            }
            p.chips.script data-chips {
                @for plugin in &choice.plugins {
                    span { (plugin.module.rsplit('/').find(|part| !is_major(part)).unwrap_or(&plugin.module)) }
                }
            }
            div.actions {
                button.primary type="submit" { "Build" }
                a.button.quiet.script href=(choice.link()) data-link {
                    span data-copied="Copied" { "Copy link" }
                }
                a.button.quiet.no-script href=(choice.link()) { "Link to this choice" }
            }
            p.hidden role="status" data-announce {}
        }
    }
}

fn is_major(part: &str) -> bool {
    part.strip_prefix('v')
        .is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()))
}
