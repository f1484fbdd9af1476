use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Instant,
};

use tokio_util::sync::CancellationToken;
use velox_build::{Event, Options, Output, Request};
use velox_manifest::{Diagnostic, Log, Manifest, Source};

use crate::{
    cli,
    configuration::{self, Configuration},
    exit::Ending,
    report::{self, Failure},
    settings::Settings,
    signals,
};

/// `vx build`.
pub(crate) async fn build(settings: Settings, arguments: Box<cli::Build>) -> ExitCode {
    let started = Instant::now();
    let working_directory = match std::env::current_dir() {
        Ok(directory) => directory,
        Err(error) => return report::complain(&format!("can't tell the working directory: {error}")),
    };
    let Configuration { source, base } = match configuration::read(&arguments.config, &working_directory) {
        Ok(configuration) => configuration,
        Err(diagnostic) => return misconfigured(&settings, None, &[diagnostic]),
    };
    let lookup = |name: &str| settings.environment.get(name).cloned();
    let (manifest, warnings) = match Manifest::parse(&source, &lookup) {
        Ok(parsed) => parsed,
        Err(diagnostics) => return misconfigured(&settings, Some(source), &diagnostics),
    };

    let report = report::open(&settings, manifest.log, Some(source.clone()));
    for warning in warnings {
        report.report(Event::Warning(warning));
    }
    let cancel = CancellationToken::new();
    let watcher = Arc::clone(&report);
    let received = match signals::watch(cancel.clone(), move |signal| watcher.interrupted(signal)) {
        Ok(received) => received,
        Err(error) => return report::complain(&format!("can't listen for signals: {error}")),
    };

    let request = request(manifest, source, base, &working_directory, settings, *arguments);
    match velox_build::build(&request, Arc::clone(&report) as _, cancel).await {
        Ok(summary) => match report.finished(&summary, started.elapsed()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => report::complain(&format!("can't write to the standard output: {error}")),
        },
        Err(error) => {
            let ending = Ending::of(error.kind, received.signal());
            report.failed(&Failure { ending, diagnostics: &error.diagnostics, output: &error.output });
            ending.into()
        }
    }
}

/// Ends before `[log]` could say how to tell it: by the flags alone.
fn misconfigured(settings: &Settings, source: Option<Source>, diagnostics: &[Diagnostic]) -> ExitCode {
    let ending = Ending::Configuration;
    report::open(settings, Log::default(), source).failed(&Failure { ending, diagnostics, output: &[] });
    ending.into()
}

fn request(
    manifest: Manifest,
    source: Source,
    base: PathBuf,
    working_directory: &Path,
    settings: Settings,
    arguments: cli::Build,
) -> Request {
    let output = match (arguments.dry_run, arguments.output_file, arguments.output_dir) {
        (true, _, _) => None,
        (false, Some(file), _) => Some(Output::File(working_directory.join(file))),
        (false, None, Some(directory)) => Some(Output::Directory(working_directory.join(directory))),
        (false, None, None) => Some(Output::Directory(working_directory.to_owned())),
    };
    Request {
        manifest,
        source: Some(source),
        base,
        environment: settings.environment,
        options: Options {
            target: arguments.target,
            debug: arguments.debug,
            race: arguments.race,
            strict: arguments.strict,
            stamp_version: arguments.stamp_version,
            stamp_time: arguments.stamp_time,
            dependencies: arguments.dependencies.map(Into::into),
            keep_workspace: arguments.keep_workspace,
            no_smoke_test: arguments.no_smoke_test,
        },
        output,
    }
}
