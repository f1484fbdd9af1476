//! Pushing, against a registry of the testkit.

use serde_json::json;
use velox_testkit::TestRegistry;

use super::{built_image, machine};
use crate::support::sandbox::{Sandbox, assert_contains};

/// Credentials for a registry in Docker's configuration.
pub(super) fn log_in(sandbox: Sandbox, host: &str, password: &str) -> Sandbox {
    let config = json!({ "auths": { host: { "username": "me", "password": password } } });
    let directory = sandbox.at("docker").display().to_string();
    sandbox.file("docker/config.json", config.to_string()).env("DOCKER_CONFIG", directory)
}

#[test]
fn an_image_is_pushed_once() {
    let (_proxy, sandbox) = machine();
    let registry = TestRegistry::start();
    registry.token_service("s3cret", false);
    let host = registry.host();
    let sandbox = log_in(sandbox, &host, "s3cret");
    let line = format!("build --format json --image {host}/acme/rr:1.4 --image {host}/acme/rr:latest --push");
    let image = built_image(&sandbox.vx(&line));
    assert_eq!(image["pushed"], true);
    assert_eq!(registry.tags("acme/rr"), ["1.4", "latest"]);
    let manifest = registry.manifest("acme/rr", "1.4").unwrap();
    assert_eq!(registry.manifest("acme/rr", image["digest"].as_str().unwrap()), Some(manifest.clone()));
    for part in [&manifest["config"], &manifest["layers"][0]] {
        assert!(registry.blob("acme/rr", part["digest"].as_str().unwrap()).is_some());
    }
    // A second push sends manifests only.
    registry.clear_requests();
    assert_eq!(built_image(&sandbox.vx(&line)), image);
    let requests = registry.requests();
    assert!(!requests.iter().any(|request| request.starts_with("PATCH")), "{requests:#?}");
}

#[test]
fn layers_of_a_base_in_the_same_registry_are_mounted() {
    let (_proxy, sandbox) = machine();
    let registry = TestRegistry::start();
    let host = registry.host();
    let base = format!("build --image {host}/library/base:1 --push --image-path /base/rr");
    sandbox.vx(&base).succeeds_with(&["Pushed the image"]);
    registry.clear_requests();
    let built = sandbox.vx(&format!("build --image {host}/acme/rr:1 --base {host}/library/base:1 --push"));
    built.succeeds_with(&["Pushed the image"]);
    let manifest = registry.manifest("acme/rr", "1").unwrap();
    let layers = manifest["layers"].as_array().unwrap();
    assert_eq!(layers.len(), 2);
    assert_eq!(layers[0], registry.manifest("library/base", "1").unwrap()["layers"][0]);
    let requests = registry.requests();
    let layer = layers[0]["digest"].as_str().unwrap();
    let mounted = requests.iter().any(|it| it.contains("mount=") && it.contains("from=library%2Fbase"));
    let downloaded = requests.iter().any(|it| *it == format!("GET /v2/library/base/blobs/{layer}"));
    assert!(mounted && !downloaded, "{requests:#?}");
    // The new layer and the configuration.
    assert_eq!(requests.iter().filter(|it| it.starts_with("PATCH")).count(), 2, "{requests:#?}");

    // To another registry, they are downloaded and sent.
    let other = TestRegistry::start();
    let built =
        sandbox.vx(&format!("build --image {}/acme/rr:1 --base {host}/library/base:1 --push", other.host()));
    built.ok();
    assert!(other.blob("acme/rr", layer).is_some());
}

#[test]
fn bills_of_materials_and_provenance_are_attached() {
    let (_proxy, sandbox) = machine();
    let registry = TestRegistry::start();
    let host = registry.host();
    if crate::support::sandbox::program("openssl").is_none() {
        return crate::support::sandbox::skip("referrers of an image", "there is no openssl");
    }
    sandbox.run("openssl genpkey -algorithm ed25519 -out key.pem");
    sandbox.run("chmod 600 key.pem");
    let line = format!(
        "build --format json --image {host}/acme/rr:1 --push --sbom cyclonedx --sbom spdx --attestation rr.intoto.jsonl --sign-key key.pem"
    );
    let image = built_image(&sandbox.vx(&line));
    let referrers = image["referrers"].as_array().unwrap();
    let mut attached = Vec::new();
    for referrer in referrers {
        let manifest = registry.manifest("acme/rr", referrer.as_str().unwrap()).unwrap();
        assert_eq!(manifest["subject"]["digest"], image["digest"]);
        let content = registry.blob("acme/rr", manifest["layers"][0]["digest"].as_str().unwrap()).unwrap();
        let name = manifest["annotations"]["org.opencontainers.image.title"].as_str().unwrap().to_owned();
        assert!(sandbox.bytes(&name) == content);
        attached.push((manifest["artifactType"].as_str().unwrap().to_owned(), name));
    }
    attached.sort();
    let expected = [
        ("application/spdx+json", "rr.spdx.json"),
        ("application/vnd.cyclonedx+json", "rr.cdx.json"),
        ("application/vnd.in-toto+json", "rr.intoto.jsonl"),
    ];
    assert_eq!(attached, expected.map(|(kind, name)| (kind.to_owned(), name.to_owned())));
}

#[test]
fn progress_and_rate_limits_are_reported() {
    let (_proxy, sandbox) = machine();
    let registry = TestRegistry::start();
    let limited = registry.fault(velox_testkit::Fault::TooManyRequests { retry_after: 1 });
    let limited = limited.on("*", "/v2/acme/rr/blobs/uploads/").times(1);
    let built = sandbox.vx(&format!("build -vv --format json --image {}/acme/rr:1 --push", registry.host()));
    built.ok();
    assert_eq!(limited.hits(), 1);
    let events = built.events();
    let has = |kind: &str, phase: &str| events.iter().any(|it| it["event"] == kind && it["phase"] == phase);
    for phase in ["image", "push"] {
        assert!(has("phase_started", phase) && has("phase_finished", phase), "{phase}");
    }
    let last = events.iter().rfind(|it| it["event"] == "progress" && it["phase"] == "push").unwrap();
    assert_eq!((&last["done"], &last["total"]), (&json!(2), &json!(2)));
    let layer = registry.manifest("acme/rr", "1").unwrap()["layers"][0]["size"].as_u64();
    assert!(layer.is_some() && last["bytes"].as_u64() >= layer, "{last} {layer:?}");
    assert!(events.iter().any(|it| it["kind"] == "rate_limit_wait" && it["seconds"] == 1));
    // The result is the last event, with the image.
    assert_eq!(events.last().unwrap()["image"]["pushed"], true);
    assert_contains(&registry.tags("acme/rr").join(" "), &["1"]);
}
