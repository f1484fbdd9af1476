use velox_build::{Goal, Options, Output};

use super::remote::RemoteService;
use crate::{
    cli::build::BuildCommand,
    commands::session::{Session, working_directory},
    report,
    settings::Settings,
    status::CommandResult,
};

/// `vx build`.
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
    let options = Options {
        debug: arguments.debug,
        race: arguments.race,
        strict: arguments.strict,
        stamp_version: arguments.stamp_version,
        stamp_time: arguments.stamp_time,
        keep_workspace: arguments.keep_workspace,
        no_smoke_test: arguments.no_smoke_test,
        locked: arguments.locked,
        no_cache: arguments.no_cache,
        archive: arguments.archive,
        remote_cache: arguments.remote_cache,
        cache_program: std::env::current_exe().ok(),
        ..Options::default()
    };
    let mut session =
        Session::with_overrides(settings, arguments.project, &arguments.overrides, options, goal)?;
    match remote {
        Some(remote) => remote.build(session).await,
        None => session.run().await.map(drop),
    }
}
