use velox_build::{
    BuildOptions, CacheOptions, CompileOptions, Goal, Output, StampOptions, VersionOptions, WorkspaceOptions,
};

use super::remote::RemoteService;
use crate::{
    cli::build::BuildCommand,
    commands::{
        query::size::check_binary_sizes,
        session::{Session, working_directory},
    },
    report,
    settings::Settings,
    status::CommandResult,
};

pub(crate) async fn build(mut settings: Settings, arguments: BuildCommand) -> CommandResult {
    let remote = RemoteService::select(&mut settings, &arguments)
        .map_err(|error| report::invalid(&settings, None, &[error]))?;
    let directory = working_directory()?;
    let output = match (arguments.output_file, arguments.output_dir) {
        (Some(file), _) => Output::File(directory.join(file)),
        (None, Some(output)) => Output::Directory(directory.join(output)),
        (None, None) => Output::Directory(directory),
    };
    let goal = if arguments.dry_run { Goal::DryRun(output) } else { Goal::Build(output) };
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
    let mut session =
        Session::with_overrides(settings, arguments.project, &arguments.overrides, options, goal)?;
    match remote {
        Some(remote) => remote.build(session).await,
        None => {
            let summary = session.run().await?;
            match arguments.max_size {
                Some(limit) => check_binary_sizes(&session, &summary, limit).await,
                None => Ok(()),
            }
        }
    }
}
