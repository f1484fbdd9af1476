use std::path::Path;

use serde::Serialize;
use tokio_util::sync::CancellationToken;
use velox_build::{CachedModules, Error, Lock};
use velox_manifest::LogConfig;
use velox_query::{BuildDiff, BuildVersions, ComparedBuild, RecordedSizes, is_binary};

use crate::{
    cli::{OutputFormat, query::DiffCommand},
    commands::session::{watch_signals, working_directory},
    config_file::{ConfigFile, default_file},
    report::{self, diff::render},
    settings::Settings,
    status::{CommandResult, ExitStatus},
};

/// The fields of the event `diff`.
#[derive(Serialize)]
struct DiffEvent<'a> {
    from: &'a str,
    to: &'a str,
    #[serde(flatten)]
    diff: &'a BuildDiff,
}

pub(crate) async fn diff(settings: Settings, arguments: DiffCommand) -> CommandResult {
    let DiffCommand { old, new, audit, database } = arguments;
    let directory = working_directory()?;
    let new = new.unwrap_or_else(|| default_file(&directory).with_extension("lock"));
    let cancel = CancellationToken::new();
    let report = report::open(&settings, LogConfig::default(), None);
    let interrupted = report.clone();
    let signals = watch_signals(&cancel, move |signal| interrupted.interrupted(signal))?;
    let loaded = async {
        let before = compared(&old, &directory)?;
        let after = compared(&new, &directory)?;
        let mut diff = BuildDiff::new(&before, &after, &mut CachedModules::new(&settings.environment));
        if audit {
            let (before, after) = (&before.versions, &after.versions);
            diff.load_vulnerabilities(before, after, &database.url, &settings.environment, &cancel).await?;
        }
        Ok(diff)
    };
    let diff = loaded.await.map_err(|error: Error| {
        let status = signals.received().map_or(error.kind.into(), ExitStatus::Interrupted);
        report.failed(status, &error.diagnostics, &error.output);
        status
    })?;
    report::print(&match settings.format() {
        OutputFormat::Json => {
            let (from, to) = (&*old.to_string_lossy(), &*new.to_string_lossy());
            report::event("diff", &DiffEvent { from, to, diff: &diff })
        }
        OutputFormat::Human => render(&diff),
    })
}

/// Reads a lock or a binary; `-` is a lock on stdin.
fn compared(file: &Path, directory: &Path) -> Result<ComparedBuild, Error> {
    let path = directory.join(file);
    if is_binary(&path) {
        return ComparedBuild::of_binary(&path);
    }
    let read = ConfigFile::read(file, directory).map_err(|mut error| {
        error.help = vec!["name a velox.lock or a RoadRunner binary".to_owned()];
        Error::many(velox_build::ErrorKind::Configuration, vec![error])
    })?;
    let lock = Lock::parse(&read.source.name, &read.source.text)?;
    let sizes = match &read.path {
        Some(path) => RecordedSizes::read(&path.with_extension("size.json"))?,
        None => RecordedSizes::default(),
    };
    Ok(ComparedBuild { versions: BuildVersions::of_lock(&lock), sizes })
}
