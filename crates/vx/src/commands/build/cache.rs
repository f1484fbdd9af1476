use velox_build::{ArtifactStore, StoreContents, cache_directory};

use super::publish_cache::publish_cache;
use crate::{
    cli::{OutputFormat, build::CacheCommand},
    report::{self, text::human_size},
    settings::Settings,
    status::CommandResult,
};

pub(crate) async fn cache(settings: Settings, command: CacheCommand) -> CommandResult {
    let directory = cache_directory(&settings.environment);
    let store = ArtifactStore::new(&directory);
    let json = settings.format() == OutputFormat::Json;
    let render = |event: &str, contents: &StoreContents, label: &str| {
        let StoreContents { artifacts, bytes } = *contents;
        if json {
            let fields =
                serde_json::json!({ "directory": directory, "artifacts": artifacts, "bytes": bytes });
            return report::event(event, &fields);
        }
        let noun = if artifacts == 1 { "binary" } else { "binaries" };
        format!("{label}{artifacts} {noun}, {}\n", human_size(bytes))
    };
    let text = match command {
        CacheCommand::Publish(command) => return publish_cache(settings, command).await,
        CacheCommand::Dir => format!("{}\n", directory.display()),
        CacheCommand::Info => render("cache_info", &store.contents(), &format!("{}: ", directory.display())),
        CacheCommand::Prune { max_size } => render("cache_pruned", &store.prune(max_size), "removed "),
        CacheCommand::Clear => {
            let removed = store.clear().map_err(|error| report::failed(&settings, &error))?;
            render("cache_cleared", &removed, "removed ")
        }
        CacheCommand::Verify => {
            let corrupted = store.verify().map_err(|error| report::failed(&settings, &error))?;
            if json {
                let removed = StoreContents { artifacts: corrupted.len() as u64, bytes: 0 };
                render("cache_verified", &removed, "")
            } else if corrupted.is_empty() {
                "all cached binaries are intact\n".to_owned()
            } else {
                corrupted.iter().map(|artifact| format!("removed corrupted binary: {artifact}\n")).collect()
            }
        }
    };
    report::print(&text)
}
