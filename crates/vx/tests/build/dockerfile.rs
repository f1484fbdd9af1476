//! Dockerfiles (vx's own, the manual's and the documentation's), built by buildah.

#![cfg(target_os = "linux")]

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::Command,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering},
    },
};

use velox_testkit::{ModuleProxy, TestRegistry};

use crate::support::{
    book::{pages, top},
    buildah::Buildah,
    release::stripped,
    sandbox::{CommandOutput, RELEASE, Sandbox, acme_proxy, assert_contains, skip},
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

/// The programs of the base images that need a network: each accepts only the arguments of vx's Dockerfile. `cargo`
/// copies the binary under test.
const PROGRAMS: [(&str, &str); 5] = [
    (
        "cargo",
        "target=$(uname -m)-unknown-linux-musl\n\
        test \"$*\" = \"build --locked --release -p vx --target $target\" || exit 9\n\
        mkdir -p target/$target/release && cp /usr/local/bin/compiled target/$target/release/vx\n",
    ),
    (
        "apt-get",
        "case \"$*\" in update | 'install -y --no-install-recommends musl-tools') ;; *) exit 9 ;; esac\n",
    ),
    ("rustup", "test \"$*\" = \"target add $(uname -m)-unknown-linux-musl\"\n"),
    ("apk", "test \"$*\" = 'add --no-cache git openssh-client gcc musl-dev'\n"),
    (
        "adduser",
        "test \"$*\" = '-D -H -u 10001 vx' || exit 9\n\
        echo 'vx:x:10001:10001::/home/vx:/bin/sh' >>/etc/passwd\n\
        echo 'vx:x:10001:' >>/etc/group\n",
    ),
];

/// The base images (rust, golang and php) and the image of vx.
struct Images {
    buildah: Buildah,
    proxy: ModuleProxy,
}

/// A directory with a velox.toml, and the images.
struct Docker {
    images: Arc<Images>,
    sandbox: Sandbox,
    /// The name of the image that [`built_and_run`](Self::built_and_run) makes.
    built: String,
}

/// `None`, with the reason printed, if this machine can't build images.
fn docker(test: &str) -> Option<Docker> {
    // Made once for all tests that run at the same time.
    static SHARED: Mutex<Weak<Images>> = Mutex::new(Weak::new());
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    let images = match shared.upgrade() {
        Some(images) => images,
        None => match Buildah::new() {
            Ok(buildah) => Arc::new(images(buildah)),
            Err(reason) => {
                skip(test, &reason);
                return None;
            }
        },
    };
    *shared = Arc::downgrade(&images);
    let sandbox = Sandbox::behind(&images.proxy).file("velox.toml", CONFIGURATION);
    let built = format!("localhost/built-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
    Some(Docker { images, sandbox, built })
}

fn images(mut buildah: Buildah) -> Images {
    let proxy = acme_proxy();
    proxy.roadrunner(RELEASE);
    proxy.plugin("github.com/acme/hello", "v1.0.0");
    let mut sandbox = Sandbox::behind(&proxy);
    for (name, script) in PROGRAMS {
        sandbox = sandbox.file(&format!("images/{name}"), format!("#!/bin/sh\n{script}"));
        fs::set_permissions(sandbox.at(format!("images/{name}")), fs::Permissions::from_mode(0o755)).unwrap();
    }
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
    let file = |name: &str| (sandbox.at(format!("images/{name}")), format!("/usr/local/bin/{name}"));
    let rust = [
        file("cargo"),
        file("apt-get"),
        file("rustup"),
        (stripped().to_owned(), "/usr/local/bin/compiled".to_owned()),
    ];
    buildah.base("docker.io/library/rust:1.95-bookworm", &rust, "");
    for go in ["1.26", "1.27"] {
        buildah.base(
            &format!("docker.io/library/golang:{go}-alpine"),
            &[file("apk"), file("adduser")],
            &golang,
        );
    }
    for php in ["8.3", "8.4"] {
        buildah.base(&format!("docker.io/library/php:{php}-cli"), &[], "");
    }
    let sources = tempfile::tempdir().unwrap();
    for file in ["packaging/docker-entrypoint", "examples/http-server.toml"] {
        fs::create_dir_all(sources.path().join(file).parent().unwrap()).unwrap();
        fs::copy(top().join(file), sources.path().join(file)).unwrap();
    }
    buildah.build("localhost/vx:latest", &dockerfile("packaging/Dockerfile"), sources.path(), &[]);
    Images { buildah, proxy }
}

impl Docker {
    /// Builds an image and runs a command in it.
    fn built_and_run(&self, dockerfile: &str, arguments: &[&str], command: &str) -> String {
        // buildah 1.28 (Debian 12) lacks this flag; without a network interface and a proxy a step is offline
        // too.
        let dockerfile = dockerfile.replace("RUN --network=none ", "RUN GOPROXY=off unshare --net ");
        self.images.buildah.build(&self.built, &dockerfile, &self.sandbox.path(), arguments);
        self.images.buildah.run(&self.built, command)
    }
}

fn dockerfile(name: &str) -> String {
    fs::read_to_string(top().join(name)).unwrap()
}

#[test]
fn vx_image_runs_as_root_and_keeps_what_derived_images_write() {
    let text = dockerfile("packaging/Dockerfile");
    for unwanted in ["VOLUME", "USER", "ONBUILD"] {
        assert!(!text.lines().any(|line| line.starts_with(unwanted)), "{unwanted}");
    }
    // The Rust version of Cargo.toml.
    let rust = text.lines().find_map(|line| line.strip_prefix("ARG RUST=")).unwrap();
    assert!(dockerfile("Cargo.toml").contains(&format!("rust-version = \"{rust}\"")));
    // Whatever the Dockerfile copies is part of the build context.
    let ignore = dockerfile("packaging/Dockerfile.dockerignore");
    for line in text.lines().filter(|line| line.starts_with("COPY ") && !line.contains(" --from=")) {
        let source = line.split(' ').nth(1).unwrap();
        assert!(source == "." || ignore.lines().any(|kept| kept == format!("!{source}")), "{line}");
    }

    let Some(docker) = docker("the image of vx") else { return };
    let version =
        docker.images.buildah.run("vx", "vx version && /usr/bin/vx version && /usr/local/bin/vx version");
    assert!(version.starts_with("vx ") && version.lines().count() == 3, "{version}");
    let environment = docker.images.buildah.setting_of("vx", "Env");
    assert!(environment.contains("GOTOOLCHAIN=auto"), "{environment}");
    assert_eq!(
        docker.images.buildah.run("vx", "cat /etc/velox.toml"),
        dockerfile("examples/http-server.toml")
    );
}

/// The image is a command, as that of Velox; programs that are no command of vx start as they are.
#[test]
fn vx_image_takes_the_arguments_of_vx_and_runs_other_programs() {
    let Some(docker) = docker("the image of vx as a command") else { return };
    docker.images.buildah.build(
        "localhost/sampled",
        "FROM vx\nCOPY velox.toml /etc/velox.toml\n",
        &docker.sandbox.path(),
        &[],
    );
    let container = docker.images.buildah.container("localhost/sampled");
    let run = |arguments: &[&str]| -> CommandOutput { CommandOutput(container.run(arguments)) };

    // docker-compose.yml of Velox: `command: "build -c=/etc/velox.toml -o=/tmp/"`.
    run(&["build", "-c=/etc/velox.toml", "-o=/tmp/"]).ok();
    assert_contains(&run(&["/tmp/rr", "--version"]).ok(), &["rr version "]);
    // GitLab CI; a program on the PATH; compose.yaml of the build service.
    assert_eq!(run(&["sh", "-c", "cat -; echo $((1 + 1))"]).ok(), "2\n");
    assert_contains(&run(&["ls", "/etc/velox.toml"]).ok(), &["/etc/velox.toml\n"]);
    let version = concat!("vx ", env!("CARGO_PKG_VERSION"));
    for arguments in [&["--version"][..], &["vx", "--version"], &["version"]] {
        assert_contains(&run(arguments).ok(), &[version]);
    }
    // A command of vx comes before a program of the same name, and its exit code is the container's.
    docker.images.buildah.build(
        "localhost/programs",
        "FROM localhost/sampled\nRUN cp /usr/bin/ls /usr/local/bin/list && cp /usr/bin/ls /usr/local/bin/init\n",
        &docker.sandbox.path(),
        &[],
    );
    let container = docker.images.buildah.container("localhost/programs");
    let listed = CommandOutput(container.run(&["list", "--help"])).ok();
    assert_contains(&listed, &["Usage: vx list"]);
    assert_eq!(run(&["build", "-c", "missing.toml"]).0.status.code(), Some(2));
    // Without arguments: the help. A busy buildah may lose standard error of a program that ends at once.
    for (arguments, texts) in [(&["bulid"][..], &["bulid", "build"][..]), (&[], &["Usage: vx"])] {
        assert_eq!(run(arguments).0.status.code(), Some(2));
        let command = format!("docker-entrypoint {} 2>&1 || cat /dev/null", arguments.join(" "));
        assert_contains(&run(&["sh", "-c", &command]).ok(), texts);
    }
}

#[test]
fn image_with_a_release_builds_its_plugins_offline() {
    let Some(docker) = docker("the image of vx with a RoadRunner release") else { return };
    let (buildah, sandbox) = (&docker.images.buildah, &docker.sandbox);
    // As the release workflow publishes it.
    let registry = TestRegistry::start();
    let vx = format!("{}/acme/vx", registry.host());
    buildah.build(&format!("{vx}:v9.8.7-amd64"), "FROM vx\n", &sandbox.path(), &[]);
    let script = sandbox
        .command(top().join("scripts/publish-variants"), &[&vx, "v9.8.7", "amd64", RELEASE])
        .env("DOCKER", buildah.docker())
        .output();
    CommandOutput(script.unwrap()).ok();
    assert_eq!(registry.tags("acme/vx"), ["9.8.7-rr2025.0.77-amd64"]);
    let image = format!("{vx}:9.8.7-rr2025.0.77-amd64");
    let left = buildah.run(&image, "ls -A /tmp /velox && vx cache info");
    assert!(!left.contains("velox.toml") && left.contains(" 0 binaries"), "{left}");

    // Some of its plugins, at its versions.
    sandbox.vx(&format!("init --force --roadrunner {RELEASE} --default")).ok();
    sandbox.vx("remove --no-lock fileserver").ok();
    let text =
        format!("FROM {image}\nCOPY velox.toml .\nRUN --network=none vx build --offline -o /usr/bin/\n");
    let version = docker.built_and_run(&text, &[], "rr --version");
    assert_contains(&version, &["2025.0.77"]);
}

#[test]
fn image_tags_are_those_of_velox() {
    let tags = |version: &str| -> String {
        CommandOutput::from(Command::new(top().join("scripts/image-tags")).arg(version)).ok()
    };
    assert_eq!(tags("v3.1.0"), "3.1.0\n3.1\n3\nlatest\n");
    assert_eq!(tags("v12.10.11"), "12.10.11\n12.10\n12\nlatest\n");
    assert_eq!(tags("v3.2.0-rc.1"), "3.2.0-rc.1\n");
}

/// The Dockerfiles that the web configuration builder writes copy vx into Go's own image.
#[test]
fn vx_is_copied_from_its_image_into_the_go_image() {
    let Some(docker) = docker("vx in the Go image") else { return };
    let web = "FROM vx AS velox\n\n\
        FROM golang:1.26-alpine AS rr\n\
        ARG APP_VERSION=1.0.0\n\
        COPY --from=velox /usr/bin/vx /usr/bin/vx\n\
        COPY velox.toml .\n\
        ENV CGO_ENABLED=0\n\
        RUN vx build -c velox.toml -o /usr/bin/\n";
    let version = docker.built_and_run(web, &[], "/usr/bin/rr --version");
    assert_contains(&version, &["rr version 1.0.0 "]);
}

#[test]
fn manual_dockerfile_builds_with_another_image_name() {
    let Some(docker) = docker("the manual's Dockerfile") else { return };
    let manual = include_str!("../manual.Dockerfile");
    let arguments = ["APP_VERSION=1.2.3", "BUILD_TIME=2026-01-02T03:04:05+0000"];
    let version = docker.built_and_run(manual, &arguments, "/usr/bin/rr --version");
    assert!(version.starts_with("rr version 1.2.3 (build time: 2026-01-02T03:04:05+0000"), "{version}");
    assert_eq!(docker.images.buildah.setting_of(&docker.built, "Cmd"), "[/usr/bin/rr]");

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
