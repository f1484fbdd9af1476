//! Failed compiles: the error names the cause and its place.

use velox_testkit::plugin;

use crate::support::sandbox::{RELEASE, Sandbox, acme_proxy};

const BROKEN: &str =
    "package broken\n\ntype Plugin struct{}\n\nfunc (p *Plugin) Init() error { return missing() }\n";

#[test]
fn a_local_plugin_is_named_by_the_users_path() {
    let proxy = acme_proxy();
    let module = "example.com/acme/hello";
    let mut files = plugin(module, "hello").files();
    files.retain(|name, _| !name.ends_with(".go"));
    files.insert("deep/other.go".to_owned(), b"package deep\n".to_vec());
    files.insert("plugin.go".to_owned(), BROKEN.into());
    let sandbox = Sandbox::behind(&proxy).plugins("hello@v1.0.0").files("plugins/broken", files);
    let text = sandbox.read("velox.toml") + "replace = \"./plugins/broken\"\n";
    let sandbox = sandbox.file("velox.toml", text);
    let failed = sandbox.vx("build -o out").fails(1);
    for part in [
        "plugins/broken/plugin.go:5:40: undefined: missing",
        "failed to compile plugin hello",
        "replace = ",
        "replaced here",
    ] {
        assert!(failed.contains(part), "{part}: {failed}");
    }
    assert!(!failed.contains("replace/example.com"), "{failed}");
}

#[test]
fn a_fetched_plugin_is_named_by_module_and_page() {
    let proxy = acme_proxy();
    let module = "github.com/Acme/broken";
    let mut files = plugin(module, "broken").files();
    files.retain(|name, _| !name.ends_with(".go"));
    files.insert("plugin.go".to_owned(), BROKEN.into());
    proxy.module(module, "v1.2.0", files);
    let sandbox = Sandbox::behind(&proxy).file(
        "velox.toml",
        format!("[roadrunner]\nref = \"{RELEASE}\"\n\n[plugins.broken]\nmodule_name = \"{module}\"\ntag = \"v1.2.0\"\n"),
    );
    sandbox.vx("build -o out").fails_with(
        1,
        &[
            "github.com/Acme/broken@v1.2.0/plugin.go:5:40: undefined: missing",
            "https://github.com/Acme/broken/blob/v1.2.0/plugin.go#L5",
        ],
    );
}

#[test]
fn a_module_that_is_no_plugin_is_named_with_its_line() {
    let proxy = acme_proxy();
    let module = "example.com/acme/library";
    let mut files = plugin(module, "library").files();
    files.retain(|name, _| !name.ends_with(".go"));
    files.insert("library.go".to_owned(), b"package library\n\nfunc F() {}\n".to_vec());
    proxy.module(module, "v1.0.0", files);
    let sandbox = Sandbox::behind(&proxy).plugins("hello@v1.0.0 library@v1.0.0");
    let failed = sandbox.vx("build -o out").fails(1);
    for part in [
        "plugin library (example.com/acme/library v1.0.0) has no type `Plugin` in its root package",
        "velox.toml:",
        "module_name = \"example.com/acme/library\"",
        "`folder`",
    ] {
        assert!(failed.contains(part), "{part}: {failed}");
    }
}

#[test]
fn control_characters_of_a_plugin_stay_off_the_terminal() {
    let proxy = acme_proxy();
    let module = "example.com/acme/hello";
    let mut files = plugin(module, "hello").files();
    files.retain(|name, _| !name.ends_with(".go"));
    let text = "package hello\n\nimport _ \"\u{202e}evil\"\n\ntype Plugin struct{}\n\nvar x int = \"\u{202e}txt\u{2066}\"\n";
    files.insert("plugin.go".to_owned(), text.into());
    proxy.module(module, "v1.3.0", files);
    let output = Sandbox::behind(&proxy).plugins("hello@v1.3.0").vx("build -o out");
    let failed = output.fails(1) + &output.stdout();
    assert!(!failed.contains(['\u{202e}', '\u{2066}', '\u{1b}']), "{failed:?}");
}
