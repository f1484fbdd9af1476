//! The memory of the Go compiler and linker: their garbage collector runs only when a share of the memory is used.
//!
//! A compiler process lives for seconds, so most collections free nothing that is needed again. GOGC and GOMEMLIMIT
//! (<https://pkg.go.dev/runtime#hdr-Environment_Variables>) don't change what they write.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    thread,
};

/// With less for each process, they keep Go's defaults.
const MIN_SHARE_BYTES: u64 = 384 << 20;
/// With less, processes collect garbage, but seldom.
const MIN_SHARE_BYTES_WITHOUT_COLLECTION: u64 = 1 << 30;
/// The smallest limit: with less, the linker of a large server would collect all the time.
const MIN_LIMIT_BYTES: u64 = 1 << 30;
/// The largest limit: no compiler or linker of a server allocates more in all.
const MAX_LIMIT_BYTES: u64 = 4 << 30;

/// The variables for a go command that may use `available` bytes of memory, with a compiler for each core. Empty if that is
/// little or unknown, or if `environment` has one of them.
#[must_use]
pub fn garbage_collector_variables(
    environment: &BTreeMap<String, String>,
    available: Option<u64>,
) -> Vec<(&'static str, String)> {
    variables(environment, available, thread::available_parallelism().map_or(1, usize::from))
}

fn variables(
    environment: &BTreeMap<String, String>,
    available: Option<u64>,
    processes: usize,
) -> Vec<(&'static str, String)> {
    let is_set = |name: &str| environment.get(name).is_some_and(|value| !value.is_empty());
    if is_set("GOGC") || is_set("GOMEMLIMIT") {
        return Vec::new();
    }
    // Half of the memory: a limit counts neither the stacks of C code nor mapped files.
    let share = available.unwrap_or(0) / 2 / (processes as u64);
    if share < MIN_SHARE_BYTES {
        return Vec::new();
    }
    let percent = if share < MIN_SHARE_BYTES_WITHOUT_COLLECTION { "400" } else { "off" };
    let limit = share.clamp(MIN_LIMIT_BYTES, MAX_LIMIT_BYTES);
    vec![("GOGC", percent.to_owned()), ("GOMEMLIMIT", limit.to_string())]
}

/// The bytes of memory that new processes can use: those of the machine, or of a control group that this process
/// is in. `None` where it is unknown, as on other systems than Linux.
#[must_use]
pub fn available_memory() -> Option<u64> {
    let machine = available_of_machine(&fs::read_to_string("/proc/meminfo").ok()?)?;
    let memberships = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let groups = memory_groups(Path::new("/sys/fs/cgroup"), &memberships);
    Some(groups.iter().filter_map(|group| available_of_group(group)).fold(machine, u64::min))
}

/// MemAvailable, in bytes (proc_meminfo(5)).
fn available_of_machine(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}

/// The directories of the process's control groups that can limit memory, of both versions, with their parents
/// (cgroups(7)). In a container, the innermost that exists is the root.
fn memory_groups(root: &Path, memberships: &str) -> Vec<PathBuf> {
    let mut groups = Vec::new();
    for line in memberships.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let root = match controllers {
            "" => root.to_owned(),
            _ if controllers.split(',').any(|name| name == "memory") => root.join("memory"),
            _ => continue,
        };
        let group = root.join(path.trim_start_matches('/'));
        groups.extend(group.ancestors().take_while(|parent| parent.starts_with(&root)).map(Path::to_owned));
    }
    groups
}

/// A group's limit without what is used; files in the page cache that can be dropped aren't.
fn available_of_group(group: &Path) -> Option<u64> {
    let text = |name: &str| fs::read_to_string(group.join(name)).ok();
    let number = |name: &str| text(name)?.trim().parse::<u64>().ok();
    let ((limit, used), inactive) = match number("memory.max").zip(number("memory.current")) {
        Some(version_2) => (version_2, "inactive_file "),
        None => {
            (number("memory.limit_in_bytes").zip(number("memory.usage_in_bytes"))?, "total_inactive_file ")
        }
    };
    let inactive = text("memory.stat")
        .and_then(|stat| {
            stat.lines().find_map(|line| line.strip_prefix(inactive)?.trim().parse::<u64>().ok())
        })
        .unwrap_or(0);
    Some(limit.saturating_sub(used.saturating_sub(inactive)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn a_process_gets_a_share_of_the_memory_unless_the_user_decides() {
        let text = |set: &[(&str, &str)], available, processes| {
            let set = set.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            variables(&set, available, processes)
                .into_iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect::<Vec<_>>()
                .join(" ")
        };
        let large = Some(64 * GIB);
        assert_eq!(text(&[], large, 4), "GOGC=off GOMEMLIMIT=4294967296");
        assert_eq!(text(&[], Some(8 * GIB), 4), "GOGC=off GOMEMLIMIT=1073741824");
        assert_eq!(text(&[], Some(7 * GIB), 4), "GOGC=400 GOMEMLIMIT=1073741824");
        assert_eq!(text(&[("GOGC", "")], large, 1), "GOGC=off GOMEMLIMIT=4294967296");
        for (set, available, processes) in [
            (&[][..], Some(2 * GIB), 4),
            (&[], None, 1),
            (&[("GOGC", "100")], large, 1),
            (&[("GOMEMLIMIT", "1GiB")], large, 1),
        ] {
            assert_eq!(text(set, available, processes), "", "{set:?} {available:?} {processes}");
        }
    }

    #[test]
    fn the_smallest_limit_of_the_control_groups_counts() {
        let root = tempfile::tempdir().unwrap();
        let write = |file: &str, text: &str| {
            let file = root.path().join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        };
        write("a/memory.max", "3000\n");
        write("a/memory.current", "1500\n");
        write("a/memory.stat", "anon 1\ninactive_file 500\n");
        write("a/b/memory.max", "max\n");
        write("a/b/memory.current", "1\n");
        write("memory/memory.limit_in_bytes", "5000\n");
        write("memory/memory.usage_in_bytes", "4900\n");
        write("memory/memory.stat", "inactive_file 9\ntotal_inactive_file 100\n");
        let available = |memberships: &str| -> Vec<u64> {
            let groups = memory_groups(root.path(), memberships);
            groups.iter().filter_map(|group| available_of_group(group)).collect()
        };
        assert_eq!(available("0::/a/b\n"), [2000]);
        assert_eq!(available("4:cpu,memory:/docker/of-the-host\n3:cpu:/a\n"), [200]);
        assert_eq!(available("garbage\n1:\n0::/../..\n"), [] as [u64; 0]);
        assert_eq!(available_of_machine("MemTotal: 9 kB\nMemAvailable:    2048 kB\n"), Some(2 << 20));
        assert_eq!(available_of_machine("MemAvailable: ? kB"), None);
    }
}
