#![allow(clippy::unwrap_used)]

use std::{
    collections::{BTreeSet, HashMap},
    sync::Mutex,
    time::Duration,
};

use async_trait::async_trait;
use axum::{Extension, body::Body, http::Request};
use futures::{StreamExt, stream::BoxStream};
use http_body_util::BodyExt;
use tower::ServiceExt;
use velox_api::{
    ArtifactInfo, BuildFailure, BuildSpec, BuildState, FailureKind, LogEntry, PluginSpec, QueuePosition,
    Severity,
};

use super::*;
use crate::{
    artifacts::ArtifactBucket,
    auth::Identity,
    build::{Build, BuildOutcome, BuildResult, NewBuild, Tenant},
    caller::{Caller, TokenScope},
    policy::BuildPolicy,
    store::{BuildStore, Lease, LeaseStatus, QueueDepth, Submission},
    telemetry::Telemetry,
};

const ME: &str = "127.0.0.1";

/// A store with these builds, which takes others unless it is full.
#[derive(Default)]
struct Store {
    builds: Mutex<Vec<Build>>,
    log: Vec<LogEntry>,
    full: bool,
}

#[async_trait]
impl BuildStore for Store {
    async fn submit(&self, new: NewBuild) -> Result<Submission, StoreError> {
        if self.full {
            return Err(StoreError::QueueFull { waiting: 64 });
        }
        let build = Build { spec: new.spec, ..build(BuildState::Queued, None) };
        self.builds.lock().unwrap().push(build.clone());
        Ok(Submission::Queued(build))
    }

    async fn get(&self, id: BuildId) -> Result<Option<Build>, StoreError> {
        Ok(self.builds.lock().unwrap().iter().find(|build| build.id == id).cloned())
    }

    async fn recent(&self, _: usize) -> Result<Vec<Build>, StoreError> {
        Ok(self.builds.lock().unwrap().clone())
    }

    async fn cancel(&self, id: BuildId, tenant: &Tenant) -> Result<Option<Build>, StoreError> {
        let mut builds = self.builds.lock().unwrap();
        let build = builds.iter_mut().find(|build| build.id == id && build.wanted_by.contains(tenant));
        Ok(build.map(|build| {
            build.state = BuildState::Cancelled;
            build.clone()
        }))
    }

    async fn log(&self, _: BuildId, after: u64, limit: usize) -> Result<Vec<LogEntry>, StoreError> {
        Ok(self.log.iter().filter(|entry| entry.seq > after).take(limit).cloned().collect())
    }

    async fn watch(&self, _: BuildId) -> Result<BoxStream<'static, ()>, StoreError> {
        Ok(futures::stream::pending().boxed())
    }

    async fn artifact(&self, _: &str) -> Result<Option<ArtifactInfo>, StoreError> {
        Ok(None)
    }

    async fn ready(&self) -> Result<(), StoreError> {
        Ok(())
    }

    async fn lease(&self, _: &str) -> Result<Lease, StoreError> {
        std::future::pending().await
    }

    fn lease_time(&self) -> Duration {
        Duration::from_secs(1)
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

    async fn depth(&self) -> Result<QueueDepth, StoreError> {
        Ok(QueueDepth { queued: 3, running: 2 })
    }

    async fn position(&self, _: BuildId) -> Result<Option<QueuePosition>, StoreError> {
        Ok(Some(QueuePosition { at: 3, of: 7 }))
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

fn build(state: BuildState, outcome: Option<BuildOutcome>) -> Build {
    let plugin = |name: &str, reference: &str| {
        PluginSpec::new(format!("github.com/roadrunner-server/{name}/v5"), reference)
    };
    let spec = BuildSpec {
        target: velox_manifest::parse_target("linux/amd64").unwrap(),
        ..BuildSpec::new("v2025.1.15", vec![plugin("http", "v5.3.0"), plugin("rpc", "v5.1.9")])
    };
    let now = Timestamp::now();
    Build {
        id: BuildId::new(),
        key: spec.key().unwrap(),
        spec,
        force: false,
        state,
        tenant: Tenant(ME.to_owned()),
        wanted_by: BTreeSet::from([Tenant(ME.to_owned())]),
        trace: None,
        attempts: 1,
        created: now,
        started: (state != BuildState::Queued).then_some(now),
        finished: state.is_final().then_some(now),
        outcome,
    }
}

fn made() -> BuildOutcome {
    BuildOutcome::Succeeded(Box::new(BuildResult {
        artifact: ArtifactInfo {
            sha256: "5e".repeat(32),
            size: 57_234_123,
            file_name: "rr".to_owned(),
            target: "linux/amd64".to_owned(),
        },
        version: "v2025.1.15".to_owned(),
        go_version: "go1.26.8".to_owned(),
        configuration: build(BuildState::Queued, None).spec.configuration(),
        lock: String::new(),
        warnings: vec!["kv was raised from v5.2.8 to v5.2.9: redis v5.1.10 demands it".to_owned()],
    }))
}

fn entry(seq: u64, level: Severity, text: &str, phase: Option<&str>) -> LogEntry {
    let time = Timestamp::from_second(1_790_000_000 + i64::try_from(seq).unwrap()).unwrap();
    LogEntry {
        seq,
        time,
        level,
        text: text.to_owned(),
        phase: phase.map(str::to_owned),
        done: None,
        total: None,
    }
}

fn caller() -> Caller {
    Caller {
        tenant: Tenant(ME.to_owned()),
        scopes: BTreeSet::from([TokenScope::Build, TokenScope::Read]),
        builds_at_once: None,
        builds_per_hour: None,
        modules: None,
    }
}

fn routes_of(store: Store) -> Router {
    let store = Arc::new(store);
    let service = Service {
        telemetry: Telemetry::new(None).unwrap(),
        store,
        artifacts: ArtifactBucket::in_memory(),
        policy: BuildPolicy::default(),
        rates: Arc::default(),
    };
    routes(service, Releases::built_in()).layer(Extension(Identity(Ok(caller()))))
}

async fn ask(router: &Router, request: Request<Body>) -> (StatusCode, HeaderMap, String) {
    let (parts, body) = router.clone().oneshot(request).await.unwrap().into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    (parts.status, parts.headers, String::from_utf8(body.to_vec()).unwrap())
}

async fn page(router: &Router, path: &str) -> String {
    let (status, _, text) = ask(router, Request::get(path).body(Body::empty()).unwrap()).await;
    assert_eq!(status, StatusCode::OK, "{path}");
    text
}

fn form(text: &str) -> Request<Body> {
    Request::post("/build").body(Body::from(text.to_owned())).unwrap()
}

fn with(builds: &[Build]) -> Router {
    routes_of(Store { builds: Mutex::new(builds.to_vec()), ..Store::default() })
}

fn failure(message: &str) -> BuildOutcome {
    BuildOutcome::Failed(BuildFailure { kind: FailureKind::Invalid, message: message.to_owned() })
}

const HTTP: &str = "github.com/roadrunner-server/http/v5";

#[tokio::test]
async fn all_of_a_first_visit_is_small() {
    const LIMIT: usize = 100_000;
    let running = build(BuildState::Running, None);
    let log = (1..5000).map(|seq| entry(seq, Severity::Output, &"x".repeat(200), Some("compile"))).collect();
    let builds = Mutex::new(vec![running.clone()]);
    let router = routes_of(Store { builds, log, full: false });
    let extras: usize =
        [&*assets::STYLE, &*assets::SCRIPT, &*assets::ICON].iter().map(|asset| asset.text.len()).sum();
    for path in ["/?set=release".to_owned(), format!("/builds/{}", running.id)] {
        let mut path = path;
        if path.contains("set=") {
            let (status, headers, _) = ask(&router, Request::get(&path).body(Body::empty()).unwrap()).await;
            assert_eq!(status, StatusCode::SEE_OTHER);
            path = headers[header::LOCATION].to_str().unwrap().to_owned();
        }
        let size = page(&router, &path).await.len() + extras;
        assert!(size < LIMIT, "{path}: {size} bytes");
        println!("{path:.40}: {size} bytes before compression");
    }
}

#[tokio::test]
async fn nothing_comes_from_elsewhere_and_nothing_is_inline() {
    let builds = [
        build(BuildState::Queued, None),
        build(BuildState::Running, None),
        build(BuildState::Succeeded, Some(made())),
        build(BuildState::Failed, Some(failure("no"))),
        build(BuildState::Cancelled, None),
    ];
    let router = with(&builds);
    let paths = builds.iter().map(|build| format!("/builds/{}", build.id)).chain(["/".to_owned()]);
    for path in paths {
        let (_, headers, text) = ask(&router, Request::get(&path).body(Body::empty()).unwrap()).await;
        let policy = headers[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
        for inline in [" style=", "<style", "javascript:", " onclick", " onload", " onsubmit"] {
            assert!(!text.contains(inline), "{path} has {inline}");
        }
        assert_eq!(text.matches("<script").count(), 1, "{path}");
        for source in text.split(" src=\"").skip(1) {
            assert!(source.starts_with("/assets/"), "{path} loads {source:.60}");
        }
        let refreshes = text.contains("http-equiv=\"refresh\"");
        let going_on =
            builds.iter().any(|build| path.contains(&build.id.to_string()) && !build.state.is_final());
        assert_eq!(refreshes, going_on, "{path}");
    }
}

#[tokio::test]
async fn assets_are_kept_for_good_under_names_of_their_content() {
    let router = with(&[]);
    let index = page(&router, "/").await;
    for asset in [&*assets::STYLE, &*assets::SCRIPT, &*assets::ICON] {
        assert!(index.contains(&asset.path));
        let (_, headers, text) = ask(&router, Request::get(&asset.path).body(Body::empty()).unwrap()).await;
        assert_eq!(text, asset.text);
        assert!(headers[header::CACHE_CONTROL].to_str().unwrap().contains("immutable"));
    }
    let other = Request::get("/assets/page-000000000000.css").body(Body::empty()).unwrap();
    assert_eq!(ask(&router, other).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_form_is_a_build() {
    let router = with(&[]);
    let (status, headers, _) = ask(&router, form(&format!("rr=v2025.1.15&p={HTTP}&v.{HTTP}=v5.2.7"))).await;
    assert_eq!(status, StatusCode::SEE_OTHER);
    let path = headers[header::LOCATION].to_str().unwrap();
    let text = page(&router, path).await;
    assert!(text.contains("RoadRunner v2025.1.15 with 1 plugin<"), "{text}");
    assert!(text.contains("It is 3rd of 7 in the queue; 2 builds are running."), "{text}");
    assert!(text.contains("Cancel this build"), "{text}");
    let again = format!("/?rr=v2025.1.15&amp;p={HTTP}@v5.2.7&amp;target=");
    assert!(text.contains(&again), "{text}");

    let cancel = Request::post(format!("{path}/cancel")).body(Body::empty()).unwrap();
    assert_eq!(ask(&router, cancel).await.0, StatusCode::SEE_OTHER);
    assert!(page(&router, path).await.contains("Cancelled"));
}

#[tokio::test]
async fn what_is_wrong_stands_beside_its_field_and_the_form_stays_filled() {
    let router = with(&[]);
    let sent = format!(
        "rr=v2025.1.15&ref=a%20b&p={HTTP}&v.{HTTP}=%3Cv%209%3E&more=example.com/x&target=plan9/amd64&race=1&debug=1&tags=one"
    );
    let (status, _, text) = ask(&router, form(&sent)).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    for id in ["ref", "v-http", "more", "target"] {
        assert!(text.contains(&format!("id=\"{id}-wrong\"")), "nothing at {id}: {text}");
        assert!(text.contains(&format!("href=\"#{id}\"")), "no way to {id}");
        assert!(text.contains(&format!(" id=\"{id}\"")), "no {id}");
    }
    for kept in [
        "value=\"a b\"",
        "value=\"&lt;v 9&gt;\"",
        ">example.com/x</textarea>",
        "value=\"one\"",
        "<details class=\"step advanced\" open",
    ] {
        assert!(text.contains(kept), "{kept} is lost: {text}");
    }
    assert!(!text.contains("<v 9>"));

    let (status, _, text) = ask(&router, form("rr=v2025.1.15&p=")).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(text.contains("choose at least one"), "{text}");
    assert_eq!(text.matches("choose at least one").count(), 2, "in the summary and at its place");

    // What the operator doesn't allow is said the same way.
    let (status, _, text) = ask(&router, form(&format!("rr=v2025.1.15&p={HTTP}@v5.3.0&race=1"))).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(text.contains("id=\"race-wrong\""), "{text}");
}

#[tokio::test]
async fn a_full_queue_keeps_the_choice() {
    let router = routes_of(Store { full: true, ..Store::default() });
    let (status, headers, text) = ask(&router, form(&format!("rr=v2025.1.15&p={HTTP}@v5.2.1"))).await;
    assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(headers[header::RETRY_AFTER], AGAIN.to_string());
    assert!(text.contains("the queue is full") && text.contains("value=\"v5.2.1\""), "{text}");
}

#[tokio::test]
async fn forms_of_other_pages_are_refused() {
    let mine = build(BuildState::Running, None);
    let router = with(std::slice::from_ref(&mine));
    let cancel = format!("/builds/{}/cancel", mine.id);
    let from = |path: &str, headers: &[(&str, &str)]| {
        let request = Request::post(path).header("host", "vx.example:8080");
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        request.body(Body::from(format!("rr=v2025.1.15&p={HTTP}@v5.3.0"))).unwrap()
    };
    for headers in [
        &[("sec-fetch-site", "cross-site")][..],
        &[("sec-fetch-site", "same-site"), ("origin", "http://vx.example:8080")],
        &[("origin", "http://evil.example")],
        &[("origin", "null")],
        &[("origin", "http://vx.example")],
    ] {
        for path in ["/build", &cancel] {
            let (status, _, _) = ask(&router, from(path, headers)).await;
            assert_eq!(status, StatusCode::FORBIDDEN, "{path} {headers:?}");
        }
    }
    for headers in [
        &[("sec-fetch-site", "same-origin")][..],
        &[("origin", "http://vx.example:8080")],
        &[("origin", "https://vx.example:8080")],
        &[],
    ] {
        assert_eq!(ask(&router, from("/build", headers)).await.0, StatusCode::SEE_OTHER, "{headers:?}");
    }
}

#[tokio::test]
async fn builds_show_how_far_they_are_and_what_came_of_them() {
    let mut others = build(BuildState::Running, None);
    others.wanted_by = BTreeSet::from([Tenant("somebody".to_owned())]);
    let ready = build(BuildState::Succeeded, Some(made()));
    let failed = build(BuildState::Failed, Some(failure("http has no version <v9>\nhelp: take v5.3.0")));
    let log = vec![
        entry(1, Severity::Info, "versions <are> looked for", Some("resolve")),
        LogEntry { done: Some(3), total: Some(7), ..entry(2, Severity::Info, "compiling", Some("compile")) },
        entry(3, Severity::Error, "undefined: x", None),
    ];
    let builds = Mutex::new(vec![others.clone(), ready.clone(), failed.clone()]);
    let router = routes_of(Store { builds, log, full: false });

    let text = page(&router, &format!("/builds/{}", others.id)).await;
    assert!(text.contains("versions &lt;are&gt; looked for") && text.contains("data-after=\"3\""), "{text}");
    assert!(text.contains("3 of 7") && text.contains("aria-current=\"step\""), "{text}");
    assert!(!text.contains("Cancel this build"), "it isn't theirs");
    let cancel = Request::post(format!("/builds/{}/cancel", others.id)).body(Body::empty()).unwrap();
    assert_eq!(ask(&router, cancel).await.0, StatusCode::FORBIDDEN);

    let text = page(&router, &format!("/builds/{}", ready.id)).await;
    let sha256 = "5e".repeat(32);
    assert!(text.contains(&format!("href=\"/v1/artifacts/{sha256}\"")) && text.contains("57.2 MB"), "{text}");
    assert!(text.contains("kv was raised") && text.contains("velox.lock"), "{text}");

    let text = page(&router, &format!("/builds/{}", failed.id)).await;
    assert!(
        text.contains("http has no version &lt;v9&gt;\nhelp") && text.contains("Change and try again"),
        "{text}"
    );

    for nothing in [BuildId::new().to_string(), "x".to_owned()] {
        let request = Request::get(format!("/builds/{nothing}")).body(Body::empty()).unwrap();
        let (status, headers, text) = ask(&router, request).await;
        assert_eq!(status, StatusCode::NOT_FOUND);
        assert!(
            text.contains("There is no such build") && headers.contains_key(header::CONTENT_SECURITY_POLICY)
        );
    }
}

/// WCAG 2.2, 1.4.3 and 1.4.11: the colours are the style's own variables, in both schemes.
#[test]
fn colours_can_be_told_apart() {
    fn luminance(hex: &str) -> f64 {
        let channel = |at: usize| {
            let value = f64::from(u8::from_str_radix(&hex[at..at + 2], 16).unwrap()) / 255.0;
            if value <= 0.04045 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
        };
        0.2126 * channel(1) + 0.7152 * channel(3) + 0.0722 * channel(5)
    }
    fn variable<'a>(scheme: &'a str, name: &str) -> Option<&'a str> {
        let (_, rest) = scheme.split_once(&format!("--{name}: "))?;
        rest.get(..7)
    }
    let style = assets::STYLE.text;
    let (light, rest) = style.split_once("@media (prefers-color-scheme: dark)").unwrap();
    let (dark, _) = rest.split_once("\n}\n").unwrap();
    let text = [
        ("text", "ground"),
        ("text", "surface"),
        ("text", "sunk"),
        ("text", "accent-soft"),
        ("text", "bad-soft"),
        ("text", "warn-soft"),
        ("muted", "ground"),
        ("muted", "surface"),
        ("muted", "sunk"),
        ("accent", "ground"),
        ("accent", "surface"),
        ("accent", "accent-soft"),
        ("accent-hover", "surface"),
        ("on-accent", "accent"),
        ("on-accent", "accent-hover"),
        ("good", "accent-soft"),
        ("bad", "surface"),
        ("bad", "bad-soft"),
        ("bad", "accent-soft"),
        ("warn", "warn-soft"),
        ("log-text", "log"),
        ("log-muted", "log"),
        ("log-warn", "log"),
        ("log-bad", "log"),
    ];
    let borders = [("edge", "surface"), ("edge", "accent-soft"), ("accent", "sunk"), ("accent", "ground")];
    for (scheme, name) in [(light, "light"), (dark, "dark")] {
        let of = |variable_name| {
            luminance(variable(scheme, variable_name).or_else(|| variable(light, variable_name)).unwrap())
        };
        let checked = text.iter().map(|pair| (pair, 4.5)).chain(borders.iter().map(|pair| (pair, 3.0)));
        for ((front, back), least) in checked {
            let (one, other) = (of(front), of(back));
            let contrast = (one.max(other) + 0.05) / (one.min(other) + 0.05);
            assert!(contrast >= least, "{name}: {front} on {back} is {contrast:.2}");
        }
    }
}
