//! The sandbox of a job: Landlock (<https://docs.kernel.org/userspace-api/landlock.html>) and a filter of system
//! calls.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use super::protocol::JobTask;

/// The system paths that jobs may read: programs, libraries, certificates.
#[cfg(target_os = "linux")]
const SYSTEM_PATHS: &[&str] = &[
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
    // This process alone: the environment of others has credentials.
    "/proc/self",
    "/proc/cpuinfo",
    "/proc/filesystems",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/sys",
    "/proc/uptime",
    "/proc/version",
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
    "/etc/pki/ca-trust/extracted",
    "/etc/pki/tls/cert.pem",
    "/etc/pki/tls/certs",
    "/etc/pki/tls/openssl.cnf",
    "/etc/resolv.conf",
    "/etc/services",
    // Not their keys.
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
    "/etc/ssl/certs",
    "/etc/ssl/openssl.cnf",
];

/// Restricts this thread and its future threads and child processes. They may
///
/// - connect by TCP to the egress proxy, and use no other socket (UDP, UNIX sockets, listening);
/// - write only to the directories of jobs, and read only these, the system and the Go toolchain (an `#include`
///   of Go's assembler takes any path, and its errors quote the file);
/// - signal only each other, not leave the job's process group, and create no namespaces.
///
/// What a kernel doesn't support is not restricted: see [`isolation_gaps`].
#[cfg(target_os = "linux")]
pub(super) fn restrict(task: &JobTask, environment: &BTreeMap<String, String>) -> Result<(), String> {
    use landlock::{
        Access as _, AccessFs, AccessNet, NetPort, Ruleset, RulesetAttr, RulesetCreatedAttr, Scope,
        path_beneath_rules,
    };
    let (all, read) = (AccessFs::from_all(ABI), AccessFs::from_read(ABI));
    // A job that runs as root could create a device and read a disk.
    let write = all & !(AccessFs::MakeBlock | AccessFs::MakeChar);
    let ruleset = Ruleset::default()
        .handle_access(all)
        .and_then(|ruleset| ruleset.handle_access(AccessNet::from_all(ABI)))
        .and_then(|ruleset| ruleset.scope(Scope::from_all(ABI)))
        .and_then(Ruleset::create)
        .and_then(|ruleset| ruleset.add_rules(path_beneath_rules(writable_paths(task, environment), write)))
        .and_then(|ruleset| ruleset.add_rules(path_beneath_rules(readable_paths(environment), read)))
        .and_then(|ruleset| ruleset.add_rule(NetPort::new(task.port, AccessNet::ConnectTcp)))
        .and_then(landlock::RulesetCreated::restrict_self);
    ruleset.map_err(|error| error.to_string())?;
    for filter in syscalls::filters().transpose()?.into_iter().flatten() {
        seccompiler::apply_filter(&filter).map_err(|error| error.to_string())?;
    }
    Ok(())
}

#[cfg(not(target_os = "linux"))]
pub(super) fn restrict(_: &JobTask, _: &BTreeMap<String, String>) -> Result<(), String> {
    Ok(())
}

/// Something that builds can do because this system can't forbid it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct IsolationGap {
    /// A word for it.
    pub(crate) name: &'static str,
    /// What they can do, and what would forbid it.
    pub(crate) ability: &'static str,
}

/// What builds can do because this system can't forbid it.
#[cfg(target_os = "linux")]
pub(crate) fn isolation_gaps() -> Vec<IsolationGap> {
    use landlock::{Access as _, AccessFs, AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr, Scope};
    let strict = || Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
    let files = strict().handle_access(AccessFs::from_all(ABI)).and_then(Ruleset::create).is_ok();
    let ports = strict().handle_access(AccessNet::from_all(ABI)).and_then(Ruleset::create).is_ok();
    let scopes = strict().scope(Scope::from_all(ABI)).and_then(Ruleset::create).is_ok();
    let calls = matches!(syscalls::filters(), Some(Ok(_)))
        && std::fs::read_to_string("/proc/self/status").is_ok_and(|status| status.contains("Seccomp:"));
    [
        (files, "files", "read this machine's files (needs Landlock of Linux 6.10)"),
        (ports, "ports", "connect to this machine's ports (needs Landlock of Linux 6.7)"),
        (scopes, "signals", "signal this user's processes (needs Landlock of Linux 6.12)"),
        (calls, "sockets", "send UDP packets and connect to UNIX sockets (needs seccomp)"),
        (calls, "leftovers", "leave processes behind (needs seccomp)"),
    ]
    .into_iter()
    .filter_map(|(is_supported, name, ability)| (!is_supported).then_some(IsolationGap { name, ability }))
    .collect()
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn isolation_gaps() -> Vec<IsolationGap> {
    let ability = "access this machine's files, ports and processes (needs Linux)";
    vec![IsolationGap { name: "all", ability }]
}

/// The Landlock version in use; older kernels enforce a part of it.
#[cfg(target_os = "linux")]
const ABI: landlock::ABI = landlock::ABI::V6;

/// The system calls that jobs don't need (<https://docs.kernel.org/userspace-api/seccomp_filter.html>).
#[cfg(target_os = "linux")]
mod syscalls {
    use std::collections::BTreeMap;

    use seccompiler::{
        BpfProgram, SeccompAction, SeccompCmpArgLen::Dword, SeccompCmpOp, SeccompCondition, SeccompFilter,
        SeccompRule, TargetArch,
    };

    /// Calls that are always denied.
    const DENIED: [i64; 34] = [
        libc::SYS_accept,
        libc::SYS_accept4,
        libc::SYS_bind,
        libc::SYS_listen,
        // A process that leaves the group would outlive the job.
        libc::SYS_setpgid,
        libc::SYS_setsid,
        // Other processes.
        libc::SYS_kcmp,
        libc::SYS_pidfd_getfd,
        libc::SYS_process_vm_readv,
        libc::SYS_process_vm_writev,
        libc::SYS_ptrace,
        // It makes sockets without the calls above.
        libc::SYS_io_uring_enter,
        libc::SYS_io_uring_register,
        libc::SYS_io_uring_setup,
        // Keys and kernel interfaces.
        libc::SYS_add_key,
        libc::SYS_bpf,
        libc::SYS_keyctl,
        libc::SYS_perf_event_open,
        libc::SYS_request_key,
        libc::SYS_syslog,
        libc::SYS_userfaultfd,
        // The system, for jobs that run as root.
        libc::SYS_acct,
        libc::SYS_chroot,
        libc::SYS_delete_module,
        libc::SYS_finit_module,
        libc::SYS_init_module,
        libc::SYS_kexec_load,
        libc::SYS_mount,
        // A file by its inode instead of its path.
        libc::SYS_open_by_handle_at,
        libc::SYS_pivot_root,
        libc::SYS_reboot,
        libc::SYS_setns,
        libc::SYS_umount2,
        // A user namespace would make a build root of its own.
        libc::SYS_unshare,
    ];
    const NAMESPACES: i32 = libc::CLONE_NEWCGROUP
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWNET
        | libc::CLONE_NEWNS
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWUSER
        | libc::CLONE_NEWUTS;
    /// The x32 ABI has the same audit architecture as x86-64, and its own numbers: those with this bit, and a few more
    /// (<https://man7.org/linux/man-pages/man2/syscall.2.html>).
    const X32: i64 = 0x4000_0000;
    const X32_NUMBERS: [(i64, i64); 6] = [
        (libc::SYS_ptrace, 521),
        (libc::SYS_kexec_load, 528),
        (libc::SYS_process_vm_readv, 539),
        (libc::SYS_process_vm_writev, 540),
        (libc::SYS_sendmsg, 518),
        (libc::SYS_sendmmsg, 538),
    ];
    const SOCKET_TYPE_MASK: u64 = 0xf;

    /// The filters; `None` if this processor isn't supported.
    pub(super) fn filters() -> Option<Result<[BpfProgram; 2], String>> {
        let processor = TargetArch::try_from(std::env::consts::ARCH).ok()?;
        let programs = rules().and_then(|mut rules| {
            if processor == TargetArch::x86_64 {
                let with_bit = |(call, rules): (&i64, &Vec<_>)| (*call | X32, rules.clone());
                let mut others: Vec<_> = rules.iter().map(with_bit).collect();
                others.extend(
                    X32_NUMBERS
                        .iter()
                        .filter_map(|(call, number)| Some((*number | X32, rules.get(call)?.clone()))),
                );
                rules.extend(others);
            }
            // A filter can't read the flags of clone3; callers use clone where it doesn't exist.
            let missing: Rules =
                [libc::SYS_clone3, libc::SYS_clone3 | X32].map(|call| (call, Vec::new())).into();
            Ok([compile(missing, libc::ENOSYS, processor)?, compile(rules, libc::EACCES, processor)?])
        });
        Some(programs.map_err(|error| error.to_string()))
    }

    type Rules = BTreeMap<i64, Vec<SeccompRule>>;

    fn compile(
        rules: Rules,
        error: i32,
        processor: TargetArch,
    ) -> Result<BpfProgram, seccompiler::BackendError> {
        let denied = SeccompAction::Errno(error as u32);
        SeccompFilter::new(rules, SeccompAction::Allow, denied, processor)?.try_into()
    }

    fn rules() -> Result<Rules, seccompiler::BackendError> {
        let mut rules: Rules = DENIED.into_iter().map(|call| (call, Vec::new())).collect();
        let [unix, inet, inet6] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6].map(|it| it as u64);
        let stream = libc::SOCK_STREAM as u64;
        let is_not = |argument, value| SeccompCondition::new(argument, Dword, SeccompCmpOp::Ne, value);
        let is_type =
            |value| SeccompCondition::new(1, Dword, SeccompCmpOp::MaskedEq(SOCKET_TYPE_MASK), value);
        let other_types = (0..=SOCKET_TYPE_MASK).filter(|it| *it != stream);
        let mut socket = vec![
            SeccompRule::new(vec![is_not(0, inet)?, is_not(0, inet6)?])?,
            SeccompRule::new(vec![is_not(2, 0)?, is_not(2, libc::IPPROTO_TCP as u64)?])?,
        ];
        // A pair of datagram sockets could be connected to another one.
        let mut pair = vec![SeccompRule::new(vec![is_not(0, unix)?])?];
        for other in other_types {
            socket.push(SeccompRule::new(vec![is_type(other)?])?);
            pair.push(SeccompRule::new(vec![is_type(other)?])?);
        }
        rules.insert(libc::SYS_socket, socket);
        rules.insert(libc::SYS_socketpair, pair);
        let has_flag = |argument, flag: i32| {
            let is_set = SeccompCondition::new(
                argument,
                Dword,
                SeccompCmpOp::MaskedEq(u64::from(flag as u32)),
                u64::from(flag as u32),
            );
            is_set.and_then(|condition| SeccompRule::new(vec![condition]))
        };
        // It connects without the check of Landlock.
        for (call, flags) in [(libc::SYS_sendto, 3), (libc::SYS_sendmsg, 2), (libc::SYS_sendmmsg, 3)] {
            rules.insert(call, vec![has_flag(flags, libc::MSG_FASTOPEN)?]);
        }
        let namespaces =
            (0..i32::BITS).map(|bit| NAMESPACES & 1_i32.rotate_left(bit)).filter(|flag| *flag != 0);
        rules.insert(libc::SYS_clone, namespaces.map(|flag| has_flag(0, flag)).collect::<Result<_, _>>()?);
        Ok(rules)
    }
}

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
