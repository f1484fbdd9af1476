use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result, bail};

/// The hardware and software of a benchmark run.
#[derive(Debug)]
pub(crate) struct MachineInfo {
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) memory: String,
    pub(crate) os: String,
    pub(crate) go: String,
    pub(crate) date: String,
    /// The load average of the minute before the first run.
    pub(crate) load: String,
    pub(crate) velox: String,
    pub(crate) vx: String,
}

impl MachineInfo {
    pub(crate) fn read(velox: &Path, vx: &Path) -> Result<Self> {
        let unknown = || "unknown".to_owned();
        let kernel = first_line("/proc/sys/kernel/osrelease");
        let system =
            value("/etc/os-release", "PRETTY_NAME", '=').unwrap_or_else(|| std::env::consts::OS.to_owned());
        let memory = value("/proc/meminfo", "MemTotal", ':');
        let memory = memory.and_then(|text| text.split(' ').next()?.parse::<f64>().ok());
        Ok(Self {
            cpu: value("/proc/cpuinfo", "model name", ':').unwrap_or_else(unknown),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory: memory.map_or_else(unknown, |kib| format!("{:.1} GiB", kib / f64::from(1 << 20))),
            os: kernel.map_or(system.clone(), |kernel| format!("{system}, kernel {kernel}")),
            go: stdout_of("go".as_ref(), &["version"])?.trim_start_matches("go version ").to_owned(),
            date: jiff::Timestamp::now().strftime("%F").to_string(),
            load: first_line("/proc/loadavg")
                .and_then(|line| line.split(' ').next().map(str::to_owned))
                .unwrap_or_else(unknown),
            velox: stdout_of(velox, &["--version"])?,
            vx: stdout_of(vx, &["version"])?,
        })
    }

    /// A Markdown list.
    pub(crate) fn markdown(&self) -> String {
        let Self { cpu, cores, memory, os, go, date, load, velox, vx } = self;
        format!(
            "- CPU: {cpu}, {cores} cores\n- memory: {memory}\n- system: {os}\n- Go: {go}\n- date: {date}, load before the first \
             run: {load}\n- Velox: {velox}\n- vx: {vx}\n"
        )
    }
}

/// The standard output of a program, in one line.
pub(crate) fn stdout_of(program: &Path, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .with_context(|| format!("failed to start {}", program.display()))?;
    if !output.status.success() {
        bail!("{} {}: {}", program.display(), arguments.join(" "), output.status);
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().replace('\n', " "))
}

fn first_line(file: &str) -> Option<String> {
    fs::read_to_string(file).ok()?.lines().next().map(str::to_owned)
}

fn value(file: &str, name: &str, separator: char) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let mut pairs = text.lines().filter_map(|line| line.split_once(separator));
    pairs.find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim().trim_matches('"').to_owned())
}
