//! Running a go command.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio_util::sync::CancellationToken;
use velox_fetch::modcache::ModCache;
use velox_gomod::goversion;
use velox_manifest::GoTarget;

use super::{go_env::GoSettings, policy::ToolchainSwitching};
use crate::{
    error::Error,
    event::Reporter,
    go_variables::{self, InstructionSet},
    lock::TargetVariant,
    process::{CommandRunner, Invocation, ProgramOutput},
};

/// How long a command that downloads may print nothing: the go command itself waits for ever for a server.
const MAX_DOWNLOAD_SILENCE: Duration = Duration::from_secs(10 * 60);

#[derive(Clone)]
pub(crate) struct Toolchain {
    pub(super) program: PathBuf,
    /// `go1.26.8`
    pub(crate) version: String,
    /// Its GOROOT, if it is in the module cache.
    pub(super) root: Option<PathBuf>,
    /// Whether it must not switch to a newer version.
    pub(super) fixed: bool,
    pub(super) others: ToolchainSwitching,
    /// Whether it was just downloaded without verification, so that its sum belongs in the lock.
    pub(crate) trusted: bool,
    pub(super) children: CommandRunner,
    pub(crate) settings: GoSettings,
}

/// GOFLAGS, in place of the user's own: those could change the bytes of the binary.
#[derive(Clone, Copy)]
pub(crate) enum ModuleMode {
    /// Complete go.mod and go.sum (`-mod=mod`).
    Complete,
    /// Leave them unchanged (`-mod=readonly`).
    ReadOnly,
}

impl Toolchain {
    pub(crate) fn modules(&self) -> ModCache {
        ModCache::new(&self.settings.gomodcache)
    }

    /// A copy that adds these environment variables.
    pub(crate) fn with_environment(&self, variables: &[(&'static str, String)]) -> Self {
        Self { children: self.children.with_environment(variables), ..self.clone() }
    }

    /// A copy that reports to another reporter.
    pub(crate) fn with_reporter(&self, reporter: Arc<dyn Reporter>) -> Self {
        Self { children: CommandRunner { reporter, ..self.children.clone() }, ..self.clone() }
    }

    /// A copy whose commands end when `stop`, a child of the build's token, is cancelled.
    pub(crate) fn until(&self, stop: &CancellationToken) -> Self {
        Self { children: CommandRunner { cancel: stop.clone(), ..self.children.clone() }, ..self.clone() }
    }

    /// Runs `go ARGUMENTS` in `directory`; without a variant, for the host.
    ///
    /// Sets every variable that could change the bytes of the binary, for reproducible builds. GOENV stays:
    /// it may have GOPRIVATE and GOPROXY.
    pub(crate) async fn run(
        &self,
        mode: ModuleMode,
        variant: Option<&TargetVariant>,
        arguments: &[&str],
        directory: &Path,
        on_line: Option<&(dyn Fn(&str) + Sync)>,
    ) -> Result<ProgramOutput, Error> {
        self.children
            .run(Invocation {
                name: "go",
                program: &self.program,
                arguments: arguments.iter().map(Into::into).collect(),
                directory,
                environment: self.environment(mode, variant),
                // It may download modules.
                max_silence: matches!(mode, ModuleMode::Complete).then_some(MAX_DOWNLOAD_SILENCE),
                on_line,
            })
            .await
    }

    /// Runs a program that runs this go command itself, as `go` on the PATH.
    pub(crate) async fn run_tool(
        &self,
        name: &'static str,
        program: &Path,
        variant: &TargetVariant,
        arguments: &[&str],
        directory: &Path,
    ) -> Result<ProgramOutput, Error> {
        let found = self.run(ModuleMode::ReadOnly, None, &["env", "GOROOT"], directory, None).await?;
        let own = Path::new(found.stdout.trim()).join("bin");
        let inherited = self.children.inherited.get("PATH").map(String::as_str).unwrap_or_default();
        let path = std::env::join_paths(std::iter::once(own).chain(std::env::split_paths(inherited)))
            .map_err(|error| Error::build(format!("failed to set PATH: {error}")))?;
        let mut environment = self.environment(ModuleMode::ReadOnly, Some(variant));
        environment.push(("PATH", path.to_string_lossy().into_owned()));
        self.run_program(name, program, arguments, directory, environment).await
    }

    /// Runs a program with these variables in addition to the inherited environment.
    pub(crate) async fn run_program(
        &self,
        name: &'static str,
        program: &Path,
        arguments: &[&str],
        directory: &Path,
        environment: Vec<(&'static str, String)>,
    ) -> Result<ProgramOutput, Error> {
        self.children
            .run(Invocation {
                name,
                program,
                arguments: arguments.iter().map(Into::into).collect(),
                directory,
                environment,
                max_silence: None,
                on_line: None,
            })
            .await
    }

    fn environment(&self, mode: ModuleMode, variant: Option<&TargetVariant>) -> Vec<(&'static str, String)> {
        let target = variant.map_or_else(GoTarget::host, |variant| variant.target.clone());
        let mode = match mode {
            ModuleMode::Complete => "-mod=mod",
            ModuleMode::ReadOnly => "-mod=readonly",
        };
        let modules = self.settings.writable_modules().then(|| "-modcacherw".to_owned());
        let flags: Vec<String> = std::iter::once(mode.to_owned())
            .chain(modules)
            .chain(go_variables::parallelism(&self.settings.goflags))
            .collect();
        let flags = flags.join(" ");
        let switching = match (self.fixed, self.others) {
            (true, _) | (false, ToolchainSwitching::None) => "local",
            (false, ToolchainSwitching::Path) => "path",
            (false, ToolchainSwitching::Any) => "auto",
        };
        let environment = [
            ("GOTOOLCHAIN", switching),
            ("GOFLAGS", flags.as_str()),
            ("GOWORK", "off"),
            ("GO111MODULE", "on"),
            ("GOOS", &target.os),
            ("GOARCH", &target.arch),
            ("CGO_ENABLED", if variant.is_some_and(|variant| variant.cgo) { "1" } else { "0" }),
            // Empty is the default of the Go version; `none` would disable what releases are built with.
            ("GOEXPERIMENT", ""),
            // `1` would link with a C compiler.
            ("GO_EXTLINK_ENABLED", ""),
            ("GOFIPS140", "off"),
            ("GIT_TERMINAL_PROMPT", "0"),
            ("LC_ALL", "C"),
        ];
        environment
            .into_iter()
            .map(|(name, value)| (name, value.to_owned()))
            .chain(InstructionSet::variables(variant.and_then(|variant| variant.instruction_set.as_ref())))
            // As the go command does when it switches toolchains.
            .chain(self.root.iter().map(|root| ("GOROOT", root.to_string_lossy().into_owned())))
            .chain(self.settings.goenv.iter().map(|file| ("GOENV", file.to_string_lossy().into_owned())))
            .collect()
    }

    /// The Go version that compiles in `directory`, possibly a newer one that its go.mod requires.
    pub(crate) async fn version_in(&self, directory: &Path) -> Result<String, Error> {
        let finished = self.run(ModuleMode::ReadOnly, None, &["env", "GOVERSION"], directory, None).await?;
        if !finished.status.success() {
            return Err(Error::build("`go env GOVERSION` failed").output(finished.stderr));
        }
        let version = goversion::toolchain_name(&finished.stdout);
        if !version.starts_with("go1") {
            return Err(Error::build(format!("`{version}` is not a Go release and can't be locked"))
                .help("use a released Go, or let vx download one: GOTOOLCHAIN=auto"));
        }
        Ok(version.to_owned())
    }
}
