//! Go programs that are compiled once into the cache.

use std::{
    fs,
    path::{Path, PathBuf},
};

use velox_manifest::GoTarget;

use crate::{
    cache_directory::cache_directory,
    context::BuildContext,
    digest,
    error::Error,
    toolchain::{ModuleMode, Toolchain},
    workspace::Workspace,
};

/// The flags of a build, so that the packages of the standard library are compiled once for both.
const FLAGS: [&str; 4] = ["-trimpath", "-buildvcs=false", "-gcflags=all=-dwarf=false", "-ldflags=-s"];

/// A Go program for this machine.
///
/// ```text
/// CACHE/go-tools-v0/
///   3f9a…/govulncheck     by the Go version, the flags, the package and the files
/// ```
pub(crate) struct GoProgram<'a> {
    pub(crate) name: &'a str,
    /// The names and the content of the files of its source directory.
    pub(crate) files: &'a [(&'a str, &'a str)],
    /// The package or the Go file to compile.
    pub(crate) package: &'a str,
}

impl GoProgram<'_> {
    /// The program of a Go version in the cache, which may lack it.
    pub(crate) fn path(&self, context: &BuildContext<'_>, go: &Toolchain) -> PathBuf {
        let host = GoTarget::host().to_string();
        let files = self.files.iter().flat_map(|(name, content)| [*name, *content]);
        let key = [&*go.version, &*host, self.package].into_iter().chain(FLAGS).chain(files);
        let folder = cache_directory(&context.request.environment).join("go-tools-v0");
        folder.join(digest::of_texts(key)).join(format!("{}{}", self.name, std::env::consts::EXE_SUFFIX))
    }

    /// The program, compiled if the cache lacks it.
    pub(crate) async fn compiled(
        &self,
        context: &BuildContext<'_>,
        go: &Toolchain,
        scratch: &Path,
    ) -> Result<PathBuf, Error> {
        let program = self.path(context, go);
        if program.is_file() {
            return Ok(program);
        }
        let source = Workspace::empty(scratch.join(self.name))?;
        for (name, content) in self.files {
            source.write(name, content)?;
        }
        let folder = program.parent().unwrap_or(scratch);
        fs::create_dir_all(folder).map_err(|error| Error::file("create", folder, &error))?;
        let new = tempfile::Builder::new().prefix("new").tempdir_in(folder);
        let new = new.map_err(|error| Error::file("create", folder, &error))?;
        let output = new.path().join(self.name);
        let output_text = output.to_string_lossy().into_owned();
        let mut arguments = vec!["build"];
        arguments.extend(FLAGS);
        arguments.extend(["-o", &output_text, self.package]);
        let built = go.run(ModuleMode::ReadOnly, None, &arguments, source.directory(), None).await?;
        if !built.status.success() {
            return Err(Error::build(format!("failed to build {}", self.name)).output(built.stderr));
        }
        fs::rename(&output, &program).map_err(|error| Error::file("write", &program, &error))?;
        Ok(program)
    }
}
