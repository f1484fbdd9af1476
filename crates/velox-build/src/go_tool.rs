//! Go programs that analyze the packages of a binary, such as govulncheck.

use std::{fs, path::PathBuf};

use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};
use velox_gomod::modfile::GoMod;
use velox_manifest::GoTarget;

use crate::{
    cache_directory::cache_directory,
    compile::MAIN_PACKAGE,
    context::BuildTools,
    error::Error,
    event::{Event, Note, Phase, phase},
    lock::{Lock, LockFile},
    pipeline,
    session::QuerySession,
    toolchain::ModuleMode,
    workspace::Workspace,
};

/// The folder of compiled tools in the cache directory.
const FOLDER: &str = "go-tools-v0";

/// A Go program at a pinned version, compiled once into the cache. The checksums of its modules are part of vx, so that
/// neither GOSUMDB nor GONOSUMDB matters.
///
/// ```text
/// CACHE/go-tools-v0/
///   3f9a…/govulncheck     by the Go version, the go.mod and the go.sum
/// ```
#[derive(Debug, Clone, Copy)]
pub struct GoTool {
    /// The name of the program.
    pub name: &'static str,
    /// The package path of the program.
    pub package: &'static str,
    /// The version of its module.
    pub version: &'static str,
    /// A go.mod that requires its module and everything that this needs.
    pub go_mod: &'static str,
    /// The go.sum for it.
    pub go_sum: &'static str,
}

/// What a [`GoTool`] printed about the packages of a binary.
#[derive(Debug, Clone)]
pub struct GoToolOutput {
    /// The lock of the packages.
    pub lock: Lock,
    /// Its standard output for each target.
    pub outputs: Vec<(GoTarget, String)>,
}

impl QuerySession<'_> {
    /// Runs a tool on the packages of each target, in the prepared source tree and with the go command and the
    /// environment that would compile them. `-tags`, the main package and the packages of the plugins follow the arguments:
    /// RoadRunner calls plugins by reflection, which no analysis of the main package alone can see.
    ///
    /// # Errors
    /// As [`crate::build`], up to the compilation; the tool can't be downloaded, compiled or run.
    pub async fn run_go_tool(&self, tool: GoTool, arguments: &[&str]) -> Result<GoToolOutput, Error> {
        let context = &self.context;
        let found = LockFile::read(context.request)?;
        let locked = context.matching_lock(&found)?;
        let mut tools = context.tools(&found, locked.as_ref()).await?;
        let (lock, workspace) = match locked {
            Some(lock) => pipeline::restore(context, &tools, &found, lock).await?,
            None => pipeline::resolve(context, &mut tools, &found).await?,
        };
        workspace.prepare(&lock)?;
        let program = self.go_tool(tool, &tools).await?;
        let directory = workspace.directory();
        let mut outputs = Vec::new();
        for variant in &context.variants {
            let tags = format!("-tags={}", variant.tags.join(","));
            let mut arguments = arguments.to_vec();
            if !variant.tags.is_empty() {
                arguments.push(&tags);
            }
            arguments.push(MAIN_PACKAGE);
            arguments.extend(lock.plugins.iter().map(|plugin| plugin.module.as_str()));
            let run = tools.go.run_tool(tool.name, &program, variant, &arguments, directory).await?;
            if !run.status.success() {
                let message = format!("{} failed for {}", tool.name, variant.target);
                return Err(Error::build(message).output(run.stderr));
            }
            outputs.push((variant.target.clone(), run.stdout));
        }
        Ok(GoToolOutput { lock, outputs })
    }

    /// The compiled program, from the cache if it is there.
    async fn go_tool(&self, tool: GoTool, tools: &BuildTools) -> Result<PathBuf, Error> {
        let context = &self.context;
        let line = GoMod::parse(tool.go_mod).ok().and_then(|go_mod| go_mod.go);
        let newer = tools.toolchains.at_least(&tools.go, line.as_deref().unwrap_or_default()).await?;
        let go = newer.as_ref().unwrap_or(&tools.go);
        let mut hash = Sha256::new();
        for part in [go.version(), &GoTarget::host().to_string(), tool.go_mod, tool.go_sum] {
            hash.update(part);
            hash.update("\n");
        }
        let folder = cache_directory(&context.request.environment).join(FOLDER);
        let folder = folder.join(HEXLOWER.encode(&hash.finalize()));
        let program = folder.join(format!("{}{}", tool.name, std::env::consts::EXE_SUFFIX));
        if program.is_file() {
            return Ok(program);
        }
        let text = format!("compiling {} {}, which is kept in the cache", tool.name, tool.version);
        context.reporter.report(Event::Note(Note::Text { text }));
        let source = Workspace::empty(tools.scratch.path().join(tool.name))?;
        source.write("go.mod", tool.go_mod)?;
        source.write("go.sum", tool.go_sum)?;
        fs::create_dir_all(&folder).map_err(|error| Error::file("create", &folder, &error))?;
        let new = tempfile::Builder::new().prefix("new").tempdir_in(&folder);
        let new = new.map_err(|error| Error::file("create", &folder, &error))?;
        let output = new.path().join(tool.name);
        let output_text = output.to_string_lossy().into_owned();
        let arguments = ["build", "-trimpath", "-buildvcs=false", "-o", &output_text, tool.package];
        let building = go.run(ModuleMode::ReadOnly, None, &arguments, source.directory(), None);
        let built = phase(&*context.reporter, Phase::Compile, building).await?;
        if !built.status.success() {
            let module = format!("{} {}", tool.package, tool.version);
            let error = Error::build(format!("failed to build {}", tool.name)).output(built.stderr);
            let error = error.help(format!("it is compiled from {module}, which GOPROXY must serve"));
            return Err(match context.request.options.is_offline() {
                true => error.help("run it once without `--offline`: the program is kept in the cache"),
                false => error,
            });
        }
        fs::rename(&output, &program).map_err(|error| Error::file("write", &program, &error))?;
        Ok(program)
    }
}
