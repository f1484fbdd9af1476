use std::{path::Path, process::ExitCode, sync::Arc, time::Instant};

use velox_build::{
    BuildOptions, CacheOptions, CompileOptions, Goal, Output, StampOptions, Upgrade, VersionOptions,
    WorkspaceOptions,
};

use crate::{
    cli,
    commands::{
        build::remote::Remote,
        session::{Prepared, misconfigured},
    },
    report,
    settings::Settings,
};

/// `vx build`.
pub(crate) async fn build(mut settings: Settings, arguments: cli::Build) -> ExitCode {
    let remote = match Remote::asked_for(&mut settings, &arguments) {
        Ok(remote) => remote,
        Err(diagnostic) => return misconfigured(&settings, None, &[diagnostic]),
    };
    let output = |working_directory: &Path| match (arguments.output_file, arguments.output_dir) {
        (Some(file), _) => Output::File(working_directory.join(file)),
        (None, Some(directory)) => Output::Directory(working_directory.join(directory)),
        (None, None) => Output::Directory(working_directory.to_owned()),
    };
    let dry_run = arguments.dry_run;
    let goal = |directory: &Path| match dry_run {
        true => Goal::DryRun(output(directory)),
        false => Goal::Build(output(directory)),
    };
    let options = BuildOptions {
        compile: CompileOptions {
            debug: arguments.debug,
            race: arguments.race,
            skip_smoke_test: arguments.no_smoke_test,
            ..CompileOptions::default()
        },
        stamp: StampOptions { version: arguments.stamp_version, time: arguments.stamp_time },
        versions: VersionOptions {
            strict: arguments.strict,
            locked: arguments.locked,
            ..VersionOptions::default()
        },
        workspace: WorkspaceOptions { keep: arguments.keep_workspace, ..WorkspaceOptions::default() },
        cache: CacheOptions {
            recompile: arguments.no_cache,
            remote: arguments.remote_cache,
            program: std::env::current_exe().ok(),
            ..CacheOptions::default()
        },
        archive: arguments.archive,
        ..BuildOptions::default()
    };
    if let Some(remote) = remote {
        return remote.build(settings, arguments.server, &arguments.changes, goal, options).await;
    }
    run(settings, arguments.server, &arguments.changes, goal, options).await
}

/// `vx lock`.
pub(crate) async fn lock(settings: Settings, arguments: cli::Lock) -> ExitCode {
    let goal = if arguments.check { Goal::CheckLock } else { Goal::Lock };
    let upgrade = match arguments.upgrade {
        None => Upgrade::Nothing,
        Some(names) if names.is_empty() => Upgrade::Everything,
        Some(names) => Upgrade::Only(names),
    };
    let options = BuildOptions {
        versions: VersionOptions { upgrade, ..VersionOptions::default() },
        ..BuildOptions::default()
    };
    run(settings, arguments.server, &cli::Changes::default(), |_| goal, options).await
}

/// `vx fetch`.
pub(crate) async fn fetch(settings: Settings, arguments: cli::Fetch) -> ExitCode {
    let versions = VersionOptions { locked: arguments.locked, ..VersionOptions::default() };
    let options = BuildOptions { versions, ..BuildOptions::default() };
    run(settings, arguments.server, &cli::Changes::default(), |_| Goal::Fetch, options).await
}

/// Reads the configuration, as the flags change it, and takes it to the goal, which is told the working directory.
async fn run(
    settings: Settings,
    server: cli::Server,
    changes: &cli::Changes,
    goal: impl FnOnce(&Path) -> Goal,
    options: BuildOptions,
) -> ExitCode {
    let started = Instant::now();
    let mut prepared = match Prepared::changed(settings, server, changes, goal, options) {
        Ok(prepared) => prepared,
        Err(code) => return code,
    };
    prepared.warn();
    let Prepared { request, report, cancel, .. } = &prepared;
    match velox_build::build(request, Arc::clone(report) as _, cancel.clone()).await {
        Ok(summary) => match report.finished(&request.goal, &summary, started.elapsed()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => report::complain(&format!("can't write to the standard output: {error}")),
        },
        Err(error) => prepared.failed(&error),
    }
}
