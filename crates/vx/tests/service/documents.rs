//! Bills of materials, attestations and audits of the builds of a service, and services that verify each other.

#![cfg(target_os = "linux")]

use std::{fs, os::unix::fs::PermissionsExt as _};

use rcgen::KeyPair;
use serde_json::{Value, json};

use crate::support::{
    sandbox::{RELEASE, Sandbox, acme_proxy, assert_contains, configuration},
    service::{Answer, RunningService},
    vulnerabilities::{HELLO, entry, url, with_database},
};

/// Writes a key pair `NAME.pem` and `NAME.pub`.
pub(super) fn with_key(sandbox: Sandbox, name: &str) -> Sandbox {
    let pair = KeyPair::generate().unwrap();
    let sandbox = sandbox
        .file(&format!("{name}.pem"), pair.serialize_pem())
        .file(&format!("{name}.pub"), pair.public_key_pem());
    fs::set_permissions(sandbox.at(format!("{name}.pem")), fs::Permissions::from_mode(0o600)).unwrap();
    sandbox
}

#[test]
fn documents_are_served_and_another_service_builds_the_same() {
    let proxy = acme_proxy();
    let entries = [entry("GO-2026-0001", HELLO, HELLO, &[], Some("1.1.0"))];
    let machine = with_database(Sandbox::behind(&proxy), "2026-01-02T00:00:00Z", &entries);
    let machine = with_key(with_key(machine, "ours"), "theirs");
    let database = url(&machine);
    let mut command = machine.vx_command("server --data data --sign-key ours.pem --vulnerability-db");
    let service = RunningService::start(command.arg(&database));
    let toml = configuration("hello@v1.0.0");
    let user = Sandbox::behind(&proxy).file("velox.toml", &toml);
    let key = |name: &str| machine.at(format!("{name}.pub")).display().to_string();

    // Nothing is downloaded that the trusted key did not sign.
    let build = format!("build --remote {} --trusted-key", service.url);
    user.vx(&format!("{build} {}", key("theirs")))
        .fails_with(1, &["is not signed by this key", "another key"]);
    assert!(!user.has("rr"));
    user.vx(&format!("{build} missing.pub")).fails_with(2, &["failed to read the key missing.pub"]);
    user.vx("build --trusted-key ours.pub").fails_with(2, &["--trusted-key requires a build service"]);
    user.vx(&format!("{build} {}", key("ours"))).ok();

    let request = json!({ "configuration": toml });
    let view = service.post("/v1/builds", &request).json();
    assert_eq!(view["state"], "succeeded", "the same request has the same build: {view}");
    let id = view["id"].as_str().unwrap().to_owned();
    let link =
        |name: &str| view["links"][name].as_str().unwrap_or_else(|| panic!("{name}: {view}")).to_owned();
    let save = |name: &str, answer: &Answer| {
        assert_eq!(answer.status, 200, "{answer:?}");
        fs::write(user.at(name), &answer.body).unwrap();
    };
    let cyclonedx = service.get(&link("sbom"));
    assert_contains(cyclonedx.header("content-type"), &["application/vnd.cyclonedx+json"]);
    assert_eq!(cyclonedx.json()["bomFormat"], "CycloneDX");
    save("rr.cdx.json", &cyclonedx);
    let spdx = service.get(&format!("{}?format=spdx", link("sbom")));
    assert_eq!(spdx.json()["spdxVersion"], "SPDX-2.3");
    save("rr.spdx.json", &spdx);
    assert_eq!(service.get(&format!("{}?format=pdf", link("sbom"))).status, 400);
    save("rr.intoto.jsonl", &service.get(&link("attestation")));
    let page = service.get(&format!("/builds/{id}")).text();
    assert_contains(&page, &["SBOM (CycloneDX)", "SBOM (SPDX)", ">Attestation<", &link("attestation")]);
    let audit = format!("/v1/builds/{id}/audit");
    assert_contains(&page, &[&format!("href=\"{audit}\">Known vulnerabilities by version<")]);
    let audit = service.get(&audit);
    let known = &audit.json()["vulnerabilities"][0];
    assert_eq!((&known["id"], &known["fixed"]), (&json!("GO-2026-0001"), &json!("v1.1.0")), "{audit:?}");
    assert_eq!((&known["module"], &known["version"]), (&json!(HELLO), &json!("v1.0.0")));
    fs::remove_dir_all(machine.at("db")).unwrap();
    assert_eq!(service.get(&format!("/v1/builds/{id}/audit")).status, 200, "a result is kept for a while");
    let missing = id.replace(|c: char| c.is_ascii_digit(), "0");
    for name in ["sbom", "attestation", "audit"] {
        assert_eq!(service.get(&format!("/v1/builds/{missing}/{name}")).status, 404);
    }
    let document = service.get("/v1/openapi.json").text();
    assert_contains(
        &document,
        &["/v1/builds/{id}/sbom", "/v1/builds/{id}/attestation", "/v1/builds/{id}/audit"],
    );

    // The lock of the service builds these bytes here, too.
    let lock = format!("{}{}", service.url, link("lock"));
    let papers = "--attestation rr.intoto.jsonl --sbom rr.cdx.json --sbom rr.spdx.json";
    let verified =
        user.vx(&format!("verify rr --shared-caches --lock {lock} {papers} --key {}", key("ours")));
    assert_contains(
        &verified.ok(),
        &["rr is exactly what", RELEASE, "and describes this build", "rr.spdx.json lists the modules"],
    );

    // Another service, with tokens and without a key, builds them, too.
    let other = Sandbox::behind(&proxy);
    let token = other.vx("server token new user").ok();
    let second = RunningService::start(&mut other.vx_command("server --data data --tokens tokens.toml"));
    let user = user.file("token", token.trim());
    let verify = format!("verify rr --remote {}", second.url);
    user.vx(&verify).fails_with(2, &["VX_REMOTE_TOKEN"]);
    let verify = format!("{verify} --remote-token-file token");
    let output = user.vx(&verify);
    assert_contains(&output.ok(), &["rr is exactly what the build service builds", "SHA-256"]);
    let newer = Sandbox::behind(&proxy).plugins("hello@v1.1.0");
    newer.vx("lock").ok();
    fs::copy(newer.at("velox.lock"), user.at("other.lock")).unwrap();
    let mismatch = user.vx(&format!("{verify} --lock other.lock --config velox.toml"));
    mismatch.fails_with(1, &["module example.com/acme/hello: the binary has v1.0.0, expected v1.1.0"]);
    let header = [("Authorization", format!("Bearer {}", token.trim()))];
    let header: Vec<(&str, &str)> = header.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let recent: Value = second
        .ask(
            "POST",
            "/v1/builds",
            &[&header[..], &[("Content-Type", "application/json")]].concat(),
            request.to_string().as_bytes(),
        )
        .json();
    let id = recent["id"].as_str().unwrap();
    for name in ["sbom", "attestation", "audit"] {
        let path = format!("/v1/builds/{id}/{name}");
        assert_eq!(second.get(&path).status, 401, "{name}");
    }
    let missing = second.ask("GET", &format!("/v1/builds/{id}/audit"), &header, b"");
    assert_eq!(missing.status, 404, "{missing:?}");
    let build = format!("build --remote {} --remote-token-file token --trusted-key", second.url);
    user.vx(&format!("{build} {}", key("ours")))
        .fails_with(1, &["has no attestation", "vx server --sign-key"]);
}
