//! Builds from flags: `--with`, `--without`, `--roadrunner`, with and without a velox.toml.

use std::fs;

use velox_gomod::buildinfo::BuildInfo;
use velox_testkit::{ModuleProxy, plugin};

use crate::support::sandbox::{RELEASE, Sandbox, acme_proxy, configuration};

/// The plugin in the directory mine, as build information names it.
const MINE: &str = "example.com/me/mine => ./replace/example.com_me_mine (devel)";

/// The acme proxy with a second RoadRunner and a fork of hello.
fn proxy() -> ModuleProxy {
    let proxy = acme_proxy();
    let fork = plugin("example.com/acme/hello", "hello").says("a fork");
    for release in [RELEASE, "v2025.0.78"] {
        proxy.release(release, "logger rpc", "v5.1.9");
    }
    proxy.module("example.com/other/hello", "v1.2.0", fork.files());
    proxy
}

/// A machine with a plugin in the directory mine.
fn machine(proxy: &ModuleProxy) -> Sandbox {
    Sandbox::behind(proxy).files("mine", plugin("example.com/me/mine", "mine").says("mine").files())
}

fn modules(sandbox: &Sandbox) -> Vec<String> {
    let info = BuildInfo::read(&sandbox.at("rr")).unwrap();
    let ours = info.deps.into_iter().filter(|module| module.path.starts_with("example.com/"));
    ours.map(|module| match module.replace {
        Some(new) => format!("{} => {} {}", module.path, new.path, new.version).trim_end().to_owned(),
        None => format!("{} {}", module.path, module.version),
    })
    .collect()
}

#[test]
fn build_from_flags_alone() {
    let proxy = proxy();
    let sandbox = machine(&proxy);
    sandbox
        .vx(&format!(
            "build --roadrunner {RELEASE} --with example.com/acme/hello@v1.0.0 --with example.com/acme/bye \
         --with example.com/me/mine=./mine"
        ))
        .ok();
    assert_eq!(modules(&sandbox), ["example.com/acme/bye v1.1.0", "example.com/acme/hello v1.0.0", MINE]);
    assert_eq!(sandbox.entries("."), ["mine", "rr"], "no lock where there is no file");

    // The same, but the module path is read from the directory's go.mod.
    fs::remove_file(sandbox.at("rr")).unwrap();
    sandbox.vx(&format!("build --roadrunner {RELEASE} --with ./mine")).ok();
    assert_eq!(modules(&sandbox), [MINE]);
}

#[test]
fn flags_override_the_file_and_keep_its_lock() {
    let proxy = proxy();
    let sandbox = machine(&proxy).plugins("hello@v1.0.0 bye@main");
    sandbox.vx("lock").ok();
    let locked = sandbox.read("velox.lock");
    proxy.query("example.com/acme/bye", "main", "v1.1.0");

    // The branch of bye has moved; only `vx lock --upgrade` looks it up again.
    sandbox.vx("build --with example.com/acme/hello@v1.1.0 --with ./mine").ok();
    assert_eq!(modules(&sandbox), ["example.com/acme/bye v1.0.0", "example.com/acme/hello v1.1.0", MINE]);
    sandbox.vx("build --with example.com/acme/hello=example.com/other/hello@v1.2.0").ok();
    assert_eq!(
        modules(&sandbox),
        ["example.com/acme/bye v1.0.0", "example.com/acme/hello => example.com/other/hello v1.2.0"]
    );
    let message = sandbox.vx("build --without hello --roadrunner v2025.0.78 --format json");
    assert!(message.ok().contains(r#""lock":null"#), "that lock doesn't say what was built");
    assert_eq!(modules(&sandbox), ["example.com/acme/bye v1.0.0"]);
    assert!(message.stdout().contains(r#""version":"v2025.0.78""#), "{}", message.stdout());

    assert_eq!(sandbox.read("velox.lock"), locked);
    sandbox.vx("lock --check").ok();
}

#[test]
fn with_directory_is_relative_to_working_directory() {
    let proxy = proxy();
    let sandbox = machine(&proxy).file("conf/velox.toml", configuration("hello@v1.0.0 bye@main"));
    sandbox.vx("build -c conf/velox.toml --with ./mine --without bye").ok();
    assert_eq!(modules(&sandbox), ["example.com/acme/hello v1.0.0", MINE]);
    assert_eq!(sandbox.entries("."), ["conf", "mine", "rr"]);
    assert_eq!(sandbox.entries("conf"), ["velox.toml"], "a lock is for the file alone");
}

#[test]
fn invalid_with_flags_fail_before_any_request() {
    let proxy = proxy();
    let sandbox = machine(&proxy).plugins("hello@v1.0.0 bye@main").file("empty/README", "");
    let wrong = [
        "--with htttp",
        "--with ./nowhere --with ./empty",
        "--with https://me:s3cret@example.com/acme/hello",
        "--with example.com/acme/hello/v5@v6.0.0",
        "--with example.com/acme/hello@ --with example.com/acme/hello=somewhere",
        "--with example.com/acme/hello --with example.com/acme/hello/v2@v2.0.0",
        "--with '' --roadrunner 'v1 0'",
        "--without helo",
        "--without hello --without bye",
        "--locked --with example.com/acme/hello",
        "-c none.toml --with example.com/acme/hello",
    ];
    let real = sandbox.path().canonicalize().unwrap();
    let shown: String = wrong
        .iter()
        .map(|flags| {
            let stderr = sandbox.vx(&format!("build {flags}")).fails(2);
            format!("$ vx build {flags}\n{stderr}\n").replace(&*real.to_string_lossy(), "[DIR]")
        })
        .collect();
    assert_eq!(shown.matches("s3cret").count(), 1, "the command line's own, and nowhere else");
    insta::assert_snapshot!(shown);
    assert_eq!(proxy.requests(), [""; 0]);
}

#[test]
fn the_file_is_found_in_parent_directories() {
    let proxy = proxy();
    let sandbox = machine(&proxy).plugins("hello@v1.0.0");
    std::fs::create_dir_all(sandbox.at("deep/down")).unwrap();
    let below = |line: &str| {
        let mut command = sandbox.vx_command(line);
        crate::support::sandbox::CommandOutput::from(command.current_dir(sandbox.at("deep/down")))
    };
    below("build -o out").ok();
    // The lock lies beside velox.toml, the output is below the working directory.
    assert!(sandbox.has("velox.lock") && sandbox.has("deep/down/out/rr"));
    below("lock --check").ok();
    below("list").ok();
    let file = sandbox.read("velox.toml");
    below("add acme/none@v1.0.0 --no-lock").ok();
    assert!(sandbox.read("velox.toml").contains("[plugins.none]"));
    std::fs::write(sandbox.at("velox.toml"), file).unwrap();
    // A directory in a flag starts from the working directory, -c names exactly one file.
    below("build -c velox.toml").fails_with(2, &["deep/down/velox.toml` not found"]);
    std::fs::write(sandbox.at("velox.toml"), "[roadrunner]\nreff = 1\n").unwrap();
    below("build").fails_with(2, &["unknown key"]);
}

#[test]
fn a_known_plugin_is_named_as_for_add() {
    let proxy = proxy();
    let sandbox = machine(&proxy);
    let rpc = "github.com/roadrunner-server/rpc/v5 v5.1.9";
    // Without a velox.toml, and with one: the version of the RoadRunner release.
    let planned = sandbox.vx(&format!("build --dry-run --roadrunner {RELEASE} --with rpc")).ok();
    assert!(planned.contains(rpc), "{planned}");
    let sandbox = sandbox.plugins("hello@v1.0.0");
    let planned = sandbox.vx("build --dry-run --with rpc").ok();
    assert!(planned.contains(rpc) && planned.contains("example.com/acme/hello v1.0.0"), "{planned}");
    // As velox.toml has it.
    let sandbox = sandbox.plugins("github.com/roadrunner-server/logger/v5@v5.1.9 hello@v1.0.0");
    let planned = sandbox.vx("build --dry-run --with logger --without hello").ok();
    assert!(planned.contains("github.com/roadrunner-server/logger/v5 v5.1.9"), "{planned}");
    assert!(!planned.contains("acme/hello"), "{planned}");
}
