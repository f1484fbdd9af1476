use std::{fmt::Write as _, path::PathBuf};

use serde::Serialize;
use velox_build::{BuildSummary, Error};
use velox_manifest::{Diagnostic, parse_target};
use velox_query::{
    BinaryContents, BuildSize, ModuleGrowth, ModuleSize, PackageSize, PluginSize, RecordedSize,
    RecordedSizes, SizePrediction, SizeReport, binary_size, is_binary,
};

use crate::{
    cli::{OutputFormat, query::SizeCommand},
    commands::session::Session,
    report::{
        self,
        text::{clean, count, human_size, table},
    },
    settings::Settings,
    status::{CommandResult, ExitStatus},
};

/// The modules and packages that are shown without `--all`.
const MAX_ROWS: usize = 10;

/// What a failure of `--max-size` shows of the modules that grew.
const MAX_GROWN: usize = 20;

/// The fields of the event `size`.
#[derive(Serialize)]
struct SizeEvent<'a> {
    #[serde(flatten)]
    report: &'a SizeReport,
    prediction: Option<SizePrediction>,
    /// The recorded size of the same target.
    recorded: Option<u64>,
    grown: Vec<ModuleGrowth>,
}

pub(crate) async fn size(settings: Settings, mut arguments: SizeCommand) -> CommandResult {
    if let Some(file) = arguments.file.take_if(|file| is_binary(file)) {
        return existing_binary(&settings, &arguments, file);
    }
    arguments.project.source.config = arguments.file.take().or(arguments.project.source.config);
    let session = Session::open(settings, arguments.project)?;
    let size = BuildSize::load(&session.request, session.reporter(), session.cancel.clone()).await;
    let size = size.map_err(|error| session.failed(&error))?;
    let report = size.report();
    let prediction = match arguments.without.as_slice() {
        [] => None,
        names => Some(size.without(names).map_err(|error| session.failed(&error))?),
    };
    let earlier = recorded(&session, size.target()).map_err(|error| session.failed(&error))?;
    let grown = earlier.as_ref().map(|earlier| earlier.growth(&report)).unwrap_or_default();
    let event =
        SizeEvent { report: &report, prediction, recorded: earlier.as_ref().map(|it| it.total), grown };
    session.print(&match session.format {
        OutputFormat::Json => report::event("size", &event),
        OutputFormat::Human => clean(&render(&event, arguments.all)).into_owned(),
    })?;
    if arguments.save {
        save(&session, &report)?;
    }
    match arguments.max_size {
        Some(limit) if report.total > limit => {
            Err(too_large(&session, "the binary", report.total, limit, event.recorded, &event.grown))
        }
        _ => Ok(()),
    }
}

fn existing_binary(settings: &Settings, arguments: &SizeCommand, file: PathBuf) -> CommandResult {
    let invalid = |message: String| {
        let error = Error::configuration(message).help("run it on the configuration of the binary");
        report::failed(settings, &error)
    };
    if !arguments.without.is_empty() {
        return Err(invalid(format!(
            "--without needs the imports between packages, which {} lacks",
            file.display()
        )));
    }
    if arguments.save {
        return Err(invalid("--save records the sizes of a configuration, not of a binary".to_owned()));
    }
    let report = binary_size(&file).map_err(|error| report::failed(settings, &error))?;
    let event = SizeEvent { report: &report, prediction: None, recorded: None, grown: Vec::new() };
    report::print(&match settings.format() {
        OutputFormat::Json => report::event("size", &event),
        OutputFormat::Human => clean(&render(&event, arguments.all)).into_owned(),
    })?;
    match arguments.max_size {
        Some(limit) if report.total > limit => Err(report::failed(
            settings,
            &Error::build(message(&file.display().to_string(), report.total, limit)),
        )),
        _ => Ok(()),
    }
}

/// Fails if a binary of a build is larger than `limit`, with the modules that grew.
pub(crate) async fn check_binary_sizes(
    session: &Session,
    summary: &BuildSummary,
    limit: u64,
) -> CommandResult {
    let Some(binary) = summary.binaries.iter().find(|binary| binary.size > limit) else { return Ok(()) };
    let mut request = session.request.clone();
    request.options.compile.targets = parse_target(&binary.target).into_iter().collect();
    let earlier = recorded(session, &binary.target).map_err(|error| session.failed(&error))?;
    let grown = match &earlier {
        Some(earlier) => {
            let size = BuildSize::load(&request, session.reporter(), session.cancel.clone()).await;
            earlier.growth(&size.map_err(|error| session.failed(&error))?.report())
        }
        None => Vec::new(),
    };
    let (name, recorded) = (binary.path.display().to_string(), earlier.map(|earlier| earlier.total));
    Err(too_large(session, &name, binary.size, limit, recorded, &grown))
}

fn message(name: &str, size: u64, limit: u64) -> String {
    format!("{name} has {}, more than --max-size {}", human_size(size), human_size(limit))
}

fn too_large(
    session: &Session,
    name: &str,
    size: u64,
    limit: u64,
    recorded: Option<u64>,
    grown: &[ModuleGrowth],
) -> ExitStatus {
    let mut error = Diagnostic::error(message(name, size, limit));
    let mut lines = Vec::new();
    match (recorded, grown) {
        (None, _) => {
            error = error.help("run `vx size --save` while the size is acceptable, and commit velox.size.json: then a failure lists what grew");
        }
        (Some(recorded), []) => {
            error = error.help(format!("no module grew since `vx size --save` ({})", human_size(recorded)));
        }
        (Some(recorded), grown) => {
            lines.push(format!("since `vx size --save` ({}), these modules grew:", human_size(recorded)));
            lines.extend(growth_lines(grown, MAX_GROWN));
        }
    }
    error = error
        .help("`vx size` shows the plugins by size; `vx size --without NAME` predicts the size without one");
    session.report.failed(ExitStatus::Failure, &[error], &lines);
    ExitStatus::Failure
}

fn growth_lines(grown: &[ModuleGrowth], limit: usize) -> Vec<String> {
    let rows: Vec<[String; 2]> = grown
        .iter()
        .take(limit)
        .map(|growth| {
            let new = if growth.from.is_none() { " (new)" } else { "" };
            [format!("  +{}", human_size(growth.bytes())), format!("{}{new}", growth.module)]
        })
        .collect();
    table(&rows).lines().map(str::to_owned).collect()
}

/// The file of recorded sizes, beside the lock: `velox.size.json`.
fn recorded_file(session: &Session) -> Option<PathBuf> {
    session.request.lock.as_ref().map(|lock| lock.with_extension("size.json"))
}

fn recorded(session: &Session, target: &str) -> Result<Option<RecordedSize>, Error> {
    let Some(file) = recorded_file(session) else { return Ok(None) };
    Ok(RecordedSizes::read(&file)?.0.remove(target))
}

fn save(session: &Session, report: &SizeReport) -> CommandResult {
    let (Some(file), Some(target)) = (recorded_file(session), &report.target) else {
        return Err(session
            .invalid(Diagnostic::error("--save needs a configuration file, to write the sizes beside it")));
    };
    let write = || {
        let mut sizes = RecordedSizes::read(&file)?;
        sizes.0.insert(target.clone(), RecordedSize::of(report));
        sizes.write(&file)
    };
    write().map_err(|error| session.failed(&error))?;
    session.note(format!("sizes recorded in {}", file.display()));
    Ok(())
}

fn render(event: &SizeEvent<'_>, all: bool) -> String {
    let SizeReport { roadrunner, version, target, total, plugins, shared, base, modules, packages, contents } =
        event.report;
    let version = version.as_deref().unwrap_or("(unknown version)");
    let target = target.as_ref().map(|target| format!(" for {target}")).unwrap_or_default();
    let mut text = format!("{roadrunner} {version}{target}: {}\n\n", human_size(*total));
    text += &plugin_table(plugins, *shared, *base);
    let shown = |length: usize| if all { length } else { length.min(MAX_ROWS) };
    let heading = |shown: usize, length: usize, what: &str| match shown == length {
        true => count(length as u64, what),
        false => format!("{shown} of {} (--all shows them)", count(length as u64, what)),
    };
    let _ = writeln!(text, "\n{}", heading(shown(modules.len()), modules.len(), "module"));
    let rows: Vec<[String; 2]> = modules
        .iter()
        .take(shown(modules.len()))
        .map(|ModuleSize { module, bytes }| [cell(*bytes), module.clone()])
        .collect();
    text += &table(&rows);
    let _ = writeln!(text, "\n{}", heading(shown(packages.len()), packages.len(), "package"));
    let rows: Vec<[String; 2]> = packages
        .iter()
        .take(shown(packages.len()))
        .map(|PackageSize { package, bytes, .. }| [cell(*bytes), package.clone()])
        .collect();
    text += &table(&rows);
    let BinaryContents { code, line_tables, types_and_strings, data, other } = *contents;
    let kinds = [
        (code, "code"),
        (line_tables, "tables of functions and lines (pclntab)"),
        (types_and_strings, "types and strings"),
        (data, "data"),
        (other, "headers and symbols"),
    ];
    text += "\ncontents\n";
    text += &table(&kinds.map(|(bytes, kind)| [cell(bytes), kind.to_owned()]));
    if let Some(prediction) = &event.prediction {
        let SizePrediction { without, bytes, low, high } = prediction;
        let _ = writeln!(
            text,
            "\nwithout {}: about {}, {} less (estimates: {} to {})",
            without.join(", "),
            human_size(*bytes),
            human_size(total.saturating_sub(*bytes)),
            human_size(*low),
            human_size(*high),
        );
    }
    if let Some(recorded) = event.recorded {
        let _ = writeln!(text, "\nrecorded by --save: {}", human_size(recorded));
        for line in growth_lines(&event.grown, shown(event.grown.len())) {
            let _ = writeln!(text, "{line}");
        }
    }
    text
}

fn plugin_table(plugins: &[PluginSize], shared: Option<u64>, base: Option<u64>) -> String {
    let (Some(shared), Some(base)) = (shared, base) else {
        let row = |plugin: &PluginSize| [cell(plugin.own), plugin.name.clone(), module(plugin)];
        let head = ["       OWN", "PLUGIN", "MODULE"].map(str::to_owned);
        return table(&std::iter::once(head).chain(plugins.iter().map(row)).collect::<Vec<_>>());
    };
    let row = |plugin: &PluginSize| {
        let PluginSize { name, exclusive, shared, .. } = plugin;
        [cell(exclusive.unwrap_or_default()), cell(shared.unwrap_or_default()), name.clone(), module(plugin)]
    };
    let head = [" EXCLUSIVE", "    SHARED", "PLUGIN", "MODULE"].map(str::to_owned);
    let rows: Vec<[String; 4]> = std::iter::once(head)
        .chain(plugins.iter().map(row))
        .chain([
            [
                String::new(),
                cell(shared),
                "(all)".to_owned(),
                "packages that several plugins import".to_owned(),
            ],
            [
                cell(base),
                String::new(),
                "(none)".to_owned(),
                "packages that RoadRunner imports itself".to_owned(),
            ],
        ])
        .collect();
    table(&rows)
}

fn module(plugin: &PluginSize) -> String {
    format!("{} {}", plugin.module, plugin.version)
}

/// A size, aligned to the right.
fn cell(bytes: u64) -> String {
    format!("{:>10}", human_size(bytes))
}
