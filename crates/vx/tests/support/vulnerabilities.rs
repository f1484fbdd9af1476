//! A vulnerability database of fictional vulnerabilities, and modules that have them.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::{collections::BTreeMap, sync::OnceLock};

use serde_json::{Value, json};
use velox_testkit::{Files, ModuleProxy, plugin};

use super::sandbox::{Sandbox, acme_proxy};

const GO_MOD: &str = include_str!("../../../velox-query/src/audit/govulncheck.mod");
const GO_SUM: &str = include_str!("../../../velox-query/src/audit/govulncheck.sum");
pub const LIB: &str = "example.com/acme/lib";
pub const HELLO: &str = "example.com/acme/hello";

/// Downloads the modules of govulncheck; where that is impossible, the test is skipped with a printed reason.
pub fn has_govulncheck(test: &str) -> bool {
    static HAS: OnceLock<bool> = OnceLock::new();
    let has = HAS.get_or_init(|| {
        let sandbox = Sandbox::new().file("tool/go.mod", GO_MOD).file("tool/go.sum", GO_SUM);
        let arguments = ["-C", "tool", "mod", "download"];
        sandbox.command("go", &arguments).output().is_ok_and(|output| output.status.success())
    });
    if !has {
        println!("{test} is skipped: golang.org/x/vuln can't be downloaded from GOPROXY");
    }
    *has
}

/// A proxy whose plugin hello calls `lib.Read` in a method that RoadRunner finds by reflection, and `lib.Rare` on
/// Windows.
pub fn vulnerable_proxy() -> ModuleProxy {
    let proxy = acme_proxy();
    for version in ["v1.2.0", "v1.2.5", "v1.3.0"] {
        proxy.module(LIB, version, library());
    }
    let mut hello = plugin(HELLO, "hello").requires(LIB, "v1.2.0").files();
    for (file, method) in
        [("use.go", "Text() string { return lib.Read() }"), ("rare_windows.go", "Seldom() { lib.Rare() }")]
    {
        let source = format!("package hello\n\nimport \"{LIB}\"\n\nfunc (*Plugin) {method}\n");
        hello.insert(file.to_owned(), source.into_bytes());
    }
    for version in ["v1.0.0", "v1.0.1"] {
        proxy.module(HELLO, version, hello.clone());
    }
    proxy
}

/// A library whose function `Read` is called, whose package `lib/rare` nobody imports.
pub fn library() -> Files {
    let text =
        |name: &str| format!("package {name}\n\nfunc Read() string {{ return \"x\" }}\n\nfunc Rare() {{}}\n");
    [
        ("go.mod", format!("module {LIB}\n\ngo 1.22\n")),
        ("lib.go", text("lib")),
        ("rare/rare.go", text("rare")),
    ]
    .map(|(file, text)| (file.to_owned(), text.into_bytes()))
    .into()
}

/// A vulnerability of symbols of one package.
pub fn entry(id: &str, module: &str, package: &str, symbols: &[&str], fixed: Option<&str>) -> Value {
    let fixed = fixed.map(|fixed| json!({ "fixed": fixed }));
    let events: Vec<Value> = std::iter::once(json!({ "introduced": "0" })).chain(fixed).collect();
    json!({
        "schema_version": "1.3.1",
        "id": id,
        "published": "2026-01-02T00:00:00Z",
        "modified": "2026-01-02T00:00:00Z",
        "aliases": [format!("CVE-{}", &id[3..])],
        "summary": format!("Fictional {id}"),
        "details": "Only in tests.",
        "affected": [{
            "package": { "name": module, "ecosystem": "Go" },
            "ranges": [{ "type": "SEMVER", "events": events }],
            "ecosystem_specific": { "imports": [{ "path": package, "symbols": symbols }] },
        }],
        "database_specific": { "url": format!("https://pkg.go.dev/vuln/{id}") },
    })
}

/// A vulnerability of [`LIB`] v1.2.0 that hello calls.
pub fn called() -> Value {
    entry("GO-2026-0001", LIB, LIB, &["Read"], Some("1.2.5"))
}

/// Writes a database with these entries (<https://go.dev/doc/security/vuln/database#api>) to `db/`.
pub fn with_database(mut sandbox: Sandbox, modified: &str, entries: &[Value]) -> Sandbox {
    let mut modules: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
    for entry in entries {
        let module = entry["affected"][0]["package"]["name"].as_str().unwrap();
        let vuln = json!({ "id": entry["id"], "modified": entry["modified"] });
        modules.entry(module).or_default().push(vuln);
        sandbox = sandbox.file(&format!("db/ID/{}.json", entry["id"].as_str().unwrap()), entry.to_string());
    }
    let modules: Vec<Value> =
        modules.iter().map(|(path, vulns)| json!({ "path": path, "vulns": vulns })).collect();
    sandbox
        .file("db/index/db.json", json!({ "modified": modified }).to_string())
        .file("db/index/modules.json", json!(modules).to_string())
}

pub fn now() -> String {
    jiff::Timestamp::now().to_string()
}

/// The URL of the database of [`with_database`].
pub fn url(sandbox: &Sandbox) -> String {
    format!("file://{}", sandbox.at("db").display())
}
