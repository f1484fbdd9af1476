//! Compares the build services of vx and Velox: repeats, restarts, concurrent requests, downloads.

pub(crate) mod load;
pub(crate) mod server;

use std::{
    path::PathBuf,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use velox_testkit::{Internet, TestForge};

use self::{
    load::{BuildCall, downloads, latencies},
    server::{CountingGo, ServiceProcess, free_address},
};
use crate::{
    configuration::{BenchConfig, BenchPlugins, RELEASE},
    proxy::BenchProxy,
    sandbox::Sandbox,
    table::{Bar, Row, Unit, megabytes},
};

/// Requests for a finished build.
const REPEATS: usize = 1_000;
/// Concurrent requests for the same build.
const CONCURRENT_REQUESTS: usize = 200;
/// Connections that request metadata.
const METADATA_CONNECTIONS: usize = 64;
/// Minimum duration of the downloads.
const MIN_DOWNLOAD_TIME: Duration = Duration::from_secs(5);

pub(crate) struct Services<'a> {
    pub(crate) velox: PathBuf,
    pub(crate) vx: PathBuf,
    pub(crate) proxy: &'a BenchProxy,
    /// The parent directory of the sandboxes.
    pub(crate) directory: PathBuf,
}

pub(crate) struct ServiceFigures {
    pub(crate) rows: Vec<Row>,
    /// Other observations, a sentence each.
    pub(crate) facts: Vec<String>,
}

/// The measurements of one service.
struct ServiceRun {
    /// Seconds of the first request, which builds.
    first: f64,
    /// Statuses of [`CONCURRENT_REQUESTS`] requests for a new build.
    statuses: Vec<u16>,
    compiles: usize,
    /// Milliseconds of repeats, before and after a restart.
    repeats: Vec<f64>,
    after_restart: Option<Vec<f64>>,
    /// Seconds of the first request after the restart.
    first_after_restart: f64,
}

impl Services<'_> {
    /// Runs all measurements, Velox first.
    pub(crate) fn run(&self) -> Result<ServiceFigures> {
        // A provider may be installed already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let internet = self.internet()?;

        let sandbox = Sandbox::fresh(self.directory.join("service-velox"), self.proxy)?;
        let go = CountingGo::new(self.directory.join("counted-velox"), &sandbox)?;
        let path = go.path()?;
        let velox_command = |address: &str| {
            let mut command = sandbox.command(&self.velox, &["server", "-a", address]);
            // Velox requires a token; the forge accepts any.
            command.envs(internet.environment()).env("GITHUB_TOKEN", "x").env("PATH", &path);
            command
        };
        let velox =
            runtime.block_on(through(&sandbox, &go, &velox_command, false)).context("velox server")?;
        drop(sandbox);

        let sandbox = Sandbox::fresh(self.directory.join("service-vx"), self.proxy)?;
        let go = CountingGo::new(self.directory.join("counted-vx"), &sandbox)?;
        let path = go.path()?;
        let data = sandbox.work().join("data");
        let vx_command = |address: &str| {
            let mut command = sandbox.command(&self.vx, &["server", "-a", address, "--data"]);
            // As Velox does; it has no effect for others.
            command.arg(&data).env("PATH", &path).env("VX_SERVER_JOB_USER", "root");
            command
        };
        let vx = runtime.block_on(through(&sandbox, &go, &vx_command, true)).context("vx server")?;
        let mut rows = Vec::new();
        rows.push(Row {
            name: "repeat of a finished build".to_owned(),
            unit: Unit::Fine,
            other: velox.repeats.clone(),
            vx: vx.repeats.clone(),
            bar: Bar::Ratio(1.0),
        });
        rows.push(Row {
            name: "the same after kill -9 (Velox: before)".to_owned(),
            unit: Unit::Fine,
            other: velox.repeats.clone(),
            vx: vx.after_restart.clone().unwrap_or_default(),
            bar: Bar::Ratio(1.0),
        });
        rows.push(Row {
            name: "first answer after kill -9".to_owned(),
            unit: Unit::Seconds,
            other: vec![velox.first_after_restart],
            vx: vec![vx.first_after_restart],
            bar: Bar::Ratio(1.0),
        });
        let server = ServiceProcess::start(&sandbox, free_address()?, vx_command)?;
        rows.extend(runtime.block_on(reads(&server))?);
        server.kill()?;
        let facts = [("Velox", &velox), ("vx", &vx)].map(|(name, seen)| seen.summary(name));
        Ok(ServiceFigures { rows, facts: facts.into() })
    }

    /// A github.com with RoadRunner's release: Velox's service supports no other forge.
    fn internet(&self) -> Result<Internet> {
        let forge = Box::leak(Box::new(TestForge::start()));
        let repo = forge.github("roadrunner-server/roadrunner");
        let mut archive = zip::ZipArchive::new(std::fs::File::open(self.proxy.archive(RELEASE))?)?;
        for at in 0..archive.len() {
            let mut file = archive.by_index(at)?;
            if file.is_dir() {
                continue;
            }
            let name = file.name()?.split_once('/').context("a file outside the top folder")?.1.to_owned();
            let mut content = Vec::new();
            std::io::copy(&mut file, &mut content)?;
            repo.file(name, content);
        }
        repo.commit("the release").tag(RELEASE);
        Ok(Internet::start(forge))
    }
}

impl ServiceRun {
    fn summary(&self, name: &str) -> String {
        let answered = self.statuses.iter().filter(|status| **status == 200).count();
        let mut others: Vec<u16> = self.statuses.iter().copied().filter(|status| *status != 200).collect();
        others.sort_unstable();
        let refused = match others.first() {
            None => String::new(),
            Some(status) => format!(", {} refused ({status})", others.len()),
        };
        format!(
            "{name}: {CONCURRENT_REQUESTS} concurrent requests for a new build: {answered} answered{refused}, {} compiled; \
             the first build took {:.1} s",
            self.compiles, self.first
        )
    }
}

/// The request that clients of Velox's service send, for five plugins.
fn call(address: std::net::SocketAddr, debug: bool) -> Result<BuildCall> {
    let configuration = BenchConfig::new(BenchPlugins::Small)?;
    let plugins: Vec<Value> = configuration
        .modules()?
        .into_iter()
        .map(|(module, tag)| json!({"module_name": module, "tag": tag}))
        .collect();
    let body = json!({
        "request_id": "8f14e45f-ceea-4672-9c2d-1f3a5b7c9d01",
        "rr_version": RELEASE,
        "target_platform": {"os": "linux", "arch": "amd64"},
        "plugins": plugins,
        "debug": debug,
    });
    Ok(BuildCall { url: format!("http://{address}/api.service.v1.BuildService/Build"), body })
}

async fn through(
    sandbox: &Sandbox,
    go: &CountingGo,
    command: &dyn Fn(&str) -> Command,
    survives: bool,
) -> Result<ServiceRun> {
    let timed = async |call: &BuildCall| -> Result<f64> {
        let since = Instant::now();
        let (status, answer) = call.send(&load::client()?).await?;
        ensure!(status == 200, "{status}: {answer}");
        Ok(since.elapsed().as_secs_f64())
    };
    let server = ServiceProcess::start(sandbox, free_address()?, command)?;
    let plain = call(server.address, false)?;
    let first = timed(&plain).await?;
    go.take()?;
    let statuses = call(server.address, true)?.at_once(CONCURRENT_REQUESTS).await?;
    let compiles = go.take()?;
    let repeats = plain.repeat(REPEATS).await?;
    server.kill()?;
    let server = ServiceProcess::start(sandbox, free_address()?, command)?;
    let again = call(server.address, false)?;
    let first_after_restart = timed(&again).await?;
    let after_restart = if survives { Some(again.repeat(REPEATS).await?) } else { None };
    server.kill()?;
    Ok(ServiceRun { first, statuses, compiles, repeats, after_restart, first_after_restart })
}

/// Metadata and downloads of a finished build.
async fn reads(server: &ServiceProcess) -> Result<Vec<Row>> {
    let alone = |name: &str, unit, vx, bar| Row { name: name.to_owned(), unit, other: Vec::new(), vx, bar };
    let (_, answer) = call(server.address, false)?.send(&load::client()?).await?;
    let path = answer["path"].as_str().context("the answer has no path")?.to_owned();
    let id = build_of(server).await?;
    let metadata =
        latencies(&format!("http://{}{id}", server.address), METADATA_CONNECTIONS, REPEATS).await?;
    let mut rows =
        vec![alone("metadata, 64 connections, p99", Unit::Fine, metadata, Bar::Percentile99(20.0))];
    let mut alone_memory = None;
    for clients in [1, 32, 256] {
        let (peak, ended) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let rate = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !ended.load(Ordering::Relaxed) {
                    peak.fetch_max(server.memory(), Ordering::Relaxed);
                    std::thread::sleep(Duration::from_millis(5));
                }
            });
            let rate = tokio::task::block_in_place(|| {
                tokio::runtime::Handle::current().block_on(downloads(
                    server.address,
                    &path,
                    clients,
                    MIN_DOWNLOAD_TIME,
                ))
            });
            ended.store(true, Ordering::Relaxed);
            rate
        })?;
        let memory = megabytes(peak.load(Ordering::Relaxed));
        let bar = *alone_memory.get_or_insert(memory) * 1.25;
        rows.push(alone(
            &format!("download, {clients} clients"),
            Unit::GigabytesPerSecond,
            vec![rate / 1e9],
            Bar::Least(1.0),
        ));
        rows.push(alone(
            &format!("memory meanwhile, {clients} clients"),
            Unit::Megabytes,
            vec![memory],
            Bar::Most(bar),
        ));
    }
    Ok(rows)
}

/// The path of the finished build's metadata.
async fn build_of(server: &ServiceProcess) -> Result<String> {
    let configuration = BenchConfig::new(BenchPlugins::Small)?;
    let plugins: Vec<Value> = configuration
        .modules()?
        .into_iter()
        .map(|(module, tag)| json!({"module": module, "ref": tag}))
        .collect();
    let body = json!({"build": {"roadrunner": RELEASE, "plugins": plugins, "target": "linux/amd64"}});
    let call = BuildCall { url: format!("http://{}/v1/builds", server.address), body };
    let (status, answer) = call.send(&load::client()?).await?;
    ensure!(status == 200, "a finished build isn't served: {status} {answer}");
    Ok(answer["links"]["self"].as_str().context("the build has no link to itself")?.to_owned())
}
