//! `vx verify`: a binary is built again from its lock.
#![cfg(unix)]

use std::fs;

use data_encoding::BASE64;
use serde_json::{Value, json};
use velox_testkit::ModuleProxy;

use crate::{
    provenance::{COSIGN_PUBLIC_KEY, P256, decoded, envelope, machine, openssl_keys},
    support::sandbox::{RELEASE, Sandbox, VX, acme_proxy, assert_contains, program},
    toolchain::{version, with_go},
};

/// A machine with a binary and its lock.
fn built(proxy: &ModuleProxy) -> Sandbox {
    let sandbox = machine(proxy);
    sandbox.vx("build -q --sbom cyclonedx --sbom spdx").ok();
    sandbox
}

/// Replaces bytes of a file by others of the same length.
fn patch(sandbox: &Sandbox, name: &str, old: &str, new: &str) {
    assert_eq!(old.len(), new.len());
    let mut data = sandbox.bytes(name);
    let starts = data.windows(old.len()).enumerate().filter(|(_, it)| *it == old.as_bytes());
    let starts: Vec<usize> = starts.map(|(at, _)| at).collect();
    assert!(!starts.is_empty(), "{old} isn't in {name}");
    for at in starts {
        data[at..at + new.len()].copy_from_slice(new.as_bytes());
    }
    fs::write(sandbox.at(name), data).unwrap();
}

#[test]
fn another_machine_builds_the_same_bytes() {
    const TEST: &str = "another_machine_builds_the_same_bytes";
    let proxy = acme_proxy();
    let sandbox = machine(&proxy);
    sandbox.vx("build -q --stamp-version 1.2.3 --stamp-time then").ok();

    // Another user and directory, without velox.toml, and nothing in a cache.
    let other = Sandbox::behind(&proxy)
        .file("got/rr", sandbox.bytes("rr"))
        .file("got/velox.lock", sandbox.bytes("velox.lock"))
        .by_another_user(TEST);
    let output = other.vx("verify got/rr");
    assert_contains(
        &output.ok(),
        &["got/rr is exactly what velox.lock builds: RoadRunner v2025.0.77 for linux/", "\nSHA-256 "],
    );
    assert!(!output.stderr().contains("Published"), "{}", output.stderr());
    assert_eq!(other.entries("got"), ["rr", "velox.lock"]);
    assert_eq!(other.entries("../cache/workspaces-v0"), [""; 0], "everything temporary is removed");
    assert!(!other.has("../cache/artifacts-v1"), "nothing is kept");
}

#[test]
fn the_first_difference_is_named() {
    let proxy = acme_proxy();
    // The linker leaves the text of a plugin out of a binary that starts no plugins.
    proxy.roadrunner(RELEASE);
    let sandbox = built(&proxy);
    let lock = sandbox.read("velox.lock");
    let verified = sandbox.vx("verify rr --shared-caches --format json");
    verified.ok();
    let verified = verified.events().into_iter().find(|event| event["event"] == "verified").unwrap();
    assert_eq!((&verified["identical"], &verified["difference"]), (&json!(true), &Value::Null));
    assert_eq!(verified["sha256"], verified["rebuilt_sha256"]);

    // Locks of other binaries: nothing is compiled.
    let fails = |lock: String, texts: &[&str]| {
        fs::write(sandbox.at("other.lock"), lock).unwrap();
        let output = sandbox.vx("verify rr --lock other.lock --shared-caches -v");
        output.fails_with(1, texts);
        assert_contains(&output.stderr(), &["rr differs from what other.lock builds", "another lock file"]);
        assert!(!output.stderr().contains("Compiled"), "{}", output.stderr());
        assert_eq!(output.stdout(), "");
    };
    let go = version();
    fails(
        lock.replace(&go, "go1.20.1"),
        &[&format!("the Go version: the binary has {go}, expected go1.20.1")],
    );
    let newer = Sandbox::behind(&proxy).plugins("hello@v1.1.0");
    newer.vx("lock").ok();
    fails(
        newer.read("velox.lock"),
        &["module example.com/acme/hello: the binary has v1.0.0, expected v1.1.0"],
    );
    let more = Sandbox::behind(&proxy).plugins("hello@v1.0.0 bye@v1.0.0");
    more.vx("lock").ok();
    fails(more.read("velox.lock"), &["module example.com/acme/bye: the binary has nothing, expected v1.0.0"]);
    let sum = lock.split_once("example.com/acme/hello v1.0.0 h1:").unwrap().1.split_once('\n').unwrap().0;
    let wrong = format!("{}=", "A".repeat(sum.len() - 1));
    fails(
        lock.replace(sum, &wrong),
        &["the checksum of module example.com/acme/hello: the binary has h1:", &wrong],
    );
    let arm = Sandbox::behind(&proxy).plugins("hello@v1.0.0");
    arm.vx("lock --target windows/386").ok();
    fails(arm.read("velox.lock"), &["the target: the binary has linux/", "expected windows/386"]);

    // Other bytes than those of the lock.
    for (name, old, new, part) in [
        ("changed", "hello v1.0.0", "hella v1.0.0", "section .rodata: the binary has 61"),
        ("stamped", r#""stamp_version":"2025.0.77""#, r#""stamp_version":"2025.0.78""#, "section ."),
    ] {
        fs::copy(sandbox.at("rr"), sandbox.at(name)).unwrap();
        patch(&sandbox, name, old, new);
        let output = sandbox.vx(&format!("verify {name} --shared-caches"));
        output.fails_with(
            1,
            &[&format!("{name} differs from what velox.lock builds: "), part, "SHA-256 of the binary that"],
        );
    }
    let mut longer = sandbox.bytes("rr");
    longer.extend(b"appended");
    fs::write(sandbox.at("longer"), longer).unwrap();
    sandbox
        .vx("verify longer --shared-caches")
        .fails_with(1, &["the bytes at offset 0x", "the binary has 617070656e646564, expected nothing"]);
}

#[test]
fn what_is_not_verifiable_is_refused() {
    let proxy = acme_proxy();
    let sandbox = built(&proxy);
    let fails = |line: &str, code: i32, texts: &[&str]| sandbox.vx(line).fails_with(code, texts);
    fs::copy(sandbox.at("rr"), sandbox.at("stripped")).unwrap();
    patch(&sandbox, "stripped", r#"{"vx_record":"#, r#"{"no_record":"#);
    fails("verify stripped", 1, &["stripped has no build record", "somebody removed the record"]);
    // A record is not trusted with flags that run programs.
    fs::copy(sandbox.at("rr"), sandbox.at("hostile")).unwrap();
    let time = String::from_utf8_lossy(&sandbox.bytes("rr")).into_owned();
    let time = time.split_once(r#""stamp_time":""#).unwrap().1.split_once('"').unwrap().0.to_owned();
    let rest = r#"","debug":false,"race":false,"tags":[],"flags":["#;
    let flag = format!("{:width$}", r#""-toolexec=x""#, width = time.len());
    patch(&sandbox, "hostile", &format!("{time}{rest}"), &format!("{rest}{flag}"));
    fails(
        "verify hostile --shared-caches",
        1,
        &["the build record of the binary has `-toolexec=x`", "don't run this binary"],
    );
    fails(&format!("verify {VX}"), 1, &["is not a Go binary"]);
    let go = program("go").unwrap().canonicalize().unwrap();
    fails(&format!("verify {}", go.display()), 1, &["is not a RoadRunner binary"]);
    fails("verify missing", 1, &["failed to read `missing`"]);
    fails("verify .", 1, &["failed to read `.`: not a regular file"]);
    fails("verify rr --lock missing.lock", 2, &["missing.lock", "`--lock` names the velox.lock"]);
    fails("verify rr --lock velox.toml", 2, &["failed to parse", "velox.toml"]);
    fails("verify rr --lock https://example.com/velox.lock", 2, &["invalid URL in --lock", "/v1/builds/ID/"]);
    fails("verify rr --offline", 2, &["--shared-caches"]);
    fails("verify rr --attestation rr.intoto.jsonl", 2, &["--key"]);
    fails("verify rr --config missing.toml", 2, &["missing.toml"]);

    // The proxy no longer has the Go that the lock names.
    let sandbox = with_go(sandbox.env("USED", "/dev/null").env("GOPROXY", proxy.url()), "go1.22.1");
    let (version, lock) = (version(), sandbox.read("velox.lock"));
    let line = lock.lines().position(|line| line == format!("version = \"{version}\"")).unwrap() + 1;
    let output = sandbox.env("GOTOOLCHAIN", "auto").env("GOSUMDB", "off").vx("verify rr");
    output.fails_with(
        1,
        &[
            &format!("error: failed to download Go {} (", version.trim_start_matches("go")),
            "not found",
            &format!("velox.lock:{line} requires this Go version"),
            "install that Go from https://go.dev/dl/, or name a proxy in GOPROXY that has it",
        ],
    );
    assert_eq!(output.stdout(), "", "nothing is called verified");
}

#[test]
fn the_papers_of_another_binary_are_refused() {
    const TEST: &str = "the_papers_of_another_binary_are_refused";
    let proxy = acme_proxy();
    let sandbox = machine(&proxy).file("cosign.pub", COSIGN_PUBLIC_KEY);
    if !openssl_keys(TEST, &sandbox, "ours", P256)
        || !openssl_keys(TEST, &sandbox, "ed", "-algorithm ED25519")
    {
        return;
    }
    let build = "build -q --sbom cyclonedx --sbom spdx --sign-key";
    sandbox.vx(&format!("{build} ed.key --attestation ed.json")).ok();
    sandbox.vx(&format!("{build} ours.key --attestation ours.json")).ok();
    sandbox.vx(&format!("{build} ours.key --attestation other.json -o other --stamp-version 2.0.0")).ok();
    let papers = "verify rr --shared-caches --sbom rr.cdx.json --sbom rr.spdx.json --attestation";
    for key in ["ours", "ed"] {
        let output = sandbox.vx(&format!("{papers} {key}.json --key {key}.pub"));
        assert_contains(
            &output.ok(),
            &[
                "rr is exactly what velox.lock builds",
                &format!("{key}.json is signed by {key}.pub, and describes this build"),
                "rr.cdx.json lists the modules of the binary",
                "rr.spdx.json lists",
            ],
        );
    }

    let fails = |line: &str, texts: &[&str]| {
        let output = sandbox.vx(&format!("verify rr --shared-caches {line}"));
        output.fails_with(1, texts);
        assert!(!output.stderr().contains("Compiled"), "{}", output.stderr());
    };
    fails(
        "--attestation ours.json --key cosign.pub",
        &["ours.json is not signed by this key", "it was signed by another key: expected ID"],
    );
    let original = envelope(&sandbox, "ours.json");
    let write = |name: &str, change: &dyn Fn(&mut Value)| {
        let mut envelope = original.clone();
        change(&mut envelope);
        fs::write(sandbox.at(name), envelope.to_string()).unwrap();
    };
    let payload = String::from_utf8(decoded(&original["payload"])).unwrap();
    let changed = BASE64.encode(payload.replace(RELEASE, "v2025.0.78").as_bytes());
    write("changed.json", &|envelope| envelope["payload"] = json!(changed));
    fails(
        "--attestation changed.json --key ours.pub",
        &["changed.json is not signed by this key", "its content was changed after this key signed it"],
    );
    write("unsigned.json", &|envelope| envelope["signatures"] = json!([]));
    fails("--attestation unsigned.json --key ours.pub", &["it has no signature"]);
    write("typed.json", &|envelope| envelope["payloadType"] = json!("text/plain"));
    fails("--attestation typed.json --key ours.pub", &["expected an in-toto statement, found text/plain"]);
    fails(
        "--attestation velox.lock --key ours.pub",
        &["invalid attestation velox.lock", "not a DSSE envelope"],
    );
    fails(
        "--attestation other.json --key ours.pub",
        &["other.json is not about rr, whose SHA-256 is", "the attestation of another build"],
    );
    // Several envelopes, as tools append them.
    let both = sandbox.read("ed.json") + &sandbox.read("ours.json");
    fs::write(sandbox.at("both.jsonl"), both).unwrap();
    sandbox.vx("verify rr --shared-caches --attestation both.jsonl --key ours.pub").ok();

    for (key, texts) in [
        ("ours.key", ["ours.key is a private key", "openssl pkey"]),
        ("velox.lock", ["the key velox.lock is not in PEM format", "help: "]),
        ("missing.pub", ["failed to read the key missing.pub", "help: "]),
    ] {
        let line = format!("verify rr --attestation ours.json --key {key}");
        sandbox.vx(&line).fails_with(2, &texts);
    }

    for format in ["cdx", "spdx"] {
        let name = format!("rr.{format}.json");
        fails(&format!("--sbom other/{name}"), &[&format!("other/{name} is about another binary")]);
        let less = sandbox
            .read(&name)
            .replace("pkg:golang/example.com/acme/hello@v1.0.0", "pkg:golang/a.b/c@v1.0.0");
        fs::write(sandbox.at("less.json"), less).unwrap();
        fails("--sbom less.json", &["less.json lacks pkg:golang/example.com/acme/hello@v1.0.0"]);
        sandbox
            .vx(&format!("sbom --type {} -o plain.json", if format == "cdx" { "cyclonedx" } else { "spdx" }))
            .ok();
        fails("--sbom plain.json", &["plain.json has no SHA-256 of the binary", "vx sbom BINARY"]);
    }
    fails("--sbom ours.json", &["it is neither CycloneDX nor SPDX in JSON"]);
    fails("--sbom velox.lock", &["invalid bill of materials velox.lock"]);
}
