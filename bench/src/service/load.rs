//! HTTP clients of a build service.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};

/// Timeout of one request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15 * 60);

#[derive(Clone)]
pub(crate) struct BuildCall {
    pub(crate) url: String,
    pub(crate) body: Value,
}

/// A client that keeps at most one connection.
pub(crate) fn client() -> Result<reqwest::Client> {
    Ok(reqwest::Client::builder().no_proxy().pool_max_idle_per_host(1).timeout(REQUEST_TIMEOUT).build()?)
}

impl BuildCall {
    /// The status and JSON of the reply.
    pub(crate) async fn send(&self, client: &reqwest::Client) -> Result<(u16, Value)> {
        let answer = client
            .post(&self.url)
            .header("content-type", "application/json")
            .body(self.body.to_string())
            .send()
            .await?;
        let status = answer.status().as_u16();
        let text = answer.text().await?;
        Ok((status, serde_json::from_str(&text).with_context(|| format!("no JSON ({status}): {text}"))?))
    }

    /// Sends sequential requests over one connection; returns the milliseconds of each.
    pub(crate) async fn repeat(&self, count: usize) -> Result<Vec<f64>> {
        let client = client()?;
        let mut took = Vec::new();
        for _ in 0..count {
            let since = Instant::now();
            let (status, answer) = self.send(&client).await?;
            took.push(since.elapsed().as_secs_f64() * 1e3);
            ensure!(status == 200, "{status}: {answer}");
        }
        Ok(took)
    }

    /// Sends concurrent requests, each over its own connection; returns the statuses.
    pub(crate) async fn at_once(&self, count: usize) -> Result<Vec<u16>> {
        let mut calls = JoinSet::new();
        for _ in 0..count {
            let (call, client) = (self.clone(), client()?);
            calls.spawn(async move { call.send(&client).await.map(|(status, _)| status) });
        }
        calls.join_all().await.into_iter().collect()
    }
}

/// Sends `count` requests over `connections` connections; returns the milliseconds of each.
pub(crate) async fn latencies(url: &str, connections: usize, count: usize) -> Result<Vec<f64>> {
    let left = Arc::new(AtomicUsize::new(count));
    let mut tasks = JoinSet::new();
    for _ in 0..connections {
        let (client, url, left) = (client()?, url.to_owned(), Arc::clone(&left));
        tasks.spawn(async move {
            let get = async || -> Result<()> {
                let answer = client.get(&url).send().await?;
                ensure!(answer.status().is_success(), "{}", answer.status());
                answer.bytes().await?;
                Ok(())
            };
            get().await?;
            let mut took = Vec::new();
            while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
            {
                let since = Instant::now();
                get().await?;
                took.push(since.elapsed().as_secs_f64() * 1e3);
            }
            Ok::<_, anyhow::Error>(took)
        });
    }
    let took: Vec<Vec<f64>> = tasks.join_all().await.into_iter().collect::<Result<_>>()?;
    Ok(took.concat())
}

/// Downloads `path` repeatedly with this many clients, for at least `least`; returns bytes per second. It
/// uses plain sockets, because an HTTP client would be the bottleneck.
pub(crate) async fn downloads(
    address: SocketAddr,
    path: &str,
    clients: usize,
    least: Duration,
) -> Result<f64> {
    let bytes = Arc::new(AtomicU64::new(0));
    let mut tasks = JoinSet::new();
    let since = Instant::now();
    for _ in 0..clients {
        let (request, bytes) = (
            format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n"),
            Arc::clone(&bytes),
        );
        tasks.spawn(async move {
            let mut buffer = vec![0; 256 << 10];
            loop {
                let mut stream = TcpStream::connect(address).await?;
                stream.write_all(request.as_bytes()).await?;
                let mut first = true;
                loop {
                    let read = stream.read(&mut buffer).await?;
                    if read == 0 {
                        break;
                    }
                    if std::mem::take(&mut first) && !buffer.starts_with(b"HTTP/1.1 200") {
                        bail!("{}", String::from_utf8_lossy(&buffer[..read.min(200)]));
                    }
                    bytes.fetch_add(read as u64, Ordering::Relaxed);
                }
                if since.elapsed() > least {
                    return Ok(());
                }
            }
        });
    }
    for done in tasks.join_all().await {
        done?;
    }
    Ok(bytes.load(Ordering::Relaxed) as f64 / since.elapsed().as_secs_f64())
}
