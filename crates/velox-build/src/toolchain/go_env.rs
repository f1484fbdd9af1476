//! The settings of the go command that a build follows.

use std::{
    collections::BTreeMap,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use velox_gomod::{goenv::GoEnv, goversion, module::match_prefix_patterns};

use crate::{
    error::Error,
    process::{CommandRunner, Invocation},
};

/// The part of `go env -json` that a build needs (<https://pkg.go.dev/cmd/go#hdr-Environment_variables>).
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
    /// What the user chose, whatever a go command was told meanwhile.
    #[serde(skip)]
    pub(crate) gotoolchain: String,
    /// The user's `go env -w` settings without those that would change the bytes and that no variable hides.
    #[serde(skip)]
    pub(super) goenv: Option<PathBuf>,
}

/// A go command's own words: its version, and what it takes from its directory.
#[derive(Deserialize)]
#[serde(rename_all = "UPPERCASE")]
struct GoEnvOutput {
    goversion: String,
    goroot: PathBuf,
    #[serde(flatten)]
    settings: GoSettings,
}

impl GoSettings {
    /// What a go command says, and its own version. Itself: not what GOTOOLCHAIN would put in its place.
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
                on_line: None,
            })
            .await?;
        if !finished.status.success() {
            return Err(Error::build(format!("`go env` failed ({})", program.display()))
                .help("check the installation of Go: `go env` has to work by itself")
                .output(finished.stderr));
        }
        let GoEnvOutput { goversion, goroot, mut settings } = serde_json::from_str(&finished.stdout)
            .map_err(|error| Error::build(format!("can't read what `go env -json` says: {error}")))?;
        settings.check_places()?;
        let env = GoEnv::read(&children.inherited, Some(&goroot));
        settings.gotoolchain = env.value("GOTOOLCHAIN");
        settings.goenv = without_experiments(&env, directory)?;
        Ok((settings, goversion::name(&goversion).to_owned()))
    }

    /// What a go command would say, if there were one.
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
        settings.check_places()?;
        Ok(settings)
    }

    /// Without a home directory, Go has no places of its own; it says so late, in few words.
    fn check_places(&self) -> Result<(), Error> {
        let places = [("GOMODCACHE", &self.gomodcache), ("GOCACHE", &self.gocache), ("GOPATH", &self.gopath)];
        let missing: Vec<&str> =
            places.iter().filter(|(_, path)| !path.is_absolute()).map(|(name, _)| *name).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let names = missing.join(", ");
        let message = format!("no home directory is known, and no absolute path is set for: {names}");
        let help = format!("set HOME to a directory that can be written, or set {names}");
        Err(Error::build(message).help(help))
    }

    /// Whether the user wants modules that can be written.
    pub(crate) fn writable_modules(&self) -> bool {
        self.goflags.split_ascii_whitespace().any(|flag| flag.trim_start_matches('-') == "modcacherw")
    }

    /// Whether the path is one that GOPRIVATE or GONOPROXY keeps from the module proxies.
    pub(crate) fn is_private(&self, module: &str) -> bool {
        match_prefix_patterns(&self.gonoproxy, module)
    }
}

/// An empty GOEXPERIMENT doesn't hide the one of `go env -w`: a copy of that file without it does.
fn without_experiments(env: &GoEnv, directory: &Path) -> Result<Option<PathBuf>, Error> {
    let Some(text) = env.file().and_then(|file| fs::read_to_string(file).ok()) else { return Ok(None) };
    let is_experiment = |line: &&str| line.starts_with("GOEXPERIMENT=");
    if !text.lines().any(|line| is_experiment(&line)) {
        return Ok(None);
    }
    let kept: String =
        text.lines().filter(|line| !is_experiment(line)).map(|line| format!("{line}\n")).collect();
    // GOPROXY in it may have a password: a temporary file is its owner's alone.
    let path = directory.join("go.env");
    let write = || {
        let mut file = tempfile::NamedTempFile::new_in(directory)?;
        file.write_all(kept.as_bytes())?;
        file.persist(&path).map_err(|error| error.error)
    };
    write().map_err(|error| Error::file("write", &path, &error))?;
    Ok(Some(path))
}
