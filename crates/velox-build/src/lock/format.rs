//! The text format of `velox.lock`: TOML in a fixed order, so that diffs are minimal.

use std::fmt::{self, Write as _};

use serde::Deserialize;
use velox_gomod::{
    gosum::GoSum,
    modfile::{GoModFile, Replace, Require},
    module::{self, ModuleVersion},
};
use velox_manifest::parse_target;

use super::model::{
    self, Lock, LockedPlugin, LockedReplacement, LockedRoadRunner, LockedTarget, TargetVariant,
};
use crate::{
    error::Error,
    event::{LoweredModule, RaisedPlugin},
    go_variables::InstructionSet,
};

/// The format that is written, and the newest that is read.
const FORMAT: u32 = 1;

const HEADER: &str = "\
# Made by vx from the configuration beside it: the exact versions of this server.
# Commit it; `vx lock` makes it anew, and `vx lock --upgrade` with the newest that the refs name.
";

/// Of any format.
#[derive(Deserialize)]
struct FormatHeader {
    format: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LockDocument {
    format: u32,
    #[serde(default)]
    settings: Vec<String>,
    roadrunner: LockedRoadRunner,
    #[serde(default, rename = "plugin")]
    plugins: Vec<PluginSection>,
    #[serde(default)]
    raised: Vec<RaisedPlugin>,
    #[serde(default)]
    lowered: Vec<LoweredModule>,
    #[serde(default, rename = "target")]
    targets: Vec<TargetSection>,
    go: GoSection,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GoSection {
    version: String,
    /// `linux/amd64 h1:…`
    #[serde(default)]
    toolchain: Vec<String>,
    #[serde(rename = "mod")]
    go_mod: String,
    #[serde(rename = "sum")]
    go_sum: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PluginSection {
    name: String,
    from: Option<String>,
    asked: String,
    module: String,
    version: String,
    commit: Option<String>,
    replaced_by: Option<String>,
    replaced_by_directory: Option<String>,
    #[serde(default)]
    built_in: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TargetSection {
    platform: String,
    #[serde(default)]
    cgo: bool,
    #[serde(default)]
    tags: Vec<String>,
    instruction_set: Option<String>,
    packages: u64,
    modules: Vec<String>,
    #[serde(default)]
    looked_into: Vec<String>,
}

impl Lock {
    /// Parses a `velox.lock`; `name` is used in messages.
    ///
    /// # Errors
    /// An invalid text, or one with a newer format.
    pub fn parse(name: &str, text: &str) -> Result<Self, Error> {
        let wrong = |message: String| {
            Error::configuration(format!("failed to parse {name}: {message}"))
                .help("recreate it with `vx lock`, or restore it from version control")
        };
        if let Some(line) = text.lines().position(|line| line.starts_with("<<<<<<< ")) {
            return Err(wrong(format!("merge conflict at line {}", line + 1)));
        }
        let located = |error: toml_edit::de::Error| {
            let start = error.span().map_or(text.len(), |span| span.start);
            let before = text.get(..start).unwrap_or(text);
            let line = before.matches('\n').count() + 1;
            let mut failed = wrong(format!("line {line}: {}", error.message()));
            let shown = text.lines().nth(line - 1).unwrap_or_default();
            let column = before.rsplit('\n').next().unwrap_or_default().chars().count();
            failed.output =
                vec![format!("{line:>5} | {shown}"), format!("      | {:>width$}", "^", width = column + 1)];
            failed
        };
        let file: Result<LockDocument, _> = toml_edit::de::from_str(text);
        // A newer format may have other keys.
        let format = match &file {
            Ok(file) => file.format,
            Err(_) => toml_edit::de::from_str(text).map_or(FORMAT, |FormatHeader { format }| format),
        };
        if format > FORMAT {
            return Err(Error::configuration(format!(
                "{name} has format {format}, but this vx supports formats up to {FORMAT}"
            ))
            .help("it was written by a newer vx: upgrade vx, or recreate it with `vx lock`"));
        }
        file.map_err(located)?.lock().map_err(wrong)
    }
}

impl LockDocument {
    fn lock(self) -> Result<Lock, String> {
        let version = |text: &String| -> Result<ModuleVersion, String> {
            let (path, version) =
                text.split_once(' ').ok_or_else(|| format!("expected `path version`, found `{text}`"))?;
            checked(path, version)
        };
        let mut plugins = Vec::new();
        for plugin in self.plugins {
            let PluginSection { name, from, asked, module, version: at, commit, built_in, .. } = plugin;
            let replacement = match (plugin.replaced_by, plugin.replaced_by_directory) {
                (Some(by), _) => {
                    let ModuleVersion { path, version } = version(&by)?;
                    Some(LockedReplacement::Module { path, version })
                }
                (None, Some(path)) => Some(LockedReplacement::Directory { path: path.into() }),
                (None, None) => None,
            };
            checked(&module, &at)?;
            let version = at;
            plugins.push(LockedPlugin { name, from, module, asked, version, commit, replacement, built_in });
        }
        let mut targets = std::collections::BTreeMap::new();
        for target in self.targets {
            let platform = parse_target(&target.platform)?;
            let instruction_set = target
                .instruction_set
                .map(|text| InstructionSet::parse(&text, &platform.arch))
                .transpose()?;
            let variant =
                TargetVariant { target: platform, cgo: target.cgo, tags: target.tags, instruction_set };
            let locked = LockedTarget {
                modules: target.modules.iter().map(version).collect::<Result<_, _>>()?,
                looked_into: target.looked_into.iter().map(version).collect::<Result<_, _>>()?,
                packages: target.packages,
            };
            targets.insert(variant, locked);
        }
        checked(&self.roadrunner.module, &self.roadrunner.version)?;
        let GoSection { version: go_version, toolchain, go_mod, go_sum } = self.go;
        if !go_version.starts_with("go1")
            || go_version.contains(|c: char| c.is_whitespace() || "/\\".contains(c))
        {
            return Err(format!("invalid Go version `{go_version}`"));
        }
        let sum = |text: &String| {
            let (platform, sum) = text.split_once(' ').filter(|(_, sum)| sum.starts_with("h1:"))?;
            Some((platform.to_owned(), sum.to_owned()))
        };
        let toolchain = toolchain
            .iter()
            .map(|text| sum(text).ok_or_else(|| format!("expected `os/arch h1:SUM`, found `{text}`")))
            .collect::<Result<_, _>>()?;
        let go_mod = GoModFile::parse(go_mod)
            .map_err(|error| format!("line {} of go.mod: {}", error.line, error.message))?;
        let go_sum = GoSum::parse(&go_sum).map_err(|error| format!("invalid go.sum: {error}"))?;
        let lock = Lock {
            go_version,
            toolchain,
            roadrunner: self.roadrunner,
            plugins,
            settings: self.settings,
            raised: self.raised,
            lowered: self.lowered,
            targets,
            go_mod,
            go_sum,
        };
        lock.check()?;
        Ok(lock)
    }
}

impl Lock {
    /// A lock has some values twice. They must agree: an edited lock may contradict itself.
    fn check(&self) -> Result<(), String> {
        let commits = self.plugins.iter().map(|plugin| &plugin.commit).chain([&self.roadrunner.commit]);
        if let Some(commit) = commits.flatten().find(|commit| !model::is_commit(commit)) {
            return Err(format!("invalid commit {commit:?}"));
        }
        let go_mod = &self.go_mod;
        // Local replacements are copied into the workspace; a lock must not refer to other directories.
        for Replace { old_path, new_path, .. } in
            go_mod.replace.iter().filter(|new| new.new_version.is_none())
        {
            let inside = new_path.strip_prefix("./replace/");
            if inside.is_none_or(|inside| inside.split('/').any(|part| matches!(part, "" | "." | ".."))) {
                return Err(format!(
                    "go.mod replaces {old_path} with {new_path}, which is outside of ./replace"
                ));
            }
        }
        for module in
            self.targets.values().flat_map(|target| target.modules.iter().chain(&target.looked_into))
        {
            let required = go_mod.require.iter().find(|require| require.path == module.path);
            if let Some(Require { version, .. }) =
                required.filter(|require| require.version != module.version)
            {
                let ModuleVersion { path, version: here } = module;
                return Err(format!("{path} is {here} in a target, but {version} in go.mod"));
            }
        }
        for LockedPlugin { name, module, version, replacement, .. } in &self.plugins {
            let required = go_mod.require.iter().find(|require| require.path == *module);
            if let Some(Require { version: there, .. }) =
                required.filter(|require| require.version != *version)
            {
                return Err(format!("plugin {name} is {version}, but {module} is {there} in go.mod"));
            }
            let at = ModuleVersion::new(module, version);
            let replaced = model::replacement_of(&go_mod.replace, &at);
            let same = match (replacement, replaced) {
                (None, _) => true,
                (Some(LockedReplacement::Directory { .. }), Some(new)) => new.new_version.is_none(),
                (Some(LockedReplacement::Module { path, version }), Some(new)) => {
                    new.new_path == *path && new.new_version.as_ref() == Some(version)
                }
                (Some(_), None) => false,
            };
            if !same {
                return Err(format!("the replacement of plugin {name} differs from go.mod"));
            }
        }
        Ok(())
    }
}

/// Module paths and versions become paths and command line arguments.
fn checked(path: &str, version: &str) -> Result<ModuleVersion, String> {
    module::check(path, version).map_err(|error| error.to_string())?;
    Ok(ModuleVersion::new(path, version))
}

impl fmt::Display for Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{HEADER}format = {FORMAT}")?;
        if !self.settings.is_empty() {
            writeln!(f, "settings = {}", list(&self.settings))?;
        }

        let LockedRoadRunner { from, module, version, commit, time } = &self.roadrunner;
        writeln!(f, "\n[roadrunner]\nfrom = {}", quoted(from))?;
        writeln!(f, "module = {}\nversion = {}", quoted(module), quoted(version))?;
        optional(f, "commit", commit.as_deref())?;
        writeln!(f, "time = {time}")?;

        for plugin in &self.plugins {
            writeln!(f, "\n[[plugin]]\nname = {}", quoted(&plugin.name))?;
            optional(f, "from", plugin.from.as_deref())?;
            writeln!(f, "asked = {}\nmodule = {}", quoted(&plugin.asked), quoted(&plugin.module))?;
            writeln!(f, "version = {}", quoted(&plugin.version))?;
            optional(f, "commit", plugin.commit.as_deref())?;
            match &plugin.replacement {
                Some(LockedReplacement::Module { path, version }) => {
                    writeln!(f, "replaced_by = {}", quoted(&format!("{path} {version}")))?;
                }
                Some(LockedReplacement::Directory { path }) => {
                    writeln!(f, "replaced_by_directory = {}", quoted(&path.to_string_lossy()))?;
                }
                None => {}
            }
            if plugin.built_in {
                writeln!(f, "built_in = true")?;
            }
        }
        for RaisedPlugin { name, module, asked, selected, demanded_by } in &self.raised {
            writeln!(f, "\n[[raised]]\nname = {}\nmodule = {}", quoted(name), quoted(module))?;
            writeln!(f, "asked = {}\nselected = {}", quoted(asked), quoted(selected))?;
            writeln!(f, "demanded_by = {}", list(demanded_by))?;
        }
        for LoweredModule { plugin, module, from, to } in &self.lowered {
            writeln!(f, "\n[[lowered]]\nplugin = {}\nmodule = {}", quoted(plugin), quoted(module))?;
            writeln!(f, "from = {}\nto = {}", quoted(from), quoted(to))?;
        }
        for (TargetVariant { target, cgo, tags, instruction_set }, locked) in &self.targets {
            writeln!(f, "\n[[target]]\nplatform = {}", quoted(&target.to_string()))?;
            if *cgo {
                writeln!(f, "cgo = true")?;
            }
            if !tags.is_empty() {
                writeln!(f, "tags = {}", list(tags))?;
            }
            if let Some(set) = instruction_set {
                writeln!(f, "instruction_set = {}", quoted(&set.to_string()))?;
            }
            let lines = |modules: &std::collections::BTreeSet<ModuleVersion>| {
                list(&modules.iter().map(|m| format!("{} {}", m.path, m.version)).collect::<Vec<_>>())
            };
            writeln!(f, "packages = {}\nmodules = {}", locked.packages, lines(&locked.modules))?;
            if !locked.looked_into.is_empty() {
                writeln!(f, "looked_into = {}", lines(&locked.looked_into))?;
            }
        }
        writeln!(f, "\n[go]\nversion = {}", quoted(&self.go_version))?;
        if !self.toolchain.is_empty() {
            let sums: Vec<String> =
                self.toolchain.iter().map(|(platform, sum)| format!("{platform} {sum}")).collect();
            writeln!(f, "toolchain = {}", list(&sums))?;
        }
        writeln!(f, "mod = {}\nsum = {}", block(self.go_mod.text()), block(&self.go_sum.to_string()))
    }
}

fn optional(f: &mut fmt::Formatter<'_>, key: &str, value: Option<&str>) -> fmt::Result {
    value.map_or(Ok(()), |value| writeln!(f, "{key} = {}", quoted(value)))
}

fn quoted(text: &str) -> String {
    toml_edit::Value::from(text).to_string().trim().to_owned()
}

fn list(items: &[String]) -> String {
    let mut text = "[\n".to_owned();
    for item in items {
        // Writing to a String never fails.
        let _ = writeln!(text, "  {},", quoted(item));
    }
    text + "]"
}

/// A multi-line literal string where TOML allows it.
fn block(text: &str) -> String {
    let literal = !text.contains("'''") && text.chars().all(|c| !c.is_control() || matches!(c, '\n' | '\t'));
    if literal { format!("'''\n{text}'''") } else { quoted(text) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use velox_manifest::GoTarget;

    use super::*;

    fn lock() -> Lock {
        let http = "github.com/roadrunner-server/http/v5";
        Lock {
            go_version: "go1.26.8".into(),
            toolchain: BTreeMap::from([("linux/amd64".into(), "h1:x=".into())]),
            roadrunner: LockedRoadRunner {
                from: "github.com/roadrunner-server/roadrunner v2025.1.15".into(),
                module: "github.com/roadrunner-server/roadrunner/v2025".into(),
                version: "v2025.1.15".into(),
                commit: Some("0123456789012345678901234567890123456789".into()),
                time: 1_781_000_000,
            },
            plugins: vec![
                LockedPlugin {
                    name: "http".into(),
                    from: Some(format!("{http} v5.3.0 => ../http (needs 0011)")),
                    module: http.into(),
                    asked: "v5.3.0".into(),
                    version: "v5.3.0".into(),
                    commit: None,
                    replacement: Some(LockedReplacement::Directory { path: "../http".into() }),
                    built_in: false,
                },
                LockedPlugin {
                    name: "informer".into(),
                    from: None,
                    module: "github.com/roadrunner-server/informer/v5".into(),
                    asked: "v5.1.9".into(),
                    version: "v5.1.9".into(),
                    commit: None,
                    replacement: Some(LockedReplacement::Module {
                        path: "github.com/acme/informer".into(),
                        version: "v0.0.1".into(),
                    }),
                    built_in: true,
                },
            ],
            settings: vec!["exclude github.com/a/b v1.0.0".into()],
            raised: vec![RaisedPlugin {
                name: "http".into(),
                module: http.into(),
                asked: "v5.2.0".into(),
                selected: "v5.3.0".into(),
                demanded_by: vec!["github.com/a/b@v1.0.0".into()],
            }],
            lowered: vec![LoweredModule {
                plugin: "http".into(),
                module: "github.com/a/b".into(),
                from: "v1.1.0".into(),
                to: "v1.0.0".into(),
            }],
            targets: BTreeMap::from([(
                TargetVariant {
                    target: GoTarget { os: "linux".into(), arch: "amd64".into() },
                    cgo: true,
                    tags: vec!["debug".into()],
                    instruction_set: Some(InstructionSet { variable: "GOAMD64", value: "v3".into() }),
                },
                LockedTarget {
                    modules: [ModuleVersion::new(http, "v5.3.0")].into(),
                    looked_into: [ModuleVersion::new("github.com/roadrunner-server/http", "v1.0.0")].into(),
                    packages: 7,
                },
            )]),
            go_mod: GoModFile::parse(format!(
                "module x\n\ngo 1.26\n\nrequire {http} v5.3.0\n\nrequire github.com/roadrunner-server/informer/v5 v5.1.9\n\n\
                 replace {http} => ./replace/http\n\n\
                 replace github.com/roadrunner-server/informer/v5 => github.com/acme/informer v0.0.1\n"
            ))
            .unwrap(),
            go_sum: GoSum::parse("a.b/c v1.0.0 h1:x=\n").unwrap(),
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let without_sum = Lock { toolchain: BTreeMap::new(), ..lock() };
        assert!(!without_sum.to_string().contains("toolchain"));
        for lock in [lock(), without_sum] {
            assert_eq!(Lock::parse("velox.lock", &lock.to_string()).unwrap(), lock);
        }
    }

    #[test]
    fn a_newer_format_a_merge_conflict_and_a_cut_file_are_told_apart() {
        let text = lock().to_string();
        let message = |text: &str| Lock::parse("velox.lock", text).unwrap_err().to_string();
        assert!(message(&text.replace("format = 1", "format = 9\nnew = 1")).contains("format 9"));
        assert!(message(&text.replace("[roadrunner]", "<<<<<<< ours\n[roadrunner]")).contains("conflict"));
        assert!(message(&text[..text.len() / 2]).contains("failed to parse velox.lock: line"));
        assert!(message("").contains("format"));
        assert!(message(&text.replace("amd64 h1:", "amd64 ")).contains("os/arch h1:SUM"));
        assert!(message(&text.replace("go1.26.8", "1; rm")).contains("invalid Go version"));
        assert!(message(&text.replace("http v1.0.0", "../http v1.0.0")).contains("failed to parse"));
    }

    #[test]
    fn a_lock_that_was_changed_by_hand_may_not_contradict_itself() {
        let text = lock().to_string();
        let message = |old: &str, new: &str| {
            assert!(text.contains(old), "{old}");
            Lock::parse("velox.lock", &text.replacen(old, new, 1)).unwrap_err().to_string()
        };
        assert!(message("version = \"v5.3.0\"", "version = \"v5.3.1\"").contains("plugin http is v5.3.1"));
        assert!(message("http/v5 v5.3.0\",\n]", "http/v5 v5.2.0\",\n]").contains("v5.2.0 in a target"));
        assert!(
            message("acme/informer v0.0.1\"", "acme/informer v0.0.2\"")
                .contains("replacement of plugin informer")
        );
        for path in ["../../etc", "./replace/../../etc", "/etc"] {
            assert!(message("./replace/http", path).contains("outside of ./replace"), "{path}");
        }
        assert!(message("commit = \"0123", "commit = \"--up").contains("invalid commit"));
        assert!(message("require github", "require require github").contains("of go.mod"));
        assert!(message("a.b/c v1.0.0 h1:x=", "a.b/c v1.0.0").contains("invalid go.sum"));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "(?s).{0,200}", at in 0usize..1000, new in "(?s).{0,3}") {
            let _ = Lock::parse("velox.lock", &text);
            let whole = lock().to_string();
            let at = whole.floor_char_boundary(at % whole.len());
            let _ = Lock::parse("velox.lock", &format!("{}{new}{}", &whole[..at], &whole[at..]));
        }
    }
}
