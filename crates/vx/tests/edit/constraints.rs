//! Version constraints in velox.toml, and the commands that move within and beyond them.

use velox_testkit::{Fault, ModuleProxy, TestForge, plugin, roadrunner};

use crate::support::sandbox::{RELEASE, Sandbox, assert_contains};

const HELLO: &str = "github.com/acme/hello";

/// A proxy with a small RoadRunner and a plugin of two majors.
fn proxy() -> ModuleProxy {
    let proxy = ModuleProxy::start();
    proxy.roadrunner(RELEASE);
    add(&proxy, &["v1.0.0", "v1.1.0", "v1.2.0-rc.1", "v2.0.0", "v2.1.0", "v2.1.3", "v2.2.0"]);
    proxy
}

fn add(proxy: &ModuleProxy, versions: &[&str]) {
    for version in versions {
        let major = version.split('.').next().unwrap();
        let module = if major == "v1" { HELLO.to_owned() } else { format!("{HELLO}/{major}") };
        proxy.module(&module, version, plugin(&module, "hello").says(version).files());
    }
}

fn modules(reference: &str) -> String {
    format!(
        "[roadrunner]\nref = \"{RELEASE}\"\n\n[plugins.hello]\nmodule_name = \"{HELLO}/v2\"\ntag = \"{reference}\" # ours\n"
    )
}

/// The version of hello in the lock.
fn locked(sandbox: &Sandbox) -> String {
    let lock = sandbox.read("velox.lock");
    let line = lock.lines().find(|line| line.contains(HELLO) && line.contains(" v")).unwrap_or_default();
    let version = line.split_whitespace().find(|word| word.starts_with('v')).unwrap_or_default();
    version.trim_matches(['"', ',']).to_owned()
}

#[test]
fn constraints_select_in_every_format() {
    let proxy = proxy();
    for (file, text, version) in [
        ("velox.toml", modules("^2.1"), "v2.2.0"),
        ("velox.toml", modules("~2.1.0"), "v2.1.3"),
        ("velox.toml", modules(">=2, <2.1"), "v2.0.0"),
        // An exact version stays exact.
        ("velox.toml", modules("v2.1.0"), "v2.1.0"),
        (
            "velox.toml",
            "[roadrunner]\nref = \"^2025.0\"\n\n[github.plugins]\nhello = { ref = \"^1\", owner = \"acme\", repository = \"hello\" }\n".to_owned(),
            "v1.1.0",
        ),
        (
            "velox.toml",
            format!("[roadrunner]\nref = \"{RELEASE}\"\n\n[github.plugins]\nhello = {{ ref = \">=1\", owner = \"acme\", repository = \"hello\" }}\n"),
            "v2.2.0",
        ),
        (
            "velox.yaml",
            format!("roadrunner:\n  ref: ~2025.0\nplugins:\n  hello:\n    module_name: {HELLO}\n    tag: \"1.0.*\"\n"),
            "v1.0.0",
        ),
        (
            "velox.json",
            format!(r#"{{"roadrunner": {{"ref": "{RELEASE}"}}, "plugins": {{"hello": {{"module_name": "{HELLO}", "tag": "^1.2.0-rc.1"}}}}}}"#),
            "v1.2.0-rc.1",
        ),
    ] {
        let sandbox = Sandbox::behind(&proxy).file(file, &text);
        sandbox.vx(&format!("lock -c {file}")).ok();
        assert_eq!(locked(&sandbox), version, "{text}");
        sandbox.vx(&format!("lock --check -c {file}")).ok();
        // The exact version is in the lock: nothing is listed again.
        proxy.forget_requests();
        sandbox.vx(&format!("build --dry-run -c {file} --locked")).ok();
        assert!(!proxy.requests().iter().any(|path| path.ends_with("/list")), "{:?}", proxy.requests());
    }
}

#[test]
fn newer_versions_leave_the_lock_until_update() {
    let proxy = proxy();
    let file = modules("^2.1");
    let sandbox = Sandbox::behind(&proxy).file("velox.toml", &file);
    sandbox.vx("lock").ok();
    add(&proxy, &["v2.3.0", "v3.0.0", "v3.1.4"]);
    sandbox.vx("lock --check").ok();
    sandbox.vx("lock").ok();
    assert_eq!(locked(&sandbox), "v2.2.0");
    insta::assert_snapshot!(sandbox.vx("outdated").ok(), @"
    NAME   REQUESTED  LOCKED  COMPATIBLE  LATEST
    hello  ^2.1       v2.2.0  v2.3.0      v3.1.4

    1 plugin is up to date (--all to show)
    ");
    // `--no-lock` leaves nothing to change.
    sandbox.vx("update --no-lock").succeeds_with(&["^2.1 of `hello` allows v2.3.0"]);
    sandbox.vx("update").succeeds_with(&["Updated hello v2.2.0 -> v2.3.0"]);
    assert_eq!((locked(&sandbox).as_str(), sandbox.read("velox.toml")), ("v2.3.0", file.clone()));
    sandbox.vx("update").succeeds_with(&["Unchanged"]);
    sandbox.vx("lock --check").ok();

    sandbox
        .vx("update --breaking hello")
        .succeeds_with(&["Updated hello ^2.1 -> ^3.1 (github.com/acme/hello/v3)"]);
    assert_eq!(sandbox.read("velox.toml"), file.replace("/v2", "/v3").replace("^2.1", "^3.1"));
    assert_eq!(locked(&sandbox), "v3.1.4");
    assert_eq!(sandbox.vx("outdated").ok(), "everything is up to date\n");
    let findings = sandbox.vx("check --offline").shown();
    assert!(!findings.contains("is a branch"), "{findings}");
}

#[test]
fn a_lock_must_have_an_allowed_version() {
    let proxy = proxy();
    let sandbox = Sandbox::behind(&proxy).file("velox.toml", modules("~2.1"));
    sandbox.vx("lock").ok();
    let narrower = sandbox.file("velox.toml", modules("~2.0"));
    narrower.vx("lock --check").fails_with(2, &["the lock has", "~2.1", "~2.0"]);
    narrower.vx("build --locked").fails(2);
    narrower.vx("lock").ok();
    assert_eq!(locked(&narrower), "v2.0.0");
    // Somebody writes another version into the lock.
    let lock = narrower.read("velox.lock").replace("v2.0.0", "v2.1.0");
    let edited = narrower.file("velox.lock", lock);
    edited.vx("lock --check").fails_with(2, &["v2.1.0"]);
}

#[test]
fn add_writes_constraints() {
    let proxy = proxy();
    let start = format!("[roadrunner]\nref = \"{RELEASE}\"\n");
    for (selector, module, reference) in [
        ("acme/hello@^1.0", HELLO.to_owned(), "^1.0"),
        ("acme/hello@~2.1", format!("{HELLO}/v2"), "~2.1"),
        ("acme/hello@>=1", format!("{HELLO}/v2"), ">=1"),
        ("github.com/acme/hello/v2@^2", format!("{HELLO}/v2"), "^2"),
        ("fileserver@^5.1", "github.com/roadrunner-server/fileserver/v5".to_owned(), "^5.1"),
    ] {
        let sandbox = Sandbox::behind(&proxy).file("velox.toml", &start);
        sandbox.vx(&format!("add {selector} --no-lock")).ok();
        let text = sandbox.read("velox.toml");
        assert_contains(&text, &[&format!("module_name = \"{module}\"\ntag = \"{reference}\"")]);
    }
    let sandbox = Sandbox::behind(&proxy).file("velox.toml", &start);
    sandbox.vx("add acme/hello@>=7").fails_with(2, &["no version of github.com/acme/hello for >=7 found"]);
    sandbox.vx("add acme/hello@^1.9").fails_with(1, &["failed to resolve ^1.9", "matches"]);
    let with = sandbox.file("velox.toml", modules("v2.0.0"));
    let shown = with.vx(&format!("build --dry-run --with {HELLO}/v2@>=2.1,<2.2")).ok();
    assert_contains(&shown, &["v2.1.3"]);
}

#[test]
fn invalid_constraints_are_shown_in_the_file() {
    let proxy = proxy();
    let shown = |reference: &str| {
        let sandbox = Sandbox::behind(&proxy).file("velox.toml", modules(reference));
        sandbox.vx("lock").fails(2)
    };
    insta::assert_snapshot!(shown("^v2.1"), @r#"
    error: invalid ref `^v2.1`
     --> velox.toml:6:7
      |
    6 | tag = "^v2.1" # ours
      |       ^^^^^^^ is not a version constraint: unexpected character 'v' while parsing major version number
      |
      = help: did you mean "^2.1"?
    "#);
    insta::assert_snapshot!(shown(">=2 <3"), @r#"
    error: invalid ref `>=2 <3`
     --> velox.toml:6:7
      |
    6 | tag = ">=2 <3" # ours
      |       ^^^^^^^^ is not a version constraint: expected comma after major version number, found '<'
      |
      = help: did you mean ">=2, <3"?
    "#);
    insta::assert_snapshot!(shown("^1.1"), @r#"
    error: `^1.1` is not a version of `github.com/acme/hello/v2`
     --> velox.toml:6:7
      |
    6 | tag = "^1.1" # ours
      |       ^^^^^^ allows no version of the module path, which ends with /v2
      |
      = help: the module path of major version v1 is "github.com/acme/hello"
    "#);
    let sandbox = Sandbox::behind(&proxy).file("velox.toml", modules("^2.9"));
    insta::assert_snapshot!(sandbox.vx("lock").fails(1), @r#"
    error: failed to resolve ^2.9 of plugin hello: no version of github.com/acme/hello/v2 matches
     --> velox.toml:6:7
      |
    6 | tag = "^2.9" # ours
      |       ^^^^^^ requested here
      |
      = help: the newest version is v2.2.0
    "#);
    sandbox.vx("lock --offline").fails_with(1, &["`--offline` forbids listing the versions"]);
    // Only a pre-release is left.
    add(&proxy, &["v2.9.0-rc.1"]);
    sandbox.vx("lock").fails_with(1, &["a pre-release has to be named: v2.9.0-rc.1"]);
}

#[test]
fn proxies_that_refuse_version_lists_are_named() {
    let proxy = proxy();
    let sandbox = Sandbox::behind(&proxy).env("GOPROXY", proxy.url()).file("velox.toml", modules("^2.1"));
    proxy.fail("acme/hello/v2/@v/list", Fault::Status(403));
    sandbox.vx("lock").fails_with(
        1,
        &[
            "failed to resolve ^2.1 of plugin hello: failed to list its versions: ",
            "403 Forbidden",
            "  |       ^^^^^^ requested here",
            "without the list of its versions, name a tag instead of the constraint, or set another proxy in GOPROXY",
        ],
    );
    proxy.heal();
    let sandbox = Sandbox::behind(&proxy).file("velox.toml", modules("^2.1"));
    sandbox.vx("lock").ok();
    // The lock needs no list.
    proxy.fail("@v/list", Fault::Status(403));
    sandbox.vx("build --dry-run").ok();
    // A tag needs none either.
    let exact = sandbox.file("velox.toml", modules("v2.1.0"));
    exact.vx("lock").ok();
}

#[test]
fn tags_of_self_hosted_forges_are_constrained() {
    let forge = TestForge::start();
    let repository = forge.github("roadrunner-server/roadrunner");
    roadrunner("v2025").commit_to(&repository).tag(RELEASE).tag("v2025.1.0");
    let repository = forge.github("acme/hello");
    repository.files(plugin("127.0.0.1/acme/hello", "hello").files());
    repository.commit("first").tag("v1.0.0").tag("v1.1.0");
    repository.files(plugin("127.0.0.1/acme/hello/v2", "hello").files()).commit("second").tag("v2.0.0");
    let file = |reference: &str| {
        format!(
            "[roadrunner]\nref = \"=2025.0.77\"\n\n[github.endpoint]\nendpoint = \"{}\"\n\n\
             [github.plugins]\nhello = {{ ref = \"{reference}\", owner = \"acme\", repository = \"hello\" }}\n",
            forge.github_url(),
        )
    };
    let sandbox = Sandbox::new().own_module_cache().file("velox.toml", file("^1"));
    let shown = |sandbox: &Sandbox| sandbox.vx("outdated").ok();
    insta::assert_snapshot!(shown(&sandbox), @"
    NAME        REQUESTED   LOCKED  COMPATIBLE  LATEST
    roadrunner  =2025.0.77  -       v2025.0.77  v2025.1.0
    hello       ^1          -       v1.1.0      v2.0.0
    ");
    sandbox.vx("lock").ok();
    assert_contains(&sandbox.read("velox.lock"), &["127.0.0.1/acme/hello v1.1.0"]);
}
