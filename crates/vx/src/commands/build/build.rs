use velox_build::{
    AttestationOutput, BuildOptions, CacheOptions, CompileOptions, Goal, Output, SbomOutput, StampOptions,
    VersionOptions, WorkspaceOptions,
};

use velox_manifest::LogConfig;

use super::{
    image::ImageBuild,
    public_caches::public_caches,
    remote::{RemoteService, local_option},
    sign_key,
};
use crate::{
    cli::build::{BuildCommand, SbomArg},
    commands::{
        query::size::check_binary_sizes,
        session::{Session, working_directory},
    },
    report,
    settings::Settings,
    status::CommandResult,
};

pub(crate) async fn build(mut settings: Settings, mut arguments: BuildCommand) -> CommandResult {
    let report = |source| report::open(&settings, LogConfig::default(), source);
    arguments.overrides.resolve_names(&settings, &arguments.project.source, report).await?;
    let remote = RemoteService::select(&mut settings, &arguments.remote, local_option(&arguments))
        .map_err(|error| report::invalid(&settings, None, &[error]))?;
    let directory = working_directory()?;
    let output = match (arguments.output_file, arguments.output_dir) {
        (Some(file), _) => Output::File(directory.join(file)),
        (None, Some(output)) => Output::Directory(directory.join(output)),
        (None, None) => Output::Directory(directory.clone()),
    };
    let sign_key =
        sign_key::take(&mut settings, arguments.attestation.is_some(), arguments.sign_key.as_deref())
            .map_err(|error| report::failed(&settings, &error))?;
    let attestation = arguments.attestation.zip(sign_key);
    let attestation = attestation.map(|(file, key)| AttestationOutput { file: directory.join(file), key });
    let goal = if arguments.dry_run { Goal::DryRun(output) } else { Goal::Build(output) };
    let options = BuildOptions {
        compile: CompileOptions {
            debug: arguments.debug,
            race: arguments.race,
            skip_smoke_test: arguments.no_smoke_test,
            ..CompileOptions::default()
        },
        stamp: StampOptions { version: arguments.stamp_version, time: arguments.stamp_time },
        versions: VersionOptions {
            strict: arguments.strict,
            locked: arguments.locked,
            ..VersionOptions::default()
        },
        workspace: WorkspaceOptions { keep: arguments.keep_workspace, ..WorkspaceOptions::default() },
        cache: CacheOptions {
            recompile: arguments.no_cache,
            remote: arguments.remote_cache,
            program: std::env::current_exe().ok(),
            public_caches: public_caches(),
            ..CacheOptions::default()
        },
        archive: arguments.archive,
        attestation,
        sboms: arguments
            .sbom
            .into_iter()
            .map(|SbomArg { format, file }| SbomOutput {
                format,
                file: file.map(|file| directory.join(file)),
            })
            .collect(),
        ..BuildOptions::default()
    };
    let mut session =
        Session::with_overrides(settings, arguments.project, &arguments.overrides, options, goal)?;
    let image = match arguments.image.is_wanted() {
        true => {
            let prepared = ImageBuild::prepare(&session, &arguments.image, &directory);
            Some(session.interruptible(prepared).await?)
        }
        false => None,
    };
    let mut summary = match remote {
        Some(remote) => remote.build(&mut session).await?,
        None => session.built().await?,
    };
    // Nothing is pushed before all checks have passed.
    if image.is_none() {
        session.finished(&summary)?;
    }
    if let Some(limit) = arguments.max_size {
        check_binary_sizes(&session, &summary, limit).await?;
    }
    if let Some(image) = image {
        if !arguments.dry_run {
            summary.image = Some(session.interruptible(image.finish(&session, &summary)).await?);
        }
        session.finished(&summary)?;
    }
    Ok(())
}
