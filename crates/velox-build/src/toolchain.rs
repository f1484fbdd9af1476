use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::Deserialize;
use tokio_util::sync::CancellationToken;
use velox_manifest::GoTarget;

use crate::{
    Error,
    process::{Children, Finished, Invocation},
};

/// The go command on this machine, with what `go env` says of it.
pub(crate) struct Toolchain {
    program: PathBuf,
    children: Children,
    settings: Settings,
    /// The version that GOTOOLCHAIN asks for, where it isn't the program's own.
    pinned: Option<String>,
}

/// The part of `go env -json` that a build needs (<https://pkg.go.dev/cmd/go#hdr-Environment_variables>).
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) struct Settings {
    pub(crate) goversion: String,
    pub(crate) gomodcache: PathBuf,
    pub(crate) gocache: PathBuf,
    #[serde(default)]
    pub(crate) gocacheprog: String,
    pub(crate) goproxy: String,
    pub(crate) gosumdb: String,
    pub(crate) gonosumdb: String,
    pub(crate) gopath: PathBuf,
    #[serde(default)]
    pub(crate) goauth: String,
    pub(crate) goflags: String,
    pub(crate) goprivate: String,
    pub(crate) gonoproxy: String,
    pub(crate) gotoolchain: String,
}

/// What a go command may do to go.mod, and so what `GOFLAGS` says: it replaces the user's own, which would make the same
/// Lock build different bytes.
#[derive(Clone, Copy)]
pub(crate) enum Mode {
    /// Complete go.mod and go.sum (`-mod=mod`).
    Complete,
    /// Leave them alone (`-mod=readonly`).
    ReadOnly,
}

impl Toolchain {
    /// Finds `go` on the PATH and asks it for its settings.
    pub(crate) async fn find(
        children: Children,
        given: Option<&Path>,
        directory: &Path,
    ) -> Result<Self, Error> {
        let program = given.map(Path::to_owned).or_else(|| children.find("go")).ok_or_else(|| {
            Error::build("no go command on the PATH").help(
                "RoadRunner is compiled by Go: install it from https://go.dev/dl/ and put its bin directory on the PATH",
            )
        })?;
        let names = [
            "GOVERSION",
            "GOMODCACHE",
            "GOCACHE",
            "GOPRIVATE",
            "GONOPROXY",
            "GOTOOLCHAIN",
            "GOCACHEPROG",
            "GOPROXY",
            "GOSUMDB",
            "GONOSUMDB",
            "GOPATH",
            "GOAUTH",
            "GOFLAGS",
        ];
        let finished = children
            .run(Invocation {
                name: "go",
                program: &program,
                arguments: ["env", "-json"].iter().chain(&names).map(Into::into).collect(),
                directory,
                environment: vec![("GOWORK", "off".into())],
                on_line: None,
            })
            .await?;
        if !finished.status.success() {
            return Err(Error::build(format!("`go env` failed ({})", program.display()))
                .help("check the installation of Go: `go env` has to work by itself")
                .output(finished.stderr));
        }
        let settings = serde_json::from_str(&finished.stdout)
            .map_err(|error| Error::build(format!("can't read what `go env -json` says: {error}")))?;
        Ok(Self { program, children, settings, pinned: None })
    }

    pub(crate) fn program(&self) -> &Path {
        &self.program
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Compiles by this version from here on, which the go command fetches where it is another one.
    ///
    /// # Errors
    /// GOTOOLCHAIN forbids that.
    pub(crate) fn pin(&mut self, version: &str) -> Result<(), Error> {
        let Settings { goversion: installed, gotoolchain, .. } = &self.settings;
        if installed == version {
            return Ok(());
        }
        if matches!(gotoolchain.as_str(), "local" | "path") {
            return Err(Error::build(format!(
                "the lock wants {version}, this is {installed}, and GOTOOLCHAIN={gotoolchain} allows no other"
            ))
            .help(format!(
                "install {version}, allow it with GOTOOLCHAIN=auto, or lock again with `vx lock --upgrade`"
            )));
        }
        self.pinned = Some(version.to_owned());
        Ok(())
    }

    /// Whether the user wants modules that can be written.
    pub(crate) fn writable_modules(&self) -> bool {
        self.settings
            .goflags
            .split_ascii_whitespace()
            .any(|flag| flag.trim_start_matches('-') == "modcacherw")
    }

    /// The same toolchain with other children: once the secrets are known that these need.
    pub(crate) fn with_children(mut self, children: Children) -> Self {
        self.children = children;
        self
    }

    /// The same toolchain, whose commands see these variables too.
    pub(crate) fn with_environment(&self, variables: &[(&'static str, String)]) -> Self {
        let mut inherited = (*self.children.inherited).clone();
        inherited.extend(variables.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        let children = Children { inherited: Arc::new(inherited), ..self.children.clone() };
        Self {
            program: self.program.clone(),
            children,
            settings: self.settings.clone(),
            pinned: self.pinned.clone(),
        }
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
        let children = Children { cancel, ..self.children.clone() };
        Self {
            program: self.program.clone(),
            children,
            settings: self.settings.clone(),
            pinned: self.pinned.clone(),
        }
    }

    /// Whether the path is one that GOPRIVATE or GONOPROXY keeps from the module proxies.
    pub(crate) fn is_private(&self, module: &str) -> bool {
        velox_gomod::module::match_prefix_patterns(&self.settings.gonoproxy, module)
    }

    /// Runs `go ARGUMENTS` in `directory`.
    ///
    /// Everything that the user's settings could change about the binary is set here: a Lock and a target have to be
    /// enough to make the same bytes (GOENV stays, since GOPRIVATE and GOPROXY live there).
    pub(crate) async fn run(
        &self,
        mode: Mode,
        target: Option<&GoTarget>,
        arguments: &[&str],
        directory: &Path,
        cgo: bool,
        on_line: Option<&(dyn Fn(&str) + Sync)>,
    ) -> Result<Finished, Error> {
        let target = target.cloned().unwrap_or_else(GoTarget::host);
        let flags = match (mode, self.writable_modules()) {
            (Mode::Complete, false) => "-mod=mod",
            (Mode::ReadOnly, false) => "-mod=readonly",
            (Mode::Complete, true) => "-mod=mod -modcacherw",
            (Mode::ReadOnly, true) => "-mod=readonly -modcacherw",
        };
        let environment = [
            ("GOFLAGS", flags),
            ("GOWORK", "off"),
            ("GO111MODULE", "on"),
            ("GOOS", &target.os),
            ("GOARCH", &target.arch),
            ("CGO_ENABLED", if cgo { "1" } else { "0" }),
            // Empty is Go's default for its version; `none` would switch off what every release is built with.
            ("GOEXPERIMENT", ""),
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
                    .chain(self.pinned.iter().map(|version| ("GOTOOLCHAIN", version.as_str())))
                    .map(|(name, value)| (name, value.to_owned()))
                    .collect(),
                on_line,
            })
            .await
    }

    /// The Go version that compiles in `directory`: its go.mod may demand a newer one, which the go command then fetches.
    pub(crate) async fn version_in(&self, directory: &Path) -> Result<String, Error> {
        let finished = self.run(Mode::ReadOnly, None, &["env", "GOVERSION"], directory, false, None).await?;
        if !finished.status.success() {
            return Err(Error::build("`go env GOVERSION` failed").output(finished.stderr));
        }
        Ok(finished.stdout.trim().to_owned())
    }

    /// Says what to do where this Go is too old and may not fetch another one.
    pub(crate) fn check_version(&self, needed: Option<&str>, module: &str) -> Result<(), Error> {
        let installed = &self.settings.goversion;
        let may_fetch = !matches!(self.settings.gotoolchain.as_str(), "local" | "path");
        match needed {
            Some(needed) if !may_fetch && is_older(installed, needed) => {
                Err(Error::build(format!("{module} needs Go {needed} or newer; this is {installed}"))
                    .help("install a newer Go from https://go.dev/dl/")
                    .help("or let the go command fetch it: go env -w GOTOOLCHAIN=auto"))
            }
            _ => Ok(()),
        }
    }
}

/// Compares Go versions (`go1.26.8`, `1.26.4`, `go1.27rc1`; <https://go.dev/doc/toolchain#version>). What isn't a release
/// (`devel …`) is never older.
pub(crate) fn is_older(installed: &str, needed: &str) -> bool {
    let parts = |version: &str| -> Option<(u32, u32, u32)> {
        let version = version.trim_start_matches("go");
        let mut numbers = version.split(|c: char| !c.is_ascii_digit()).map(str::parse);
        let (major, minor) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
        // A release candidate comes before the release, whose patch number is 0.
        let patch = if version.contains(['r', 'b']) {
            0
        } else {
            numbers.next().and_then(Result::ok).unwrap_or(0) + 1
        };
        Some((major, minor, patch))
    };
    matches!((parts(installed), parts(needed)), (Some(installed), Some(needed)) if installed < needed)
}

#[cfg(test)]
mod tests {
    use super::is_older;

    #[test]
    fn go_versions_are_compared_as_go_does() {
        for (installed, needed) in
            [("go1.22", "1.22.1"), ("go1.22.9", "1.26.4"), ("go1.9.7", "1.10"), ("go1.27rc1", "1.27.0")]
        {
            assert!(is_older(installed, needed), "{installed} {needed}");
        }
        for (installed, needed) in
            [("go1.26.8", "1.26.4"), ("go1.26.4", "1.26.4"), ("go1.22.0", "1.22"), ("devel +abc", "1.26")]
        {
            assert!(!is_older(installed, needed), "{installed} {needed}");
        }
    }
}
