//! Real builds: `vx`, `go` and `git` with caches of the tests' own, and the module tree that VX_TEST_GOPROXY names.

// Each story file uses the part that it needs.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::{Mutex, MutexGuard, Once, OnceLock, PoisonError},
};

use tempfile::TempDir;

/// A user's machine: a home, a working directory, an environment; the caches are shared by all tests.
pub struct Sandbox {
    directory: TempDir,
    environment: Vec<(String, String)>,
    by_another_user: bool,
}

/// The module tree for tests of the real RoadRunner; without one the test is skipped, and says so.
pub fn module_tree(test: &str) -> Option<PathBuf> {
    let tree =
        std::env::var_os("VX_TEST_GOPROXY").map(PathBuf::from).filter(|tree| !tree.as_os_str().is_empty());
    if tree.is_none() {
        println!("skipped: {test} needs VX_TEST_GOPROXY, the path of a prepared module tree");
    }
    tree.map(|tree| {
        tree.canonicalize().unwrap_or_else(|error| panic!("VX_TEST_GOPROXY={}: {error}", tree.display()))
    })
}

/// Skips for want of a program; where the tests are meant to be complete, that is a failure.
pub fn skip(test: &str, why: &str) {
    assert!(
        std::env::var_os("CI").is_none() || std::env::var_os("VX_TEST_GOPROXY").is_none(),
        "{test} can't be skipped here: {why}"
    );
    println!("skipped: {test}: {why}");
}

/// Held by tests that compile a large server: two at once would only take turns at the cores.
pub fn alone() -> MutexGuard<'static, ()> {
    static HEAVY: Mutex<()> = Mutex::new(());
    HEAVY.lock().unwrap_or_else(PoisonError::into_inner)
}

fn go_env(name: &str) -> String {
    let output = Command::new("go").args(["env", name]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

impl Sandbox {
    pub fn new() -> Self {
        static PROXY: OnceLock<String> = OnceLock::new();
        let proxy = PROXY.get_or_init(|| {
            let tree = std::env::var("VX_TEST_GOPROXY").ok().filter(|tree| !tree.is_empty());
            let tree = tree.and_then(|tree| fs::canonicalize(tree).ok());
            tree.map(|tree| format!("file://{},", tree.display())).unwrap_or_default() + &go_env("GOPROXY")
        });
        let directory = tempfile::tempdir().unwrap();
        let shared = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let path = |path: PathBuf| path.to_string_lossy().into_owned();
        let mut environment = vec![
            ("PATH".to_owned(), std::env::var("PATH").unwrap()),
            ("HOME".to_owned(), path(directory.path().join("home"))),
            ("VX_CACHE_DIR".to_owned(), path(directory.path().join("cache"))),
            ("GOMODCACHE".to_owned(), path(shared.join("gomodcache"))),
            ("GOCACHE".to_owned(), path(shared.join("gocache"))),
            ("GOPROXY".to_owned(), proxy.clone()),
            ("GONOSUMDB".to_owned(), "*".to_owned()),
            ("GIT_CONFIG_NOSYSTEM".to_owned(), "1".to_owned()),
        ];
        // Where HTTPS goes through a company's own authority, the tests follow it.
        environment
            .extend(std::env::var("SSL_CERT_FILE").ok().map(|file| ("SSL_CERT_FILE".to_owned(), file)));
        fs::create_dir(directory.path().join("home")).unwrap();
        fs::create_dir(directory.path().join("work")).unwrap();
        Self { directory, environment, by_another_user: false }
    }

    /// Sets a variable for all commands from here on.
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.environment.retain(|(known, _)| known != name);
        self.environment.push((name.to_owned(), value.as_ref().to_string_lossy().into_owned()));
        self
    }

    /// What a variable is set to.
    pub fn value(&self, name: &str) -> String {
        self.environment.iter().find(|(known, _)| known == name).unwrap().1.clone()
    }

    /// Leaves a variable unset.
    pub fn without(mut self, name: &str) -> Self {
        self.environment.retain(|(known, _)| known != name);
        self
    }

    pub fn envs(self, variables: impl IntoIterator<Item = (String, String)>) -> Self {
        variables.into_iter().fold(self, |sandbox, (name, value)| sandbox.env(&name, value))
    }

    /// Caches that nobody used before.
    pub fn cold(self) -> Self {
        self.own_caches().env("GOFLAGS", "-modcacherw")
    }

    /// Empty caches, for what looks into them and builds nothing.
    pub fn own_caches(self) -> Self {
        let (modules, builds) =
            (self.directory.path().join("gomodcache"), self.directory.path().join("gocache"));
        self.env("GOMODCACHE", modules).env("GOCACHE", builds)
    }

    /// A module cache that nobody used before, for modules that only this test has; what is compiled is shared, and so is
    /// what the other tests downloaded.
    pub fn own_module_cache(self) -> Self {
        static FILLED: Once = Once::new();
        FILLED.call_once(|| {
            for (name, content) in velox_testkit::roadrunner("v2025").files() {
                fs::create_dir_all(self.path().join("tree").join(&name).parent().unwrap()).unwrap();
                fs::write(self.path().join("tree").join(&name), content).unwrap();
            }
            self.run("go", &["-C", "tree", "list", "-deps", "./..."]);
            fs::remove_dir_all(self.path().join("tree")).unwrap();
        });
        let shared = Path::new(env!("CARGO_TARGET_TMPDIR")).join("gomodcache/cache/download");
        let proxy = self.environment.iter().find(|(name, _)| name == "GOPROXY").unwrap().1.clone();
        let modules = self.directory.path().join("gomodcache");
        self.env("GOMODCACHE", modules).env("GOPROXY", format!("file://{},{proxy}", shared.display()))
    }

    /// Asks this proxy before the others.
    pub fn proxy(self, url: &str) -> Self {
        let known = self.environment.iter().find(|(name, _)| name == "GOPROXY").unwrap().1.clone();
        self.env("GOPROXY", format!("{url},{known}"))
    }

    /// Hands all of it to a user who owns nothing else, by whom every command runs from here on; where this user may not do
    /// that, it says so and leaves all as it is.
    pub fn by_another_user(mut self, test: &str) -> Self {
        const NOBODY: u32 = 65_534;
        let owned = Command::new("chown")
            .args(["-R", &format!("{NOBODY}:{NOBODY}")])
            .arg(self.directory.path())
            .output()
            .is_ok_and(|output| output.status.success());
        self.by_another_user = true;
        let runs = owned
            && self
                .command(env!("CARGO_BIN_EXE_vx"), &["version"])
                .output()
                .is_ok_and(|output| output.status.success());
        if !runs {
            println!("{test} runs by this user: it may not give files to another one");
            self.by_another_user = false;
        }
        self
    }

    /// Writes a file below the working directory.
    pub fn file(self, name: &str, text: impl AsRef<[u8]>) -> Self {
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    /// The working directory.
    pub fn path(&self) -> PathBuf {
        self.directory.path().join("work")
    }

    pub fn home(&self) -> PathBuf {
        self.directory.path().join("home")
    }

    /// Any program, as this user would run it.
    pub fn command(&self, program: impl AsRef<OsStr>, arguments: &[&str]) -> Command {
        let mut command = if self.by_another_user {
            let mut setpriv = Command::new("setpriv");
            setpriv.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(program);
            setpriv
        } else {
            Command::new(program)
        };
        command
            .args(arguments)
            .current_dir(self.path())
            .env_clear()
            .envs(self.environment.iter().cloned())
            .stdin(Stdio::null());
        command
    }

    pub fn vx(&self, arguments: &[&str]) -> Ran {
        Ran(self.command(env!("CARGO_BIN_EXE_vx"), arguments).output().unwrap())
    }

    /// Runs a program that has to succeed; its standard output.
    pub fn run(&self, program: impl AsRef<OsStr>, arguments: &[&str]) -> String {
        Ran(self.command(program, arguments).output().unwrap()).ok()
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        // The module cache is read-only, which a plain removal stumbles over.
        let own = self.directory.path().join("gomodcache");
        if own.exists() {
            let _ = Command::new("chmod").args(["-R", "u+w"]).arg(own).status();
        }
    }
}

/// What a command left.
pub struct Ran(pub Output);

impl Ran {
    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.0.stdout).into_owned()
    }

    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.0.stderr).into_owned()
    }

    pub fn code(&self) -> Option<i32> {
        self.0.status.code()
    }

    /// Its standard output, once it succeeded.
    pub fn ok(&self) -> String {
        assert!(self.0.status.success(), "{}\n{}{}", self.0.status, self.stdout(), self.stderr());
        self.stdout()
    }

    /// Its standard error, once it failed with this code.
    pub fn fails(&self, code: i32) -> String {
        assert_eq!(self.code(), Some(code), "{}{}", self.stdout(), self.stderr());
        self.stderr()
    }
}
