use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use velox_testkit::TestRegistry;

use crate::{
    configuration::{BenchConfig, BenchPlugins, RELEASE, ROADRUNNER},
    measure::{Measurement, measure},
    proxy::BenchProxy,
    sandbox::Sandbox,
    table::{Bar, MeasuredPairs, Row, ScenarioOutcome, Unit, megabytes},
};

/// Runs of vx in `unchanged`; Velox takes too long for as many.
const UNCHANGED_RUNS: usize = 20;
/// Minimum of pairs in `own-time`, whose runs are short and vary more.
const MIN_OWN_TIME_RUNS: usize = 5;
/// Attempts of a run until one doesn't use the network.
const MAX_ATTEMPTS: usize = 4;

const TARGETS: [(&str, &str); 3] = [("linux", "amd64"), ("linux", "arm64"), ("darwin", "arm64")];

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Scenario {
    /// Everything is empty
    Cold,
    /// Everything is empty but a remote cache of compiled packages, and a velox.lock
    Remote,
    /// Everything is empty but a remote cache with the finished binary, and its velox.lock
    RemoteArtifact,
    /// Everything is empty, without a velox.lock; a registry on localhost has the packages of the release
    PublicCache,
    /// Ten plugins without a network, after `packaging/Dockerfile.roadrunner`'s commands for the release
    Image,
    /// One more plugin than in the previous build
    PluginAdded,
    /// The same build again
    Unchanged,
    /// Five plugins for three platforms, everything empty
    ThreeTargets,
    /// Zips that the cold builds downloaded
    Zips,
    /// Time that vx adds to the go command when only the stamp changed
    OwnTime,
    /// The memory of vx's own process
    Memory,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tool {
    Velox,
    Vx,
}

pub(crate) struct Bench {
    pub(crate) velox: PathBuf,
    pub(crate) vx: PathBuf,
    pub(crate) proxy: BenchProxy,
    /// The parent directory of the sandboxes.
    pub(crate) directory: PathBuf,
    pub(crate) set: BenchPlugins,
    pub(crate) rounds: usize,
    /// The output of `vx build --help`.
    pub(crate) help: String,
    pub(crate) seen: BTreeMap<Scenario, MeasuredPairs>,
    /// Sandboxes with a complete build, after the warm-up.
    pub(crate) warm: Option<(Sandbox, Sandbox)>,
}

impl Scenario {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Cold => "cold",
            Self::Remote => "remote",
            Self::RemoteArtifact => "remote-artifact",
            Self::PublicCache => "public-cache",
            Self::Image => "image",
            Self::PluginAdded => "plugin-added",
            Self::Unchanged => "unchanged",
            Self::ThreeTargets => "three-targets",
            Self::Zips => "zips",
            Self::OwnTime => "own-time",
            Self::Memory => "memory",
        }
    }
}

impl Bench {
    /// Runs a scenario, reusing the measurements of earlier ones.
    pub(crate) fn run(&mut self, scenario: Scenario) -> ScenarioOutcome {
        let result = match scenario {
            Scenario::Cold => self.cold().map(|pairs| seconds("cold", &pairs, Bar::Ratio(0.60))),
            Scenario::Remote if !self.knows("--remote-cache") => return missing("--remote-cache"),
            Scenario::Remote => self.remote().map(|pairs| seconds("remote", &pairs, Bar::Ratio(0.12))),
            Scenario::RemoteArtifact if !self.knows("--remote-cache") => return missing("--remote-cache"),
            Scenario::RemoteArtifact => self.remote_artifact().map(|pairs| {
                let mut rows = seconds("remote-artifact", &pairs, Bar::Ratio(0.02));
                rows.push(alone("remote-artifact, vx alone", &pairs, 2_000.0));
                rows
            }),
            Scenario::PublicCache if !self.knows("oci") => return missing("--remote-cache oci://"),
            Scenario::PublicCache => {
                self.public_cache().map(|pairs| seconds("public-cache", &pairs, Bar::Ratio(0.20)))
            }
            Scenario::Image => self.image().map(|pairs| vec![alone("image, ten plugins", &pairs, 10_000.0)]),
            Scenario::PluginAdded => {
                self.plugin_added().map(|pairs| seconds("plugin-added", &pairs, Bar::Ratio(0.80)))
            }
            Scenario::Unchanged => self.unchanged().map(|pairs| {
                let mut rows = seconds("unchanged", &pairs, Bar::Ratio(0.01));
                rows.push(alone("unchanged, vx alone", &pairs, 10.0));
                rows
            }),
            Scenario::ThreeTargets if !self.knows("--target") => return missing("--target"),
            Scenario::ThreeTargets => {
                self.three_targets().map(|pairs| seconds("three-targets", &pairs, Bar::Ratio(0.72)))
            }
            Scenario::Zips => self.cold().map(|pairs| {
                let zips = |runs: &[Measurement]| runs.iter().map(|run| run.traffic.zips as f64).collect();
                let (other, vx) = (zips(&pairs.velox), zips(&pairs.vx));
                vec![Row { name: "zips".to_owned(), unit: Unit::Zips, other, vx, bar: Bar::Ratio(0.70) }]
            }),
            Scenario::OwnTime => {
                match ["--stamp-version", "--keep-workspace"].into_iter().find(|flag| !self.knows(flag)) {
                    Some(flag) => return missing(flag),
                    None => self.own_time().map(|row| vec![row]),
                }
            }
            Scenario::Memory => self.memory(),
        };
        match result {
            Ok(rows) => ScenarioOutcome::Measured(rows),
            Err(error) => ScenarioOutcome::Failed(format!("{error:#}")),
        }
    }

    fn knows(&self, flag: &str) -> bool {
        self.help.split(|c: char| !c.is_alphanumeric() && c != '-').any(|word| word == flag)
    }

    fn cold(&mut self) -> Result<MeasuredPairs> {
        self.once(Scenario::Cold, |bench| {
            bench.warm_up()?;
            let configuration = BenchConfig::new(bench.set)?;
            bench.alternate("cold", bench.rounds, bench.rounds, |tool| {
                let sandbox = bench.sandbox("cold")?;
                bench.configure(tool, &sandbox, configuration.clone())?;
                bench.build(tool, &sandbox, &[])
            })
        })
    }

    fn remote(&mut self) -> Result<MeasuredPairs> {
        // Not the finished binary.
        self.once(Scenario::Remote, |bench| bench.with_remote("remote", &["--no-cache"]))
    }

    fn remote_artifact(&mut self) -> Result<MeasuredPairs> {
        self.once(Scenario::RemoteArtifact, |bench| bench.with_remote("remote-artifact", &[]))
    }

    /// Empty machines that have the lock of a build that filled a shared directory.
    fn with_remote(&mut self, name: &str, flags: &[&str]) -> Result<MeasuredPairs> {
        self.warm_up()?;
        let configuration = BenchConfig::new(self.set)?;
        let folder = self.directory.join(name);
        let cache = folder.to_string_lossy().into_owned();
        fs::create_dir_all(&folder)?;
        let lock = {
            let sandbox = self.sandbox("fill")?;
            self.configure(Tool::Vx, &sandbox, configuration.clone())?;
            let run = self.build(Tool::Vx, &sandbox, &["--remote-cache", &cache])?;
            report(name, "filling", Tool::Vx, &run);
            fs::read_to_string(sandbox.work().join("velox.lock")).ok()
        };
        self.beside_cold(name, |bench| {
            let sandbox = bench.sandbox("cold")?;
            bench.configure(Tool::Vx, &sandbox, configuration.clone())?;
            if let Some(lock) = &lock {
                sandbox.write("velox.lock", lock)?;
            }
            bench.build(Tool::Vx, &sandbox, &[&["--remote-cache", &cache], flags].concat())
        })
    }

    /// Runs of vx, compared with the cold runs of Velox, which has no such caches.
    fn beside_cold(
        &mut self,
        name: &str,
        mut run: impl FnMut(&Self) -> Result<Measurement>,
    ) -> Result<MeasuredPairs> {
        let velox = self.cold()?.velox;
        let vx = self.alternate(name, 0, self.rounds, |_| run(self))?.vx;
        Ok(MeasuredPairs { velox, vx })
    }

    fn public_cache(&mut self) -> Result<MeasuredPairs> {
        self.once(Scenario::PublicCache, |bench| {
            bench.warm_up()?;
            let configuration = BenchConfig::new(bench.set)?;
            let registry = TestRegistry::start();
            let location = format!("oci://{}/velox/cache:{RELEASE}", registry.host());
            let pinned = {
                let sandbox = bench.sandbox("fill")?;
                let arguments = ["cache", "publish", "--for", RELEASE, &location];
                let output = sandbox.command(&bench.vx, &arguments).output()?;
                let said = String::from_utf8_lossy(&output.stderr);
                ensure!(output.status.success(), "vx cache publish failed:\n{said}");
                String::from_utf8(output.stdout)?.trim().to_owned()
            };
            bench.beside_cold("public-cache", |bench| {
                let sandbox = bench.sandbox("cold")?;
                bench.configure(Tool::Vx, &sandbox, configuration.clone())?;
                registry.clear_requests();
                let mut run = bench.build(Tool::Vx, &sandbox, &["--remote-cache", &pinned])?;
                run.traffic.requests += registry.requests().len() as u64;
                run.traffic.bytes += registry.sent_bytes();
                Ok(run)
            })
        })
    }

    fn image(&mut self) -> Result<MeasuredPairs> {
        self.once(Scenario::Image, |bench| {
            bench.warm_up()?;
            let sandbox = bench.sandbox("image")?;
            for arguments in [
                &["init", "--roadrunner", RELEASE, "--default", "-c", "velox.toml"][..],
                &["build", "-c", "velox.toml", "-o", "out"],
                &["graph", "-c", "velox.toml"],
                &["cache", "clear"],
            ] {
                let output = sandbox.command(&bench.vx, arguments).output()?;
                ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            }
            fs::remove_dir_all(sandbox.work())?;
            fs::create_dir(sandbox.work())?;
            sandbox.keep()?;
            let configuration = BenchConfig::new(BenchPlugins::All)?.first(10)?;
            bench.alternate("image", 0, bench.rounds, |_| {
                sandbox.restore()?;
                bench.configure(Tool::Vx, &sandbox, configuration.clone())?;
                let mut command = sandbox.command(&bench.vx, &["build", "-c", "velox.toml", "-o", "out"]);
                command.env("GOPROXY", "off");
                let run = measure(&sandbox, &bench.proxy, command)?;
                check(&sandbox, 1)?;
                Ok(run)
            })
        })
    }

    fn plugin_added(&mut self) -> Result<MeasuredPairs> {
        self.once(Scenario::PluginAdded, |bench| {
            let all = BenchConfig::new(bench.set)?;
            let sandboxes = (bench.sandbox("before-velox")?, bench.sandbox("before-vx")?);
            for (tool, sandbox) in [(Tool::Velox, &sandboxes.0), (Tool::Vx, &sandboxes.1)] {
                bench.configure(tool, sandbox, all.clone().without(bench.set.last())?)?;
                report("plugin-added", "previous build", tool, &bench.build(tool, sandbox, &[])?);
                sandbox.keep()?;
            }
            bench.alternate("plugin-added", bench.rounds, bench.rounds, |tool| {
                let sandbox = if tool == Tool::Velox { &sandboxes.0 } else { &sandboxes.1 };
                sandbox.restore()?;
                bench.configure(tool, sandbox, all.clone())?;
                bench.build(tool, sandbox, &[])
            })
        })
    }

    fn unchanged(&mut self) -> Result<MeasuredPairs> {
        self.once(Scenario::Unchanged, |bench| {
            bench.warm_up()?;
            let (velox, vx) = bench.warm()?;
            bench.alternate("unchanged", bench.rounds, UNCHANGED_RUNS.max(bench.rounds), |tool| {
                bench.build(tool, if tool == Tool::Velox { velox } else { vx }, &[])
            })
        })
    }

    fn three_targets(&mut self) -> Result<MeasuredPairs> {
        self.once(Scenario::ThreeTargets, |bench| {
            // clap parses from left to right: a repeated flag that is allowed only once fails before
            // `--help`.
            let twice = Command::new(&bench.vx)
                .args(["build", "--target", "linux/amd64", "--target", "linux/arm64", "--help"])
                .output()?;
            let at_once = twice.status.success();
            if !at_once {
                eprintln!("three-targets: this vx accepts one --target: it runs once for each");
            }
            let configuration = BenchConfig::new(BenchPlugins::Small)?;
            bench.alternate("three-targets", bench.rounds, bench.rounds, |tool| {
                let sandbox = bench.sandbox("cold")?;
                bench.configure(tool, &sandbox, configuration.clone())?;
                let targets = TARGETS.map(|(os, arch)| format!("{os}/{arch}"));
                let run = if tool == Tool::Vx && at_once {
                    let flags: Vec<&str> = targets.iter().flat_map(|target| ["--target", target]).collect();
                    bench.invoke(tool, &sandbox, "velox.toml", "out", &flags)?
                } else {
                    let mut total = Measurement::default();
                    for ((os, arch), target) in TARGETS.iter().zip(&targets) {
                        let out = format!("out/{os}-{arch}");
                        total = total.and(if tool == Tool::Vx {
                            bench.invoke(tool, &sandbox, "velox.toml", &out, &["--target", target])?
                        } else {
                            let (name, own) =
                                (format!("{os}-{arch}.toml"), configuration.clone().target(os, arch));
                            sandbox.write(&name, &own.with_forge(&bench.proxy.base_url()).text())?;
                            bench.invoke(tool, &sandbox, &name, &out, &[])?
                        });
                    }
                    total
                };
                check(&sandbox, TARGETS.len())?;
                Ok(run)
            })
        })
    }

    /// vx compared with the go command on the same tree; both only link, since the stamp differs each time.
    fn own_time(&mut self) -> Result<Row> {
        self.warm_up()?;
        let (_, sandbox) = self.warm()?;
        self.invoke(
            Tool::Vx,
            sandbox,
            "velox.toml",
            "out",
            &["--stamp-version", "0.0.0-kept", "--keep-workspace", "--format", "json"],
        )?;
        let workspace = kept_workspace(&fs::read_to_string(sandbox.log())?)?;
        let bare = |number: usize| -> Result<Measurement> {
            let linker = format!("-ldflags=-s -X {ROADRUNNER}/internal/meta.version=0.0.0-go{number}");
            let out = sandbox.work().join("bare");
            let out = out.to_string_lossy();
            let mut command = sandbox.command(
                Path::new("go"),
                &[
                    "build",
                    "-mod=readonly",
                    "-trimpath",
                    "-buildvcs=false",
                    // The flags of vx, so that both linkers do the same work.
                    "-gcflags=all=-dwarf=false",
                    &linker,
                    "-o",
                    &out,
                    "./cmd/rr",
                ],
            );
            command.current_dir(&workspace).env("GOWORK", "off").env("CGO_ENABLED", "0");
            measure(sandbox, &self.proxy, command)
        };
        let ours = |number: usize| {
            let stamp = format!("0.0.0-vx{number}");
            self.build(Tool::Vx, sandbox, &["--stamp-version", &stamp])
        };
        // The first run of each may recompile because of the other's flags.
        bare(0)?;
        ours(0)?;
        let (mut other, mut vx) = (Vec::new(), Vec::new());
        for number in 1..=MIN_OWN_TIME_RUNS.max(self.rounds) {
            other.push(bare(number)?.seconds * 1e3);
            vx.push(ours(number)?.seconds * 1e3);
        }
        let name = "own-time (compared with go build)".to_owned();
        Ok(Row { name, unit: Unit::Milliseconds, other, vx, bar: Bar::Difference(150.0) })
    }

    fn memory(&mut self) -> Result<Vec<Row>> {
        let rows = [("memory, cold", self.cold()?), ("memory, unchanged", self.unchanged()?)];
        Ok(rows
            .map(|(name, pairs)| {
                let own = |runs: &[Measurement]| runs.iter().map(|run| megabytes(run.own_memory)).collect();
                let (other, vx) = (own(&pairs.velox), own(&pairs.vx));
                Row { name: name.to_owned(), unit: Unit::Megabytes, other, vx, bar: Bar::Most(80.0) }
            })
            .into())
    }

    fn once(
        &mut self,
        scenario: Scenario,
        measure: impl FnOnce(&mut Self) -> Result<MeasuredPairs>,
    ) -> Result<MeasuredPairs> {
        if let Some(seen) = self.seen.get(&scenario) {
            return Ok(seen.clone());
        }
        let pairs = measure(self)?;
        self.seen.insert(scenario, pairs.clone());
        Ok(pairs)
    }

    /// An unmeasured build with each tool, which fills the proxy's store and the caches of two sandboxes.
    fn warm_up(&mut self) -> Result<()> {
        if self.warm.is_some() {
            return Ok(());
        }
        let configuration = BenchConfig::new(self.set)?;
        let sandboxes = (self.sandbox("warm-velox")?, self.sandbox("warm-vx")?);
        for (tool, sandbox) in [(Tool::Velox, &sandboxes.0), (Tool::Vx, &sandboxes.1)] {
            self.configure(tool, sandbox, configuration.clone())?;
            report("warm-up", "first build", tool, &self.build(tool, sandbox, &[])?);
        }
        self.warm = Some(sandboxes);
        Ok(())
    }

    fn warm(&self) -> Result<(&Sandbox, &Sandbox)> {
        self.warm.as_ref().map(|(velox, vx)| (velox, vx)).context("the warm-up is missing")
    }

    /// velox, vx, velox, vx, …, until each has its number of runs.
    fn alternate(
        &self,
        name: &str,
        velox: usize,
        vx: usize,
        mut run: impl FnMut(Tool) -> Result<Measurement>,
    ) -> Result<MeasuredPairs> {
        let mut pairs = MeasuredPairs::default();
        for round in 1..=velox.max(vx) {
            for (tool, rounds, runs) in
                [(Tool::Velox, velox, &mut pairs.velox), (Tool::Vx, vx, &mut pairs.vx)]
            {
                if round > rounds {
                    continue;
                }
                let mut attempts = 0..MAX_ATTEMPTS;
                let done = loop {
                    ensure!(
                        attempts.next().is_some(),
                        "the network was used in {MAX_ATTEMPTS} attempts: the run can't be measured"
                    );
                    let done = run(tool).with_context(|| format!("{name}, round {round}"))?;
                    if done.traffic.upstream == 0 {
                        break done;
                    }
                    report(name, "repeated: it used the network", tool, &done);
                };
                report(name, &format!("{round}/{rounds}"), tool, &done);
                runs.push(done);
            }
        }
        Ok(pairs)
    }

    fn sandbox(&self, name: &str) -> Result<Sandbox> {
        Sandbox::fresh(self.directory.join(name), &self.proxy)
    }

    fn configure(&self, tool: Tool, sandbox: &Sandbox, configuration: BenchConfig) -> Result<()> {
        let configuration = match tool {
            Tool::Velox => configuration.with_forge(&self.proxy.base_url()),
            Tool::Vx => configuration,
        };
        sandbox.write("velox.toml", &configuration.text())
    }

    fn build(&self, tool: Tool, sandbox: &Sandbox, flags: &[&str]) -> Result<Measurement> {
        let run = self.invoke(tool, sandbox, "velox.toml", "out", flags)?;
        check(sandbox, 1)?;
        Ok(run)
    }

    fn invoke(
        &self,
        tool: Tool,
        sandbox: &Sandbox,
        configuration: &str,
        out: &str,
        flags: &[&str],
    ) -> Result<Measurement> {
        let program = if tool == Tool::Velox { &self.velox } else { &self.vx };
        // Velox doesn't create it.
        fs::create_dir_all(sandbox.work().join(out))?;
        let arguments = [&["build", "-c", configuration, "-o", out], flags].concat();
        measure(sandbox, &self.proxy, sandbox.command(program, &arguments))
    }
}

/// Checks that the binaries exist, and that the one for this machine runs.
fn check(sandbox: &Sandbox, count: usize) -> Result<()> {
    let mut binaries = Vec::new();
    let mut directories = vec![sandbox.work().join("out")];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                directories.push(entry.path());
            } else if entry.file_name().to_string_lossy().starts_with("rr") {
                binaries.push(entry.path());
            }
        }
    }
    ensure!(
        binaries.len() == count,
        "{} binaries where {count} were asked for: {binaries:?}",
        binaries.len()
    );
    let runs = |binary: &PathBuf| {
        let output = sandbox.command(binary, &["--version"]).output();
        output.is_ok_and(|output| output.status.success())
    };
    ensure!(binaries.iter().any(runs), "`rr --version` fails: {binaries:?}");
    Ok(())
}

fn kept_workspace(events: &str) -> Result<PathBuf> {
    for line in events.lines() {
        let event: serde_json::Value = serde_json::from_str(line).unwrap_or_default();
        if event["kind"] == "workspace_kept" {
            return event["path"].as_str().map(PathBuf::from).context("workspace_kept has no path");
        }
    }
    bail!("vx didn't report the path of the workspace")
}

fn seconds(name: &str, pairs: &MeasuredPairs, bar: Bar) -> Vec<Row> {
    let seconds = |runs: &[Measurement]| runs.iter().map(|run| run.seconds).collect();
    let (other, vx) = (seconds(&pairs.velox), seconds(&pairs.vx));
    vec![Row { name: name.to_owned(), unit: Unit::Seconds, other, vx, bar }]
}

/// The time of vx without a comparison; the bar is in milliseconds.
fn alone(name: &str, pairs: &MeasuredPairs, bar: f64) -> Row {
    let vx = pairs.vx.iter().map(|run| run.seconds * 1e3).collect();
    Row { name: name.to_owned(), unit: Unit::Milliseconds, other: Vec::new(), vx, bar: Bar::Median(bar) }
}

fn missing(flag: &str) -> ScenarioOutcome {
    ScenarioOutcome::Skipped(format!("this vx doesn't support {flag}"))
}

fn report(scenario: &str, round: &str, tool: Tool, run: &Measurement) {
    let tool = if tool == Tool::Velox { "velox" } else { "vx" };
    let Measurement { seconds, own_memory, traffic, .. } = run;
    eprintln!(
        "{scenario} ({round}) {tool}: {seconds:.3} s, {} requests, {} zips, {:.1} MB, {} from the network, own memory {:.1} MB",
        traffic.requests,
        traffic.zips,
        megabytes(traffic.bytes),
        traffic.upstream,
        megabytes(*own_memory),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kept_workspace_is_read_from_the_events() {
        let events = "go: x\n{\"event\":\"note\",\"kind\":\"workspace_kept\",\"path\":\"/tmp/vx-1\"}\n";
        assert_eq!(kept_workspace(events).unwrap(), Path::new("/tmp/vx-1"));
        assert!(kept_workspace("").is_err());
    }
}
