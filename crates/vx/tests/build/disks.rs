//! Disks that are full, directories that can't be written: a clear error, and nothing half made.
#![cfg(target_os = "linux")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::support::sandbox::{Ran, Sandbox, skip};
use velox_gomod::buildinfo::BuildInfo;
use velox_testkit::{ModuleProxy, plugin};

const CONFIGURATION: &str = "[roadrunner]\nref = \"v2025.0.79\"\n\n[plugins.hello]\nmodule_name = \"example.com/acme/hello\"\ntag = \"v1.0.0\"\n";
const BUILD: [&str; 3] = ["build", "-o", "out"];

fn proxy() -> ModuleProxy {
    let proxy = ModuleProxy::start();
    proxy.roadrunner("v2025.0.79");
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
    Sandbox::new().own_module_cache().proxy(&proxy.url()).file("velox.toml", CONFIGURATION)
}

/// A disk of its own, of this size.
struct Disk(PathBuf);

impl Disk {
    /// `None`, with the reason printed, where this user may not mount.
    fn new(test: &str, at: PathBuf, size: &str) -> Option<Self> {
        fs::create_dir_all(&at).unwrap();
        let at = at.canonicalize().unwrap();
        let mounted = mount(&["-t", "tmpfs", "-o", &format!("size={size},nr_inodes=0"), "tmpfs"], &at);
        match mounted {
            Ok(()) => Some(Self(at)),
            Err(why) => {
                skip(test, &why);
                None
            }
        }
    }

    fn resize(&self, size: &str) {
        mount(&["-o", &format!("remount,size={size}")], &self.0).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Before the directory around it is removed.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn mount(arguments: &[&str], at: &Path) -> Result<(), String> {
    let output = Command::new("mount").args(arguments).arg(at).output().map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if output.status.success() { Ok(()) } else { Err(format!("no disk can be mounted: {said}")) }
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

fn build(sandbox: &Sandbox) -> Ran {
    let ran = sandbox.vx(&BUILD);
    ran.ok();
    BuildInfo::read(&sandbox.path().join("out/rr")).unwrap();
    ran
}

#[test]
fn a_full_disk_for_modules_is_named_and_a_larger_one_goes_on() {
    let proxy = proxy();
    let sandbox = machine(&proxy);
    sandbox.vx(&["lock"]).ok();
    let at = sandbox.path().join("../small-modules");
    let Some(disk) = Disk::new("a full disk for modules", at.clone(), "100k") else { return };
    let sandbox = sandbox.env("GOMODCACHE", &at);
    for arguments in [&["fetch", "--locked"][..], &BUILD] {
        let said = sandbox.vx(arguments).fails(1);
        assert!(said.contains("No space left on device") && said.contains("small-modules"), "{said}");
        assert!(said.contains("GOMODCACHE"), "{said}");
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
fn a_full_disk_for_the_cache_or_the_output_leaves_no_half_server() {
    let proxy = proxy();
    let sandbox = machine(&proxy);
    build(&sandbox);
    let good = fs::read(sandbox.path().join("out/rr")).unwrap();

    // The output: what is there stays.
    let at = sandbox.path().join("small-out");
    let Some(disk) = Disk::new("a full disk for the output", at.clone(), "1m") else { return };
    fs::write(at.join("rr"), "the old server").unwrap();
    let said = sandbox.vx(&["build", "-o", "small-out"]).fails(1);
    assert!(said.contains("No space left on device") && said.contains("small-out"), "{said}");
    assert_eq!(files(&at), [at.join("rr")]);
    assert_eq!(fs::read(at.join("rr")).unwrap(), b"the old server");
    disk.resize("200m");
    sandbox.vx(&["build", "-o", "small-out"]).ok();
    assert!(fs::read(at.join("rr")).unwrap() == good);
    drop(disk);

    // vx's own cache: too small for a workspace, then for a binary.
    let at = sandbox.path().join("../small-cache");
    let Some(disk) = Disk::new("a full disk for vx's cache", at.clone(), "64k") else { return };
    fs::remove_dir_all(sandbox.path().join("out")).unwrap();
    let sandbox = sandbox.env("VX_CACHE_DIR", &at);
    for size in ["64k", "8m"] {
        disk.resize(size);
        let said = sandbox.vx(&BUILD).fails(1);
        assert!(said.contains("o space left on device"), "{size}: {said}");
        assert!(said.contains("VX_CACHE_DIR"), "{size}: {said}");
        assert!(files(&sandbox.path().join("out")).is_empty(), "{size}");
        assert!(!files(&at).iter().any(|file| file.file_name().unwrap() == "rr"), "{size}: {:?}", files(&at));
    }
    disk.resize("300m");
    build(&sandbox);
    assert!(fs::read(sandbox.path().join("out/rr")).unwrap() == good);
    drop(disk);
}

#[test]
fn a_directory_that_cannot_be_written_is_named() {
    let proxy = proxy();
    let sandbox = machine(&proxy);
    sandbox.vx(&["lock"]).ok();
    let locked = fs::read_to_string(sandbox.path().join("velox.lock")).unwrap();
    let mut sandbox = sandbox.file("a-file", "");
    let inside = sandbox.path().join("a-file/inside");
    for name in ["VX_CACHE_DIR", "GOMODCACHE", "GOCACHE"] {
        let before = sandbox.value(name);
        sandbox = sandbox.env(name, &inside);
        let said = sandbox.vx(&BUILD).fails(1);
        assert!(said.contains("a-file/inside") && said.contains("ot a directory"), "{name}: {said}");
        assert!(said.contains(name), "{name}: {said}");
        sandbox = sandbox.env(name, before);
    }
    let said = sandbox.vx(&["build", "-o", "a-file/inside"]).fails(2);
    assert!(said.contains("a-file"), "{said}");
    assert_eq!(fs::read_to_string(sandbox.path().join("velox.lock")).unwrap(), locked);
    assert!(!sandbox.path().join("out").exists() || files(&sandbox.path().join("out")).is_empty());
    build(&sandbox);
}
