use std::{
    fs::{self, File},
    process::Stdio,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use wait4::Wait4;

use crate::{
    proxy::{BenchProxy, Traffic},
    sandbox::Sandbox,
};

/// How often a process's memory is polled. The kernel's high-water mark is read, so only the growth of the
/// last interval is missed.
const MEMORY_POLL_INTERVAL: Duration = Duration::from_millis(5);

/// The measurements of one run of a program.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Measurement {
    pub(crate) seconds: f64,
    /// CPU time of all processes, in seconds.
    pub(crate) cpu_seconds: f64,
    /// Peak resident memory of the program's own process, in bytes: VmHWM of /proc/PID/status, polled.
    pub(crate) own_memory: u64,
    /// The largest peak of the program and of all its waited-for children, in bytes: ru_maxrss of wait4.
    pub(crate) largest_memory: u64,
    pub(crate) traffic: Traffic,
}

impl Measurement {
    /// Combines two consecutive runs.
    pub(crate) fn and(self, next: Self) -> Self {
        let (a, b) = (self.traffic, next.traffic);
        Self {
            seconds: self.seconds + next.seconds,
            cpu_seconds: self.cpu_seconds + next.cpu_seconds,
            own_memory: self.own_memory.max(next.own_memory),
            largest_memory: self.largest_memory.max(next.largest_memory),
            traffic: Traffic {
                requests: a.requests + b.requests,
                zips: a.zips + b.zips,
                bytes: a.bytes + b.bytes,
                upstream: a.upstream + b.upstream,
            },
        }
    }
}

/// Runs a command of the sandbox, which must succeed, and logs its output in the sandbox.
pub(crate) fn measure(
    sandbox: &Sandbox,
    proxy: &BenchProxy,
    mut command: std::process::Command,
) -> Result<Measurement> {
    let program = command.get_program().to_string_lossy().into_owned();
    let log = File::create(sandbox.log()).context("failed to create the log")?;
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    // Pending writes of the previous run must not be measured.
    rustix::fs::sync();
    proxy.take();
    let since = Instant::now();
    let child = command.spawn().with_context(|| format!("failed to start {program}"))?;
    let status = format!("/proc/{}/status", child.id());
    let (ended, peak) = (AtomicBool::new(false), AtomicU64::new(0));
    let (usage, elapsed) = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) {
                let mark = fs::read_to_string(&status).ok().and_then(|text| high_water_mark(&text));
                peak.fetch_max(mark.unwrap_or(0), Ordering::Relaxed);
                std::thread::sleep(MEMORY_POLL_INTERVAL);
            }
        });
        let usage = child.wait4();
        let elapsed = since.elapsed();
        ended.store(true, Ordering::Relaxed);
        (usage, elapsed)
    });
    let usage = usage.with_context(|| format!("failed to wait for {program}"))?;
    if !usage.status.success() {
        bail!("{program}: {}\n{}", usage.status, tail(sandbox));
    }
    Ok(Measurement {
        seconds: elapsed.as_secs_f64(),
        cpu_seconds: (usage.rusage.utime + usage.rusage.stime).as_secs_f64(),
        own_memory: peak.into_inner(),
        largest_memory: usage.rusage.maxrss,
        traffic: proxy.take(),
    })
}

fn high_water_mark(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kib| kib << 10)
}

fn tail(sandbox: &Sandbox) -> String {
    let text = fs::read(sandbox.log()).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(30)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_mark_is_read() {
        assert_eq!(high_water_mark("Name:\trr\nVmPeak:\t  9 kB\nVmHWM:\t    12 kB\n"), Some(12 << 10));
        assert_eq!(high_water_mark("Name:\tkthreadd\n"), None);
    }
}
