//! What the kernel itself keeps a job from, where it can (<https://docs.kernel.org/userspace-api/landlock.html>).

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use super::task::Task;

/// Where systems have their programs, libraries and certificates; what is read there is nobody's secret.
#[cfg(target_os = "linux")]
const SYSTEM: [&str; 33] = [
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

/// From here on this thread, and all threads and processes that it starts, connect to the job's way out and to nothing
/// else, write where jobs write, and read besides what the system and the Go toolchain are made of: an `#include` of
/// Go's assembler takes any path, and the assembler's errors quote what is there. Older kernels know less of that, and then
/// it is the job's environment alone that leads it the right way.
#[cfg(target_os = "linux")]
pub(super) fn enclose(task: &Task, environment: &BTreeMap<String, String>) -> Result<(), String> {
    use landlock::{
        Access as _, AccessFs, AccessNet, NetPort, Ruleset, RulesetAttr, RulesetCreatedAttr,
        path_beneath_rules,
    };
    let (all, read) = (AccessFs::from_all(ABI), AccessFs::from_read(ABI));
    let ruleset = Ruleset::default()
        .handle_access(all)
        .and_then(|ruleset| ruleset.handle_access(AccessNet::ConnectTcp))
        .and_then(Ruleset::create)
        .and_then(|ruleset| ruleset.add_rules(path_beneath_rules(written(task, environment), all)))
        .and_then(|ruleset| ruleset.add_rules(path_beneath_rules(only_read(environment), read)))
        .and_then(|ruleset| ruleset.add_rule(NetPort::new(task.port, AccessNet::ConnectTcp)))
        .and_then(landlock::RulesetCreated::restrict_self);
    ruleset.map(|_| ()).map_err(|error| error.to_string())
}

#[cfg(not(target_os = "linux"))]
pub(super) fn enclose(_: &Task, _: &BTreeMap<String, String>) -> Result<(), String> {
    Ok(())
}

/// Whether the kernel knows all that [`enclose`] asks of it.
#[cfg(target_os = "linux")]
pub(super) fn is_whole() -> bool {
    use landlock::{Access as _, AccessFs, AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr};
    Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(ABI))
        .and_then(|ruleset| ruleset.handle_access(AccessNet::ConnectTcp))
        .and_then(Ruleset::create)
        .is_ok()
}

#[cfg(not(target_os = "linux"))]
pub(super) fn is_whole() -> bool {
    false
}

/// What a newer kernel could keep a job from besides, isn't asked for.
#[cfg(target_os = "linux")]
const ABI: landlock::ABI = landlock::ABI::V4;

/// Where a job writes: made where they are missing, since nobody can do it later.
#[cfg(target_os = "linux")]
fn written(task: &Task, environment: &BTreeMap<String, String>) -> Vec<PathBuf> {
    let caches = ["HOME", "GOPATH", "VX_CACHE_DIR", "GOMODCACHE", "GOCACHE"];
    let mut places: Vec<PathBuf> =
        caches.iter().filter_map(|name| environment.get(*name)).map(PathBuf::from).collect();
    for place in &places {
        // Whoever writes there says what is wrong with it.
        let _ = std::fs::create_dir_all(place);
    }
    places.extend([task.directory.clone(), PathBuf::from("/dev/null")]);
    places
}

/// What a job reads besides: the system, the programs on the PATH, the Go toolchain, certificates.
#[cfg(target_os = "linux")]
fn only_read(environment: &BTreeMap<String, String>) -> Vec<PathBuf> {
    let mut places: Vec<PathBuf> = SYSTEM.iter().map(PathBuf::from).collect();
    places.extend(std::env::current_exe().ok());
    let certificates = ["SSL_CERT_FILE", "SSL_CERT_DIR", "GIT_SSL_CAINFO"];
    places.extend(certificates.iter().filter_map(|name| environment.get(*name)).map(PathBuf::from));
    let path = environment.get("PATH").map(String::as_str).unwrap_or_default();
    for folder in std::env::split_paths(path).filter(|folder| folder.is_absolute()) {
        // GOROOT, two steps above the go command that links lead to.
        let go = folder.join("go").canonicalize().ok();
        places.extend(
            go.as_deref()
                .and_then(Path::parent)
                .and_then(Path::parent)
                .filter(is_toolchain)
                .map(PathBuf::from),
        );
        // A version manager's: scripts that read what it has beside them.
        if folder.ends_with("shims") {
            places.extend(folder.parent().map(PathBuf::from));
        }
        places.push(folder);
    }
    places
}

#[cfg(target_os = "linux")]
fn is_toolchain(folder: &&Path) -> bool {
    folder.join("pkg/tool").is_dir() && folder.join("src").is_dir()
}
