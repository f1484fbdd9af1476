//! Curves of the build service: the queue, followers of a log, workers of a cluster.

use std::{
    net::SocketAddr,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};
use velox_testkit::{ModuleProxy, NatsServer};

use super::{Curve, CurveBench, builds::small_proxy, median};
use crate::{
    sandbox::Sandbox,
    service::{
        load::{BuildCall, client},
        server::{ServiceProcess, free_address},
    },
    table::megabytes,
};

/// Requests whose median counts.
const REQUESTS: usize = 50;
/// Builds that a cluster is given at once.
const CLUSTER_BUILDS: usize = 24;
const BUILD_TIMEOUT: Duration = Duration::from_secs(600);

/// The workers of a cluster, killed when dropped.
struct Workers(Vec<Child>);

impl Drop for Workers {
    fn drop(&mut self) {
        for worker in &mut self.0 {
            let _ = worker.kill();
            let _ = worker.wait();
        }
    }
}

impl CurveBench<'_> {
    /// A queue that nobody works on.
    pub(super) fn queue(&self) -> Result<Vec<Curve>> {
        let mut costs = ["submit", "status with position", "cancel"].map(|cost| Curve {
            dimension: "queue",
            cost,
            unit: "ms",
            points: Vec::new(),
        });
        let proxy = small_proxy();
        let sandbox = self.sandbox("queue")?;
        let server = self.server(&sandbox, &proxy, &["--jobs", "0", "--queue", "20000"])?;
        runtime()?.block_on(async {
            let client = client()?;
            let mut submitted = 0;
            for size in [1, 100, 10_000] {
                while submitted + REQUESTS < size {
                    submitted += 1;
                    submit(&client, server.address, submitted).await?;
                }
                let (mut ids, mut submits) = (Vec::new(), Vec::new());
                for _ in 0..REQUESTS {
                    submitted += 1;
                    let since = Instant::now();
                    ids.push(submit(&client, server.address, submitted).await?);
                    submits.push(since.elapsed().as_secs_f64() * 1e3);
                }
                let (mut statuses, mut cancels) = (Vec::new(), Vec::new());
                for id in &ids {
                    let url = format!("http://{}{id}", server.address);
                    let since = Instant::now();
                    let answer = client.get(&url).send().await?.error_for_status()?;
                    ensure!(answer.text().await?.contains("\"queue\""), "a queued build has no position");
                    statuses.push(since.elapsed().as_secs_f64() * 1e3);
                }
                for id in &ids {
                    let url = format!("http://{}{id}", server.address);
                    let since = Instant::now();
                    client.delete(&url).send().await?.error_for_status()?;
                    cancels.push(since.elapsed().as_secs_f64() * 1e3);
                }
                for (curve, values) in costs.iter_mut().zip([submits, statuses, cancels]) {
                    curve.points.push((size as f64, median(values)));
                }
            }
            Ok(costs.into())
        })
    }

    /// Clients that read the log of a finished build to its end, at the same time.
    pub(super) fn followers(&self) -> Result<Vec<Curve>> {
        let curve = |cost, unit| Curve { dimension: "followers", cost, unit, points: Vec::new() };
        let mut costs = [curve("all logs read", "ms"), curve("memory", "MB")];
        let proxy = small_proxy();
        let sandbox = self.sandbox("followers")?;
        let server = self.server(&sandbox, &proxy, &["--jobs", "1"])?;
        runtime()?.block_on(async {
            let client = client()?;
            let id = submit(&client, server.address, 1).await?;
            wait(&client, server.address, &id).await?;
            for size in [1_usize, 10, 100, 1_000] {
                let since = Instant::now();
                let mut tasks = JoinSet::new();
                for _ in 0..size {
                    tasks.spawn(follow(server.address, id.clone()));
                }
                for read in tasks.join_all().await {
                    ensure!(read? > 0, "an empty log");
                }
                let values = [since.elapsed().as_secs_f64() * 1e3, megabytes(server.memory())];
                for (curve, value) in costs.iter_mut().zip(values) {
                    curve.points.push((size as f64, value));
                }
            }
            Ok(costs.into())
        })
    }

    /// Builds that differ in their stamp, shared by workers with one job each.
    pub(super) fn workers(&self) -> Result<Vec<Curve>> {
        let mut curve =
            Curve { dimension: "workers", cost: "builds", unit: "per minute", points: Vec::new() };
        let proxy = small_proxy();
        for size in [1_usize, 2, 4, 8] {
            let nats = NatsServer::start().context("failed to start nats-server")?;
            let sandbox = self.sandbox("workers")?;
            let artifacts = sandbox.work().join("artifacts");
            std::fs::create_dir_all(&artifacts)?;
            let (nats, artifacts) = (nats.url(), artifacts.to_string_lossy().into_owned());
            let cluster = ["--nats", &nats, "--artifacts", &artifacts];
            let server = self.server(&sandbox, &proxy, &[&["--jobs", "0"][..], &cluster].concat())?;
            let mut workers = Workers(Vec::new());
            for number in 0..size {
                let data = sandbox.work().join(format!("worker-{number}"));
                let data = data.to_string_lossy().into_owned();
                let arguments = [&["worker", "--jobs", "1", "--data", &data][..], &cluster].concat();
                workers.0.push(self.spawn(&sandbox, &proxy, &arguments)?);
            }
            let seconds = runtime()?.block_on(async {
                let client = client()?;
                // Each worker compiles the packages once, unmeasured.
                self.finish(&client, server.address, 1..=size * 4).await?;
                let since = Instant::now();
                self.finish(&client, server.address, 1_000..=999 + CLUSTER_BUILDS).await?;
                Ok::<f64, anyhow::Error>(since.elapsed().as_secs_f64())
            })?;
            curve.points.push((size as f64, CLUSTER_BUILDS as f64 * 60.0 / seconds));
        }
        Ok(vec![curve])
    }

    async fn finish(
        &self,
        client: &reqwest::Client,
        address: SocketAddr,
        numbers: std::ops::RangeInclusive<usize>,
    ) -> Result<()> {
        let mut ids = Vec::new();
        for number in numbers {
            ids.push(submit(client, address, number).await?);
        }
        for id in ids {
            wait(client, address, &id).await?;
        }
        Ok(())
    }

    fn server(&self, sandbox: &Sandbox, proxy: &ModuleProxy, flags: &[&str]) -> Result<ServiceProcess> {
        let data = sandbox.work().join("server");
        ServiceProcess::start(sandbox, free_address()?, |address| {
            let mut command = sandbox.command(&self.vx, &["server", "-a", address, "--data"]);
            command.arg(&data).args(flags).env("GOPROXY", proxy.url());
            command
        })
    }

    fn spawn(&self, sandbox: &Sandbox, proxy: &ModuleProxy, arguments: &[&str]) -> Result<Child> {
        let mut command: Command = sandbox.command(&self.vx, arguments);
        command.env("GOPROXY", proxy.url()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().context("failed to start a worker")
    }
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}

/// Requests a build that no other request has. Returns its path.
async fn submit(client: &reqwest::Client, address: SocketAddr, number: usize) -> Result<String> {
    let body = json!({"build": {
        "roadrunner": "v2025.0.1",
        "plugins": [{"module": "github.com/roadrunner-server/http/v5", "ref": "v5.0.0"}],
        "target": "linux/amd64",
        "stamp_version": format!("1.0.{number}"),
    }});
    let call = BuildCall { url: format!("http://{address}/v1/builds"), body };
    let (status, answer) = call.send(client).await?;
    ensure!(status == 202 || status == 200, "{status}: {answer}");
    Ok(answer["links"]["self"].as_str().context("the build has no link to itself")?.to_owned())
}

async fn wait(client: &reqwest::Client, address: SocketAddr, id: &str) -> Result<()> {
    let until = Instant::now() + BUILD_TIMEOUT;
    while Instant::now() < until {
        let answer = client.get(format!("http://{address}{id}?wait=30")).send().await?.error_for_status()?;
        let build: Value = answer.json().await?;
        match build["state"].as_str() {
            Some("succeeded") => return Ok(()),
            Some("failed" | "cancelled") => anyhow::bail!("a build failed: {build}"),
            _ => {}
        }
    }
    anyhow::bail!("a build took more than {} s", BUILD_TIMEOUT.as_secs())
}

/// Reads a log to its end over a plain socket. Returns the number of bytes.
async fn follow(address: SocketAddr, id: String) -> Result<usize> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!(
        "GET {id}/log HTTP/1.1\r\nhost: {address}\r\naccept: text/plain\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    ensure!(
        answer.starts_with(b"HTTP/1.1 200"),
        "{}",
        String::from_utf8_lossy(&answer[..answer.len().min(200)])
    );
    Ok(answer.len())
}
