//! Rendering of a new `velox.toml` (`vx init`).

use std::{collections::BTreeMap, fmt::Write as _};

use velox_manifest::{
    GoTarget,
    catalogue::{self, KnownPlugin, PluginGroup},
    edit::{group_heading, key, string as quoted},
};

use crate::{BinaryModule, Inspection, without_major};

/// A plugin entry of the new configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginEntry {
    /// The name of the plugin.
    pub name: String,
    /// The module path.
    pub module: String,
    /// The version.
    pub tag: String,
    /// The replacement, `module@version`.
    pub replace: Option<String>,
    /// A comment above the entry.
    pub remark: Option<String>,
}

impl PluginEntry {
    /// Creates an entry without a replacement.
    pub fn new(name: String, module: &str, tag: &str) -> Self {
        Self { name, module: module.to_owned(), tag: tag.to_owned(), replace: None, remark: None }
    }

    /// Creates an entry for each plugin of a binary.
    #[must_use]
    pub fn from_binary(inspection: &Inspection) -> Vec<Self> {
        let entry = |plugin: &BinaryModule| {
            let (replace, remark) = match plugin.replacement.as_deref() {
                // The binary doesn't contain the sources of a directory replacement.
                Some(directory) if !directory.contains(' ') => {
                    (None, Some(format!("Built from the directory {directory}; set `replace` to yours.")))
                }
                Some(module) => (Some(module.replacen(' ', "@", 1)), None),
                None => (None, None),
            };
            PluginEntry { replace, remark, ..Self::new(plugin.name.clone(), &plugin.module, &plugin.version) }
        };
        inspection.plugins.iter().map(entry).collect()
    }
}

/// The name of a new plugin entry: the name in the catalogue, else the last element of the module path.
#[must_use]
pub fn plugin_name(module: &str) -> String {
    let known = catalogue::find(module).map(|known| known.name.clone());
    known.unwrap_or_else(|| without_major(module).rsplit('/').next().unwrap_or(module).to_owned())
}

/// The group of a plugin in the catalogue.
#[must_use]
pub fn plugin_group(module: &str) -> Option<PluginGroup> {
    catalogue::find(module).map(|known| known.group)
}

/// The configuration as TOML, with plugins by group.
#[must_use]
pub fn render_configuration(roadrunner: &str, entries: &[PluginEntry], title: &str) -> String {
    let mut text = format!(
        "# {title}.\n\
         #\n\
         # `vx add`, `vx remove` and `vx update` edit this file and preserve comments.\n\n\
         [roadrunner]\n\
         ref = {}\n",
        quoted(roadrunner)
    );
    let mut groups: BTreeMap<Option<PluginGroup>, Vec<&PluginEntry>> = BTreeMap::new();
    for entry in entries {
        groups.entry(plugin_group(&entry.module)).or_default().push(entry);
    }
    let ungrouped = groups.remove(&None).map(|entries| (None, entries));
    for (group, mut entries) in groups.into_iter().chain(ungrouped) {
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        // Writing to a String can't fail.
        let _ = write!(text, "\n{}\n", group_heading(group));
        for PluginEntry { name, module, tag, replace, remark } in entries {
            text.push('\n');
            let remark = remark.as_ref().map(|line| format!("# {}", one_line(line)));
            for line in catalogue::find(module).map(KnownPlugin::comment).into_iter().chain(remark) {
                let _ = writeln!(text, "{line}");
            }
            let (key, module, tag) = (key(name), quoted(module), quoted(tag));
            let _ = write!(text, "[plugins.{key}]\nmodule_name = {module}\ntag = {tag}\n");
            if let Some(replace) = replace {
                let _ = writeln!(text, "replace = {}", quoted(replace));
            }
        }
    }
    text
}

/// Replaces line breaks, which names in a binary may contain and which would end a comment.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// The build settings of a binary as TOML.
#[must_use]
pub fn render_settings(inspection: &Inspection) -> String {
    let Inspection { flags, target, modules, .. } = inspection;
    let has = |flag: &str| flags.iter().any(|known| known == flag);
    let mut tags: Vec<&str> = flags
        .iter()
        .filter_map(|flag| flag.strip_prefix("-tags="))
        .flat_map(|tags| tags.split(','))
        .collect();
    let debug = has("debug=true") || tags.contains(&"debug");
    tags.retain(|tag| *tag != "debug");
    let mut arguments: Vec<String> = Vec::new();
    arguments.extend((!tags.is_empty()).then(|| quoted(&format!("-tags={}", tags.join(",")))));
    arguments.extend(has("-race=true").then(|| quoted("-race")));

    let mut text = String::new();
    if debug {
        text.push_str("\n[debug]\nenabled = true\n");
    }
    if !arguments.is_empty() {
        let _ = write!(text, "\n[velox]\nbuild_args = [{}]\n", arguments.join(", "));
    }
    let foreign = target.as_ref().filter(|target| **target != GoTarget::host().to_string());
    if let Some((os, arch)) = foreign.and_then(|target| target.split_once('/')) {
        let _ = write!(text, "\n[target_platform]\nos = {}\narch = {}\n", quoted(os), quoted(arch));
    }
    for module in modules {
        let Some((path, version)) = module.replacement.as_deref().and_then(|new| new.split_once(' ')) else {
            continue;
        };
        let (old, new) = (quoted(&module.module), quoted(&format!("{path}@{version}")));
        let _ = write!(text, "\n[[replaces]]\nold = {old}\nnew = {new}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn build_settings_of_a_binary() {
        let inspection = Inspection {
            roadrunner: "github.com/roadrunner-server/roadrunner/v2025".to_owned(),
            version: Some("v2025.1.15".to_owned()),
            by_vx: true,
            stamp_version: None,
            stamp_time: None,
            go_version: "go1.26.8".to_owned(),
            target: Some("plan9/mips".to_owned()),
            flags: vec!["-race=true".to_owned(), "-tags=aws,debug".to_owned(), "CGO_ENABLED=1".to_owned()],
            plugins: Vec::new(),
            modules: vec![BinaryModule {
                name: "zap".to_owned(),
                module: "go.uber.org/zap".to_owned(),
                version: "v1.0.0".to_owned(),
                replacement: Some("example.com/zap v1.0.1".to_owned()),
            }],
        };
        insta::assert_snapshot!(render_settings(&inspection));
        let host = Inspection { target: Some(GoTarget::host().to_string()), ..inspection.clone() };
        assert!(!render_settings(&host).contains("target_platform"));
        let plain = Inspection { flags: Vec::new(), modules: Vec::new(), ..host };
        assert_eq!(render_settings(&plain), "");
    }

    #[test]
    fn plugins_by_group() {
        let entry = |name: &str, module: &str, replace: Option<&str>| PluginEntry {
            replace: replace.map(str::to_owned),
            ..PluginEntry::new(name.to_owned(), module, "v5.1.0")
        };
        let mut entries = vec![
            entry("mine", "example.com/mine", Some("example.com/fork@v1.0.0")),
            entry("rpc", "github.com/roadrunner-server/rpc/v5", None),
            entry("http", "github.com/roadrunner-server/http/v5", None),
            entry("gzip", "github.com/roadrunner-server/gzip/v5", None),
        ];
        entries[3].remark = Some("Built from\na directory.".to_owned());
        insta::assert_snapshot!(render_configuration("v2025.1.15", &entries, "Title"));
    }
}
