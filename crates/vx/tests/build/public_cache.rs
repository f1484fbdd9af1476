//! Compiled packages in a container registry, which anybody can read.

use std::{fs, path::Path, time::Duration};

use serde_json::{Value, json};
use velox_testkit::{Fault, ModuleProxy, TestRegistry};

use crate::support::{
    book::top,
    sandbox::{
        CommandOutput, RELEASE, Sandbox, VX, acme_proxy, assert_contains, compile_cache_of, configuration,
    },
};

const REPOSITORY: &str = "acme/velox-cache";

/// A machine with these lines in `[cache]`.
fn reader(proxy: &ModuleProxy, cache: &str) -> Sandbox {
    Sandbox::behind(proxy)
        .file("velox.toml", format!("{}\n[cache]\n{cache}\n", configuration("hello@v1.0.0")))
}

/// A machine whose GOCACHE is empty.
fn stranger(proxy: &ModuleProxy, cache: &str) -> Sandbox {
    let sandbox = reader(proxy, cache);
    let gocache = sandbox.at("gocache");
    sandbox.env("GOCACHE", gocache)
}

/// A machine with a key pair, and a proxy whose RoadRunner release has plugins.
fn publisher(proxy: &ModuleProxy) -> Sandbox {
    let sandbox = Sandbox::behind(proxy);
    sandbox.run("openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out key.pem");
    sandbox.run("openssl pkey -in key.pem -pubout -out key.pub");
    sandbox.run("chmod 600 key.pem");
    sandbox
}

/// Publishes the packages of the release; returns the location with its digest.
fn publish(machine: &Sandbox, registry: &TestRegistry, arguments: &str) -> String {
    let location = format!("oci://{}/{REPOSITORY}:{RELEASE}", registry.host());
    let ran = machine.vx(&format!("cache publish --for {RELEASE} {arguments} {location}"));
    let printed = ran.ok().trim().to_owned();
    assert!(printed.starts_with(&format!("{location}@sha256:")), "{printed}");
    printed
}

#[test]
fn published_packages_spare_strangers_the_compile() {
    let proxy = acme_proxy();
    let registry = TestRegistry::start();
    let machine = publisher(&proxy);
    let location = format!("oci://{}/{REPOSITORY}:{RELEASE}", registry.host());
    // As the release workflow publishes.
    let repository = format!("{}/{REPOSITORY}", registry.host());
    let script = machine
        .command(top().join("scripts/publish-caches"), &[&repository, RELEASE])
        .envs([("VX", VX), ("TARGETS", "linux/amd64"), ("GO_VERSIONS", ""), ("VX_SIGN_KEY", "key.pem")])
        .output()
        .unwrap();
    let pinned = CommandOutput(script).ok().trim().to_owned();
    assert!(pinned.starts_with(&format!("{location}@sha256:")), "{pinned}");

    // Pinned by its digest.
    let pinning = stranger(&proxy, &format!("remote = \"{pinned}\""));
    let report = compile_cache_of(&pinning.vx("build -o out --format json"));
    assert!(report["remote_hits"].as_u64() > Some(50) && report["trouble"].is_null(), "{report}");
    assert_eq!((&report["bytes_up"], &report["binaries"]), (&json!(0), &json!(0)), "{report}");
    pinning.run("out/rr --version");

    // Verified by the key of its publisher: in a file, or as text.
    let unpinned = format!("remote = \"{location}\"");
    let keyed = format!("{unpinned}\ntrusted_key = \"key.pub\"");
    for machine in [
        reader(&proxy, &keyed).file("key.pub", machine.read("key.pub")),
        reader(&proxy, &unpinned).env("VX_REMOTE_CACHE_KEY", machine.read("key.pub")),
    ] {
        let report = compile_cache_of(&machine.vx("build -o out --format json"));
        assert!(report["bytes_down"].as_u64() > Some(0) && report["trouble"].is_null(), "{report}");
    }

    // The own cache comes first, and gets what the public one has.
    let own = format!("remotes = [\"own\", \"{pinned}\"]");
    let chained = stranger(&proxy, &own);
    chained.vx("build -o out").ok();
    assert!(fs::read_dir(chained.at("own/v1/artifacts")).unwrap().count() == 1);
    let another = chained.at("another");
    let chained = chained.env("GOCACHE", another);
    let report = compile_cache_of(&chained.vx("build -o out --no-cache --remote-cache own --format json"));
    assert!(report["remote_hits"].as_u64() > Some(50), "{report}");

    let signed = format!("cache publish --for {RELEASE} --sign-key key.pem --format json {location}");
    let ran = machine.vx(&signed);
    ran.ok();
    let event = ran.events().pop().unwrap();
    assert_eq!((&event["event"], &event["kept"]), (&json!("cache_published"), &json!([])));
    assert!(event["signed_by"].as_str().is_some_and(|id| id.starts_with("SHA256:")), "{event}");
}

#[test]
fn caches_that_nobody_vouches_for_are_refused() {
    let proxy = acme_proxy();
    let registry = TestRegistry::start();
    let machine = publisher(&proxy);
    let pinned = publish(&machine, &registry, "");
    let location = pinned.split_once('@').unwrap().0;
    let unpinned = format!("remote = \"{location}\"");
    reader(&proxy, &unpinned)
        .vx("build")
        .fails_with(2, &["velox.toml:", "neither a digest nor a trusted key", "help: ", "@sha256:…"]);

    // Not signed, then signed by somebody else.
    let keyed = format!("{unpinned}\ntrusted_key = \"key.pub\"");
    let keyed_reader = || reader(&proxy, &keyed).file("key.pub", machine.read("key.pub"));
    let trouble = |reader: &Sandbox| {
        let report = compile_cache_of(&reader.vx("build -o out --format json"));
        assert_eq!(report["remote_hits"], 0, "{report}");
        report["trouble"].as_str().unwrap().to_owned()
    };
    let said = trouble(&keyed_reader());
    assert_contains(&said, &["remote cache disabled", "has no signature of the trusted key"]);
    let other = publisher(&proxy);
    let publishing = format!("cache publish --for {RELEASE} --sign-key key.pem {location}");
    other.vx(&publishing).fails_with(1, &["nothing is added to it", "has no signature of", "`--replace`"]);
    publish(&other, &registry, "--sign-key key.pem --replace");
    assert_contains(&trouble(&keyed_reader()), &["has no signature of the trusted key"]);

    let wrong = reader(&proxy, &keyed).file("key.pub", "no key");
    wrong.vx("build").fails_with(2, &["velox.toml:", "is not in PEM format"]);
    reader(&proxy, &keyed).vx("build").fails_with(2, &["velox.toml:", "failed to read the key", "key.pub"]);
    for (location, message) in [
        ("oci://localhost:1/a/b", "missing tag or digest"),
        (pinned.as_str(), "has a digest"),
        ("s3://bucket/prefix", "is not in a registry"),
    ] {
        machine.vx(&format!("cache publish --for {RELEASE} {location}")).fails_with(2, &[message]);
    }
}

#[test]
fn damaged_and_foreign_caches_cost_only_the_compile() {
    let proxy = acme_proxy();
    let registry = TestRegistry::start();
    let machine = publisher(&proxy);
    let pinned = publish(&machine, &registry, "");
    let digest = pinned.split_once('@').unwrap().1;
    let trouble_of = |machine: Sandbox| {
        let report = compile_cache_of(&machine.vx("build -o out --format json"));
        report["trouble"].as_str().unwrap_or_default().to_owned()
    };
    let remote = |location: &str| format!("remote = \"{location}\"");
    let trouble = |location: &str| trouble_of(reader(&proxy, &remote(location)));
    let index = registry.manifest(REPOSITORY, digest).unwrap();
    let descriptor = &index["manifests"][0];
    let namespace = descriptor["annotations"]["dev.roadrunner.velox.namespace"].as_str().unwrap().to_owned();
    let manifest = registry.manifest(REPOSITORY, descriptor["digest"].as_str().unwrap()).unwrap();
    let put = |tag: &str, manifest: &Value, namespace: &str| -> String {
        let text = manifest.to_string();
        let kind = "application/vnd.oci.image.manifest.v1+json";
        let digest = registry.put_manifest(REPOSITORY, "part", kind, text.as_bytes());
        let mut index = index.clone();
        index["manifests"][0]["digest"] = json!(digest);
        index["manifests"][0]["size"] = json!(text.len());
        index["manifests"][0]["annotations"]["dev.roadrunner.velox.namespace"] = json!(namespace);
        let kind = "application/vnd.oci.image.index.v1+json";
        let digest = registry.put_manifest(REPOSITORY, tag, kind, index.to_string().as_bytes());
        format!("oci://{}/{REPOSITORY}:{tag}@{digest}", registry.host())
    };

    // Packages of another Go only; an index of another Go under this name; an index that names packs it lacks.
    let other = put("other-go", &manifest, "go1.20.1-linux-amd64");
    assert_contains(&trouble(&other), &["has packages of go1.20.1-linux-amd64, not of go"]);
    let foreign = zstd_index("go1.20.1-linux-amd64");
    let mut renamed = manifest.clone();
    renamed["layers"][0]["digest"] = json!(registry.put_blob(REPOSITORY, &foreign));
    renamed["layers"][0]["size"] = json!(foreign.len());
    let said = trouble(&put("renamed", &renamed, &namespace));
    assert_contains(&said, &["has an invalid index of go"]);
    let mut incomplete = manifest.clone();
    incomplete["layers"].as_array_mut().unwrap().truncate(1);
    assert_contains(
        &trouble(&put("incomplete", &incomplete, &namespace)),
        &["names the pack", "which it lacks"],
    );
    let no_cache = registry.put_manifest(
        REPOSITORY,
        "image",
        "application/vnd.oci.image.manifest.v1+json",
        manifest.to_string().as_bytes(),
    );
    let said = trouble(&format!("oci://{}/{REPOSITORY}@{no_cache}", registry.host()));
    assert_contains(&said, &["is not a cache"]);

    // The registry stops in the middle, or limits requests for longer than the compile takes.
    for (fault, message) in [
        (Fault::CutBody, "reading the index failed (request to registry"),
        (Fault::TooManyRequests { retry_after: 4000 }, "reading the index failed (rate limit exceeded for"),
    ] {
        let fault = registry.fault(fault).on("GET", "/v2/acme/velox-cache/manifests/*").times(1);
        assert_contains(&trouble(&pinned), &["remote cache disabled", message]);
        assert_eq!(fault.hits(), 1);
    }

    // The registry sends other bytes for a pack.
    for layer in manifest["layers"].as_array().unwrap().iter().skip(1) {
        let size = usize::try_from(layer["size"].as_u64().unwrap()).unwrap();
        registry.put_lie(REPOSITORY, layer["digest"].as_str().unwrap(), &vec![0; size]);
    }
    let said = trouble_of(stranger(&proxy, &remote(&pinned)));
    assert_contains(&said, &["reading a pack failed", "verification failed"]);
    assert!(!said.contains('\n'));
}

/// A compressed index without packs.
fn zstd_index(namespace: &str) -> Vec<u8> {
    let text = json!({ "format": 1, "namespace": namespace, "packs": [] }).to_string();
    // One raw block: https://www.rfc-editor.org/rfc/rfc8878#name-zstandard-frames
    let size = u8::try_from(text.len()).unwrap();
    let header = (u32::from(size) << 3) | 1;
    [&[0x28, 0xb5, 0x2f, 0xfd, 0x20, size], &header.to_le_bytes()[..3], text.as_bytes()].concat()
}

#[test]
fn refused_publishing_leaves_the_tag() {
    let proxy = acme_proxy();
    let registry = TestRegistry::start();
    let machine = publisher(&proxy);
    let first = publish(&machine, &registry, "");
    registry.immutable_tag(RELEASE);
    let location = first.split_once('@').unwrap().0;
    // A tag that can't be written.
    machine
        .vx(&format!("cache publish --replace --for {RELEASE} {location}"))
        .fails_with(1, &["failed to publish the cache: ", "with status 409: the tag is immutable"]);
    let digest = first.split_once('@').unwrap().1;
    assert_eq!(registry.manifest(REPOSITORY, RELEASE), registry.manifest(REPOSITORY, digest));
    // Nothing is left in the cache directory.
    let cache = machine.value("VX_CACHE_DIR");
    let left = fs::read_dir(Path::new(&cache)).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(!left.into_iter().any(|name| name.to_string_lossy().starts_with("publish-")));
}

#[test]
fn two_publishers_at_once_keep_each_others_packages() {
    let proxy = acme_proxy();
    let registry = TestRegistry::start();
    let first = publisher(&proxy);
    let second = Sandbox::behind(&proxy).file("key.pem", first.read("key.pem"));
    second.run("chmod 600 key.pem");
    let publish = |machine, target| {
        publish(machine, &registry, &format!("--sign-key key.pem --target {target}"));
    };
    std::thread::scope(|scope| {
        scope.spawn(|| publish(&first, "linux/amd64"));
        scope.spawn(|| publish(&second, "linux/arm64"));
    });
    let index = registry.manifest(REPOSITORY, RELEASE).unwrap();
    let platforms = index["manifests"].as_array().unwrap().iter().map(|it| &it["platform"]["architecture"]);
    assert_eq!(platforms.collect::<Vec<_>>(), ["amd64", "arm64"]);
}

#[test]
fn silent_registry_holds_up_no_build() {
    let proxy = acme_proxy();
    let registry = TestRegistry::start();
    registry.fault(Fault::Delayed(Duration::from_secs(3600)));
    let location = format!("oci://{}/{REPOSITORY}@sha256:{}", registry.host(), "ab".repeat(32));
    let machine = reader(&proxy, &format!("remote = \"{location}\""));
    let report = compile_cache_of(&machine.vx("build -o out --format json"));
    let trouble = report["trouble"].as_str().unwrap();
    assert_contains(trouble, &["remote cache disabled: reading the index took longer than"]);
}
