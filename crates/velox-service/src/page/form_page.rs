//! The form page, for selecting plugins.

use maud::{Markup, html};
use velox_api::{BuildSpec, Violation};

use super::{
    layout::{Page, code_spans},
    selection::Selection,
};
use crate::catalogue::{CataloguePlugin, PluginCatalogue};

/// The fields of the section that is collapsed by default.
const ADVANCED_FIELDS: [&str; 9] = [
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

pub(super) struct FormErrors(Vec<FieldError>);

struct FieldError {
    /// The `id` of the invalid element.
    id: String,
    message: String,
}

impl FormErrors {
    pub(super) fn none() -> Self {
        Self(Vec::new())
    }

    /// An error that concerns the whole form.
    pub(super) fn general(message: &str) -> Self {
        Self(vec![FieldError { id: "main".to_owned(), message: message.to_owned() }])
    }

    /// Assigns each violation of `spec` to its form element.
    pub(super) fn new(violations: &[Violation], spec: &BuildSpec, catalogue: &PluginCatalogue) -> Self {
        let locate = |violation: &Violation| {
            let (list, index) = match violation.field.split_once('[') {
                Some((list, rest)) => (list, rest.split(']').next().and_then(|at| at.parse::<usize>().ok())),
                None => (violation.field.as_str(), None),
            };
            let mut message = violation.message.clone();
            let id = match list {
                "plugins" => match index.and_then(|at| spec.plugins.get(at)) {
                    Some(plugin) => match catalogue.plugins().find(|it| it.module == plugin.module) {
                        Some(known) => version_id(known),
                        None => {
                            message = format!("{}: {message}", plugin.module);
                            "more".to_owned()
                        }
                    },
                    None => "plugins".to_owned(),
                },
                "roadrunner" => "ref".to_owned(),
                field if field == "more" || field == "target" || ADVANCED_FIELDS.contains(&field) => {
                    field.to_owned()
                }
                _ => "main".to_owned(),
            };
            FieldError { id, message }
        };
        Self(violations.iter().map(locate).collect())
    }

    fn at(&self, id: &str) -> Vec<&str> {
        self.0.iter().filter(|error| error.id == id).map(|error| error.message.as_str()).collect()
    }

    /// Renders the messages of a field.
    fn beside(&self, id: &str) -> Markup {
        let messages = self.at(id);
        html! {
            @if !messages.is_empty() {
                p.wrong id=(format!("{id}-wrong")) {
                    @for message in &messages { span { (code_spans(message)) } }
                }
            }
        }
    }

    /// The `id` of [`FormErrors::beside`], for `aria-describedby`.
    fn described(&self, id: &str) -> Option<String> {
        (!self.at(id).is_empty()).then(|| format!("{id}-wrong"))
    }

    fn invalid(&self, id: &str) -> Option<&'static str> {
        (!self.at(id).is_empty()).then_some("true")
    }

    fn summary(&self) -> Markup {
        html! {
            @if !self.0.is_empty() {
                div.alert.bad role="alert" tabindex="-1" id="wrong" {
                    h2 { "The build was not started" }
                    ul {
                        @for error in &self.0 {
                            li { a href=(format!("#{}", error.id)) { (code_spans(&error.message)) } }
                        }
                    }
                }
            }
        }
    }
}

fn version_id(plugin: &CataloguePlugin) -> String {
    format!("v-{}", plugin.name)
}

pub(super) fn page(catalogue: &PluginCatalogue, selection: &Selection, errors: &FormErrors) -> Page {
    let main = html! {
        div.intro {
            h1 { "Build a RoadRunner binary" }
            p {
                "Select plugins, and download one binary with exactly these. Each selection is compiled only once."
            }
        }
        (errors.summary())
        form.choose method="post" action="/build" data-choose {
            input type="hidden" name="was" value=(catalogue.of);
            div.steps {
                div.pair {
                    (version(catalogue, selection, errors))
                    (target(catalogue, selection, errors))
                }
                (plugins(catalogue, selection, errors))
                (advanced(selection, errors))
            }
            (summary(selection))
        }
    };
    let title = if errors.0.is_empty() { "Build a RoadRunner binary" } else { "Invalid selection" };
    Page { title: format!("{title} · velox"), refresh: None, main }
}

fn version(catalogue: &PluginCatalogue, selection: &Selection, errors: &FormErrors) -> Markup {
    let listed = catalogue.roadrunner.contains(&selection.roadrunner);
    html! {
        section.step aria-labelledby="step-version" {
            h2 id="step-version" { "RoadRunner" }
            div.fields {
                div.field {
                    label for="rr" { "Release" }
                    select id="rr" name="rr" {
                        @for (at, version) in catalogue.roadrunner.iter().enumerate() {
                            option value=(version) selected[*version == selection.roadrunner] {
                                (version) @if at == 0 { " (newest)" }
                            }
                        }
                        option value="" selected[!listed] { "Other ref…" }
                    }
                }
                div.field.grow.other data-other {
                    label for="ref" { "Tag, branch or commit" }
                    input.code type="text" id="ref" name="ref" value=(if listed { "" } else { &selection.roadrunner })
                        placeholder="master" autocomplete="off" autocapitalize="off" spellcheck="false"
                        aria-invalid=[errors.invalid("ref")] aria-describedby=[errors.described("ref")];
                }
                button.quiet.no-script type="submit" formmethod="get" formaction="/" { "Update plugins" }
            }
            (errors.beside("ref"))
            p.hint data-follows {
                @if catalogue.complete {
                    "Plugin versions are those of this release."
                } @else {
                    "The plugin versions of " (catalogue.of) " are unknown; the newest versions are selected."
                }
            }
        }
    }
}

fn plugins(catalogue: &PluginCatalogue, selection: &Selection, errors: &FormErrors) -> Markup {
    let other = |set: &str| {
        let empty = Selection { plugins: Vec::new(), ..selection.clone() };
        format!("{}&set={set}", empty.link())
    };
    html! {
        section.step id="plugins" tabindex="-1" aria-labelledby="step-plugins" {
            h2 id="step-plugins" { "Plugins" }
            (errors.beside("plugins"))
            div.tools {
                div.search.script role="search" {
                    label.hidden for="search" { "Search plugins" }
                    input type="search" id="search" placeholder="Search: kafka, metrics, cache…" autocomplete="off"
                        aria-keyshortcuts="/" aria-controls="groups";
                    kbd aria-hidden="true" { "/" }
                }
                @if catalogue.complete {
                    a.button.quiet href=(other("release")) data-set="release" { "Plugins of this release" }
                }
                a.button.quiet href=(other("none")) data-set="none" { "Clear" }
            }
            p.found role="status" data-found {}
            div id="groups" {
                @for group in &catalogue.groups {
                    @let selected =
                        group.plugins.iter().filter(|plugin| selection.reference(&plugin.module).is_some()).count();
                    fieldset.group data-group {
                        legend {
                            (group.title)
                            span.script.tally data-tally { (selected) " of " (group.plugins.len()) }
                        }
                        div.cards {
                            @for plugin in &group.plugins { (card(plugin, selection, errors)) }
                        }
                    }
                }
            }
            p.nothing data-nothing hidden {
                "No plugin found. Enter other Go modules below."
            }
            div.field.wide {
                label for="more" { "Other plugins" }
                p.hint id="more-hint" { "Go modules, one per line: " code { "module@version" } }
                textarea.code id="more" name="more" rows="2" spellcheck="false" autocapitalize="off"
                    placeholder="github.com/acme/rr-plugin/v2@v2.1.0"
                    aria-invalid=[errors.invalid("more")]
                    aria-describedby=(described("more-hint", errors.described("more"))) { (selection.more) }
                (errors.beside("more"))
            }
        }
    }
}

fn card(plugin: &CataloguePlugin, selection: &Selection, errors: &FormErrors) -> Markup {
    let selected = selection.reference(&plugin.module);
    let default = plugin.reference();
    let (id, version) = (format!("p-{}", plugin.name), version_id(plugin));
    let described_by = format!("d-{}", plugin.name);
    html! {
        div.card data-plugin {
            input type="checkbox" name="p" id=(id) value=(plugin.module) checked[selected.is_some()]
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
                (code_spans(&plugin.description))
                @if let Some(other) = &plugin.replaced_by { ". Replaced by " (other) }
            }
            input.version.code type="text" name=(format!("v.{}", plugin.module)) id=(version)
                value=(selected.unwrap_or(default)) data-own=(default) aria-label=(format!("Version of {}", plugin.name))
                autocomplete="off" autocapitalize="off" spellcheck="false"
                aria-invalid=[errors.invalid(&version)] aria-describedby=[errors.described(&version)];
            (errors.beside(&version))
        }
    }
}

fn target(catalogue: &PluginCatalogue, selection: &Selection, errors: &FormErrors) -> Markup {
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
                    select id="target" name="target" aria-describedby=[errors.described("target")] {
                        @if !catalogue.targets.contains(&selection.target) {
                            option value=(selection.target) selected { (selection.target) }
                        }
                        @for system in systems {
                            optgroup label=(system_name(system)) {
                                @for target in catalogue.targets.iter().filter(|target| {
                                    target.split('/').next() == Some(system)
                                }) {
                                    option value=(target) selected[*target == selection.target] { (target) }
                                }
                            }
                        }
                    }
                }
            }
            (errors.beside("target"))
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

fn advanced(selection: &Selection, errors: &FormErrors) -> Markup {
    let open = selection.is_advanced() || ADVANCED_FIELDS.iter().any(|field| !errors.at(field).is_empty());
    let check = |name: &str, set: bool, label: &str, hint: &str| {
        html! {
            div.check {
                input type="checkbox" id=(name) name=(name) value="1" checked[set]
                    aria-describedby=(described(&format!("{name}-hint"), errors.described(name)));
                div {
                    label for=(name) { (label) }
                    p.hint id=(format!("{name}-hint")) { (hint) }
                    (errors.beside(name))
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
                    aria-invalid=[errors.invalid(name)] aria-describedby=[errors.described(name)];
                (errors.beside(name))
            }
        }
    };
    let area = |name: &str, value: &str, label: &str, hint: &str, placeholder: &str| {
        html! {
            div.field.wide {
                label for=(name) { (label) }
                p.hint id=(format!("{name}-hint")) { (hint) }
                textarea.code id=(name) name=(name) rows="2" placeholder=(placeholder) spellcheck="false"
                    autocapitalize="off" aria-invalid=[errors.invalid(name)]
                    aria-describedby=(described(&format!("{name}-hint"), errors.described(name))) { (value) }
                (errors.beside(name))
            }
        }
    };
    html! {
        details.step.advanced open[open] {
            summary { h2 { "Advanced" } }
            fieldset.checks {
                legend.hidden { "Compiler options" }
                (check("strict", selection.strict, "Strict versions",
                    "Fail if a dependency requires a newer version of a plugin"))
                (check("debug", selection.debug, "Debug information",
                    "Keep debug information and disable optimizations"))
                (check("race", selection.race, "Race detector",
                    "Requires a C compiler, which not every service has"))
            }
            div.fields {
                div.field {
                    label for="dependencies" { "Dependencies" }
                    select id="dependencies" name="dependencies" aria-describedby=[errors.described("dependencies")] {
                        @for (value, label) in [
                            ("", "Automatic"),
                            ("release", "Of the RoadRunner release"),
                            ("minimal", "Minimal versions"),
                        ] {
                            option value=(value) selected[value == selection.dependencies] { (label) }
                        }
                    }
                    (errors.beside("dependencies"))
                }
                (line("tags", &selection.tags, "Build tags", "netgo,osusergo"))
                (line("stamp_version", &selection.stamp_version, "Version string", "that of the release"))
                (line("stamp_time", &selection.stamp_time, "Build time", "that of the release"))
            }
            (area("replaces", &selection.replaces, "Replaces", "Replacements of modules, one per line",
                "github.com/acme/old => github.com/acme/new@v1.2.3"))
            (area("excludes", &selection.excludes, "Excludes", "Module versions to exclude, one per line",
                "github.com/acme/module@v1.2.3"))
        }
    }
}

/// The `aria-describedby` of a field with a hint and an optional error.
fn described(hint: &str, error: Option<String>) -> String {
    error.map_or_else(|| hint.to_owned(), |error| format!("{error} {hint}"))
}

fn summary(selection: &Selection) -> Markup {
    let count = selection.count();
    html! {
        aside.summary aria-labelledby="summary" {
            h2 id="summary" { "Your selection" }
            dl.script {
                div { dt { "RoadRunner" } dd data-said="rr" { (selection.roadrunner) } }
                div { dt { "Target" } dd data-said="target" { (selection.target) } }
                div { dt { "Plugins" } dd { span role="status" data-said="count" { (count) } } }
            }
            p.chips.script data-chips {
                @for plugin in &selection.plugins {
                    span { (plugin.module.rsplit('/').find(|part| !is_major(part)).unwrap_or(&plugin.module)) }
                }
            }
            div.actions {
                button.primary type="submit" { "Build" }
                a.button.quiet.script href=(selection.link()) data-link {
                    span data-copied="Copied" { "Copy link" }
                }
                a.button.quiet.no-script href=(selection.link()) { "Link to this selection" }
            }
            p.hidden role="status" data-announce {}
        }
    }
}

fn is_major(part: &str) -> bool {
    part.strip_prefix('v')
        .is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()))
}
