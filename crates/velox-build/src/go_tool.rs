//! Go programs that analyze the packages of a binary, such as govulncheck.

use std::path::PathBuf;

use velox_gomod::modfile::GoMod;
use velox_manifest::GoTarget;

use crate::{
    compile::MAIN_PACKAGE,
    context::BuildTools,
    error::Error,
    event::{Phase, phase},
    go_program::GoProgram,
    lock::{Lock, LockFile},
    session::QuerySession,
};

/// A Go program at a pinned version, compiled once into the cache. The checksums of its modules are part of vx, so that
/// neither GOSUMDB nor GONOSUMDB matters.
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
        let (tools, lock, workspace) = self.prepare(&found, locked).await?;
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
        let files = [("go.mod", tool.go_mod), ("go.sum", tool.go_sum)];
        let program = GoProgram { name: tool.name, files: &files, package: tool.package };
        let path = program.path(context, go);
        if path.is_file() {
            return Ok(path);
        }
        context.note(format!("compiling {} {}, which is kept in the cache", tool.name, tool.version));
        let compiling = program.compiled(context, go, tools.scratch.path());
        phase(&*context.reporter, Phase::Compile, compiling).await.map_err(|error| {
            let module = format!("{} {}", tool.package, tool.version);
            let error = error.help(format!("it is compiled from {module}, which GOPROXY must serve"));
            match context.request.options.is_offline() {
                true => error.help("run it once without `--offline`: the program is kept in the cache"),
                false => error,
            }
        })
    }
}
