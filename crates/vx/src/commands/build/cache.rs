use std::process::ExitCode;

use indicatif::HumanBytes;
use velox_build::{ArtifactStore, StoreContents, cache_directory};
use velox_manifest::LogConfig;

use crate::{
    cli::{Cache, Format},
    report,
    settings::Settings,
    status::Ending,
};

/// `vx compile-cache`: the go command talks to it through its standard streams.
pub(crate) async fn compile_cache(settings: Settings) -> ExitCode {
    let served =
        velox_build::serve_compile_cache(settings.environment, tokio::io::stdin(), tokio::io::stdout());
    match served.await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => report::complain(&error.to_string()),
    }
}

/// `vx cache`.
pub(crate) fn cache(settings: &Settings, command: &Cache) -> ExitCode {
    let directory = cache_directory(&settings.environment);
    let store = ArtifactStore::new(&directory);
    let json = settings.format(LogConfig::default()) == Format::Json;
    let told = |event: &str, contents: &StoreContents, sentence: &str| {
        if json {
            let line = serde_json::json!({
                "v": 1, "event": event, "directory": directory,
                "artifacts": contents.artifacts, "bytes": contents.bytes,
            });
            return format!("{line}\n");
        }
        let what = if contents.artifacts == 1 { "binary" } else { "binaries" };
        format!("{sentence}{} {what}, {}\n", contents.artifacts, HumanBytes(contents.bytes))
    };
    let text = match command {
        Cache::Dir => Ok(format!("{}\n", directory.display())),
        Cache::Info => Ok(told("cache_info", &store.contents(), &format!("{}: ", directory.display()))),
        Cache::Prune { max_size } => Ok(told("cache_pruned", &store.prune(*max_size), "removed ")),
        Cache::Clear => store.clear().map(|contents| told("cache_cleared", &contents, "removed ")),
        Cache::Verify => store.verify().map(|damaged| {
            let removed = StoreContents { artifacts: damaged.len() as u64, bytes: 0 };
            if json {
                told("cache_verified", &removed, "")
            } else if damaged.is_empty() {
                "every kept binary is what it was when it was made\n".to_owned()
            } else {
                damaged.iter().map(|about| format!("removed, since it was changed: {about}\n")).collect()
            }
        }),
    };
    match text {
        Ok(text) => report::answer(&text),
        Err(error) => {
            let failure = report::Failure {
                ending: Ending::Build,
                diagnostics: &error.diagnostics,
                output: &error.output,
            };
            report::open(settings, LogConfig::default(), None).failed(&failure);
            Ending::Build.into()
        }
    }
}
