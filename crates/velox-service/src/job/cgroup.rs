//! Control groups, which limit all processes of a job together
//! (<https://docs.kernel.org/admin-guide/cgroup-v2.html>).
//!
//! ```text
//! OWN/               delegated to the service by systemd (Delegate=yes)
//!   vx-service/      the service itself: a group contains either processes or groups
//!   vx-job-AbC123/   a job
//! ```

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::options::JobLimits;

const SERVICE_GROUP: &str = "vx-service";
const JOB_PREFIX: &str = "vx-job-";
/// Includes threads.
const MAX_PROCESSES: u32 = 4096;

/// The service's own group, the parent of the groups of jobs.
pub(super) struct ServiceCgroup(PathBuf);

/// The group of a job. Dropping it kills its processes and removes it.
pub(super) struct JobCgroup(PathBuf);

impl ServiceCgroup {
    /// Sets up the service's group. `None` if it may not create groups; limits then apply to each process.
    pub(super) fn find() -> Option<Self> {
        let memberships = fs::read_to_string("/proc/self/cgroup").ok()?;
        Self::below(Path::new("/sys/fs/cgroup"), &memberships, std::process::id())
    }

    fn below(root: &Path, memberships: &str, process: u32) -> Option<Self> {
        let path = memberships.lines().find_map(|line| line.strip_prefix("0::/"))?;
        let current = root.join(path);
        let own = if current.ends_with(SERVICE_GROUP) { current.parent()?.to_owned() } else { current };
        let has = |file: &str, name: &str| {
            fs::read_to_string(own.join(file))
                .is_ok_and(|text| text.split_whitespace().any(|word| word == name))
        };
        if !has("cgroup.controllers", "memory") || !has("cgroup.controllers", "pids") {
            return None;
        }
        if !has("cgroup.subtree_control", "memory") {
            // A group with other processes is not delegated to the service.
            let all = fs::read_to_string(own.join("cgroup.procs")).ok()?;
            let process = process.to_string();
            if all.trim() != process {
                return None;
            }
            let service = own.join(SERVICE_GROUP);
            let setup = fs::create_dir_all(&service)
                .and_then(|()| fs::write(service.join("cgroup.procs"), &process))
                .and_then(|()| fs::write(own.join("cgroup.subtree_control"), "+memory +pids"));
            if let Err(error) = setup {
                tracing::debug!(%error, "failed to set up control groups");
                let _ = fs::write(own.join("cgroup.procs"), &process);
                let _ = fs::remove_dir(&service);
                return None;
            }
        }
        // Left over from a killed service.
        for entry in fs::read_dir(&own).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(JOB_PREFIX) {
                drop(JobCgroup(entry.path()));
            }
        }
        Some(Self(own))
    }

    pub(super) fn job(&self, name: &str, limits: &JobLimits) -> io::Result<JobCgroup> {
        let directory = self.0.join(format!("{JOB_PREFIX}{name}"));
        fs::create_dir(&directory)?;
        let group = JobCgroup(directory);
        group.write("memory.max", &limits.memory.to_string())?;
        group.write("pids.max", &MAX_PROCESSES.to_string())?;
        // Missing on kernels without swap.
        let _ = group.write("memory.swap.max", "0");
        // Kills the whole job instead of one process.
        let _ = group.write("memory.oom.group", "1");
        Ok(group)
    }
}

impl JobCgroup {
    /// Adds a process; its future children inherit the group.
    pub(super) fn add(&self, process: u32) -> io::Result<()> {
        self.write("cgroup.procs", &process.to_string())
    }

    /// Whether the kernel killed a process for exceeding the memory limit.
    pub(super) fn ran_out_of_memory(&self) -> bool {
        let events = fs::read_to_string(self.0.join("memory.events")).unwrap_or_default();
        let killed = events.lines().find_map(|line| line.strip_prefix("oom_kill "));
        killed.and_then(|count| count.trim().parse::<u64>().ok()).is_some_and(|count| count > 0)
    }

    fn write(&self, file: &str, text: &str) -> io::Result<()> {
        fs::write(self.0.join(file), text)
    }
}

impl Drop for JobCgroup {
    fn drop(&mut self) {
        // Missing on kernels before 5.14; the job's process group was killed already.
        let _ = self.write("cgroup.kill", "1");
        for _ in 0..20 {
            match fs::remove_dir(&self.0) {
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                _ => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Creates a directory that imitates a delegated group.
    fn delegated(processes: &str) -> (tempfile::TempDir, PathBuf) {
        let root = tempfile::tempdir().unwrap();
        let own = root.path().join("system.slice/vx.service");
        fs::create_dir_all(&own).unwrap();
        fs::write(own.join("cgroup.controllers"), "cpu memory pids\n").unwrap();
        fs::write(own.join("cgroup.subtree_control"), "\n").unwrap();
        fs::write(own.join("cgroup.procs"), processes).unwrap();
        (root, own)
    }

    /// A real group, with a stand-in for the service process.
    #[cfg(target_os = "linux")]
    struct RealCgroup {
        root: PathBuf,
        own: PathBuf,
        service: std::process::Child,
    }

    #[cfg(target_os = "linux")]
    impl RealCgroup {
        /// `None` if this machine does not allow it.
        fn new() -> Option<Self> {
            let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
            let mut mounts = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
            let root = PathBuf::from(mounts.find(|fields| fields.get(2) == Some(&"cgroup2"))?[1]);
            let own = root.join(format!("vx-test-{}", std::process::id()));
            fs::create_dir(&own).ok()?;
            let service = std::process::Command::new("sleep").arg("600").spawn().unwrap();
            let real = Self { root, own, service };
            fs::write(real.own.join("cgroup.procs"), real.service.id().to_string()).ok()?;
            Some(real)
        }
    }

    #[cfg(target_os = "linux")]
    impl Drop for RealCgroup {
        fn drop(&mut self) {
            let _ = self.service.kill();
            let _ = self.service.wait();
            // A group can be removed once its processes are reaped.
            for _ in 0..200 {
                for group in [self.own.join("vx-job-AbC"), self.own.join(SERVICE_GROUP), self.own.clone()] {
                    let _ = fs::remove_dir(group);
                }
                if !self.own.exists() {
                    return;
                }
                std::thread::sleep(Duration::from_millis(50));
            }
            assert!(std::thread::panicking(), "{} was not removed", self.own.display());
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_kernel_kills_all_processes_of_a_job() {
        use std::{
            io::Write as _,
            os::unix::process::ExitStatusExt as _,
            process::{Command, Stdio},
        };
        let Some(real) = RealCgroup::new() else {
            println!("skipped: control groups can't be created here");
            return;
        };
        let memberships = format!("0::/{}\n", real.own.file_name().unwrap().to_string_lossy());
        let limits = JobLimits { memory: 32 << 20, ..JobLimits::default() };
        let groups = ServiceCgroup::below(&real.root, &memberships, real.service.id());
        let job = if let Some(groups) = &groups {
            groups.job("AbC", &limits).unwrap()
        } else {
            println!("skipped in part: no memory controller of cgroup v2 here");
            let directory = real.own.join("vx-job-AbC");
            fs::create_dir(&directory).unwrap();
            JobCgroup(directory)
        };
        let script = "sleep 600 & read line; head -c 300000000 /dev/zero | tail -c 300000000; wait";
        let mut child = Command::new("sh")
            .args(["-c", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        job.add(child.id()).unwrap();
        child.stdin.take().unwrap().write_all(b"go\n").unwrap();
        if groups.is_some() {
            assert_eq!(child.wait().unwrap().signal(), Some(9));
            assert!(job.ran_out_of_memory());
        }
        assert_eq!(job.0.parent(), Some(real.own.as_path()));
        drop(job);
        assert_eq!(child.wait().unwrap().signal(), Some(9));
    }

    const MEMBERSHIPS: &str = "1:name=systemd:/x\n0::/system.slice/vx.service\n";

    #[test]
    fn a_group_has_the_limits_of_its_job() {
        let (root, own) = delegated("42\n");
        let read = |file: &str| fs::read_to_string(own.join(file)).unwrap();
        let groups = ServiceCgroup::below(root.path(), MEMBERSHIPS, 42).unwrap();
        assert_eq!(read("vx-service/cgroup.procs"), "42");
        assert_eq!(read("cgroup.subtree_control"), "+memory +pids");
        let limits = JobLimits { memory: 1 << 30, ..JobLimits::default() };
        let job = groups.job("AbC", &limits).unwrap();
        job.add(77).unwrap();
        for (file, text) in [
            ("memory.max", "1073741824"),
            ("memory.swap.max", "0"),
            ("memory.oom.group", "1"),
            ("pids.max", "4096"),
            ("cgroup.procs", "77"),
        ] {
            assert_eq!(read(&format!("vx-job-AbC/{file}")), text);
        }
        assert!(!job.ran_out_of_memory());
        fs::write(own.join("vx-job-AbC/memory.events"), "low 0\noom 2\noom_kill 1\noom_group_kill 1\n")
            .unwrap();
        assert!(job.ran_out_of_memory());
        drop(job);
        assert_eq!(read("vx-job-AbC/cgroup.kill"), "1");
    }

    #[test]
    fn an_existing_setup_is_reused() {
        let (root, own) = delegated("");
        fs::write(own.join("cgroup.subtree_control"), "memory pids\n").unwrap();
        fs::create_dir(own.join("vx-job-left")).unwrap();
        let memberships = format!("{}/vx-service\n", MEMBERSHIPS.trim());
        assert!(ServiceCgroup::below(root.path(), &memberships, 42).is_some());
        // Unlike a real group, the directory still exists.
        assert_eq!(fs::read_to_string(own.join("vx-job-left/cgroup.kill")).unwrap(), "1");
    }

    #[test]
    fn shared_groups_are_not_changed() {
        let (root, own) = delegated("42\n43\n");
        assert!(ServiceCgroup::below(root.path(), MEMBERSHIPS, 42).is_none());
        assert!(!own.join("vx-service").exists());
        fs::write(own.join("cgroup.controllers"), "cpu\n").unwrap();
        fs::write(own.join("cgroup.procs"), "42\n").unwrap();
        assert!(ServiceCgroup::below(root.path(), MEMBERSHIPS, 42).is_none());
        assert!(ServiceCgroup::below(root.path(), "4:memory:/x\n", 42).is_none());
    }
}
