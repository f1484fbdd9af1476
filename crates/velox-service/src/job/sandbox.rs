//! The Landlock sandbox of a job (<https://docs.kernel.org/userspace-api/landlock.html>).

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use super::protocol::JobTask;

/// The system paths that jobs may read: programs, libraries, certificates.
#[cfg(target_os = "linux")]
const SYSTEM_PATHS: [&str; 33] = [
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/opt",
    "/nix",
    "/gnu",
    "/snap",
    "/var/lib/snapd",
    "/home/linuxbrew/.linuxbrew",
    "/proc",
    "/sys",
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/random",
    "/dev/urandom",
    "/etc/ca-certificates",
    "/etc/crypto-policies",
    "/etc/hosts",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/ld.so.preload",
    "/etc/localtime",
    "/etc/mime.types",
    "/etc/nsswitch.conf",
    "/etc/pki",
    "/etc/resolv.conf",
    "/etc/services",
    "/etc/ssl",
];

/// Restricts this thread and its future threads and child processes: they may connect only to the egress
/// proxy, write only to the directories of jobs, and read only these, the system and the Go toolchain (an
/// `#include` of Go's assembler takes any path, and its errors quote the file). Older kernels enforce less.
#[cfg(target_os = "linux")]
pub(super) fn restrict(task: &JobTask, environment: &BTreeMap<String, String>) -> Result<(), String> {
    use landlock::{
        Access as _, AccessFs, AccessNet, NetPort, Ruleset, RulesetAttr, RulesetCreatedAttr,
        path_beneath_rules,
    };
    let (all, read) = (AccessFs::from_all(ABI), AccessFs::from_read(ABI));
    let ruleset = Ruleset::default()
        .handle_access(all)
        .and_then(|ruleset| ruleset.handle_access(AccessNet::ConnectTcp))
        .and_then(Ruleset::create)
        .and_then(|ruleset| ruleset.add_rules(path_beneath_rules(writable_paths(task, environment), all)))
        .and_then(|ruleset| ruleset.add_rules(path_beneath_rules(readable_paths(environment), read)))
        .and_then(|ruleset| ruleset.add_rule(NetPort::new(task.port, AccessNet::ConnectTcp)))
        .and_then(landlock::RulesetCreated::restrict_self);
    ruleset.map(|_| ()).map_err(|error| error.to_string())
}

#[cfg(not(target_os = "linux"))]
pub(super) fn restrict(_: &JobTask, _: &BTreeMap<String, String>) -> Result<(), String> {
    Ok(())
}

/// Whether the kernel supports all of [`restrict`].
#[cfg(target_os = "linux")]
pub(super) fn is_supported() -> bool {
    use landlock::{Access as _, AccessFs, AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr};
    Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(ABI))
        .and_then(|ruleset| ruleset.handle_access(AccessNet::ConnectTcp))
        .and_then(Ruleset::create)
        .is_ok()
}

#[cfg(not(target_os = "linux"))]
pub(super) fn is_supported() -> bool {
    false
}

/// The Landlock version in use; newer restrictions are not needed.
#[cfg(target_os = "linux")]
const ABI: landlock::ABI = landlock::ABI::V4;

/// Creates and returns the directories that a job writes to; the sandbox forbids creating them later.
#[cfg(target_os = "linux")]
fn writable_paths(task: &JobTask, environment: &BTreeMap<String, String>) -> Vec<PathBuf> {
    let caches = ["HOME", "GOPATH", "VX_CACHE_DIR", "GOMODCACHE", "GOCACHE"];
    let mut paths: Vec<PathBuf> =
        caches.iter().filter_map(|name| environment.get(*name)).map(PathBuf::from).collect();
    for path in &paths {
        // The job's first write reports the error.
        let _ = std::fs::create_dir_all(path);
    }
    paths.extend([task.directory.clone(), PathBuf::from("/dev/null")]);
    paths
}

/// The read-only paths of a job: the system, programs on the PATH, the Go toolchain, certificates.
#[cfg(target_os = "linux")]
fn readable_paths(environment: &BTreeMap<String, String>) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = SYSTEM_PATHS.iter().map(PathBuf::from).collect();
    paths.extend(std::env::current_exe().ok());
    let certificates = ["SSL_CERT_FILE", "SSL_CERT_DIR", "GIT_SSL_CAINFO"];
    paths.extend(certificates.iter().filter_map(|name| environment.get(*name)).map(PathBuf::from));
    let search_path = environment.get("PATH").map(String::as_str).unwrap_or_default();
    for folder in std::env::split_paths(search_path).filter(|folder| folder.is_absolute()) {
        // GOROOT is two levels above the go command, after resolving links.
        let go = folder.join("go").canonicalize().ok();
        paths.extend(
            go.as_deref()
                .and_then(Path::parent)
                .and_then(Path::parent)
                .filter(is_toolchain)
                .map(PathBuf::from),
        );
        // Shims of a version manager read the files beside them.
        if folder.ends_with("shims") {
            paths.extend(folder.parent().map(PathBuf::from));
        }
        paths.push(folder);
    }
    paths
}

#[cfg(target_os = "linux")]
fn is_toolchain(folder: &&Path) -> bool {
    folder.join("pkg/tool").is_dir() && folder.join("src").is_dir()
}
