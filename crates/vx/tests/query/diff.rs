//! `vx diff`: the changes between two locks or binaries.

use std::{fs, io::Write as _, process::Stdio};

use serde_json::{Value, json};
use velox_testkit::{Files, ModuleProxy, plugin};

use crate::support::{
    sandbox::{CommandOutput, RELEASE, Sandbox, acme_proxy, assert_contains, configuration},
    vulnerabilities::{HELLO, LIB, entry, library, now, url, with_database},
};

const MIT: &str = include_str!("../../../velox-build/src/licenses/texts/MIT");
const GPL: &str = include_str!("../../../velox-build/src/licenses/texts/GPL-3.0");
const NEW_RELEASE: &str = "v2025.0.78";

fn licensed(mut files: Files, text: &str) -> Files {
    files.insert("LICENSE".to_owned(), text.into());
    files
}

/// hello v1.1.0 imports a newer library with another license, and one more module.
fn proxy() -> ModuleProxy {
    let proxy = acme_proxy();
    proxy.release(NEW_RELEASE, "", "v5.0.77");
    proxy.module(LIB, "v1.2.0", licensed(library(), MIT));
    proxy.module(LIB, "v1.3.0", licensed(library(), GPL));
    let extra = "example.com/acme/extra";
    proxy.module(extra, "v0.1.0", licensed(plugin(extra, "extra").files(), MIT));
    proxy.module(HELLO, "v1.0.0", plugin(HELLO, "hello").imports(LIB, "v1.2.0").files());
    let newer = plugin(HELLO, "hello").imports(LIB, "v1.3.0").imports(extra, "v0.1.0");
    proxy.module(HELLO, "v1.1.0", newer.files());
    proxy
}

/// A machine with old.lock and velox.lock, and what both binaries consist of in its module cache.
fn machine(proxy: &ModuleProxy) -> Sandbox {
    let sandbox = Sandbox::behind(proxy).plugins("hello@v1.0.0 bye@v1.1.0");
    sandbox.vx("fetch -q").ok();
    fs::rename(sandbox.at("velox.lock"), sandbox.at("old.lock")).unwrap();
    let newer = configuration("hello@v1.1.0 bye@v1.0.0").replace(RELEASE, NEW_RELEASE);
    let sandbox = sandbox.file("velox.toml", newer);
    sandbox.vx("fetch -q").ok();
    sandbox
}

fn event(output: &CommandOutput) -> Value {
    output.ok();
    output.events().pop().unwrap()
}

#[test]
fn two_locks() {
    let proxy = proxy();
    let sandbox = machine(&proxy);
    sandbox.run("git init -q .");
    let text = sandbox.vx("diff old.lock velox.lock").ok();
    let expected = format!(
        "| | from | to |\n|---|---|---|\n\
         | RoadRunner | `{RELEASE}` | `{NEW_RELEASE}` |\n\
         | `bye` | `v1.1.0` | `v1.0.0` (older) |\n\
         | `hello` | `v1.0.0` | `v1.1.0` |\n\n\
         ### Modules: 1 up, 1 added\n\n\
         Required by `hello`:\n\n\
         - `example.com/acme/extra` v0.1.0 added (MIT)\n\
         - `example.com/acme/lib` v1.2.0 → v1.3.0\n\n\
         ### Licenses\n\n\
         - `example.com/acme/lib`: `MIT` → `GPL-3.0`\n"
    );
    assert_eq!(text, expected);
    // velox.lock is the default, and a lock may come from git.
    assert_eq!(sandbox.vx("diff old.lock").ok(), expected);
    let mut piped = sandbox.vx_command("diff -");
    let mut child = piped.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(&sandbox.bytes("old.lock")).unwrap();
    assert_eq!(String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap(), expected);
    assert_eq!(sandbox.vx("diff velox.lock velox.lock").ok(), "no differences\n");

    let event = event(&sandbox.vx("diff old.lock --format json"));
    assert_eq!((&event["event"], &event["vulnerabilities"]), (&"diff".into(), &Value::Null));
    let lib = json!({
        "kind": "module", "name": LIB, "from": "v1.2.0", "to": "v1.3.0", "direction": "up", "brought_by": ["hello"],
        "license": null,
    });
    assert!(event["changes"].as_array().unwrap().contains(&lib), "{event}");
    let back = sandbox.vx("diff velox.lock old.lock").ok();
    assert_contains(&back, &["`example.com/acme/extra` v0.1.0 removed\n", "v1.3.0 → v1.2.0 (older)\n"]);
}

#[test]
fn vulnerabilities_are_looked_up_if_asked_for() {
    let proxy = proxy();
    let entries = [
        entry("GO-2026-0001", LIB, LIB, &["Read"], Some("1.3.0")),
        entry("GO-2026-0002", "example.com/acme/bye", "example.com/acme/bye", &["X"], Some("1.1.0")),
        entry("GO-2026-0003", "example.com/acme/other", "example.com/acme/other", &["X"], None),
    ];
    let sandbox = with_database(machine(&proxy), &now(), &entries);
    let database = url(&sandbox);
    let text = sandbox.vx(&format!("diff old.lock --audit --db {database}")).ok();
    let found = "### Vulnerabilities\n\n1 vulnerability opened:\n\n\
        - GO-2026-0002, CVE-2026-0002: `Fictional GO-2026-0002`\n  (`example.com/acme/bye v1.0.0`, fixed in 1.1.0)\n\n\
        1 vulnerability closed:\n\n\
        - GO-2026-0001, CVE-2026-0001: `Fictional GO-2026-0001`\n  (`example.com/acme/lib v1.2.0`, fixed in 1.3.0)\n\n\
        By version, from file://";
    assert_contains(&text, &[found, "`vx audit` shows whether the code is called.\n"]);
    let event = event(&sandbox.vx(&format!("diff old.lock --audit --db {database} --format json")));
    assert_eq!(event["vulnerabilities"]["closed"][0]["id"], "GO-2026-0001");
    let missing = sandbox.vx("diff old.lock --audit --db file:///nonexistent");
    missing.fails_with(1, &["failed to read index/db.json of the vulnerability database"]);
}

#[test]
fn binaries_and_locks_are_compared_with_each_other() {
    let proxy = proxy();
    let sandbox = Sandbox::behind(&proxy).plugins("hello@v1.0.0 bye@v1.0.0");
    sandbox.vx("build -q -o old").ok();
    fs::copy(sandbox.at("velox.lock"), sandbox.at("old.lock")).unwrap();
    let sandbox = sandbox.plugins("hello@v1.1.0");
    sandbox.vx("build -q -o new").ok();

    // A lock and its binary have the same versions.
    assert_eq!(sandbox.vx("diff old.lock old/rr").ok(), "no differences\n");
    assert_eq!(sandbox.vx("diff new/rr velox.lock").ok(), "no differences\n");
    let changed = "| `bye` | `v1.0.0` | removed |\n| `hello` | `v1.0.0` | `v1.1.0` |\n";
    assert_contains(&sandbox.vx("diff old/rr velox.lock").ok(), &[changed]);
    let text = sandbox.vx("diff old/rr new/rr").ok();
    assert_contains(
        &text,
        &[changed, "Required by `hello`:\n\n- `example.com/acme/extra` v0.1.0 added (MIT)\n"],
    );
    let event = event(&sandbox.vx("diff old/rr new/rr --format json"));
    let sizes = ["old/rr", "new/rr"].map(|file| fs::metadata(sandbox.at(file)).unwrap().len());
    assert_eq!([&event["sizes"][0]["from"], &event["sizes"][0]["to"]], sizes.map(Value::from).each_ref());

    // The sizes of locks are those of `vx size --save`.
    let size =
        |total: u64| json!({ "linux/amd64": { "total": total, "modules": { LIB: total / 2 } } }).to_string();
    let sandbox = sandbox.file("old.size.json", size(4 << 20)).file("velox.size.json", size(6 << 20));
    let sized =
        "### Size for linux/amd64: 4.00 MiB → 6.00 MiB (+2.00 MiB)\n\n- +1.00 MiB `example.com/acme/lib`\n";
    assert_contains(&sandbox.vx("diff old.lock velox.lock").ok(), &[sized]);

    let sandbox = sandbox.file("text", "hello\n").file("broken.size.json", "{").file("empty", "");
    sandbox.vx("diff text").fails_with(2, &["failed to parse ", "text"]);
    sandbox.vx("diff empty").fails(2);
    sandbox.vx("diff none.lock").fails_with(2, &["none.lock", "name a velox.lock or a RoadRunner binary"]);
    fs::copy(sandbox.at("velox.lock"), sandbox.at("broken.lock")).unwrap();
    sandbox.vx("diff old.lock broken.lock").fails_with(2, &["failed to parse ", "broken.size.json"]);
    let other = std::env::current_exe().unwrap();
    sandbox.vx(&format!("diff old/rr {}", other.display())).fails(1);
}
