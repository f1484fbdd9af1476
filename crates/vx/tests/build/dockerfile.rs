//! Dockerfiles (vx's own, the manual's and the documentation's), built by buildah.

#![cfg(target_os = "linux")]

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

use velox_testkit::ModuleProxy;

use crate::support::{
    book::{pages, top},
    buildah::Buildah,
    sandbox::{RELEASE, Sandbox, VX, acme_proxy, skip},
};

const CONFIGURATION: &str = r#"
[roadrunner]
ref = "v2025.0.77"

[github.plugins]
hello = { ref = "v1.0.0", owner = "acme", repository = "hello" }

[log]
level = "info"
mode = "production"
"#;

/// The `cargo` of the image that compiles vx: it copies the binary under test.
const CARGO: &str = "#!/bin/sh\n\
    test \"$*\" = 'build --locked --release -p vx' || exit 9\n\
    mkdir -p target/release && cp /usr/local/bin/compiled target/release/vx\n";

/// A directory with a velox.toml and the base images: rust, golang, php and vx.
struct Docker {
    buildah: Buildah,
    sandbox: Sandbox,
    _proxy: ModuleProxy,
}

/// `None`, with the reason printed, if this machine can't build images.
fn docker(test: &str) -> Option<Docker> {
    let mut buildah = match Buildah::new() {
        Ok(buildah) => buildah,
        Err(reason) => {
            skip(test, &reason);
            return None;
        }
    };
    let proxy = acme_proxy();
    proxy.plugin("github.com/acme/hello", "v1.0.0");
    let sandbox = Sandbox::behind(&proxy).file("velox.toml", CONFIGURATION).file("images/cargo", CARGO);
    let (cargo, compiled) = (sandbox.at("images/cargo"), sandbox.at("images/vx"));
    fs::set_permissions(&cargo, fs::Permissions::from_mode(0o755)).unwrap();
    // Each layer is a copy; stripping debug information keeps it small.
    assert!(Command::new("strip").args(["-o"]).arg(&compiled).arg(VX).status().unwrap().success());

    // The Go image uses the test's proxies; directories are mounted.
    let mut proxies = Vec::new();
    for proxy in sandbox.value("GOPROXY").split(',') {
        match proxy.strip_prefix("file://") {
            Some(tree) => {
                let target = format!("/network/{}", proxies.len());
                proxies.push(format!("file://{target}"));
                buildah = buildah.volume(tree, &target, "ro");
            }
            None => proxies.push(proxy.to_owned()),
        }
    }
    // Compiling the standard library for each image would take minutes.
    let build_cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("gocache");
    fs::create_dir_all(&build_cache).unwrap();
    let buildah = buildah.volume(sandbox.run("go env GOROOT").trim(), "/usr/local/go", "ro").volume(
        build_cache,
        "/usr/local/gocache",
        "rw",
    );
    let certificates = std::env::var("SSL_CERT_FILE").map(|file| format!(" SSL_CERT_FILE={file}"));
    let golang = format!(
        "ENV GOPATH=/go GOTOOLCHAIN=local GONOSUMDB=* GOCACHE=/usr/local/gocache GOPROXY={}{}",
        proxies.join(","),
        certificates.unwrap_or_default()
    );
    let rust = [(cargo.as_path(), "/usr/local/bin/cargo"), (compiled.as_path(), "/usr/local/bin/compiled")];
    buildah.base("docker.io/library/rust:1.95-bookworm", &rust, "");
    buildah.base("docker.io/library/golang:1.26-bookworm", &[], &golang);
    for php in ["8.3", "8.4"] {
        buildah.base(&format!("docker.io/library/php:{php}-cli"), &[], "");
    }
    let sources = tempfile::tempdir().unwrap();
    fs::write(sources.path().join("Cargo.toml"), "").unwrap();
    buildah.build("localhost/vx:latest", &dockerfile("packaging/Dockerfile"), sources.path(), &[]);
    Some(Docker { buildah, sandbox, _proxy: proxy })
}

impl Docker {
    /// Builds an image and runs a command in it.
    fn built_and_run(&self, dockerfile: &str, arguments: &[&str], command: &str) -> String {
        // buildah 1.28 (Debian 12) lacks this flag; without a network interface and a proxy a step is offline
        // too.
        let dockerfile = dockerfile.replace("RUN --network=none ", "RUN GOPROXY=off unshare --net ");
        self.buildah.build("localhost/built", &dockerfile, &self.sandbox.path(), arguments);
        self.buildah.run("localhost/built", command)
    }
}

fn dockerfile(name: &str) -> String {
    fs::read_to_string(top().join(name)).unwrap()
}

#[test]
fn vx_image_runs_as_root_and_keeps_what_derived_images_write() {
    let text = dockerfile("packaging/Dockerfile");
    for unwanted in ["VOLUME", "USER", "ENTRYPOINT", "ONBUILD"] {
        assert!(!text.lines().any(|line| line.starts_with(unwanted)), "{unwanted}");
    }
    // The Rust version of Cargo.toml.
    let rust = text.lines().find_map(|line| line.strip_prefix("ARG RUST=")).unwrap();
    assert!(dockerfile("Cargo.toml").contains(&format!("rust-version = \"{rust}\"")));

    let Some(docker) = docker("the image of vx") else { return };
    let version = docker.buildah.run("vx", "vx version");
    assert!(version.starts_with("vx "), "{version}");
    assert_eq!(docker.buildah.command_of("vx"), "[vx]");
}

#[test]
fn manual_dockerfile_builds_with_another_image_name() {
    let Some(docker) = docker("the manual's Dockerfile") else { return };
    let manual = include_str!("../manual.Dockerfile");
    let arguments = ["APP_VERSION=1.2.3", "BUILD_TIME=2026-01-02T03:04:05+0000"];
    let version = docker.built_and_run(manual, &arguments, "/usr/bin/rr --version");
    assert!(version.starts_with("rr version 1.2.3 (build time: 2026-01-02T03:04:05+0000"), "{version}");
    assert_eq!(docker.buildah.command_of("built"), "[/usr/bin/rr]");

    // Without build arguments the values are "undefined", which counts as unset.
    let version = docker.built_and_run(manual, &[], "/usr/bin/rr --version");
    assert!(version.starts_with(&format!("rr version {} ", RELEASE.trim_start_matches('v'))), "{version}");
}

#[test]
fn every_dockerfile_of_the_documentation_builds() {
    let Some(docker) = docker("the documentation's Dockerfiles") else { return };
    let blocks = pages().into_iter().flat_map(|page| page.blocks());
    let blocks: Vec<_> =
        blocks.filter(|block| block.language == "dockerfile" && block.remark.is_none()).collect();
    assert!(!blocks.is_empty());
    // One of the Dockerfiles copies the lock.
    docker.sandbox.vx("lock").ok();
    for block in blocks {
        println!("{}", block.place);
        let version = docker.built_and_run(&block.text, &[], "/usr/bin/rr --version");
        assert!(version.starts_with("rr version "), "{}: {version}", block.place);
    }
}
