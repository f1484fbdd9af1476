//! Images that can't be made or pushed.

use serde_json::json;
use velox_testkit::{Fault, TestRegistry, plugin};

use super::{machine, push::log_in};
use crate::support::sandbox::{Sandbox, acme_proxy, assert_contains};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// A base image of one small layer for this architecture. Returns its manifest's size and digest.
fn base(registry: &TestRegistry, tag: &str, architecture: &str) -> (usize, String) {
    let layer = b"\x1f\x8b not really compressed";
    let layer_digest = registry.put_blob("library/base", layer);
    let config = json!({ "os": "linux", "architecture": architecture, "config": {},
        "rootfs": { "type": "layers", "diff_ids": [layer_digest] } })
    .to_string();
    let config_digest = registry.put_blob("library/base", config.as_bytes());
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": config_digest, "size": config.len() },
        "layers": [{ "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": layer_digest, "size": layer.len() }],
    })
    .to_string();
    let kind = "application/vnd.oci.image.manifest.v1+json";
    (manifest.len(), registry.put_manifest("library/base", tag, kind, manifest.as_bytes()))
}

fn build(sandbox: &Sandbox, options: &str) -> crate::support::sandbox::CommandOutput {
    sandbox.vx(&format!("build --target linux/amd64 {options}"))
}

#[test]
fn a_base_for_other_platforms_is_refused_before_anything_is_compiled() {
    let (_proxy, sandbox) = machine();
    let registry = TestRegistry::start();
    let host = registry.host();
    let (size, digest) = base(&registry, "arm", "arm64");
    let refused = build(&sandbox, &format!("--image acme/rr --base {host}/library/base:arm"));
    refused.fails_with(
        2,
        &[
            &format!("{host}/library/base:arm has no image for linux/amd64"),
            "help: it is for linux/arm64: select one of them with --target, or another base",
        ],
    );
    let platform = |architecture: &str| json!({ "os": "linux", "architecture": architecture });
    let descriptor = |platform| json!({ "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": size, "platform": platform });
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX,
        "manifests": [descriptor(platform("arm64")), descriptor(platform("s390x"))] });
    registry.put_manifest("library/base", "list", INDEX, index.to_string().as_bytes());
    let refused = build(&sandbox, &format!("--image acme/rr --base {host}/library/base:list"));
    refused.fails_with(
        2,
        &[
            &format!("{host}/library/base:list has no image for linux/amd64"),
            "help: it is for linux/arm64, linux/s390x: select one of them with --target, or another base",
        ],
    );
    assert!(!sandbox.has("rr"), "nothing is compiled");

    // In velox.toml, the error points to the base.
    let text = sandbox.read("velox.toml") + &format!("[image]\nbase = \"{host}/library/base:arm\"\n");
    let sandbox = sandbox.file("velox.toml", text);
    let refused = build(&sandbox, "--image acme/rr");
    refused.fails_with(2, &["--> velox.toml:", &format!("base = \"{host}/library/base:arm\""), "^^^"]);
}

#[test]
fn a_registry_that_lies_or_stops_leaves_nothing() {
    let (_proxy, sandbox) = machine();
    let registry = TestRegistry::start();
    let host = registry.host();
    base(&registry, "1", "amd64");
    let line = format!("--image acme/rr --base {host}/library/base:1 --image-output image");
    build(&sandbox, &line).ok();
    let modes = sandbox.run("find image -type f -not -perm 644");
    assert_eq!((modes.as_str(), sandbox.has("image/index.json")), ("", true), "readable for everyone");
    sandbox.run("rm -r image");

    let layer = registry.manifest("library/base", "1").unwrap()["layers"][0]["digest"].clone();
    registry.put_lie("library/base", layer.as_str().unwrap(), b"\x1f\x8b not really Compressed");
    build(&sandbox, &line).fails_with(
        1,
        &[&format!(
            "verification failed: registry {host} sent other content for {host}/library/base@sha256:"
        )],
    );
    assert!(!sandbox.has("image/index.json"));
    assert!(!sandbox.entries("image/blobs/sha256").iter().any(|name| layer.as_str().unwrap().contains(name)));

    base(&registry, "1", "amd64");
    let cut = registry.fault(Fault::CutBody).on("GET", "/v2/library/base/blobs/*");
    build(&sandbox, &line)
        .fails_with(1, &[&format!("request to registry {host} failed: response ended early"), "HTTPS_PROXY"]);
    assert!(cut.hits() > 1);

    let missing = build(&sandbox, &format!("--image acme/rr --base {host}/library/base:2"));
    missing.fails_with(
        1,
        &[&format!("{host}/library/base:2 not found in registry {host}"), "check the name and the tag"],
    );
}

#[test]
fn a_long_rate_limit_is_an_error() {
    let (_proxy, sandbox) = machine();
    let registry = TestRegistry::start();
    registry.fault(Fault::TooManyRequests { retry_after: 4000 }).on("*", "/v2/*");
    let host = registry.host();
    build(&sandbox, &format!("--image {host}/acme/rr --push")).fails_with(
        1,
        &[&format!("rate limit exceeded for registry {host}; it asks to wait 4000 s"), "help: log in"],
    );
}

#[test]
fn a_push_without_access_fails_before_anything_is_compiled() {
    let (_proxy, sandbox) = machine();
    let registry = TestRegistry::start();
    registry.token_service("s3cret", true);
    let host = registry.host();
    let line = format!("--image {host}/acme/rr:1 --push");
    build(&sandbox, &line).fails_with(
        1,
        &[
            &format!("access denied: no credentials for {host} to push to {host}/acme/rr"),
            &format!("help: log in with `docker login {host}` or `podman login {host}`"),
        ],
    );
    let sandbox = log_in(sandbox, &host, "guessed");
    let denied = build(&sandbox, &line);
    denied.fails_with(1, &[&format!("the credentials for {host} don't allow to push to {host}/acme/rr")]);
    assert!(!denied.stderr().contains("guessed"));
    assert!(!sandbox.has("rr") && registry.tags("acme/rr").is_empty());

    let sandbox = log_in(sandbox, &host, "s3cret");
    registry.immutable_tag("1");
    build(&sandbox, &line)
        .fails_with(1, &[&format!("answered {host}/acme/rr:1 with status 409: the tag is immutable")]);
    let sandbox = sandbox.file("docker/config.json", "{\"auths\": s3cret");
    let unreadable = build(&sandbox, &line);
    unreadable.fails_with(
        2,
        &["failed to read the registry credentials in `", "docker/config.json`: invalid JSON at line 1"],
    );
    assert!(!unreadable.stderr().contains("s3cret"));
}

#[test]
fn nothing_is_pushed_unless_the_build_and_its_checks_succeed() {
    let proxy = acme_proxy();
    let mut broken = plugin("example.com/acme/broken", "broken").files();
    broken.insert("more.go".to_owned(), b"package broken\n\nvar x int = \"text\"\n".to_vec());
    proxy.module("example.com/acme/broken", "v1.0.0", broken);
    let registry = TestRegistry::start();
    let host = registry.host();
    let sandbox = Sandbox::behind(&proxy).plugins("broken@v1.0.0");
    sandbox.vx(&format!("build --image {host}/acme/rr:1 --push")).fails(1);
    let sandbox = sandbox.plugins("hello@v1.0.0");
    sandbox
        .vx(&format!("build --image {host}/acme/rr:1 --push --max-size 1K"))
        .fails_with(1, &["more than --max-size"]);
    assert!(registry.tags("acme/rr").is_empty());
    let sent = registry.requests().into_iter().filter(|it| it.starts_with("PATCH") || it.starts_with("PUT"));
    assert_eq!(sent.collect::<Vec<_>>(), [""; 0]);
    sandbox.vx(&format!("build --image {host}/acme/rr:1 --push --dry-run")).ok();
    assert!(registry.tags("acme/rr").is_empty());
}

#[test]
fn invalid_options_say_what_is_expected() {
    let (_proxy, sandbox) = machine();
    let sandbox = sandbox.file("full/file", "").file("app.php", "");
    for (options, messages) in [
        ("--push", &["--push requires a name for the image", "`[image] repository`"][..]),
        (
            "--image Acme/RR",
            &[
                "invalid value for --image: invalid image reference `Acme/RR`: the name of a repository must be lowercase",
            ],
        ),
        ("--image https://ghcr.io/acme/rr", &["remove `https://`: a reference is not a URL"]),
        (
            "--image acme/rr@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
            &["has a digest, which only the finished image can have"],
        ),
        ("--image acme/rr --base PHP", &["invalid value for --base: invalid image reference `PHP`"]),
        ("--image acme/rr --base ./missing.tar", &["missing.tar`: No such file or directory"]),
        ("--image acme/rr --base ./app.php", &["app.php: it has neither index.json nor manifest.json"]),
        ("--image acme/rr --base ./velox.toml", &["velox.toml: it is not an uncompressed tar archive"]),
        ("--image acme/rr --base ./full", &["full: it has neither index.json nor manifest.json"]),
        ("--image acme/rr --base oci:missing", &["missing`: No such file or directory"]),
        (
            "--image acme/rr --image-path rr",
            &["invalid value for --image-path: expected an absolute path in the image, found `rr`"],
        ),
        (
            "--image acme/rr --image-add app.php",
            &["invalid value for --image-add: expected SRC:DST, found `app.php`"],
        ),
        (
            "--image acme/rr --image-add missing:/app",
            &["failed to add `", "missing` to the image: No such file"],
        ),
        (
            "--image acme/rr --image-output full",
            &["full`: the directory is not empty, and is not an OCI layout", "choose another directory"],
        ),
        ("--image acme/rr --push --offline", &["--offline forbids --push"]),
        (
            "--image acme/rr --base php:8.4-cli --offline",
            &["--offline forbids pulling the base docker.io/library/php:8.4-cli"],
        ),
        ("--base php:8.4-cli", &["--image <NAME>|--push|--image-output <DIR|FILE.tar>"]),
        ("--image acme/rr --image-path /usr/bin", &["`/usr/bin` is a directory in the image"]),
        (
            "--image acme/rr --image-add app.php:/etc",
            &["app.php` to the image: `/etc` is a directory in the image; use the path of a file"],
        ),
        (
            "--image acme/rr --image-output image.tar.gz",
            &[
                "invalid value for --image-output: `",
                "image.tar.gz` is not a tar archive",
                "use FILE.tar, or",
            ],
        ),
        (
            "--image acme/rr --image-output app.php/image.tar",
            &["failed to write the image to `", "Not a directory"],
        ),
        ("--image acme/rr --image-output app.php", &["failed to access `", "app.php`: Not a directory"]),
    ] {
        let refused = build(&sandbox, options);
        refused.fails_with(2, messages);
    }
    sandbox.vx("build --target windows/amd64 --image acme/rr").fails_with(
        2,
        &[
            "container images are for Linux, but the target is windows/amd64",
            "help: add `--target linux/amd64`",
        ],
    );
    let made = build(&sandbox, "--image acme/rr");
    made.succeeds_with(&[
        "the image was neither pushed nor written: add --push, or --image-output DIR or FILE.tar",
    ]);

    for (line, message) in [
        ("repository = \"ghcr.io/acme/rr:1\"", "`repository` has a tag"),
        ("repository = \"ghcr.io/Acme/rr\"", "must be lowercase"),
        ("repository = \"ghcr.io/acme/rr\"\ntags = [\"a b\"]", "invalid tag `a b`"),
        ("add = [\"app.php\"]", "expected SRC:DST, found `app.php`"),
        ("base = \"PHP\"", "invalid image reference `PHP`"),
    ] {
        let text = format!("{}[image]\n{line}\n", crate::support::sandbox::configuration("hello@v1.0.0"));
        std::fs::write(sandbox.at("velox.toml"), text).unwrap();
        let refused = build(&sandbox, "--image-output image").fails(2);
        assert_contains(&refused, &[message, "--> velox.toml:", "^"]);
    }
}
