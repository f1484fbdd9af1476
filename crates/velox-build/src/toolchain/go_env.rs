//! The settings of the go command.

use std::{
    collections::BTreeMap,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use velox_fetch::goenv::GoEnv;
use velox_gomod::{goversion, module::match_prefix_patterns};

use crate::{
    error::Error,
    go_variables,
    process::{CommandRunner, Invocation},
};

/// The used part of `go env -json` (<https://pkg.go.dev/cmd/go#hdr-Environment_variables>).
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) struct GoSettings {
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
    /// The user's setting; child processes may get another one.
    #[serde(skip)]
    pub(crate) gotoolchain: String,
    /// A copy of the user's `go env -w` file without the settings that change the bytes.
    #[serde(skip)]
    pub(super) goenv: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(rename_all = "UPPERCASE")]
struct GoEnvOutput {
    goversion: String,
    goroot: PathBuf,
    #[serde(flatten)]
    settings: GoSettings,
}

impl GoSettings {
    /// Reads the settings and the version of this go command, without switching toolchains.
    pub(super) async fn of(
        program: &Path,
        children: &CommandRunner,
        directory: &Path,
    ) -> Result<(Self, String), Error> {
        let names = [
            "GOVERSION",
            "GOROOT",
            "GOMODCACHE",
            "GOCACHE",
            "GOPRIVATE",
            "GONOPROXY",
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
                program,
                arguments: ["env", "-json"].iter().chain(&names).map(Into::into).collect(),
                directory,
                environment: vec![("GOWORK", "off".into()), ("GOTOOLCHAIN", "local".into())],
                max_silence: None,
                on_line: None,
            })
            .await?;
        if !finished.status.success() {
            return Err(Error::build(format!("`go env` failed ({})", program.display()))
                .help("check the Go installation: `go env` must work")
                .output(finished.stderr));
        }
        let GoEnvOutput { goversion, goroot, mut settings } = serde_json::from_str(&finished.stdout)
            .map_err(|error| {
                Error::build(format!("failed to parse the output of `go env -json`: {error}"))
            })?;
        settings.check_paths()?;
        let env = GoEnv::read(&children.inherited, Some(&goroot));
        settings.gotoolchain = env.value("GOTOOLCHAIN");
        settings.goenv = without_experiments(&env, directory)?;
        Ok((settings, goversion::toolchain_name(&goversion).to_owned()))
    }

    /// The settings without a go command, read as it would read them.
    pub(super) fn without_go(
        environment: &BTreeMap<String, String>,
        directory: &Path,
    ) -> Result<Self, Error> {
        let env = GoEnv::read(environment, None);
        let settings = Self {
            gomodcache: env.gomodcache().unwrap_or_default(),
            gocache: env.gocache().unwrap_or_default(),
            gopath: env.gopath().unwrap_or_default(),
            gocacheprog: env.value("GOCACHEPROG"),
            goproxy: env.value("GOPROXY"),
            gosumdb: env.value("GOSUMDB"),
            gonosumdb: env.value("GONOSUMDB"),
            goauth: env.value("GOAUTH"),
            goflags: env.value("GOFLAGS"),
            goprivate: env.value("GOPRIVATE"),
            gonoproxy: env.value("GONOPROXY"),
            gotoolchain: env.value("GOTOOLCHAIN"),
            goenv: without_experiments(&env, directory)?,
        };
        settings.check_paths()?;
        Ok(settings)
    }

    /// Without a home directory, Go fails late with an unclear message.
    fn check_paths(&self) -> Result<(), Error> {
        let paths = [("GOMODCACHE", &self.gomodcache), ("GOCACHE", &self.gocache), ("GOPATH", &self.gopath)];
        let missing: Vec<&str> =
            paths.iter().filter(|(_, path)| !path.is_absolute()).map(|(name, _)| *name).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let names = missing.join(", ");
        let message = format!("no home directory, and no absolute path in: {names}");
        let help = format!("set HOME to a writable directory, or set {names}");
        Err(Error::build(message).help(help))
    }

    /// Whether the user wants a writable module cache.
    pub(crate) fn writable_modules(&self) -> bool {
        go_variables::has_writable_modules(&self.goflags)
    }

    /// Whether GOPRIVATE or GONOPROXY match the module path.
    pub(crate) fn is_private(&self, module: &str) -> bool {
        match_prefix_patterns(&self.gonoproxy, module)
    }
}

/// An empty GOEXPERIMENT does not override the one of `go env -w`: a copy of that file without it does.
fn without_experiments(env: &GoEnv, directory: &Path) -> Result<Option<PathBuf>, Error> {
    let Some(text) = env.file().and_then(|file| fs::read_to_string(file).ok()) else { return Ok(None) };
    let is_experiment = |line: &&str| line.starts_with("GOEXPERIMENT=");
    if !text.lines().any(|line| is_experiment(&line)) {
        return Ok(None);
    }
    let kept: String =
        text.lines().filter(|line| !is_experiment(line)).map(|line| format!("{line}\n")).collect();
    // A temporary file is only readable by its owner: GOPROXY may contain a password.
    let path = directory.join("go.env");
    let write = || {
        let mut file = tempfile::NamedTempFile::new_in(directory)?;
        file.write_all(kept.as_bytes())?;
        file.persist(&path).map_err(|error| error.error)
    };
    write().map_err(|error| Error::file("write", &path, &error))?;
    Ok(Some(path))
}
