use crate::{report, settings::Settings, status::CommandResult};

/// `vx compile-cache`: serves the go command on stdin and stdout.
pub(crate) async fn compile_cache(settings: Settings) -> CommandResult {
    let (stdin, stdout) = (tokio::io::stdin(), tokio::io::stdout());
    let served = velox_build::serve_compile_cache(settings.environment, stdin, stdout).await;
    served.map_err(|error| report::complain(&error.to_string()))
}
