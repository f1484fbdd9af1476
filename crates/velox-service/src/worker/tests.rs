//! Workers with a runner that does as it is told.

use std::{collections::VecDeque, ops::Range, sync::atomic::AtomicU64};

use async_trait::async_trait;
use bytes::Bytes;
use data_encoding::HEXLOWER;
use futures::stream::BoxStream;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;
use velox_api::{ArtifactInfo, BuildSpec, BuildState, PluginSpec};

use super::*;
use crate::{
    artifacts::{Folder, Stored},
    build::{Build, BuildResult, NewBuild, Tenant},
    store::{Records as _, SqliteOptions, SqliteStore},
};

/// What a build's ref says, its run does.
struct Told;

#[async_trait]
impl JobRunner for Told {
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
    let artifact = ArtifactInfo {
        sha256: HEXLOWER.encode(&Sha256::digest(name)),
        size: name.len() as u64,
        file_name: "rr".to_owned(),
        target: "linux/amd64".to_owned(),
    };
    let made = BuildResult {
        artifact,
        version: name.to_owned(),
        go_version: "go1.26.8".to_owned(),
        configuration: String::new(),
        lock: String::new(),
        warnings: Vec::new(),
    };
    RunOutcome::Succeeded { made: Box::new(made), file, directory }
}

/// A folder that is in trouble for some time.
struct Troubled {
    folder: Folder,
    puts: AtomicU64,
}

#[async_trait]
impl Artifacts for Troubled {
    async fn put(&self, sha256: &str, file: &Path) -> Result<(), StoreError> {
        if self.puts.fetch_add(1, Ordering::Relaxed) < 2 {
            return Err(StoreError::Failed("no space left on device".to_owned()));
        }
        self.folder.put(sha256, file).await
    }

    async fn find(&self, sha256: &str) -> Result<Option<Stored>, StoreError> {
        self.folder.find(sha256).await
    }

    async fn read(
        &self,
        sha256: &str,
        range: Range<u64>,
    ) -> Result<BoxStream<'static, Result<Bytes, StoreError>>, StoreError> {
        self.folder.read(sha256, range).await
    }

    async fn ready(&self) -> Result<(), StoreError> {
        self.folder.ready().await
    }
}

struct Place {
    directory: TempDir,
    store: SqliteStore,
    folder: Folder,
    shutdown: CancellationToken,
    worker: Option<tokio::task::JoinHandle<()>>,
}

impl Place {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let options = SqliteOptions { lease_time: Duration::from_secs(3), ..SqliteOptions::default() };
        let store = SqliteStore::open(&directory.path().join("builds.db"), options).await.unwrap();
        let folder = Folder::open(&directory.path().join("artifacts")).unwrap();
        Self { directory, store, folder, shutdown: CancellationToken::new(), worker: None }
    }

    fn worker(&self) -> Worker {
        Worker {
            queue: Arc::new(self.store.clone()),
            artifacts: Arc::new(self.folder.clone()),
            runner: Arc::new(Told),
            name: "worker".to_owned(),
            jobs: 1,
            log: 100_000,
            drain: Duration::from_millis(50),
        }
    }

    async fn working() -> Self {
        let mut this = Self::new().await;
        this.worker = Some(tokio::spawn(this.worker().work(this.shutdown.clone())));
        this
    }

    async fn submit(&self, roadrunner: &str) -> BuildId {
        let spec = BuildSpec::new(roadrunner, vec![PluginSpec::new("example.com/a", "v1.0.0")]);
        let new = NewBuild { spec, tenant: tenant(), force: false, at_once: None, trace: None };
        self.store.submit(new).await.unwrap().build().id
    }

    /// The build, once it is as it should be.
    async fn until(&self, id: BuildId, reached: impl Fn(&Build) -> bool) -> Build {
        self.once(id, async || self.store.get(id).await.unwrap().filter(&reached)).await
    }

    /// Waits for a line of the build's log.
    async fn said(&self, id: BuildId, line: &str) {
        self.once(id, async || self.texts(id).await.into_iter().find(|text| text == line)).await;
    }

    /// What is looked for after each change of the build, once it is there.
    async fn once<T>(&self, id: BuildId, find: impl AsyncFn() -> Option<T>) -> T {
        let wait = async {
            use futures::StreamExt as _;
            let mut changes = self.store.changes(id).await.unwrap();
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
    let place = Place::working().await;
    let good = place.submit("v1.0.0").await;
    let bad = place.submit("fails").await;
    let broken = place.submit("panics").await;
    let odd = place.submit("leaves").await;
    let build = place.ended(good).await;
    let Some(BuildOutcome::Succeeded(made)) = build.outcome else { panic!("it is made") };
    assert_eq!(place.folder.find(&made.artifact.sha256).await.unwrap(), Some(Stored { size: 6 }));
    assert_eq!(place.texts(good).await, ["making v1.0.0"]);
    assert_eq!(kind(&place.ended(bad).await), Some(FailureKind::Failed));
    assert_eq!(kind(&place.ended(broken).await), Some(FailureKind::Internal));
    assert_eq!(kind(&place.ended(odd).await), Some(FailureKind::Internal));
}

#[tokio::test]
async fn a_cancelled_build_ends_soon() {
    let place = Place::working().await;
    let id = place.submit("waits").await;
    place.until(id, |build| build.state == BuildState::Running).await;
    place.store.cancel(id, &tenant()).await.unwrap();
    assert_eq!(place.ended(id).await.state, BuildState::Cancelled);
}

#[tokio::test]
async fn what_runs_at_the_shutdown_is_given_back() {
    let mut place = Place::working().await;
    let id = place.submit("waits").await;
    // It isn't only taken: the worker has it in hand.
    place.said(id, "waiting").await;
    place.shutdown.cancel();
    place.worker.take().unwrap().await.unwrap();
    let build = place.store.get(id).await.unwrap().unwrap();
    assert_eq!((build.state, build.attempts), (BuildState::Queued, 0));
    let log = place.texts(id).await;
    assert_eq!(log, ["waiting", "the worker is shut down: the build is queued again"]);
}

#[tokio::test]
async fn a_long_log_is_cut_and_says_so() {
    let place = Place::working().await;
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
async fn trouble_with_a_store_passes() {
    let place = Place::new().await;
    let artifacts = Troubled { folder: place.folder.clone(), puts: AtomicU64::new(0) };
    let worker = Worker { artifacts: Arc::new(artifacts), ..place.worker() };
    let working = tokio::spawn(worker.work(place.shutdown.clone()));
    let id = place.submit("v1.0.0").await;
    assert_eq!(place.ended(id).await.state, BuildState::Succeeded);
    place.shutdown.cancel();
    working.await.unwrap();
    assert!(place.directory.path().exists());
}

#[test]
fn long_lines_are_cut_between_letters() {
    let mut budget = Budget::new(1 << 20);
    let entry = budget.admit(LogEntry::new(Severity::Warning, "é".repeat(LINE))).unwrap();
    assert!(entry.text.ends_with(&format!("é… ({LINE} bytes more)")), "{}", &entry.text[LINE - 4..]);
}
