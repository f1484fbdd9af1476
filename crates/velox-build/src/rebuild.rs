//! Building a binary again from its lock, to compare it.

use std::{fs, path::PathBuf, sync::Arc};

use tokio_util::sync::CancellationToken;
use velox_manifest::{BuildArgs, DebugConfig};

use crate::{
    artifact::record::BuildRecord,
    cache_directory::{cache_directory, secure},
    context::BuildContext,
    error::Error,
    event::{Phase, Reporter, phase},
    go_variables::InstructionSet,
    lock::{LockFile, TargetVariant},
    pipeline::workspace_of,
    request::{BuildRequest, Goal, Output},
    targets,
    workspace::scratch::ScratchDirectory,
};

/// A binary in a temporary directory, which is removed with this value.
pub struct RebuiltBinary {
    /// Its path.
    pub path: PathBuf,
    /// Its SHA-256, in hexadecimal.
    pub sha256: String,
    /// The first one is in the second one.
    _scratch: [ScratchDirectory; 2],
}

/// Builds the binary of `record` for `variant` from the lock of the request as it is. The manifest only has forges and
/// local directories; the artifact store and shared compile caches are not used.
///
/// `shared_caches`: GOMODCACHE and GOCACHE are those of the environment; otherwise they are new.
///
/// # Errors
/// The lock doesn't exist, is invalid, or lacks the target; a failed build.
pub async fn rebuild(
    request: &BuildRequest,
    record: &BuildRecord,
    variant: &TargetVariant,
    shared_caches: bool,
    reporter: Arc<dyn Reporter>,
    cancel: CancellationToken,
) -> Result<RebuiltBinary, Error> {
    let parent = cache_directory(&request.environment);
    secure(&parent)?;
    let scratch = ScratchDirectory::create(&parent, false)?;
    let request = &of_binary(request, record, variant, &scratch, shared_caches)?;
    let context = BuildContext::new(request, reporter, cancel)?;
    let found = LockFile::read(request)?;
    let Some(lock) = &found.lock else {
        return Err(Error::configuration(format!("there is no {}", found.name())));
    };
    if !lock.covers(&context.variants) {
        return Err(Error::build(format!("{} has no target {}", found.name(), variant.target))
            .help("it is not the lock that the binary was built from"));
    }
    let tools = context.tools(&found, Some(lock)).await?;
    let workspace = workspace_of(&context, &tools, lock).await?;
    let preparing = async { workspace.prepare(lock) };
    phase(&*context.reporter, Phase::Prepare, preparing).await?;
    let output = Output::File(scratch.path().join("rr"));
    let compiled = targets::compile(&context, &tools, lock, &workspace, &output).await?;
    let artifact = compiled.into_iter().find_map(|target| target.artifact);
    let artifact = artifact.ok_or_else(|| Error::build("internal error: the build has no binary"))?;
    let path = artifact.binary();
    Ok(RebuiltBinary { path, sha256: artifact.sha256, _scratch: [tools.scratch, scratch] })
}

/// The request with the settings of the binary.
fn of_binary(
    request: &BuildRequest,
    record: &BuildRecord,
    variant: &TargetVariant,
    scratch: &ScratchDirectory,
    shared_caches: bool,
) -> Result<BuildRequest, Error> {
    let mut request = request.clone();
    request.manifest.build_args = BuildArgs {
        stamp_version: None,
        stamp_time: None,
        tags: record.tags.clone(),
        flags: record.flags.clone(),
        definitions: record.definitions.clone(),
        race: record.race,
        strip: record.strip,
    };
    // The record is not trusted: a flag of `go build` may run a program.
    if let Some(flag) = request.manifest.build_args.unsupported() {
        let message =
            format!("the build record of the binary has `{flag}`, which vx never passes to go build");
        return Err(Error::build(message).help("somebody changed the record: don't run this binary"));
    }
    request.manifest.debug = DebugConfig { enabled: record.debug, race: record.race };
    request.manifest.targets.clear();
    let options = &mut request.options;
    options.compile.targets = vec![variant.target.clone()];
    options.compile.skip_smoke_test = true;
    options.stamp.version = Some(record.stamp_version.clone());
    options.stamp.time = Some(record.stamp_time.clone());
    options.cache.remote = Some("off".to_owned());
    options.cache.recompile = true;
    options.workspace.parent = None;
    request.goal = Goal::Build(Output::File(scratch.path().join("rr")));
    request.updates_lock = false;

    let environment = &mut request.environment;
    for name in ["GOOS", "GOARCH"] {
        environment.remove(name);
    }
    let mut set = |name: &str, value: String| environment.insert(name.to_owned(), value);
    set("CGO_ENABLED", if variant.cgo { "1" } else { "0" }.to_owned());
    for (name, value) in InstructionSet::variables(variant.instruction_set.as_ref()) {
        set(name, value);
    }
    let directory = |name: &str| {
        let path = scratch.path().join(name);
        let created = fs::create_dir(&path).map(|()| path.to_string_lossy().into_owned());
        created.map_err(|error| Error::file("create", &path, &error))
    };
    set("VX_CACHE_DIR", directory("cache")?);
    if !shared_caches {
        set("GOMODCACHE", directory("modules")?);
        set("GOCACHE", directory("compile")?);
        let flags = environment.entry("GOFLAGS".to_owned()).or_default();
        // The directory is removed afterwards.
        *flags = format!("{flags} -modcacherw").trim_start().to_owned();
    }
    Ok(request)
}
