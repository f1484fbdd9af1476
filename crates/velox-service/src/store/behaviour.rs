//! Tests that every store must pass; [`every_behaviour`] runs each of them on a new store.

use std::time::{Duration, Instant};

use futures::{StreamExt, future::join_all};
use jiff::Timestamp;
use tokio::time::timeout;
use velox_api::{
    ArtifactInfo, BuildFailure, BuildId, BuildSpec, BuildState, FailureKind, LogEntry, PluginSpec,
    QueuePosition, Severity,
};

use super::{
    BuildStore, Lease, LeaseStatus, MAX_LOG_READ_BYTES, QueueDepth, StoreError, StoreOptions, Submission,
};
use crate::build::{Build, BuildOutcome, BuildResult, NewBuild, Tenant};

/// The options of the store under test.
impl StoreOptions {
    /// Large enough that no limit is reached.
    pub(crate) const LARGE: Self = Self {
        queue: Some(100),
        time_to_live: Duration::from_secs(3600),
        lease_time: Duration::from_secs(60),
    };
    pub(crate) const SHORT_QUEUE: Self = Self { queue: Some(2), ..Self::LARGE };
    pub(crate) const SHORT_LIFE: Self = Self { time_to_live: Duration::from_millis(1), ..Self::LARGE };
    pub(crate) const SHORT_LEASE: Self = Self { lease_time: Duration::from_secs(1), ..Self::LARGE };
}

/// Defines a test for each behaviour. `$open` is an `async fn(StoreOptions) -> Option<(store, guard)>`; `None` skips
/// the test.
macro_rules! every_behaviour {
    ($open:path) => {
        $crate::store::behaviour::every_behaviour! { $open:
            identical_requests_share_one_build(LARGE)
            what_succeeded_answers_the_next_request(LARGE)
            a_branch_is_stale_after_its_time(SHORT_LIFE)
            a_failed_build_is_tried_again_and_hides_none_that_succeeded(LARGE)
            a_full_queue_takes_no_more_of_the_same_tenant(SHORT_QUEUE)
            a_tenant_has_no_more_builds_than_it_may(LARGE)
            a_tenant_has_no_more_builds_an_hour_than_it_may(LARGE)
            tenants_take_turns(LARGE)
            who_waits_knows_where(LARGE)
            logs_have_numbers_without_gaps(LARGE)
            a_long_log_is_read_from_its_end(LARGE)
            who_waits_for_changes_misses_none(LARGE)
            a_lease_that_is_not_extended_ends(SHORT_LEASE)
            a_lease_that_is_extended_stays(SHORT_LEASE)
            a_build_ends_when_nobody_wants_it(LARGE)
            a_running_build_is_stopped_when_nobody_wants_it(LARGE)
            a_cancelled_build_goes_on_for_who_asks_in_time(LARGE)
            a_released_build_is_next(LARGE)
            old_builds_are_forgotten(LARGE)
            nothing_leads_to_a_forgotten_artifact(LARGE)
        }
    };
    ($open:path: $($name:ident($setup:ident))*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                if let Some((store, _keep)) = $open($crate::store::StoreOptions::$setup).await {
                    $crate::store::behaviour::$name(&store).await;
                }
            }
        )*
    };
}
pub(crate) use every_behaviour;

/// A timeout that is never reached on a working store.
pub(crate) const SOON: Duration = Duration::from_secs(120);

fn spec(name: &str, reference: &str) -> BuildSpec {
    BuildSpec::new("v2025.1.5", vec![PluginSpec::new(format!("github.com/acme/{name}"), reference)])
}

fn tenant(name: &str) -> Tenant {
    Tenant(name.to_owned())
}

pub(crate) fn new(name: &str, who: &str) -> NewBuild {
    NewBuild::new(spec(name, "v1.0.0"), tenant(who))
}

pub(crate) fn artifact_of(sha256: &str) -> ArtifactInfo {
    artifact(sha256.repeat(32), 7)
}

/// A binary with this SHA-256 and size.
pub(crate) fn artifact(sha256: String, size: usize) -> ArtifactInfo {
    ArtifactInfo { sha256, size: size as u64, file_name: "rr".to_owned(), target: "linux/amd64".to_owned() }
}

pub(crate) fn result(artifact: ArtifactInfo) -> Box<BuildResult> {
    Box::new(BuildResult {
        artifact,
        version: "v2025.1.5".to_owned(),
        go_version: "go1.26.8".to_owned(),
        configuration: "[roadrunner]\n".to_owned(),
        lock: "lock\n".to_owned(),
        warnings: Vec::new(),
        documents: crate::build::BuildDocuments::default(),
    })
}

pub(crate) fn made(sha256: &str) -> BuildOutcome {
    BuildOutcome::Succeeded(result(artifact_of(sha256)))
}

/// As [`made`], without the lock.
pub(crate) fn stored(sha256: &str) -> BuildOutcome {
    let BuildOutcome::Succeeded(result) = made(sha256) else { unreachable!() };
    BuildOutcome::Succeeded(Box::new(BuildResult { lock: String::new(), ..*result }))
}

pub(crate) fn failed() -> BuildOutcome {
    BuildOutcome::Failed(BuildFailure { kind: FailureKind::Failed, message: "it doesn't compile".to_owned() })
}

pub(crate) fn entry(text: &str) -> LogEntry {
    LogEntry { time: Timestamp::UNIX_EPOCH, ..LogEntry::new(Severity::Output, text) }
}

async fn queued(store: &impl BuildStore, name: &str, who: &str) -> BuildId {
    match store.submit(new(name, who)).await.expect("it is taken") {
        Submission::Queued(build) => build.id,
        other => panic!("{other:?}"),
    }
}

pub(crate) async fn lease(store: &impl BuildStore) -> Lease {
    timeout(SOON, store.lease("worker")).await.expect("there is a build").expect("it can be leased")
}

async fn get(store: &impl BuildStore, id: BuildId) -> Build {
    store.get(id).await.expect("it can be read").expect("it is there")
}

/// Waits until the build matches.
pub(crate) async fn until(store: &impl BuildStore, id: BuildId, is: impl Fn(&Build) -> bool) -> Build {
    let mut changes = store.watch(id).await.expect("there are changes");
    let wait = async {
        loop {
            let build = get(store, id).await;
            if is(&build) {
                return build;
            }
            changes.next().await.expect("there is more to come");
        }
    };
    timeout(SOON, wait).await.expect("it happens soon")
}

/// Waits until the queue has this depth: the count may lag.
pub(crate) async fn until_depth(store: &impl BuildStore, queued: u64, running: u64) {
    let since = Instant::now();
    let wanted = QueueDepth { queued, running };
    loop {
        let depth = store.depth().await.expect("it can be counted");
        if depth == wanted {
            return;
        }
        assert!(since.elapsed() < SOON, "{depth:?} instead of {wanted:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(crate) async fn identical_requests_share_one_build(store: &impl BuildStore) {
    let requests = (0..40).map(|_| store.submit(new("a", "ann")));
    let submitted = join_all(requests).await;
    let submitted: Vec<Submission> = submitted.into_iter().map(|one| one.expect("it is taken")).collect();
    let queued = submitted.iter().filter(|one| matches!(one, Submission::Queued(_))).count();
    assert_eq!(queued, 1);
    let id = submitted[0].build().id;
    assert!(submitted.iter().all(|one| one.build().id == id), "{submitted:?}");

    assert!(matches!(store.submit(new("a", "bob")).await, Ok(Submission::Joined(build)) if build.id == id));
    let forced = NewBuild { force: true, ..new("a", "bob") };
    assert!(matches!(store.submit(forced).await, Ok(Submission::Joined(build)) if build.id == id));
    let leased = lease(store).await;
    assert_eq!((leased.build.id, leased.build.attempts, leased.build.state), (id, 1, BuildState::Running));
    assert!(matches!(store.submit(new("a", "cid")).await, Ok(Submission::Joined(build)) if build.id == id));
    assert_eq!(get(store, id).await.wanted_by, [tenant("ann"), tenant("bob"), tenant("cid")].into());
    until_depth(store, 0, 1).await;

    // The queue is empty.
    store.finish(&leased, made("0a")).await.expect("it ends");
    until_depth(store, 0, 0).await;
    assert!(timeout(Duration::from_millis(300), store.lease("worker")).await.is_err());
}

pub(crate) async fn what_succeeded_answers_the_next_request(store: &impl BuildStore) {
    let id = queued(store, "a", "ann").await;
    let leased = lease(store).await;
    store.finish(&leased, made("0b")).await.expect("it ends");
    let Ok(Submission::Finished(build)) = store.submit(new("a", "bob")).await else { panic!("it is made") };
    assert_eq!((build.id, build.state, &build.outcome), (id, BuildState::Succeeded, &Some(stored("0b"))));
    assert_eq!(store.lock(id).await.expect("it can be looked for").as_deref(), Some("lock\n"));
    assert_eq!(store.lock(BuildId::new()).await.expect("it can be looked for"), None);
    assert_eq!(get(store, id).await, build);
    let artifact = store.artifact(&"0b".repeat(32)).await.expect("it can be looked for");
    assert_eq!(artifact.map(|artifact| artifact.size), Some(7));
    assert_eq!(store.artifact(&"0c".repeat(32)).await.expect("it can be looked for"), None);
    assert_eq!(store.artifact("*").await.expect("it can be looked for"), None);

    let forced = NewBuild { force: true, ..new("a", "bob") };
    assert!(matches!(store.submit(forced).await, Ok(Submission::Queued(build)) if build.id != id));
    lease(store).await;
    let branch = || NewBuild::new(spec("b", "master"), tenant("ann"));
    store.submit(branch()).await.expect("it is taken");
    store.finish(&lease(store).await, made("0b")).await.expect("it ends");
    assert!(matches!(store.submit(branch()).await, Ok(Submission::Finished(_))), "it is fresh");
}

pub(crate) async fn a_branch_is_stale_after_its_time(store: &impl BuildStore) {
    let branch = || NewBuild::new(spec("a", "master"), tenant("ann"));
    for new in [branch(), new("b", "ann")] {
        store.submit(new).await.expect("it is taken");
        let leased = lease(store).await;
        store.finish(&leased, made("0c")).await.expect("it ends");
    }
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(matches!(store.submit(branch()).await, Ok(Submission::Queued(_))));
    assert!(matches!(store.submit(new("b", "ann")).await, Ok(Submission::Finished(_))));
}

pub(crate) async fn a_failed_build_is_tried_again_and_hides_none_that_succeeded(store: &impl BuildStore) {
    let first = queued(store, "a", "ann").await;
    store.finish(&lease(store).await, failed()).await.expect("it ends");
    let build = get(store, first).await;
    assert_eq!((build.state, build.outcome), (BuildState::Failed, Some(failed())));
    let last_failure = async |since| {
        let found = store.last_failure(&build.key, since).await.expect("it can be looked for");
        found.map(|build| build.id)
    };
    assert_eq!(last_failure(build.created).await, Some(first));
    assert_eq!(last_failure(Timestamp::MAX).await, None);

    let second = queued(store, "a", "ann").await;
    assert_ne!(first, second);
    assert_eq!(last_failure(build.created).await, None, "it is built again");
    store.finish(&lease(store).await, made("0d")).await.expect("it ends");
    assert_eq!(last_failure(build.created).await, None, "a later build succeeded");
    let forced = NewBuild { force: true, ..new("a", "ann") };
    assert!(matches!(store.submit(forced).await, Ok(Submission::Queued(_))));
    store.finish(&lease(store).await, failed()).await.expect("it ends");
    assert!(
        matches!(store.submit(new("a", "ann")).await, Ok(Submission::Finished(build)) if build.id == second)
    );
}

pub(crate) async fn a_full_queue_takes_no_more_of_the_same_tenant(store: &impl BuildStore) {
    queued(store, "a", "ann").await;
    queued(store, "b", "ann").await;
    let third = store.submit(new("c", "ann")).await;
    assert!(matches!(third, Err(StoreError::QueueFull { waiting: 2 })), "{third:?}");
    // Rejected builds leave no trace, and queued ones can still be joined.
    until_depth(store, 2, 0).await;
    assert!(matches!(store.submit(new("a", "ann")).await, Ok(Submission::Joined(_))));
    // Tenants without queued builds are admitted up to twice the length.
    queued(store, "c", "bob").await;
    assert!(matches!(store.submit(new("d", "bob")).await, Err(StoreError::QueueFull { waiting: 3 })));
    queued(store, "d", "cid").await;
    assert!(matches!(store.submit(new("e", "dan")).await, Err(StoreError::QueueFull { waiting: 4 })));

    lease(store).await;
    lease(store).await;
    lease(store).await;
    queued(store, "f", "dan").await;
}

pub(crate) async fn a_tenant_has_no_more_builds_than_it_may(store: &impl BuildStore) {
    let new = |name: &str| NewBuild { at_once: Some(2), ..new(name, "ann") };
    store.submit(new("a")).await.expect("it is taken");
    store.submit(new("b")).await.expect("it is taken");
    let leased = lease(store).await;
    assert!(matches!(store.submit(new("c")).await, Err(StoreError::TenantLimit { limit: 2 })));
    assert!(matches!(store.submit(new("b")).await, Ok(Submission::Joined(_))));
    store.finish(&leased, failed()).await.expect("it ends");
    assert!(matches!(store.submit(new("c")).await, Ok(Submission::Queued(_))));
}

pub(crate) async fn a_tenant_has_no_more_builds_an_hour_than_it_may(store: &impl BuildStore) {
    let new = |name: &str| NewBuild { per_hour: Some(2), ..new(name, "ann") };
    let requests = (0..12).map(|number| store.submit(new(&format!("a{number}"))));
    let answers = join_all(requests).await;
    let queued = answers.iter().filter(|answer| matches!(answer, Ok(Submission::Queued(_)))).count();
    let limited = answers.iter().filter(
        |answer| matches!(answer, Err(StoreError::RateLimit { wait }) if *wait > Duration::from_secs(1700)),
    );
    assert_eq!((queued, limited.count()), (2, 10), "{answers:?}");
    let build = answers.into_iter().find_map(Result::ok).expect("two are queued");
    let again = NewBuild { spec: build.build().spec.clone(), ..new("a") };
    assert!(matches!(store.submit(again).await, Ok(Submission::Joined(_))));
    let other = NewBuild { tenant: tenant("bob"), ..new("b") };
    assert!(matches!(store.submit(other).await, Ok(Submission::Queued(_))));
}

pub(crate) async fn tenants_take_turns(store: &impl BuildStore) {
    for number in 0..6 {
        queued(store, &format!("a{number}"), "ann").await;
    }
    queued(store, "b", "bob").await;
    queued(store, "c", "cid").await;
    let mut who = Vec::new();
    for _ in 0..5 {
        let leased = lease(store).await;
        who.push(leased.build.tenant.0.clone());
        store.finish(&leased, failed()).await.expect("it ends");
    }
    let position = |name: &str| who.iter().position(|who| who == name);
    assert!(position("bob").is_some_and(|at| at < 3), "{who:?}");
    assert!(position("cid").is_some_and(|at| at < 3), "{who:?}");

    // A tenant's builds are leased in order of submission.
    let mut left = Vec::new();
    for _ in 0..3 {
        let leased = lease(store).await;
        left.push(leased.build.spec.plugins[0].module.clone());
    }
    assert_eq!(left, ["github.com/acme/a3", "github.com/acme/a4", "github.com/acme/a5"]);
}

pub(crate) async fn who_waits_knows_where(store: &impl BuildStore) {
    let mut ids = Vec::new();
    for (name, who) in [("a0", "ann"), ("a1", "ann"), ("a2", "ann"), ("b", "bob")] {
        ids.push(queued(store, name, who).await);
    }
    until_depth(store, 4, 0).await;
    let position = async |id| store.position(id).await.expect("it can be counted");
    for (id, at) in ids.iter().zip([1, 3, 4, 2]) {
        assert_eq!(position(*id).await, Some(QueuePosition { at, of: 4 }), "bob's turn is after ann's first");
    }

    let leased = lease(store).await;
    until_depth(store, 3, 1).await;
    assert_eq!(position(leased.build.id).await, None);
    let mut left = Vec::new();
    for id in ids {
        left.extend(position(id).await.map(|position| position.at));
    }
    left.sort_unstable();
    assert_eq!(left, [1, 2, 3]);
}

pub(crate) async fn logs_have_numbers_without_gaps(store: &impl BuildStore) {
    let id = queued(store, "a", "ann").await;
    assert_eq!(store.log(id, 0, 10).await.expect("it can be read"), []);
    let leased = lease(store).await;
    for piece in 0..10 {
        let entries = (0..30).map(|line| entry(&format!("line {}", piece * 30 + line + 1))).collect();
        store.append_log(&leased, entries).await.expect("it is kept");
    }
    let large = "x".repeat(40 << 10);
    store.append_log(&leased, vec![entry(&large); 40]).await.expect("it is kept");
    let mut all = Vec::new();
    loop {
        let after = all.last().map_or(0, |entry: &LogEntry| entry.seq);
        let some = store.log(id, after, 1000).await.expect("it can be read");
        let size: usize = some.iter().map(|entry| entry.text.len()).sum();
        assert!(size < 2 * MAX_LOG_READ_BYTES, "{size}");
        if some.is_empty() {
            break;
        }
        all.extend(some);
    }
    assert_eq!(all.len(), 340);
    assert!(all.iter().zip(1..).all(|(entry, seq)| entry.seq == seq));
    assert_eq!((all[36].text.as_str(), all[339].text.len()), ("line 37", large.len()));
    for (after, limit, first, count) in [(0, 1, 1, 1), (35, 4, 36, 4), (299, 2, 300, 2), (338, 99, 339, 2)] {
        let some = store.log(id, after, limit).await.expect("it can be read");
        assert_eq!((some[0].seq, some.len()), (first, count), "after {after}, {limit}");
    }
    assert_eq!(store.log(id, 340, 10).await.expect("it can be read"), []);
    store.append_log(&leased, vec![entry("more")]).await.expect("it is kept");
    assert_eq!(store.log(id, 340, 10).await.expect("it can be read")[0].seq, 341);
    assert_eq!(store.log(BuildId::new(), 0, 10).await.expect("it can be read"), []);
}

pub(crate) async fn a_long_log_is_read_from_its_end(store: &impl BuildStore) {
    let id = queued(store, "a", "ann").await;
    assert_eq!(store.log_end(id, 1000).await.expect("it can be read"), []);
    let leased = lease(store).await;
    store.append_log(&leased, vec![entry("first")]).await.expect("it is kept");
    for _ in 0..8 {
        store.append_log(&leased, vec![entry(&"x".repeat(1 << 10)); 1 << 10]).await.expect("it is kept");
    }
    store.append_log(&leased, vec![entry("last")]).await.expect("it is kept");
    let last = 8 * 1024 + 2;
    for (bytes, count) in [(1, 1), (5, 2), (128 << 10, 129), (300 << 10, 301), (usize::MAX, last)] {
        let end = store.log_end(id, bytes).await.expect("it can be read");
        let seqs: Vec<u64> = end.iter().map(|entry| entry.seq).collect();
        assert_eq!(seqs, (last - count + 1..=last).collect::<Vec<_>>(), "{bytes} bytes");
        assert_eq!(end.last().map(|entry| entry.text.as_str()), Some("last"));
    }
    assert_eq!(store.log_end(BuildId::new(), 1000).await.expect("it can be read"), []);
}

pub(crate) async fn who_waits_for_changes_misses_none(store: &impl BuildStore) {
    let id = queued(store, "a", "ann").await;
    let reading = async {
        let mut changes = store.watch(id).await.expect("there are changes");
        let mut seen = 0;
        loop {
            changes.next().await.expect("there is more to come");
            let state = get(store, id).await.state;
            for entry in store.log(id, seen, 100).await.expect("it can be read") {
                assert_eq!(entry.seq, seen + 1);
                seen = entry.seq;
            }
            if state.is_final() {
                return seen;
            }
        }
    };
    let writing = async {
        let leased = lease(store).await;
        for line in 0..20 {
            store.append_log(&leased, vec![entry(&format!("line {line}"))]).await.expect("it is kept");
        }
        store.finish(&leased, failed()).await.expect("it ends");
    };
    let (seen, ()) = timeout(SOON, async { tokio::join!(reading, writing) }).await.expect("it ends soon");
    assert_eq!(seen, 20);
}

pub(crate) async fn a_lease_that_is_not_extended_ends(store: &impl BuildStore) {
    let id = queued(store, "a", "ann").await;
    let first = lease(store).await;
    store.append_log(&first, vec![entry("from the first")]).await.expect("it is kept");
    let second = lease(store).await;
    assert_eq!((second.build.id, second.build.attempts), (id, 2));

    // The expired lease is rejected.
    assert!(matches!(store.extend(&first).await, Err(StoreError::LeaseExpired(of)) if of == id));
    assert!(store.append_log(&first, vec![entry("too late")]).await.is_err());
    assert!(matches!(store.finish(&first, made("0e")).await, Err(StoreError::LeaseExpired(_))));
    assert!(store.release(&first).await.is_err());

    store.append_log(&second, vec![entry("from the second")]).await.expect("it is kept");
    store.finish(&second, made("0f")).await.expect("it ends");
    assert_eq!(get(store, id).await.outcome, Some(stored("0f")));
    let log = store.log(id, 0, 10).await.expect("it can be read");
    assert!(log.iter().zip(1..).all(|(entry, seq)| entry.seq == seq), "{log:?}");
    let texts: Vec<&str> = log.iter().map(|entry| entry.text.as_str()).collect();
    assert!(
        matches!(texts[..], ["from the first", said, "from the second"] if said.contains("stopped")),
        "{texts:?}"
    );
}

pub(crate) async fn a_lease_that_is_extended_stays(store: &impl BuildStore) {
    queued(store, "a", "ann").await;
    let leased = lease(store).await;
    let since = Instant::now();
    while since.elapsed() < store.lease_time() * 3 {
        assert_eq!(store.extend(&leased).await.expect("it is still there"), LeaseStatus::Active);
        tokio::time::sleep(store.lease_time() / 10).await;
    }
    until_depth(store, 0, 1).await;
    store.finish(&leased, failed()).await.expect("it ends");
}

pub(crate) async fn a_build_ends_when_nobody_wants_it(store: &impl BuildStore) {
    let id = queued(store, "a", "ann").await;
    store.submit(new("a", "bob")).await.expect("it is taken");
    assert_eq!(store.cancel(id, &tenant("cid")).await.expect("it can be asked"), None);
    assert_eq!(store.cancel(BuildId::new(), &tenant("ann")).await.expect("it can be asked"), None);
    let left = store.cancel(id, &tenant("ann")).await.expect("it can be asked").expect("it is theirs");
    assert_eq!((left.state, left.wanted_by), (BuildState::Queued, [tenant("bob")].into()));
    let left = store.cancel(id, &tenant("bob")).await.expect("it can be asked").expect("it is theirs");
    assert_eq!(left.state, BuildState::Cancelled);
    assert!(left.finished.is_some());
    until_depth(store, 0, 0).await;
    assert!(timeout(Duration::from_millis(300), store.lease("worker")).await.is_err());
    // The next submission creates a new build.
    assert_ne!(queued(store, "a", "ann").await, id);
}

pub(crate) async fn a_running_build_is_stopped_when_nobody_wants_it(store: &impl BuildStore) {
    let id = queued(store, "a", "ann").await;
    let leased = lease(store).await;
    let left = store.cancel(id, &tenant("ann")).await.expect("it can be asked").expect("it is theirs");
    assert_eq!(left.state, BuildState::Running);
    assert_eq!(store.extend(&leased).await.expect("it is still there"), LeaseStatus::Cancelled);
    store.finish_cancelled(&leased).await.expect("it ends");
    let build = get(store, id).await;
    assert_eq!((build.state, build.outcome), (BuildState::Cancelled, None));
    assert!(timeout(Duration::from_millis(300), store.lease("worker")).await.is_err());
}

pub(crate) async fn a_cancelled_build_goes_on_for_who_asks_in_time(store: &impl BuildStore) {
    let id = queued(store, "a", "ann").await;
    let leased = lease(store).await;
    store.cancel(id, &tenant("ann")).await.expect("it can be asked");
    assert_eq!(store.extend(&leased).await.expect("it is still there"), LeaseStatus::Cancelled);
    assert!(matches!(store.submit(new("a", "bob")).await, Ok(Submission::Joined(build)) if build.id == id));
    store.finish_cancelled(&leased).await.expect("it stopped");
    let again = lease(store).await;
    assert_eq!(again.build.id, id);
    assert_eq!(again.build.wanted_by, [tenant("bob")].into());
}

pub(crate) async fn a_released_build_is_next(store: &impl BuildStore) {
    let first = queued(store, "a", "ann").await;
    queued(store, "b", "ann").await;
    let leased = lease(store).await;
    assert_eq!(leased.build.id, first);
    store.release(&leased).await.expect("it goes back");
    let build = until(store, first, |build| build.state == BuildState::Queued).await;
    assert_eq!(build.started, None);
    until_depth(store, 2, 0).await;
    assert!(store.extend(&leased).await.is_err());
    let again = lease(store).await;
    assert_eq!((again.build.id, again.build.attempts), (first, 1));
}

pub(crate) async fn old_builds_are_forgotten(store: &impl BuildStore) {
    let mut ids = Vec::new();
    for number in 0..4 {
        ids.push(queued(store, &format!("a{number}"), "ann").await);
    }
    for sha256 in ["0a", "0b", "0c"] {
        let leased = lease(store).await;
        store.append_log(&leased, vec![entry("hello")]).await.expect("it is kept");
        store.reserve_artifact(&leased, &artifact_of(sha256)).await.expect("it is kept");
        store.finish(&leased, made(sha256)).await.expect("it ends");
    }
    let (now, past) = (velox_api::now(), Timestamp::UNIX_EPOCH);
    let prune =
        async |before, most, needed| store.prune(before, most, needed).await.expect("it can be tidied up");
    assert_eq!(prune(past, 9, past).await, 0);
    assert_eq!(prune(past, 2, past).await, 1);
    assert_eq!(store.get(ids[0]).await.expect("it can be read"), None);
    assert_eq!(store.log(ids[0], 0, 10).await.expect("it can be read"), []);
    assert_eq!(store.log(ids[1], 0, 10).await.expect("it can be read").len(), 1);
    let again = queued(store, "a0", "ann").await;
    assert!(
        matches!(store.submit(new("a1", "ann")).await, Ok(Submission::Finished(build)) if build.id == ids[1])
    );

    let later = now + Duration::from_secs(60);
    assert_eq!(prune(past, 2, later).await, 0);
    let left = store.artifacts().await.expect("they can be read");
    let left: std::collections::BTreeSet<&str> = left.keys().map(|sha256| &sha256[..2]).collect();
    assert_eq!(left, ["0b", "0c"].into());
    assert_eq!(store.artifact(&"0a".repeat(32)).await.expect("it can be looked for"), None);
    assert_eq!(prune(later, 9, later).await, 2);
    assert!(store.artifacts().await.expect("they can be read").is_empty());
    // Unfinished builds stay.
    for id in [again, ids[3]] {
        get(store, id).await;
    }
    for id in &ids[..3] {
        assert_eq!(store.get(*id).await.expect("it can be read"), None);
    }
}

pub(crate) async fn nothing_leads_to_a_forgotten_artifact(store: &impl BuildStore) {
    let mut ids = Vec::new();
    for (name, sha256) in [("a", "0a"), ("b", "0a"), ("c", "0c")] {
        ids.push(queued(store, name, "ann").await);
        store.finish(&lease(store).await, made(sha256)).await.expect("it ends");
    }
    let later = velox_api::now() + Duration::from_secs(60);
    let sha256s = ["0a", "0e"].map(|sha256| sha256.repeat(32));
    let removed = store.remove_artifacts(&sha256s, later).await.expect("it can be tidied up");
    assert_eq!(removed, sha256s.into());
    for id in &ids[..2] {
        assert_eq!(store.get(*id).await.expect("it can be read"), None);
    }
    assert_eq!(store.artifact(&"0a".repeat(32)).await.expect("it can be looked for"), None);
    assert!(store.artifact(&"0c".repeat(32)).await.expect("it can be looked for").is_some());
    assert!(matches!(store.submit(new("c", "bob")).await, Ok(Submission::Finished(_))));
    queued(store, "a", "bob").await;
    until_depth(store, 1, 0).await;
}
