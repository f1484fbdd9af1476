//! The paths, with stores in memory: what the store of the disk can't be made to do at will.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use async_trait::async_trait;
use axum::{body::Body, extract::ConnectInfo, http::Request, response::Response};
use futures::{StreamExt, stream::BoxStream};
use http_body_util::BodyExt;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::watch;
use tower::ServiceExt;
use velox_api::{
    ArtifactInfo, BuildFailure, BuildId, BuildSpec, BuildState, FailureKind, LogEntry, QueuePosition,
    Severity,
};

use super::*;
use crate::{
    artifacts::ArtifactBucket,
    build::{Build, BuildOutcome, BuildResult, NewBuild, Tenant},
    policy::BuildPolicy,
    store::{BuildStore, Lease, LeaseStatus, QueueDepth, StoreError, Submission},
};

/// All stores, in memory.
struct Memory {
    state: Mutex<Contents>,
    changed: watch::Sender<()>,
    bucket: Arc<ArtifactBucket>,
}

#[derive(Default)]
struct Contents {
    builds: BTreeMap<BuildId, Build>,
    logs: BTreeMap<BuildId, Vec<LogEntry>>,
    artifacts: BTreeMap<String, ArtifactInfo>,
    room: u64,
    broken: bool,
}

impl Memory {
    fn new() -> Arc<Self> {
        let state = Mutex::new(Contents { room: 10, ..Contents::default() });
        Arc::new(Self { state, changed: watch::Sender::new(()), bucket: ArtifactBucket::in_memory() })
    }

    fn state(&self) -> MutexGuard<'_, Contents> {
        self.state.lock().expect("no test panics with it")
    }

    fn say(&self, id: BuildId, text: &str) {
        {
            let mut state = self.state();
            let log = state.logs.entry(id).or_default();
            let seq = log.len() as u64 + 1;
            let time = Timestamp::UNIX_EPOCH;
            let text = text.to_owned();
            log.push(LogEntry {
                seq,
                time,
                level: Severity::Info,
                text,
                phase: None,
                done: None,
                total: None,
            });
        }
        self.changed.send_replace(());
    }

    fn end(&self, id: BuildId, outcome: BuildOutcome) {
        {
            let mut state = self.state();
            let build = state.builds.get_mut(&id).expect("the build");
            build.state = if matches!(outcome, BuildOutcome::Succeeded(_)) {
                BuildState::Succeeded
            } else {
                BuildState::Failed
            };
            build.outcome = Some(outcome);
        }
        self.changed.send_replace(());
    }

    /// A binary of these bytes, as a build's outcome.
    fn made(&self, bytes: &[u8]) -> BuildOutcome {
        let sha256 = self.bucket.insert(bytes);
        let artifact = ArtifactInfo {
            sha256: sha256.clone(),
            size: bytes.len() as u64,
            file_name: "rr.exe".to_owned(),
            target: "windows/amd64".to_owned(),
        };
        self.state().artifacts.insert(sha256, artifact.clone());
        BuildOutcome::Succeeded(Box::new(BuildResult {
            artifact,
            version: "v2025.1.5".to_owned(),
            go_version: "go1.26.8".to_owned(),
            configuration: "# a configuration".to_owned(),
            lock: "# a lock".to_owned(),
            warnings: Vec::new(),
        }))
    }
}

#[async_trait]
impl BuildStore for Memory {
    async fn submit(&self, new: NewBuild) -> Result<Submission, StoreError> {
        let mut state = self.state();
        let key = new.spec.key().unwrap();
        let like = |build: &&Build| build.key == key;
        if let Some(build) = state.builds.values().filter(like).find(|build| !build.state.is_final()) {
            return Ok(Submission::Joined(build.clone()));
        }
        if let Some(build) =
            state.builds.values().filter(like).find(|build| build.state == BuildState::Succeeded)
        {
            return Ok(Submission::Finished(Arc::new(build.clone())));
        }
        if state.broken {
            return Err(StoreError::Failed("the password of the database is wrong".to_owned()));
        }
        if state.room == 0 {
            return Err(StoreError::QueueFull { waiting: 0 });
        }
        state.room -= 1;
        let build = Build { created: Timestamp::UNIX_EPOCH, ..Build::queued(new, key) };
        state.builds.insert(build.id, build.clone());
        Ok(Submission::Queued(build))
    }

    async fn get(&self, id: BuildId) -> Result<Option<Build>, StoreError> {
        Ok(self.state().builds.get(&id).cloned())
    }

    async fn recent(&self, limit: usize) -> Result<Vec<Build>, StoreError> {
        Ok(self.state().builds.values().rev().take(limit).cloned().collect())
    }

    async fn cancel(&self, id: BuildId, tenant: &Tenant) -> Result<Option<Build>, StoreError> {
        let mut state = self.state();
        let Some(build) = state.builds.get_mut(&id).filter(|build| build.wanted_by.contains(tenant)) else {
            return Ok(None);
        };
        build.state = BuildState::Cancelled;
        Ok(Some(build.clone()))
    }

    async fn log(&self, id: BuildId, after: u64, limit: usize) -> Result<Vec<LogEntry>, StoreError> {
        let state = self.state();
        let log = state.logs.get(&id).into_iter().flatten();
        Ok(log.filter(|entry| entry.seq > after).take(limit).cloned().collect())
    }

    async fn watch(&self, _: BuildId) -> Result<BoxStream<'static, ()>, StoreError> {
        let first = (self.changed.subscribe(), true);
        Ok(futures::stream::unfold(first, async |(mut changed, is_first)| {
            if !is_first {
                changed.changed().await.ok()?;
            }
            Some(((), (changed, false)))
        })
        .boxed())
    }

    async fn artifact(&self, sha256: &str) -> Result<Option<ArtifactInfo>, StoreError> {
        Ok(self.state().artifacts.get(sha256).cloned())
    }

    async fn ready(&self) -> Result<(), StoreError> {
        if self.state().broken { Err(StoreError::Failed("secret".to_owned())) } else { Ok(()) }
    }

    async fn lease(&self, _: &str) -> Result<Lease, StoreError> {
        std::future::pending().await
    }

    fn lease_time(&self) -> Duration {
        Duration::from_secs(30)
    }

    async fn extend(&self, _: &Lease) -> Result<LeaseStatus, StoreError> {
        Ok(LeaseStatus::Active)
    }

    async fn append_log(&self, _: &Lease, _: Vec<LogEntry>) -> Result<(), StoreError> {
        Ok(())
    }

    async fn reserve_artifact(&self, _: &Lease, _: &ArtifactInfo) -> Result<(), StoreError> {
        Ok(())
    }

    async fn finish(&self, _: &Lease, _: BuildOutcome) -> Result<(), StoreError> {
        Ok(())
    }

    async fn finish_cancelled(&self, _: &Lease) -> Result<(), StoreError> {
        Ok(())
    }

    async fn release(&self, _: &Lease) -> Result<(), StoreError> {
        Ok(())
    }

    async fn position(&self, _: BuildId) -> Result<Option<QueuePosition>, StoreError> {
        Ok(Some(QueuePosition { at: 2, of: 5 }))
    }

    async fn depth(&self) -> Result<QueueDepth, StoreError> {
        Ok(QueueDepth::default())
    }

    async fn prune(&self, _: Timestamp, _: u64, _: Timestamp) -> Result<u64, StoreError> {
        Ok(0)
    }

    async fn artifacts(&self) -> Result<HashMap<String, Timestamp>, StoreError> {
        Ok(HashMap::new())
    }

    async fn remove_artifact(&self, _: &str, _: Timestamp) -> Result<bool, StoreError> {
        Ok(false)
    }
}

/// The service with its stores in memory.
struct Fixture {
    memory: Arc<Memory>,
    site: Arc<Site>,
    router: Router,
}

impl Fixture {
    fn new() -> Self {
        Self::with(&Entrance::default())
    }

    fn with(entrance: &Entrance) -> Self {
        let memory = Memory::new();
        let telemetry = Telemetry::new(None).unwrap();
        let site = Arc::new(Site {
            telemetry: Arc::clone(&telemetry),
            service: Service {
                telemetry,
                store: Arc::clone(&memory) as _,
                artifacts: Arc::clone(&memory.bucket),
                policy: BuildPolicy::default(),
                rates: Arc::default(),
            },
            tokens: Tokens::open(None).expect("no file is read"),
            releases: Releases::built_in(),
            draining: CancellationToken::new(),
            closing: CancellationToken::new(),
        });
        let router = router(&site, entrance).expect("the descriptors are right");
        Self { memory, site, router }
    }

    async fn ask(&self, request: Request<Body>) -> Response {
        self.ask_from([127, 0, 0, 1], request).await
    }

    async fn ask_from(&self, address: [u8; 4], mut request: Request<Body>) -> Response {
        request.extensions_mut().insert(ConnectInfo(SocketAddr::from((address, 4000))));
        self.router.clone().oneshot(request).await.expect("it can't fail")
    }

    async fn get(&self, path: &str) -> Response {
        self.ask(Request::get(path).body(Body::empty()).expect("a request")).await
    }

    async fn post(&self, path: &str, body: &Value) -> Response {
        let request = Request::post(path).header("content-type", "application/json");
        self.ask(request.body(Body::from(body.to_string())).expect("a request")).await
    }

    /// A build that was asked for.
    async fn build(&self) -> BuildId {
        let (status, view) = whole(self.post("/v1/builds", &submit()).await).await;
        assert!(status.is_success(), "{status}: {view}");
        view["id"].as_str().expect("an id").parse().expect("an id")
    }
}

async fn text(response: Response) -> String {
    let body = response.into_body().collect().await.expect("a body").to_bytes();
    String::from_utf8(body.to_vec()).expect("text")
}

async fn whole(response: Response) -> (StatusCode, Value) {
    let status = response.status();
    (status, serde_json::from_str(&text(response).await).unwrap_or_default())
}

fn spec() -> Value {
    json!({
        "roadrunner": "v2025.1.5", "target": "linux/amd64",
        "plugins": [{"module": "github.com/roadrunner-server/rpc/v5", "ref": "v5.1.8"}],
    })
}

fn submit() -> Value {
    json!({ "build": spec() })
}

fn call() -> Value {
    json!({
        "request_id": "", "rr_version": "v2025.1.5", "unknown": [1, {"x": null}],
        "target_platform": {"os": "linux", "arch": "amd64"},
        "plugins": [{"module_name": "github.com/roadrunner-server/rpc/v5", "tag": "v5.1.8"}],
    })
}

/// Makes something wrong of what is right.
type Change = fn(&mut Value);

const CALL: &str = "/api.service.v1.BuildService/Build";

#[tokio::test]
async fn every_path_of_the_document_is_there_and_says_what_it_needs() {
    let fixture = Fixture::new();
    let (status, document) = whole(fixture.get("/v1/openapi.json").await).await;
    assert_eq!(status, StatusCode::OK);
    let paths = document["paths"].as_object().expect("paths");
    let known: Vec<&str> = paths.keys().map(String::as_str).collect();
    assert_eq!(
        known,
        [
            "/healthz",
            "/readyz",
            "/v1/artifacts/{sha256}",
            "/v1/builds",
            "/v1/builds/{id}",
            "/v1/builds/{id}/log",
            "/v1/builds/{id}/velox.lock",
            "/v1/builds/{id}/velox.toml",
            "/v1/catalogue",
        ]
    );
    for (path, methods) in paths {
        let place = path.replace("{id}", &BuildId::new().to_string()).replace("{sha256}", &"0".repeat(64));
        for method in ["get", "post", "put", "delete", "patch"] {
            let request = Request::builder().method(method.to_uppercase().as_str()).uri(&place);
            let response = fixture.ask(request.body(Body::empty()).expect("a request")).await;
            let is_known = methods.get(method).is_some();
            assert_eq!(response.status() != StatusCode::METHOD_NOT_ALLOWED, is_known, "{method} {path}");
            if !is_known {
                assert!(response.headers().contains_key(header::ALLOW), "{method} {path}");
            }
        }
    }
    let schemas = document["components"]["schemas"].as_object().expect("schemas");
    for used in document.to_string().split("#/components/schemas/").skip(1) {
        let name = used.split('"').next().expect("a name");
        assert!(schemas.contains_key(name), "{name} is used and not described");
    }
}

#[tokio::test]
async fn problems_are_problems_everywhere() {
    let fixture = Fixture::new();
    let id = fixture.build().await;
    let json = ("content-type", "application/json");
    let cases = [
        ("GET", "/nowhere".to_owned(), None, "", 404, "not_found"),
        ("GET", "/v1/builds/no-build".to_owned(), None, "", 404, "not_found"),
        ("GET", format!("/v1/builds/{}", BuildId::new()), None, "", 404, "not_found"),
        ("GET", format!("/v1/builds/{id}?wait=long"), None, "", 400, "invalid_query"),
        ("GET", format!("/v1/builds/{id}?wiat=1"), None, "", 400, "invalid_query"),
        ("GET", format!("/v1/builds/{id}/velox.lock"), None, "", 404, "not_found"),
        ("GET", "/v1/artifacts/..%2F..%2Fetc%2Fpasswd".to_owned(), None, "", 404, "not_found"),
        ("GET", format!("/v1/artifacts/{}", "A".repeat(64)), None, "", 404, "not_found"),
        ("PUT", "/v1/builds".to_owned(), None, "", 405, "method_not_allowed"),
        ("POST", "/v1/builds".to_owned(), None, "{}", 415, "unsupported_media_type"),
        (
            "POST",
            "/v1/builds".to_owned(),
            Some(("content-type", "text/plain")),
            "{}",
            415,
            "unsupported_media_type",
        ),
        ("POST", "/v1/builds".to_owned(), Some(json), "{", 400, "malformed_json"),
        ("POST", "/v1/builds".to_owned(), Some(json), "", 400, "malformed_json"),
        ("POST", "/v1/builds".to_owned(), Some(json), "[]", 422, "invalid_request"),
        ("POST", "/v1/builds".to_owned(), Some(json), "{}", 422, "invalid_request"),
    ];
    for (method, path, header, body, status, kind) in cases {
        let mut request = Request::builder().method(method).uri(&path);
        if let Some((name, value)) = header {
            request = request.header(name, value);
        }
        let response = fixture.ask(request.body(Body::from(body)).expect("a request")).await;
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json", "{method} {path}");
        let (answered, problem) = whole(response).await;
        assert_eq!(answered, status, "{method} {path}: {problem}");
        assert_eq!((&problem["status"], &problem["type"]), (&json!(status), &json!(kind)), "{method} {path}");
        assert!(problem["title"].as_str().is_some_and(|title| !title.is_empty()), "{method} {path}");
    }
}

#[tokio::test]
async fn people_read_problems_as_pages() {
    let fixture = Fixture::with(&Entrance { own_names: true, ..Entrance::default() });
    let ask = async |method: &str, path: &str, host: &str, accept: &'static str| {
        let request =
            Request::builder().method(method).uri(path).header("host", host).header("accept", accept);
        fixture.ask(request.body(Body::empty()).expect("a request")).await
    };
    const BROWSER: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
    let cases = [
        ("GET", "/nowhere", "localhost", 404, "There is no /nowhere;"),
        ("GET", "/v1/builds/x", "localhost", 404, "There is no build x."),
        ("PUT", "/v1/builds", "localhost", 405, "PUT isn't for /v1/builds;"),
        ("GET", "/", "other.example", 421, "use localhost"),
    ];
    for (method, path, host, status, said) in cases {
        let response = ask(method, path, host, BROWSER).await;
        assert_eq!(response.status(), status);
        let headers = response.headers().clone();
        assert_eq!(headers[header::CONTENT_TYPE], "text/html; charset=utf-8", "{path}");
        assert_eq!(headers[header::VARY], "accept");
        assert_eq!(headers.contains_key(header::ALLOW), status == 405, "{headers:?}");
        let policy = headers[header::CONTENT_SECURITY_POLICY].to_str().expect("text");
        assert!(policy.contains("style-src 'self'"), "{policy}");
        let page = text(response).await;
        assert!(page.contains(said) && page.contains("<main"), "{page}");
        for accept in ["*/*", "application/json", "text/event-stream"] {
            let response = ask(method, path, host, accept).await;
            assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json", "{accept}");
        }
    }
}

#[tokio::test]
async fn every_wrong_field_is_named() {
    let fixture = Fixture::new();
    let wrong = |change: fn(&mut Value)| {
        let mut submit = submit();
        change(&mut submit["build"]);
        submit
    };
    let cases: [(Change, &str); 12] = [
        (|build| build["roadrunner"] = json!("a b"), "build.roadrunner"),
        (|build| build["roadrunner"] = json!(7), "build.roadrunner"),
        (|build| build["plugins"][0]["module"] = json!("rpc"), "build.plugins[0].module"),
        (|build| build["plugins"][0]["ref"] = json!(""), "build.plugins[0].ref"),
        (|build| build["plugins"] = json!([]), "build"),
        (|build| build["plugins"] = json!({}), "build.plugins"),
        (|build| build["target"] = json!("plan9/amd64"), "build.target"),
        (|build| build["target"] = json!(null), "build.target"),
        (|build| build["dependencies"] = json!("none"), "build.dependencies"),
        (|build| build["race"] = json!("yes"), "build.race"),
        (
            |build| build["excludes"] = json!([{"module": "example.com/x", "version": "one"}]),
            "build.excludes[0].version",
        ),
        (|build| build["colour"] = json!("red"), "build.colour"),
    ];
    for (change, field) in cases {
        let body = wrong(change);
        let (status, problem) = whole(fixture.post("/v1/builds", &body).await).await;
        assert_eq!(status, 422, "{body}: {problem}");
        assert_eq!(problem["errors"][0]["field"], field, "{body}: {problem}");
    }
    let many = wrong(|build| build["tags"] = json!(vec!["tag"; 501]));
    let (status, problem) = whole(fixture.post("/v1/builds", &many).await).await;
    assert_eq!((status.as_u16(), &problem["errors"][0]["field"]), (422, &json!("build.tags")));
    let race = wrong(|build| build["race"] = json!(true));
    let (status, problem) = whole(fixture.post("/v1/builds", &race).await).await;
    assert_eq!((status.as_u16(), &problem["type"]), (422, &json!("failed_precondition")));
    assert!(fixture.memory.state().builds.is_empty());
}

#[tokio::test]
async fn a_full_queue_and_a_broken_store() {
    let fixture = Fixture::new();
    fixture.memory.state().room = 0;
    let response = fixture.post("/v1/builds", &submit()).await;
    assert_eq!(response.headers()[header::RETRY_AFTER], "15");
    assert_eq!(whole(response).await.0, 429);
    let (status, error) = whole(fixture.post(CALL, &call()).await).await;
    assert_eq!((status.as_u16(), &error["code"]), (429, &json!("resource_exhausted")));

    fixture.memory.state().broken = true;
    for (path, body) in [("/v1/builds", submit()), (CALL, call())] {
        let response = fixture.post(path, &body).await;
        assert_eq!(response.status(), 503);
        let text = text(response).await;
        assert!(!text.contains("password"), "{text}");
    }
    assert_eq!(fixture.get("/readyz").await.status(), 503);
    assert_eq!(fixture.get("/healthz").await.status(), 200);
}

#[tokio::test]
async fn a_build_is_followed_to_its_end_and_again_from_where_it_broke_off() {
    let fixture = Fixture::new();
    let id = fixture.build().await;
    fixture.memory.say(id, "one");
    let log = fixture.get(&format!("/v1/builds/{id}/log")).await;
    assert_eq!(log.headers()[header::CONTENT_TYPE], "text/event-stream");
    let mut log = log.into_body().into_data_stream();
    let mut events = String::new();
    while !events.contains("\"one\"") {
        events += str::from_utf8(&log.next().await.expect("more").expect("more")).expect("text");
    }
    fixture.memory.say(id, "two");
    fixture.memory.end(id, fixture.memory.made(b"binary"));
    while let Some(more) = log.next().await {
        events += str::from_utf8(&more.expect("more")).expect("text");
    }
    let place = |what: &str| events.find(what).unwrap_or_else(|| panic!("no {what} in {events}"));
    let order =
        ["event: state", "id: 1\n", "\"text\":\"one\"", "id: 2\n", "event: end\n", "id: end\n", "\"sha256\""];
    assert!(order.map(place).is_sorted(), "{events}");

    let again = |last: &'static str| {
        let request = Request::get(format!("/v1/builds/{id}/log")).header("last-event-id", last);
        fixture.ask(request.body(Body::empty()).expect("a request"))
    };
    let rest = text(again("1").await).await;
    assert!(!rest.contains("\"one\"") && rest.contains("\"two\"") && rest.contains("event: end"), "{rest}");
    assert_eq!(again("end").await.status(), 204);
    let plain = Request::get(format!("/v1/builds/{id}/log?after=0")).header("accept", "text/plain");
    let plain = fixture.ask(plain.body(Body::empty()).expect("a request")).await;
    assert_eq!(text(plain).await, "one\ntwo\n");
}

#[tokio::test]
async fn draining_ends_what_would_last() {
    let fixture = Fixture::new();
    let id = fixture.build().await;
    let log = tokio::spawn(text(fixture.get(&format!("/v1/builds/{id}/log")).await));
    let polling = format!("/v1/builds/{id}?wait=60");
    let poll = fixture.get(&polling);
    let call = call();
    let call = fixture.post(CALL, &call);
    fixture.site.draining.cancel();
    let log = log.await.expect("it ends");
    assert!(log.contains("retry:") && !log.contains("event: end"), "{log}");
    assert_eq!(whole(poll.await).await.1["state"], "queued");
    let (status, error) = whole(call.await).await;
    assert_eq!((status.as_u16(), &error["code"]), (503, &json!("unavailable")));
    assert_eq!(fixture.get("/readyz").await.status(), 503);
}

#[tokio::test]
async fn a_long_poll_ends_with_the_build() {
    let fixture = Fixture::new();
    let id = fixture.build().await;
    let path = format!("/v1/builds/{id}?wait=60");
    let (answer, ()) = tokio::join!(fixture.get(&path), async {
        tokio::task::yield_now().await;
        fixture.memory.end(id, fixture.memory.made(b"binary"));
    });
    let tag = answer.headers()[header::ETAG].clone();
    let view = whole(answer).await.1;
    assert_eq!(view["state"], "succeeded");
    let known = Request::get(format!("/v1/builds/{id}")).header("if-none-match", tag);
    assert_eq!(fixture.ask(known.body(Body::empty()).expect("a request")).await.status(), 304);
    // What is there already is told as such.
    assert_eq!(whole(fixture.post("/v1/builds", &submit()).await).await.0, 200);
}

#[tokio::test]
async fn an_artifact_whole_and_in_parts() {
    let fixture = Fixture::new();
    let id = fixture.build().await;
    fixture.memory.end(id, fixture.memory.made(b"0123456789"));
    let view = whole(fixture.get(&format!("/v1/builds/{id}")).await).await.1;
    let path = view["artifact"]["path"].as_str().expect("a path").to_owned();
    let all = fixture.get(&path).await;
    assert_eq!(all.headers()["content-disposition"], "attachment; filename=\"rr.exe\"");
    assert_eq!(all.headers()["accept-ranges"], "bytes");
    assert!(all.headers()["cache-control"].to_str().is_ok_and(|value| value.contains("immutable")));
    assert_eq!(all.headers()["etag"], format!("\"{}\"", view["artifact"]["sha256"].as_str().expect("a sum")));
    assert_eq!(text(all).await, "0123456789");
    let part = Request::get(&path).header("range", "bytes=2-4").body(Body::empty()).expect("a request");
    let part = fixture.ask(part).await;
    assert_eq!(
        (part.status().as_u16(), &part.headers()["content-range"]),
        (206, &"bytes 2-4/10".parse().expect("a value"))
    );
    assert_eq!(text(part).await, "234");
    // A range is for GET alone.
    let head = Request::head(&path).header("range", "bytes=2-4").body(Body::empty()).expect("a request");
    let head = fixture.ask(head).await;
    assert_eq!(
        (head.status().as_u16(), &head.headers()["content-length"]),
        (200, &"10".parse().expect("a value"))
    );
    assert_eq!(text(head).await, "");
}

#[tokio::test]
async fn a_call_waits_and_gets_the_path_and_the_log() {
    let fixture = Fixture::new();
    let call = call();
    let (answer, ()) = tokio::join!(fixture.post(CALL, &call), async {
        let id = loop {
            let first = fixture.memory.state().builds.keys().next().copied();
            match first {
                Some(id) => break id,
                None => tokio::task::yield_now().await,
            }
        };
        fixture.memory.say(id, "compiling");
        fixture.memory.end(id, fixture.memory.made(b"binary"));
    });
    let (status, answer) = whole(answer).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["logs"], "compiling\n");
    let path = answer["path"].as_str().expect("a path");
    assert_eq!(text(fixture.get(path).await).await, "binary");
    // Both ways ask for the same.
    assert_eq!(whole(fixture.post("/v1/builds", &submit()).await).await.0, 200);
    let again = whole(fixture.post(CALL, &call).await).await.1;
    assert_eq!(again["path"], path);
}

#[tokio::test]
async fn calls_fail_as_the_build_does() {
    let kinds = [
        (FailureKind::Invalid, 400, "invalid_argument"),
        (FailureKind::Failed, 500, "internal"),
        (FailureKind::Unavailable, 503, "unavailable"),
        (FailureKind::Limit, 429, "resource_exhausted"),
    ];
    for (kind, status, code) in kinds {
        let fixture = Fixture::new();
        let id = fixture.build().await;
        let call = call();
        let (answer, ()) = tokio::join!(fixture.post(CALL, &call), async {
            tokio::task::yield_now().await;
            fixture
                .memory
                .end(id, BuildOutcome::Failed(BuildFailure { kind, message: "no such version".to_owned() }));
        });
        let (answered, error) = whole(answer).await;
        assert_eq!((answered.as_u16(), &error["code"]), (status, &json!(code)), "{error}");
        assert_eq!(error["message"], "no such version");
    }
}

#[tokio::test]
async fn every_wrong_field_of_a_call_is_named() {
    let fixture = Fixture::new();
    let cases: [(Change, &str); 13] = [
        (|call| call["request_id"] = json!("17"), "request_id"),
        (|call| call["rr_version"] = json!(""), "rr_version"),
        (|call| call["rr_version"] = json!("main"), "rr_version"),
        (|call| call["rrVersion"] = json!("2025.1"), "rr_version"),
        (|call| call["plugins"] = json!([]), "plugins"),
        (|call| call["plugins"] = json!(null), "plugins"),
        (|call| call["plugins"][0]["module_name"] = json!(""), "plugins[0].module_name"),
        (|call| call["plugins"][0]["module_name"] = json!("no module"), "plugins[0].module_name"),
        (|call| call["plugins"][0]["tag"] = json!(""), "plugins[0].tag"),
        (|call| call["target_platform"]["os"] = json!("plan9"), "target_platform"),
        (|call| call["target_platform"]["arch"] = json!(""), "target_platform.arch"),
        (|call| call["replaces"] = json!([{"old": "example.com/x"}]), "replaces[0].new"),
        (|call| call["excludes"] = json!([{"module": "example.com/x"}]), "excludes[0].version"),
    ];
    for (change, field) in cases {
        let mut call = call();
        if field == "rr_version" {
            call.as_object_mut().expect("an object").remove("rr_version");
        }
        change(&mut call);
        let (status, error) = whole(fixture.post(CALL, &call).await).await;
        assert_eq!((status.as_u16(), &error["code"]), (400, &json!("invalid_argument")), "{call}: {error}");
        assert!(error["message"].as_str().is_some_and(|message| message.contains(field)), "{field}: {error}");
    }
    let mut race = call();
    race["race"] = json!(true);
    let (_, error) = whole(fixture.post(CALL, &race).await).await;
    assert_eq!(error["code"], "failed_precondition");
    for malformed in ["{", "[]", "{\"plugins\": 7}", "\"\""] {
        let request = Request::post(CALL).header("content-type", "application/json");
        let response = fixture.ask(request.body(Body::from(malformed)).expect("a request")).await;
        assert_eq!(response.status(), 400, "{malformed}");
    }
}

#[tokio::test]
async fn what_is_longer_than_any_servers_is_not_kept() {
    let fixture = Fixture::new();
    let cases: [(Change, &str); 6] = [
        (|build| build["roadrunner"] = json!("v1".repeat(2000)), "build.roadrunner"),
        (|build| build["plugins"][0]["ref"] = json!("v1".repeat(2000)), "build.plugins[0]"),
        (
            |build| build["replaces"] = json!([{"old": "example.com/x", "new": "x".repeat(2000)}]),
            "build.replaces[0]",
        ),
        (|build| build["tags"] = json!(["ok", "x".repeat(2000)]), "build.tags[1]"),
        (|build| build["stamp_version"] = json!("x".repeat(2000)), "build.stamp_version"),
        (|build| build["plugins"] = json!(vec![build["plugins"][0].clone(); 501]), "build.plugins"),
    ];
    for (change, field) in cases {
        let mut build = spec();
        change(&mut build);
        let (status, problem) = whole(fixture.post("/v1/builds", &json!({ "build": build })).await).await;
        assert_eq!((status.as_u16(), &problem["errors"][0]["field"]), (422, &json!(field)), "{problem}");
    }
}

#[tokio::test]
async fn a_name_that_is_no_text_names_nothing() {
    let fixture = Fixture::new();
    for path in ["/v1/builds/%ff", "/v1/builds/%ff/log", "/v1/artifacts/%ff", "/builds/%ff", "/assets/%ff"] {
        let answer = fixture.ask(Request::get(path).body(Body::empty()).expect("a request")).await;
        assert_eq!(answer.headers()["content-type"], "application/problem+json", "{path}");
        let (status, problem) = whole(answer).await;
        assert_eq!((status.as_u16(), &problem["type"]), (404, &json!("not_found")), "{path}");
    }
}

#[tokio::test]
async fn only_this_machines_names_and_only_known_origins() {
    let entrance = Entrance {
        own_names: true,
        origins: vec![HeaderValue::from_static("https://pages.example")],
        secure: true,
    };
    let fixture = Fixture::with(&entrance);
    let named = |host: &'static str| {
        fixture.ask(Request::get("/healthz").header("host", host).body(Body::empty()).expect("a request"))
    };
    assert_eq!(named("localhost:8080").await.status(), 200);
    assert_eq!(named("rebound.example").await.status(), 421);
    let from = |origin: &'static str| {
        let request = Request::get("/healthz").header("host", "localhost").header("origin", origin);
        fixture.ask(request.body(Body::empty()).expect("a request"))
    };
    let known = from("https://pages.example").await;
    assert_eq!(known.headers()["access-control-allow-origin"], "https://pages.example");
    let unknown = from("https://evil.example").await;
    assert!(!unknown.headers().contains_key("access-control-allow-origin"));
    for header in
        ["x-content-type-options", "content-security-policy", "referrer-policy", "strict-transport-security"]
    {
        assert!(unknown.headers().contains_key(header), "{header}");
    }
}

#[tokio::test]
async fn a_build_is_cancelled_by_those_who_asked_for_it() {
    let fixture = Fixture::new();
    let id = fixture.build().await;
    let cancel = || Request::delete(format!("/v1/builds/{id}")).body(Body::empty()).expect("a request");
    let (status, problem) = whole(fixture.ask_from([10, 1, 1, 1], cancel()).await).await;
    assert_eq!((status.as_u16(), &problem["type"]), (403, &json!("forbidden")));
    let (status, view) = whole(fixture.ask(cancel()).await).await;
    assert_eq!((status.as_u16(), &view["state"]), (200, &json!("cancelled")));
}

#[test]
fn a_spec_of_a_call_is_the_spec_of_a_request() {
    let call: crate::proto::api::request::v1::BuildRequest = serde_json::from_value(call()).expect("a call");
    let of_call = rpc::spec(call).expect("it is right").normalized().expect("it is right");
    let of_request: BuildSpec = serde_json::from_value(spec()).expect("a request");
    assert_eq!(of_call.key().unwrap(), of_request.normalized().expect("it is right").key().unwrap());
}
