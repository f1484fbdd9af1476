//! `vx graph`, and the findings of `vx check` about plugins that do not start.

use velox_testkit::{Files, ModuleProxy, plugin};

use crate::support::sandbox::{RELEASE, Sandbox, assert_contains, configuration};

const GREETER: &str = "package greeter

type Greeting interface{ Greet() string }

type Plugin struct{}

func (*Plugin) Init() error { return nil }
func (*Plugin) Name() string { return \"greeter\" }
func (*Plugin) Greet() string { return \"hello\" }
";

const GUEST: &str = "package guest

type Greeter interface{ Greet() string }

type Configurer interface {
	Has(name string) bool
	UnmarshalKey(name string, out any) error
}

type Plugin struct{ settings struct{} }

func (p *Plugin) Init(greeter Greeter, configuration Configurer) error {
	return configuration.UnmarshalKey(\"guest.book\", &p.settings)
}
func (*Plugin) Name() string { return \"guest\" }
";

const BROTLI: &str = "package brotli

import \"net/http\"

type Plugin struct{}

func (*Plugin) Init() error { return nil }
func (*Plugin) Name() string { return \"brotli\" }
func (*Plugin) Middleware(next http.Handler) http.Handler { return next }
";

const GATEWAY: &str = "package gateway

import (
	\"net/http\"

	\"github.com/roadrunner-server/endure/v2/dep\"
)

type Middleware interface {
	Middleware(next http.Handler) http.Handler
	Name() string
}

type Plugin struct{}

func (*Plugin) Init() error { return nil }
func (*Plugin) Name() string { return \"gateway\" }
func (*Plugin) Collects() []*dep.In {
	return []*dep.In{dep.Fits(func(any) {}, (*Middleware)(nil))}
}
";

/// Its Init is excluded by a build constraint.
const HIDDEN: &str = "package hidden

type Plugin struct{}
";

/// A module with this source of its root package.
fn module(path: &str, source: &str) -> Files {
    let mut files = plugin(path, "any").files();
    files.insert("plugin.go".to_owned(), source.as_bytes().to_vec());
    files
}

fn proxy() -> ModuleProxy {
    let proxy = ModuleProxy::start();
    proxy.roadrunner(RELEASE);
    for (name, source) in [
        ("greeter", GREETER),
        ("host", GREETER),
        ("guest", GUEST),
        ("brotli", BROTLI),
        ("gateway", GATEWAY),
        ("hidden", HIDDEN),
    ] {
        let path = format!("example.com/acme/{name}");
        let mut files = module(&path, source);
        if name == "gateway" {
            let go_mod =
                plugin(&path, name).requires("github.com/roadrunner-server/endure/v2", "v2.6.2").files();
            files.extend(go_mod.into_iter().filter(|(name, _)| name == "go.mod"));
        }
        if name == "hidden" {
            let text = "//go:build never\n\npackage hidden\n\nfunc (*Plugin) Init() error { return nil }\n";
            files.insert("init.go".to_owned(), text.as_bytes().to_vec());
        }
        proxy.module(&path, "v1.0.0", files);
    }
    proxy
}

#[test]
fn a_graph_shows_who_implements_what_and_which_sections_are_read() {
    let proxy = proxy();
    let sandbox = Sandbox::behind(&proxy)
        .env("LANG", "C.UTF-8")
        .plugins("guest@v1.0.0 greeter@v1.0.0 host@v1.0.0 github.com/roadrunner-server/rpc/v5@v5.1.9");
    sandbox.vx("lock").ok();
    let text = sandbox.vx("graph").ok();
    assert_contains(
        &text,
        &[
            "guest: example.com/acme/guest v1.0.0\n├── needs Greeter: greeter, host\n├── needs Configurer: config\n└── reads guest.book\n",
            "├── needs Logger: none\n├── collects RPCer: informer, resetter\n└── reads rpc\n",
            "\nwarning: `rpc` does not start: no plugin implements its parameter `Logger`\n",
        ],
    );
    assert!(!text.contains("`guest`"), "{text}");

    // The cached result needs no Go.
    let again =
        |format: &str| sandbox.vx(&format!("graph --go /nonexistent --offline --format {format}")).ok();
    assert_eq!(again("human"), text);
    assert_contains(&again("dot"), &["digraph plugins {", "\t\"greeter\" -> \"guest\";\n"]);
    assert_contains(&again("dot"), &["\t\"informer\" -> \"rpc\" [style=dashed];\n"]);
    assert_contains(&again("mermaid"), &["flowchart LR\n", "[\"greeter\"]\n", " -.-> "]);
    let event: serde_json::Value = serde_json::from_str(again("json").lines().last().unwrap()).unwrap();
    assert_eq!(event["event"], "graph");
    assert_eq!(event["disabled"][0]["plugin"], "rpc");
    let plugins = event["plugins"].as_array().unwrap();
    let guest = plugins.iter().find(|plugin| plugin["label"] == "guest").unwrap();
    assert_eq!(guest["sections"][0], "guest.book");
    assert_eq!(
        plugins[guest["init"][0]["implementers"][0]["plugin"].as_u64().unwrap() as usize]["label"],
        "greeter"
    );

    // Neither the stamp nor another flag of the linker changes the packages.
    let sandbox = sandbox.env("VERSION", "9.9.9");
    assert_eq!(sandbox.vx("graph --go /nonexistent --offline").ok(), text);

    let other = sandbox.vx("tree --format dot").fails(2);
    assert_contains(&other, &["only `vx graph` prints diagrams"]);
}

#[test]
fn a_plugin_that_does_not_compile_is_unknown() {
    let proxy = proxy();
    let broken = plugin("example.com/acme/broken", "broken").compile_error();
    let configuration = format!(
        "[roadrunner]\nref = \"{RELEASE}\"\n\n[plugins.guest]\nmodule_name = \"example.com/acme/guest\"\ntag = \"v1.0.0\"\n\n[plugins.broken]\nmodule_name = \"example.com/acme/broken\"\ntag = \"v1.0.0\"\nreplace = \"./broken\"\n"
    );
    let sandbox = Sandbox::behind(&proxy).file("velox.toml", configuration).files("broken", broken.files());
    let text = sandbox.vx("graph").ok();
    assert_contains(
        &text,
        &["broken: example.com/acme/broken", "unknown: undefined: missing (", "needs Greeter: none"],
    );
    // The broken plugin may be the missing one.
    assert!(!text.contains("does not start"), "{text}");
}

#[test]
fn check_reports_plugins_that_do_not_start_once_the_binary_was_built() {
    let proxy = proxy();
    let sandbox =
        Sandbox::behind(&proxy).plugins("guest@v1.0.0 github.com/roadrunner-server/fileserver/v5@v5.1.9");
    assert!(!sandbox.vx("check").stdout().contains("does not start"));
    sandbox.vx("build -q -o bin").ok();
    let checked = sandbox.vx("check");
    assert_eq!(checked.code(), Some(1), "{}", checked.stdout());
    assert_contains(
        &checked.stdout(),
        &[
            "error: plugin fileserver does not start: no plugin implements its parameter `Logger`",
            "add logger: github.com/roadrunner-server/logger/v5 v5.1.9, which RoadRunner",
            "error: plugin guest does not start: no plugin implements its parameter `Greeter`",
            "add a plugin with the methods Greet",
        ],
    );
    // The same versions are resolved again.
    std::fs::remove_file(sandbox.at("velox.lock")).unwrap();
    assert_contains(&sandbox.vx("check").stdout(), &["`Greeter`"]);
    let sandbox = sandbox.plugins(
        "guest@v1.0.0 greeter@v1.0.0 github.com/roadrunner-server/fileserver/v5@v5.1.9 github.com/roadrunner-server/logger/v5@v5.1.9",
    );
    sandbox.vx("build -q -o bin").ok();
    assert!(!sandbox.vx("check").ok().contains("does not start"));
}

#[test]
fn a_build_warns_of_plugins_that_do_not_start_or_that_nothing_uses() {
    let proxy = proxy();
    let sandbox = Sandbox::behind(&proxy)
        .plugins("brotli@v1.0.0 guest@v1.0.0 github.com/roadrunner-server/rpc/v5@v5.1.9");
    let warnings = [
        "warning: plugin brotli has no effect: no plugin uses it",
        "help: add http: `vx add http`",
        "warning: plugin guest does not start: no plugin implements its parameter `Greeter`",
        "help: add a plugin with the methods Greet",
        "warning: plugin rpc does not start: no plugin implements its parameter `Logger`",
        "help: add logger: github.com/roadrunner-server/logger/v5 v5.1.9, which RoadRunner v2025.0.77 was released with",
    ];
    // With --strict they are errors, and nothing is linked.
    let errors = warnings.map(|text| text.replace("warning: ", "error: "));
    let errors: Vec<&str> = errors.iter().map(String::as_str).collect();
    let strict = sandbox.vx("build --strict -o strict");
    strict.fails_with(2, &errors);
    assert_contains(&strict.stderr(), &["help: without --strict (strict = true) this is a warning"]);
    assert!(!sandbox.has("strict/rr"));

    sandbox.vx("build -o bin").succeeds_with(&warnings);
    // Again from the caches, without Go and the network.
    sandbox.vx("build -o bin --locked --offline --go /nonexistent").succeeds_with(&warnings);
    sandbox.vx("build --strict -o strict --offline --go /nonexistent").fails_with(2, &errors);
    sandbox.vx("build --dry-run").succeeds_with(&warnings);
    sandbox.vx("build --dry-run --strict").fails_with(2, &errors);
    sandbox.vx("run --version").succeeds_with(&warnings);
    let events = sandbox.vx("build -o bin --format json").events();
    let message = "plugin brotli has no effect: no plugin uses it";
    assert!(
        events.iter().any(|event| event["event"] == "warning" && event["message"] == message),
        "{events:?}"
    );

    let checked = sandbox.vx("check --format json").events();
    let finding = checked.iter().find(|event| event["message"] == message).unwrap();
    assert_eq!((&finding["rule"], &finding["level"]), (&"unused_plugin".into(), &"warning".into()));

    let sandbox = sandbox.plugins("brotli@v1.0.0 gateway@v1.0.0");
    let built = sandbox.vx("build --strict -o strict");
    built.ok();
    assert!(!built.stderr().contains("has no effect"), "{}", built.stderr());
}

#[test]
fn released_plugins_that_do_not_start_are_reported_without_a_build() {
    let proxy = ModuleProxy::start();
    proxy.roadrunner(RELEASE);
    let sandbox = Sandbox::behind(&proxy).plugins("github.com/roadrunner-server/rpc/v5@v5.1.9");
    let finding = "plugin rpc does not start without logger";
    let message = format!("warning: {finding}");
    sandbox.vx("build --dry-run").succeeds_with(&[&message, "help: add logger: `vx add logger`"]);
    sandbox.vx("build --dry-run --strict").fails_with(2, &[&format!("error: {finding}"), "without --strict"]);
    // The same with a lock, which has the version that a constraint selects.
    let sandbox = sandbox.file("velox.toml", configuration("github.com/roadrunner-server/rpc/v5@^5.1"));
    sandbox.vx("lock").ok();
    sandbox.vx("build --dry-run").succeeds_with(&[&message]);
    let checked = sandbox.vx("check");
    checked.fails(1);
    assert_contains(&checked.stdout(), &[&format!("error: {finding}"), "--> velox.toml:4:"]);
    let sandbox = sandbox
        .plugins("github.com/roadrunner-server/rpc/v5@v5.1.9 github.com/roadrunner-server/logger/v5@v5.1.9");
    let fine = sandbox.vx("build --dry-run --strict");
    fine.ok();
    assert!(!fine.stderr().contains("does not start"), "{}", fine.stderr());
}

#[test]
fn a_plugin_whose_init_a_build_constraint_excludes_keeps_roadrunner_from_starting() {
    let proxy = proxy();
    let sandbox = Sandbox::behind(&proxy).plugins("hidden@v1.0.0");
    let text = sandbox.vx("graph").ok();
    let warning =
        "`hidden` keeps RoadRunner from starting: it has no method Init: a build constraint excludes init.go";
    assert_contains(&text, &[warning]);
}
