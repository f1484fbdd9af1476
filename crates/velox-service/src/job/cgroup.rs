//! Control groups (<https://docs.kernel.org/admin-guide/cgroup-v2.html>): limits for all processes of a job together.
//!
//! ```text
//! OWN/               the service's, which systemd delegated to it (Delegate=yes)
//!   vx-service/      the service itself: groups have processes or groups in them
//!   vx-job-AbC123/   a job's
//! ```

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::options::JobLimits;

const SERVICE: &str = "vx-service";
const JOB: &str = "vx-job-";
/// Threads are counted too: a compiler on a large machine has many.
const PROCESSES: u32 = 4096;

/// The service's own group, below which it may make others.
pub(super) struct Cgroups(PathBuf);

/// The group of one job. Dropped, all that is still in it is killed, and it goes.
pub(super) struct Cgroup(PathBuf);

impl Cgroups {
    /// `None`: this service may make none, and limits hold for each process alone.
    pub(super) fn find() -> Option<Self> {
        let memberships = fs::read_to_string("/proc/self/cgroup").ok()?;
        Self::below(Path::new("/sys/fs/cgroup"), &memberships, std::process::id())
    }

    fn below(root: &Path, memberships: &str, process: u32) -> Option<Self> {
        let path = memberships.lines().find_map(|line| line.strip_prefix("0::/"))?;
        let here = root.join(path);
        let own = if here.ends_with(SERVICE) { here.parent()?.to_owned() } else { here };
        let has = |file: &str, what: &str| {
            fs::read_to_string(own.join(file))
                .is_ok_and(|text| text.split_whitespace().any(|word| word == what))
        };
        if !has("cgroup.controllers", "memory") || !has("cgroup.controllers", "pids") {
            return None;
        }
        if !has("cgroup.subtree_control", "memory") {
            // Where others are in the group too, it is not this service's to divide.
            let all = fs::read_to_string(own.join("cgroup.procs")).ok()?;
            let process = process.to_string();
            if all.trim() != process {
                return None;
            }
            let service = own.join(SERVICE);
            let divided = fs::create_dir_all(&service)
                .and_then(|()| fs::write(service.join("cgroup.procs"), &process))
                .and_then(|()| fs::write(own.join("cgroup.subtree_control"), "+memory +pids"));
            if let Err(error) = divided {
                tracing::debug!(%error, "no control groups for jobs");
                let _ = fs::write(own.join("cgroup.procs"), &process);
                let _ = fs::remove_dir(&service);
                return None;
            }
        }
        // What jobs of a service left that was killed.
        for entry in fs::read_dir(&own).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(JOB) {
                drop(Cgroup(entry.path()));
            }
        }
        Some(Self(own))
    }

    /// A new group with these limits; `name` is told from others' by its end.
    pub(super) fn job(&self, name: &str, limits: &JobLimits) -> io::Result<Cgroup> {
        let directory = self.0.join(format!("{JOB}{name}"));
        fs::create_dir(&directory)?;
        let group = Cgroup(directory);
        group.write("memory.max", &limits.memory.to_string())?;
        group.write("pids.max", &PROCESSES.to_string())?;
        // A kernel without swap has no such file.
        let _ = group.write("memory.swap.max", "0");
        // Half a build is worth nothing.
        let _ = group.write("memory.oom.group", "1");
        Ok(group)
    }
}

impl Cgroup {
    /// Takes in a process, and all that it starts from here on.
    pub(super) fn add(&self, process: u32) -> io::Result<()> {
        self.write("cgroup.procs", &process.to_string())
    }

    /// Whether the kernel ended a process for want of memory.
    pub(super) fn ran_out_of_memory(&self) -> bool {
        let events = fs::read_to_string(self.0.join("memory.events")).unwrap_or_default();
        let killed = events.lines().find_map(|line| line.strip_prefix("oom_kill "));
        killed.and_then(|count| count.trim().parse::<u64>().ok()).is_some_and(|count| count > 0)
    }

    fn write(&self, file: &str, text: &str) -> io::Result<()> {
        fs::write(self.0.join(file), text)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Kernels before 5.14 don't have it; the job's process group is gone by then anyway.
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

    /// As the kernel shows a group that systemd delegated: files that say what was written to them.
    fn delegated(processes: &str) -> (tempfile::TempDir, PathBuf) {
        let root = tempfile::tempdir().unwrap();
        let own = root.path().join("system.slice/vx.service");
        fs::create_dir_all(&own).unwrap();
        fs::write(own.join("cgroup.controllers"), "cpu memory pids\n").unwrap();
        fs::write(own.join("cgroup.subtree_control"), "\n").unwrap();
        fs::write(own.join("cgroup.procs"), processes).unwrap();
        (root, own)
    }

    /// A group that the kernel itself keeps, with a process in it that stands for the service.
    #[cfg(target_os = "linux")]
    struct Real {
        root: PathBuf,
        own: PathBuf,
        service: std::process::Child,
    }

    #[cfg(target_os = "linux")]
    impl Real {
        /// `None` where this machine has no such groups, or lets nobody make one.
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
    impl Drop for Real {
        fn drop(&mut self) {
            let _ = self.service.kill();
            let _ = self.service.wait();
            // A group goes once the kernel is done with its processes.
            for _ in 0..200 {
                for group in [self.own.join("vx-job-AbC"), self.own.join(SERVICE), self.own.clone()] {
                    let _ = fs::remove_dir(group);
                }
                if !self.own.exists() {
                    return;
                }
                std::thread::sleep(Duration::from_millis(50));
            }
            assert!(std::thread::panicking(), "{} stays", self.own.display());
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_kernel_ends_a_job_with_all_that_it_started() {
        use std::{
            io::Write as _,
            os::unix::process::ExitStatusExt as _,
            process::{Command, Stdio},
        };
        let Some(real) = Real::new() else {
            println!("skipped: nobody may make a control group here");
            return;
        };
        let memberships = format!("0::/{}\n", real.own.file_name().unwrap().to_string_lossy());
        let limits = JobLimits { memory: 32 << 20, ..JobLimits::default() };
        let groups = Cgroups::below(&real.root, &memberships, real.service.id());
        let job = if let Some(groups) = &groups {
            groups.job("AbC", &limits).unwrap()
        } else {
            println!("skipped in part: memory isn't counted by cgroup v2 here");
            let directory = real.own.join("vx-job-AbC");
            fs::create_dir(&directory).unwrap();
            Cgroup(directory)
        };
        let greedy = "sleep 600 & read line; head -c 300000000 /dev/zero | tail -c 300000000; wait";
        let mut greedy = Command::new("sh")
            .args(["-c", greedy])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        job.add(greedy.id()).unwrap();
        greedy.stdin.take().unwrap().write_all(b"go\n").unwrap();
        if groups.is_some() {
            assert_eq!(greedy.wait().unwrap().signal(), Some(9));
            assert!(job.ran_out_of_memory());
        }
        assert_eq!(job.0.parent(), Some(real.own.as_path()));
        drop(job);
        assert_eq!(greedy.wait().unwrap().signal(), Some(9));
    }

    const MEMBERSHIPS: &str = "1:name=systemd:/x\n0::/system.slice/vx.service\n";

    #[test]
    fn a_job_has_a_group_with_its_limits() {
        let (root, own) = delegated("42\n");
        let read = |file: &str| fs::read_to_string(own.join(file)).unwrap();
        let groups = Cgroups::below(root.path(), MEMBERSHIPS, 42).unwrap();
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
    fn a_service_that_is_divided_already_goes_on_so() {
        let (root, own) = delegated("");
        fs::write(own.join("cgroup.subtree_control"), "memory pids\n").unwrap();
        fs::create_dir(own.join("vx-job-left")).unwrap();
        let memberships = format!("{}/vx-service\n", MEMBERSHIPS.trim());
        assert!(Cgroups::below(root.path(), &memberships, 42).is_some());
        // A real group has no files of its own and would be gone.
        assert_eq!(fs::read_to_string(own.join("vx-job-left/cgroup.kill")).unwrap(), "1");
    }

    #[test]
    fn a_group_that_is_not_the_services_alone_stays_as_it_is() {
        let (root, own) = delegated("42\n43\n");
        assert!(Cgroups::below(root.path(), MEMBERSHIPS, 42).is_none());
        assert!(!own.join("vx-service").exists());
        fs::write(own.join("cgroup.controllers"), "cpu\n").unwrap();
        fs::write(own.join("cgroup.procs"), "42\n").unwrap();
        assert!(Cgroups::below(root.path(), MEMBERSHIPS, 42).is_none());
        assert!(Cgroups::below(root.path(), "4:memory:/x\n", 42).is_none());
    }
}
