use velox_build::{BuildOptions, Goal, VersionOptions};

use crate::{
    cli::build::{FetchCommand, OverrideArgs},
    commands::session::Session,
    settings::Settings,
    status::CommandResult,
};

pub(crate) async fn fetch(settings: Settings, arguments: FetchCommand) -> CommandResult {
    let versions = VersionOptions { locked: arguments.locked, ..VersionOptions::default() };
    let options = BuildOptions { versions, ..BuildOptions::default() };
    let overrides = OverrideArgs::default();
    let mut session = Session::with_overrides(settings, arguments.project, &overrides, options, Goal::Fetch)?;
    session.run().await.map(drop)
}
