//! Go programs that read the packages of a binary without running them.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

use crate::{
    artifact::store::ArtifactStore,
    atomic_file::write_text,
    cache_directory::cache_directory,
    compile::{
        go_build::{MAIN_PACKAGE, build_flags},
        key,
    },
    context::BuildTools,
    error::Error,
    event::{Phase, phase},
    lock::{Lock, LockFile, TargetVariant},
    pipeline,
    session::QuerySession,
    toolchain::ModuleMode,
    workspace::Workspace,
};

/// Results in the cache; the least recently written are removed.
const MAX_CACHED_RESULTS: usize = 64;

/// The fields of `go list -json` that readers get.
const LIST_FIELDS: &str =
    "-json=ImportPath,Name,Dir,Export,GoFiles,CgoFiles,Imports,ImportMap,Module,Standard,Error";

/// A Go program of the standard library only. Its argument is a file with the output of
/// `go list -e -export -deps -json` for RoadRunner's main package; its standard output is the result.
///
/// ```text
/// CACHE/NAME-v0/
///   3f9a….json            results, by the key of the artifact and the program
/// ```
#[derive(Debug, Clone, Copy)]
pub struct PackageReader {
    /// A name for the cache and for messages, such as `plugin-graph`.
    pub name: &'static str,
    /// The Go source.
    pub source: &'static str,
}

/// The result of a [`PackageReader`].
#[derive(Debug, Clone)]
pub struct PackagesRead {
    /// The lock of the packages.
    pub lock: Lock,
    /// What the program printed.
    pub output: String,
}

impl QuerySession<'_> {
    /// Runs a reader on the packages of the first target, or takes its result from the cache if nothing changed.
    /// Packages that were not compiled yet are compiled into GOCACHE, as a build would.
    ///
    /// # Errors
    /// As [`crate::build`], up to the compilation; a failure of the reader.
    pub async fn read_packages(&self, reader: PackageReader) -> Result<PackagesRead, Error> {
        let context = &self.context;
        let Some(variant) = context.variants.first() else {
            return Err(Error::configuration("there is no target"));
        };
        let found = LockFile::read(context.request)?;
        let locked = context.matching_lock(&found)?;
        if let Some(lock) = &locked
            && let Some(output) =
                self.result(reader, lock, variant)?.and_then(|path| fs::read_to_string(path).ok())
        {
            return Ok(PackagesRead { lock: lock.clone(), output });
        }
        let mut tools = context.tools(&found, locked.as_ref()).await?;
        let (lock, workspace) = match locked {
            Some(lock) => pipeline::restore(context, &tools, &found, lock).await?,
            None => pipeline::resolve(context, &mut tools, &found).await?,
        };
        let result = self.result(reader, &lock, variant)?;
        if let Some(output) = result.as_ref().and_then(|path| fs::read_to_string(path).ok()) {
            return Ok(PackagesRead { lock, output });
        }
        workspace.prepare(&lock, &context.stamp(&lock), &context.settings)?;
        let output = self.run_reader(reader, &tools, &lock, variant, &workspace).await?;
        if let Some(path) = result {
            // Without the cache, the next query takes longer.
            let _ = keep(&path, &output);
        }
        Ok(PackagesRead { lock, output })
    }

    /// As [`Self::read_packages`], but only if that takes no compilation: the result is in the cache, or the artifact
    /// store has the binary.
    ///
    /// # Errors
    /// As [`Self::read_packages`].
    pub async fn read_built_packages(&self, reader: PackageReader) -> Result<Option<PackagesRead>, Error> {
        let context = &self.context;
        let found = LockFile::read(context.request)?;
        let (Some(lock), Some(variant)) = (context.matching_lock(&found)?, context.variants.first()) else {
            return Ok(None);
        };
        let is_cached = self.result(reader, &lock, variant)?.is_some_and(|path| path.exists());
        let is_built = || {
            let (stamp, replaced) = (context.stamp(&lock), context.replaced(&lock));
            let key = key::of(&lock, variant, &context.settings, &stamp, &replaced)?;
            let store = ArtifactStore::new(&cache_directory(&context.request.environment));
            Ok::<bool, Error>(key.is_some_and(|key| store.get(&key).is_some()))
        };
        if is_cached || is_built()? { self.read_packages(reader).await.map(Some) } else { Ok(None) }
    }

    /// The place of a result in the cache; `None` for a binary without a key.
    fn result(
        &self,
        reader: PackageReader,
        lock: &Lock,
        variant: &TargetVariant,
    ) -> Result<Option<PathBuf>, Error> {
        let context = &self.context;
        let stamp = context.stamp(lock);
        let Some(artifact) = key::of(lock, variant, &context.settings, &stamp, &context.replaced(lock))?
        else {
            return Ok(None);
        };
        let mut hash = Sha256::new();
        hash.update(artifact);
        hash.update(reader.source);
        let directory = cache_directory(&context.request.environment).join(format!("{}-v0", reader.name));
        Ok(Some(directory.join(format!("{}.json", HEXLOWER.encode(&hash.finalize())))))
    }

    async fn run_reader(
        &self,
        reader: PackageReader,
        tools: &BuildTools,
        lock: &Lock,
        variant: &TargetVariant,
        workspace: &Workspace,
    ) -> Result<String, Error> {
        let context = &self.context;
        let flags = build_flags(&context.settings, lock, &context.stamp(lock))?;
        let mut arguments = vec!["list", "-e", "-export", "-deps", LIST_FIELDS];
        arguments.extend(flags.iter().map(String::as_str));
        arguments.push(MAIN_PACKAGE);
        let directory = workspace.directory();
        let listing = tools.go.run(ModuleMode::ReadOnly, Some(variant), &arguments, directory, None);
        let listed = phase(&*context.reporter, Phase::Compile, listing).await?;
        // With -e, packages that don't compile are listed with their error.
        if listed.stdout.trim().is_empty() {
            return Err(Error::build("failed to list the packages: `go list` failed").output(listed.stderr));
        }
        let scratch = Workspace::empty(tools.scratch.path().join(reader.name))?;
        scratch.write("packages.json", &listed.stdout)?;
        scratch.write("reader.go", reader.source)?;
        // Outside of any module, for this machine.
        let arguments = ["run", "reader.go", "packages.json"];
        let read = tools.go.run(ModuleMode::ReadOnly, None, &arguments, scratch.directory(), None).await?;
        if !read.status.success() {
            return Err(Error::build(format!("internal error: the {} reader failed", reader.name))
                .output(read.stderr));
        }
        Ok(read.stdout)
    }
}

/// Writes a result, and removes the oldest ones beyond the limit.
fn keep(path: &Path, output: &str) -> io::Result<()> {
    let Some(directory) = path.parent() else { return Ok(()) };
    fs::create_dir_all(directory)?;
    write_text(path, output)?;
    let mut results: Vec<(SystemTime, PathBuf)> = fs::read_dir(directory)?
        .flatten()
        .filter(|entry| entry.path().extension().is_some_and(|it| it == "json"))
        .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
        .collect();
    results.sort();
    let surplus = results.len().saturating_sub(MAX_CACHED_RESULTS);
    for (_, old) in results.into_iter().take(surplus) {
        let _ = fs::remove_file(old);
    }
    Ok(())
}
