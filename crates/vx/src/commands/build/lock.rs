use velox_build::{Goal, Options};

use crate::{
    cli::build::{LockCommand, OverrideArgs},
    commands::session::Session,
    settings::Settings,
    status::CommandResult,
};

/// `vx lock`.
pub(crate) async fn lock(settings: Settings, arguments: LockCommand) -> CommandResult {
    let goal = if arguments.check { Goal::CheckLock } else { Goal::Lock };
    let options = Options {
        upgrade: arguments.upgrade.as_ref().is_some_and(Vec::is_empty),
        upgrade_only: arguments.upgrade.unwrap_or_default(),
        ..Options::default()
    };
    let overrides = OverrideArgs::default();
    Session::with_overrides(settings, arguments.project, &overrides, options, goal)?.run().await.map(drop)
}
