//! `vx upgrade`: an installed binary moves to newer versions.

#![cfg(unix)]

use std::{
    fs,
    io::{BufRead as _, BufReader},
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
    process::Stdio,
};

use serde_json::Value;
use velox_testkit::{Files, ModuleProxy, plugin, roadrunner_with};

use crate::support::sandbox::{CommandOutput, Sandbox, assert_contains};

const HELLO: &str = "example.com/acme/hello";
const OLD: &str = "v2024.9.1";
const NEW: &str = "v2025.0.78";

/// Starts the plugins, and listens on the first address of the configuration.
const MAIN: &str = r#"package main

import (
	"fmt"
	"net"
	"os"
	"os/signal"
	"regexp"
	"syscall"

	"MODULE/container"
	"MODULE/internal/meta"
)

func main() {
	if len(os.Args) < 2 || os.Args[1] != "serve" {
		fmt.Printf("rr version %s (build time: %s)\n", meta.Version(), meta.BuildTime())
		return
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	text, err := os.ReadFile(os.Args[3])
	if err == nil {
		for _, plugin := range container.Plugins() {
			if err = plugin.(interface{ Init() error }).Init(); err != nil {
				break
			}
		}
	}
	if err == nil {
		_, err = net.Listen("tcp", string(regexp.MustCompile(`address"?: *"([^"]+)"`).FindSubmatch(text)[1]))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println("[INFO] RoadRunner server started; version: " + meta.Version())
	<-stop
}
"#;

fn tree(version: &str, plugins: &str) -> velox_testkit::RoadRunnerTree {
    let major = version.split('.').next().unwrap();
    let modules =
        ["informer", "resetter"].map(|name| format!("github.com/roadrunner-server/{name}/{plugins}"));
    let required =
        modules.each_ref().map(|path| (path.as_str(), if plugins == "v6" { "v6.0.0" } else { "v5.1.9" }));
    let tree = roadrunner_with(major, &required);
    let main = MAIN.replace("MODULE", tree.module());
    tree.file("cmd/rr/main.go", main)
}

/// hello at two versions, a pre-release and another major; RoadRunner at two releases, a pre-release, and another
/// generation.
fn proxy() -> ModuleProxy {
    let proxy = ModuleProxy::start();
    for name in ["informer", "resetter"] {
        proxy.plugin(&format!("github.com/roadrunner-server/{name}/v5"), "v5.1.9");
        proxy.plugin(&format!("github.com/roadrunner-server/{name}/v6"), "v6.0.0");
    }
    for (version, plugins) in [(OLD, "v5"), (NEW, "v5"), ("v2025.1.0-rc.1", "v5"), ("v3.0.0", "v6")] {
        let tree = tree(version, plugins);
        proxy.module(tree.module(), version, tree.files());
    }
    for version in ["v1.0.0", "v1.1.0", "v1.2.0-beta.1"] {
        proxy.module(HELLO, version, plugin(HELLO, "hello").files());
    }
    let second = format!("{HELLO}/v2");
    proxy.module(&second, "v2.0.0", plugin(&second, "hello").files());
    proxy
}

fn failing(init: &str) -> Files {
    let mut files = plugin(HELLO, "hello").files();
    let source = format!(
        "package hello\n\nimport \"errors\"\n\nvar _ = errors.New\n\ntype Plugin struct{{}}\n\n\
         func (*Plugin) Init() error {{ return {init} }}\n"
    );
    files.insert("plugin.go".to_owned(), source.into_bytes());
    files
}

fn configuration() -> String {
    format!(
        "[roadrunner]\nref = \"{OLD}\" # ours\n\n[plugins.hello]\nmodule_name = \"{HELLO}\"\ntag = \"v1.0.0\"\n"
    )
}

/// A machine with an old binary that runs with `.rr.yaml`, and without a velox.toml.
fn machine(proxy: &ModuleProxy) -> Sandbox {
    let sandbox = Sandbox::behind(proxy).file("velox.toml", configuration());
    sandbox.vx("build -q -o bin").ok();
    for file in ["velox.toml", "velox.lock"] {
        fs::remove_file(sandbox.at(file)).unwrap();
    }
    sandbox.file(
        ".rr.yaml",
        "version: \"3\"\nhttp: { address: \"127.0.0.1:0\" }\nservice: { a: { command: x } }\n",
    )
}

fn event(output: &CommandOutput, name: &str) -> Value {
    output.events().into_iter().find(|event| event["event"] == name).unwrap()
}

fn version(sandbox: &Sandbox, binary: &str) -> String {
    sandbox.run(&format!("{} --version", sandbox.at(binary).display())).split(' ').nth(2).unwrap().to_owned()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_binary_is_upgraded_and_rolled_back() {
    let proxy = proxy();
    let sandbox = machine(&proxy);
    fs::rename(sandbox.at("bin/rr"), sandbox.at("bin/rr-1")).unwrap();
    fs::set_permissions(sandbox.at("bin/rr-1"), fs::Permissions::from_mode(0o751)).unwrap();
    symlink("bin/rr-1", sandbox.at("rr")).unwrap();

    let checked = sandbox.vx("upgrade --check --format json");
    checked.fails(1);
    let event_of = event(&checked, "upgrade_available");
    assert_eq!((&event_of["up_to_date"], &event_of["config"]), (&false.into(), &Value::Null));
    let moved: Vec<String> = event_of["changes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|change| format!("{} {} {}", change["name"], change["from"], change["to"]).replace('"', ""))
        .collect();
    assert_eq!(moved, [format!("roadrunner {OLD} {NEW}"), "hello v1.0.0 v1.1.0".to_owned()]);
    let dry = sandbox.vx("upgrade --dry-run");
    assert_eq!(dry.ok(), format!("roadrunner  {OLD}  ->  {NEW}\nhello       v1.0.0     ->  v1.1.0\n"));
    assert_contains(
        &dry.stderr(),
        &["RoadRunner v3.0.0 needs plugins of major version v6: `vx upgrade --to v3.0.0`"],
    );
    assert_eq!(version(&sandbox, "rr"), "2024.9.1");

    // The old binary runs meanwhile.
    let mut server = sandbox.command(sandbox.at("rr"), &["serve", "-c", ".rr.yaml"]);
    let mut server = server.stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(server.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let upgraded = sandbox.vx("upgrade -c .rr.yaml");
    let text = upgraded.ok();
    let expected = format!(
        "| | from | to |\n|---|---|---|\n| RoadRunner | `{OLD}` | `{NEW}` |\n| `hello` | `v1.0.0` | `v1.1.0` |\n"
    );
    assert_contains(&text, &[&expected, "rr-1 is upgraded; `vx upgrade --rollback` puts "]);
    assert_contains(&upgraded.stderr(), &["starting the new binary on free ports", "it started in "]);
    assert!(server.try_wait().unwrap().is_none(), "the old one still runs");
    server.kill().unwrap();
    server.wait().unwrap();
    assert_eq!(
        (version(&sandbox, "rr"), version(&sandbox, "bin/rr-1.previous")),
        ("2025.0.78".into(), "2024.9.1".into())
    );
    assert!(sandbox.at("rr").is_symlink());
    assert_eq!((mode(&sandbox.at("bin/rr-1")), mode(&sandbox.at("bin/rr-1.previous"))), (0o751, 0o751));
    assert_eq!(sandbox.entries("."), [".rr.yaml", "bin", "rr"]);
    assert_eq!(sandbox.entries("bin"), ["rr-1", "rr-1.previous"]);

    sandbox.vx("upgrade").succeeds_with(&["rr is up to date"]);
    sandbox.vx("upgrade --check").ok();
    sandbox.vx("upgrade --rollback").ok();
    assert_eq!(version(&sandbox, "rr"), "2024.9.1");
    let event_of = event(&sandbox.vx("upgrade --rollback --format json"), "rolled_back");
    assert!(event_of["previous"].as_str().unwrap().ends_with("bin/rr-1.previous"));
    assert_eq!(version(&sandbox, "rr"), "2025.0.78");
    // Of a deleted binary, the link is enough.
    fs::remove_file(sandbox.at("bin/rr-1")).unwrap();
    let rolled_back = sandbox.vx("upgrade --rollback");
    assert_eq!(
        rolled_back.ok(),
        format!("{} is the previous binary again\n", sandbox.at("bin/rr-1").display())
    );
    assert_eq!(
        (version(&sandbox, "rr"), sandbox.entries("bin")),
        ("2024.9.1".into(), vec!["rr-1".to_owned()])
    );

    // Other generations and pre-releases if they are named.
    sandbox.vx("upgrade --to v3 -q").ok();
    assert_eq!(version(&sandbox, "rr"), "3.0.0");
    sandbox.vx("upgrade --to v2025.1.0-rc.1 -q").ok();
    assert_eq!(version(&sandbox, "rr"), "2025.1.0-rc.1");
}

#[test]
fn nothing_is_replaced_if_anything_fails() {
    let proxy = proxy();
    let sandbox = machine(&proxy);
    let before = sandbox.bytes("bin/rr");
    let is_unchanged = || {
        assert_eq!(sandbox.bytes("bin/rr"), before);
        assert_eq!(sandbox.entries("bin"), ["rr"]);
    };
    proxy.module(HELLO, "v1.3.0", failing("errors.New(\"no database\")"));
    let fails = sandbox.vx("upgrade bin/rr -c .rr.yaml");
    let why = "the server does not start with .rr.yaml: it ended (exit status: 1)";
    fails.fails_with(1, &[why, "no database", "bin/rr was not changed"]);
    is_unchanged();
    proxy.module(HELLO, "v1.4.0", failing("missing"));
    sandbox.vx("upgrade bin/rr").fails_with(1, &["undefined: missing", "bin/rr was not changed"]);
    is_unchanged();
    // A configuration that RoadRunner can't read, and files that are none.
    let sandbox = sandbox.file("broken.rr.yaml", "version: \"3\"\nhttp: [\n").file("text", "");
    sandbox.vx("upgrade bin/rr --rr-config none.yaml").fails_with(2, &["none.yaml"]);
    sandbox.vx("upgrade none").fails_with(2, &["none", "name an installed RoadRunner binary"]);
    sandbox.vx("upgrade text").fails_with(2, &["it is not executable"]);
    sandbox.vx("upgrade bin").fails_with(2, &["it is not a file"]);
    sandbox.vx("upgrade /bin/sh").fails(1);
    sandbox.vx("upgrade bin/rr --rollback").fails_with(2, &["there is no ", "rr.previous"]);
    sandbox.vx("upgrade bin/rr --to v3 --security").fails(2);
    assert_eq!(sandbox.bytes("bin/rr"), before);
}

#[test]
fn velox_toml_is_updated_with_its_binary() {
    let proxy = proxy();
    let sandbox = Sandbox::behind(&proxy).file("velox.toml", configuration());
    sandbox.vx("build -q -o bin").ok();
    let upgraded = sandbox.vx("upgrade bin/rr");
    assert_contains(&upgraded.ok(), &["| `hello` | `v1.0.0` | `v1.1.0` |\n"]);
    assert_contains(&upgraded.stderr(), &["velox.toml and its lock are updated together with the binary"]);
    let expected = configuration().replace(OLD, NEW).replace("v1.0.0", "v1.1.0");
    assert_eq!(sandbox.read("velox.toml"), expected);
    sandbox.vx("lock --check").ok();
    assert_eq!(
        (version(&sandbox, "bin/rr"), version(&sandbox, "bin/rr.previous")),
        ("2025.0.78".into(), "2024.9.1".into())
    );
    // It is the binary of the configuration.
    let installed = sandbox.bytes("bin/rr");
    sandbox.vx("build -q -o again").ok();
    assert_eq!(sandbox.bytes("again/rr"), installed);
    sandbox.vx("upgrade bin/rr").succeeds_with(&["is up to date"]);
    // After a rollback the binary is older than the lock.
    sandbox.vx("upgrade bin/rr --rollback").ok();
    sandbox.vx("upgrade bin/rr --check").fails(1);
    sandbox.vx("upgrade bin/rr").ok();
    assert_eq!(sandbox.bytes("bin/rr"), installed);

    // A configuration without a plugin of the binary is another one.
    let other = configuration().replace("hello", "bye");
    let sandbox = sandbox.file("velox.toml", &other);
    fs::remove_file(sandbox.at("velox.lock")).unwrap();
    sandbox.vx("upgrade bin/rr").fails_with(2, &["the binary has plugins that ", "velox.toml lacks: hello"]);
    assert_eq!((sandbox.read("velox.toml"), sandbox.bytes("bin/rr")), (other, installed));
}

#[test]
fn a_binary_of_another_tool_is_upgraded() {
    let proxy = proxy();
    let module = "github.com/roadrunner-server/roadrunner/v2024";
    let container = format!(
        "package container\n\nimport (\n\thello {HELLO:?}\n\tinformer \"github.com/roadrunner-server/informer/v5\"\n\t\
         resetter \"github.com/roadrunner-server/resetter/v5\"\n)\n\nfunc Plugins() []any {{\n\t\
         return []any{{&hello.Plugin{{}}, &informer.Plugin{{}}, &resetter.Plugin{{}}}}\n}}\n"
    );
    let tree = tree(OLD, "v5").file("container/plugins.go", container);
    let sandbox = Sandbox::behind(&proxy).files("tree", tree.files()).env("GOFLAGS", "-mod=mod");
    sandbox.run(&format!("go -C tree get {HELLO}@v1.0.0"));
    let flags = format!("-s -w -X {module}/internal/meta.version=2024.9.1");
    sandbox.run(&format!("go -C tree build -o ../bin/rr -ldflags '{flags}' ./cmd/rr"));
    let sandbox = sandbox.without("GOFLAGS");
    let upgraded = sandbox.vx("upgrade bin/rr");
    let versions = format!("| RoadRunner | `{OLD}` | `{NEW}` |\n| `hello` | `v1.0.0` | `v1.1.0` |\n");
    assert_contains(&upgraded.ok(), &[&versions]);
    assert_eq!(version(&sandbox, "bin/rr"), "2025.0.78");
    assert_eq!(sandbox.module_in("bin/rr", HELLO).as_deref(), Some("v1.1.0"));

    // Without a version, the wanted one is named.
    sandbox.run(&format!("go -C tree build -o ../bin/unknown -trimpath -ldflags '{flags}' ./cmd/rr"));
    let unknown = sandbox.vx("upgrade bin/unknown");
    unknown.fails_with(2, &["does not contain its RoadRunner version", "--to v2025.1.15"]);
    let planned = sandbox.vx(&format!("upgrade bin/unknown --to {NEW} --dry-run")).ok();
    assert_eq!(planned, format!("roadrunner  -  ->  {NEW}\n"));
    sandbox.vx(&format!("upgrade bin/unknown --to {NEW} -q")).ok();
    assert_eq!(version(&sandbox, "bin/unknown"), "2025.0.78");
}
