//! Output paths that are no regular file: links, pipes, devices, sockets, directories.
#![cfg(unix)]

use std::{
    fs,
    os::unix::{fs::FileTypeExt as _, fs::symlink, net::UnixListener},
    path::Path,
    process::Command,
    thread,
};

use velox_testkit::ModuleProxy;

use crate::support::sandbox::{Sandbox, acme_proxy};

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
    sandbox.vx("build --output-file socket").fails_with(2, &["socket: it is a socket, not a regular file"]);
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
