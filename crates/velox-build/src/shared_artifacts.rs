//! Finished binaries in the shared caches: another machine may have compiled the same.
//!
//! A binary is requested by the key that it has in the artifact store, and by a digest of the requested versions: what
//! a lock may contain depends on them, and whoever stored the binary had the same ones.

use std::{fs, path::Path, time::Duration};

use velox_gocache::{ArtifactName, RemoteArtifact, RemoteArtifactError, RemoteArtifacts, is_registry};

use crate::{
    artifact::store::{ArtifactStore, StoredArtifact},
    compile::verify,
    context::BuildContext,
    error::{Error, until_cancelled},
    lock::{Lock, TargetVariant},
    shared_caches::SharedCaches,
};

const UPLOAD_TIMEOUT: Duration = Duration::from_secs(60);

/// The caches, if the binary with this key can be in them.
fn caches(context: &BuildContext<'_>) -> Result<Option<SharedCaches>, Error> {
    let caches = SharedCaches::of(context.request)?;
    Ok(Some(caches).filter(|caches| caches.artifacts && context.request.options.cache.program.is_some()))
}

fn name(context: &BuildContext<'_>, key: &str) -> ArtifactName {
    ArtifactName { key: key.to_owned(), configuration: context.requested.digest() }
}

/// Downloads the binary with this key to the store, from the first cache that has it. A cache that fails is skipped.
pub(crate) async fn download(
    context: &BuildContext<'_>,
    store: &ArtifactStore,
    lock: &Lock,
    variant: &TargetVariant,
    key: &str,
) -> Result<Option<StoredArtifact>, Error> {
    let Some(caches) = caches(context)? else { return Ok(None) };
    let name = name(context, key);
    if !context.shared.state().asked.insert(name.clone()) {
        return Ok(None);
    }
    let objects = caches.usable(context.request).enumerate().filter(|(_, remote)| !is_registry(remote));
    for (position, remote) in objects {
        if context.shared.has_failed(remote) {
            continue;
        }
        let found = async {
            let remote = RemoteArtifacts::open(remote, &context.request.environment)
                .map_err(|error| RemoteArtifactError::Remote(error.to_string()))?;
            match remote.find(&name).await? {
                Some(found) => add_to_store(context, store, lock, variant, key, found).await.map(Some),
                None => Ok(None),
            }
        };
        match until_cancelled(&context.cancel, found).await? {
            Ok(Some(artifact)) => return Ok(Some(artifact)),
            Ok(None) => {}
            Err(error) => {
                if matches!(error, RemoteArtifactError::Damaged(_)) && position == 0 {
                    context.shared.state().damaged.insert(name.clone());
                }
                context.shared.trouble(remote, &error);
            }
        }
    }
    Ok(None)
}

async fn add_to_store(
    context: &BuildContext<'_>,
    store: &ArtifactStore,
    lock: &Lock,
    variant: &TargetVariant,
    key: &str,
    found: RemoteArtifact,
) -> Result<StoredArtifact, RemoteArtifactError> {
    let directory = store.temporary()?;
    let size = found.size();
    context.note(format!(
        "downloading the binary for {} from the shared cache ({} MiB)",
        variant.target,
        size.div_ceil(1 << 20)
    ));
    let unpacked = found.unpack(directory.path()).await?;
    let file = unpacked.into_iter().find(|file| file.name == "rr");
    let file = file.ok_or_else(|| RemoteArtifactError::Damaged("it has no binary".to_owned()))?;
    let binary = directory.path().join("rr");
    make_executable(&binary)?;
    let locked = lock.targets.get(variant).cloned().unwrap_or_default();
    verify::build_information(&binary, lock, &locked)
        .map_err(|_| RemoteArtifactError::Damaged("it is not the binary of this lock".to_owned()))?;
    let files = StoredArtifact::COMPANIONS;
    let companions = |_: &str| {
        let read = |name: &&str| Some(((*name).to_owned(), fs::read(directory.path().join(name)).ok()?));
        files.iter().filter_map(read).collect()
    };
    let artifact = store
        .put(
            key,
            &binary,
            (file.size, file.sha256),
            &companions,
            StoredArtifact::description(lock, &variant.target),
        )
        .map_err(|error| RemoteArtifactError::Remote(error.to_string()))?;
    let mut state = context.shared.state();
    state.stats.binaries += 1;
    state.stats.bytes_down += size;
    Ok(artifact)
}

/// Uploads compiled binaries to the first cache, unless it has them. Never fails a build.
pub(crate) async fn upload(
    context: &BuildContext<'_>,
    compiled: impl Iterator<Item = (&str, &StoredArtifact)>,
) -> Result<(), Error> {
    let Some(caches) = caches(context)?.filter(|caches| !caches.read_only) else { return Ok(()) };
    let Some(first) = caches.first_usable(context.request) else { return Ok(()) };
    for (key, artifact) in compiled {
        if context.shared.has_failed(first) {
            return Ok(());
        }
        let name = name(context, key);
        let replace = context.shared.state().damaged.contains(&name);
        let files: Vec<String> = [&["rr"], StoredArtifact::COMPANIONS.as_slice()]
            .concat()
            .into_iter()
            .filter(|file| artifact.directory.join(file).is_file())
            .map(str::to_owned)
            .collect();
        let sent = async {
            let remote = RemoteArtifacts::open(first, &context.request.environment)
                .map_err(|error| RemoteArtifactError::Remote(error.to_string()))?;
            remote.put(&name, &artifact.directory, &files, replace, UPLOAD_TIMEOUT).await
        };
        match until_cancelled(&context.cancel, sent).await? {
            Ok(size) => context.shared.state().stats.bytes_up += size,
            Err(error) => context.shared.trouble(first, &error),
        }
    }
    Ok(())
}

#[cfg(unix)]
fn make_executable(binary: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(binary, fs::Permissions::from_mode(0o755))
}

#[cfg(not(unix))]
fn make_executable(_: &Path) -> std::io::Result<()> {
    Ok(())
}
