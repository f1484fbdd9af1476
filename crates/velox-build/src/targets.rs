//! One binary for each target: found in the artifact store or compiled, and published.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use futures::{StreamExt, TryStreamExt, stream};
use velox_gomod::buildinfo::BuildInfo;
use velox_manifest::GoTarget;

use crate::{
    artifact::{
        archive,
        publish::{publish as publish_file, write_changed},
        store::{ArtifactStore, BuildLock, DEFAULT_STORE_LIMIT_BYTES, StoredArtifact},
    },
    cache_directory::cache_directory,
    compile::{
        compile_cache::CompileCacheSession, go_build::go_build, key, progress::CompileProgress,
        suggestion::suggest_public_cache, verify,
    },
    context::{BuildContext, BuildTools},
    digest,
    error::{Error, until_cancelled},
    event::{BuildSummary, BuiltBinary, CompileCacheStats, Event, Note, Phase, phase},
    lock::{Lock, TargetVariant},
    provenance,
    request::{Goal, Output},
    sbom,
    sbom_format::SbomFormat,
    shared_artifacts,
    workspace::Workspace,
};

/// Linking uses one core, so a second target is compiled at the same time.
const MAX_CONCURRENT_COMPILES: usize = 2;

/// How often a build that waits for another one looks again.
const BUILD_LOCK_RETRY_INTERVAL: Duration = Duration::from_millis(200);

/// The binary of one target.
pub(crate) struct BuildTarget<'a> {
    variant: &'a TargetVariant,
    file: PathBuf,
    key: Option<String>,
    /// `None`: not compiled yet.
    pub(crate) artifact: Option<StoredArtifact>,
    /// Whether the store had the artifact.
    reused: bool,
    compile_cache: Option<CompileCacheStats>,
}

/// The targets of a build, each with its artifact if the store has it.
pub(crate) fn find<'a>(
    context: &'a BuildContext<'_>,
    lock: &Lock,
    output: &Output,
    replaced: &[(String, PathBuf)],
) -> Result<Vec<BuildTarget<'a>>, Error> {
    let (settings, stamp) = (&context.settings, context.stamp(lock));
    let of_variant = |variant: &'a TargetVariant| {
        let key = key::of(lock, variant, settings, Some(&stamp), replaced)?;
        let file = output.file(&settings.binary_name(&variant.target));
        let mut target =
            BuildTarget { variant, file, key, artifact: None, reused: false, compile_cache: None };
        target.find(context);
        Ok(target)
    };
    context.variants.iter().map(of_variant).collect()
}

/// Downloads what the store lacks from the shared caches.
pub(crate) async fn download(
    context: &BuildContext<'_>,
    lock: &Lock,
    targets: &mut [BuildTarget<'_>],
) -> Result<(), Error> {
    let downloads = targets.iter_mut().map(|target| target.download(context, lock));
    stream::iter(downloads).buffer_unordered(MAX_CONCURRENT_COMPILES).try_collect().await
}

impl BuildTarget<'_> {
    /// The key, if the result of another build may be used.
    fn usable_key(&self, context: &BuildContext<'_>) -> Option<&str> {
        let options = &context.request.options;
        self.key.as_deref().filter(|_| !options.cache.recompile && !options.workspace.keep)
    }

    /// Looks into the store.
    fn find(&mut self, context: &BuildContext<'_>) {
        self.artifact = self.usable_key(context).and_then(|key| store(context).get(key));
        self.reused = self.artifact.is_some();
    }

    async fn download(&mut self, context: &BuildContext<'_>, lock: &Lock) -> Result<(), Error> {
        if let Some(key) = self.usable_key(context).filter(|_| self.artifact.is_none()) {
            self.artifact =
                shared_artifacts::download(context, &store(context), lock, self.variant, key).await?;
            self.reused = self.artifact.is_some();
        }
        Ok(())
    }
}

fn store(context: &BuildContext<'_>) -> ArtifactStore {
    ArtifactStore::new(&cache_directory(&context.request.environment))
}

/// Compiles and verifies the targets that the store does not have.
pub(crate) async fn compile<'a>(
    context: &'a BuildContext<'_>,
    tools: &BuildTools,
    lock: &Lock,
    workspace: &Workspace,
    output: &Output,
) -> Result<Vec<BuildTarget<'a>>, Error> {
    let copies = key::copies(lock, workspace, context.replaced(lock));
    let progress = CompileProgress::new(context);
    stream::iter(find(context, lock, output, &copies)?)
        .map(async |target| match target.artifact {
            Some(_) => Ok(target),
            None => compile_one(context, &progress, tools, lock, workspace, &copies, target).await,
        })
        .buffered(MAX_CONCURRENT_COMPILES)
        .try_collect()
        .await
}

async fn compile_one<'a>(
    context: &BuildContext<'_>,
    progress: &CompileProgress<'_>,
    tools: &BuildTools,
    lock: &Lock,
    workspace: &Workspace,
    copies: &[(String, PathBuf)],
    mut target: BuildTarget<'a>,
) -> Result<BuildTarget<'a>, Error> {
    let _building = match target.key.as_deref() {
        // Nobody compiles the same twice; the others wait, and take the result.
        Some(key) => wait_for_others(context, key).await?,
        None => None,
    };
    target.find(context);
    target.download(context, lock).await?;
    if target.artifact.is_some() {
        return Ok(target);
    }
    suggest_public_cache(context, lock, &tools.go);
    let (variant, stamp) = (target.variant, &context.stamp(lock));
    let BuildTools { go, commands, scratch, .. } = tools;
    let cache = CompileCacheSession::new(
        context.request,
        &|remote| context.shared.has_failed(remote),
        go,
        &lock.go_version,
        variant,
        scratch.path(),
    )?;
    let go = match &cache {
        Some(Ok(cache)) => &go.with_environment(&cache.environment),
        _ => go,
    };
    let (binary, sbom) = tokio::join!(
        go_build(context, progress, go, lock, workspace, variant),
        sbom::collect(context, go, lock, variant, workspace.directory(), copies)
    );
    let (binary, sbom) = (binary?, sbom?);
    target.compile_cache = cache.map(|cache| {
        let (stats, failed) = cache.map_or_else(|unused| (unused, Vec::new()), |cache| cache.finish());
        context.shared.add_failed(failed);
        stats
    });
    let locked = lock.targets.get(variant).cloned().unwrap_or_default();
    let digest = {
        let binary = binary.clone();
        async {
            let hashed = tokio::task::spawn_blocking(move || (digest::of_file(&binary), binary)).await;
            let (digest, binary) =
                hashed.map_err(|error| Error::build(format!("internal error: hashing failed: {error}")))?;
            digest.map_err(|error| Error::file("read", &binary, &error))
        }
    };
    let check = async {
        verify::build_information(&binary, lock, &locked)?;
        if variant.target == GoTarget::host() && !context.request.options.compile.skip_smoke_test {
            verify::smoke_test(&binary, commands, stamp, scratch.path()).await?;
        }
        Ok(())
    };
    let verifying = async { tokio::try_join!(digest, check) };
    let (digest, ()) = phase(&*context.reporter, Phase::Verify, verifying).await?;
    let about = StoredArtifact::description(lock, &variant.target);
    let license = std::fs::read(workspace.directory().join("LICENSE")).ok();
    let companions = |sha256: &str| {
        let sbom = sbom.clone().with_binary(sha256);
        let documents = [SbomFormat::CycloneDx, SbomFormat::Spdx]
            .map(|format| (format.file_name("rr"), sbom.render(format).into_bytes()));
        license.iter().map(|text| ("LICENSE".to_owned(), text.clone())).chain(documents).collect()
    };
    target.artifact = Some(match &target.key {
        Some(key) => store(context).put(key, &binary, digest, &companions, about)?,
        None => StoredArtifact::outside(&binary, digest, &companions, about)?,
    });
    Ok(target)
}

/// Waits until no other process compiles the binary with this key. Without a lock (of a cache directory that can't be
/// written) nobody waits.
async fn wait_for_others(context: &BuildContext<'_>, key: &str) -> Result<Option<BuildLock>, Error> {
    let mut is_told = false;
    loop {
        match store(context).lock_build(key) {
            Ok(Some(lock)) => return Ok(Some(lock)),
            Err(_) => return Ok(None),
            Ok(None) if is_told => {}
            Ok(None) => {
                context.note("another vx is compiling the same binary; waiting for it".to_owned());
                is_told = true;
            }
        }
        until_cancelled(&context.cancel, tokio::time::sleep(BUILD_LOCK_RETRY_INTERVAL)).await?;
    }
}

/// The note that a binary for another platform is replaced.
fn replaces_note(file: &Path, target: &GoTarget) -> Option<String> {
    // Opening a pipe would wait for its other end.
    let existing = file.is_file().then(|| BuildInfo::read(file).ok()).flatten()?;
    let setting = |name: &str| Some(&existing.settings.iter().find(|(key, _)| key == name)?.1);
    let platform = format!("{}/{}", setting("GOOS")?, setting("GOARCH")?);
    (platform != target.to_string()).then(|| {
        format!(
            "{} was a binary for {platform}, and is replaced by the one for {target}; `--output-dir DIR` or `--output-file FILE` keeps both",
            file.display()
        )
    })
}

/// Writes the binaries to the output directory.
pub(crate) async fn publish(
    context: &BuildContext<'_>,
    targets: &[BuildTarget<'_>],
    lock: &Lock,
) -> Result<BuildSummary, Error> {
    let mut summary = context.summary(lock);
    summary.compile_cache = context.shared.stats();
    let mut binaries = Vec::new();
    for target in targets {
        let Some(artifact) = target.artifact.clone() else { continue };
        if let Some(stats) = target.compile_cache.clone() {
            summary.compile_cache.get_or_insert_default().add(stats);
        }
        let stays = target.key.is_some() && matches!(context.request.goal, Goal::Build(Output::Store(_)));
        if !stays && let Some(note) = replaces_note(&target.file, &target.variant.target) {
            context.note(note);
        }
        let binary = BuiltBinary {
            target: target.variant.target.to_string(),
            path: if stays { artifact.binary() } else { target.file.clone() },
            size: artifact.size,
            sha256: artifact.sha256.clone(),
            reused: target.reused,
            archive: None,
            sboms: Vec::new(),
        };
        binaries.push((binary, artifact, target.variant.target.clone()));
    }
    if context.cancel.is_cancelled() {
        return Err(Error::interrupted());
    }
    let is_written = binaries.iter().any(|(binary, artifact, _)| binary.path != artifact.binary());
    let (is_archived, version) = (context.request.options.archive, summary.stamp_version.clone());
    let sboms = context.request.options.sboms.clone();
    let work = tokio::task::spawn_blocking(move || {
        let mut published = Vec::new();
        for (mut binary, artifact, target) in binaries {
            if binary.path != artifact.binary() {
                publish_file(&artifact, &binary.path)?;
            }
            let directory = binary.path.parent().unwrap_or(Path::new("."));
            if is_archived {
                binary.archive = Some(archive::write(&version, &target, &artifact, directory)?);
            }
            for sbom in &sboms {
                let path = sbom.path(&binary.path);
                write_changed(&path, &artifact.sbom(sbom.format)?)?;
                binary.sboms.push(path);
            }
            published.push(binary);
        }
        archive::write_checksums(&published)?;
        Ok(published)
    });
    let work = async {
        work.await.map_err(|error| Error::build(format!("internal error: publishing failed: {error}")))?
    };
    summary.binaries = match is_written {
        true => phase(&*context.reporter, Phase::Publish, work).await?,
        false => work.await?,
    };
    if let Some(attestation) = &context.request.options.attestation {
        provenance::write(context, lock, &summary.binaries, attestation)?;
        summary.attestation = Some(attestation.file.clone());
    }
    Ok(summary)
}

/// Uploads what was compiled to the shared cache.
pub(crate) async fn share(
    context: &BuildContext<'_>,
    targets: &[BuildTarget<'_>],
    summary: &mut BuildSummary,
) -> Result<(), Error> {
    let compiled = targets.iter().filter(|target| !target.reused);
    let compiled = compiled.filter_map(|target| Some((target.key.as_deref()?, target.artifact.as_ref()?)));
    let before = context.shared.stats().unwrap_or_default();
    shared_artifacts::upload(context, compiled).await?;
    let after = context.shared.stats().unwrap_or_default();
    if after != before {
        let stats = summary.compile_cache.get_or_insert_default();
        stats.bytes_up += after.bytes_up - before.bytes_up;
        after.trouble.into_iter().for_each(|trouble| stats.add_trouble(trouble));
    }
    Ok(())
}

/// Keeps the artifact store below its limit.
pub(crate) fn clean_up(context: &BuildContext<'_>, compiled: &[BuildTarget<'_>], workspace: &Workspace) {
    let options = &context.request.options;
    let keys: Vec<&str> = compiled.iter().filter_map(|target| target.key.as_deref()).collect();
    store(context).keep_within(options.cache.store_limit_bytes.unwrap_or(DEFAULT_STORE_LIMIT_BYTES), &keys);
    if options.workspace.keep {
        let path = workspace.directory().to_owned();
        context.reporter.report(Event::Note(Note::WorkspaceKept { path }));
    }
}
