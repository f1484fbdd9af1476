use velox_build::Error;

use crate::{report, settings::Settings, status::CommandResult};

/// `vx server` and `vx worker` without the feature `service`.
pub(crate) fn service_disabled(settings: &Settings) -> CommandResult {
    let error = Error::configuration("this vx was built without the build service").help(concat!(
        "install a release from ",
        env!("CARGO_PKG_REPOSITORY"),
        "/releases, or build vx with its default features"
    ));
    Err(report::failed(settings, &error))
}
