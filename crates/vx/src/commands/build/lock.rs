use velox_build::{BuildOptions, Goal, Upgrade, VersionOptions};

use crate::{
    cli::build::{LockCommand, OverrideArgs},
    commands::session::Session,
    settings::Settings,
    status::CommandResult,
};

pub(crate) async fn lock(settings: Settings, arguments: LockCommand) -> CommandResult {
    let goal = if arguments.check { Goal::CheckLock } else { Goal::Lock };
    let upgrade = match arguments.upgrade {
        None => Upgrade::Nothing,
        Some(names) if names.is_empty() => Upgrade::Everything,
        Some(names) => Upgrade::Only(names),
    };
    let versions = VersionOptions { upgrade, ..VersionOptions::default() };
    let options = BuildOptions { versions, ..BuildOptions::default() };
    let overrides = OverrideArgs::default();
    Session::with_overrides(settings, arguments.project, &overrides, options, goal)?.run().await.map(drop)
}
