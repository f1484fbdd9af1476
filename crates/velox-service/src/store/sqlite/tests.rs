//! Tests of the embedded store: the behaviour of every store, its promises in any order of events, and its file.

use std::{collections::BTreeSet, path::PathBuf};

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::{
    build::{MAX_ATTEMPTS, too_many_attempts},
    store::behaviour::{entry, every_behaviour, failed, made, new},
};

async fn open(options: StoreOptions) -> Option<(SqliteStore, TempDir)> {
    let directory = tempfile::tempdir().unwrap();
    Some((SqliteStore::open(&directory.path().join("db"), options).await.unwrap(), directory))
}

every_behaviour!(open);

fn tenant(number: usize) -> Tenant {
    Tenant(format!("tenant {number}"))
}

/// A request of this tenant for this version of a plugin.
fn request(by: usize, version: u32) -> NewBuild {
    new(&format!("v{version}"), &tenant(by).0)
}

/// A store in a temporary directory that can be reopened.
struct Place {
    store: Option<SqliteStore>,
    options: StoreOptions,
    path: PathBuf,
    _directory: TempDir,
}

impl Place {
    async fn new(options: StoreOptions) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("builds.db");
        let store = Some(SqliteStore::open(&path, options).await.unwrap());
        Self { store, options, path, _directory: directory }
    }

    fn store(&self) -> &SqliteStore {
        self.store.as_ref().unwrap()
    }

    async fn reopen(&mut self) {
        self.store = None;
        self.store = Some(SqliteStore::open(&self.path, self.options).await.unwrap());
    }

    /// Expires the lease.
    async fn expire(&self, lease: &Lease) {
        let token = lease.token.clone();
        let step = move |connection: &Connection| {
            connection.execute("UPDATE leases SET until = -1 WHERE token = ?", [token])?;
            expire(connection, 0)
        };
        self.store().database.write(step, |_| {}).await.unwrap();
    }
}

async fn everything(store: &SqliteStore) -> Vec<Build> {
    let look = |connection: &Connection| {
        let mut select = connection.prepare_cached(&format!("{SELECT} ORDER BY number"))?;
        select.query_and_then([], BuildRow::read)?.map(|row| Ok(row?.build)).collect()
    };
    store.database.read(look).await.unwrap()
}

/// Clients and workers do this, in any order: no accepted build is lost, and none runs twice at a time.
async fn keeps_its_promises(steps: Vec<(u32, usize, usize)>) {
    let mut place = Place::new(StoreOptions { queue: Some(4), ..StoreOptions::LARGE }).await;
    let (mut accepted, mut leases) = (BTreeSet::new(), Vec::<Lease>::new());
    for (step, one, other) in steps {
        let store = place.store().clone();
        // Includes ended leases, whose use must fail.
        let lease = leases.get(one % leases.len().max(1)).cloned();
        let used = match (step, lease) {
            (0..8, _) => {
                let new = NewBuild { force: other == 0, ..request(one % 3, other as u32) };
                match store.submit(new).await {
                    Ok(submission) => _ = accepted.insert(submission.build().id),
                    Err(error) => assert!(matches!(error, StoreError::QueueFull { .. }), "{error}"),
                }
                Ok(())
            }
            (8..14, _) => {
                leases.extend(store.take("worker".to_owned()).await.unwrap());
                Ok(())
            }
            (14..17, _) => {
                if let Some(id) = accepted.iter().nth(one) {
                    store.cancel(*id, &tenant(other % 3)).await.unwrap();
                }
                Ok(())
            }
            (17, _) => {
                drop(store);
                place.reopen().await;
                Ok(())
            }
            (_, None) => Ok(()),
            (18 | 19, Some(lease)) => {
                place.expire(&lease).await;
                Ok(())
            }
            (20 | 21, Some(lease)) => store.append_log(&lease, vec![entry("one"), entry("two")]).await,
            (22, Some(lease)) => store.finish_cancelled(&lease).await,
            (23, Some(lease)) => store.release(&lease).await,
            (24, Some(lease)) => store.finish(&lease, made("aa")).await,
            (_, Some(lease)) => store.finish(&lease, failed()).await,
        };
        assert!(matches!(used, Ok(()) | Err(StoreError::LeaseExpired(_))), "{used:?}");
        check(place.store(), &accepted, &leases).await;
    }
    place.reopen().await;
    while let Some(lease) = place.store().take("worker".to_owned()).await.unwrap() {
        place.store().finish(&lease, made("aa")).await.unwrap();
    }
    assert!(everything(place.store()).await.iter().all(|build| build.state.is_final()), "each can end");
}

async fn check(store: &SqliteStore, accepted: &BTreeSet<BuildId>, leases: &[Lease]) {
    let builds = everything(store).await;
    assert_eq!(builds.iter().map(|build| build.id).collect::<BTreeSet<_>>(), *accepted, "none is lost");
    let mut live = BTreeSet::new();
    for build in &builds {
        let (state, has_outcome) = (build.state, build.outcome.is_some());
        assert_eq!(has_outcome, matches!(state, BuildState::Succeeded | BuildState::Failed), "{build:?}");
        assert!(state != BuildState::Queued || !build.wanted_by.is_empty(), "{build:?}");
        assert!(state.is_final() || live.insert(&build.key), "equal requests share a build");
        let log = store.log(build.id, 0, 1000).await.unwrap();
        assert!(log.iter().zip(1..).all(|(entry, seq)| entry.seq == seq), "numbers without gaps: {log:?}");
    }
    let of = |state| -> BTreeSet<BuildId> {
        builds.iter().filter(|build| build.state == state).map(|build| build.id).collect()
    };
    let (queued, running) = (of(BuildState::Queued), of(BuildState::Running));
    let depth = QueueDepth { queued: queued.len() as u64, running: running.len() as u64 };
    assert_eq!(store.depth().await.unwrap(), depth);
    let tokens = |connection: &Connection| -> Result<Vec<String>, StoreError> {
        let mut select = connection.prepare_cached("SELECT token FROM leases")?;
        Ok(select.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?)
    };
    let tokens = store.database.write(tokens, |_| {}).await.unwrap();
    let leased = leases.iter().filter(|lease| tokens.contains(&lease.token)).map(|lease| lease.build.id);
    assert_eq!((leased.collect::<BTreeSet<_>>(), tokens.len()), (running, depth.running as usize));
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        cases: std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(64),
        ..ProptestConfig::default()
    })]

    #[test]
    fn promises_are_kept(steps in prop::collection::vec((0..26_u32, 0..8_usize, 0..6_usize), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(keeps_its_promises(steps));
    }
}

#[tokio::test]
async fn a_newer_database_is_left_alone() {
    let mut place = Place::new(StoreOptions::LARGE).await;
    place.store = None;
    Connection::open(&place.path).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let error = SqliteStore::open(&place.path, StoreOptions::LARGE).await.err().unwrap();
    assert!(error.to_string().contains("is of a newer vx (schema 99"), "{error}");
}

#[tokio::test]
async fn a_worker_that_leaves_takes_nothing_along() {
    let place = Place::new(StoreOptions::LARGE).await;
    let mut leaving = Box::pin(place.store().lease("leaving"));
    assert!(futures::poll!(leaving.as_mut()).is_pending());
    place.store().submit(request(0, 0)).await.unwrap();
    drop(leaving);
    place.store().lease("staying").await.unwrap();
}

#[tokio::test]
async fn what_kills_its_workers_is_too_many_attempts() {
    let place = Place::new(StoreOptions::LARGE).await;
    place.store().submit(request(0, 0)).await.unwrap();
    for _ in 0..MAX_ATTEMPTS {
        let lease = place.store().lease("victim").await.unwrap();
        place.expire(&lease).await;
    }
    let build = &everything(place.store()).await[0];
    assert_eq!((build.state, &build.outcome), (BuildState::Failed, &Some(too_many_attempts(MAX_ATTEMPTS))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_loses_nothing_that_was_answered() {
    let place = Place::new(StoreOptions { queue: Some(10_000), ..StoreOptions::LARGE }).await;
    let pages = |most: u32| {
        let step = move |connection: &Connection| {
            connection.pragma_update_and_check(None, "max_page_count", most, |_| Ok(()))?;
            Ok(())
        };
        place.store().database.write(step, |()| {})
    };
    let lease = {
        place.store().submit(request(0, 0)).await.unwrap();
        place.store().lease("worker").await.unwrap()
    };
    pages(40).await.unwrap();
    let submit = |version| {
        let store = place.store().clone();
        tokio::spawn(async move { store.submit(request(0, version)).await })
    };
    let mut accepted = 1;
    let mut refused = 0;
    for crowd in 0..40 {
        for answer in futures::future::join_all((0..20).map(|one| submit(1 + crowd * 20 + one))).await {
            match answer.unwrap() {
                Ok(_) => accepted += 1,
                Err(StoreError::Failed(_)) => refused += 1,
                Err(error) => panic!("{error}"),
            }
        }
    }
    assert!(refused > 0, "it was never full");
    assert_eq!(everything(place.store()).await.len(), accepted);
    place.store().extend(&lease).await.unwrap();
    pages(100_000).await.unwrap();
    place.store().append_log(&lease, vec![entry("hello")]).await.unwrap();
    place.store().finish(&lease, made("aa")).await.unwrap();
    assert!(matches!(place.store().submit(request(0, 10_000)).await, Ok(Submission::Queued(_))));
}

#[tokio::test]
async fn database_is_readable_by_its_owner_only() {
    use std::os::unix::fs::PermissionsExt as _;

    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let mut place = Place::new(StoreOptions::LARGE).await;
    let files = ["", "-wal", "-shm"].map(|suffix| PathBuf::from(format!("{}{suffix}", place.path.display())));
    assert_eq!(files.each_ref().map(|file| mode(file)), [0o600; 3]);
    // One of an earlier version.
    std::fs::set_permissions(&place.path, std::fs::Permissions::from_mode(0o644)).unwrap();
    place.reopen().await;
    assert_eq!(files.each_ref().map(|file| mode(file)), [0o600; 3]);
}
