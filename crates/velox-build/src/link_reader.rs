//! Functions that read a binary with all its symbols.

use std::path::PathBuf;

use futures::{FutureExt, future::LocalBoxFuture};

use crate::{
    compile::{go_build::go_build_unstripped, key},
    context::{BuildContext, BuildTools},
    error::Error,
    lock::Lock,
    package_reader::{keep, list, result_file},
    workspace::Workspace,
};

/// What a reader gets of each package.
const LIST_FIELDS: [&str; 1] = ["-json=ImportPath,Imports,ImportMap,Module,Standard"];

/// A function that reads a binary with all its symbols.
///
/// ```text
/// CACHE/NAME-v1/
///   3f9a….json            results, by the key of the artifact and the generation
/// ```
#[derive(Debug, Clone, Copy)]
pub struct LinkReader {
    /// A name for the cache, such as `size`.
    pub name: &'static str,
    /// Changed when the function makes another result of the same binary.
    pub generation: &'static str,
    /// The function.
    pub read: fn(&LinkedBinary) -> Result<String, Error>,
}

/// A binary that was linked with all its symbols.
#[derive(Debug)]
pub struct LinkedBinary {
    /// The file.
    pub path: PathBuf,
    /// What `go list -deps -json` prints about its packages: ImportPath, Imports, ImportMap, Module, Standard.
    pub packages: String,
    /// How the linker reached each symbol first: `PARENT -> SYMBOL`, parents before their children.
    pub reached: Vec<String>,
    /// Whether the ordinary binary has no symbols.
    pub is_stripped: bool,
}

/// The result of a reader in the cache.
pub(crate) fn cached(
    context: &BuildContext<'_>,
    reader: LinkReader,
    lock: &Lock,
) -> Result<Option<String>, Error> {
    let file = reader.result_file(context, lock)?;
    Ok(file.and_then(|file| std::fs::read_to_string(file).ok()))
}

impl LinkReader {
    /// The file of a result in the cache; `None` for a binary without a key.
    fn result_file(self, context: &BuildContext<'_>, lock: &Lock) -> Result<Option<PathBuf>, Error> {
        let (variant, stamp) = (context.first_variant()?, context.stamp(lock));
        let key = key::of(lock, variant, &context.settings, Some(&stamp), &context.replaced(lock))?;
        Ok(key.map(|key| result_file(context, self.name, self.generation, &key)))
    }
}

/// Links the binary in a prepared workspace, runs a reader, and keeps the result in the cache.
pub(crate) fn read<'a>(
    context: &'a BuildContext<'a>,
    reader: LinkReader,
    tools: &'a BuildTools,
    lock: &'a Lock,
    workspace: &'a Workspace,
) -> LocalBoxFuture<'a, Result<String, Error>> {
    async move {
        let packages = list(context, &LIST_FIELDS, tools, lock, workspace).await?;
        let variant = context.first_variant()?;
        let (path, reached) = go_build_unstripped(context, &tools.go, lock, workspace, variant).await?;
        let is_stripped = context.settings.strip();
        let output = (reader.read)(&LinkedBinary { path, packages, reached, is_stripped })?;
        if let Some(file) = reader.result_file(context, lock)? {
            // Without the cache, the next query takes longer.
            let _ = keep(&file, &output);
        }
        Ok(output)
    }
    .boxed_local()
}
