use std::process::ExitCode;

use serde_json::json;
use velox_manifest::{
    Diagnostic, Level, LogConfig,
    catalogue::{self, KnownPlugin, PluginStatus},
};

use crate::{
    cli::{self, Format},
    report::{self, Failure},
    settings::Settings,
    status::Ending,
};

/// `vx search`.
pub(crate) fn search(settings: &Settings, arguments: &cli::Search) -> ExitCode {
    let wanted = arguments.words.join(" ");
    let found = catalogue::search(&wanted);
    if found.is_empty() {
        return nothing(settings, &wanted);
    }
    let text = match settings.format(LogConfig::default()) {
        Format::Json => found.iter().map(|plugin| report::event("plugin", &fields(plugin))).collect(),
        Format::Human => groups(&found, wanted.trim().is_empty()),
    };
    report::answer(&text)
}

/// One block for each group. The whole catalogue is a line for each plugin; what was searched has its module path too.
fn groups(found: &[&KnownPlugin], whole: bool) -> String {
    let width = found.iter().map(|plugin| plugin.name.len()).max().unwrap_or_default();
    let mut text = String::new();
    for group in catalogue::PluginGroup::ALL {
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
            if !whole {
                text += &format!("  {:width$}  {}\n", "", plugin.module_path());
            }
        }
    }
    if whole {
        text += "\n`vx search NAME` shows the module path too.\n";
    }
    text
}

fn remark(plugin: &KnownPlugin) -> String {
    match (plugin.status, &plugin.replaced_by) {
        (PluginStatus::Supported, _) => String::new(),
        (PluginStatus::ThirdParty, _) => " (third-party)".to_owned(),
        (PluginStatus::Deprecated, Some(other)) => format!(" (deprecated: use {other})"),
        (PluginStatus::Deprecated, None) => " (deprecated)".to_owned(),
    }
}

fn fields(plugin: &KnownPlugin) -> serde_json::Value {
    json!({
        "name": plugin.name,
        "module": plugin.module_path(),
        "group": plugin.group.title(),
        "status": plugin.status.word(),
        "replaced_by": plugin.replaced_by,
        "description": plugin.description,
    })
}

fn nothing(settings: &Settings, wanted: &str) -> ExitCode {
    let near: Vec<_> = catalogue::nearest(wanted).iter().map(|plugin| plugin.name.as_str()).collect();
    let mut help = Vec::new();
    if !near.is_empty() {
        help.push(format!("did you mean {}?", near.join(", ")));
    }
    help.push("the catalogue has what is known widely: any other Go module can be a plugin, too".to_owned());
    let message = format!("no known plugin matches `{wanted}`");
    let diagnostic = Diagnostic { level: Level::Error, message, span: None, label: None, help };
    let failure = Failure { ending: Ending::Build, diagnostics: &[diagnostic], output: &[] };
    report::open(settings, LogConfig::default(), None).failed(&failure);
    Ending::Build.into()
}
