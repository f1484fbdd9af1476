//! Images in files: OCI layouts and archives.

use std::{fs, os::unix::fs::PermissionsExt as _};

use serde_json::{Value, json};

use super::{blob, built_image, image_in, json, machine};
use crate::support::sandbox::{RELEASE, assert_contains, program, skip};

#[test]
fn an_image_has_the_binary_and_the_annotations_of_the_build() {
    let (_proxy, sandbox) = machine();
    let built = sandbox.vx(
        "build --image acme/rr:1.4 --image-output image --stamp-version 1.4.0 --stamp-time 2026-01-02T03:04:05Z",
    );
    built.succeeds_with(&[
        "Assembled the image in ",
        "Image docker.io/acme/rr:1.4, sha256:",
        "/image\n",
        "Finished",
    ]);
    let (manifest, config) = image_in(&sandbox.at("image"));
    let labels = &config["config"]["Labels"];
    assert_eq!(&manifest["annotations"], labels);
    for (name, value) in [
        ("version", "1.4.0"),
        ("created", "2026-01-02T03:04:05Z"),
        ("source", "https://github.com/roadrunner-server/roadrunner"),
    ] {
        assert_eq!(labels[format!("org.opencontainers.image.{name}")], value);
    }
    assert_eq!(config["created"], "2026-01-02T03:04:05Z");
    assert_eq!(config["config"]["Entrypoint"], json!(["/usr/bin/rr"]));
    assert_eq!(config["os"], "linux");
    // One layer: fixed order, owners and times.
    assert_eq!(manifest["layers"].as_array().unwrap().len(), 1);
    fs::write(sandbox.at("layer.tar.gz"), blob(&sandbox.at("image"), &manifest["layers"][0])).unwrap();
    let list = sandbox.run("env TZ=UTC tar --numeric-owner --full-time -tvzf layer.tar.gz");
    let size = sandbox.bytes("rr").len().to_string();
    let lines: Vec<Vec<&str>> = list.lines().map(|line| line.split_whitespace().collect()).collect();
    let line = |mode, size, path| vec![mode, "0/0", size, "2026-01-02", "03:04:05", path];
    let expected = [
        line("drwxr-xr-x", "0", "usr/"),
        line("drwxr-xr-x", "0", "usr/bin/"),
        line("-rwxr-xr-x", size.as_str(), "usr/bin/rr"),
    ];
    assert_eq!(lines, expected);
    sandbox.run("tar -xzf layer.tar.gz usr/bin/rr");
    assert!(sandbox.bytes("usr/bin/rr") == sandbox.bytes("rr"));
}

#[test]
fn equal_builds_have_equal_digests_on_every_machine() {
    let digest = |home: bool| {
        let (proxy, sandbox) = machine();
        let sandbox = sandbox.file("app/index.php", "<?php\n").file("app/lib/a.php", "");
        if home {
            // Another umask, other times, another order of creation.
            fs::set_permissions(sandbox.at("app/index.php"), fs::Permissions::from_mode(0o600)).unwrap();
            sandbox.run("touch -d 2001-01-01 app/lib/a.php");
        }
        let line =
            "build --format json --image acme/rr:1 --image-output image.tar --image-add app:/srv/app -o bin";
        let image = built_image(&sandbox.vx(line));
        let first = sandbox.bytes("image.tar");
        // Again, with nothing to compile.
        assert_eq!(built_image(&sandbox.vx(line)), image);
        assert!(sandbox.bytes("image.tar") == first);
        drop(proxy);
        (image["digest"].clone(), first)
    };
    let (one, other) = (digest(false), digest(true));
    assert_eq!(one.0, other.0);
    assert!(one.1 == other.1);
}

#[test]
fn foreign_tools_read_the_files() {
    let (_proxy, sandbox) = machine();
    if program("skopeo").is_none() {
        return skip("images in files", "there is no skopeo");
    }
    sandbox.vx("build --image ghcr.io/acme/rr:1 --image ghcr.io/acme/rr:latest --image-output image").ok();
    sandbox.vx("build --image ghcr.io/acme/rr:1 --image-output image.tar").ok();
    let inspected = |name: &str| json(sandbox.run(&format!("skopeo inspect {name}")));
    let digest = &inspected("oci:image:1")["Digest"];
    assert_eq!(digest, &inspected("oci:image:latest")["Digest"]);
    assert_eq!(digest, &inspected("oci-archive:image.tar:1")["Digest"]);
    // As `docker load` reads it.
    let loaded = inspected("docker-archive:image.tar:ghcr.io/acme/rr:1");
    assert_eq!(loaded["Layers"].as_array().unwrap().len(), 1);
    assert_eq!(loaded["Labels"], inspected("oci:image:1")["Labels"]);

    // Another image in the same layout; the first one stays.
    let zstd = "build --image ghcr.io/acme/rr:2 --image-output image --image-compression zstd";
    sandbox.vx(zstd).ok();
    let manifest = inspected("--raw oci:image:2");
    assert_eq!(manifest["layers"][0]["mediaType"], "application/vnd.oci.image.layer.v1.tar+zstd");
    sandbox.run("skopeo copy --dest-decompress oci:image:2 dir:copy");
    let config = inspected("--config oci:image:2");
    let diff_id = config["rootfs"]["diff_ids"][0].as_str().unwrap().trim_start_matches("sha256:");
    assert!(sandbox.has(&format!("copy/{diff_id}")), "decompressed");
    assert_ne!(digest, &inspected("oci:image:2")["Digest"]);
    assert_eq!(digest, &inspected("oci:image:1")["Digest"]);
    let index = json(sandbox.read("image/index.json"));
    assert_eq!(index["manifests"].as_array().unwrap().len(), 3);
}

#[test]
fn an_image_runs_as_a_root_file_system() {
    let (_proxy, sandbox) = machine();
    if program("umoci").is_none() || program("unshare").is_none() {
        return skip("the image as a root file system", "there is no umoci or unshare");
    }
    if !rustix::process::geteuid().is_root() {
        return skip("the image as a root file system", "changing the root directory needs root");
    }
    let sandbox = sandbox.file("rr.yaml", "version: \"3\"\n").file("app/public/index.php", "<?php\n");
    sandbox
        .vx("build --image acme/rr:1 --image-output image --image-path /opt/rr/rr --image-add rr.yaml:/etc/ --image-add app:/srv/app")
        .ok();
    sandbox.run("umoci unpack --image image:1 bundle");
    let version = sandbox.run("unshare --mount --pid --fork --root=bundle/rootfs /opt/rr/rr --version");
    assert_contains(&version, &[&format!("rr version {}", RELEASE.trim_start_matches('v'))]);
    assert_eq!(sandbox.read("bundle/rootfs/etc/rr.yaml"), "version: \"3\"\n");
    assert_eq!(sandbox.read("bundle/rootfs/srv/app/public/index.php"), "<?php\n");
    let run = json(sandbox.read("bundle/config.json"));
    assert_eq!(run["process"]["args"], json!(["/opt/rr/rr"]));
    // Each addition has a layer of its own.
    let (manifest, config) = image_in(&sandbox.at("image"));
    assert_eq!(manifest["layers"].as_array().unwrap().len(), 3);
    let commands: Vec<&Value> =
        config["history"].as_array().unwrap().iter().map(|it| &it["created_by"]).collect();
    assert_eq!(commands, ["COPY /opt/rr/rr", "COPY /etc/", "COPY /srv/app"]);
}

#[test]
fn velox_toml_describes_the_image() {
    let (_proxy, sandbox) = machine();
    let text = sandbox.read("velox.toml")
        + "[image]\nbase = \"oci:../base\"\nrepository = \"ghcr.io/acme/app\"\ntags = [\"${TAG}\", \"latest\"]\n\
        entrypoint = [\"/usr/bin/rr\", \"serve\"]\nuser = \"1000:1000\"\nadd = [\"rr.yaml:/etc/rr.yaml\"]\n\
        [image.labels]\n\"org.opencontainers.image.source\" = \"https://github.com/acme/app\"\n";
    let sandbox = sandbox
        .file("conf/velox.toml", text)
        .file("conf/rr.yaml", "version: \"3\"\n")
        .file("base.txt", "base\n")
        .env("TAG", "1.4");
    let base =
        "build --image base:1 --image-output base --image-path /base/rr --image-add base.txt:/base.txt";
    sandbox.vx(base).ok();
    let image = built_image(&sandbox.vx("build -c conf/velox.toml --format json --image-output image"));
    assert_eq!(image["names"], json!(["ghcr.io/acme/app:1.4", "ghcr.io/acme/app:latest"]));
    assert_eq!((&image["pushed"], &image["referrers"]), (&json!(false), &json!([])));
    let (base, _) = image_in(&sandbox.at("base"));
    let (manifest, config) = image_in(&sandbox.at("image"));
    let layers = manifest["layers"].as_array().unwrap();
    assert_eq!(layers[..2], base["layers"].as_array().unwrap()[..]);
    assert_eq!(layers.len(), 4);
    let run = &config["config"];
    assert_eq!(run["Entrypoint"], json!(["/usr/bin/rr", "serve"]));
    assert_eq!(run["User"], "1000:1000");
    assert_eq!(run["Labels"]["org.opencontainers.image.source"], "https://github.com/acme/app");
    let base_digest = json(sandbox.read("base/index.json"))["manifests"][0]["digest"].clone();
    assert_eq!(manifest["annotations"]["org.opencontainers.image.base.digest"], base_digest);
    // Without these flags, `[image]` changes nothing.
    let plain = sandbox.vx("build -c conf/velox.toml --format json");
    assert_eq!(built_image(&plain), Value::Null);
    // The command line comes first.
    let line = "build -c conf/velox.toml --format json --image acme/rr --base scratch --image-output other";
    let image = built_image(&sandbox.vx(line));
    assert_eq!(image["names"], json!(["docker.io/acme/rr:latest"]));
    let (manifest, _) = image_in(&sandbox.at("other"));
    assert_eq!(manifest["layers"].as_array().unwrap().len(), 2);
}

#[test]
fn bases_are_layouts_and_archives() {
    let (_proxy, sandbox) = machine();
    let sandbox = sandbox.file("base.txt", "base\n");
    let base =
        "build --image acme/base:1 --image-path /base/rr --image-add base.txt:/base.txt --image-output";
    sandbox.vx(&format!("{base} base")).ok();
    sandbox.vx(&format!("{base} base.tar")).ok();
    // As `docker save` wrote it before Docker 25: without an OCI layout, and with uncompressed layers.
    sandbox.run("mkdir old saved");
    sandbox.run("tar -C saved -xf base.tar");
    let saved = json(sandbox.read("saved/manifest.json"));
    let mut layers = Vec::new();
    for (at, layer) in saved[0]["Layers"].as_array().unwrap().iter().enumerate() {
        fs::create_dir(sandbox.at(format!("old/{at}"))).unwrap();
        sandbox.run(&format!("sh -c 'gzip -dc < saved/{} > old/{at}/layer.tar'", layer.as_str().unwrap()));
        layers.push(format!("{at}/layer.tar"));
    }
    sandbox.run(&format!("cp saved/{} old/config.json", saved[0]["Config"].as_str().unwrap()));
    let manifest = json!([{ "Config": "config.json", "RepoTags": ["acme/base:1"], "Layers": layers }]);
    fs::write(sandbox.at("old/manifest.json"), manifest.to_string()).unwrap();
    sandbox.run("tar -C old -cf old.tar manifest.json config.json 0 1");

    let mut images = Vec::new();
    for base in ["oci:base", "oci:base:1", "./base", "docker-archive:base.tar", "./base.tar", "./old.tar"] {
        let output = format!("image-{}", images.len());
        sandbox.vx(&format!("build --image acme/rr:1 --base {base} --image-output {output}")).ok();
        let (manifest, config) = image_in(&sandbox.at(&output));
        assert_eq!(manifest["layers"].as_array().unwrap().len(), 3, "{base}");
        images.push((manifest["layers"].clone(), config["rootfs"].clone()));
    }
    assert!(images.iter().all(|image| *image == images[0]), "{images:#?}");
}

#[test]
fn one_image_for_several_targets_is_an_index() {
    let (_proxy, sandbox) = machine();
    let line = "build --format json --image acme/rr:1 --image-output image --target linux/amd64 --target linux/arm64 -o bin";
    let image = built_image(&sandbox.vx(line));
    assert_eq!(image["platforms"], json!(["linux/amd64", "linux/arm64"]));
    let layout = sandbox.at("image");
    let index = json(blob(&layout, &json(sandbox.read("image/index.json"))["manifests"][0]));
    assert_eq!(index["mediaType"], "application/vnd.oci.image.index.v1+json");
    let manifests = index["manifests"].as_array().unwrap();
    for (manifest, architecture) in manifests.iter().zip(["amd64", "arm64"]) {
        assert_eq!(manifest["platform"], json!({ "architecture": architecture, "os": "linux" }));
        let manifest = json(blob(&layout, manifest));
        assert_eq!(json(blob(&layout, &manifest["config"]))["architecture"], architecture);
        fs::write(sandbox.at("layer.tar.gz"), blob(&layout, &manifest["layers"][0])).unwrap();
        sandbox.run("tar -xzf layer.tar.gz");
        assert!(sandbox.bytes("usr/bin/rr") == sandbox.bytes(&format!("bin/rr-linux-{architecture}")));
    }
    let refused = sandbox
        .vx(&line.replace("image-output image", "image-output image.tar").replace("--format json", ""));
    refused.fails_with(
        2,
        &["image.tar is for `docker load`, which takes one platform", "help: use `--image-output DIR`"],
    );
}
