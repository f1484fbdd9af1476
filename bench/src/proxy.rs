use std::{
    fs::File,
    io::{self, Write},
    path::{Component, Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::{Context, Result, bail};
use axum::{
    Router,
    body::Body,
    extract::{Path as Route, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use reqwest::redirect::Policy;
use tokio_util::io::ReaderStream;
use velox_fetch::http::HttpOptions;

/// A module proxy (<https://go.dev/ref/mod#goproxy-protocol>) and the archives of RoadRunner's releases, on
/// localhost.
///
/// A module comes from the prepared tree, else from the store, which is filled from the machine's own proxies
/// on a miss: repeating a build needs no network.
pub(crate) struct BenchProxy {
    port: u16,
    shared: Arc<ProxyShared>,
    // Stopped when dropped.
    _runtime: tokio::runtime::Runtime,
}

/// The traffic of the proxy.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Traffic {
    pub(crate) requests: u64,
    /// Module zips, and RoadRunner's source archive.
    pub(crate) zips: u64,
    pub(crate) bytes: u64,
    /// Requests that went to the machine's own proxies.
    pub(crate) upstream: u64,
}

struct ProxyShared {
    tree: PathBuf,
    store: PathBuf,
    upstreams: Vec<String>,
    client: reqwest::Client,
    requests: AtomicU64,
    zips: AtomicU64,
    bytes: AtomicU64,
    upstream: AtomicU64,
}

impl BenchProxy {
    /// Listens on a free port of 127.0.0.1. Only the HTTP entries of `goproxy`, a GOPROXY list, are used.
    pub(crate) fn start(tree: &Path, store: &Path, goproxy: &str) -> Result<Self> {
        let upstreams = goproxy
            .split([',', '|'])
            .map(|entry| entry.trim().trim_end_matches('/').to_owned())
            .filter(|entry| entry.starts_with("https://") || entry.starts_with("http://"))
            .collect();
        let store = store.join("modules");
        std::fs::create_dir_all(&store).with_context(|| format!("failed to create {}", store.display()))?;
        let shared = Arc::new(ProxyShared {
            tree: tree.to_owned(),
            store,
            upstreams,
            client: client()?,
            requests: AtomicU64::new(0),
            zips: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            upstream: AtomicU64::new(0),
        });
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("module-proxy")
            .enable_all()
            .build()?;
        let listener = runtime.block_on(tokio::net::TcpListener::bind(("127.0.0.1", 0)))?;
        let port = listener.local_addr()?.port();
        let router = Router::new()
            .route("/mod/{*path}", get(module))
            .route("/{owner}/{repository}/archive/refs/tags/{file}", get(redirect))
            .route("/archives/{file}", get(archive))
            .with_state(Arc::clone(&shared));
        runtime.spawn(async move { axum::serve(listener, router).await });
        Ok(Self { port, shared, _runtime: runtime })
    }

    /// The URL for GOPROXY.
    pub(crate) fn goproxy(&self) -> String {
        format!("http://127.0.0.1:{}/mod", self.port)
    }

    /// The URL that replaces `https://github.com`.
    pub(crate) fn base_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The path of the archive that [`add_release`](Self::add_release) created.
    pub(crate) fn archive(&self, version: &str) -> PathBuf {
        self.shared.archive(&format!("{version}.zip"))
    }

    /// The traffic since the last call.
    pub(crate) fn take(&self) -> Traffic {
        let take = |counter: &AtomicU64| counter.swap(0, Ordering::Relaxed);
        let shared = &self.shared;
        Traffic {
            requests: take(&shared.requests),
            zips: take(&shared.zips),
            bytes: take(&shared.bytes),
            upstream: take(&shared.upstream),
        }
    }

    /// Creates the archive of a release as the forge would, from the module's zip in the tree.
    pub(crate) fn add_release(&self, module: &str, version: &str) -> Result<()> {
        let source = self.shared.tree.join(format!("{module}/@v/{version}.zip"));
        let target = self.archive(version);
        let make = || -> Result<()> {
            let mut from = zip::ZipArchive::new(io::BufReader::new(File::open(&source)?))?;
            let prefix = format!("{module}@{version}/");
            let top = format!("roadrunner-{}", version.trim_start_matches('v'));
            let directory = target.parent().context("path without a parent")?;
            std::fs::create_dir_all(directory)?;
            let mut to = zip::ZipWriter::new(tempfile::NamedTempFile::new_in(directory)?);
            // Velox extracts sequentially: a folder must precede its files, as in a forge's archive.
            let mut folders = std::collections::BTreeSet::new();
            for at in 0..from.len() {
                let mut file = from.by_index(at)?;
                let name = file.name()?;
                let Some(name) = name.strip_prefix(&prefix) else { bail!("{name} is not in {prefix}") };
                // go.work refers to modules that a module zip lacks.
                if matches!(name, "go.work" | "go.work.sum") {
                    continue;
                }
                let name = format!("{top}/{name}");
                for (end, _) in name.match_indices('/') {
                    if folders.insert(name[..end].to_owned()) {
                        let options = zip::write::SimpleFileOptions::default().unix_permissions(0o755);
                        to.add_directory(&name[..end], options)?;
                    }
                }
                // A module zip has no permissions.
                to.start_file(&name, zip::write::SimpleFileOptions::default().unix_permissions(0o644))?;
                io::copy(&mut file, &mut to)?;
            }
            let mut file = to.finish()?;
            file.flush()?;
            file.persist(&target)?;
            Ok(())
        };
        make().with_context(|| format!("failed to make RoadRunner's archive from {}", source.display()))
    }
}

fn client() -> Result<reqwest::Client> {
    Ok(HttpOptions::from_environment(&std::env::vars().collect()).client(Policy::default())?)
}

async fn redirect(
    State(shared): State<Arc<ProxyShared>>,
    Route(names): Route<(String, String, String)>,
) -> Response {
    shared.requests.fetch_add(1, Ordering::Relaxed);
    (StatusCode::FOUND, [(header::LOCATION, format!("/archives/{}", names.2))]).into_response()
}

async fn archive(State(shared): State<Arc<ProxyShared>>, Route(file): Route<String>) -> Response {
    shared.requests.fetch_add(1, Ordering::Relaxed);
    if !is_plain(&file) {
        return StatusCode::NOT_FOUND.into_response();
    }
    shared.send(&shared.archive(&file)).await.unwrap_or_else(|| StatusCode::NOT_FOUND.into_response())
}

async fn module(State(shared): State<Arc<ProxyShared>>, Route(path): Route<String>) -> Response {
    shared.requests.fetch_add(1, Ordering::Relaxed);
    // Every run has GONOSUMDB=*.
    if !is_plain(&path) || path.starts_with("sumdb/") {
        return StatusCode::NOT_FOUND.into_response();
    }
    for place in [shared.tree.join(&path), shared.store.join(&path)] {
        if let Some(answer) = shared.send(&place).await {
            return answer;
        }
    }
    for status in [StatusCode::NOT_FOUND, StatusCode::GONE] {
        if let Ok(text) = tokio::fs::read(shared.absent(&path, status)).await {
            return (status, text).into_response();
        }
    }
    shared.fill(&path).await.unwrap_or_else(|error| {
        eprintln!("proxy: {path}: {error:#}");
        (StatusCode::BAD_GATEWAY, format!("{error:#}")).into_response()
    })
}

impl ProxyShared {
    fn archive(&self, file: &str) -> PathBuf {
        self.store.with_file_name("archives").join(file)
    }

    /// The marker of a missing file. Proxy paths have no upper-case letters, so it can't be a version.
    fn absent(&self, path: &str, status: StatusCode) -> PathBuf {
        self.store.join(format!("{path}.ABSENT-{}", status.as_u16()))
    }

    async fn send(&self, file: &Path) -> Option<Response> {
        let open = tokio::fs::File::open(file).await.ok()?;
        let data = open.metadata().await.ok().filter(std::fs::Metadata::is_file)?;
        self.bytes.fetch_add(data.len(), Ordering::Relaxed);
        let zip = file.extension().is_some_and(|extension| extension == "zip");
        self.zips.fetch_add(zip.into(), Ordering::Relaxed);
        let body = Body::from_stream(ReaderStream::with_capacity(open, 128 << 10));
        Some(([(header::CONTENT_LENGTH, data.len())], body).into_response())
    }

    /// Queries the machine's proxies in their order and stores the reply.
    async fn fill(&self, path: &str) -> Result<Response> {
        let mut last = None;
        for upstream in &self.upstreams {
            self.upstream.fetch_add(1, Ordering::Relaxed);
            let url = format!("{upstream}/{path}");
            let mut answer =
                self.client.get(&url).send().await.with_context(|| format!("failed to query {upstream}"))?;
            let place = match answer.status() {
                StatusCode::OK => self.store.join(path),
                status @ (StatusCode::NOT_FOUND | StatusCode::GONE) => self.absent(path, status),
                status => bail!("{upstream} responded with {status}"),
            };
            let directory = place.parent().context("path without a parent")?;
            tokio::fs::create_dir_all(directory).await?;
            let mut file = tempfile::NamedTempFile::new_in(directory)?;
            while let Some(chunk) = answer.chunk().await? {
                file.write_all(&chunk)?;
            }
            if answer.status() == StatusCode::OK {
                file.persist(&place)?;
                return self.send(&place).await.context("the stored file disappeared");
            }
            last = Some((file, place, answer.status()));
        }
        let (file, place, status) = last.context("GOPROXY has no proxy over HTTP")?;
        file.persist(&place)?;
        Ok((status, tokio::fs::read(&place).await?).into_response())
    }
}

/// Whether a path has only normal components.
fn is_plain(path: &str) -> bool {
    !path.is_empty() && Path::new(path).components().all(|part| matches!(part, Component::Normal(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_is_served_as_a_forge_would_and_modules_from_tree_and_store() {
        let place = tempfile::tempdir().unwrap();
        let (tree, store) = (place.path().join("tree"), place.path().join("store"));
        let versions = tree.join("example.com/rr/v2/@v");
        std::fs::create_dir_all(&versions).unwrap();
        let mut zip = zip::ZipWriter::new(File::create(versions.join("v2.1.0.zip")).unwrap());
        zip.start_file("example.com/rr/v2@v2.1.0/cmd/main.go", zip::write::SimpleFileOptions::default())
            .unwrap();
        zip.finish().unwrap();
        let proxy = BenchProxy::start(&tree, &store, "off").unwrap();
        proxy.add_release("example.com/rr/v2", "v2.1.0").unwrap();
        std::fs::create_dir_all(store.join("modules/example.com/!other/@v")).unwrap();
        std::fs::write(store.join("modules/example.com/!other/@v/list"), "v1.0.0\n").unwrap();

        let runtime = tokio::runtime::Runtime::new().unwrap();
        let get = |url: String| {
            runtime.block_on(async {
                let answer = client().unwrap().get(url).send().await.unwrap();
                (answer.status().as_u16(), answer.bytes().await.unwrap())
            })
        };
        let (status, body) =
            get(format!("{}/roadrunner-server/roadrunner/archive/refs/tags/v2.1.0.zip", proxy.base_url()));
        assert_eq!(status, 200);
        let archive = zip::ZipArchive::new(io::Cursor::new(body)).unwrap();
        let names: Vec<_> = archive.file_names().map(Result::unwrap).collect();
        assert_eq!(names, ["roadrunner-2.1.0/", "roadrunner-2.1.0/cmd/", "roadrunner-2.1.0/cmd/main.go"]);

        assert_eq!(get(format!("{}/example.com/rr/v2/@v/v2.1.0.zip", proxy.goproxy())).0, 200);
        assert_eq!(get(format!("{}/example.com/%21other/@v/list", proxy.goproxy())).1, "v1.0.0\n");
        assert_eq!(get(format!("{}/example.com/no/@v/list", proxy.goproxy())).0, 502);
        assert_eq!(get(format!("{}/x%2f..%2f..%2farchives/v2.1.0.zip", proxy.goproxy())).0, 404);
        let traffic = proxy.take();
        assert_eq!((traffic.requests, traffic.zips, traffic.upstream), (6, 2, 0));
        assert_eq!(proxy.take().requests, 0);
    }
}
