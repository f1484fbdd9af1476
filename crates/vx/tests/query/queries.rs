//! The queries: `vx search`, `list`, `why`, `tree`, `inspect` and `check`.

use std::fs;

use crate::support::sandbox::{CommandOutput, RELEASE, Sandbox};
use serde_json::{Value, json};
use velox_testkit::{ModuleProxy, plugin, roadrunner};

/// A proxy with a small RoadRunner, two plugins, and a library that both require at different versions.
fn proxy() -> ModuleProxy {
    let proxy = ModuleProxy::start();
    proxy.roadrunner(RELEASE);
    let lib = "example.com/acme/lib";
    for version in ["v1.0.0", "v1.2.0"] {
        proxy.plugin(lib, version);
    }
    let hello = "example.com/acme/hello";
    proxy.module(hello, "v1.0.0", plugin(hello, "hello").imports(lib, "v1.0.0").files());
    let bye = "example.com/acme/bye";
    for version in ["v1.0.0", "v1.1.0"] {
        proxy.module(bye, version, plugin(bye, "bye").imports(lib, "v1.2.0").files());
    }
    proxy.query(bye, "main", "v1.0.0");
    proxy
}

fn machine(proxy: &ModuleProxy) -> Sandbox {
    Sandbox::behind(proxy).env("LANG", "C.UTF-8")
}

/// Plugins as `name, module, tag`.
fn configuration(plugins: &[[&str; 3]]) -> String {
    let plugins: String = plugins
        .iter()
        .map(|[name, module, tag]| {
            format!("\n[plugins.{name}]\nmodule_name = \"{module}\"\ntag = \"{tag}\"\n")
        })
        .collect();
    format!("[roadrunner]\nref = \"{RELEASE}\"\n{plugins}")
}

const HELLO: [&str; 3] = ["hello", "example.com/acme/hello", "v1.0.0"];
const BYE: [&str; 3] = ["bye", "example.com/acme/bye", "v1.0.0"];
const LOGGER: [&str; 3] = ["logger", "github.com/roadrunner-server/logger/v5", "v5.1.9"];

/// Exit code and streams in snapshot format.
fn shown(ran: &CommandOutput) -> String {
    ran.shown()
}

fn events(ran: &CommandOutput) -> Vec<Value> {
    ran.events()
}

/// Replaces times, the Go version and this machine's target.
macro_rules! snapshot {
    ($name:literal, $value:expr) => {
        insta::with_settings!({filters => vec![
            (r" in (\d+h )?(\d+m )?\d+(\.\d)?s", " in [TIME]"),
            (r"go1\.\d+(\.\d+)?", "[GO]"),
            (r"Go 1\.\d+(\.\d+)?", "Go [VERSION]"),
            (r"(?:linux|darwin|windows)/(?:amd64|arm64)", "[TARGET]"),
            (r"GO(AMD64|ARM64)=v[0-9.]+", "[LEVEL]"),
        ]}, { insta::assert_snapshot!($name, $value) })
    };
}

#[test]
fn search_finds_catalogue_plugins() {
    let sandbox = Sandbox::new();
    snapshot!("search_all", shown(&sandbox.vx("search")));
    snapshot!("search_kafka", shown(&sandbox.vx("search kafka")));
    snapshot!("search_words", shown(&sandbox.vx("search job queues")));
    snapshot!("search_deprecated", shown(&sandbox.vx("search websocket")));
    snapshot!("search_typo", shown(&sandbox.vx("search premetheus")));
    let found = events(&sandbox.vx("search souin --format json"));
    assert_eq!(found.len(), 1);
    assert_eq!(found[0]["module"], "github.com/darkweak/souin/plugins/roadrunner");
    assert_eq!((&found[0]["status"], &found[0]["group"]), (&json!("third-party"), &json!("HTTP")));
}

#[test]
fn list_compares_the_file_the_lock_and_the_release() {
    let proxy = proxy();
    let older = ["rpc", "github.com/roadrunner-server/rpc/v5", "v5.1.8"];
    let sandbox = machine(&proxy).file("velox.toml", configuration(&[HELLO, older, LOGGER]));
    snapshot!("list_without_a_lock", shown(&sandbox.vx("list")));
    assert!(!sandbox.has("velox.lock"));

    let sandbox = sandbox.file("velox.toml", configuration(&[HELLO, LOGGER]));
    sandbox.vx("lock").ok();
    snapshot!("list_all", shown(&sandbox.vx("list --all")));
    proxy.forget_requests();
    sandbox.vx("list --offline").ok();
    assert_eq!(proxy.requests(), [""; 0]);

    let sandbox = sandbox.file("velox.toml", configuration(&[BYE, LOGGER]));
    snapshot!("list_after_a_change", shown(&sandbox.vx("list")));
    let list = &events(&sandbox.vx("list --format json"))[0];
    assert_eq!((&list["event"], &list["release"]), (&json!("list"), &json!(RELEASE)));
    assert_eq!(list["plugins"][0]["asked"], "v1.0.0");
    assert!(list["differences"][0].as_str().unwrap().contains("plugin bye"));
}

#[test]
fn list_works_without_the_release() {
    let proxy = proxy();
    let sandbox = machine(&proxy).file("velox.toml", configuration(&[HELLO]));
    let ran = sandbox.vx("list --offline");
    assert!(
        ran.ok().contains("hello       v1.0.0      -       -         example.com/acme/hello"),
        "{}",
        ran.stdout()
    );
    assert!(ran.stderr().contains("failed to read the RoadRunner release"), "{}", ran.stderr());
}

#[test]
fn why_and_tree_show_requirements() {
    let proxy = proxy();
    let sandbox = machine(&proxy).file("velox.toml", configuration(&[HELLO, BYE]));
    sandbox.vx("lock").ok();
    snapshot!("why_a_library", shown(&sandbox.vx("why example.com/acme/lib")));
    snapshot!("why_a_plugin", shown(&sandbox.vx("why hello")));
    snapshot!("why_by_the_last_part", shown(&sandbox.vx("why goridge -q")));
    assert!(
        sandbox.vx("why github.com/roadrunner-server/informer/v4").ok().contains("informer/v5 v5.1.9 is")
    );
    snapshot!("why_no_such_module", shown(&sandbox.vx("why goridgee")));
    snapshot!("tree", shown(&sandbox.vx("tree")));
    snapshot!("tree_depth_0", shown(&sandbox.vx("tree --depth 0")));
    // A terminal without UTF-8 gets ASCII.
    let ascii = sandbox.env("LANG", "C");
    assert!(ascii.vx("tree --depth 1").ok().contains("\n`-- example.com/acme/lib v1.2.0\n"));
    assert!(ascii.vx("tree").ok().is_ascii());

    let why = &events(&ascii.vx("why lib --format json"))[0];
    assert_eq!((&why["version"], &why["compiled"]), (&json!("v1.2.0"), &json!(true)));
    assert_eq!(why["demanded"][0]["by"], json!({ "module": "example.com/acme/bye", "version": "v1.0.0" }));
    assert_eq!(why["chains"][0][1]["module"], "example.com/acme/lib");
    let tree = &events(&ascii.vx("tree --depth 1 --format json"))[0];
    assert_eq!(tree["modules"]["example.com/acme/hello"]["requires"], json!(["example.com/acme/lib"]));
    assert_eq!(tree["modules"]["example.com/acme/lib"]["requires"], json!([]));
}

/// Compared with `go list` over the same go.mod.
#[test]
fn the_module_graph_matches_the_go_command() {
    let proxy = proxy();
    let sandbox = machine(&proxy).file("velox.toml", configuration(&[HELLO, BYE, LOGGER]));
    sandbox.vx("lock").ok();
    let dry = sandbox.vx("build --dry-run").ok();
    let go_mod = dry.split_once("\nmodule ").unwrap().1;
    let sandbox = sandbox.file("m/go.mod", format!("module {go_mod}"));
    let listed = sandbox.run("go -C m list -mod=mod -m all");
    let tree = &events(&sandbox.vx("tree --all --format json"))[0];
    let modules = tree["modules"].as_object().unwrap();
    assert!(modules.len() > 60, "{}", modules.len());
    for (path, module) in modules {
        let line = format!("\n{path} {}\n", module["version"].as_str().unwrap());
        assert!(listed.contains(&line), "{line}{listed}");
    }
}

#[test]
fn missing_go_mod_files_are_downloaded() {
    let proxy = proxy();
    let sandbox = machine(&proxy).file("velox.toml", configuration(&[HELLO, BYE]));
    sandbox.vx("lock").ok();
    let lock = sandbox.read("velox.lock");
    let other = machine(&proxy).file("velox.toml", configuration(&[HELLO, BYE])).file("velox.lock", &lock);
    assert_eq!(other.vx("tree").ok(), sandbox.vx("tree").ok());
    assert_eq!(other.read("velox.lock"), lock);
    let third = machine(&proxy).file("velox.toml", configuration(&[HELLO, BYE])).file("velox.lock", &lock);
    third.vx("why lib --offline").fails_with(1, &["--offline"]);
}

#[test]
fn a_directory_is_part_of_the_graph() {
    let proxy = proxy();
    let sandbox = machine(&proxy).file("velox.toml", configuration(&[HELLO]) + "replace = \"./mine\"\n");
    let needy = plugin("example.com/acme/hello", "hello").imports("example.com/acme/lib", "v1.2.0");
    let sandbox = sandbox.files("mine", needy.files());
    let tree = sandbox.vx("tree --depth 1").ok();
    assert!(
        tree.contains("example.com/acme/hello v1.0.0 => ./mine\n└── example.com/acme/lib v1.2.0\n"),
        "{tree}"
    );
    assert!(sandbox.vx("list").ok().contains("example.com/acme/hello"));
}

#[test]
fn inspect_shows_the_contents_of_a_binary() {
    let proxy = proxy();
    let text = configuration(&[HELLO, BYE, LOGGER])
        + "\n[[replaces]]\nold = \"example.com/acme/lib\"\nnew = \"example.com/acme/lib@v1.0.0\"\n";
    let sandbox = machine(&proxy).file("velox.toml", text);
    sandbox.vx("build --stamp-version 1.2.3 --stamp-time 2025-01-02T03:04:05Z").ok();
    snapshot!("inspect", shown(&sandbox.vx("inspect rr")));
    let all = sandbox.vx("inspect rr --all").ok();
    assert!(all.contains("example.com/acme/lib => example.com/acme/lib v1.0.0"), "{all}");
    let inspected = &events(&sandbox.vx("inspect rr --format json"))[0];
    assert_eq!(inspected["event"], "inspected");
    assert_eq!((&inspected["version"], &inspected["by_vx"]), (&json!(RELEASE), &json!(true)));
    assert_eq!(
        (&inspected["stamp_version"], &inspected["stamp_time"]),
        (&json!("1.2.3"), &json!("2025-01-02T03:04:05Z"))
    );
    let plugins: Vec<_> =
        inspected["plugins"].as_array().unwrap().iter().map(|plugin| &plugin["name"]).collect();
    assert_eq!(plugins, ["bye", "hello", "informer", "logger", "resetter"]);

    // A binary not built by vx has less information.
    let sandbox = sandbox.env("CGO_ENABLED", "0");
    let mut sandbox = sandbox.files("tree", roadrunner("v2025").files());
    sandbox.run("go -C tree build -trimpath -o ../foreign ./cmd/rr");
    snapshot!("inspect_a_foreign_binary", shown(&sandbox.vx("inspect foreign")));

    // A truncated binary is reported or read in part.
    let whole = sandbox.bytes("rr");
    for length in [0, 1, 4, 63, 64, 4096, whole.len() / 3, whole.len() / 2, whole.len() - 1] {
        sandbox = sandbox.file("cut", &whole[..length]);
        let ran = sandbox.vx("inspect cut");
        assert!(matches!(ran.code(), Some(0 | 1)), "{length}: {}", shown(&ran));
        assert!(!ran.stderr().contains("panicked"), "{}", ran.stderr());
    }
}

#[test]
fn inspect_takes_any_file() {
    let sandbox = Sandbox::new()
        .file("empty", "")
        .file("text", "[roadrunner]\n")
        .file(
            "garbage",
            (0..100_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect::<Vec<_>>(),
        )
        .file("elf", [b"\x7fELF\x02\x01\x01".as_slice(), &[0xff; 500]].concat())
        .file("magic", b"\xff Go buildinf:\x08\x02".repeat(1000));
    let huge = fs::File::create(sandbox.at("huge")).unwrap();
    // A sparse file: large, but without data.
    huge.set_len(1 << 40).unwrap();
    fs::create_dir(sandbox.at("directory")).unwrap();
    sandbox.run("mkfifo pipe");
    let mut text = String::new();
    for file in
        ["empty", "text", "garbage", "elf", "magic", "huge", "directory", "pipe", "missing", "/dev/zero"]
    {
        let ran = sandbox.vx(&format!("inspect {file}"));
        text += &format!("$ vx inspect {file}\n{}\n", shown(&ran));
        assert_eq!(ran.code(), Some(1));
    }
    let go = sandbox.run("go env GOROOT");
    let ran = sandbox.vx(&format!("inspect {}/bin/go", go.trim()));
    assert!(
        ran.fails(1).contains("is not a RoadRunner binary: its main module is cmd/go"),
        "{}",
        ran.stderr()
    );
    snapshot!("inspect_any_file", text);
}

/// Plugins of another major version, for other interfaces, at a raised version, at a branch, and deprecated.
#[test]
fn check_finds_problems() {
    let proxy = proxy();
    let (status, ws) =
        ("github.com/roadrunner-server/status/v4", "github.com/roadrunner-server/websockets/v3");
    proxy.plugin(status, "v4.9.0").plugin(ws, "v3.0.1");
    let (endure, api) = ("github.com/roadrunner-server/endure", "github.com/roadrunner-server/api/v3");
    proxy.plugin(endure, "v1.4.5").plugin(api, "v3.0.0");
    let old = "example.com/acme/old";
    let files = plugin(old, "old")
        .requires(endure, "v1.4.5")
        .requires(api, "v3.0.0")
        .requires("example.com/acme/bye", "v1.1.0")
        .files();
    proxy.module(old, "v0.1.0", files);
    let plugins = [
        ["bye", "example.com/acme/bye", "v1.0.0"],
        ["hello", "example.com/acme/hello", "v1.0.0"],
        ["old", old, "v0.1.0"],
        ["status", status, "v4.9.0"],
        ["ws", ws, "v3.0.1"],
    ];
    let sandbox = machine(&proxy).file("velox.toml", configuration(&plugins));
    let ran = sandbox.vx("check --offline");
    assert!(
        ran.fails(1).is_empty() || ran.stdout().contains("can't resolve"),
        "offline, nothing is cached yet"
    );
    sandbox.vx("lock").ok();
    snapshot!("check", shown(&sandbox.vx("check --offline")));
    let found = events(&sandbox.vx("check --offline --format json"));
    let rules: Vec<_> = found.iter().map(|event| (&event["rule"], &event["level"], &event["line"])).collect();
    let expected = [
        (json!("raised"), json!("warning"), json!(6)),
        (json!("interface"), json!("error"), json!(14)),
        (json!("interface"), json!("error"), json!(14)),
        (json!("plugin_major"), json!("error"), json!(18)),
        (json!("deprecated"), json!("warning"), json!(20)),
        (json!("plugin_major"), json!("error"), json!(22)),
    ];
    assert_eq!(rules[..6], expected.each_ref().map(|(a, b, c)| (a, b, c)));
    let last = found.last().unwrap();
    assert_eq!(
        (&last["event"], &last["errors"], &last["warnings"]),
        (&json!("checked"), &json!(4), &json!(2))
    );

    // A dry run compares the majors, too, with those of a RoadRunner that it downloads if the lock alone is there.
    let warning =
        "warning: plugin status has major version v4, but the plugins of RoadRunner v2025.0.77 have v5";
    sandbox.vx("build --dry-run --offline").succeeds_with(&[warning]);
    let empty = sandbox.at("empty");
    let sandbox = sandbox.cold().env("GOMODCACHE", empty);
    assert!(!sandbox.vx("build --dry-run --offline").stderr().contains(warning));
    sandbox.vx("build --dry-run").succeeds_with(&[warning]);
}

#[test]
fn check_warns_of_branches_but_not_of_tags() {
    let proxy = proxy();
    let sandbox =
        machine(&proxy).file("velox.toml", configuration(&[["bye", "example.com/acme/bye", "main"]]));
    sandbox.vx("check --offline").fails(1);
    sandbox.vx("fetch").ok();
    snapshot!("check_a_branch", shown(&sandbox.vx("check --offline")));
    sandbox.vx("check --offline --deny-warnings").fails(1);

    let sandbox = sandbox.file("velox.toml", configuration(&[BYE, HELLO, LOGGER]));
    sandbox.vx("fetch").ok();
    snapshot!("check_nothing_wrong", shown(&sandbox.vx("check --offline --deny-warnings")));
}

#[test]
fn check_finds_missing_refs() {
    let proxy = proxy();
    let text = configuration(&[["hello", "example.com/acme/hello", "v1.9.9"]]);
    let sandbox = machine(&proxy).env("GOPROXY", proxy.url()).file("velox.toml", text);
    let ran = sandbox.vx("check");
    assert_eq!(ran.code(), Some(1));
    assert!(ran.stdout().contains("--> velox.toml:6:7"), "{}", ran.stdout());
    assert!(ran.stdout().contains("error: failed to resolve v1.9.9 of plugin hello"), "{}", ran.stdout());
    assert!(!sandbox.has("velox.lock"));
    // An invalid configuration exits with 2.
    let sandbox = sandbox.file("velox.toml", "[roadrunner]\nreff = 'x'\n");
    sandbox.vx("check").fails(2);
}
