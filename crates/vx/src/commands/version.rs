use std::{
    env::consts::{ARCH, OS},
    process::ExitCode,
};

use velox_manifest::LogConfig;

use crate::{cli::Format, report, settings::Settings};

/// The commit that this vx was built from, where whoever built it said so.
const COMMIT: Option<&str> = option_env!("VX_COMMIT");
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// `vx version`.
pub(crate) async fn version(settings: &Settings) -> ExitCode {
    let text = match settings.format(LogConfig::default()) {
        Format::Human => match COMMIT {
            Some(commit) => format!("vx {VERSION} ({commit}) {OS}-{ARCH}\n"),
            None => format!("vx {VERSION} {OS}-{ARCH}\n"),
        },
        Format::Json => {
            let fields = serde_json::json!({
                "v": 1, "event": "version", "version": VERSION, "commit": COMMIT, "os": OS, "arch": ARCH,
            });
            format!("{fields}\n")
        }
    };
    report::answer(&text)
}
