use std::process::ExitCode;

use crate::{
    settings::Settings,
    status::{CommandResult, ExitStatus},
};

/// `vx job`: runs a build for a worker, controlled over stdin and stdout.
pub(crate) async fn job(settings: Settings) -> CommandResult {
    let code = velox_service::job::run(settings.environment).await;
    if code == ExitCode::SUCCESS { Ok(()) } else { Err(ExitStatus::Failure) }
}
