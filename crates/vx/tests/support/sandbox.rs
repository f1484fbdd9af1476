//! A user's machine: home, working directory, environment, and command lines.

// Each test binary uses only a part.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::{Mutex, MutexGuard, Once, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;
use velox_gomod::buildinfo::BuildInfo;
use velox_testkit::{Files, ModuleProxy};

/// Timeout for any wait of a test, even on a busy machine.
pub const HANG_TIMEOUT: Duration = Duration::from_secs(600);

/// The vx under test.
pub const VX: &str = env!("CARGO_BIN_EXE_vx");

/// A RoadRunner release that exists only in the tests' proxies.
pub const RELEASE: &str = "v2025.0.77";

/// A module proxy with a RoadRunner that compiles in a second, and with `example.com/acme/hello` and
/// `example.com/acme/bye` at v1.0.0 and v1.1.0; the branch main of bye is at v1.0.0.
///
/// That RoadRunner only prints its version. Tests that start a server add the one that serves:
/// `proxy.roadrunner(RELEASE)`.
pub fn acme_proxy() -> ModuleProxy {
    let proxy = ModuleProxy::start();
    proxy.release(RELEASE, "", "v5.0.77");
    for name in ["hello", "bye"] {
        let module = format!("example.com/acme/{name}");
        for version in ["v1.0.0", "v1.1.0"] {
            let plugin = velox_testkit::plugin(&module, name).says(&format!("{name} {version}"));
            proxy.module(&module, version, plugin.files());
        }
    }
    proxy.query("example.com/acme/bye", "main", "v1.0.0");
    proxy
}

/// A velox.toml with plugins of [`acme_proxy`], such as `hello@v1.0.0 bye@main`, or of module paths.
pub fn configuration(plugins: &str) -> String {
    let table = |plugin: &str| {
        let (module, tag) = plugin.split_once('@').unwrap();
        let name = module.trim_start_matches("github.com/roadrunner-server/").split('/').next().unwrap();
        let module =
            if module.contains('/') { module.to_owned() } else { format!("example.com/acme/{name}") };
        format!("\n[plugins.{name}]\nmodule_name = \"{module}\"\ntag = \"{tag}\"\n")
    };
    let tables: String = plugins.split_whitespace().map(table).collect();
    format!("[roadrunner]\nref = \"{RELEASE}\"\n{tables}")
}

/// The module tree with the real RoadRunner; without one the test is skipped with a printed reason.
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

/// Prints why a test is skipped; fails it in CI, which must run all tests.
pub fn skip(test: &str, why: &str) {
    assert!(
        std::env::var_os("CI").is_none() || std::env::var_os("VX_TEST_GOPROXY").is_none(),
        "{test} can't be skipped here: {why}"
    );
    println!("skipped: {test}: {why}");
}

/// `short`, or `long` in the long form of the tests (`make soak`).
pub fn long(short: usize, long: usize) -> usize {
    if std::env::var_os("VX_TEST_LONG").is_some() { long } else { short }
}

/// Held by tests that use all cores: they run one after another.
pub fn exclusive() -> MutexGuard<'static, ()> {
    static HEAVY: Mutex<()> = Mutex::new(());
    HEAVY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits for another process; the timeout only ends a hung test.
#[track_caller]
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < HANG_TIMEOUT, "this never happened: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Asserts that a text contains all parts.
#[track_caller]
pub fn assert_contains(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "`{part}` is missing in:\n{text}");
    }
}

/// Finds a program on the PATH.
pub fn program(name: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

/// What a successful build with `--format json` says about its shared caches.
pub fn compile_cache_of(output: &CommandOutput) -> Value {
    output.ok();
    let last = output.events().pop().unwrap();
    assert_eq!(last["event"], "finished");
    last["compile_cache"].clone()
}

fn go_env(name: &str) -> String {
    let output = Command::new("go").args(["env", name]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn words(line: &str) -> Vec<String> {
    shlex::split(line).unwrap_or_else(|| panic!("not a command line: {line}"))
}

/// A home, a working directory and an environment; Go's caches are shared unless a test asks for its own.
pub struct Sandbox {
    directory: TempDir,
    environment: Vec<(String, String)>,
    by_another_user: bool,
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
        // The tests' caches belong to root, too.
        #[cfg(unix)]
        if rustix::process::geteuid().is_root() {
            environment.push(("VX_SERVER_JOB_USER".to_owned(), "root".to_owned()));
        }
        // Behind a TLS-inspecting proxy tests need its certificate authority.
        environment
            .extend(std::env::var("SSL_CERT_FILE").ok().map(|file| ("SSL_CERT_FILE".to_owned(), file)));
        fs::create_dir(directory.path().join("home")).unwrap();
        fs::create_dir(directory.path().join("work")).unwrap();
        Self { directory, environment, by_another_user: false }
    }

    /// A sandbox with this module proxy first, and its own module cache.
    pub fn behind(proxy: &ModuleProxy) -> Self {
        Self::new().own_module_cache().proxy(&proxy.url())
    }

    /// Sets an environment variable for later commands.
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.environment.retain(|(known, _)| known != name);
        self.environment.push((name.to_owned(), value.as_ref().to_string_lossy().into_owned()));
        self
    }

    pub fn value(&self, name: &str) -> String {
        self.environment.iter().find(|(known, _)| known == name).unwrap().1.clone()
    }

    /// Removes an environment variable.
    pub fn without(mut self, name: &str) -> Self {
        self.environment.retain(|(known, _)| known != name);
        self
    }

    pub fn envs(self, variables: impl IntoIterator<Item = (String, String)>) -> Self {
        variables.into_iter().fold(self, |sandbox, (name, value)| sandbox.env(&name, value))
    }

    /// Uses empty caches, for real builds.
    pub fn cold(self) -> Self {
        self.own_caches().env("GOFLAGS", "-modcacherw")
    }

    /// Uses empty caches, for tests that inspect them without building.
    pub fn own_caches(self) -> Self {
        let (modules, builds) =
            (self.directory.path().join("gomodcache"), self.directory.path().join("gocache"));
        self.env("GOMODCACHE", modules).env("GOCACHE", builds)
    }

    /// Uses a separate module cache, for modules of one test. The build cache stays shared, and public
    /// modules come from the shared module cache.
    pub fn own_module_cache(self) -> Self {
        static FILLED: Once = Once::new();
        FILLED.call_once(|| {
            let sandbox = Self::new().files("tree", velox_testkit::roadrunner("v2025").files());
            sandbox.run("go -C tree list -deps ./...");
        });
        let shared = Path::new(env!("CARGO_TARGET_TMPDIR")).join("gomodcache/cache/download");
        let proxy = self.value("GOPROXY");
        let modules = self.directory.path().join("gomodcache");
        self.env("GOMODCACHE", modules).env("GOPROXY", format!("file://{},{proxy}", shared.display()))
    }

    /// Puts this proxy before the others.
    pub fn proxy(self, url: &str) -> Self {
        let known = self.value("GOPROXY");
        self.env("GOPROXY", format!("{url},{known}"))
    }

    /// Runs later commands as a user who owns only this sandbox; without the permission for that, only prints
    /// so.
    pub fn by_another_user(mut self, test: &str) -> Self {
        const NOBODY: u32 = 65_534;
        let owned = Command::new("chown")
            .args(["-R", &format!("{NOBODY}:{NOBODY}")])
            .arg(self.directory.path())
            .output()
            .is_ok_and(|output| output.status.success());
        self.by_another_user = true;
        let runs = owned && self.command(VX, &["version"]).output().is_ok_and(|it| it.status.success());
        if !runs {
            println!("{test} runs as this user: it may not give files to another one");
            self.by_another_user = false;
        }
        self
    }

    /// Writes a file below the working directory.
    pub fn file(self, name: &str, text: impl AsRef<[u8]>) -> Self {
        let path = self.at(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    /// Writes files below a directory.
    pub fn files(self, directory: &str, files: Files) -> Self {
        files
            .into_iter()
            .fold(self, |sandbox, (name, text)| sandbox.file(&format!("{directory}/{name}"), text))
    }

    /// Writes an executable script to bin/ and puts that directory first on the PATH.
    #[cfg(unix)]
    pub fn script(self, name: &str, text: &str) -> Self {
        use std::os::unix::fs::PermissionsExt;
        let sandbox = self.file(&format!("bin/{name}"), text);
        let bin = sandbox.at("bin");
        fs::set_permissions(bin.join(name), fs::Permissions::from_mode(0o755)).unwrap();
        let (bin, path) = (bin.display().to_string(), sandbox.value("PATH"));
        if path.starts_with(&bin) { sandbox } else { sandbox.env("PATH", format!("{bin}:{path}")) }
    }

    /// Writes a velox.toml with these plugins ([`configuration`]).
    pub fn plugins(self, plugins: &str) -> Self {
        self.file("velox.toml", configuration(plugins))
    }

    pub fn path(&self) -> PathBuf {
        self.directory.path().join("work")
    }

    /// A path below the working directory.
    pub fn at(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path().join(name)
    }

    pub fn home(&self) -> PathBuf {
        self.directory.path().join("home")
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.at(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    pub fn bytes(&self, name: &str) -> Vec<u8> {
        fs::read(self.at(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    pub fn has(&self, name: &str) -> bool {
        self.at(name).exists()
    }

    /// The sorted names in a directory; empty if it doesn't exist.
    pub fn entries(&self, directory: &str) -> Vec<String> {
        let entries = fs::read_dir(self.at(directory)).into_iter().flatten();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// The version of a module in a binary; `version => path version` if replaced.
    pub fn module_in(&self, binary: &str, module: &str) -> Option<String> {
        let info = BuildInfo::read(&self.at(binary)).unwrap();
        info.deps.into_iter().find(|dependency| dependency.path == module).map(|found| match found.replace {
            Some(new) => format!("{} => {} {}", found.version, new.path, new.version),
            None => found.version,
        })
    }

    /// A command run as this user.
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

    /// A `go build` with the flags of vx's builds, so that the compiled standard library is shared with them.
    pub fn go_build(&self, output: impl AsRef<OsStr>) -> Command {
        let flags = ["build", "-trimpath", "-buildvcs=false", "-gcflags=all=-dwarf=false", "-o"];
        let mut command = self.command("go", &flags);
        command.arg(output).env("CGO_ENABLED", "0");
        command
    }

    /// A `vx` command, not yet started.
    pub fn vx_command(&self, line: &str) -> Command {
        let words = words(line);
        self.command(VX, &words.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// Runs `vx` with the arguments of a command line.
    pub fn vx(&self, line: &str) -> CommandOutput {
        self.vx_command(line).into()
    }

    /// Runs `vx`; returns exit code and streams in snapshot format.
    pub fn vx_shown(&self, line: &str) -> String {
        self.shown(&self.vx(line))
    }

    /// Output in snapshot format, with the working directory as `[DIR]`.
    pub fn shown(&self, output: &CommandOutput) -> String {
        let real = self.path().canonicalize().unwrap();
        output
            .shown()
            .replace(&*real.to_string_lossy(), "[DIR]")
            .replace(&*self.path().to_string_lossy(), "[DIR]")
    }

    /// Runs a command line that must succeed; returns its standard output.
    pub fn run(&self, line: &str) -> String {
        let words = words(line);
        let (program, arguments) = words.split_first().unwrap();
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        CommandOutput::from(self.command(program, &arguments)).ok()
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        // The module cache is read-only, so it can't be removed directly.
        let own = self.directory.path().join("gomodcache");
        if own.exists() {
            let _ = Command::new("chmod").args(["-R", "u+w"]).arg(own).status();
        }
    }
}

/// Exit status and streams of a finished command.
pub struct CommandOutput(pub Output);

impl From<Command> for CommandOutput {
    fn from(mut command: Command) -> Self {
        Self(command.output().unwrap())
    }
}

impl From<&mut Command> for CommandOutput {
    fn from(command: &mut Command) -> Self {
        Self(command.output().unwrap())
    }
}

impl CommandOutput {
    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.0.stdout).into_owned()
    }

    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.0.stderr).into_owned()
    }

    pub fn code(&self) -> Option<i32> {
        self.0.status.code()
    }

    /// Asserts success; returns standard output.
    #[track_caller]
    pub fn ok(&self) -> String {
        assert!(self.0.status.success(), "{}\n{}{}", self.0.status, self.stdout(), self.stderr());
        self.stdout()
    }

    /// Asserts success, and that standard error contains all texts.
    #[track_caller]
    pub fn succeeds_with(&self, texts: &[&str]) {
        self.ok();
        assert_contains(&self.stderr(), texts);
    }

    /// Asserts failure with this code; returns standard error.
    #[track_caller]
    pub fn fails(&self, code: i32) -> String {
        assert_eq!(self.code(), Some(code), "{}{}", self.stdout(), self.stderr());
        self.stderr()
    }

    /// Asserts failure with this code, and that standard error contains all texts.
    #[track_caller]
    pub fn fails_with(&self, code: i32, texts: &[&str]) {
        assert_contains(&self.fails(code), texts);
    }

    /// Parses the events of `--format json`.
    pub fn events(&self) -> Vec<Value> {
        self.stdout().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Exit code and streams in snapshot format.
    pub fn shown(&self) -> String {
        let code = self.code().map_or_else(|| self.0.status.to_string(), |code| code.to_string());
        format!("exit code: {code}\n--- stdout\n{}--- stderr\n{}", self.stdout(), self.stderr())
    }
}
