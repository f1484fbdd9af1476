use velox_build::{
    BuildOptions, BuildRequest, CacheOptions, CachePublisher, CompileOptions, Error, Goal, Output,
    PublishedCache, SigningKey, cache_directory,
};
use velox_manifest::{Manifest, SourceFile};

use super::sign_key;
use crate::{
    cli::{OutputFormat, build::PublishCacheCommand},
    commands::{
        edit::init::{configuration_of_release, query_session},
        session::{Session, working_directory},
    },
    report::{
        self,
        text::{count, human_size},
    },
    settings::Settings,
    status::CommandResult,
};

/// `vx cache publish`: compiles into an empty shared cache, and publishes its packages.
pub(crate) async fn publish_cache(mut settings: Settings, command: PublishCacheCommand) -> CommandResult {
    let is_signed = command.sign_key.is_some() || settings.environment.contains_key("VX_SIGN_KEY");
    let key = sign_key::take(&mut settings, is_signed, command.sign_key.as_deref())
        .map_err(|error| report::failed(&settings, &error))?;
    let PublishCacheCommand { location, roadrunner, replace, .. } = &command;
    let publisher = CachePublisher::new(location, roadrunner, &settings.environment, key.as_ref(), *replace)
        .map_err(|error| report::failed(&settings, &error))?;
    // Those of the user's own builds.
    for name in ["VX_REMOTE_CACHE", "VX_REMOTE_CACHE_READ_ONLY", "VX_REMOTE_CACHE_KEY"] {
        settings.environment.remove(name);
    }
    let directory = working_directory()?;
    let go = command.go.as_ref().map(|go| directory.join(go));
    let session = query_session(&settings, Some(&command.roadrunner), go, &directory)?;
    let published = published(&session, &settings, &command, &publisher).await;
    let published = published.map_err(|error| session.failed(&error))?;
    let PublishedCache { location, namespaces, kept, packs, bytes, uploaded } = &published;
    if session.format == OutputFormat::Json {
        let fields = serde_json::json!({
            "location": location, "namespaces": namespaces, "kept": kept, "packs": packs, "bytes": bytes,
            "uploaded": uploaded, "signed_by": key.as_ref().map(SigningKey::id),
        });
        return session.print(&report::event("cache_published", &fields));
    }
    session.note(format!(
        "published the packages of {} in {} ({}, {} uploaded)",
        namespaces.join(", "),
        count(*packs as u64, "pack"),
        human_size(*bytes),
        human_size(*uploaded)
    ));
    if !kept.is_empty() {
        session.note(format!("the packages of {} that were published before stay", kept.join(", ")));
    }
    session.print(&format!("{location}\n"))
}

async fn published(
    session: &Session,
    settings: &Settings,
    command: &PublishCacheCommand,
    publisher: &CachePublisher,
) -> Result<PublishedCache, Error> {
    publisher.check(&session.cancel).await?;
    let reference = &command.roadrunner;
    let text = configuration_of_release(session, reference, &command.presets).await?;
    let source = SourceFile { name: "velox.toml".to_owned(), text };
    let mut manifest = Manifest::parse(&source, &|_| None)
        .map_err(|_| Error::build("internal error: the configuration of the release is invalid"))?
        .0;
    manifest.cache.artifacts = false;
    let parent = cache_directory(&settings.environment);
    let failed =
        |error: std::io::Error| Error::build(format!("failed to write to {}: {error}", parent.display()));
    std::fs::create_dir_all(&parent).map_err(failed)?;
    let scratch = tempfile::Builder::new().prefix("publish-").tempdir_in(&parent).map_err(failed)?;
    let cache = scratch.path().join("cache");
    let targets = command.targets.iter().flat_map(|target| target.0.clone()).collect();
    let options = BuildOptions {
        compile: CompileOptions { targets, ..CompileOptions::default() },
        cache: CacheOptions {
            recompile: true,
            remote: Some(cache.to_string_lossy().into_owned()),
            program: std::env::current_exe().ok(),
            ..CacheOptions::default()
        },
        go: session.request.options.go.clone(),
        ..BuildOptions::default()
    };
    let selections = command.go_versions.iter().cloned().map(|version| Some(version.into()));
    let selections: Vec<_> = if command.go_versions.is_empty() { vec![None] } else { selections.collect() };
    for go in selections {
        manifest.go = go;
        let request = BuildRequest {
            manifest: manifest.clone(),
            source: Some(source.clone()),
            options: options.clone(),
            goal: Goal::Build(Output::Directory(scratch.path().join("bin"))),
            lock: None,
            ..session.request.clone()
        };
        let built = velox_build::build(&request, session.reporter(), session.cancel.clone()).await?;
        // An incomplete cache must not look like a whole one.
        if let Some(trouble) = built.compile_cache.and_then(|stats| stats.trouble) {
            return Err(Error::build(format!("failed to collect the compiled packages: {trouble}")));
        }
    }
    publisher.publish(&cache, &session.cancel).await
}
