use std::{collections::BTreeMap, fmt::Write as _, io, path::Path};

use velox_build::{BuildOptions, Error, Goal, QuerySession, RoadRunnerRelease, VersionSubject, write_text};
use velox_manifest::{
    Diagnostic, GoTarget, LogConfig, Manifest, SourceFile,
    catalogue::{self, PluginGroup, PluginStatus},
    edit::{key, string as quoted},
};
use velox_query::{Inspection, inspect, select_plugins, without_major};

use crate::{
    cli::edit::InitCommand,
    commands::{
        edit::prompt,
        session::{LoadedManifest, Session, working_directory},
    },
    report::{self, Change, ChangeKind, text::count},
    settings::Settings,
    signals::Signal,
    status::{CommandResult, ExitStatus},
};

/// The plugins that are preselected on a terminal: a minimal application server for PHP.
const PRESELECTED: [&str; 4] = ["http", "logger", "rpc", "server"];

const SHOWN_VERSIONS: usize = 12;

/// A plugin entry of the new configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
struct PluginEntry {
    name: String,
    module: String,
    tag: String,
    replace: Option<String>,
    /// A comment above the entry.
    remark: Option<String>,
}

/// Why no configuration is written.
enum InitError {
    Build(Error),
    /// The user left a prompt.
    Canceled,
    Terminal(io::Error),
}

impl From<Error> for InitError {
    fn from(error: Error) -> Self {
        Self::Build(error)
    }
}

/// `vx init`.
pub(crate) async fn init(settings: Settings, arguments: InitCommand) -> CommandResult {
    let directory = working_directory()?;
    let file = directory.join(&arguments.config.config);
    let name = arguments.config.config.display().to_string();
    if file.symlink_metadata().is_ok() && !arguments.force {
        let error = Diagnostic::error(format!("`{name}` already exists"))
            .help("overwrite it with --force, or write another file with `--config FILE`");
        return Err(report::invalid(&settings, None, &[error]));
    }
    let session = open_session(&settings, &arguments, &directory)?;
    let (text, about) = match configuration(&settings, &arguments, &session, &directory).await {
        Ok(written) => written,
        Err(InitError::Build(error)) => return Err(session.failed(&error)),
        Err(InitError::Canceled) => {
            let status = ExitStatus::Interrupted(Signal::Interrupt);
            session.report.failed(status, &[], &[]);
            return Err(status);
        }
        Err(InitError::Terminal(error)) => {
            return Err(report::complain(&format!("failed to prompt on the terminal: {error}")));
        }
    };
    let source = SourceFile { name, text };
    Manifest::parse(&source, &|name| settings.environment.get(name).cloned())
        .map_err(|errors| report::invalid(&settings, Some(source.clone()), &errors))?;
    write_text(&file, &source.text)
        .map_err(|error| report::complain(&format!("failed to write `{}`: {error}", file.display())))?;
    let (kind, name, to) = (ChangeKind::Created, source.name, Some(about));
    let change = Change { kind, name, module: None, from: None, to };
    session.report.edited(&file, &[change]).map_err(report::output_error)
}

/// A session for queries about RoadRunner, without plugins.
fn open_session(settings: &Settings, arguments: &InitCommand, directory: &Path) -> CommandResult<Session> {
    let reference = arguments.roadrunner.as_deref();
    let manifest = manifest(reference).map_err(|errors| {
        let label = errors.first().and_then(|first| first.label.clone()).unwrap_or_default();
        let message = format!("invalid ref `{}`", reference.unwrap_or_default());
        report::invalid(settings, None, &[Diagnostic::error(message).help(label)])
    })?;
    let go = arguments.config.go.as_ref().map(|go| directory.join(go));
    let report = report::open(settings, LogConfig::default(), None);
    let mut loaded = LoadedManifest::empty(directory);
    loaded.manifest = manifest;
    Session::new(report, settings.clone(), loaded, BuildOptions { go, ..BuildOptions::default() }, Goal::Plan)
}

/// A manifest with RoadRunner alone, parsed with a placeholder plugin.
fn manifest(roadrunner: Option<&str>) -> Result<Manifest, Vec<Diagnostic>> {
    let reference = roadrunner.map(|reference| format!("ref = {}\n", quoted(&reference.replace('$', "$$"))));
    let text = format!(
        "[roadrunner]\n{}[plugins.placeholder]\nmodule_name = \"example.com/placeholder\"\ntag = \"latest\"\n",
        reference.unwrap_or_default()
    );
    let (mut manifest, _) = Manifest::parse(&SourceFile { name: String::new(), text }, &|_| None)?;
    manifest.plugins.clear();
    Ok(manifest)
}

/// The text of the configuration, and a short description of it.
async fn configuration(
    settings: &Settings,
    arguments: &InitCommand,
    session: &Session,
    directory: &Path,
) -> Result<(String, String), InitError> {
    if let Some(binary) = &arguments.from {
        let inspection = inspect(&directory.join(binary))?;
        let (roadrunner, entries) = entries_of_binary(settings, arguments, &inspection, binary)?;
        let title = format!("The plugins and settings of {}", binary.display());
        let text = render(&roadrunner, &entries, &title) + &render_settings(&inspection);
        return Ok((text, describe(&roadrunner, entries.len())));
    }
    let by_flags = arguments.default || !arguments.groups.is_empty() || !arguments.plugins.is_empty();
    if !by_flags && !is_interactive(settings) {
        return Err(Error::configuration("stdin is not a terminal to select plugins on")
            .help("select plugins with --default, --group or --plugin")
            .into());
    }

    let reference = match &arguments.roadrunner {
        Some(reference) => reference.clone(),
        None => select_roadrunner(&session.query(), settings, !by_flags).await?,
    };
    let mut request = session.request.clone();
    request.manifest = manifest(Some(&reference)).unwrap_or(request.manifest);
    let query = QuerySession::new(&request, session.reporter(), session.cancel.clone());
    let release = query.release().await?;
    let mut entries: Vec<PluginEntry> = Vec::new();
    let mut selectors = arguments.plugins.clone();
    if by_flags {
        let is_selected = |module: &str| {
            arguments.default || group(module).is_some_and(|group| arguments.groups.contains(&group))
        };
        let released = release.plugins.iter().filter(|plugin| is_selected(&plugin.path));
        entries.extend(released.map(|plugin| entry(name_of(&plugin.path), &plugin.path, &plugin.version)));
    } else {
        selectors.extend(prompt_plugins(settings, &release)?);
    }
    for plugin in select_plugins(&query, &selectors, "github.com").await? {
        entries.retain(|known| without_major(&known.module) != without_major(&plugin.module));
        entries.push(entry(plugin.name, &plugin.module, &plugin.reference));
    }
    if entries.is_empty() {
        let error = Error::configuration("no plugin selected");
        return Err(error.help("a configuration needs at least one plugin").into());
    }
    let title = "The RoadRunner binary that `vx build` creates";
    Ok((render(&reference, &entries, title), describe(&reference, entries.len())))
}

fn is_interactive(settings: &Settings) -> bool {
    settings.terminal.stdin && settings.terminal.stderr
}

fn describe(roadrunner: &str, plugins: usize) -> String {
    format!("RoadRunner {roadrunner} with {}", count(plugins as u64, "plugin"))
}

/// The latest RoadRunner version, or the one that the user picks.
async fn select_roadrunner(
    query: &QuerySession<'_>,
    settings: &Settings,
    pick: bool,
) -> Result<String, InitError> {
    let versions = query.versions(&[VersionSubject::RoadRunner]).await?.pop().unwrap_or_default();
    let Some(latest) = versions.newest_major().and_then(|major| major.newest()).map(str::to_owned) else {
        let cause = versions.error.map(|cause| format!(": {cause}")).unwrap_or_default();
        let error = Error::configuration(format!("no version of RoadRunner found{cause}"));
        return Err(error.help("select one with `--roadrunner v2025.1.15`").into());
    };
    if !pick {
        return Ok(latest);
    }
    let recent = versions.majors.iter().flat_map(|major| major.versions.iter().cloned()).rev();
    let mut shown: Vec<String> = recent.take(SHOWN_VERSIONS).filter(|version| *version != latest).collect();
    shown.insert(0, latest);
    let index =
        prompt::select(settings.terminal, "RoadRunner version", &shown).map_err(InitError::Terminal)?;
    index.and_then(|index| shown.get(index).cloned()).ok_or(InitError::Canceled)
}

/// The plugins that the user picks, group by group, as arguments of `vx add`.
fn prompt_plugins(settings: &Settings, release: &RoadRunnerRelease) -> Result<Vec<String>, InitError> {
    let mut selectors = Vec::new();
    let groups = PluginGroup::ALL.into_iter().map(|group| (Some(group), group.title()));
    for (shown, title) in groups.chain([(None, "Other")]) {
        let mut choices: Vec<prompt::Choice> = Vec::new();
        let mut values: Vec<String> = Vec::new();
        for plugin in release.plugins.iter().filter(|plugin| group(&plugin.path) == shown) {
            let name = name_of(&plugin.path);
            let about = catalogue::find(&plugin.path).map_or("", |known| &known.description).to_owned();
            choices.push(prompt::Choice { is_selected: PRESELECTED.contains(&&*name), name, about });
            values.push(format!("{}@{}", plugin.path, plugin.version));
        }
        let third_party = catalogue::catalogue()
            .iter()
            .filter(|known| Some(known.group) == shown && known.status == PluginStatus::ThirdParty);
        for known in third_party {
            let about = format!("{} (third-party)", known.description);
            choices.push(prompt::Choice { name: known.name.clone(), about, is_selected: false });
            values.push(known.module_path());
        }
        if choices.is_empty() {
            continue;
        }
        let picked = prompt::multi_select(settings.terminal, title, &choices).map_err(InitError::Terminal)?;
        let picked = picked.ok_or(InitError::Canceled)?;
        selectors.extend(picked.into_iter().filter_map(|index| values.get(index).cloned()));
    }
    Ok(selectors)
}

/// RoadRunner's ref and the plugins of a binary.
fn entries_of_binary(
    settings: &Settings,
    arguments: &InitCommand,
    inspection: &Inspection,
    binary: &Path,
) -> Result<(String, Vec<PluginEntry>), InitError> {
    let roadrunner = match arguments.roadrunner.as_ref().or(inspection.version.as_ref()) {
        Some(reference) => reference.clone(),
        None if is_interactive(settings) => {
            let question = "The binary has no RoadRunner version. Enter its version";
            prompt::input(settings.terminal, question)
                .map_err(InitError::Terminal)?
                .ok_or(InitError::Canceled)?
        }
        None => {
            let error = Error::configuration(format!("`{}` has no RoadRunner version", binary.display()));
            let help = "set it with `--roadrunner v2025.1.15`; `rr --version` may show it";
            return Err(error.help(help).into());
        }
    };
    let entries = inspection.plugins.iter().map(|plugin| {
        let (replace, remark) = match plugin.replacement.as_deref() {
            // The sources in a directory are not in the binary.
            Some(directory) if !directory.contains(' ') => {
                (None, Some(format!("Built from the directory {directory}; set `replace` to yours.")))
            }
            Some(module) => (Some(module.replacen(' ', "@", 1)), None),
            None => (None, None),
        };
        PluginEntry { replace, remark, ..entry(plugin.name.clone(), &plugin.module, &plugin.version) }
    });
    Ok((roadrunner, entries.collect()))
}

/// The build settings of a binary as TOML.
fn render_settings(inspection: &Inspection) -> String {
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

fn entry(name: String, module: &str, tag: &str) -> PluginEntry {
    PluginEntry { name, module: module.to_owned(), tag: tag.to_owned(), replace: None, remark: None }
}

fn name_of(module: &str) -> String {
    let known = catalogue::find(module).map(|known| known.name.clone());
    known.unwrap_or_else(|| without_major(module).rsplit('/').next().unwrap_or(module).to_owned())
}

fn group(module: &str) -> Option<PluginGroup> {
    catalogue::find(module).map(|known| known.group)
}

/// The configuration as TOML, with plugins by group.
fn render(roadrunner: &str, entries: &[PluginEntry], title: &str) -> String {
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
        groups.entry(group(&entry.module)).or_default().push(entry);
    }
    let ungrouped = groups.remove(&None);
    let groups = groups.into_iter().filter_map(|(group, entries)| Some((group?.title(), entries)));
    for (title, mut entries) in groups.chain(ungrouped.map(|entries| ("Other", entries))) {
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        // Writing to a String can't fail.
        let _ = write!(text, "\n# --- {title}\n");
        for PluginEntry { name, module, tag, replace, remark } in entries {
            text.push('\n');
            let about = catalogue::find(module).map(|known| format!("{}.", known.description));
            for line in about.iter().chain(remark) {
                let _ = writeln!(text, "# {}", one_line(line));
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

/// Names in a binary may contain line breaks, which must not end a comment.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use velox_query::BinaryModule;

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
            ..entry(name.to_owned(), module, "v5.1.0")
        };
        let mut entries = vec![
            entry("mine", "example.com/mine", Some("example.com/fork@v1.0.0")),
            entry("rpc", "github.com/roadrunner-server/rpc/v5", None),
            entry("http", "github.com/roadrunner-server/http/v5", None),
            entry("gzip", "github.com/roadrunner-server/gzip/v5", None),
        ];
        entries[3].remark = Some("Built from\na directory.".to_owned());
        insta::assert_snapshot!(render("v2025.1.15", &entries, "Title"));
    }
}
