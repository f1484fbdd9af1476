//! `vx init`: creates a velox.toml that builds.

use std::{io::Write, process::Stdio, thread, time::Duration};

use velox_testkit::{ModuleProxy, plugin, roadrunner};

use crate::support::sandbox::{CommandOutput, Sandbox, VX, skip};

/// A proxy with three small RoadRunners and a plugin.
fn proxy() -> ModuleProxy {
    let proxy = ModuleProxy::start();
    for (major, versions) in
        [("v2024", &["v2024.9.9"][..]), ("v2025", &["v2025.0.76", "v2025.0.77", "v2025.1.0-rc.1"])]
    {
        let module = format!("github.com/roadrunner-server/roadrunner/{major}");
        for version in versions {
            proxy.module(&module, version, roadrunner(major).files());
        }
    }
    for version in ["v1.0.0", "v1.1.0"] {
        let files = plugin("github.com/acme/hello", "hello").says(version).files();
        proxy.module("github.com/acme/hello", version, files);
    }
    proxy
}

fn headers(sandbox: &Sandbox) -> Vec<String> {
    sandbox.read("velox.toml").lines().filter(|line| line.starts_with('[')).map(str::to_owned).collect()
}

#[test]
fn init_default_has_the_plugins_of_the_release() {
    let proxy = proxy();
    let sandbox = Sandbox::behind(&proxy);
    sandbox
        .vx("init --default --roadrunner v2025.0.77")
        .succeeds_with(&["Created velox.toml: RoadRunner v2025.0.77 with"]);
    insta::assert_snapshot!(sandbox.read("velox.toml"));
    let plan = sandbox.vx("build --dry-run").ok();
    for line in sandbox.read("velox.toml").lines().filter(|line| line.starts_with("module_name")) {
        let module = line.trim_start_matches("module_name = ").trim_matches('"');
        assert!(plan.contains(module), "{plan}");
    }

    sandbox.vx("init --default").fails_with(2, &["`velox.toml` already exists", "--force"]);
    sandbox.vx("init --force --plugin acme/hello@v1.0.0 --roadrunner v2025.0.76").ok();
    assert_eq!(headers(&sandbox), ["[roadrunner]", "[plugins.hello]"]);
    assert!(
        sandbox.read("velox.toml").contains("v2025.0.76")
            && sandbox.read("velox.toml").contains("tag = \"v1.0.0\"")
    );
}

#[test]
fn init_takes_groups_and_plugins_from_flags() {
    let proxy = proxy();
    let sandbox = Sandbox::behind(&proxy);
    sandbox.vx("init --roadrunner v2025.0.77 --group observability --plugin rpc --plugin acme/hello").ok();
    assert_eq!(
        headers(&sandbox),
        ["[roadrunner]", "[plugins.rpc]", "[plugins.metrics]", "[plugins.status]", "[plugins.hello]"]
    );
    assert!(sandbox.read("velox.toml").contains("module_name = \"github.com/acme/hello\"\ntag = \"v1.1.0\""));
    sandbox.vx("build --dry-run").ok();

    sandbox.vx("init --group observabilty --force").fails_with(2, &["expected one of server, http, jobs"]);
    sandbox.vx("init -c other.toml").fails_with(2, &["--default"]);
    sandbox.vx("init -c other.toml --default --roadrunner 'v 1'").fails_with(2, &["--roadrunner"]);
    assert_eq!(sandbox.entries("."), ["velox.toml"]);
}

#[test]
fn init_merges_presets_with_plugins_and_a_configuration_of_roadrunner() {
    let proxy = proxy();
    let rr_yaml =
        "version: \"3\"\ninclude: [more.yaml]\nrpc: { listen: \"tcp://127.0.0.1:6001\" }\nmine: {}\n";
    let sandbox = Sandbox::behind(&proxy)
        .file(".rr.yaml", rr_yaml)
        .file("more.yaml", "version: \"3\"\nfileserver: { address: \"127.0.0.1:10101\" }\n");
    let written = sandbox.vx("init --from .rr.yaml --roadrunner v2025.0.77");
    written.succeeds_with(&["no plugin reads the section `mine`", "Created velox.toml"]);
    assert_eq!(
        headers(&sandbox),
        ["[roadrunner]", "[plugins.rpc]", "[plugins.fileserver]", "[plugins.logger]"]
    );
    assert!(sandbox.read("velox.toml").starts_with("# The plugins that .rr.yaml needs.\n"));
    sandbox.vx("build --dry-run").ok();

    let init = "init --force --from .rr.yaml --preset monitoring --plugin acme/hello --roadrunner v2025.0.77";
    sandbox.vx(init).ok();
    assert_eq!(
        headers(&sandbox),
        [
            "[roadrunner]",
            "[plugins.rpc]",
            "[plugins.fileserver]",
            "[plugins.logger]",
            "[plugins.metrics]",
            "[plugins.status]",
            "[plugins.hello]"
        ]
    );
    sandbox.vx("init --force --preset full,minimal --roadrunner v2025.0.77").ok();
    assert_eq!(headers(&sandbox).len(), 8);
    sandbox.vx("init -c x.toml --preset webb").fails_with(2, &["webb", "minimal, web, queue, grpc"]);
    sandbox.vx("init -c x.toml --from more.yaml --default").fails_with(2, &["--default"]);
    let sandbox = sandbox.file("empty.yaml", "version: \"3\"\nmine: {}\n").file("bad.yaml", "a: [");
    sandbox
        .vx("init -c x.toml --from empty.yaml --roadrunner v2025.0.77")
        .fails_with(2, &["empty.yaml:2:1", "mine"]);
    sandbox.vx("init -c x.toml --from bad.yaml").fails_with(2, &["bad.yaml:1", "invalid YAML"]);
}

#[test]
fn init_without_version_takes_newest_release() {
    let proxy = proxy();
    // Only this proxy: otherwise the newest release would be a real one.
    let sandbox = Sandbox::behind(&proxy).env("GOPROXY", proxy.url());
    sandbox.vx("init --default --format json").ok();
    assert!(sandbox.read("velox.toml").contains("ref = \"v2025.0.77\""), "{}", sandbox.read("velox.toml"));
}

#[test]
fn init_from_own_binary_rebuilds_the_same_bytes() {
    let proxy = proxy();
    let built = Sandbox::behind(&proxy).file(
        "first/velox.toml",
        "[roadrunner]\nref = \"v2025.0.77\"\n[plugins.hello]\nmodule_name = \"github.com/acme/hello\"\ntag = \"v1.0.0\"\n\
         [plugins.rpc]\nmodule_name = \"github.com/roadrunner-server/rpc/v5\"\ntag = \"v5.1.9\"\n",
    );
    built.vx("build -c first/velox.toml -o first").ok();
    built.vx("init --from first/rr").ok();
    assert_eq!(
        headers(&built),
        ["[roadrunner]", "[plugins.informer]", "[plugins.resetter]", "[plugins.rpc]", "[plugins.hello]"]
    );
    built.vx("build -o again").ok();
    assert!(built.bytes("first/rr") == built.bytes("again/rr"), "the two binaries differ");
}

#[test]
fn init_from_foreign_binary_needs_roadrunner_version() {
    let proxy = proxy();
    let sandbox = Sandbox::behind(&proxy);
    let sandbox = sandbox.files("tree", roadrunner("v2025").files());
    CommandOutput::from(sandbox.go_build("../rr").arg("./cmd/rr").current_dir(sandbox.at("tree"))).ok();
    sandbox.vx("init --from rr").fails_with(2, &["--roadrunner"]);
    sandbox.vx("init --from rr --roadrunner v2025.0.77").ok();
    assert!(headers(&sandbox).contains(&"[plugins.fileserver]".to_owned()), "{}", sandbox.read("velox.toml"));
    sandbox.vx("build --dry-run").ok();

    sandbox.vx("init --from velox.toml -c x.toml").fails_with(1, &["velox.toml"]);
}

/// Runs `vx` on a terminal, and presses `keys` again and again until it ends.
pub(crate) fn on_a_terminal(sandbox: &Sandbox, line: &str, keys: &'static [u8]) -> Option<String> {
    let vx = format!("{VX} {line}");
    let mut child = sandbox
        .command("script", &["-qefc", &vx, "/dev/null"])
        .envs([("TERM", "xterm"), ("LANG", "C.UTF-8")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .ok()?;
    let mut keyboard = child.stdin.take().unwrap();
    thread::spawn(move || {
        for _ in 0..200 {
            thread::sleep(Duration::from_millis(200));
            if keyboard.write_all(keys).is_err() {
                break;
            }
        }
    });
    let output = child.wait_with_output().unwrap();
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{shown}");
    Some(shown)
}

#[test]
fn init_on_a_terminal_asks_group_by_group() {
    let proxy = proxy();
    let sandbox = Sandbox::behind(&proxy);
    // Accepts the default of each group.
    let Some(shown) = on_a_terminal(&sandbox, "init --roadrunner v2025.0.77", b"\r") else {
        return skip("init_on_a_terminal_asks_group_by_group", "util-linux's script is not here");
    };
    assert!(shown.contains("space to select") && shown.contains("rpc"), "{shown}");
    assert_eq!(headers(&sandbox), ["[roadrunner]", "[plugins.rpc]", "[plugins.logger]"]);
}
