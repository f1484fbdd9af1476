//! Machines without Go, with an old Go, or with GOTOOLCHAIN and --go set.

#![cfg(unix)]

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use velox_manifest::GoTarget;
use velox_testkit::{Fault, ModuleProxy, plugin, roadrunner};

use crate::support::sandbox::{RELEASE, Sandbox, assert_contains, configuration, program};

/// The go command that these tests run under other names.
fn go() -> PathBuf {
    program("go").unwrap().canonicalize().unwrap()
}

/// The version of the go command that compiles, such as `go1.26.8`.
pub(super) fn version() -> String {
    let output = Command::new(go()).args(["env", "GOVERSION"]).env("GOTOOLCHAIN", "local").output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn module(version: &str) -> String {
    let GoTarget { os, arch } = GoTarget::host();
    format!("v0.0.1-{version}.{os}-{arch}")
}

/// A wrapper of the real go command that records the name it was run under.
fn disguise(name: &str) -> String {
    let go = go();
    format!(
        "#!/bin/sh\nunset GOROOT\n[ \"$1\" = env ] || echo \"{name} $GOTOOLCHAIN $1 $2\" >>\"$USED\"\nexec {} \"$@\"\n",
        go.display()
    )
}

/// A toolchain module: small, and not executable, as in module zips.
fn toolchain(proxy: &ModuleProxy, version: &str) {
    let files = [
        ("bin/go", disguise(version)),
        ("pkg/tool/any/compile", "#!/bin/sh\n".to_owned()),
        ("src/_go.mod", "module std\n".to_owned()),
        ("src/cmd/_go.mod", "module cmd\n".to_owned()),
    ];
    let files = files.map(|(name, text)| (name.to_owned(), text.into_bytes()));
    proxy.module("golang.org/toolchain", &module(version), files.into());
}

/// A small RoadRunner whose go.mod requires exactly this machine's Go version, and a plugin.
fn proxy() -> ModuleProxy {
    let proxy = ModuleProxy::start();
    let mut files = roadrunner("v2025").files();
    let go_mod = String::from_utf8(files["go.mod"].clone()).unwrap();
    let line = format!("go {}", version().trim_start_matches("go"));
    let go_mod: String = go_mod
        .lines()
        .map(|old| if old.starts_with("go ") { line.as_str() } else { old })
        .flat_map(|line| [line, "\n"])
        .collect();
    files.insert("go.mod".to_owned(), go_mod.into_bytes());
    proxy.module("github.com/roadrunner-server/roadrunner/v2025", RELEASE, files);
    proxy.plugin("example.com/acme/hello", "v1.0.0");
    proxy
}

/// A machine without Go on the PATH and without a checksum database.
fn machine(proxy: &ModuleProxy) -> Sandbox {
    let sandbox = Sandbox::behind(proxy).plugins("hello@v1.0.0");
    let path = std::env::var_os("PATH").unwrap();
    let without = std::env::split_paths(&path).filter(|folder| !folder.join("go").is_file());
    let path = std::env::join_paths(without).unwrap();
    let used = sandbox.at("used");
    sandbox.env("PATH", path).env("USED", used).env("GOSUMDB", "off").without("GOTOOLCHAIN")
}

/// Adds a go command to the PATH that reports another version.
pub(super) fn with_go(sandbox: Sandbox, calls_itself: &str) -> Sandbox {
    let text = disguise("installed").replace(
        "exec",
        &format!(
            "[ \"$1\" != env ] || {{ {} \"$@\" | sed 's/{}/{calls_itself}/'; exit; }}\nexec",
            go().display(),
            version()
        ),
    );
    sandbox.script("go", &text)
}

/// The recorded go commands that compiled, without duplicates (the standard library may be separate).
fn used(sandbox: &Sandbox) -> String {
    let text = fs::read_to_string(sandbox.at("used")).unwrap_or_default();
    let _ = fs::remove_file(sandbox.at("used"));
    let mut lines: Vec<&str> = text.lines().filter_map(|line| line.strip_suffix(" -v")).collect();
    lines.sort_unstable();
    lines.dedup();
    lines.join("\n")
}

fn downloads(proxy: &ModuleProxy) -> Vec<String> {
    let is_download = |path: &String| path.contains("golang.org/toolchain") && path.ends_with(".zip");
    proxy.requests().into_iter().filter(is_download).collect()
}

fn root(sandbox: &Sandbox, version: &str) -> PathBuf {
    let gomodcache = sandbox.path().parent().unwrap().join("gomodcache");
    gomodcache.join(format!("golang.org/toolchain@{}", module(version)))
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn missing_go_is_downloaded_and_locked() {
    let (proxy, version) = (proxy(), version());
    toolchain(&proxy, &version);
    toolchain(&proxy, "go1.99.0");
    let sandbox = machine(&proxy);
    let output = sandbox.vx("build -o out");
    output.ok();
    let message = output.stderr();
    assert!(message.contains(&format!("Go {} (", version.trim_start_matches("go"))), "{message}");
    assert!(
        message.contains("golang.org/toolchain@") && message.contains("h1:"),
        "the first use is report: {message}"
    );
    assert_eq!(used(&sandbox), format!("{version} local build"));
    assert_eq!(downloads(&proxy), [format!("/golang.org/toolchain/@v/{}.zip", module(&version))]);

    // The layout that the go command creates.
    let root = root(&sandbox, &version);
    assert_eq!((mode(&root.join("bin/go")), mode(&root.join("pkg/tool/any/compile"))), (0o555, 0o555));
    assert_eq!((mode(&root.join("src/go.mod")), mode(&root.join("src/cmd"))), (0o444, 0o555));
    assert_eq!(fs::read_to_string(root.join("src/cmd/go.mod")).unwrap(), "module cmd\n");

    // The next build downloads nothing; a build on another machine must get the same checksum.
    let line = sandbox
        .read("velox.lock")
        .lines()
        .find(|line| line.contains(&GoTarget::host().to_string()) && line.contains("h1:"))
        .unwrap()
        .to_owned();
    sandbox.vx("build -o out --offline --locked --no-cache").ok();
    let proxy = self::proxy();
    proxy.module("golang.org/toolchain", &module(&version), [("bin/go".to_owned(), b"evil".to_vec())].into());
    let other = machine(&proxy).file("velox.lock", sandbox.read("velox.lock"));
    let sum = line.trim_matches(['"', ' ', ',']).split(' ').nth(1).unwrap();
    other.vx("build -o out").fails_with(1, &["verification failed: checksum mismatch for", sum]);
    assert!(!self::root(&other, &version).exists());
}

#[test]
fn toolchain_is_verified_by_checksum_database() {
    let (proxy, version) = (proxy(), version());
    toolchain(&proxy, &version);
    // No pattern exempts a toolchain, as with the go command.
    let verified = |proxy: &ModuleProxy| machine(proxy).env("GOSUMDB", proxy.gosumdb()).env("GONOSUMDB", "*");
    let message = verified(&proxy).vx("fetch");
    message.ok();
    assert!(!message.stderr().contains("golang.org/toolchain@"), "nothing is trusted: {}", message.stderr());
    let asked = format!("lookup/golang.org/toolchain@{}", module(&version));
    assert!(proxy.requests().iter().any(|path| path.ends_with(&asked)), "{:?}", proxy.requests());

    // A proxy that serves another toolchain than the database records.
    let other = self::proxy();
    toolchain(&other, &version);
    let wrong = "h1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    other.vouch("golang.org/toolchain", &module(&version), wrong);
    let sandbox = verified(&other);
    sandbox.vx("fetch").fails_with(1, &["verification failed: checksum mismatch for", wrong]);
    assert!(!root(&sandbox, &version).exists());

    // An unreachable database.
    other.fail("lookup/golang.org/toolchain", Fault::Status(500));
    verified(&other).vx("fetch").fails_with(1, &["failed to verify Go ", "GOSUMDB=off"]);
}

#[test]
fn fetch_downloads_the_locked_toolchain() {
    let (proxy, version) = (proxy(), version());
    toolchain(&proxy, &version);
    let sandbox = machine(&proxy);
    sandbox.vx("fetch").ok();
    proxy.forget_requests();
    let sandbox = sandbox.env("GOPROXY", "http://127.0.0.1:1");
    sandbox.vx("build -o out --offline").ok();
    assert_eq!(used(&sandbox), format!("{version} local build"));

    // A lock made with an installed Go has no toolchain checksum: the first trusted one is recorded.
    let text = sandbox.read("velox.lock");
    let start = text.find("toolchain = [").unwrap();
    let end = start + text[start..].find("]\n").unwrap() + 2;
    let other = machine(&proxy).file("velox.lock", format!("{}{}", &text[..start], &text[end..]));
    other
        .vx("build -o out --offline")
        .fails_with(1, &["is not cached; `--offline` forbids downloading it", "vx fetch"]);
    other.vx("fetch").ok();
    assert_eq!(other.read("velox.lock"), text);
    other.vx("build -o out --offline --locked").ok();
}

#[test]
fn older_go_is_replaced_by_the_required_one() {
    let (proxy, version) = (proxy(), version());
    toolchain(&proxy, &version);
    for old in ["go1.24.1", "go1.19.9"] {
        // Go's default, which distribution packages may change in their go.env.
        let sandbox = with_go(machine(&proxy), old).env("GOTOOLCHAIN", "auto");
        sandbox.vx("build -o out").ok();
        assert_eq!(used(&sandbox), format!("{version} local build"), "{old}");
        assert!(sandbox.read("velox.lock").contains(&format!("version = \"{version}\"")));

        // With the lock no query is needed.
        let sandbox = sandbox.env("GOPROXY", "off");
        sandbox.vx("build -o out --no-cache").ok();
        assert_eq!(used(&sandbox), format!("{version} local build"), "{old}");
    }
    // A plugin may require it even if RoadRunner doesn't.
    let other = ModuleProxy::start();
    other.roadrunner(RELEASE);
    let demanding = plugin("example.com/acme/hello", "hello").go(version.trim_start_matches("go"));
    other.module("example.com/acme/hello", "v1.0.0", demanding.files());
    toolchain(&other, &version);
    let sandbox = with_go(machine(&other), "go1.24.1").env("GOTOOLCHAIN", "auto");
    sandbox.vx("build -o out").ok();
    assert_eq!(used(&sandbox), format!("{version} local build"));
    let sandbox = with_go(machine(&other), "go1.24.1").env("GOTOOLCHAIN", "local");
    sandbox.vx("build -o out").fails_with(1, &["example.com/acme/hello requires Go"]);

    // GOTOOLCHAIN=local and --go forbid the replacement.
    let sandbox = with_go(machine(&proxy), "go1.24.1").env("GOTOOLCHAIN", "local");
    sandbox.vx("build -o out").fails_with(1, &["or newer, found go1.24.1", "GOTOOLCHAIN=auto"]);
    let sandbox = sandbox.without("GOTOOLCHAIN");
    let given = sandbox.at("bin/go").display().to_string();
    sandbox
        .vx(&format!("build -o out --go {given}"))
        .fails_with(1, &["or newer, found go1.24.1", "omit --go"]);
    assert_eq!(used(&sandbox), "");
}

#[test]
fn gotoolchain_and_go_flag_select_the_compiler() {
    let (proxy, version) = (proxy(), version());
    toolchain(&proxy, &version);
    let sandbox = machine(&proxy).env("GOTOOLCHAIN", "local");
    sandbox.vx("build -o out").fails_with(
        1,
        &["no go command on the PATH, and GOTOOLCHAIN=local", "GOTOOLCHAIN=auto", "go.dev/dl"],
    );
    let sandbox = sandbox.env("GOTOOLCHAIN", "path");
    sandbox.vx("build -o out").fails_with(1, &[&format!("no {version} on the PATH, and GOTOOLCHAIN=path")]);
    sandbox.env("GOTOOLCHAIN", "newest").vx("build -o out").fails_with(2, &["invalid GOTOOLCHAIN=newest"]);
    assert_eq!(downloads(&proxy), [""; 0]);

    // As written by `go env -w`.
    let sandbox = machine(&proxy);
    let file = sandbox.home().join(".config/go/env");
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(&file, "GOTOOLCHAIN=local\n").unwrap();
    let sandbox = sandbox.without("XDG_CONFIG_HOME");
    sandbox.vx("build -o out").fails_with(1, &["GOTOOLCHAIN=local"]);
    // Only the go command named by `--go` is used.
    let given = sandbox.script("mine", &disguise("mine"));
    let mine = given.at("bin/mine").display().to_string();
    given.vx(&format!("build -o out --go {mine}")).ok();
    assert_eq!(used(&given), "mine local build");
    assert_eq!(downloads(&proxy), [""; 0]);

    // A version name is looked up on the PATH before it is downloaded.
    let named = given.script(&version, &disguise("named")).env("GOTOOLCHAIN", &version);
    named.vx("build -o out --no-cache").ok();
    assert_eq!(used(&named), "named local build");
    named
        .env("GOTOOLCHAIN", "go1.24.1")
        .vx("build -o out --no-cache")
        .fails_with(1, &[&format!("the lock requires {version}, found go1.24.1")]);
    assert_eq!(downloads(&proxy), [""; 0]);
}

#[test]
fn build_without_home_needs_explicit_directories() {
    let proxy = proxy();
    let homeless = Sandbox::behind(&proxy).plugins("hello@v1.0.0");
    let homeless = homeless.without("HOME");
    // With a go command on the PATH, and without one.
    for sandbox in [with_go(machine(&proxy), &version()), machine(&proxy)] {
        let places = ["GOMODCACHE", "GOCACHE"].into_iter().fold(sandbox.without("HOME"), Sandbox::without);
        places
            .vx("build -o out")
            .fails_with(1, &["set HOME to a writable directory", "GOMODCACHE, GOCACHE, GOPATH"]);
    }
    homeless.vx("build -o out").fails_with(1, &["no absolute path in: GOPATH"]);
    let gopath = homeless.at("gopath");
    homeless.env("GOPATH", gopath).vx("build -o out").ok();
}

#[test]
fn build_fails_when_toolchain_is_unavailable() {
    let (proxy, version) = (proxy(), version());
    let sandbox = machine(&proxy).env("GOPROXY", proxy.url());
    sandbox.vx("build -o out").fails_with(1, &["failed to download Go ", "not found", "go.dev/dl"]);
    sandbox.vx("build -o out --offline").fails_with(1, &["no go command", "--offline"]);
    let sandbox = sandbox.env("GOPROXY", "direct");
    sandbox.vx("build -o out").fails_with(1, &["no go command", "GOPROXY"]);
    // A ref that isn't a version leads to no go.mod: the newest release is used.
    toolchain(&proxy, &version);
    toolchain(&proxy, "go1.22.1");
    proxy.query("github.com/roadrunner-server/roadrunner/v2025", "main", RELEASE);
    let text = configuration("hello@v1.0.0").replace(&format!("ref = \"{RELEASE}\""), "ref = \"main\"");
    let sandbox = machine(&proxy).file("velox.toml", text);
    // The module proxy knows the branch: the forge, which is unreachable, is not needed.
    let sandbox = sandbox.env("HTTPS_PROXY", "http://127.0.0.1:1");
    sandbox.vx("lock").ok();
    assert!(root(&sandbox, &version).exists() && !root(&sandbox, "go1.22.1").exists());
}

/// A toolchain module: this machine's Go under another version, which it also writes into binaries.
pub(super) fn renamed_toolchain(proxy: &ModuleProxy, name: &str) {
    let (go, version) = (go(), version());
    let go = go.display();
    let text = format!(
        r#"#!/bin/sh
unset GOROOT
case "$*" in
    "env GOROOT") dirname "$(dirname "$0")"; exit ;;
    env*) {go} "$@" | sed 's/{version}/{name}/'; exit ;;
esac
for argument; do
    shift
    case "$argument" in -ldflags=*) argument="$argument -X runtime.buildVersion={name}" ;; esac
    set -- "$@" "$argument"
done
exec {go} "$@"
"#
    );
    let files = [("bin/go", text.as_str()), ("src/_go.mod", "module std\n")];
    let files = files.map(|(name, text)| (name.to_owned(), text.as_bytes().to_vec()));
    proxy.module("golang.org/toolchain", &module(name), files.into());
}

/// The minor version of this machine's Go, such as `1.26`.
pub(super) fn minor() -> String {
    version().trim_start_matches("go").splitn(3, '.').take(2).collect::<Vec<_>>().join(".")
}

#[test]
fn a_downloaded_go_is_the_newest_patch_release() {
    let (proxy, version, minor) = (proxy(), version(), minor());
    for name in [&version, &format!("go{minor}.97"), &format!("go{minor}.98"), "go1.99.0"] {
        renamed_toolchain(&proxy, name);
    }
    let locked = |sandbox: &Sandbox, version: &str| {
        assert_contains(&sandbox.read("velox.lock"), &[&format!("\n[go]\nversion = \"{version}\"")]);
    };
    let newest = format!("go{minor}.98");
    let sandbox = machine(&proxy);
    sandbox.vx("lock").ok();
    locked(&sandbox, &newest);
    let sandbox = with_go(machine(&proxy), "go1.24.1").env("GOTOOLCHAIN", "auto");
    sandbox.vx("lock").ok();
    locked(&sandbox, &newest);
    // An installed Go that is new enough stays.
    let sandbox = with_go(machine(&proxy), &version).env("GOTOOLCHAIN", "auto");
    sandbox.vx("lock").ok();
    locked(&sandbox, &version);

    // Without a list, the required one.
    proxy.fail("golang.org/toolchain/@v/list", Fault::Status(500));
    let sandbox = machine(&proxy);
    let note =
        format!("using {version}, which may not be the newest patch release: no list of Go releases (");
    sandbox.vx("lock").succeeds_with(&[&note]);
    locked(&sandbox, &version);
}

#[test]
fn the_configuration_selects_the_go_version() {
    let (proxy, version, minor) = (proxy(), version(), minor());
    let [older, newest] = ["97", "98"].map(|patch| format!("go{minor}.{patch}"));
    for name in [&version, &older, &newest, "go1.25.1"] {
        renamed_toolchain(&proxy, name);
    }
    let text =
        |selection: &str| configuration("hello@v1.0.0") + &format!("\n[go]\nversion = \"{selection}\"\n");
    let sandbox = with_go(machine(&proxy), &version).env("GOTOOLCHAIN", "auto");
    let locks = |sandbox: Sandbox, selection: &str, expected: &str| {
        let sandbox = sandbox.file("velox.toml", text(selection));
        sandbox.vx("lock").ok();
        assert_contains(&sandbox.read("velox.lock"), &[&format!("\n[go]\nversion = \"{expected}\"")]);
        sandbox
    };
    let sandbox = locks(sandbox, older.trim_start_matches("go"), &older);
    let sandbox = locks(sandbox, "release", &version);
    let sandbox = locks(sandbox, &minor, &newest);

    // The lock keeps it, until it is upgraded.
    renamed_toolchain(&proxy, &format!("go{minor}.99"));
    let sandbox = locks(sandbox, &minor, &newest);
    sandbox.vx("lock --check").ok();
    sandbox.vx("lock --upgrade").ok();
    assert_contains(&sandbox.read("velox.lock"), &[&format!("\n[go]\nversion = \"go{minor}.99\"")]);

    // A lock with another Go, and a configuration with another one.
    let lock = sandbox.read("velox.lock");
    let edited = lock.replace(&format!("version = \"go{minor}.99\""), "version = \"go1.99.0\"");
    let sandbox = sandbox.file("velox.lock", edited);
    let difference = format!("the lock has go1.99.0, but [go] version is {minor}");
    sandbox.vx("lock --check").fails_with(2, &[&difference]);
    let sandbox = sandbox.file("velox.lock", lock).file("velox.toml", text("release"));
    sandbox.vx("lock --check").fails_with(2, &[&format!("only the lock has: go {minor}")]);

    let sandbox = sandbox.file("velox.toml", text("1.25.1"));
    sandbox.vx("lock").fails_with(
        1,
        &["or newer, but [go] version selects go1.25.1", "--> velox.toml:9:11", "select a newer one"],
    );
    let sandbox = sandbox.file("velox.toml", text(&format!("{minor}.77")));
    let failed = format!("failed to download Go {minor}.77");
    sandbox.vx("lock").fails_with(1, &[&failed, "--> velox.toml:9:11"]);
    let sandbox = sandbox.env("GOTOOLCHAIN", "local");
    sandbox.vx("lock").fails_with(
        1,
        &[&format!("[go] version requires go{minor}.77, found {version}, and GOTOOLCHAIN=local forbids downloading another")],
    );
    // Without a lock, what can't be replaced is the newest one.
    fs::remove_file(sandbox.at("velox.lock")).unwrap();
    locks(sandbox, &minor, &version);
}
