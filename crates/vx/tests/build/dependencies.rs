//! The versions of dependencies: RoadRunner's own, unless an older plugin doesn't compile with them.

use velox_testkit::{Files, ModuleProxy, plugin, roadrunner};

use crate::support::sandbox::{Sandbox, assert_contains, configuration};

/// A release with hello and bye at v1.1.0, which was tested with lib and tools at v1.1.0.
const TESTED: &str = "v2025.0.80";

/// A library with one constant.
fn library(name: &str, constant: &str) -> Files {
    let go_mod = format!("module example.com/acme/{name}\n\ngo 1.22\n");
    let source = format!("package {name}\n\nconst {constant} = 1\n");
    [("go.mod", go_mod), ("lib.go", source)].map(|(file, text)| (file.to_owned(), text.into_bytes())).into()
}

/// A plugin that uses a constant of a library.
fn user(name: &str, library: &str, version: &str, constant: &str) -> Files {
    let module = format!("example.com/acme/{name}");
    let mut files = plugin(&module, name).requires(&format!("example.com/acme/{library}"), version).files();
    let source =
        format!("package {name}\n\nimport \"example.com/acme/{library}\"\n\nvar _ = {library}.{constant}\n");
    files.insert("use.go".to_owned(), source.into_bytes());
    files
}

/// hello v1.0.0 needs a constant that lib v1.1.0 doesn't have; bye v1.0.0 compiles with any tools.
fn proxy() -> ModuleProxy {
    let proxy = ModuleProxy::start();
    let tree = roadrunner("v2025");
    let go_mod = String::from_utf8(tree.files()["go.mod"].clone()).unwrap();
    let lines = "\nrequire (\n\texample.com/acme/hello v1.1.0\n\texample.com/acme/bye v1.1.0\n\
                 \texample.com/acme/lib v1.1.0 // indirect\n\texample.com/acme/tools v1.1.0 // indirect\n)\n";
    let tree = tree.file("go.mod", go_mod + lines);
    proxy.module(tree.module(), TESTED, tree.files());
    for (version, constant) in [("v1.0.0", "Old"), ("v1.1.0", "New")] {
        proxy.module("example.com/acme/lib", version, library("lib", constant));
        proxy.module("example.com/acme/tools", version, library("tools", "Any"));
        proxy.module("example.com/acme/hello", version, user("hello", "lib", version, constant));
        proxy.module("example.com/acme/bye", version, user("bye", "tools", version, "Any"));
    }
    proxy
}

fn machine(proxy: &ModuleProxy, plugins: &str) -> Sandbox {
    let text = configuration(plugins).replace(crate::support::sandbox::RELEASE, TESTED);
    Sandbox::behind(proxy).file("velox.toml", text)
}

#[test]
fn only_what_does_not_compile_is_lowered() {
    let proxy = proxy();
    let sandbox = machine(&proxy, "hello@v1.0.0 bye@v1.0.0");
    let note = "plugin hello doesn't compile with RoadRunner's own dependencies; lowered: example.com/acme/lib v1.1.0 to v1.0.0";
    sandbox.vx("build").succeeds_with(&[note]);
    let version = |module: &str| sandbox.module_in("rr", &format!("example.com/acme/{module}")).unwrap();
    assert_eq!(["hello", "bye", "lib", "tools"].map(version), ["v1.0.0", "v1.0.0", "v1.0.0", "v1.1.0"]);

    // The decision is in the lock: neither this build nor another resolution compiles anything twice.
    let lock = sandbox.read("velox.lock");
    assert_contains(
        &lock,
        &[
            "[[lowered]]\nplugin = \"hello\"\nmodule = \"example.com/acme/lib\"\nfrom = \"v1.1.0\"\nto = \"v1.0.0\"\n",
        ],
    );
    assert_eq!(lock.matches("[[lowered]]").count(), 1);
    sandbox.vx("build --locked").succeeds_with(&[note]);
    let summary = sandbox.vx("build --locked --format json").events().pop().unwrap();
    assert_eq!(summary["lowered"][0]["module"], "example.com/acme/lib");
    assert_eq!(summary["lowered"].as_array().unwrap().len(), 1);
    assert_contains(
        &sandbox.vx("why example.com/acme/lib").ok(),
        &[
            "example.com/acme/lib v1.0.0 is selected\nLowered from v1.1.0, with which plugin hello doesn't compile\n",
        ],
    );
    sandbox.vx("lock").ok();
    assert_eq!(sandbox.read("velox.lock"), lock);

    // A newer plugin needs nothing lowered.
    let sandbox = machine(&proxy, "hello@v1.1.0 bye@v1.0.0");
    sandbox.vx("lock").ok();
    assert!(!sandbox.read("velox.lock").contains("lowered"));
}

#[test]
fn a_plugin_that_never_compiles_lowers_nothing() {
    let proxy = proxy();
    let mut broken = user("hello", "lib", "v1.0.0", "Old");
    broken.insert("broken.go".to_owned(), b"package hello\n\nvar _ = missing\n".to_vec());
    proxy.module("example.com/acme/hello", "v1.0.1", broken);
    let sandbox = machine(&proxy, "hello@v1.0.1");
    sandbox.vx("build").fails_with(1, &["failed to compile plugin hello", "undefined: missing"]);
    assert!(!sandbox.read("velox.lock").contains("lowered"));
}

#[test]
fn a_package_that_a_newer_module_lacks_is_a_reason_too() {
    let proxy = proxy();
    let mut old = library("lib", "Old");
    old.insert("old/old.go".to_owned(), b"package old\n\nconst Old = 1\n".to_vec());
    proxy.module("example.com/acme/lib", "v1.0.2", old);
    let mut files =
        plugin("example.com/acme/hello", "hello").requires("example.com/acme/lib", "v1.0.2").files();
    let source = "package hello\n\nimport _ \"example.com/acme/lib/old\"\n";
    files.insert("use.go".to_owned(), source.into());
    proxy.module("example.com/acme/hello", "v1.0.2", files);
    let sandbox = machine(&proxy, "hello@v1.0.2");
    sandbox.vx("build").succeeds_with(&["lowered: example.com/acme/lib v1.1.0 to v1.0.2"]);
}

#[test]
fn a_floor_raises_a_transitive_module() {
    let proxy = proxy();
    proxy.module("example.com/acme/lib", "v1.2.0", library("lib", "New"));
    let floor = |version: &str| {
        configuration("hello@v1.1.0").replace(crate::support::sandbox::RELEASE, TESTED)
            + &format!("\n[[requires]]\nmodule = \"example.com/acme/lib\"\nversion = \"{version}\"\n")
    };
    let sandbox = Sandbox::behind(&proxy).file("velox.toml", floor("v1.2.0"));
    sandbox.vx("build").ok();
    assert_eq!(sandbox.module_in("rr", "example.com/acme/lib").as_deref(), Some("v1.2.0"));
    sandbox.vx("lock --check").ok();
    sandbox.vx("build --locked -o again").ok();
    assert_contains(
        &sandbox.vx("why example.com/acme/lib").ok(),
        &["example.com/acme/lib v1.2.0 is selected", "v1.2.0  by the configuration ([[requires]])"],
    );
    let why = sandbox.vx("why example.com/acme/lib --format json").events().pop().unwrap();
    assert_eq!(why["demanded"][0]["configuration"], true);

    // A lock below the floor, and one with a floor that the configuration doesn't have.
    let lock = sandbox.read("velox.lock");
    let lowered = lock.replace("example.com/acme/lib v1.2.0", "example.com/acme/lib v1.1.0");
    let lowered =
        lowered.replace("require example.com/acme/lib v1.1.0\"", "require example.com/acme/lib v1.2.0\"");
    let sandbox = sandbox.file("velox.lock", lowered);
    let difference = "go.mod: requires example.com/acme/lib v1.1.0, but the configuration requires v1.2.0";
    sandbox.vx("lock --check").fails_with(2, &[difference]);
    let sandbox = sandbox.file("velox.lock", lock).file("velox.toml", floor("v1.0.0"));
    sandbox.vx("lock --check").fails_with(
        2,
        &[
            "only the lock has: require example.com/acme/lib v1.2.0",
            "the lock lacks: require example.com/acme/lib v1.0.0",
        ],
    );
    // A floor never lowers.
    sandbox.vx("build").ok();
    assert_eq!(sandbox.module_in("rr", "example.com/acme/lib").as_deref(), Some("v1.1.0"));
    sandbox.file("velox.toml", floor("v1.9.0")).vx("lock").fails_with(1, &["--> velox.toml:9:10", "v1.9.0"]);
}
