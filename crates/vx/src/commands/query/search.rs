use serde_json::json;
use velox_build::{Error, ErrorKind};
use velox_manifest::{
    Diagnostic,
    catalogue::{self, KnownPlugin, PluginGeneration, PluginGroup, PluginStatus},
};

use crate::{
    cli::{OutputFormat, query::SearchCommand},
    report,
    settings::Settings,
    status::CommandResult,
};

pub(crate) fn search(settings: &Settings, arguments: &SearchCommand) -> CommandResult {
    let words = arguments.words.join(" ");
    let found = catalogue::search(&words);
    if found.is_empty() {
        return Err(report::failed(settings, &not_found(&words)));
    }
    report::print(&match settings.format() {
        OutputFormat::Json => found.iter().map(|plugin| report::event("plugin", &fields(plugin))).collect(),
        OutputFormat::Human => render(&found, words.trim().is_empty()),
    })
}

/// Renders a block for each group; search results include module paths.
fn render(found: &[&KnownPlugin], show_all: bool) -> String {
    let width = found.iter().map(|plugin| plugin.name.len()).max().unwrap_or_default();
    let mut text = String::new();
    for group in PluginGroup::ALL {
        let plugins: Vec<_> = found.iter().filter(|plugin| plugin.group == group).collect();
        if plugins.is_empty() {
            continue;
        }
        if !text.is_empty() {
            text.push('\n');
        }
        text += &format!("{}\n", group.title());
        for plugin in plugins {
            text += &format!("  {:width$}  {}{}\n", plugin.name, plugin.description, remark(plugin));
            if !show_all {
                for (path, generation) in module_paths(plugin) {
                    let of = generation.map(|it| format!("  ({})", it.roadrunner)).unwrap_or_default();
                    text += &format!("  {:width$}  {path}{of}\n", "");
                }
            }
        }
    }
    if show_all {
        text += "\n`vx search NAME` shows module paths.\n";
    }
    text
}

/// The module paths of a plugin, newest first, each with the RoadRunner releases that it is for.
fn module_paths(plugin: &KnownPlugin) -> Vec<(String, Option<&'static PluginGeneration>)> {
    let generation = |major: u64| catalogue::generations().iter().find(|it| it.plugins == major);
    let majors = plugin.majors.iter().rev();
    majors.map(|major| (plugin.module_path_at(*major), generation(*major))).collect()
}

fn remark(plugin: &KnownPlugin) -> String {
    match (plugin.status, &plugin.replaced_by) {
        (PluginStatus::Supported, _) => {
            let older = catalogue::generations().iter().any(|it| !plugin.majors.contains(&it.plugins));
            let newest = module_paths(plugin).into_iter().find_map(|(_, generation)| generation);
            newest.filter(|_| older).map(|it| format!(" ({})", it.roadrunner)).unwrap_or_default()
        }
        (PluginStatus::ThirdParty, _) => " (third-party)".to_owned(),
        (PluginStatus::Deprecated, Some(other)) => format!(" (deprecated: use {other})"),
        (PluginStatus::Deprecated, None) => " (deprecated)".to_owned(),
    }
}

fn fields(plugin: &KnownPlugin) -> serde_json::Value {
    json!({
        "name": plugin.name,
        "module": plugin.module_path(),
        "modules": module_paths(plugin).into_iter().map(|(path, generation)| {
            json!({ "module": path, "roadrunner": generation.map(|it| &it.roadrunner) })
        }).collect::<Vec<_>>(),
        "group": plugin.group.title(),
        "status": plugin.status.word(),
        "replaced_by": plugin.replaced_by,
        "description": plugin.description,
    })
}

fn not_found(words: &str) -> Error {
    let mut error = Diagnostic::error(format!("no known plugin matches `{words}`"));
    let nearest: Vec<_> = catalogue::nearest(words).iter().map(|plugin| plugin.name.as_str()).collect();
    if !nearest.is_empty() {
        error = error.help(format!("did you mean `{}`?", nearest.join("`, `")));
    }
    let help = "any Go module can be a plugin; the catalogue only has well-known ones";
    Error::many(ErrorKind::Build, vec![error.help(help)])
}
