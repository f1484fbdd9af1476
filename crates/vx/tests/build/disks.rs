//! Full disks and unwritable directories: a clear error, and no partial files.
#![cfg(target_os = "linux")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use velox_gomod::buildinfo::BuildInfo;
use velox_testkit::{ModuleProxy, plugin};

use crate::support::{
    sandbox::{RELEASE, Sandbox, acme_proxy},
    small_disk::SmallDisk,
};

fn proxy() -> ModuleProxy {
    let proxy = acme_proxy();
    // Its binary fills a small disk.
    proxy.roadrunner(RELEASE);
    let module = "example.com/acme/hello";
    // Incompressible enough to fill a small disk.
    let mut noise = 1_u32;
    let noise: String = (0..200_000)
        .map(|_| {
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            char::from(b'a' + (noise >> 24) as u8 % 26)
        })
        .collect();
    let mut files = plugin(module, "hello").files();
    files.insert("noise.txt".to_owned(), noise.into_bytes());
    proxy.module(module, "v1.0.0", files);
    proxy
}

fn machine(proxy: &ModuleProxy) -> Sandbox {
    Sandbox::behind(proxy).plugins("hello@v1.0.0")
}

/// Files and links below a directory.
fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .flat_map(|entry| match entry.file_type().unwrap().is_dir() {
            true => files(&entry.path()),
            false => vec![entry.path()],
        })
        .collect()
}

fn build(sandbox: &Sandbox) {
    sandbox.vx("build -o out").ok();
    BuildInfo::read(&sandbox.at("out/rr")).unwrap();
}

#[test]
fn full_module_cache_disk_is_named_in_the_error() {
    let proxy = proxy();
    let sandbox = machine(&proxy);
    sandbox.vx("lock").ok();
    let at = sandbox.at("../small-modules");
    let Some(disk) = SmallDisk::mount("a full disk for modules", at.clone(), "100k") else { return };
    let sandbox = sandbox.env("GOMODCACHE", &at);
    for arguments in ["fetch --locked", "build -o out"] {
        sandbox.vx(arguments).fails_with(1, &["No space left on device", "small-modules", "GOMODCACHE"]);
    }
    for file in files(&at) {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        assert!(!name.ends_with(".tmp") && !name.ends_with(".partial"), "{}", file.display());
    }
    disk.resize("500m");
    build(&sandbox);
    drop(disk);
}

#[test]
fn full_output_or_cache_disk_leaves_no_partial_binary() {
    let proxy = proxy();
    let sandbox = machine(&proxy);
    build(&sandbox);
    let good = sandbox.bytes("out/rr");

    // The output directory: existing files stay.
    let at = sandbox.at("small-out");
    let Some(disk) = SmallDisk::mount("a full disk for the output", at.clone(), "1m") else { return };
    fs::write(at.join("rr"), "the old server").unwrap();
    sandbox.vx("build -o small-out").fails_with(1, &["No space left on device", "small-out"]);
    assert_eq!(files(&at), [at.join("rr")]);
    assert_eq!(fs::read(at.join("rr")).unwrap(), b"the old server");
    disk.resize("200m");
    sandbox.vx("build -o small-out").ok();
    assert!(fs::read(at.join("rr")).unwrap() == good);
    drop(disk);

    // The cache of vx: too small for a workspace, then for a binary.
    let at = sandbox.at("../small-cache");
    let Some(disk) = SmallDisk::mount("a full disk for vx's cache", at.clone(), "64k") else { return };
    fs::remove_dir_all(sandbox.at("out")).unwrap();
    let sandbox = sandbox.env("VX_CACHE_DIR", &at);
    for size in ["64k", "8m"] {
        disk.resize(size);
        sandbox.vx("build -o out").fails_with(1, &["o space left on device", "VX_CACHE_DIR"]);
        assert!(files(&sandbox.at("out")).is_empty(), "{size}");
        assert!(!files(&at).iter().any(|file| file.file_name().unwrap() == "rr"), "{size}: {:?}", files(&at));
    }
    disk.resize("300m");
    build(&sandbox);
    assert!(sandbox.bytes("out/rr") == good);
    drop(disk);
}

#[test]
fn unwritable_directory_is_named_in_the_error() {
    let proxy = proxy();
    let sandbox = machine(&proxy);
    sandbox.vx("lock").ok();
    let locked = sandbox.read("velox.lock");
    let mut sandbox = sandbox.file("a-file", "");
    let inside = sandbox.at("a-file/inside");
    for name in ["VX_CACHE_DIR", "GOMODCACHE", "GOCACHE"] {
        let before = sandbox.value(name);
        sandbox = sandbox.env(name, &inside);
        sandbox.vx("build -o out").fails_with(1, &["a-file/inside", "ot a directory", name]);
        sandbox = sandbox.env(name, before);
    }
    sandbox.vx("build -o a-file/inside").fails_with(2, &["a-file"]);
    assert_eq!(sandbox.read("velox.lock"), locked);
    assert!(!sandbox.has("out") || files(&sandbox.at("out")).is_empty());
    build(&sandbox);
}
