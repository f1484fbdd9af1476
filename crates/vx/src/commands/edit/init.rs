use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use velox_build::{
    BuildOptions, BuildRequest, Error, Event, Goal, QuerySession, RoadRunnerRelease, VersionSubject,
    Versions, write_text,
};
use velox_manifest::{
    Diagnostic, Level, LogConfig, Manifest, ManifestOverrides, SourceFile,
    catalogue::{self, PluginGroup, PluginStatus},
};
use velox_query::{
    Inspection, PluginEntry, RrConfigPlugins, RrConfigReport, SelectedPlugin, inspect, plugin_group,
    plugin_name, render_configuration, render_settings, select_plugins, without_major,
};

use crate::{
    cli::{OutputFormat, edit::InitCommand},
    commands::{
        edit::{prompt, select::select},
        rr_config,
        session::{LoadedManifest, Session, working_directory},
    },
    config_file::DEFAULT_FILE_NAME,
    report::{self, Change, ChangeKind, Report, text::count},
    settings::Settings,
    signals::Signal,
    status::{CommandResult, ExitStatus},
};

/// The plugins that are preselected on a terminal: a minimal application server for PHP.
const PRESELECTED: [&str; 4] = ["http", "logger", "rpc", "server"];

const SHOWN_VERSIONS: usize = 12;

/// [`report::open`] or [`report::open_stderr`].
type OpenReport = fn(&Settings, LogConfig, Option<SourceFile>) -> Arc<dyn Report>;

/// The reason why no configuration was written.
enum InitError {
    Build(Error),
    Canceled,
    Terminal(io::Error),
    /// What was wrong is shown.
    Shown(ExitStatus),
}

impl From<Error> for InitError {
    fn from(error: Error) -> Self {
        Self::Build(error)
    }
}

pub(crate) async fn init(settings: Settings, arguments: InitCommand) -> CommandResult {
    let directory = working_directory()?;
    let file = directory.join(arguments.config.file());
    let name = arguments.config.file().display().to_string();
    if file.symlink_metadata().is_ok() && !arguments.force {
        let error = Diagnostic::error(format!("`{name}` already exists"))
            .help("overwrite it with --force, or write another file with `--config FILE`");
        return Err(report::invalid(&settings, None, &[error]));
    }
    let go = arguments.config.go.as_ref().map(|go| directory.join(go));
    let session = query_session(&settings, arguments.roadrunner.as_deref(), go, &directory)?;
    let (text, about) = match configuration(&settings, &arguments, &session, &directory).await {
        Ok(written) => written,
        Err(InitError::Build(error)) => return Err(session.failed(&error)),
        Err(InitError::Canceled) => {
            let status = ExitStatus::Interrupted(Signal::Interrupt);
            session.report.failed(status, &[], &[]);
            return Err(status);
        }
        Err(InitError::Shown(status)) => return Err(status),
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
    let config = match file.file_name().is_some_and(|name| name == DEFAULT_FILE_NAME) {
        true => String::new(),
        false => format!(" -c {}", arguments.config.file().display()),
    };
    session.report.edited(&file, &[change]).map_err(report::output_error)?;
    if session.format == OutputFormat::Human {
        session.note(format!("compile it with `vx build{config}`; `vx add{config} PLUGIN` adds a plugin"));
    }
    Ok(())
}

/// A session for queries about RoadRunner, without plugins.
pub(in crate::commands) fn query_session(
    settings: &Settings,
    roadrunner: Option<&str>,
    go: Option<PathBuf>,
    directory: &Path,
) -> CommandResult<Session> {
    let manifest = manifest(roadrunner).map_err(|errors| report::invalid(settings, None, &errors))?;
    let report = report::open(settings, LogConfig::default(), None);
    let mut loaded = LoadedManifest::empty(directory);
    loaded.manifest = manifest;
    Session::new(report, settings.clone(), loaded, BuildOptions { go, ..BuildOptions::default() }, Goal::Plan)
}

/// A manifest without plugins.
fn manifest(roadrunner: Option<&str>) -> Result<Manifest, Vec<Diagnostic>> {
    let overrides = ManifestOverrides::read(roadrunner, &[], &[], |_| Ok(String::new()))?;
    let mut manifest = Manifest::without_a_file();
    if let Some(value) = overrides.roadrunner {
        manifest.roadrunner.reference = Some(value.into());
    }
    Ok(manifest)
}

/// The configuration text and a short description.
async fn configuration(
    settings: &Settings,
    arguments: &InitCommand,
    session: &Session,
    directory: &Path,
) -> Result<(String, String), InitError> {
    let mut by_flags = arguments.default
        || !(arguments.groups.is_empty() && arguments.presets.is_empty() && arguments.plugins.is_empty());
    let mut reference = arguments.roadrunner.clone();
    let mut entries: Vec<PluginEntry> = Vec::new();
    let mut selectors = arguments.plugins.clone();
    let mut title = "The RoadRunner binary that `vx build` creates".to_owned();
    let mut build_settings = String::new();
    match &arguments.from {
        Some(file) if rr_config::is_yaml(file) => {
            let needed = needed_plugins(settings, report::open, file, directory)?;
            selectors.splice(0..0, needed);
            title = format!("The plugins that {} needs", file.display());
            by_flags = true;
        }
        Some(binary) => {
            let inspection = inspect(&directory.join(binary))?;
            let (roadrunner, plugins) = entries_of_binary(settings, arguments, &inspection, binary)?;
            title = format!("The plugins and settings of {}", binary.display());
            build_settings = render_settings(&inspection);
            if !by_flags {
                let text = render_configuration(&roadrunner, &plugins, &title) + &build_settings;
                return Ok((text, describe(&roadrunner, plugins.len())));
            }
            (reference, entries) = (Some(roadrunner), plugins);
        }
        None => {}
    }
    if !by_flags && !is_interactive(settings) {
        return Err(Error::configuration("stdin is not a terminal to select plugins on")
            .help("select plugins with --default, --preset, --group, --plugin or --from .rr.yaml")
            .into());
    }

    let reference = match reference {
        Some(reference) => reference,
        None => select_roadrunner(&session.query()?, settings, !by_flags).await?,
    };
    let request = request_for(session, &reference);
    let query = QuerySession::new(&request, session.reporter(), session.cancel.clone())?;
    let release = query.release().await?;
    if by_flags {
        let presets = || arguments.presets.iter().filter_map(|name| catalogue::preset(name));
        let is_selected = |module: &str| {
            arguments.default
                || presets().any(|preset| preset.contains(module))
                || plugin_group(module).is_some_and(|group| arguments.groups.contains(&group))
        };
        let is_new =
            |module: &str| entries.iter().all(|known| without_major(&known.module) != without_major(module));
        let released: Vec<_> = release
            .plugins
            .iter()
            .filter(|plugin| is_selected(&plugin.path) && is_new(&plugin.path))
            .collect();
        entries.extend(
            released
                .iter()
                .map(|plugin| PluginEntry::new(plugin_name(&plugin.path), &plugin.path, &plugin.version)),
        );
    } else {
        selectors.extend(prompt_plugins(settings, &release)?);
    }
    let base = directory.join(arguments.config.file());
    let places = (directory, base.parent().unwrap_or(directory));
    for plugin in select(&query, &selectors, "github.com", false, places).await? {
        entries.retain(|known| without_major(&known.module) != without_major(&plugin.module));
        let replace = plugin.replace.map(|replace| replace.to_string());
        entries.push(PluginEntry {
            replace,
            ..PluginEntry::new(plugin.name, &plugin.module, &plugin.reference)
        });
    }
    if entries.is_empty() {
        let error = Error::configuration("no plugin selected");
        return Err(error.help("a configuration needs at least one plugin").into());
    }
    let text = render_configuration(&reference, &entries, &title) + &build_settings;
    Ok((text, describe(&reference, entries.len())))
}

/// The configuration of a RoadRunner release with its plugins for some purposes; without a preset, with all of them.
pub(in crate::commands) async fn configuration_of_release(
    session: &Session,
    reference: &str,
    presets: &[String],
) -> Result<String, Error> {
    let request = request_for(session, reference);
    let query = QuerySession::new(&request, session.reporter(), session.cancel.clone())?;
    let presets: Vec<_> = presets.iter().filter_map(|name| catalogue::preset(name)).collect();
    let is_selected =
        |module: &str| presets.is_empty() || presets.iter().any(|preset| preset.contains(module));
    let release = query.release().await?;
    let selected = release.plugins.iter().filter(|plugin| is_selected(&plugin.path));
    let entries: Vec<PluginEntry> = selected
        .map(|plugin| PluginEntry::new(plugin_name(&plugin.path), &plugin.path, &plugin.version))
        .collect();
    if entries.is_empty() {
        return Err(Error::configuration(format!("RoadRunner {reference} has none of these plugins")));
    }
    Ok(render_configuration(reference, &entries, "The packages of a public cache"))
}

/// The names of the plugins that a `.rr.yaml` needs. Reports what was found in it.
fn needed_plugins(
    settings: &Settings,
    open: OpenReport,
    file: &Path,
    directory: &Path,
) -> Result<Vec<String>, InitError> {
    let RrConfigPlugins { plugins, reports } = rr_config::read(settings, file, directory)?.plugins();
    for RrConfigReport { source, findings } in reports {
        let report = open(settings, LogConfig::default(), Some(source));
        if plugins.is_empty() {
            report.failed(ExitStatus::Configuration, &findings, &[]);
            return Err(InitError::Shown(ExitStatus::Configuration));
        }
        for finding in findings {
            report.report(Event::Warning(Diagnostic { level: Level::Warning, ..finding }));
        }
    }
    Ok(plugins.iter().map(|plugin| plugin.name.clone()).collect())
}

/// The newest RoadRunner release, and the plugins that a `.rr.yaml` needs, with their versions.
pub(in crate::commands) async fn plugins_of_rr_config(
    settings: &Settings,
    session: &Session,
    roadrunner: Option<&str>,
    file: &Path,
    directory: &Path,
) -> CommandResult<(String, Vec<SelectedPlugin>)> {
    let selected = async {
        let needed = needed_plugins(settings, report::open_stderr, file, directory)?;
        let reference = match roadrunner {
            Some(reference) => reference.to_owned(),
            None => newest_roadrunner(&session.query()?).await?.1,
        };
        let request = request_for(session, &reference);
        let query = QuerySession::new(&request, session.reporter(), session.cancel.clone())?;
        Ok((reference, select_plugins(&query, &needed, "github.com", false).await?))
    };
    selected.await.map_err(|error| match error {
        InitError::Build(error) => session.failed(&error),
        InitError::Shown(status) => status,
        InitError::Canceled | InitError::Terminal(_) => ExitStatus::Failure,
    })
}

/// The request of the session for this RoadRunner.
fn request_for(session: &Session, reference: &str) -> BuildRequest {
    let mut request = session.request.clone();
    request.manifest = manifest(Some(reference)).unwrap_or(request.manifest);
    request
}

/// The newest RoadRunner release, and the plugins that it contains.
pub(super) async fn newest_release(session: &Session) -> Result<(String, RoadRunnerRelease), Error> {
    let newest = newest_roadrunner(&session.query()?).await?.1;
    let request = request_for(session, &newest);
    let query = QuerySession::new(&request, session.reporter(), session.cancel.clone())?;
    Ok((newest, query.release().await?))
}

fn is_interactive(settings: &Settings) -> bool {
    settings.terminal.stdin && settings.terminal.stderr
}

fn describe(roadrunner: &str, plugins: usize) -> String {
    format!("RoadRunner {roadrunner} with {}", count(plugins as u64, "plugin"))
}

/// The RoadRunner version selected in a prompt, else the latest one.
async fn select_roadrunner(
    query: &QuerySession<'_>,
    settings: &Settings,
    pick: bool,
) -> Result<String, InitError> {
    let (versions, latest) = newest_roadrunner(query).await?;
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

/// The versions of RoadRunner, and the latest one.
pub(super) async fn newest_roadrunner(query: &QuerySession<'_>) -> Result<(Versions, String), Error> {
    let versions = query.versions(&[VersionSubject::RoadRunner]).await?.pop().unwrap_or_default();
    match versions.newest_major().and_then(|major| major.newest()).map(str::to_owned) {
        Some(latest) => Ok((versions, latest)),
        None => Err(versions.none_found("RoadRunner", "select one with `--roadrunner v2025.1.15`")),
    }
}

/// The plugins selected in a prompt for each group, as `vx add` arguments.
fn prompt_plugins(settings: &Settings, release: &RoadRunnerRelease) -> Result<Vec<String>, InitError> {
    let mut selectors = Vec::new();
    let groups = PluginGroup::ALL.into_iter().map(|group| (Some(group), group.title()));
    for (shown, title) in groups.chain([(None, "Other")]) {
        let mut choices: Vec<prompt::Choice> = Vec::new();
        let mut values: Vec<String> = Vec::new();
        for plugin in release.plugins.iter().filter(|plugin| plugin_group(&plugin.path) == shown) {
            let name = plugin_name(&plugin.path);
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
    Ok((roadrunner, PluginEntry::from_binary(inspection)))
}
