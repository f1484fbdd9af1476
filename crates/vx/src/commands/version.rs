use std::env::consts::{ARCH, OS};

use crate::{cli::OutputFormat, report, settings::Settings, status::CommandResult};

/// The commit that vx was built from, if the build set it.
const COMMIT: Option<&str> = option_env!("VX_COMMIT");
const VERSION: &str = env!("CARGO_PKG_VERSION");

pub(crate) fn version(settings: &Settings) -> CommandResult {
    report::print(&match settings.format() {
        OutputFormat::Human => {
            let commit = COMMIT.map(|commit| format!(" ({commit})")).unwrap_or_default();
            format!("vx {VERSION}{commit} {OS}-{ARCH}\n")
        }
        OutputFormat::Json => report::event(
            "version",
            &serde_json::json!({ "version": VERSION, "commit": COMMIT, "os": OS, "arch": ARCH }),
        ),
    })
}
