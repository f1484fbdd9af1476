//! The GOCACHEPROG server.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, UNIX_EPOCH},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufReader},
    sync::mpsc,
    task::JoinSet,
};

use crate::{
    CacheId, GoCacheError, GoCacheOptions, GoCacheStats,
    disk::{ActionEntry, LocalCache},
    protocol::{self, CacheRequest, CacheResponse, RequestCommand, base64},
    remote::RemoteCache,
};

#[derive(Default)]
struct Counters {
    local_hits: AtomicU64,
    remote_hits: AtomicU64,
    misses: AtomicU64,
    puts: AtomicU64,
}

struct CacheServer {
    disk: LocalCache,
    /// In the order in which they are asked.
    remotes: Vec<Arc<RemoteCache>>,
    counters: Counters,
    trouble: Vec<String>,
}

/// Serves the go command until it closes the cache, then finishes the uploads.
///
/// A failing remote doesn't fail the build: it is disabled, with the cause in [`GoCacheStats::trouble`].
pub async fn serve(
    options: GoCacheOptions,
    stdin: impl AsyncRead + Unpin,
    stdout: impl AsyncWrite + Unpin + Send + 'static,
) -> Result<GoCacheStats, GoCacheError> {
    let disk = LocalCache::open(&options.gocache)?;
    let (mut remotes, mut trouble) = (Vec::new(), Vec::new());
    for (position, url) in options.remotes.iter().enumerate() {
        match RemoteCache::open(url, &options, position == 0, disk.clone()) {
            Ok(remote) => remotes.push(Arc::new(remote)),
            Err(error) => trouble.push(error.to_string()),
        }
    }
    let cache = Arc::new(CacheServer { disk, remotes, counters: Counters::default(), trouble });

    let (responses, queue) = mpsc::channel(64);
    let writer = tokio::spawn(write(stdout, queue));
    let ready = CacheResponse { known_commands: vec!["get", "put", "close"], ..CacheResponse::default() };
    // Sending fails if the go command has exited; then the loop below ends.
    let _ = responses.send(ready).await;
    for remote in cache.remotes.iter().map(Arc::clone) {
        tokio::spawn(async move { remote.warm().await });
    }
    let ended = handle_requests(&cache, stdin, responses, options.flush).await;
    let _ = writer.await;
    ended?;
    Ok(cache.stats())
}

async fn handle_requests(
    cache: &Arc<CacheServer>,
    stdin: impl AsyncRead + Unpin,
    responses: mpsc::Sender<CacheResponse>,
    flush: Duration,
) -> Result<(), GoCacheError> {
    let mut from = BufReader::with_capacity(256 << 10, stdin);
    let mut running = JoinSet::new();
    while let Some(CacheRequest { id, command }) = protocol::request(&mut from).await? {
        match command {
            RequestCommand::Get { action } => {
                let (cache, responses) = (Arc::clone(cache), responses.clone());
                running.spawn(async move {
                    let response = cache.get(id, action).await;
                    let _ = responses.send(response).await;
                });
            }
            RequestCommand::Put { action, output, size } => {
                let response = cache.put(id, action, output, size, &mut from).await?;
                let _ = responses.send(response).await;
            }
            RequestCommand::Close => {
                while running.join_next().await.is_some() {}
                for remote in &cache.remotes {
                    remote.flush(flush).await;
                }
                let _ = responses.send(CacheResponse { id, ..CacheResponse::default() }).await;
                return Ok(());
            }
            RequestCommand::Unknown(command) => {
                let err = Some(format!("unknown command {command}"));
                let _ = responses.send(CacheResponse { id, err, ..CacheResponse::default() }).await;
            }
        }
        while running.try_join_next().is_some() {}
    }
    Ok(())
}

async fn write(
    mut stdout: impl AsyncWrite + Unpin,
    mut responses: mpsc::Receiver<CacheResponse>,
) -> Result<(), GoCacheError> {
    while let Some(response) = responses.recv().await {
        let mut line =
            serde_json::to_vec(&response).map_err(|error| GoCacheError::Protocol(error.to_string()))?;
        line.push(b'\n');
        stdout.write_all(&line).await?;
        stdout.flush().await?;
    }
    Ok(())
}

impl CacheServer {
    async fn get(&self, id: i64, action: CacheId) -> CacheResponse {
        let (counter, entry) = match self.disk.get(&action) {
            Some(entry) => (&self.counters.local_hits, Some(entry)),
            None => (&self.counters.remote_hits, self.get_remote(&action).await),
        };
        let Some(entry) = entry else {
            self.counters.misses.fetch_add(1, Ordering::Relaxed);
            return CacheResponse { id, miss: true, ..CacheResponse::default() };
        };
        counter.fetch_add(1, Ordering::Relaxed);
        self.remotes.iter().for_each(|remote| remote.used(action, entry));
        self.found(id, entry)
    }

    /// The entry of the first remote that has it.
    async fn get_remote(&self, action: &CacheId) -> Option<ActionEntry> {
        for remote in &self.remotes {
            if let Some(entry) = remote.get(action).await {
                return Some(entry);
            }
        }
        None
    }

    async fn put(
        &self,
        id: i64,
        action: CacheId,
        output: CacheId,
        size: u64,
        from: &mut (impl tokio::io::AsyncBufRead + Unpin),
    ) -> Result<CacheResponse, GoCacheError> {
        self.counters.puts.fetch_add(1, Ordering::Relaxed);
        let mut new = self.disk.new_output(&output);
        if size > 0 {
            let take = |piece: &[u8]| {
                if let Ok(file) = &mut new
                    && let Err(error) = file.write(piece)
                {
                    new = Err(error);
                }
            };
            protocol::body(from, take).await?;
        }
        let kept = new.and_then(|new| new.finish(size)).and_then(|_| self.disk.put(&action, &output, size));
        match kept {
            Ok(time) => {
                let entry = ActionEntry { output, size, time };
                self.remotes.iter().for_each(|remote| remote.used(action, entry));
                Ok(CacheResponse { disk_path: self.path(&output), id, ..CacheResponse::default() })
            }
            Err(error) => {
                let err = Some(format!("failed to write to GOCACHE: {error}"));
                Ok(CacheResponse { id, err, ..CacheResponse::default() })
            }
        }
    }

    fn found(&self, id: i64, ActionEntry { output, size, time }: ActionEntry) -> CacheResponse {
        let put = UNIX_EPOCH + Duration::from_nanos(time);
        CacheResponse {
            id,
            output: base64(&output),
            size,
            time: jiff::Timestamp::try_from(put).ok().map(|time| time.to_string()),
            disk_path: self.path(&output),
            ..CacheResponse::default()
        }
    }

    fn path(&self, output: &CacheId) -> String {
        self.disk.output_path(output).to_string_lossy().into_owned()
    }

    fn stats(&self) -> GoCacheStats {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Counters { local_hits, remote_hits, misses, puts } = &self.counters;
        let sum = |counter: fn(&RemoteCache) -> &AtomicU64| {
            self.remotes.iter().map(|remote| count(counter(remote))).sum()
        };
        let mut trouble = self.trouble.clone();
        trouble.extend(self.remotes.iter().filter_map(|remote| remote.trouble()));
        GoCacheStats {
            local_hits: count(local_hits),
            remote_hits: count(remote_hits),
            misses: count(misses),
            puts: count(puts),
            bytes_down: sum(|remote| &remote.bytes_down),
            bytes_up: sum(|remote| &remote.bytes_up),
            trouble: (!trouble.is_empty()).then(|| trouble.join("; ")),
            disabled: self.remotes.iter().filter(|it| it.is_off()).map(|it| it.url.clone()).collect(),
        }
    }
}
