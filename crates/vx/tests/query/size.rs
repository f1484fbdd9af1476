//! `vx size`, and `vx build --max-size`.

use std::fs;

use serde_json::Value;
use velox_testkit::{Files, ModuleProxy, plugin};

use crate::support::sandbox::{RELEASE, Sandbox, assert_contains};

/// A plugin that imports `go/parser`, which nothing else here does.
const HEAVY: &str = "package heavy

import \"go/parser\"

type Plugin struct{}

func (*Plugin) Init() error {
	_, err := parser.ParseExpr(`1 + 1`)
	return err
}
";

/// Imports `archive/tar`, as the next one.
const LIGHT: &str = "package light

import (
	\"archive/tar\"
	\"os\"
)

type Plugin struct{}

func (*Plugin) Init() error { return tar.NewWriter(os.Stderr).Flush() }
";

fn module(path: &str, source: &str) -> Files {
    let mut files = plugin(path, "any").files();
    files.insert("plugin.go".to_owned(), source.as_bytes().to_vec());
    files
}

fn machine() -> (Sandbox, ModuleProxy) {
    let proxy = ModuleProxy::start();
    proxy.roadrunner(RELEASE);
    for (name, source) in [("heavy", HEAVY), ("light", LIGHT), ("other", &LIGHT.replace("light", "other"))] {
        let path = format!("example.com/acme/{name}");
        proxy.module(&path, "v1.0.0", module(&path, source));
    }
    let sandbox = Sandbox::behind(&proxy).plugins("heavy@v1.0.0 light@v1.0.0 other@v1.0.0");
    sandbox.vx("lock -q").ok();
    (sandbox, proxy)
}

fn event(sandbox: &Sandbox, arguments: &str) -> Value {
    sandbox.vx(&format!("size --format json {arguments}")).events().pop().unwrap()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value}"))
}

#[test]
fn bytes_belong_to_plugins_and_a_size_without_one_is_predicted() {
    let (sandbox, _proxy) = machine();
    let text = sandbox.vx("size --without heavy").ok();
    assert_contains(
        &text,
        &[
            "github.com/roadrunner-server/roadrunner/v2025 v2025.0.77 for ",
            "  heavy     example.com/acme/heavy v1.0.0\n",
            "(none)    packages that RoadRunner imports itself\n",
            "\ncontents\n",
            "\nwithout heavy: about ",
        ],
    );

    // The cached result needs no Go.
    let size = event(&sandbox, "--go /nonexistent --offline --without heavy");
    let plugins = size["plugins"].as_array().unwrap();
    let plugin = |name: &str| plugins.iter().find(|plugin| plugin["name"] == name).unwrap();
    let exclusive = |name: &str| number(&plugin(name)["exclusive"]);
    assert_eq!(plugins[0]["name"], "heavy");
    assert!(exclusive("heavy") > 100_000 && exclusive("light") < 10_000, "{size:#}");
    assert_eq!(number(&plugin("light")["shared"]), number(&size["shared"]), "archive/tar");
    // RoadRunner itself imports it.
    assert!(exclusive("informer") == 0 && number(&plugin("informer")["own"]) > 0, "{size:#}");
    let all: u64 = plugins.iter().map(|plugin| number(&plugin["exclusive"])).sum();
    let sum = all + number(&size["shared"]) + number(&size["base"]);
    let total = number(&size["total"]);
    assert!((total - total / 50..=total).contains(&sum), "{sum} of {total}");

    let built = |arguments: &str| {
        sandbox.vx(&format!("build -q -o out {arguments}")).ok();
        fs::metadata(sandbox.at("out/rr")).unwrap().len()
    };
    let (real, predicted) = (built("--without heavy"), number(&size["prediction"]["bytes"]));
    assert!(predicted.abs_diff(real) < real / 20, "predicted {predicted}, built {real}");
    let real = built("");
    assert!(total.abs_diff(real) < real / 500, "{total} of {real}");

    // The stripped binary, without the configuration.
    let inspected = event(&sandbox, "out/rr");
    assert_eq!(number(&inspected["total"]), real);
    let own = |size: &Value| {
        let mut plugins = size["plugins"].as_array().unwrap().iter();
        number(&plugins.find(|plugin| plugin["module"] == "example.com/acme/heavy").unwrap()["own"])
    };
    assert!(own(&inspected) > 0 && own(&inspected) <= own(&size), "{inspected:#}");
    assert_contains(&sandbox.vx("size out/rr").ok(), &["  example.com/acme/heavy v1.0.0\n", " std\n"]);

    sandbox.vx("size --without hevy").fails_with(2, &["no plugin named `hevy`", "did you mean `heavy`?"]);
    sandbox
        .vx("size out/rr --without heavy")
        .fails_with(2, &["--without needs the imports between packages"]);
    sandbox.vx("size out/none").fails_with(2, &["out/none"]);
}

#[test]
fn a_binary_over_its_limit_fails_with_what_grew() {
    let (sandbox, proxy) = machine();
    let total = number(&event(&sandbox, "")["total"]);
    sandbox.vx(&format!("size -q --max-size {total}")).ok();
    sandbox
        .vx(&format!("size -q --max-size {}", total - 1))
        .fails_with(1, &["more than --max-size", "run `vx size --save` while the size is acceptable"]);

    sandbox.vx("size --save").succeeds_with(&["sizes recorded in ", "velox.size.json"]);
    assert_contains(&sandbox.read("velox.size.json"), &["\"example.com/acme/heavy\": "]);
    let path = "example.com/acme/huge";
    let source = HEAVY.replace("heavy", "huge").replace("1 + 1", &("1 + 1".to_owned() + &" ".repeat(50_000)));
    proxy.module(path, "v1.0.0", module(path, &source));
    let sandbox = sandbox.plugins("heavy@v1.0.0 light@v1.0.0 other@v1.0.0 huge@v1.0.0");
    let grown = "example.com/acme/huge (new)";
    let failed = sandbox.vx(&format!("build -q -o out --max-size {}", total + 10_000));
    failed.fails_with(1, &["rr has ", "since `vx size --save` (", "these modules grew:", grown]);
    let failed = sandbox.vx(&format!("size -q --max-size {}", total + 10_000));
    failed.fails_with(1, &["the binary has ", grown]);
    assert_contains(&failed.stdout(), &["recorded by --save: ", grown]);
    sandbox.vx("build -q -o out --max-size 1G").ok();

    let sandbox = sandbox.file("velox.size.json", "{");
    sandbox.vx("size").fails_with(2, &["failed to parse ", "velox.size.json", "vx size --save"]);
}
