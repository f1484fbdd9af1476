//! Go programs that read the packages of a binary without running them.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use futures::{FutureExt, future::LocalBoxFuture};
use serde::{Deserialize, Serialize};
use velox_gomod::module::ModuleVersion;
use velox_manifest::Diagnostic;

use crate::{
    atomic_file::write_text,
    cache_directory::cache_directory,
    compile::{MAIN_PACKAGE, go_build::build_flags, key},
    context::{BuildContext, BuildTools},
    digest,
    error::Error,
    go_program::GoProgram,
    lock::{Lock, ReleaseModules},
    toolchain::ModuleMode,
    workspace::Workspace,
};

/// Results in the cache; the least recently written are removed.
const MAX_CACHED_RESULTS: usize = 64;

/// The fields of `go list -json` that readers get.
const LIST_FIELDS: [&str; 2] = [
    "-export",
    "-json=ImportPath,Name,Dir,Export,GoFiles,CgoFiles,IgnoredGoFiles,Imports,ImportMap,Module,Standard,Error",
];

/// A Go program of the standard library only. Its argument is a file with the output of
/// `go list -e -export -deps -json` for RoadRunner's main package; its standard output is the result.
///
/// ```text
/// CACHE/NAME-v1/
///   3f9a….json            results, by the key of the packages and the program
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
    /// The plugins of the RoadRunner release itself.
    pub released: Vec<ModuleVersion>,
    /// What the program printed.
    pub output: String,
}

/// A check of the packages during a build: its findings are warnings, with `--strict` errors before the compilation.
pub struct PackageCheck<'a> {
    /// Reads the packages.
    pub reader: PackageReader,
    /// The findings that the versions of a lock tell; `None` if the packages have to be read. Builds with `--strict` read
    /// them in any case.
    pub known: &'a (dyn Fn(&Lock) -> Option<Vec<Diagnostic>> + Sync),
    /// The findings about the major versions of the plugins of a lock, with the plugins of its RoadRunner release.
    pub majors: &'a (dyn Fn(&Lock, &[ModuleVersion]) -> Vec<Diagnostic> + Sync),
    /// The findings in a result.
    pub findings: &'a (dyn Fn(PackagesRead) -> Vec<Diagnostic> + Sync),
}

/// A file of the cache.
#[derive(Serialize, Deserialize)]
struct CachedResult {
    /// Module paths and versions.
    released: Vec<(String, String)>,
    output: String,
}

/// The result in the cache.
pub(crate) fn cached(
    context: &BuildContext<'_>,
    reader: PackageReader,
    lock: &Lock,
) -> Result<Option<PackagesRead>, Error> {
    let text = reader.result_file(context, lock)?.and_then(|path| fs::read_to_string(path).ok());
    let result: Option<CachedResult> = text.and_then(|text| serde_json::from_str(&text).ok());
    Ok(result.map(|CachedResult { released, output }| {
        let released = released.into_iter().map(|(path, version)| ModuleVersion::new(path, version));
        PackagesRead { lock: lock.clone(), released: released.collect(), output }
    }))
}

impl PackageReader {
    /// The file of a result in the cache; `None` for packages without a key.
    fn result_file(self, context: &BuildContext<'_>, lock: &Lock) -> Result<Option<PathBuf>, Error> {
        let variant = context.first_variant()?;
        let key = key::of(lock, variant, &context.settings, None, &context.replaced(lock))?;
        Ok(key.map(|key| result_file(context, self.name, self.source, &key)))
    }
}

/// The file of a result in the cache, by the key of what was read. `generation` changes when the reader makes another
/// result of the same.
pub(crate) fn result_file(context: &BuildContext<'_>, name: &str, generation: &str, key: &str) -> PathBuf {
    let directory = cache_directory(&context.request.environment).join(format!("{name}-v1"));
    directory.join(format!("{}.json", digest::of_texts([key, generation])))
}

/// Runs a reader in a prepared workspace, and keeps the result in the cache.
pub(crate) fn read<'a>(
    context: &'a BuildContext<'a>,
    reader: PackageReader,
    tools: &'a BuildTools,
    lock: &'a Lock,
    workspace: &'a Workspace,
) -> LocalBoxFuture<'a, Result<PackagesRead, Error>> {
    async move {
        let PackageReader { name, source } = reader;
        let program = GoProgram { name, files: &[("reader.go", source)], package: "reader.go" };
        let (listed, program) = tokio::try_join!(
            list(context, &LIST_FIELDS, tools, lock, workspace),
            program.compiled(context, &tools.go, tools.scratch.path())
        )?;
        let scratch = Workspace::empty(tools.scratch.path().join("packages"))?;
        scratch.write("packages.json", &listed)?;
        let ran =
            tools.go.run_program(name, &program, &["packages.json"], scratch.directory(), Vec::new()).await?;
        if !ran.status.success() {
            return Err(Error::build(format!("internal error: the {name} reader failed")).output(ran.stderr));
        }
        let cache = tools.go.modules();
        let released =
            ReleaseModules::cached(cache, lock).map(|release| release.plugins()).unwrap_or_default();
        let read = PackagesRead { lock: lock.clone(), released, output: ran.stdout };
        if let Some(path) = reader.result_file(context, lock)? {
            let released = read.released.iter().map(|plugin| (plugin.path.clone(), plugin.version.clone()));
            let result = CachedResult { released: released.collect(), output: read.output.clone() };
            // Without the cache, the next query takes longer.
            let _ =
                serde_json::to_string(&result).map_err(io::Error::other).and_then(|text| keep(&path, &text));
        }
        Ok(read)
    }
    .boxed_local()
}

/// What `go list -deps` prints for RoadRunner's main package.
pub(crate) async fn list(
    context: &BuildContext<'_>,
    fields: &[&str],
    tools: &BuildTools,
    lock: &Lock,
    workspace: &Workspace,
) -> Result<String, Error> {
    let flags = build_flags(&context.settings, lock, &context.stamp(lock))?;
    // With -e, packages that don't compile are listed with their error.
    let mut arguments = vec!["list", "-e", "-deps"];
    arguments.extend(fields);
    arguments.extend(flags.iter().map(String::as_str));
    arguments.push(MAIN_PACKAGE);
    let directory = workspace.directory();
    let variant = context.first_variant()?;
    let listed = tools.go.run(ModuleMode::ReadOnly, Some(variant), &arguments, directory, None).await?;
    if listed.stdout.trim().is_empty() {
        return Err(Error::build("failed to list the packages: `go list` failed").output(listed.stderr));
    }
    Ok(listed.stdout)
}

/// Writes a result, and removes the oldest ones beyond the limit.
pub(crate) fn keep(path: &Path, text: &str) -> io::Result<()> {
    let Some(directory) = path.parent() else { return Ok(()) };
    fs::create_dir_all(directory)?;
    write_text(path, text)?;
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
