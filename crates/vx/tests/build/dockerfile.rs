//! Dockerfiles: vx's own, the manual's and those of the documentation, step by step and without Docker.

#![cfg(target_os = "linux")]

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use velox_testkit::ModuleProxy;

use crate::support::{
    image::{Builder, Image, instructions},
    sandbox::{RELEASE, Sandbox, VX, skip},
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

/// A directory to build an image in, and a network that has what its velox.toml names.
struct Desk {
    _proxy: ModuleProxy,
    sandbox: Sandbox,
}

/// `None`, and said so, where this machine can't run Dockerfiles.
fn desk(test: &str) -> Option<Desk> {
    if let Some(reason) = crate::support::image::impossible() {
        skip(test, &reason);
        return None;
    }
    let proxy = ModuleProxy::start();
    proxy.roadrunner(RELEASE).plugin("github.com/acme/hello", "v1.0.0");
    let sandbox = Sandbox::behind(&proxy).file("velox.toml", CONFIGURATION);
    Some(Desk { _proxy: proxy, sandbox })
}

impl Desk {
    /// `docker build` here, where `vx:latest` and `vx` are what packaging/Dockerfile makes.
    fn builder(&self) -> Builder {
        let vx = self.vx();
        Builder::new(self.sandbox.path())
            .base("vx:latest", vx.copy())
            .base("vx", vx)
            .base("php:8.3-cli", Image::machine())
            .base("php:8.4-cli", Image::machine())
    }

    /// The image of vx. Compiling it is what the test run itself did: `cargo` in this build only hands the program over.
    fn vx(&self) -> Image {
        let context = tempfile::tempdir().unwrap();
        let cargo = context.path().join("cargo");
        let script = "#!/bin/sh\n\
            test \"$*\" = 'build --locked --release -p vx' || exit 9\n\
            mkdir -p target/release && cp /usr/local/bin/compiled target/release/vx\n";
        fs::write(&cargo, script).unwrap();
        fs::set_permissions(&cargo, fs::Permissions::from_mode(0o755)).unwrap();
        let rust = Image::machine()
            .file(&cargo, "/usr/local/bin/cargo")
            .file(Path::new(VX), "/usr/local/bin/compiled");
        let sources = tempfile::tempdir().unwrap();
        fs::write(sources.path().join("Cargo.toml"), "").unwrap();
        Builder::new(sources.path())
            .base("rust:1.95-bookworm", rust)
            .base("golang:1.26-bookworm", self.golang())
            .build(&dockerfile("packaging/Dockerfile"))
    }

    /// Go's image with this test's network: what its proxies have as files is below /network.
    fn golang(&self) -> Image {
        let compiled = Path::new(env!("CARGO_TARGET_TMPDIR")).join("gocache");
        fs::create_dir_all(&compiled).unwrap();
        let mut image = Image::machine()
            .mount(self.sandbox.run("go env GOROOT").trim(), "/usr/local/go")
            // Compiling the standard library for each image would take minutes.
            .shared(compiled, "/usr/local/compiled")
            .env("GOCACHE", "/usr/local/compiled")
            .env("GOPATH", "/go")
            .env("GOTOOLCHAIN", "local")
            .env("GONOSUMDB", "*");
        let mut proxies = Vec::new();
        for proxy in self.sandbox.run("go env GOPROXY").trim().split(',') {
            let Some(tree) = proxy.strip_prefix("file://") else {
                proxies.push(proxy.to_owned());
                continue;
            };
            let place = format!("/network/{}", proxies.len());
            proxies.push(format!("file://{place}"));
            image = image.mount(tree, &place);
        }
        if let Ok(bundle) = std::env::var("SSL_CERT_FILE") {
            image = image.env("SSL_CERT_FILE", bundle);
        }
        image.env("GOPROXY", proxies.join(","))
    }
}

fn dockerfile(name: &str) -> String {
    fs::read_to_string(crate::support::book::top().join(name)).unwrap()
}

#[test]
fn the_image_of_vx_runs_as_root_and_keeps_what_derived_steps_write() {
    let text = dockerfile("packaging/Dockerfile");
    let named: Vec<String> = instructions(&text).into_iter().map(|(instruction, _)| instruction).collect();
    for unwanted in ["VOLUME", "USER", "ENTRYPOINT", "ONBUILD"] {
        assert!(!named.contains(&unwanted.to_owned()), "{unwanted}");
    }
    // The same Rust as Cargo.toml asks for.
    let rust = text.lines().find_map(|line| line.strip_prefix("ARG RUST=")).unwrap();
    assert!(dockerfile("Cargo.toml").contains(&format!("rust-version = \"{rust}\"")));

    let Some(desk) = desk("the image of vx") else { return };
    let image = desk.vx();
    let version = Builder::new(desk.sandbox.path()).output_of(&image, "vx version");
    assert!(version.starts_with("vx "), "{version}");
    assert_eq!(image.command, ["vx"]);
}

#[test]
fn the_manuals_dockerfile_with_another_image_name() {
    let Some(desk) = desk("the manual's Dockerfile") else { return };
    let manual = include_str!("../manual.Dockerfile");

    let builder =
        desk.builder().argument("APP_VERSION", "1.2.3").argument("BUILD_TIME", "2026-01-02T03:04:05+0000");
    let image = builder.build(manual);
    assert_eq!(image.command, ["/usr/bin/rr"]);
    let said = builder.output_of(&image, "/usr/bin/rr --version");
    assert!(said.starts_with("rr version 1.2.3 (build time: 2026-01-02T03:04:05+0000"), "{said}");

    // Without them they are "undefined", which counts as not set.
    let builder = desk.builder();
    let said = builder.output_of(&builder.build(manual), "/usr/bin/rr --version");
    assert!(said.starts_with(&format!("rr version {} ", RELEASE.trim_start_matches('v'))), "{said}");
}

#[test]
fn every_dockerfile_of_the_documentation() {
    let Some(desk) = desk("the documentation's Dockerfiles") else { return };
    let blocks = crate::support::book::pages()
        .into_iter()
        .flat_map(|page| page.blocks())
        .filter(|block| block.language == "dockerfile" && block.remark.is_none());
    let blocks: Vec<crate::support::book::Block> = blocks.collect();
    assert!(!blocks.is_empty());
    // One of them copies the lock.
    desk.sandbox.vx("lock").ok();
    for block in blocks {
        println!("{}", block.place);
        let builder = desk.builder();
        let said = builder.output_of(&builder.build(&block.text), "/usr/bin/rr --version");
        assert!(said.starts_with("rr version "), "{}: {said}", block.place);
    }
}
