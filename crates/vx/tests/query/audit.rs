//! `vx audit`, and `vx update --security`, with fictional vulnerabilities of the test modules.

use std::{fs, path::Path, process::Command};

use serde_json::{Value, json};
use velox_testkit::{Fault, ModuleProxy};

use crate::support::{
    sandbox::{CommandOutput, Sandbox, assert_contains, configuration},
    validators,
    vulnerabilities::{
        HELLO, LIB, called, entry, has_govulncheck, library, now, url, vulnerable_proxy, with_database,
    },
};

fn audit(sandbox: &Sandbox, arguments: &str) -> CommandOutput {
    sandbox.vx(&format!("audit --db {} {arguments}", url(sandbox)))
}

/// hello calls a vulnerable function, bye is not vulnerable, and nobody compiles `lib/rare`.
fn machine(proxy: &ModuleProxy) -> Sandbox {
    let sandbox = Sandbox::behind(proxy).plugins("hello@v1.0.0 bye@v1.0.0");
    let entries = [
        called(),
        entry("GO-2026-0002", LIB, LIB, &["Rare"], None),
        entry("GO-2026-0003", LIB, &format!("{LIB}/rare"), &["Read"], Some("1.3.0")),
        entry("GO-2026-0004", "example.com/acme/other", "example.com/acme/other", &["Read"], None),
    ];
    with_database(sandbox, &now(), &entries)
}

#[test]
fn audit_tells_called_from_imported_and_required() {
    if !has_govulncheck("audit_tells_called_from_imported_and_required") {
        return;
    }
    let proxy = vulnerable_proxy();
    let sandbox = machine(&proxy);
    let output = audit(&sandbox, "-q");
    output.fails(1);
    let text = output.stdout();
    assert_contains(
        &text,
        &[
            "Called: the vulnerable code can run\n\nGO-2026-0001 (CVE-2026-0001): Fictional GO-2026-0001\n",
            "  example.com/acme/lib v1.2.0, fixed in v1.2.5\n  calls example.com/acme/lib.Read\n  through plugin hello\n    \
             example.com/acme/hello.Plugin.Text (use.go:5)\n    example.com/acme/lib.Read (lib.go:3)\n",
            "Imported: compiled, but the vulnerable functions are not called\n\nGO-2026-0002",
            "  compiles example.com/acme/lib\n  through plugin hello\n    example.com/acme/hello v1.0.0 -> example.com/acme/lib v1.2.0\n",
            "Required: no vulnerable package is compiled\n\nGO-2026-0003",
            "3 vulnerabilities: 1 called, 1 imported, 1 required\n",
            "govulncheck v1.9.0, file://",
        ],
    );
    assert!(!text.contains("GO-2026-0004"), "{text}");

    // The program is compiled once.
    let again = audit(&sandbox, "--fail-on none");
    again.ok();
    assert!(!again.stderr().contains("compiling govulncheck"), "{}", again.stderr());
    audit(&sandbox, "--offline").fails(1);

    let mut events = audit(&sandbox, "--format json").events();
    events.retain(|event| event["event"] == "vulnerability" || event["event"] == "audited");
    let [first, .., last] = events.as_slice() else { panic!("{events:?}") };
    assert_eq!(
        (&first["id"], &first["reach"], &first["fixed"]),
        (&json!("GO-2026-0001"), &json!("called"), &json!("v1.2.5"))
    );
    assert_eq!(first["plugins"], json!(["hello"]));
    assert_eq!(first["calls"][0].as_array().unwrap().last().unwrap()["file"], "lib.go");
    assert_eq!(
        (&last["event"], &last["called"], &last["required"]),
        (&json!("audited"), &json!(1), &json!(1))
    );

    // Without the called one, the level decides.
    let sandbox = with_database(sandbox, &now(), &[entry("GO-2026-0002", LIB, LIB, &["Rare"], None)]);
    audit(&sandbox, "").ok();
    audit(&sandbox, "--fail-on imported").fails(1);
    // An old database is no clean bill.
    let sandbox = with_database(sandbox, "2026-01-02T00:00:00Z", &[]);
    assert_contains(
        &audit(&sandbox, "").stderr(),
        &["was last modified at 2026-01-02", "newer vulnerabilities are missing"],
    );
}

#[test]
fn audit_writes_sarif_and_openvex() {
    const TEST: &str = "audit_writes_sarif_and_openvex";
    if !has_govulncheck(TEST) {
        return;
    }
    let proxy = vulnerable_proxy();
    let entries = [
        called(),
        entry("GO-2026-0002", LIB, LIB, &["Rare"], None),
        entry("GO-2026-0003", LIB, &format!("{LIB}/rare"), &["Read"], Some("1.3.0")),
        entry("GO-2026-0005", "stdlib", "net/http/cgi", &["Serve"], None),
    ];
    let sandbox = Sandbox::behind(&proxy).plugins("hello@v1.0.0").env("SOURCE_DATE_EPOCH", "1767312000");
    let sandbox = with_database(sandbox, &now(), &entries);
    let document = |format: &str| -> Value {
        let output = audit(&sandbox, &format!("-q --format {format}"));
        assert_eq!(output.code(), Some(1), "{}", output.stderr());
        fs::write(sandbox.at(format), output.stdout()).unwrap();
        serde_json::from_str(&output.stdout()).unwrap()
    };
    let sarif = document("sarif");
    let results = sarif["runs"][0]["results"].as_array().unwrap();
    let levels: Vec<&Value> = results.iter().map(|result| &result["level"]).collect();
    assert_eq!(levels, ["error", "warning", "note", "note"]);
    let place = &results[0]["locations"][0]["physicalLocation"];
    assert_eq!(
        (&place["artifactLocation"]["uri"], &place["region"]["startLine"]),
        (&json!("velox.toml"), &json!(4))
    );
    let step = &results[0]["codeFlows"][0]["threadFlows"][0]["locations"][0]["location"]["physicalLocation"];
    assert_eq!(step["artifactLocation"]["uri"], "example.com/acme/hello@v1.0.0/use.go");

    let vex = document("openvex");
    assert_eq!(vex["timestamp"], "2026-01-02T00:00:00Z");
    let statements = vex["statements"].as_array().unwrap();
    let said: Vec<_> =
        statements.iter().map(|it| (it["status"].as_str().unwrap(), it["justification"].as_str())).collect();
    assert_eq!(
        said,
        [
            ("affected", None),
            ("not_affected", Some("vulnerable_code_not_in_execute_path")),
            ("not_affected", Some("vulnerable_code_not_present")),
            ("not_affected", Some("vulnerable_code_not_present")),
        ]
    );
    assert_eq!(
        statements[1]["products"][0]["subcomponents"][0]["@id"],
        "pkg:golang/example.com/acme/lib@v1.2.0"
    );
    assert_eq!(document("openvex"), vex, "the same statements have the same bytes");
    validate(TEST, &sandbox);

    // Scanners find RoadRunner without its version in a binary.
    let Some(openvex) = validators::go(TEST, "openvex") else { return };
    let statuses = |vulnerability: &str, module: &str| {
        let roadrunner = "pkg:golang/github.com/roadrunner-server/roadrunner/v2025";
        let arguments = ["openvex", vulnerability, roadrunner, &format!("pkg:golang/{module}")];
        CommandOutput::from(sandbox.command(&openvex, &arguments)).ok()
    };
    assert_eq!(statuses("GO-2026-0001", &format!("{LIB}@v1.2.0")), "affected\n");
    assert_eq!(statuses("CVE-2026-0002", &format!("{LIB}@v1.2.0")), "not_affected\n");
    assert_eq!(statuses("CVE-2026-0002", &format!("{LIB}@v1.3.0")), "", "nothing is known of other versions");
    let go = CommandOutput::from(sandbox.command("go", &["env", "GOVERSION"])).ok();
    for prefix in ["", "v"] {
        let module = format!("stdlib@{prefix}{}", go.trim().trim_start_matches("go"));
        assert_eq!(statuses("CVE-2026-0005", &module), "not_affected\n");
    }
}

/// Reads both documents with the packages of others.
fn validate(test: &str, sandbox: &Sandbox) {
    let Some(python) = validators::python(test) else { return };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/read-audit");
    let read = Command::new(python).arg(script).args([sandbox.at("sarif"), sandbox.at("openvex")]).output();
    let read = CommandOutput(read.unwrap());
    assert_contains(&read.ok(), &["read 4 results and statements"]);
}

#[test]
fn every_target_is_audited() {
    if !has_govulncheck("every_target_is_audited") {
        return;
    }
    let proxy = vulnerable_proxy();
    let sandbox = machine(&proxy);
    let output = audit(&sandbox, "--target linux/amd64 --target windows/amd64");
    let text = output.stdout();
    assert_eq!(output.code(), Some(1), "{text}{}", output.stderr());
    assert_contains(
        &text,
        &[
            "calls example.com/acme/lib.Rare\n  only for windows/amd64\n  through plugin hello\n",
            ", linux/amd64, windows/amd64: 3 vulnerabilities: 2 called, 0 imported, 1 required",
        ],
    );
    assert_eq!(text.matches("only for").count(), 1, "{text}");
    let events = audit(&sandbox, "--format json --target linux/amd64 --target windows/amd64").events();
    let known = events.iter().find(|event| event["id"] == "GO-2026-0001").unwrap();
    assert_eq!(known["targets"], json!(["linux/amd64", "windows/amd64"]));
    assert_eq!(known["calls"].as_array().unwrap().len(), 1, "the same calls for both: {known}");
}

#[test]
fn audit_without_a_database_or_a_tool_is_a_failure() {
    let proxy = vulnerable_proxy();
    let sandbox = machine(&proxy);
    let fails = |sandbox: &Sandbox, parts: &[&str]| {
        let output = audit(sandbox, "");
        output.fails_with(1, parts);
        assert_eq!(output.stdout(), "", "nothing is called clean");
    };
    let sandbox = sandbox.file("db/index/db.json", "{\"modi");
    fails(
        &sandbox,
        &[
            "invalid index/db.json in the vulnerability database file://",
            "line 1 column 6",
            "nothing was checked",
        ],
    );
    let sandbox = with_database(sandbox, &now(), &[])
        .file("db/index/modules.json", "[{\"path\":\"a.b/c\",\"vulns\":[{\"id\":\"../../etc/passwd\"}]}]");
    fails(&sandbox, &["invalid index/modules.json", "invalid id \"../../etc/passwd\" of module \"a.b/c\""]);
    let sandbox = with_database(sandbox, &now(), &[called()]).file("db/ID/GO-2026-0001.json", "");
    fails(&sandbox, &["invalid ID/GO-2026-0001.json", "EOF while parsing"]);
    let other = entry("GO-2026-0009", LIB, LIB, &["Read"], None).to_string();
    let sandbox = sandbox.file("db/ID/GO-2026-0001.json", other);
    fails(&sandbox, &["invalid ID/GO-2026-0001.json", "it is the entry \"GO-2026-0009\""]);
    fs::remove_file(sandbox.at("db/ID/GO-2026-0001.json")).unwrap();
    fails(&sandbox, &["failed to read ID/GO-2026-0001.json", "No such file"]);
    fs::remove_dir_all(sandbox.at("db")).unwrap();
    fails(
        &sandbox,
        &[
            "failed to read index/db.json of the vulnerability database file://",
            "`--db` names another database",
        ],
    );

    sandbox
        .vx("audit --db http://127.0.0.1:9")
        .fails_with(1, &["failed to read index/db.json of the vulnerability database http://127.0.0.1:9/"]);
    sandbox
        .vx("audit --offline")
        .fails_with(1, &["`--offline` forbids reading the vulnerability database https://vuln.go.dev/"]);
    sandbox.vx("audit --db https://user:secret@example.com").fails_with(2, &["must not contain credentials"]);
    assert!(!sandbox.vx("audit --db https://user:secret@example.com").stderr().contains("secret"));
    sandbox.vx("audit --db /srv/vulndb").fails_with(2, &["did you mean `file:///srv/vulndb`?"]);
    sandbox.vx("build --format sarif").fails_with(2, &["only `vx audit` prints SARIF and OpenVEX"]);

    // A proxy without govulncheck.
    let sandbox = with_database(sandbox, &now(), &[called()]);
    sandbox.vx("lock").ok();
    let sandbox = sandbox.env("GOPROXY", proxy.url());
    fails(
        &sandbox,
        &[
            "failed to build govulncheck",
            "golang.org/x/vuln/cmd/govulncheck v1.9.0, which GOPROXY must serve",
        ],
    );
}

#[test]
fn a_mirror_that_is_cut_or_hostile_is_a_failure() {
    const TEST: &str = "a_mirror_that_is_cut_or_hostile_is_a_failure";
    let (proxy, mirror) = (vulnerable_proxy(), ModuleProxy::start());
    let mut hostile = called();
    hostile["summary"] = json!("\u{1b}]0;title\u{7}red\nRoadRunner: no known vulnerabilities");
    let sandbox = Sandbox::behind(&proxy).plugins("hello@v1.0.0");
    let sandbox = with_database(sandbox, &now(), &[hostile]);
    sandbox.run("gzip -kr db");
    for name in ["index/db.json", "index/modules.json", "ID/GO-2026-0001.json"] {
        for name in [name, &format!("{name}.gz")] {
            mirror.serve(&format!("/{name}"), sandbox.bytes(&format!("db/{name}")));
        }
    }
    let audit = || sandbox.vx(&format!("audit -q --db {}", mirror.url()));
    let fails = |fault: Fault, file: &str, texts: &[&str]| {
        mirror.heal();
        mirror.fail(file, fault);
        let output = audit();
        output.fails_with(1, texts);
        assert_eq!(output.stdout(), "", "nothing is called clean");
    };
    let (db, modules, checked) = ("index/db.json", "index/modules.json", "nothing was checked");
    let failed =
        |file: &str| format!("failed to read {file} of the vulnerability database http://127.0.0.1:");
    let invalid = |file: &str| format!("invalid {file} in the vulnerability database http://127.0.0.1:");
    fails(Fault::CutBody, db, &[&failed(db), checked]);
    fails(Fault::Status(503), modules, &[&failed(modules), "503 Service Unavailable", checked]);
    fails(Fault::Oversized(33 << 20), modules, &[&failed(modules), "it is larger than 32 MiB", checked]);
    fails(Fault::Page("<h1>Log in</h1>".to_owned()), db, &[&invalid(db), "line 1 column 1", checked]);
    fails(Fault::GarbageJson, modules, &[&invalid(modules), checked]);
    if !has_govulncheck(TEST) {
        return;
    }
    fails(Fault::CutBody, "ID/GO-2026-0001.json", &["govulncheck failed for ", "unexpected EOF"]);
    mirror.heal();
    let output = audit();
    output.fails(1);
    assert_contains(&output.stdout(), &["red\n  example.com/acme/lib v1.2.0", "1 vulnerability: 1 called"]);
    assert!(
        !output.stdout().contains('\u{1b}') && !output.stdout().contains("no known"),
        "{}",
        output.stdout()
    );
}

#[test]
fn a_security_update_is_the_smallest_change() {
    if !has_govulncheck("a_security_update_is_the_smallest_change") {
        return;
    }
    let proxy = vulnerable_proxy();
    let entries = [
        called(),
        entry("GO-2026-0002", LIB, LIB, &["Rare"], None),
        entry("GO-2026-0003", HELLO, HELLO, &["Plugin.Text"], Some("1.0.1")),
    ];
    let text = configuration("hello@v1.0.0 bye@v1.0.0") + "# the end\n";
    let sandbox = with_database(Sandbox::behind(&proxy).file("velox.toml", &text), &now(), &entries);
    sandbox.vx("lock").ok();
    let lock = sandbox.read("velox.lock");
    let update =
        |arguments: &str| sandbox.vx(&format!("update --security --db {} {arguments}", url(&sandbox)));

    let output = update("-q --dry-run");
    assert_eq!(
        output.ok(),
        "plugin hello v1.0.0 -> v1.0.1\nexample.com/acme/lib v1.2.0 -> v1.2.5 ([[requires]])\n\n\
         closes 2 vulnerabilities:\n  GO-2026-0001 in example.com/acme/lib v1.2.0 (called)\n  \
         GO-2026-0003 in example.com/acme/hello v1.0.0 (called)\n\
         can't close 1 vulnerability:\n  GO-2026-0002 in example.com/acme/lib v1.2.5 (imported): no fix is available\n\
         the build works; nothing was written (--dry-run)\n"
    );
    assert_eq!((sandbox.read("velox.toml"), sandbox.read("velox.lock")), (text.clone(), lock));

    let events = update("--format json").events();
    let result = events.iter().find(|event| event["event"] == "security_update").unwrap();
    assert_eq!(
        result["changes"][1],
        json!({ "change": "requires", "module": LIB, "from": "v1.2.0", "to": "v1.2.5" })
    );
    assert_eq!((&result["builds"], &result["closed"][0]["id"]), (&json!(true), &json!("GO-2026-0001")));
    let floor = format!("\n[[requires]]\nmodule = \"{LIB}\"\nversion = \"v1.2.5\"\n");
    assert_eq!(sandbox.read("velox.toml"), text.replacen("tag = \"v1.0.0\"", "tag = \"v1.0.1\"", 1) + &floor);
    sandbox.vx("lock --check").ok();
    sandbox.vx("build -q -o bin --locked").ok();
    assert_eq!(sandbox.module_in("bin/rr", LIB).as_deref(), Some("v1.2.5"));
    assert_contains(&update("-q").ok(), &["nothing to change"]);

    // A fix that doesn't compile changes nothing.
    let broken = "package lib\n".to_owned().into_bytes();
    let mut files = library();
    files.insert("lib.go".to_owned(), broken);
    proxy.module(LIB, "v1.2.6", files);
    let before = sandbox.read("velox.toml");
    let sandbox =
        with_database(sandbox, &now(), &[entry("GO-2026-0005", LIB, LIB, &["Read"], Some("1.2.6"))]);
    let output = sandbox.vx(&format!("update --security --db {}", url(&sandbox)));
    assert_eq!(output.code(), Some(1), "{}", output.stderr());
    assert_eq!(sandbox.read("velox.toml"), before);
    sandbox.vx("update --security hello").fails(2);
}

#[test]
fn a_binary_is_upgraded_without_its_vulnerabilities() {
    if !has_govulncheck("a_binary_is_upgraded_without_its_vulnerabilities") {
        return;
    }
    let proxy = vulnerable_proxy();
    let sandbox = machine(&proxy);
    sandbox.vx("build -q -o bin").ok();
    for file in ["velox.toml", "velox.lock"] {
        fs::remove_file(sandbox.at(file)).unwrap();
    }
    let database = url(&sandbox);
    sandbox.vx(&format!("upgrade bin/rr --security --check --db {database}")).fails(1);
    let output = sandbox.vx(&format!("upgrade bin/rr --security --db {database}"));
    assert_contains(&output.ok(), &["- `example.com/acme/lib` v1.2.0 → "]);
    assert_ne!(sandbox.module_in("bin/rr", LIB).as_deref(), Some("v1.2.0"));
    assert_eq!(sandbox.module_in("bin/rr", HELLO).as_deref(), Some("v1.0.0"));
}
