//! The go command that compiles: found on this machine, or brought as a module.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio_util::sync::CancellationToken;
use velox_gomod::goversion;
use velox_manifest::GoTarget;

use super::{go_env::GoSettings, policy::ToolchainSwitching};
use crate::{
    error::Error,
    process::{CommandOutput, CommandRunner, Invocation},
};

/// A go command, with the settings that go with it.
#[derive(Clone)]
pub(crate) struct Toolchain {
    pub(super) program: PathBuf,
    /// `go1.26.8`
    pub(super) version: String,
    /// Its GOROOT, where it lies in the module cache.
    pub(super) root: Option<PathBuf>,
    /// Whether it may not put a newer one in its own place, whatever a go.mod demands.
    pub(super) fixed: bool,
    pub(super) others: ToolchainSwitching,
    /// Whether it was downloaded just now, and nothing vouches for it.
    pub(super) trusted: bool,
    pub(super) children: CommandRunner,
    pub(super) settings: GoSettings,
}

/// What a go command may do to go.mod, and so what `GOFLAGS` says: it replaces the user's own, which would make the same
/// Lock build different bytes.
#[derive(Clone, Copy)]
pub(crate) enum ModuleMode {
    /// Complete go.mod and go.sum (`-mod=mod`).
    Complete,
    /// Leave them alone (`-mod=readonly`).
    ReadOnly,
}

impl Toolchain {
    pub(crate) fn settings(&self) -> &GoSettings {
        &self.settings
    }

    /// Whether it was downloaded just now, and nothing vouches for it: its sum belongs into the lock.
    pub(crate) fn is_trusted(&self) -> bool {
        self.trusted
    }

    /// The same toolchain, whose commands see these variables too.
    pub(crate) fn with_environment(&self, variables: &[(&'static str, String)]) -> Self {
        let mut inherited = (*self.children.inherited).clone();
        inherited.extend(variables.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        let children = CommandRunner { inherited: Arc::new(inherited), ..self.children.clone() };
        Self { children, ..self.clone() }
    }

    /// The same toolchain, whose commands end when `enough` is cancelled, or the build is.
    pub(crate) fn until(&self, enough: &CancellationToken) -> Self {
        let cancel = enough.clone();
        let whole = self.children.cancel.clone();
        let forward = cancel.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = whole.cancelled() => forward.cancel(),
                () = forward.cancelled() => {}
            }
        });
        let children = CommandRunner { cancel, ..self.children.clone() };
        Self { children, ..self.clone() }
    }

    /// Runs `go ARGUMENTS` in `directory`.
    ///
    /// Everything that the user's settings could change about the binary is set here: a Lock and a target have to be
    /// enough to make the same bytes (GOENV stays, since GOPRIVATE and GOPROXY live there).
    pub(crate) async fn run(
        &self,
        mode: ModuleMode,
        target: Option<&GoTarget>,
        arguments: &[&str],
        directory: &Path,
        cgo: bool,
        on_line: Option<&(dyn Fn(&str) + Sync)>,
    ) -> Result<CommandOutput, Error> {
        let target = target.cloned().unwrap_or_else(GoTarget::host);
        let flags = match (mode, self.settings.writable_modules()) {
            (ModuleMode::Complete, false) => "-mod=mod",
            (ModuleMode::ReadOnly, false) => "-mod=readonly",
            (ModuleMode::Complete, true) => "-mod=mod -modcacherw",
            (ModuleMode::ReadOnly, true) => "-mod=readonly -modcacherw",
        };
        let switching = match (self.fixed, self.others) {
            (true, _) | (false, ToolchainSwitching::None) => "local",
            (false, ToolchainSwitching::Path) => "path",
            (false, ToolchainSwitching::Any) => "auto",
        };
        let environment = [
            ("GOTOOLCHAIN", switching),
            ("GOFLAGS", flags),
            ("GOWORK", "off"),
            ("GO111MODULE", "on"),
            ("GOOS", &target.os),
            ("GOARCH", &target.arch),
            ("CGO_ENABLED", if cgo { "1" } else { "0" }),
            // Empty is Go's default for its version; `none` would switch off what every release is built with.
            ("GOEXPERIMENT", ""),
            // `1` would link by a C compiler.
            ("GO_EXTLINK_ENABLED", ""),
            ("GOFIPS140", "off"),
            ("GO386", "sse2"),
            ("GOAMD64", "v1"),
            ("GOARM", "7"),
            ("GOARM64", "v8.0"),
            ("GOMIPS", "hardfloat"),
            ("GOMIPS64", "hardfloat"),
            ("GOPPC64", "power8"),
            ("GORISCV64", "rva20u64"),
            ("GIT_TERMINAL_PROMPT", "0"),
            ("LC_ALL", "C"),
        ];
        self.children
            .run(Invocation {
                name: "go",
                program: &self.program,
                arguments: arguments.iter().map(Into::into).collect(),
                directory,
                environment: environment
                    .into_iter()
                    .map(|(name, value)| (name, value.to_owned()))
                    // As the go command does when it runs another one: GOROOT would lead it to the first one's files.
                    .chain(self.root.iter().map(|root| ("GOROOT", root.to_string_lossy().into_owned())))
                    .chain(
                        self.settings.goenv.iter().map(|file| ("GOENV", file.to_string_lossy().into_owned())),
                    )
                    .collect(),
                on_line,
            })
            .await
    }

    /// The Go version that compiles in `directory`: its go.mod may demand a newer one, which the go command then fetches.
    pub(crate) async fn version_in(&self, directory: &Path) -> Result<String, Error> {
        let finished =
            self.run(ModuleMode::ReadOnly, None, &["env", "GOVERSION"], directory, false, None).await?;
        if !finished.status.success() {
            return Err(Error::build("`go env GOVERSION` failed").output(finished.stderr));
        }
        let version = goversion::name(&finished.stdout);
        if !version.starts_with("go1") {
            return Err(Error::build(format!("`{version}` is no release of Go, and no lock can name it"))
                .help("use a released Go, or let vx download one: GOTOOLCHAIN=auto"));
        }
        Ok(version.to_owned())
    }
}
