//! Tests of the HTTP interfaces and the pages, over stores in a temporary directory.

#![allow(clippy::unwrap_used)]

mod api;
mod page;
mod rpc;

use std::{fs, net::SocketAddr, sync::Arc};

use axum::{
    Router,
    body::Body,
    extract::ConnectInfo,
    http::{HeaderMap, Request},
    response::Response,
};
use data_encoding::HEXLOWER;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use velox_api::{ArtifactInfo, BuildFailure, BuildId, FailureKind, LogEntry, Severity};

use crate::{
    artifacts::ArtifactBucket,
    auth::TokenStore,
    build::{BuildOutcome, BuildResult},
    http::{AppState, access::AccessConfig},
    job::disk::Disk,
    options::BuildPolicy,
    readiness::Readiness,
    releases::Releases,
    router::router,
    service::Service,
    store::{
        BuildStore as _, Lease, SqliteStore, StoreOptions,
        behaviour::{artifact, result},
    },
    telemetry::Telemetry,
};

/// A service without workers: the test leases and finishes its builds.
struct TestService {
    state: Arc<AppState>,
    router: Router,
    store: Arc<SqliteStore>,
    directory: tempfile::TempDir,
}

#[derive(Debug)]
struct Answer {
    status: u16,
    headers: HeaderMap,
    text: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_default()
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
    }
}

impl TestService {
    async fn start() -> Self {
        Self::with(AccessConfig::default(), 10).await
    }

    /// Starts a service with a queue of this capacity.
    async fn with(access: AccessConfig, queue: u64) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let options = StoreOptions { queue: Some(queue), ..StoreOptions::LARGE };
        let store = SqliteStore::open(&directory.path().join("builds.sqlite"), options).await.unwrap();
        let (store, telemetry) = (Arc::new(store), Telemetry::new(None).unwrap());
        let artifacts = ArtifactBucket::open_directory(&directory.path().join("artifacts")).unwrap();
        let artifacts = Arc::new(artifacts);
        let draining = CancellationToken::new();
        let state = Arc::new(AppState {
            readiness: Readiness::new(
                Arc::clone(&store) as _,
                Arc::clone(&artifacts),
                Disk::with_reserve(directory.path(), 0),
                draining.clone(),
            ),
            service: Service {
                telemetry,
                store: Arc::clone(&store) as _,
                artifacts,
                policy: BuildPolicy::default(),
                closed: draining.clone(),
            },
            tokens: TokenStore::open(None).unwrap(),
            releases: Releases::built_in(),
            vulnerabilities: None,
            draining,
            closing: CancellationToken::new(),
        });
        let router = router(&state, &access).unwrap();
        Self { state, router, store, directory }
    }

    async fn send_from(&self, address: [u8; 4], mut request: Request<Body>) -> Response {
        request.extensions_mut().insert(ConnectInfo(SocketAddr::from((address, 4000))));
        self.router.clone().oneshot(request).await.unwrap()
    }

    async fn send(&self, request: Request<Body>) -> Response {
        self.send_from([127, 0, 0, 1], request).await
    }

    async fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let request = Request::builder().method(method).uri(path);
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        answer(self.send(request.body(Body::from(body.to_owned())).unwrap()).await).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.request("GET", path, &[], "").await
    }

    async fn post(&self, path: &str, body: &Value) -> Answer {
        self.request("POST", path, &[("content-type", "application/json")], &body.to_string()).await
    }

    /// Submits a build of this version of a plugin.
    async fn submit(&self, version: &str) -> BuildId {
        let answer = self.post("/v1/builds", &submission(version)).await;
        assert!(matches!(answer.status, 200 | 202), "{answer:?}");
        answer.json()["id"].as_str().unwrap().parse().unwrap()
    }

    async fn lease(&self) -> Lease {
        self.store.lease("test").await.unwrap()
    }

    async fn log(&self, lease: &Lease, entries: Vec<LogEntry>) {
        self.store.append_log(lease, entries).await.unwrap();
    }

    async fn print(&self, lease: &Lease, text: &str) {
        self.log(lease, vec![LogEntry::new(Severity::Info, text)]).await;
    }

    async fn succeed(&self, lease: &Lease, binary: &[u8]) -> ArtifactInfo {
        let sha256: String = HEXLOWER.encode(&Sha256::digest(binary));
        let artifact = ArtifactInfo {
            file_name: "rr.exe".to_owned(),
            target: "windows/amd64".to_owned(),
            ..artifact(sha256.clone(), binary.len())
        };
        let file = self.directory.path().join("rr");
        fs::write(&file, binary).unwrap();
        self.store.reserve_artifact(lease, &artifact).await.unwrap();
        self.state.service.artifacts.put(&sha256, &file).await.unwrap();
        let warnings = vec!["kv was raised from v5.2.8 to v5.2.9".to_owned()];
        let result = BuildResult { warnings, ..*result(artifact.clone()) };
        self.store.finish(lease, BuildOutcome::Succeeded(Box::new(result))).await.unwrap();
        artifact
    }

    async fn fail(&self, lease: &Lease, kind: FailureKind, message: &str) {
        let failure = BuildFailure { kind, message: message.to_owned() };
        self.store.finish(lease, BuildOutcome::Failed(failure)).await.unwrap();
    }

    fn database(&self) -> rusqlite::Connection {
        rusqlite::Connection::open(self.directory.path().join("builds.sqlite")).unwrap()
    }

    /// Damages these entries of all logs.
    fn corrupt_log(&self, condition: &str) {
        let sql = format!("UPDATE log SET entry = 'damaged' WHERE {condition}");
        assert!(self.database().execute(&sql, []).unwrap() > 0);
    }

    fn break_store(&self) {
        let database = self.database();
        database.execute_batch("PRAGMA foreign_keys = OFF; DROP TABLE builds").unwrap();
        fs::remove_dir_all(self.directory.path().join("artifacts")).unwrap();
    }
}

async fn answer(response: Response) -> Answer {
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let text = String::from_utf8(body.to_vec()).unwrap();
    Answer { status: parts.status.as_u16(), headers: parts.headers, text }
}

fn spec(version: &str) -> Value {
    json!({
        "roadrunner": "v2025.1.5", "target": "linux/amd64",
        "plugins": [{"module": "github.com/roadrunner-server/rpc/v5", "ref": version}],
    })
}

/// The body of `POST /v1/builds`.
fn submission(version: &str) -> Value {
    json!({ "build": spec(version) })
}
