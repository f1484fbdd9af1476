//! Curves of the command line: plugins, targets, the artifact store, the lock.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use velox_testkit::ModuleProxy;

use super::{Curve, CurveBench, median};
use crate::{
    configuration::{BenchConfig, BenchPlugins},
    measure::{Measurement, measure},
    sandbox::Sandbox,
    table::megabytes,
};

/// Runs whose median counts, where a run takes milliseconds.
const SHORT_RUNS: usize = 15;

const TARGETS: [&str; 5] = ["linux/amd64", "linux/arm64", "darwin/arm64", "darwin/amd64", "windows/amd64"];

/// A server of the fixtures that compiles without other modules.
const SMALL_RELEASE: &str = "v2025.0.1";
const SMALL_SERVER: &str = r#"[roadrunner]
ref = "v2025.0.1"

[plugins.http]
tag = "v5.0.0"
module_name = "github.com/roadrunner-server/http/v5"
"#;

/// A module proxy with [`SMALL_SERVER`].
pub(super) fn small_proxy() -> ModuleProxy {
    let proxy = ModuleProxy::start();
    proxy.release(SMALL_RELEASE, "http", "v5.0.0");
    proxy
}

impl CurveBench<'_> {
    pub(super) fn plugins(&self) -> Result<Vec<Curve>> {
        self.cold("plugins", &[5, 10, 20, 35], |count| {
            Ok((BenchConfig::new(BenchPlugins::All)?.first(count)?, Vec::new()))
        })
    }

    pub(super) fn targets(&self) -> Result<Vec<Curve>> {
        self.cold("targets", &[1, 3, 5], |count| {
            let targets = TARGETS.iter().take(count).flat_map(|target| ["--target", target]);
            Ok((BenchConfig::new(BenchPlugins::Small)?, targets.collect()))
        })
    }

    /// Builds of RoadRunner with empty caches.
    fn cold(
        &self,
        dimension: &'static str,
        sizes: &[usize],
        of: impl Fn(usize) -> Result<(BenchConfig, Vec<&'static str>)>,
    ) -> Result<Vec<Curve>> {
        let mut costs = [
            Curve { dimension, cost: "cold build", unit: "s", points: Vec::new() },
            Curve { dimension, cost: "CPU time", unit: "s", points: Vec::new() },
            Curve { dimension, cost: "own memory", unit: "MB", points: Vec::new() },
        ];
        for size in sizes {
            let (configuration, flags) = of(*size)?;
            let sandbox = self.sandbox(dimension)?;
            sandbox.write("velox.toml", &configuration.text())?;
            let arguments = [&["build", "-o", "out"][..], &flags].concat();
            let run = measure(&sandbox, self.proxy, sandbox.command(&self.vx, &arguments))?;
            let values = [run.seconds, run.cpu_seconds, megabytes(run.own_memory)];
            for (curve, value) in costs.iter_mut().zip(values) {
                curve.points.push((*size as f64, value));
            }
        }
        Ok(costs.into())
    }

    /// Copies of one artifact under other keys, of which a build looks up the original.
    pub(super) fn artifacts(&self) -> Result<Vec<Curve>> {
        let proxy = small_proxy();
        let sandbox = self.sandbox("artifacts")?;
        sandbox.write("velox.toml", SMALL_SERVER)?;
        self.run_small(&sandbox, &proxy, &["build", "-o", "out"])?;
        let original = artifact_directory(&sandbox)?;

        let mut costs = ["unchanged build", "cache info", "pruning one"].map(|cost| Curve {
            dimension: "artifacts",
            cost,
            unit: "ms",
            points: Vec::new(),
        });
        for size in [10, 1_000, 10_000] {
            fill_store(&original, size - 1)?;
            let build = self.short(&sandbox, &proxy, &["build", "-o", "out"])?;
            let info = self.short(&sandbox, &proxy, &["cache", "info"])?;
            let (artifacts, bytes) = self.store_size(&sandbox, &proxy)?;
            ensure!(artifacts == size as u64, "the store has {artifacts} artifacts, {size} were made");
            let limit = (bytes - 1).to_string();
            let prune = self.run_small(&sandbox, &proxy, &["cache", "prune", "--max-size", &limit])?;
            ensure!(self.store_size(&sandbox, &proxy)?.0 == artifacts - 1, "not one artifact was pruned");
            for (curve, value) in costs.iter_mut().zip([build, info, prune.seconds * 1e3]) {
                curve.points.push((size as f64, value));
            }
        }
        Ok(costs.into())
    }

    fn store_size(&self, sandbox: &Sandbox, proxy: &ModuleProxy) -> Result<(u64, u64)> {
        self.run_small(sandbox, proxy, &["cache", "info", "--format", "json"])?;
        let text = fs::read_to_string(sandbox.log())?;
        let event = text.lines().find(|line| line.contains("cache_info")).context("no cache_info event")?;
        let event: Value = serde_json::from_str(event)?;
        let number = |key: &str| event[key].as_u64().with_context(|| format!("cache_info has no {key}"));
        Ok((number("artifacts")?, number("bytes")?))
    }

    /// A plugin that imports many modules.
    pub(super) fn modules(&self) -> Result<Vec<Curve>> {
        let mut costs = ["unchanged build", "list", "build with another plugin version"].map(|cost| Curve {
            dimension: "modules",
            cost,
            unit: "ms",
            points: Vec::new(),
        });
        for size in [20_usize, 200, 1_000] {
            let proxy = small_proxy();
            let mut plugin = velox_testkit::plugin("example.com/acme/many", "many");
            for number in 0..size {
                let module = format!("example.com/acme/m{number}");
                proxy.module(&module, "v1.0.0", velox_testkit::plugin(&module, "part").files());
                plugin = plugin.imports(&module, "v1.0.0");
            }
            proxy.module("example.com/acme/many", "v1.0.0", plugin.clone().files());
            proxy.module("example.com/acme/many", "v1.0.1", plugin.files());
            let sandbox = self.sandbox("modules")?;
            let configuration = |version: &str| {
                format!(
                    "{SMALL_SERVER}\n[plugins.many]\ntag = \"{version}\"\nmodule_name = \"example.com/acme/many\"\n"
                )
            };
            sandbox.write("velox.toml", &configuration("v1.0.0"))?;
            self.run_small(&sandbox, &proxy, &["build", "-o", "out"])?;
            let unchanged = self.short(&sandbox, &proxy, &["build", "-o", "out"])?;
            let list = self.short(&sandbox, &proxy, &["list"])?;
            sandbox.write("velox.toml", &configuration("v1.0.1"))?;
            let changed = self.run_small(&sandbox, &proxy, &["build", "-o", "out"])?;
            for (curve, value) in costs.iter_mut().zip([unchanged, list, changed.seconds * 1e3]) {
                curve.points.push((size as f64, value));
            }
        }
        Ok(costs.into())
    }

    pub(super) fn sandbox(&self, name: &str) -> Result<Sandbox> {
        Sandbox::fresh(self.directory.join(name), self.proxy)
    }

    /// Runs vx with the proxy of the fixtures.
    pub(super) fn run_small(
        &self,
        sandbox: &Sandbox,
        proxy: &ModuleProxy,
        arguments: &[&str],
    ) -> Result<Measurement> {
        let mut command = sandbox.command(&self.vx, arguments);
        command.env("GOPROXY", proxy.url());
        measure(sandbox, self.proxy, command)
    }

    /// The median of several runs, in milliseconds.
    fn short(&self, sandbox: &Sandbox, proxy: &ModuleProxy, arguments: &[&str]) -> Result<f64> {
        let runs = (0..SHORT_RUNS).map(|_| Ok(self.run_small(sandbox, proxy, arguments)?.seconds * 1e3));
        Ok(median(runs.collect::<Result<_>>()?))
    }
}

/// The directory of the only artifact.
fn artifact_directory(sandbox: &Sandbox) -> Result<PathBuf> {
    let store = sandbox.cache().join("artifacts-v1");
    let directories = |path: &Path| -> Result<Vec<PathBuf>> {
        let entries = fs::read_dir(path).with_context(|| path.display().to_string())?;
        let paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<PathBuf>>>()?;
        Ok(paths.into_iter().filter(|path| path.is_dir()).collect())
    };
    let shards = directories(&store)?;
    let [shard] = &shards[..] else { anyhow::bail!("{} shards in {}", shards.len(), store.display()) };
    directories(shard)?.pop().context("the store is empty")
}

/// Adds copies of an artifact until the store has `count` more than it; their keys are numbers.
fn fill_store(original: &Path, count: usize) -> Result<()> {
    let store = original.parent().and_then(Path::parent).context("an artifact outside of a store")?;
    let record = fs::read_to_string(original.join("artifact.json"))?;
    let key = original.file_name().context("an artifact without a key")?.to_string_lossy().into_owned();
    for number in 0..count {
        // The first digits differ, as those of real keys do.
        let copy_key = format!("{:02x}{number:062x}", number % 256);
        let directory = store.join(&copy_key[..2]).join(&copy_key);
        if directory.exists() {
            continue;
        }
        fs::create_dir_all(&directory)?;
        for entry in fs::read_dir(original)? {
            let file = entry?.path();
            let name = file.file_name().context("a file without a name")?;
            match name.to_str() {
                Some("artifact.json") => fs::write(directory.join(name), record.replace(&key, &copy_key))?,
                _ => fs::hard_link(&file, directory.join(name))?,
            }
        }
    }
    Ok(())
}
