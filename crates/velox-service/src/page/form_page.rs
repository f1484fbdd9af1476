//! The form page, for selecting plugins.

use maud::{Markup, html};
use url::form_urlencoded;
use velox_api::{BuildSpec, Violation};
use velox_build::render::human_size;
use velox_gomod::module::without_major;
use velox_manifest::catalogue;

use super::{
    configuration::ReadConfiguration,
    layout::{Page, code_spans},
    missing::MissingPlugins,
    selection::Selection,
};
use crate::catalogue::{CataloguePlugin, PluginCatalogue};

/// The fields of the section that is collapsed by default.
const ADVANCED_FIELDS: [&str; 11] = [
    "debug",
    "race",
    "strict",
    "dependencies",
    "tags",
    "replaces",
    "excludes",
    "requires",
    "go",
    "stamp_version",
    "stamp_time",
];

/// The errors of a form; their fields are the `id`s of the invalid elements.
pub(super) struct FormErrors(Vec<Violation>);

impl FormErrors {
    pub(super) fn none() -> Self {
        Self(Vec::new())
    }

    /// An error that concerns the element with this `id`.
    pub(super) fn at(id: &str, message: &str) -> Self {
        Self(vec![Violation::new(id, message)])
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
                        Some(known) if !known.always_included => version_id(known),
                        _ => {
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
            Violation::new(id, message)
        };
        Self(violations.iter().map(locate).collect())
    }

    fn of(&self, id: &str) -> Vec<&str> {
        self.0.iter().filter(|error| error.field == id).map(|error| error.message.as_str()).collect()
    }

    /// Renders the messages of a field.
    fn beside(&self, id: &str) -> Markup {
        let messages = self.of(id);
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
        (!self.of(id).is_empty()).then(|| format!("{id}-wrong"))
    }

    fn invalid(&self, id: &str) -> Option<&'static str> {
        (!self.of(id).is_empty()).then_some("true")
    }

    fn summary(&self) -> Markup {
        html! {
            @if !self.0.is_empty() {
                div.alert.bad role="alert" tabindex="-1" id="wrong" {
                    h2 { "The build was not started" }
                    ul {
                        @for error in &self.0 {
                            li { a href=(format!("#{}", error.field)) { (code_spans(&error.message)) } }
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

/// The form with a selection.
pub(super) struct FormPage<'a> {
    pub(super) catalogue: &'a PluginCatalogue,
    pub(super) selection: &'a Selection,
    pub(super) errors: FormErrors,
    pub(super) missing: MissingPlugins,
    /// Whether the next request builds despite the missing plugins.
    pub(super) is_confirming: bool,
    /// Whether the target is the platform of the browser.
    pub(super) is_target_detected: bool,
    /// The `.rr.yaml` that the plugins were selected for.
    pub(super) configuration: Option<&'a ReadConfiguration>,
}

impl FormPage<'_> {
    pub(super) fn page(&self) -> Page {
        let Self { catalogue, selection, errors, .. } = self;
        let link = selection.link();
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
                @if self.is_confirming { input type="hidden" name="accepted" value=(self.missing.key()); }
                div.steps {
                    div.pair {
                        (version(catalogue, selection, errors))
                        (target(catalogue, selection, errors, self.is_target_detected))
                    }
                    (self.plugins())
                    (advanced(selection, errors))
                }
                (self.summary())
            }
            form id="configuration-form" method="post" action="/select" {
                @for (name, value) in form_urlencoded::parse(link.trim_start_matches("/?").as_bytes()) {
                    input type="hidden" name=(name) value=(value);
                }
            }
        };
        let title = if errors.0.is_empty() { "Build a RoadRunner binary" } else { "Invalid selection" };
        Page { title: format!("{title} · velox"), refresh: None, main }
    }

    fn plugins(&self) -> Markup {
        let Self { catalogue, selection, errors, .. } = self;
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
                    (form_button("set", "none", None, "Clear"))
                }
                fieldset.presets {
                    legend { "Add a preset" }
                    @for preset in catalogue::presets() {
                        (form_button("preset", &preset.name, Some(&preset.description), &preset.name))
                    }
                }
                (self.configuration_field())
                p.found role="status" data-found {}
                div id="groups" {
                    @for group in &catalogue.groups {
                        @let selectable = || group.plugins.iter().filter(|plugin| !plugin.always_included);
                        @let selected = selectable().filter(|plugin| selection.reference(&plugin.module).is_some()).count();
                        fieldset.group data-group {
                            legend {
                                (group.title)
                                span.script.tally data-tally { (selected) " of " (selectable().count()) }
                            }
                            div.cards {
                                @for plugin in &group.plugins {
                                    @if plugin.always_included { (included_card(plugin)) }
                                    @else { (card(catalogue, plugin, selection, errors)) }
                                }
                            }
                        }
                    }
                }
                p.nothing data-nothing hidden {
                    "No plugin found. Enter other Go modules below."
                }
                (area(errors, "more", &selection.more, "Other plugins",
                    &html! { "Go modules, one per line: " code { "module@version" } }, "github.com/acme/rr-plugin/v2@v2.1.0"))
            }
        }
    }

    /// The choice of a `.rr.yaml`. Its fields belong to another form: the main one is also sent as a URL.
    fn configuration_field(&self) -> Markup {
        html! {
            details.configuration open[self.configuration.is_some()] {
                summary { "Select the plugins of a .rr.yaml" }
                div.script.field {
                    label for="configuration-file" { "Choose a file, or drop it on this page" }
                    input type="file" id="configuration-file" accept=".yaml,.yml";
                }
                div.field {
                    label for="configuration" { "Or paste its text" }
                    p.hint id="configuration-hint" {
                        "The text is only read for the plugins that it needs, and is not stored. Files that it includes are not read."
                    }
                    textarea.code id="configuration" name="configuration" form="configuration-form" rows="3"
                        spellcheck="false" autocapitalize="off" placeholder="http:" aria-describedby="configuration-hint" {}
                    div.actions {
                        button type="submit" form="configuration-form" { "Select its plugins" }
                    }
                }
                div id="configured" role="status" tabindex="-1" {
                    @if let Some(configuration) = self.configuration { (configuration.markup()) }
                }
            }
        }
    }

    fn summary(&self) -> Markup {
        let Self { catalogue, selection, missing, is_confirming, .. } = self;
        let is_selected = |plugin: &&CataloguePlugin| selection.reference(&plugin.module).is_some();
        html! {
            aside.summary aria-labelledby="summary" {
                h2 id="summary" { "Your selection" }
                dl.script {
                    div { dt { "RoadRunner" } dd data-said="rr" { (selection.roadrunner) } }
                    div { dt { "Target" } dd data-said="target" { (selection.target) } }
                    div { dt { "Plugins" } dd { span role="status" data-said="count" { (selection.count()) } } }
                }
                p.chips.script data-chips {
                    @for plugin in catalogue.plugins().filter(is_selected) { span { (plugin.name) } }
                }
                div.notices role="status" data-notices { (missing.markup()) }
                div.actions {
                    button.primary type="submit" data-build-button {
                        @if *is_confirming { "Build anyway" } @else { "Build" }
                    }
                    a.button.quiet.script href=(selection.link()) data-link {
                        span data-copied="Copied" { "Copy link" }
                    }
                    a.button.quiet.no-script href=(selection.link()) { "Link to this selection" }
                }
                div.downloads {
                    span id="downloads" { "Build it yourself:" }
                    @for name in ["velox.toml", "Dockerfile"] {
                        button.quiet type="submit" formmethod="get" formaction=(format!("/{name}"))
                            aria-describedby="downloads" { (name) }
                    }
                }
                p.hidden role="status" data-announce {}
            }
        }
    }
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

/// A button that changes the selection on the form page.
fn form_button(name: &str, value: &str, description: Option<&str>, label: &str) -> Markup {
    let id = description.map(|_| format!("{name}-{value}"));
    html! {
        button.quiet type="submit" formmethod="get" formaction="/" name=(name) value=(value) title=[description]
            aria-describedby=[&id] { (label) }
        @if let Some(description) = description { span.hidden id=[id] { (description) } }
    }
}

/// A plugin that every binary contains.
fn included_card(plugin: &CataloguePlugin) -> Markup {
    html! {
        div.card.included data-plugin=(plugin.module) {
            span.mark aria-hidden="true" { "✓" }
            div.name { span { (plugin.name) } span.badge { "always included" } }
            p.what { (code_spans(&plugin.description)) }
            @if let Some(version) = &plugin.version { span.version.code { (version) } }
            (links(plugin))
        }
    }
}

/// The names of the plugins that a plugin works with.
fn works_with(plugin: &CataloguePlugin) -> Markup {
    let Some(known) = catalogue::find(without_major(&plugin.module)) else { return html! {} };
    let users = known.used_by.iter().map(|users| users.join(" or "));
    let names: Vec<String> = known.needs.iter().cloned().chain(users).collect();
    html! {
        @if !names.is_empty() { span { "Needs " (names.join(", ")) } }
    }
}

fn links(plugin: &CataloguePlugin) -> Markup {
    html! {
        p.links {
            (works_with(plugin))
            @if let Some(bytes) = plugin.size {
                span { "Adds about " (human_size(bytes)) }
            }
            @if let Some(page) = &plugin.documentation {
                a href=(page) rel="noreferrer" { "Docs" span.hidden { " of " (plugin.name) } }
            }
            a href=(format!("https://pkg.go.dev/{}", plugin.module)) rel="noreferrer" {
                "Module" span.hidden { " of " (plugin.name) }
            }
        }
    }
}

fn card(
    catalogue: &PluginCatalogue,
    plugin: &CataloguePlugin,
    selection: &Selection,
    errors: &FormErrors,
) -> Markup {
    let selected = selection.reference(&plugin.module);
    let default = plugin.reference();
    let (id, version) = (format!("p-{}", plugin.name), version_id(plugin));
    let described_by = format!("d-{}", plugin.name);
    let presets = catalogue::presets().iter().map(|preset| preset.name.as_str());
    let presets: Vec<&str> = presets.filter(|preset| catalogue.is_in_preset(plugin, preset)).collect();
    html! {
        div.card data-plugin=(plugin.module) {
            input type="checkbox" name="p" id=(id) value=(plugin.module) checked[selected.is_some()]
                aria-describedby=(described_by) data-presets=(presets.join(" "));
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
            (links(plugin))
        }
    }
}

fn target(
    catalogue: &PluginCatalogue,
    selection: &Selection,
    errors: &FormErrors,
    is_detected: bool,
) -> Markup {
    let hint = is_detected.then_some("target-hint");
    let described = errors.described("target").or(hint.map(str::to_owned));
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
                    select id="target" name="target" aria-describedby=[described] data-detected[is_detected] {
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
            @if let Some(hint) = hint { p.hint id=(hint) data-target-hint { "The platform of your browser." } }
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
    let open = selection.is_advanced() || ADVANCED_FIELDS.iter().any(|field| !errors.of(field).is_empty());
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
                (line("go", &selection.go, "Go version", "that of the service"))
                (line("tags", &selection.tags, "Build tags", "netgo,osusergo"))
                (line("stamp_version", &selection.stamp_version, "Version string", "that of the release"))
                (line("stamp_time", &selection.stamp_time, "Build time", "that of the release"))
            }
            (area(errors, "replaces", &selection.replaces, "Replaces",
                &html! { "Replacements of modules, one per line" }, "github.com/acme/old => github.com/acme/new@v1.2.3"))
            (area(errors, "excludes", &selection.excludes, "Excludes",
                &html! { "Module versions to exclude, one per line" }, "github.com/acme/module@v1.2.3"))
            (area(errors, "requires", &selection.requires, "Requires",
                &html! { "Lowest versions of modules, one per line" }, "golang.org/x/crypto@v0.45.0"))
        }
    }
}

/// The `aria-describedby` of a field with a hint and an optional error.
fn described(hint: &str, error: Option<String>) -> String {
    error.map_or_else(|| hint.to_owned(), |error| format!("{error} {hint}"))
}

/// A field with several lines.
fn area(
    errors: &FormErrors,
    name: &str,
    value: &str,
    label: &str,
    hint: &Markup,
    placeholder: &str,
) -> Markup {
    let hint_id = format!("{name}-hint");
    html! {
        div.field.wide {
            label for=(name) { (label) }
            p.hint id=(hint_id) { (hint) }
            textarea.code id=(name) name=(name) rows="2" placeholder=(placeholder) spellcheck="false"
                autocapitalize="off" aria-invalid=[errors.invalid(name)]
                aria-describedby=(described(&hint_id, errors.described(name))) { (value) }
            (errors.beside(name))
        }
    }
}
