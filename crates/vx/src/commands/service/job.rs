use std::process::ExitCode;

use crate::settings::Settings;

/// `vx job`: a build service talks to it through its standard streams.
pub(crate) async fn job(settings: Settings) -> ExitCode {
    velox_service::job::run(settings.environment).await
}
