//! Security updates: from a finding to a binary that another machine verifies.

#![cfg(target_os = "linux")]

use std::fs;

use velox_gomod::buildinfo::BuildInfo;

use crate::{
    provenance::{COSIGN_KEY, COSIGN_PUBLIC_KEY, protect},
    support::{
        book::{fits, page},
        sandbox::{RELEASE, Sandbox, assert_contains, configuration},
        vulnerabilities::{LIB, called, entry, has_govulncheck, now, url, vulnerable_proxy, with_database},
    },
    toolchain::{minor, renamed_toolchain, version},
};

const PAGE: &str = "docs/security-updates.md";
/// The comment above the blocks of the page that this story runs.
const REMARK: &str = "not run: crates/vx/tests/build/security_update.rs runs it";

/// Runs the commands of a block of the page, and compares their output. Only `--db` is added, and what differs between
/// machines is replaced.
fn follow(sandbox: &Sandbox, block: &str, names: &[(&str, &str)]) {
    let (mut shown, mut code) = (String::new(), 0);
    for command in block.lines().filter_map(|line| line.strip_prefix("$ ")) {
        shown += &format!("$ {command}\n");
        if command == "echo $?" {
            shown += &format!("{code}\n");
            continue;
        }
        let line = command.strip_prefix("vx ").unwrap_or_else(|| panic!("not a vx command: {command}"));
        let database = match line.split(' ').next() {
            Some("audit" | "update") => format!(" --db {}", url(sandbox)),
            _ => String::new(),
        };
        let output = sandbox.vx(&format!("{line}{database}"));
        code = output.code().unwrap();
        assert!(code == 0 || line == "audit", "{command}: {}", output.stderr());
        shown += &names.iter().fold(output.stdout(), |text, (name, page)| text.replace(name, page));
    }
    let is_same = block.lines().count() == shown.lines().count();
    assert!(
        is_same && block.lines().zip(shown.lines()).all(|(line, found)| fits(line, found)),
        "{PAGE} shows\n{block}\nbut it is\n{shown}"
    );
}

#[test]
fn a_vulnerable_binary_is_updated_signed_and_verified_on_another_machine() {
    const TEST: &str = "a_vulnerable_binary_is_updated_signed_and_verified_on_another_machine";
    if !has_govulncheck(TEST) {
        return;
    }
    let (proxy, fixed) = (vulnerable_proxy(), format!("{}.98", minor()));
    renamed_toolchain(&proxy, &format!("go{fixed}"));
    let mut entries = [called(), entry("GO-2026-0002", "stdlib", "fmt", &["Printf"], Some(&fixed))];
    entries[0]["summary"] = "Unbounded memory in example.com/acme/lib".into();
    entries[1]["summary"] = "Endless loop in fmt".into();
    let vulnerable = configuration("hello@v1.0.0 bye@v1.0.0");
    let machine = |sandbox: Sandbox| sandbox.env("GOSUMDB", "off").env("GOTOOLCHAIN", "auto");
    let sandbox = machine(Sandbox::behind(&proxy)).file("velox.toml", &vulnerable);
    let sandbox = sandbox.file("cosign.key", COSIGN_KEY).env("COSIGN_PASSWORD", "ten coins");
    protect(&sandbox, "cosign.key", 0o600);
    let sandbox = with_database(sandbox, &now(), &entries);

    let (installed, database) = (version(), url(&sandbox));
    let names = [
        (fixed.as_str(), "{fixed}"),
        (installed.trim_start_matches("go"), "1.26.8"),
        ("{fixed}", "1.26.9"),
        (database.as_str(), "https://vuln.go.dev"),
        (RELEASE, "v2025.1.15"),
    ];
    let page = page(PAGE);
    let blocks = page.blocks().into_iter().filter(|block| block.remark.as_deref() == Some(REMARK));
    let blocks: Vec<String> = blocks.map(|block| block.text).collect();
    let [update, build, verify] = blocks.as_slice() else { panic!("{PAGE}: {blocks:?}") };
    follow(&sandbox, update, &names);
    let added =
        format!("\n[[requires]]\nmodule = \"{LIB}\"\nversion = \"v1.2.5\"\n\n[go]\nversion = \"{fixed}\"\n");
    assert_eq!(sandbox.read("velox.toml"), vulnerable.clone() + &added);
    follow(&sandbox, build, &names);
    assert_eq!(BuildInfo::read(&sandbox.at("rr")).unwrap().go_version, format!("go{fixed}"));

    // Another user in another directory, without velox.toml, and nothing in a cache.
    let papers = ["rr", "velox.lock", "rr.intoto.jsonl", "rr.cdx.json"];
    let other = papers.iter().fold(machine(Sandbox::behind(&proxy)), |other, name| {
        other.file(&format!("downloads/{name}"), sandbox.bytes(name))
    });
    let other = other.file("cosign.pub", COSIGN_PUBLIC_KEY).by_another_user(TEST);
    follow(&other, verify, &names);

    // The papers of the vulnerable build are not those of this one.
    let sandbox = sandbox.file("old/velox.toml", vulnerable);
    sandbox
        .vx("build -q --config old/velox.toml -o old --attestation old/rr.intoto.jsonl --sign-key cosign.key")
        .ok();
    fs::copy(sandbox.at("old/rr.intoto.jsonl"), other.at("old.intoto.jsonl")).unwrap();
    other
        .vx("verify downloads/rr --attestation old.intoto.jsonl --key cosign.pub")
        .fails_with(1, &["old.intoto.jsonl is not about downloads/rr", "the attestation of another build"]);
}

#[test]
fn a_security_update_moves_the_locked_go() {
    const TEST: &str = "a_security_update_moves_the_locked_go";
    if !has_govulncheck(TEST) {
        return;
    }
    let (proxy, minor) = (vulnerable_proxy(), minor());
    let [old, fixed] = ["97", "98"].map(|patch| format!("{minor}.{patch}"));
    renamed_toolchain(&proxy, &format!("go{old}"));
    let text = configuration("hello@v1.0.0") + &format!("\n[go]\nversion = \"{minor}\"\n");
    let sandbox = Sandbox::behind(&proxy).env("GOSUMDB", "off").env("GOTOOLCHAIN", "auto");
    let sandbox = sandbox.file("velox.toml", &text);
    let standard_library = |id: &str, fixed: &str| entry(id, "stdlib", "fmt", &["Printf"], Some(fixed));
    let entries = [standard_library("GO-2026-0001", &fixed), standard_library("GO-2026-0002", "1.99.0")];
    let sandbox = with_database(sandbox, &now(), &entries);
    let locked = |version: &str| {
        assert_eq!(sandbox.read("velox.toml"), text);
        assert_contains(&sandbox.read("velox.lock"), &[&format!("\n[go]\nversion = \"go{version}\"\n")]);
    };
    sandbox.vx("lock").ok();
    locked(&old);
    let update = |arguments: &str| {
        sandbox.vx(&format!("update -q --security --db {} {arguments}", url(&sandbox))).ok()
    };
    let open = |go: &str| {
        let why = "it is fixed in Go 1.99.0, another minor version: set version in [go]";
        format!("  GO-2026-0002 in Go {go} (called): {why}\n")
    };

    // The patch release can't be downloaded yet.
    let why = format!("it is fixed in Go {fixed}, but the build still selects Go {old}");
    let unreleased = format!("  GO-2026-0001 in Go {old} (called): {why}\n");
    let expected = format!("can't close 2 vulnerabilities:\n{}{unreleased}nothing to change\n", open(&old));
    assert_eq!(update(""), expected);
    locked(&old);

    renamed_toolchain(&proxy, &format!("go{fixed}"));
    let expected = format!(
        "Go {old} -> {fixed}\n\ncloses 1 vulnerability:\n  GO-2026-0001 in Go {old} (called)\n\
         can't close 1 vulnerability:\n{}the build works",
        open(&fixed)
    );
    assert_eq!(update("--dry-run"), format!("{expected}; nothing was written (--dry-run)\n"));
    locked(&old);
    assert_eq!(update(""), format!("{expected}\n"));
    locked(&fixed);
    sandbox.vx("lock --check").ok();
    sandbox.vx("build -q --locked").ok();
    assert_eq!(BuildInfo::read(&sandbox.at("rr")).unwrap().go_version, format!("go{fixed}"));
}
