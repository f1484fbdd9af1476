//! `vx bisect`: finds the change between two locks that breaks a test.

use std::fs;

use serde_json::Value;
use velox_testkit::{Files, ModuleProxy, plugin, roadrunner_with};

use crate::support::sandbox::{CommandOutput, Sandbox, assert_contains};

const RELEASES: [&str; 2] = ["v2025.0.77", "v2025.0.78"];

/// Starts the plugins, and exits with 1 if one fails.
const MAIN: &str = "package main

import (
	\"fmt\"
	\"os\"

	\"github.com/roadrunner-server/roadrunner/v2025/container\"
	\"github.com/roadrunner-server/roadrunner/v2025/internal/meta\"
)

func main() {
	fmt.Printf(\"rr version %s (build time: %s)\\n\", meta.Version(), meta.BuildTime())
	if os.Args[1] != \"check\" {
		return
	}
	for _, plugin := range container.Plugins() {
		if err := plugin.(interface{ Init() error }).Init(); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
	}
}
";

/// A proxy with two releases whose `rr check` starts all plugins.
fn proxy() -> ModuleProxy {
    let proxy = ModuleProxy::start();
    for release in RELEASES {
        let added = ["informer", "resetter"].map(|name| format!("github.com/roadrunner-server/{name}/v5"));
        for path in &added {
            proxy.plugin(path, "v5.1.9");
        }
        let required = added.each_ref().map(|path| (path.as_str(), "v5.1.9"));
        let tree = roadrunner_with("v2025", &required).file("cmd/rr/main.go", MAIN);
        proxy.module(tree.module(), release, tree.files());
    }
    proxy
}

/// A plugin with this `Init`, and imports of modules.
fn starting(path: &str, init: &str, imports: &[(&str, &str)]) -> Files {
    let built = imports
        .iter()
        .fold(plugin(path, "any"), |plugin, (module, version)| plugin.requires(module, version));
    let mut files = built.files();
    let imports: String = imports.iter().map(|(module, _)| format!("import {module:?}\n")).collect();
    let package = path.rsplit('/').next().unwrap();
    let source = format!(
        "package {package}\n\nimport \"errors\"\nimport \"os\"\n{imports}\nvar _, _ = errors.New, os.Getenv\n\n\
         type Plugin struct{{}}\n\nfunc (*Plugin) Init() error {{\n\t{init}\n}}\n"
    );
    files.insert("plugin.go".to_owned(), source.into_bytes());
    files
}

/// Adds a plugin `example.com/acme/NAME` at v1.0.0 and v1.1.0, whose `Init` differs.
fn add(proxy: &ModuleProxy, name: &str, good: &str, bad: &str) {
    let path = format!("example.com/acme/{name}");
    for (version, init) in [("v1.0.0", good), ("v1.1.0", bad)] {
        proxy.module(&path, version, starting(&path, init, &[]));
    }
}

fn configuration(release: &str, names: &[&str], version: &str) -> String {
    let table = |name: &&str| {
        format!("\n[plugins.{name}]\nmodule_name = \"example.com/acme/{name}\"\ntag = \"{version}\"\n")
    };
    format!("[roadrunner]\nref = \"{release}\"\n{}", names.iter().map(table).collect::<String>())
}

/// A directory with good.lock, and velox.lock with every plugin at v1.1.0.
fn machine(proxy: &ModuleProxy, names: &[&str]) -> Sandbox {
    let sandbox = Sandbox::behind(proxy).file("velox.toml", configuration(RELEASES[0], names, "v1.0.0"));
    sandbox.vx("lock -q").ok();
    fs::rename(sandbox.at("velox.lock"), sandbox.at("good.lock")).unwrap();
    let sandbox = sandbox.file("velox.toml", configuration(RELEASES[1], names, "v1.1.0"));
    sandbox.vx("lock -q").ok();
    sandbox
}

fn result(output: &CommandOutput) -> Value {
    output.events().into_iter().find(|event| event["event"] == "bisected").unwrap()
}

#[test]
fn one_bad_version_among_twelve_changes_is_found_in_seven_builds() {
    let proxy = proxy();
    let names = ["p01", "p02", "p03", "p04", "p05", "p06", "p07", "p08", "p09", "p10", "p11"];
    for name in names {
        let bad = if name == "p07" { "return errors.New(\"p07 is broken\")" } else { "return nil" };
        add(&proxy, name, "return nil", bad);
    }
    let sandbox = machine(&proxy, &names);
    let found = sandbox.vx("bisect --good good.lock --format json -- {rr} check");
    found.ok();
    let event = result(&found);
    assert_eq!((&event["changes"], &event["skipped"]), (&12.into(), &0.into()));
    let cause = serde_json::json!([{ "kind": "plugin", "name": "p07", "from": "v1.0.0", "to": "v1.1.0" }]);
    assert_eq!(event["cause"], cause);
    let builds = event["builds"].as_u64().unwrap();
    assert!((3..=7).contains(&builds), "{builds}");
    let steps = found.events().into_iter().filter(|event| event["event"] == "bisect_step");
    assert_eq!(steps.filter(|step| step["known"] == false).count() as u64, builds);
    assert_contains(&found.stderr(), &["p07 is broken"]);
    assert_eq!(sandbox.entries("."), ["good.lock", "velox.lock", "velox.toml"]);

    // All binaries are cached now.
    let again = sandbox.vx("bisect --good good.lock --bad velox.lock -- sh -c '$RR check'");
    assert_contains(&again.ok(), &["plugin p07 v1.0.0 to v1.1.0 breaks the test\n12 changes, "]);
    assert_contains(
        &again.stderr(),
        &["12 changes", "0 of 12 changes: good", "12 of 12 changes: bad (exit status: 1)"],
    );

    let same = sandbox.vx("bisect --good velox.lock -- {rr} check");
    same.fails_with(2, &["have the same versions"]);
    let passes = sandbox.vx("bisect --good good.lock -- {rr} --version");
    passes.fails_with(1, &["the test doesn't fail with the versions of velox.lock"]);
    let fails = sandbox.vx("bisect --good good.lock -- sh -c 'exit 3'");
    fails.fails_with(1, &["the test doesn't pass with the versions of good.lock: exit status: 3"]);
    let stops = sandbox.vx("bisect --good good.lock -- sh -c 'exit 200'");
    stops.fails_with(1, &["the test stopped the search", "125 to skip"]);
    let missing = sandbox.vx("bisect --good good.lock -- ./no-such-test");
    missing.fails_with(2, &["failed to run the test `./no-such-test`"]);
    sandbox.vx("bisect --good none.lock -- true").fails_with(2, &["failed to read ", "none.lock"]);
    sandbox.vx("bisect --good velox.toml -- true").fails_with(2, &["failed to parse ", "velox.toml"]);
    sandbox.vx("bisect --good good.lock").fails_with(2, &["<COMMAND>"]);
}

#[test]
fn two_changes_that_only_break_together_are_found() {
    let proxy = proxy();
    let names = ["p1", "p2", "p3", "p4", "p5"];
    for name in ["p1", "p3", "p5"] {
        add(&proxy, name, "return nil", "return nil");
    }
    add(&proxy, "p2", "return nil", "return os.Setenv(\"ANSWER\", \"42\")");
    let fails = "if os.Getenv(\"ANSWER\") != \"\" { return errors.New(\"no answer wanted\") }\n\treturn nil";
    add(&proxy, "p4", "return nil", fails);
    let sandbox = machine(&proxy, &names);
    let found = sandbox.vx("bisect --good good.lock -- {rr} check");
    let pair = "no change breaks the test alone; these do together:\n  plugin p2 v1.0.0 to v1.1.0\n  plugin p4 v1.0.0 to v1.1.0\n6 changes, ";
    assert_contains(&found.ok(), &[pair]);

    // A plugin that only compiles with the newer version of another one: the builds without that are skipped.
    let (p3, p5) = ("example.com/acme/p3", "example.com/acme/p5");
    let mut newer = starting(p5, "return nil", &[]);
    newer.get_mut("plugin.go").unwrap().extend(b"\nfunc New() error { return nil }\n");
    proxy.module(p5, "v1.2.0", newer);
    proxy.module(p3, "v1.2.0", starting(p3, "return p5.New()", &[(p5, "v1.0.0")]));
    let text = ["p3", "p5"].iter().fold(configuration(RELEASES[1], &names, "v1.1.0"), |text, name| {
        let entry = |version: &str| format!("acme/{name}\"\ntag = \"{version}\"");
        text.replace(&entry("v1.1.0"), &entry("v1.2.0"))
    });
    let sandbox = sandbox.file("velox.toml", text);
    sandbox.vx("lock -q").ok();
    let found = sandbox.vx("bisect --good good.lock -- {rr} check");
    found.fails(1);
    let candidates = "one of these changes breaks the test; the builds between them were skipped:\n  plugin p3 v1.0.0 to v1.2.0\n  plugin p4 v1.0.0 to v1.1.0\n  plugin p5 v1.0.0 to v1.2.0\n6 changes, ";
    assert_contains(&found.stdout(), &[candidates, ", 2 skipped\n"]);
    assert_contains(&found.stderr(), &["skipped (failed to compile plugin p3"]);
    let skips = sandbox.vx("bisect --good good.lock -- sh -c 'exit 125'");
    skips.fails_with(1, &["no result with the versions of good.lock: exit status: 125"]);
}

#[test]
fn a_module_that_a_plugin_requires_is_found() {
    let proxy = proxy();
    for (version, result) in [("v1.0.0", "nil"), ("v1.1.0", "errors.New(\"lib is broken\")")] {
        for lib in ["lib", "other"] {
            let path = format!("example.com/acme/{lib}");
            let result = if lib == "lib" { result } else { "nil" };
            let mut files = plugin(&path, lib).files();
            let source = format!(
                "package {lib}\n\nimport \"errors\"\n\nvar _ = errors.New\n\nfunc Check() error {{ return {result} }}\n"
            );
            files.insert("plugin.go".to_owned(), source.into_bytes());
            proxy.module(&path, version, files);
        }
        let path = "example.com/acme/uses";
        let imports = [("example.com/acme/lib", version), ("example.com/acme/other", version)];
        proxy.module(
            path,
            version,
            starting(path, "return errors.Join(lib.Check(), other.Check())", &imports),
        );
    }
    add(&proxy, "p1", "return nil", "return nil");
    let sandbox = machine(&proxy, &["p1", "uses"]);
    let found = sandbox.vx("bisect --good good.lock -- {rr} check");
    let expected = "module example.com/acme/lib v1.0.0 to v1.1.0 breaks the test\nit comes with:\n  plugin uses v1.0.0 to v1.1.0\n3 changes, ";
    assert_contains(&found.ok(), &[expected]);
}

#[cfg(unix)]
#[test]
fn an_interrupted_search_continues() {
    let proxy = proxy();
    let names = ["p1", "p2", "p3", "p4", "p5"];
    for name in names {
        let bad = if name == "p2" { "return errors.New(\"p2 is broken\")" } else { "return nil" };
        add(&proxy, name, "return nil", bad);
    }
    let sandbox = machine(&proxy, &names).file("broken", "");
    // Interrupts vx in the third test.
    let test = "echo x >> runs; if [ -e broken ] && [ $(wc -l < runs) = 3 ]; then kill -INT $PPID; sleep 60; fi; $RR check";
    let line = format!("bisect --good good.lock -- sh -c '{test}'");
    let first = sandbox.vx(&line);
    first.fails_with(130, &["the same command continues; remove ", "velox.bisect.json"]);
    assert!(sandbox.has("velox.bisect.json"));
    fs::remove_file(sandbox.at("broken")).unwrap();

    let second = sandbox.vx(&line);
    assert_contains(&second.ok(), &["plugin p2 v1.0.0 to v1.1.0 breaks the test\n"]);
    assert_contains(
        &second.stderr(),
        &["continuing: 2 steps known from ", "0 of 6 changes: good (exit status: 0, known)"],
    );
    assert!(!sandbox.has("velox.bisect.json"));
    // The interrupted step ran twice, no other.
    let runs = sandbox.read("runs").lines().count();
    assert!((4..=7).contains(&runs), "{runs}");

    // Another test starts over.
    let other = sandbox.vx("bisect --good good.lock -- {rr} check");
    assert!(!other.stderr().contains("continuing"), "{}", other.stderr());
}
