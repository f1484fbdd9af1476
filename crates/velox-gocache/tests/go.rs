//! The go command with velox-gocache.

#![allow(clippy::unwrap_used)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use tempfile::TempDir;
use velox_gocache::GoCacheStats;

/// Misses of every build: the go command's index of the main module's packages, whose files are too new.
const EXPECTED_MISSES: u64 = 2;

/// A module of two packages, and cache directories.
struct Machine {
    go: PathBuf,
    directory: TempDir,
    environment: Vec<(String, String)>,
}

impl Machine {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = directory.path().join("src").join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("go.mod", "module example.com/m\n\ngo 1.24\n");
        write("main.go", "package main\n\nimport \"example.com/m/inner\"\n\nfunc main() { inner.Say() }\n");
        write(
            "inner/inner.go",
            "package inner\n\nimport \"strings\"\n\nfunc Say() { println(strings.ToUpper(\"hello\")) }\n",
        );
        Self { go: PathBuf::from("go"), directory, environment: Vec::new() }
    }

    /// Uses another go command.
    fn go(mut self, go: &Path) -> Self {
        self.go = go.to_owned();
        self.env("GOTOOLCHAIN", "local")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Builds with a GOCACHE and a remote; returns the compiled packages and the cache statistics.
    fn build(&self, gocache: &str, remote: Option<&str>, more: &str) -> (String, Option<GoCacheStats>) {
        let (gocache, stats) = (self.path(gocache), self.path("stats.json"));
        fs::create_dir_all(&gocache).unwrap();
        let _ = fs::remove_file(&stats);
        let mut command = Command::new(&self.go);
        command
            .args(["build", "-v", "-trimpath", "-o"])
            .arg(self.path("out"))
            .arg(".")
            .current_dir(self.path("src"))
            .env("GOCACHE", &gocache)
            .env("CGO_ENABLED", "0")
            .env("GOFLAGS", "-mod=readonly")
            .envs(self.environment.iter().cloned());
        if let Some(remote) = remote {
            let program = example();
            let words = [&program.display().to_string(), &gocache.display().to_string(), remote];
            command.env("GOCACHEPROG", format!("{} {} {more}", words.join(" "), stats.display()));
        }
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
        let ran = Command::new(self.path("out")).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&ran.stderr), "HELLO\n");
        (said, fs::read_to_string(&stats).ok().map(|text| serde_json::from_str(&text).unwrap()))
    }

    fn remote(&self) -> String {
        let remote = self.path("remote");
        fs::create_dir_all(&remote).unwrap();
        remote.display().to_string()
    }

    fn remote_files(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        let mut folders = vec![self.path("remote")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                if entry.path().is_dir() { folders.push(entry.path()) } else { files.push(entry.path()) }
            }
        }
        files
    }
}

/// The cacheprog example, which cargo builds before running tests.
fn example() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let folder: &Path = test.parent().unwrap().parent().unwrap();
    folder.join("examples").join(format!("cacheprog{}", std::env::consts::EXE_SUFFIX))
}

/// GOCACHE has the same format in every Go with GOCACHEPROG; VX_TEST_GO lists more go commands, like PATH.
#[test]
fn every_go_shares_its_cache_with_us() {
    let others = std::env::var_os("VX_TEST_GO").unwrap_or_default();
    let others = std::env::split_paths(&others).filter(|go| !go.as_os_str().is_empty());
    for go in std::iter::once(PathBuf::from("go")).chain(others) {
        let machine = Machine::new().go(&go);
        let remote = machine.remote();
        let (compiled, _) = machine.build("plain", None, "");
        assert!(compiled.contains("example.com/m/inner"), "{compiled}");
        // Outputs of the go command are used by cacheprog, locally and through the remote.
        assert_eq!(machine.build("plain", Some(&remote), "").0, "", "{}", go.display());
        let (compiled, stats) = machine.build("ours", Some(&remote), "");
        assert_eq!(compiled, "", "{}", go.display());
        let stats = stats.unwrap();
        assert!(stats.remote_hits > 50 && stats.misses <= EXPECTED_MISSES, "{stats:?}");
        // Outputs of cacheprog are used by the go command.
        assert_eq!(machine.build("ours", None, "").0, "", "{}", go.display());
    }
}

#[test]
fn a_remote_that_hangs_holds_up_nothing_that_is_here() {
    let (url, _runtime) = bucket(|| (200, Duration::from_secs(3600)));
    let machine = Machine::new()
        .env("AWS_ENDPOINT", &url)
        .env("AWS_ALLOW_HTTP", "true")
        .env("AWS_ACCESS_KEY_ID", "id")
        .env("AWS_SECRET_ACCESS_KEY", "a-secret-key");
    machine.build("first", None, "");
    let (compiled, stats) = machine.build("first", Some("s3://bucket/prefix"), "read-only");
    let stats = stats.unwrap();
    assert_eq!((compiled.as_str(), stats.remote_hits), ("", 0));
    assert!(stats.local_hits > 50, "{stats:?}");
}

#[test]
fn a_read_only_machine_sends_nothing() {
    let machine = Machine::new();
    let remote = machine.remote();
    let (_, stats) = machine.build("first", Some(&remote), "read-only");
    assert_eq!(stats.unwrap().bytes_up, 0);
    assert!(machine.remote_files().is_empty());
}

#[test]
fn damaged_and_missing_packs_are_compiled_again_and_replaced() {
    let machine = Machine::new();
    let remote = machine.remote();
    machine.build("first", Some(&remote), "");
    let packs: Vec<PathBuf> = machine
        .remote_files()
        .into_iter()
        .filter(|path| path.to_string_lossy().contains("/packs/"))
        .collect();
    assert!(!packs.is_empty());
    for pack in &packs {
        let mut content = fs::read(pack).unwrap();
        content.iter_mut().for_each(|byte| *byte ^= 0x55);
        fs::write(pack, content).unwrap();
    }
    let (compiled, _) = machine.build("second", Some(&remote), "");
    assert!(compiled.contains("example.com/m/inner"), "{compiled}");
    // They were replaced.
    assert_eq!(machine.build("third", Some(&remote), "read-only").0, "");
    for pack in machine.remote_files().iter().filter(|path| path.to_string_lossy().contains("/packs/")) {
        fs::remove_file(pack).unwrap();
    }
    let (compiled, _) = machine.build("fourth", Some(&remote), "");
    assert!(compiled.contains("example.com/m/inner"), "{compiled}");
    assert_eq!(machine.build("fifth", Some(&remote), "read-only").0, "");
    // Corrupt indexes are ignored.
    for index in machine.remote_files().iter().filter(|path| path.to_string_lossy().contains("/index/")) {
        fs::write(index, "garbage").unwrap();
    }
    machine.build("sixth", Some(&remote), "");
    assert_eq!(machine.build("seventh", Some(&remote), "").0, "");
}

#[test]
fn two_writers_at_once_keep_each_others_work() {
    let machine = Machine::new();
    let remote = machine.remote();
    let other = Machine::new();
    std::thread::scope(|scope| {
        scope.spawn(|| machine.build("first", Some(&remote), ""));
        scope.spawn(|| other.build("first", Some(&remote), ""));
    });
    assert_eq!(machine.build("second", Some(&remote), "").0, "");
}

/// A bucket that sends the same response to all requests.
fn bucket(
    answer: impl Fn() -> (u16, Duration) + Clone + Send + Sync + 'static,
) -> (String, tokio::runtime::Runtime) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let router = axum::Router::new().fallback(move || {
        let (status, wait) = answer();
        async move {
            tokio::time::sleep(wait).await;
            axum::http::StatusCode::from_u16(status).unwrap()
        }
    });
    runtime.spawn(async move { axum::serve(listener, router).await });
    (url, runtime)
}

#[test]
fn a_remote_that_fails_or_hangs_costs_seconds_and_no_build() {
    for (status, wait) in [(500, Duration::ZERO), (403, Duration::ZERO), (200, Duration::from_secs(3600))] {
        let (url, _runtime) = bucket(move || (status, wait));
        let machine = Machine::new()
            .env("AWS_ENDPOINT", &url)
            .env("AWS_ALLOW_HTTP", "true")
            .env("AWS_ACCESS_KEY_ID", "id")
            .env("AWS_SECRET_ACCESS_KEY", "a-secret-key")
            .env("AWS_REGION", "here");
        let since = Instant::now();
        let (said, stats) = machine.build("first", Some("s3://bucket/prefix"), "");
        // Waiting for the remote would take an hour.
        assert!(since.elapsed() < Duration::from_secs(600), "{:?}", since.elapsed());
        let trouble = stats.unwrap().trouble.unwrap();
        assert!(trouble.contains("disabled"), "{trouble}");
        assert!(!trouble.contains("a-secret-key") && !said.contains("a-secret-key"));
    }
}
