//! Tests workers with a fake runner.

use std::collections::VecDeque;

use async_trait::async_trait;
use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;
use velox_api::{BuildSpec, BuildState, PluginSpec};

use super::*;
use crate::{
    build::{Build, NewBuild, Tenant},
    store::{
        SqliteStore, StoreOptions,
        behaviour::{artifact, result},
    },
};

/// A runner whose behaviour is selected by the build's ref.
struct FakeRunner;

#[async_trait]
impl JobRunner for FakeRunner {
    async fn run(&self, build: &Build, log: mpsc::Sender<LogEntry>, cancel: CancellationToken) -> RunOutcome {
        let say = |text: String| LogEntry::new(Severity::Output, text);
        match build.spec.roadrunner.as_str() {
            "waits" => {
                log.send(say("waiting".to_owned())).await.unwrap();
                cancel.cancelled().await;
                RunOutcome::Cancelled
            }
            "panics" => panic!("as it was told"),
            "fails" => {
                RunOutcome::Failed(BuildFailure { kind: FailureKind::Failed, message: "no".to_owned() })
            }
            "leaves" => RunOutcome::Cancelled,
            "shouts" => {
                for number in 0..2000 {
                    log.send(say(format!("{number} {}", "é".repeat(500)))).await.unwrap();
                }
                log.send(LogEntry { level: Severity::Error, ..say("the last word".to_owned()) })
                    .await
                    .unwrap();
                RunOutcome::Failed(BuildFailure { kind: FailureKind::Failed, message: "no".to_owned() })
            }
            name => {
                log.send(say(format!("making {name}"))).await.unwrap();
                made(name)
            }
        }
    }
}

fn made(name: &str) -> RunOutcome {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("rr");
    std::fs::write(&file, name).unwrap();
    let made = result(artifact(HEXLOWER.encode(&Sha256::digest(name)), name.len()));
    RunOutcome::Succeeded { made, file, directory }
}

struct Fixture {
    _directory: TempDir,
    store: SqliteStore,
    artifacts: Arc<ArtifactBucket>,
    shutdown: CancellationToken,
    worker: Option<tokio::task::JoinHandle<()>>,
}

impl Fixture {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let options = StoreOptions { lease_time: Duration::from_secs(3), ..StoreOptions::LARGE };
        let store = SqliteStore::open(&directory.path().join("builds.db"), options).await.unwrap();
        let artifacts =
            Arc::new(ArtifactBucket::open_directory(&directory.path().join("artifacts")).unwrap());
        Self { _directory: directory, store, artifacts, shutdown: CancellationToken::new(), worker: None }
    }

    fn worker(&self) -> Worker {
        Worker {
            sign_key: None,
            store: Arc::new(self.store.clone()),
            artifacts: Arc::clone(&self.artifacts),
            runner: Arc::new(FakeRunner),
            name: "worker".to_owned(),
            jobs: 1,
            log: 100_000,
            drain: Duration::from_millis(50),
            telemetry: Telemetry::new(None).unwrap(),
        }
    }

    async fn working() -> Self {
        let mut this = Self::new().await;
        this.worker = Some(tokio::spawn(this.worker().work(this.shutdown.clone())));
        this
    }

    async fn submit(&self, roadrunner: &str) -> BuildId {
        let spec = BuildSpec::new(roadrunner, vec![PluginSpec::new("example.com/a", "v1.0.0")]);
        self.store.submit(NewBuild::new(spec, tenant())).await.unwrap().build().id
    }

    /// Waits until the build matches.
    async fn until(&self, id: BuildId, reached: impl Fn(&Build) -> bool) -> Build {
        self.once(id, async || self.store.get(id).await.unwrap().filter(&reached)).await
    }

    /// Waits for a line of the build's log.
    async fn said(&self, id: BuildId, line: &str) {
        self.once(id, async || self.texts(id).await.into_iter().find(|text| text == line)).await;
    }

    /// Calls `find` after each change of the build until it returns a value.
    async fn once<T>(&self, id: BuildId, find: impl AsyncFn() -> Option<T>) -> T {
        let wait = async {
            use futures::StreamExt as _;
            let mut changes = self.store.watch(id).await.unwrap();
            loop {
                changes.next().await.unwrap();
                if let Some(found) = find().await {
                    return found;
                }
            }
        };
        timeout(Duration::from_secs(30), wait).await.expect("it takes too long")
    }

    async fn ended(&self, id: BuildId) -> Build {
        self.until(id, |build| build.state.is_final()).await
    }

    async fn texts(&self, id: BuildId) -> VecDeque<String> {
        self.store.log(id, 0, 10_000).await.unwrap().into_iter().map(|entry| entry.text).collect()
    }
}

fn tenant() -> Tenant {
    Tenant("somebody".to_owned())
}

fn kind(build: &Build) -> Option<FailureKind> {
    match &build.outcome {
        Some(BuildOutcome::Failed(failure)) => Some(failure.kind),
        _ => None,
    }
}

#[tokio::test]
async fn builds_end_as_their_runs_do() {
    let place = Fixture::working().await;
    let good = place.submit("v1.0.0").await;
    let bad = place.submit("fails").await;
    let broken = place.submit("panics").await;
    let odd = place.submit("leaves").await;
    let build = place.ended(good).await;
    let Some(BuildOutcome::Succeeded(made)) = build.outcome else { panic!("it is made") };
    assert_eq!(place.artifacts.find(&made.artifact.sha256).await.unwrap(), Some(6));
    assert_eq!(place.texts(good).await, ["making v1.0.0"]);
    assert_eq!(kind(&place.ended(bad).await), Some(FailureKind::Failed));
    assert_eq!(kind(&place.ended(broken).await), Some(FailureKind::Internal));
    assert_eq!(kind(&place.ended(odd).await), Some(FailureKind::Internal));
}

#[tokio::test]
async fn a_cancelled_build_ends_soon() {
    let place = Fixture::working().await;
    let id = place.submit("waits").await;
    place.until(id, |build| build.state == BuildState::Running).await;
    place.store.cancel(id, &tenant()).await.unwrap();
    assert_eq!(place.ended(id).await.state, BuildState::Cancelled);
}

#[tokio::test]
async fn what_runs_at_the_shutdown_is_given_back() {
    let mut place = Fixture::working().await;
    let id = place.submit("waits").await;
    // Not only leased, but running.
    place.said(id, "waiting").await;
    place.shutdown.cancel();
    place.worker.take().unwrap().await.unwrap();
    let build = place.store.get(id).await.unwrap().unwrap();
    assert_eq!((build.state, build.attempts), (BuildState::Queued, 0));
    let log = place.texts(id).await;
    assert_eq!(log, ["waiting", "the worker is shutting down; the build is queued again"]);
}

#[tokio::test]
async fn a_long_log_is_cut_and_says_so() {
    let place = Fixture::working().await;
    let id = place.submit("shouts").await;
    place.ended(id).await;
    let log = place.texts(id).await;
    let bytes: usize = log.iter().map(String::len).sum();
    assert!((80_000..110_000).contains(&bytes), "{bytes} bytes");
    let notices: Vec<&String> = log.iter().filter(|line| !line.contains('é')).collect();
    assert_eq!(notices[0], "the log is longer than 100000 bytes: what follows of it is left out");
    assert_eq!(notices[1], "the last word");
    assert!(notices[2].ends_with(" lines of the log were left out"), "{}", notices[2]);
}

#[tokio::test]
async fn a_failing_artifact_store_is_retried() {
    let place = Fixture::new().await;
    place.artifacts.failing_puts.store(2, Ordering::Relaxed);
    let working = tokio::spawn(place.worker().work(place.shutdown.clone()));
    let id = place.submit("v1.0.0").await;
    assert_eq!(place.ended(id).await.state, BuildState::Succeeded);
    place.shutdown.cancel();
    working.await.unwrap();
    assert_eq!(place.artifacts.failing_puts.load(Ordering::Relaxed), 0);
}

#[test]
fn long_lines_are_cut_between_letters() {
    let mut budget = LogBudget::new(1 << 20);
    let entry = budget.admit(LogEntry::new(Severity::Warning, "é".repeat(MAX_LINE_BYTES))).unwrap();
    assert!(
        entry.text.ends_with(&format!("é… ({MAX_LINE_BYTES} bytes more)")),
        "{}",
        &entry.text[MAX_LINE_BYTES - 4..]
    );
}
