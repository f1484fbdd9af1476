use std::{collections::BTreeMap, fmt::Write as _, io, path::Path, process::ExitCode, sync::Arc};

use velox_build::{BuildOptions, Error, Goal, QuerySession, RoadRunnerRelease, VersionSubject};
use velox_gomod::module::Version;
use velox_manifest::{
    Diagnostic, GoTarget, Manifest, SourceFile,
    catalogue::{self, PluginGroup},
};
use velox_query::Inspection;

use crate::{
    cli,
    commands::{
        edit::add::{Refusal, plan},
        edit::prompt,
        edit::session::{base, error},
        session::{Prepared, misconfigured, working_directory},
    },
    configuration::Configuration,
    report::{self, Change, Failure},
    settings::Settings,
    signals::Signal,
    status::Ending,
};

/// The smallest server that runs PHP: what is chosen on a terminal before the user chooses.
const USUAL: [&str; 4] = ["http", "logger", "rpc", "server"];

/// A plugin to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    name: String,
    module: String,
    tag: String,
    replace: Option<String>,
    /// A line above it.
    remark: Option<String>,
}

/// Why nothing is written.
enum Stop {
    Refused(Refusal),
    /// The prompts were left.
    Left,
    /// The terminal can't be used.
    Terminal(io::Error),
}

impl From<Diagnostic> for Stop {
    fn from(diagnostic: Diagnostic) -> Self {
        Self::Refused(Refusal::Usage(diagnostic))
    }
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Refused(Refusal::Failed(error))
    }
}

/// `vx init`.
pub(crate) async fn init(settings: Settings, arguments: cli::Init) -> ExitCode {
    let working_directory = match working_directory() {
        Ok(directory) => directory,
        Err(code) => return code,
    };
    let file = working_directory.join(&arguments.config);
    let name = arguments.config.display().to_string();
    if file.symlink_metadata().is_ok() && !arguments.force {
        let help = "name another one with `--config FILE`, or write over it with --force";
        return misconfigured(&settings, None, &[error(format!("there is {name} already"), help)]);
    }
    let prepared = match prepared(&settings, &arguments, &working_directory) {
        Ok(prepared) => prepared,
        Err(code) => return code,
    };
    match text(&settings, &arguments, &prepared, &working_directory).await {
        Ok((text, told)) => {
            let source = SourceFile { name, text };
            if let Err(diagnostics) =
                Manifest::parse(&source, &|name| settings.environment.get(name).cloned())
            {
                return misconfigured(&settings, Some(source), &diagnostics);
            }
            if let Err(error) = velox_build::write_text(&file, &source.text) {
                return report::complain(&format!("can't write {}: {error}", file.display()));
            }
            let change =
                Change { change: "created", name: source.name, module: None, from: None, to: Some(told) };
            match prepared.report.edited(&file, &[change]) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => report::complain(&format!("can't write to the standard output: {error}")),
            }
        }
        Err(Stop::Refused(Refusal::Usage(diagnostic))) => misconfigured(&settings, None, &[diagnostic]),
        Err(Stop::Refused(Refusal::Failed(error))) => prepared.failed(&error),
        Err(Stop::Left) => {
            let ending = Ending::Interrupted(Signal::Interrupt);
            prepared.report.failed(&Failure { ending, diagnostics: &[], output: &[] });
            ending.into()
        }
        Err(Stop::Terminal(error)) => report::complain(&format!("can't ask on this terminal: {error}")),
    }
}

/// A request for a RoadRunner without any plugin: enough for questions.
fn prepared(
    settings: &Settings,
    arguments: &cli::Init,
    working_directory: &Path,
) -> Result<Prepared, ExitCode> {
    let source = SourceFile { name: "velox.toml".to_owned(), text: String::new() };
    let manifest = manifest(arguments.roadrunner.as_deref()).map_err(|diagnostics| {
        let message = format!("`{}` can't be a ref", arguments.roadrunner.as_deref().unwrap_or_default());
        let help = diagnostics.first().and_then(|first| first.label.clone()).unwrap_or_default();
        misconfigured(settings, None, &[error(message, &help)])
    })?;
    let configuration = Configuration { source, base: working_directory.to_owned(), file: None };
    let options = BuildOptions {
        go: arguments.go.as_ref().map(|go| working_directory.join(go)),
        ..BuildOptions::default()
    };
    Prepared::of(settings.clone(), configuration, manifest, options, Goal::Plan)
}

fn manifest(roadrunner: Option<&str>) -> Result<Manifest, Vec<Diagnostic>> {
    let reference = roadrunner.map(|reference| format!("ref = {}\n", quoted(&reference.replace('$', "$$"))));
    let text = format!(
        "[roadrunner]\n{}[plugins.stand-in]\nmodule_name = \"example.com/stand-in\"\ntag = \"latest\"\n",
        reference.unwrap_or_default()
    );
    let (mut manifest, _) = Manifest::parse(&SourceFile { name: String::new(), text }, &|_| None)?;
    manifest.plugins.clear();
    Ok(manifest)
}

/// The text of the configuration, and what it is, in a few words.
async fn text(
    settings: &Settings,
    arguments: &cli::Init,
    prepared: &Prepared,
    working_directory: &Path,
) -> Result<(String, String), Stop> {
    let on_terminal = settings.terminal.stdin && settings.terminal.stderr;
    if let Some(binary) = &arguments.from {
        let inspection = velox_query::inspect(&working_directory.join(binary))?;
        let (roadrunner, entries) = of_binary(settings, arguments, &inspection, binary)?;
        let told = count(&roadrunner, entries.len());
        let title = format!("As {} was built", binary.display());
        return Ok((written(&roadrunner, &entries, &title) + &settings_of(&inspection), told));
    }
    let by_flags = arguments.default || !arguments.groups.is_empty() || !arguments.plugins.is_empty();
    if !by_flags && !on_terminal {
        let help = "--default takes RoadRunner's own, --group a group of them, --plugin one";
        return Err(error("no terminal to ask for plugins on".to_owned(), help).into());
    }

    let session = session(prepared);
    let asked = match &arguments.roadrunner {
        Some(reference) => reference.clone(),
        None => newest(&session, settings, !by_flags).await?,
    };
    let mut request = prepared.request.clone();
    request.manifest = manifest(Some(&asked)).unwrap_or(request.manifest);
    let session = QuerySession::new(&request, Arc::clone(&prepared.report) as _, prepared.cancel.clone());
    let release = session.release().await?;
    let mut entries: Vec<Entry> = Vec::new();
    let mut chosen = arguments.plugins.clone();
    if by_flags {
        let wanted =
            |module: &str| arguments.default || arguments.groups.contains(&cli::PluginGroup(group(module)));
        entries.extend(release.plugins.iter().filter(|plugin| wanted(&plugin.path)).map(of_release));
    } else {
        chosen.extend(ask(settings, &release)?);
    }
    let named = plan(&session, &chosen, "github.com").await.map_err(Stop::Refused)?;
    for (named, module, reference) in named {
        entries.retain(|known| base(&known.module) != base(&module));
        entries.push(Entry { name: named.name, module, tag: reference, replace: None, remark: None });
    }
    if entries.is_empty() {
        return Err(error(
            "no plugin was chosen".to_owned(),
            "a server is made of plugins: choose at least one",
        )
        .into());
    }
    let told = count(&asked, entries.len());
    Ok((written(&asked, &entries, "The RoadRunner server that `vx build` makes"), told))
}

fn session(prepared: &Prepared) -> QuerySession<'_> {
    QuerySession::new(&prepared.request, Arc::clone(&prepared.report) as _, prepared.cancel.clone())
}

fn count(roadrunner: &str, plugins: usize) -> String {
    format!("RoadRunner {roadrunner} with {}", report::text::count(plugins as u64, "plugin"))
}

/// The newest RoadRunner, or the one that the user picks.
async fn newest(session: &QuerySession<'_>, settings: &Settings, pick: bool) -> Result<String, Stop> {
    const SHOWN: usize = 12;
    let versions = session.versions(&[VersionSubject::RoadRunner]).await?.pop().unwrap_or_default();
    let newest = versions.newest_major().and_then(|major| major.newest()).map(str::to_owned);
    let Some(newest) = newest else {
        let why = versions.trouble.map(|why| format!(": {why}")).unwrap_or_default();
        let message = format!("no version of RoadRunner was found{why}");
        return Err(error(message, "name one with `--roadrunner v2025.1.15`").into());
    };
    if !pick {
        return Ok(newest);
    }
    let mut all: Vec<String> =
        versions.majors.iter().flat_map(|major| major.versions.iter().cloned()).rev().take(SHOWN).collect();
    all.retain(|version| *version != newest);
    all.insert(0, newest);
    let picked = prompt::one(settings.terminal, "RoadRunner", &all).map_err(Stop::Terminal)?;
    picked.and_then(|index| all.get(index).cloned()).ok_or(Stop::Left)
}

/// The plugins that the user picks, group by group, as arguments of `vx add`.
fn ask(settings: &Settings, release: &RoadRunnerRelease) -> Result<Vec<String>, Stop> {
    let mut chosen = Vec::new();
    let mut groups: Vec<(Option<PluginGroup>, &str)> =
        PluginGroup::ALL.into_iter().map(|group| (Some(group), group.title())).collect();
    groups.push((None, "Others"));
    for (group_asked, title) in groups {
        let mut items: Vec<(String, String, String, bool)> = release
            .plugins
            .iter()
            .filter(|plugin| group(&plugin.path) == group_asked)
            .map(|Version { path: module, version }| {
                let name = name_of(module);
                let line = catalogue::find(module).map_or("", |known| known.description.as_str()).to_owned();
                let usual = USUAL.contains(&name.as_str());
                (name, line, format!("{module}@{version}"), usual)
            })
            .collect();
        let others = catalogue::catalogue().iter().filter(|known| {
            Some(known.group) == group_asked && known.status == catalogue::PluginStatus::ThirdParty
        });
        items.extend(others.map(|known| {
            (known.name.clone(), format!("{} (third-party)", known.description), known.module_path(), false)
        }));
        if items.is_empty() {
            continue;
        }
        let shown: Vec<(String, String, bool)> =
            items.iter().map(|(name, line, _, usual)| (name.clone(), line.clone(), *usual)).collect();
        let picked =
            prompt::many(settings.terminal, title, &shown).map_err(Stop::Terminal)?.ok_or(Stop::Left)?;
        chosen.extend(picked.into_iter().filter_map(|index| items.get(index).map(|item| item.2.clone())));
    }
    Ok(chosen)
}

/// RoadRunner's ref and the plugins that are inside a binary.
fn of_binary(
    settings: &Settings,
    arguments: &cli::Init,
    inspection: &Inspection,
    binary: &Path,
) -> Result<(String, Vec<Entry>), Stop> {
    let roadrunner = match (&arguments.roadrunner, &inspection.version) {
        (Some(reference), _) => reference.clone(),
        (None, Some(version)) => version.clone(),
        (None, None) if settings.terminal.stdin && settings.terminal.stderr => {
            let question = "The binary doesn't say its RoadRunner version. Which is it";
            prompt::line(settings.terminal, question).map_err(Stop::Terminal)?.ok_or(Stop::Left)?
        }
        (None, None) => {
            let message = format!("{} doesn't say which RoadRunner version it is", binary.display());
            let help = "say it with `--roadrunner v2025.1.15`; `rr --version` may tell";
            return Err(error(message, help).into());
        }
    };
    let entries = inspection.plugins.iter().map(|inside| {
        let (replace, remark) = match inside.replacement.as_deref() {
            // A directory has no version. What was in it is gone with it.
            Some(new) if !new.contains(' ') => {
                (None, Some(format!("It was built from the directory {new}: put yours in with `replace`.")))
            }
            Some(new) => (Some(new.replacen(' ', "@", 1)), None),
            None => (None, None),
        };
        Entry {
            name: inside.name.clone(),
            module: inside.module.clone(),
            tag: inside.version.clone(),
            replace,
            remark,
        }
    });
    Ok((roadrunner, entries.collect()))
}

/// What else a binary says of its making, in the configuration's words.
fn settings_of(inspection: &Inspection) -> String {
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
    // Writing to a String can't fail.
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

fn of_release(Version { path: module, version }: &Version) -> Entry {
    Entry { name: name_of(module), module: module.clone(), tag: version.clone(), replace: None, remark: None }
}

fn name_of(module: &str) -> String {
    let known = catalogue::find(module).map(|known| known.name.clone());
    known.unwrap_or_else(|| base(module).rsplit('/').next().unwrap_or(module).to_owned())
}

fn group(module: &str) -> Option<PluginGroup> {
    catalogue::find(module).map(|known| known.group)
}

/// The configuration: plugins by group, a line on each that is known.
fn written(roadrunner: &str, entries: &[Entry], title: &str) -> String {
    let mut text = format!(
        "# {title}.\n\
         #\n\
         # `vx build` builds it. `vx add`, `vx remove` and `vx update` change this file, and leave your comments alone.\n\n\
         [roadrunner]\n\
         ref = {}\n",
        quoted(roadrunner)
    );
    let mut groups: BTreeMap<Option<PluginGroup>, Vec<&Entry>> = BTreeMap::new();
    for entry in entries {
        groups.entry(group(&entry.module)).or_default().push(entry);
    }
    // What no group has comes last.
    let unknown = groups.remove(&None);
    let titled = groups.into_iter().filter_map(|(group, entries)| Some((group?.title(), entries)));
    for (title, mut entries) in titled.chain(unknown.map(|entries| ("Others", entries))) {
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        // Writing to a String can't fail.
        let _ = write!(text, "\n# --- {title}\n");
        for Entry { name, module, tag, replace, remark } in entries {
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

/// A binary may name its modules as it likes: no name becomes a line of its own.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn quoted(text: &str) -> String {
    velox_manifest::edit::string(text)
}

fn key(name: &str) -> String {
    velox_manifest::edit::key(name)
}

#[cfg(test)]
mod tests {
    use velox_query::BinaryModule;

    use super::*;

    #[test]
    fn what_a_binary_says_of_its_making_is_written_too() {
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
        insta::assert_snapshot!(settings_of(&inspection));
        let host = Inspection { target: Some(GoTarget::host().to_string()), ..inspection.clone() };
        assert!(!settings_of(&host).contains("target_platform"));
        let plain = Inspection { flags: Vec::new(), modules: Vec::new(), ..host };
        assert_eq!(settings_of(&plain), "");
    }

    #[test]
    fn a_configuration_is_written_by_groups_with_a_line_on_each() {
        let entry = |name: &str, module: &str, replace: Option<&str>| Entry {
            name: name.to_owned(),
            module: module.to_owned(),
            tag: "v5.1.0".to_owned(),
            replace: replace.map(str::to_owned),
            remark: None,
        };
        let mut entries = vec![
            entry("mine", "example.com/mine", Some("example.com/fork@v1.0.0")),
            entry("rpc", "github.com/roadrunner-server/rpc/v5", None),
            entry("http", "github.com/roadrunner-server/http/v5", None),
            entry("gzip", "github.com/roadrunner-server/gzip/v5", None),
        ];
        entries[3].remark = Some("It was\nbuilt from a directory.".to_owned());
        insta::assert_snapshot!(written("v2025.1.15", &entries, "A server"));
    }
}
