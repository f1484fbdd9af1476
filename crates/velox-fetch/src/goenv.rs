//! `go env` settings without the go command (<https://pkg.go.dev/cmd/go#hdr-Environment_variables>).

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// The settings of `go env`: the environment, then the `go env -w` file, then the defaults.
#[derive(Debug, Clone)]
pub struct GoEnv {
    environment: BTreeMap<String, String>,
    /// Variables from the GOENV file and from GOROOT's `go.env`; the GOENV file takes precedence.
    files: BTreeMap<String, String>,
}

impl GoEnv {
    /// Reads the settings; `goroot` is an installed Go whose `go.env` provides defaults. Unreadable files are
    /// ignored, as in the go command.
    pub fn read(environment: &BTreeMap<String, String>, goroot: Option<&Path>) -> Self {
        let mut files = BTreeMap::new();
        if let Some(goroot) = goroot {
            files.extend(assignments(&goroot.join("go.env")));
        }
        let mut read = Self { environment: environment.clone(), files };
        if let Some(file) = read.file() {
            read.files.extend(assignments(&file));
        }
        read
    }

    /// The file that `go env -w` writes; `None` without a home directory or with GOENV=off.
    pub fn file(&self) -> Option<PathBuf> {
        match self.variable("GOENV") {
            Some("off") => None,
            Some(file) => Some(PathBuf::from(file)),
            None => Some(self.user_directory(&CONFIGURATION)?.join("go").join("env")),
        }
    }

    /// A setting; `None` if it is unset or empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.variable(name)
            .or_else(|| self.files.get(name).map(String::as_str).filter(|value| !value.is_empty()))
    }

    /// A setting or its default. Directories have their own methods.
    pub fn value(&self, name: &str) -> String {
        let fallback = || match name {
            "GOPROXY" => "https://proxy.golang.org,direct".to_owned(),
            "GOSUMDB" => "sum.golang.org".to_owned(),
            "GOTOOLCHAIN" => "auto".to_owned(),
            "GOAUTH" => "netrc".to_owned(),
            "GONOPROXY" | "GONOSUMDB" => self.value("GOPRIVATE"),
            _ => String::new(),
        };
        self.get(name).map_or_else(fallback, str::to_owned)
    }

    /// GOPATH, a list of directories; `None` if unset and there is no home directory.
    pub fn gopath(&self) -> Option<PathBuf> {
        let home =
            || Some(Path::new(self.variable(if cfg!(windows) { "USERPROFILE" } else { "HOME" })?).join("go"));
        self.get("GOPATH").map(PathBuf::from).or_else(home)
    }

    /// The module cache directory.
    pub fn gomodcache(&self) -> Option<PathBuf> {
        let in_gopath = || {
            let first =
                std::env::split_paths(&self.gopath()?).next().filter(|path| !path.as_os_str().is_empty())?;
            Some(first.join("pkg").join("mod"))
        };
        self.get("GOMODCACHE").map(PathBuf::from).or_else(in_gopath)
    }

    /// The build cache directory.
    pub fn gocache(&self) -> Option<PathBuf> {
        let in_home = || Some(self.user_directory(&CACHE)?.join("go-build"));
        self.get("GOCACHE").map(PathBuf::from).or_else(in_home)
    }

    fn variable(&self, name: &str) -> Option<&str> {
        self.environment.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Go's `os.UserConfigDir` and `os.UserCacheDir`.
    fn user_directory(&self, kind: &UserDirectory) -> Option<PathBuf> {
        if cfg!(windows) {
            return self.variable(kind.windows).map(PathBuf::from);
        }
        let home = || self.variable("HOME").map(Path::new);
        if cfg!(target_os = "macos") {
            return Some(home()?.join(kind.macos));
        }
        match self.variable(kind.xdg) {
            Some(directory) => Some(PathBuf::from(directory)).filter(|directory| directory.is_absolute()),
            None => Some(home()?.join(kind.unix)),
        }
    }
}

struct UserDirectory {
    windows: &'static str,
    macos: &'static str,
    xdg: &'static str,
    unix: &'static str,
}

const CONFIGURATION: UserDirectory = UserDirectory {
    windows: "APPDATA",
    macos: "Library/Application Support",
    xdg: "XDG_CONFIG_HOME",
    unix: ".config",
};

const CACHE: UserDirectory =
    UserDirectory { windows: "LOCALAPPDATA", macos: "Library/Caches", xdg: "XDG_CACHE_HOME", unix: ".cache" };

/// The `NAME=value` lines of a file; other lines are ignored.
fn assignments(file: &Path) -> Vec<(String, String)> {
    let text = fs::read(file).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    text.split('\n')
        .filter(|line| line.starts_with(|c: char| c.is_ascii_uppercase()))
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}
