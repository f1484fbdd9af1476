//! Output paths that are no regular file: links, pipes, devices, sockets, directories.
#![cfg(unix)]

use std::{
    fs,
    io::{BufRead as _, BufReader},
    os::unix::{fs::FileTypeExt as _, fs::symlink, net::UnixListener},
    path::Path,
    process::{Command, Stdio},
    thread,
};

use velox_testkit::ModuleProxy;

use crate::support::sandbox::{Sandbox, acme_proxy, program, wait_until};

fn machine(proxy: &ModuleProxy) -> Sandbox {
    Sandbox::behind(proxy).plugins("hello@v1.0.0")
}

#[test]
fn devices_and_pipes_are_written_to() {
    let proxy = acme_proxy();
    let sandbox = machine(&proxy);
    sandbox.vx("build -o out").ok();
    let binary = sandbox.bytes("out/rr");
    for command in [
        "build --output-file /dev/null",
        "build --output-file null",
        "build --dry-run --output-file /dev/null",
    ] {
        let _ = symlink("/dev/null", sandbox.at("null"));
        sandbox.vx(command).ok();
        assert!(fs::symlink_metadata("/dev/null").unwrap().file_type().is_char_device(), "{command}");
        assert!(sandbox.at("null").is_symlink());
    }
    sandbox.vx("build --archive --output-file /dev/null").fails_with(2, &["--archive requires a directory"]);

    Command::new("mkfifo").arg(sandbox.at("pipe")).status().unwrap();
    let reader = thread::spawn({
        let pipe = sandbox.at("pipe");
        move || fs::read(pipe).unwrap()
    });
    sandbox.vx("build --output-file pipe").ok();
    assert!(reader.join().unwrap() == binary);
    assert!(fs::symlink_metadata(sandbox.at("pipe")).unwrap().file_type().is_fifo());
    sandbox.vx("build --output-file /dev/full").fails_with(1, &["/dev/full", "No space left on device"]);
}

#[test]
fn other_things_are_refused_before_anything_is_built() {
    let proxy = acme_proxy();
    let sandbox = machine(&proxy);
    let _socket = UnixListener::bind(sandbox.at("socket")).unwrap();
    sandbox.vx("build --output-file socket").fails_with(2, &["socket`: it is a socket, not a regular file"]);
    fs::create_dir_all(sandbox.at("here/rr")).unwrap();
    for command in ["build -o here", "build --dry-run -o here"] {
        sandbox
            .vx(command)
            .fails_with(2, &["a directory is in the way of the binary", "here/rr", "--output-file"]);
    }
    sandbox.vx("build --output-file here").fails_with(2, &["here is a directory", "-o takes"]);
    sandbox.vx("build -o /dev/null").fails_with(2, &["/dev/null is not a directory"]);
    symlink("loop", sandbox.at("loop")).unwrap();
    sandbox.vx("build --output-file loop").fails(2);
    assert!(!sandbox.has("velox.lock"));
}

#[test]
fn links_are_followed() {
    let proxy = acme_proxy();
    let sandbox = machine(&proxy).file("real/rr", "").file("real/velox.lock", "").file("real/velox.toml", "");
    let toml = sandbox.read("velox.toml");
    fs::write(sandbox.at("real/velox.toml"), &toml).unwrap();
    fs::remove_file(sandbox.at("real/velox.lock")).unwrap();
    fs::remove_file(sandbox.at("velox.toml")).unwrap();
    for name in ["rr", "velox.lock", "velox.toml"] {
        symlink(Path::new("real").join(name), sandbox.at(name)).unwrap();
    }
    sandbox.vx("build").ok();
    sandbox.vx("add example.com/acme/bye@v1.0.0").ok();
    sandbox.vx("update bye").ok();
    sandbox.vx("remove bye").ok();
    for name in ["rr", "velox.lock", "velox.toml"] {
        assert!(sandbox.at(name).is_symlink(), "{name}");
        assert!(fs::metadata(sandbox.at("real").join(name)).unwrap().is_file(), "{name}");
    }
    assert!(sandbox.read("real/velox.lock").contains("example.com/acme/hello"));
    assert_eq!(sandbox.entries("real"), ["rr", "velox.lock", "velox.toml"]);
    // A lock that goes nowhere.
    fs::remove_file(sandbox.at("velox.lock")).unwrap();
    symlink("/dev/null", sandbox.at("velox.lock")).unwrap();
    sandbox.vx("build -o again").ok();
    sandbox.vx("init --from again/rr --force -c /dev/null").ok();
    assert!(fs::symlink_metadata("/dev/null").unwrap().file_type().is_char_device());
}

#[test]
fn a_binary_for_another_platform_is_replaced_with_a_note() {
    let proxy = acme_proxy();
    let sandbox = machine(&proxy);
    sandbox.vx("build -o bin").ok();
    let host = if cfg!(target_arch = "x86_64") { "linux/amd64" } else { "linux/arm64" };
    let foreign = if cfg!(target_arch = "x86_64") { "linux/arm64" } else { "linux/amd64" };
    let note = format!("rr was a binary for {host}, and is replaced by the one for {foreign}");
    let build = format!("build -o bin --target {foreign} --archive");
    let replaced = sandbox.vx(&build);
    replaced.succeeds_with(&[&note, "`--output-dir DIR` or `--output-file FILE` keeps both"]);
    let again = sandbox.vx(&build);
    again.ok();
    assert!(!again.stderr().contains("is replaced by"), "{}", again.stderr());
    // Archives and checksums have the permissions of other new files.
    use std::os::unix::fs::PermissionsExt as _;
    for name in sandbox.entries("bin") {
        let mode = fs::metadata(sandbox.at(format!("bin/{name}"))).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, if name == "rr" { 0o755 } else { 0o644 }, "{name}");
    }
}

#[test]
fn nothing_to_compile_is_said() {
    let proxy = acme_proxy();
    let sandbox = machine(&proxy);
    sandbox.vx("build").ok();
    let again = sandbox.vx("build --no-cache");
    again.succeeds_with(&["Compiled no packages: the caches have them all", "Linked the binary in "]);
}

#[test]
fn two_builds_of_the_same_binary_compile_once() {
    let proxy = acme_proxy();
    let wrapper = format!(
        "#!/bin/sh\nunset GOROOT\nif [ \"$1 $2\" = \"build -v\" ]; then echo compiled >>\"$USED\"; \
         until [ -e \"$GATE\" ]; do sleep 0.1; done; fi\nexec {} \"$@\"\n",
        program("go").unwrap().canonicalize().unwrap().display()
    );
    let sandbox = machine(&proxy).script("mine", &wrapper);
    let (used, gate, go) = (sandbox.at("used"), sandbox.at("gate"), sandbox.at("bin/mine"));
    let sandbox = sandbox.env("USED", &used).env("GATE", &gate);
    sandbox.vx("lock").ok();
    let start = |directory: &str| {
        let mut command = sandbox.vx_command(&format!("build -o {directory} --go {}", go.display()));
        command.stderr(Stdio::piped()).spawn().unwrap()
    };
    let first = start("one");
    wait_until("the first build compiles", || used.exists());
    let mut second = start("other");
    let mut lines = BufReader::new(second.stderr.take().unwrap()).lines();
    let is_told =
        lines.any(|line| line.unwrap().contains("another vx is compiling the same binary; waiting for it"));
    fs::write(&gate, "").unwrap();
    assert!(is_told, "the second build waits");
    let rest: Vec<String> = lines.map(Result::unwrap).collect();
    assert!(second.wait().unwrap().success(), "{rest:?}");
    assert!(first.wait_with_output().unwrap().status.success());
    assert_eq!(sandbox.read("used"), "compiled\n");
    assert!(sandbox.bytes("one/rr") == sandbox.bytes("other/rr"));
    let store = sandbox.entries("../cache/artifacts-v1");
    assert!(!store.iter().any(|name| name.starts_with(".building-")), "{store:?}");
}
