//! Plugins that RoadRunner registers by itself: informer, resetter and config.

use velox_testkit::{ModuleProxy, RunningRoadRunner};

use crate::support::sandbox::{Sandbox, configuration};

/// A RoadRunner whose go.mod also has a newer major of informer, which its container/plugins.go doesn't import.
const TWO_MAJORS: &str = "v2025.0.79";

fn proxy() -> ModuleProxy {
    let proxy = ModuleProxy::start();
    proxy.roadrunner(crate::support::sandbox::RELEASE);
    let tree = velox_testkit::roadrunner("v2025");
    let go_mod = String::from_utf8(tree.files()["go.mod"].clone()).unwrap();
    let other = "\nrequire github.com/roadrunner-server/informer/v4 v4.9.0\n";
    let tree = tree.file("go.mod", go_mod + other);
    proxy.module(tree.module(), TWO_MAJORS, tree.files());
    let informer = velox_testkit::plugin("github.com/roadrunner-server/informer/v4", "informer");
    proxy.module("github.com/roadrunner-server/informer/v4", "v4.9.0", informer.files());
    proxy
}

const SERVER: &str = "version: \"3\"\nrpc: {listen: \"tcp://127.0.0.1:${RR_RPC_PORT}\"}\nlogs: {mode: none}\n\
                      fileserver:\n  address: \"127.0.0.1:${RR_HTTP_PORT}\"\n  serve: [{prefix: \"/\", root: \".\"}]\n";

#[test]
fn a_listed_one_only_sets_its_version() {
    let proxy = proxy();
    let official = |name: &str| format!("github.com/roadrunner-server/{name}/v5@v5.1.9 ");
    let listed: String =
        ["config", "informer", "resetter", "fileserver", "rpc", "logger"].map(official).concat();
    let sandbox = Sandbox::behind(&proxy).plugins(&listed);
    sandbox.vx("build").succeeds_with(&[
        "plugin config: every binary has config; its entry only sets the version",
        "plugin informer: every binary has informer",
        "plugin resetter: every binary has resetter",
    ]);
    let lock = sandbox.read("velox.lock");
    assert_eq!(lock.matches("built_in = true").count(), 1, "{lock}");
    // From the lock alone too: registered once, so the server starts.
    std::fs::remove_dir_all(sandbox.value("VX_CACHE_DIR")).unwrap();
    sandbox.vx("build --locked").ok();
    let mut server = RunningRoadRunner::start(&sandbox.at("rr"), &sandbox.path(), SERVER).unwrap();
    assert!(server.get("/velox.lock").unwrap().contains("built_in"));
    server.stop().unwrap();
}

#[test]
fn the_import_of_roadrunners_code_decides_the_major() {
    let proxy = proxy();
    let text = configuration("github.com/roadrunner-server/logger/v5@v5.1.9")
        .replace(crate::support::sandbox::RELEASE, TWO_MAJORS);
    let sandbox = Sandbox::behind(&proxy).file("velox.toml", &text);
    sandbox.vx("build").ok();
    let informer = |major: &str| format!("github.com/roadrunner-server/informer/{major}");
    assert_eq!(sandbox.module_in("rr", &informer("v5")).as_deref(), Some("v5.1.9"));
    assert_eq!(sandbox.module_in("rr", &informer("v4")), None);

    let table = format!("\n[plugins.informer]\nmodule_name = \"{}\"\ntag = \"v4.9.0\"\n", informer("v4"));
    let sandbox = sandbox.file("velox.toml", text + &table);
    insta::assert_snapshot!(sandbox.vx("build").fails(2));
}
