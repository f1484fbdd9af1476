//! Compares the store with a model, and tests what the model doesn't cover.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

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

#[derive(Debug, Clone)]
enum Op {
    Submit { tenant: usize, version: u32, force: bool },
    Take,
    Extend(usize),
    Append(usize),
    Expire(usize),
    Cancel { build: usize, tenant: usize },
    Finish { lease: usize, good: bool },
    Stopped(usize),
    Release(usize),
    Reopen,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let at = || 0..8_usize;
    let op = prop_oneof![
        8 => (0..3_usize, 0..6_u32, prop::bool::weighted(0.2))
            .prop_map(|(tenant, version, force)| Op::Submit { tenant, version, force }),
        6 => Just(Op::Take),
        2 => at().prop_map(Op::Extend),
        2 => at().prop_map(Op::Append),
        2 => at().prop_map(Op::Expire),
        3 => (at(), 0..3_usize).prop_map(|(build, tenant)| Op::Cancel { build, tenant }),
        3 => (at(), any::<bool>()).prop_map(|(lease, good)| Op::Finish { lease, good }),
        1 => at().prop_map(Op::Stopped),
        1 => at().prop_map(Op::Release),
        1 => Just(Op::Reopen),
    ];
    prop::collection::vec(op, 1..60)
}

/// The expected state: builds in order of submission.
#[derive(Default)]
struct Model {
    builds: Vec<Modelled>,
    /// The tenants by last turn, oldest first; cleared by a restart.
    turns: Vec<Tenant>,
}

struct Modelled {
    id: BuildId,
    version: u32,
    state: BuildState,
    owner: Tenant,
    wanted_by: BTreeSet<Tenant>,
    /// It was leased before.
    before: bool,
    /// The tenant in whose turn it was leased.
    turn: Option<Tenant>,
    lines: u64,
}

impl Model {
    fn live(&self, version: u32) -> Option<usize> {
        self.builds.iter().position(|build| build.version == version && !build.state.is_final())
    }

    fn of(&self, id: BuildId) -> usize {
        self.builds.iter().position(|build| build.id == id).unwrap()
    }

    fn queued(&self) -> usize {
        self.builds.iter().filter(|build| build.state == BuildState::Queued).count()
    }

    fn waits(&self, tenant: &Tenant) -> bool {
        self.builds.iter().any(|build| build.state == BuildState::Queued && build.wanted_by.contains(tenant))
    }

    fn put_back(&mut self, at: usize) {
        let build = &mut self.builds[at];
        build.turn = None;
        if build.wanted_by.is_empty() {
            build.state = BuildState::Cancelled;
        } else {
            build.state = BuildState::Queued;
            build.before = true;
            build.lines += 1;
        }
    }

    /// The next tenant and its build.
    fn next(&self) -> Option<(Tenant, usize)> {
        let mut lines: BTreeMap<&Tenant, Vec<(bool, usize)>> = BTreeMap::new();
        for (at, build) in
            self.builds.iter().enumerate().filter(|(_, build)| build.state == BuildState::Queued)
        {
            for tenant in &build.wanted_by {
                lines.entry(tenant).or_default().push((!build.before, at));
            }
        }
        let rank = |tenant: &Tenant, line: &Vec<(bool, usize)>| {
            let running = self.builds.iter().filter(|build| build.turn.as_ref() == Some(tenant)).count();
            let turn = self.turns.iter().rposition(|turn| turn == tenant).map_or(0, |turn| turn + 1);
            let place = line.iter().map(|(place, _)| *place).min();
            (running, turn, place, line.iter().map(|(_, at)| *at).min())
        };
        let (tenant, line) = lines.into_iter().min_by_key(|(tenant, line)| rank(tenant, line))?;
        Some((tenant.clone(), line.into_iter().min()?.1))
    }
}

const QUEUE: u64 = 4;

async fn agrees(ops: Vec<Op>) {
    let options = StoreOptions { queue: Some(QUEUE), ..StoreOptions::LARGE };
    let mut place = Place::new(options).await;
    let mut model = Model::default();
    // Includes ended leases, whose use must fail.
    let mut leases: Vec<Lease> = Vec::new();
    let held = |leases: &[Lease], at: usize| {
        (!leases.is_empty()).then(|| leases[leases.len().saturating_sub(1 + at % 3)].clone())
    };
    let mut live_leases: BTreeMap<String, usize> = BTreeMap::new();
    for op in ops {
        let store = place.store().clone();
        match op {
            Op::Submit { tenant: by, version, force } => {
                let answer = store.submit(NewBuild { force, ..request(by, version) }).await;
                let by = tenant(by);
                if let Some(at) = model.live(version) {
                    let Ok(Submission::Joined(build)) = answer else { panic!("{answer:?} for a live one") };
                    assert_eq!(build.id, model.builds[at].id);
                    model.builds[at].wanted_by.insert(by);
                } else if let Some(done) = model
                    .builds
                    .iter()
                    .rfind(|build| !force && build.version == version && build.state == BuildState::Succeeded)
                {
                    let Ok(Submission::Finished(build)) = answer else {
                        panic!("{answer:?} for a finished one")
                    };
                    assert_eq!(build.id, done.id);
                } else if model.queued() as u64 >= QUEUE
                    && (model.waits(&by) || model.queued() as u64 >= 2 * QUEUE)
                {
                    assert!(
                        matches!(answer, Err(StoreError::QueueFull { .. })),
                        "{answer:?} of a full queue"
                    );
                } else {
                    let Ok(Submission::Queued(build)) = answer else { panic!("{answer:?} for a new one") };
                    model.builds.push(Modelled {
                        id: build.id,
                        version,
                        state: BuildState::Queued,
                        owner: by.clone(),
                        wanted_by: [by].into(),
                        before: false,
                        turn: None,
                        lines: 0,
                    });
                }
            }
            Op::Take => {
                let lease = store.take("worker".to_owned()).await.unwrap();
                let expected = model.next();
                let taken = lease.as_ref().map(|lease| model.of(lease.build.id));
                assert_eq!(taken, expected.as_ref().map(|(_, at)| *at), "whose turn it is");
                if let (Some(lease), Some((tenant, at))) = (lease, expected) {
                    model.builds[at].state = BuildState::Running;
                    model.builds[at].turn = Some(tenant.clone());
                    model.turns.push(tenant);
                    live_leases.insert(lease.token.clone(), at);
                    leases.push(lease);
                }
            }
            Op::Cancel { build, tenant: by } => {
                if model.builds.is_empty() {
                    continue;
                }
                let at = build % model.builds.len();
                let by = tenant(by);
                let answer = store.cancel(model.builds[at].id, &by).await.unwrap();
                let build = &mut model.builds[at];
                assert_eq!(answer.is_some(), build.owner == by || build.wanted_by.contains(&by));
                let left = !build.state.is_final() && build.wanted_by.remove(&by);
                if left && build.wanted_by.is_empty() && build.state == BuildState::Queued {
                    build.state = BuildState::Cancelled;
                }
            }
            Op::Reopen => {
                drop(store);
                place.reopen().await;
                for at in std::mem::take(&mut live_leases).into_values() {
                    model.put_back(at);
                }
                model.turns.clear();
            }
            Op::Extend(at)
            | Op::Append(at)
            | Op::Expire(at)
            | Op::Finish { lease: at, .. }
            | Op::Stopped(at)
            | Op::Release(at) => {
                let Some(lease) = held(&leases, at) else { continue };
                let at = live_leases.get(&lease.token).copied();
                if let Op::Expire(_) = op {
                    place.expire(&lease).await;
                    if let Some(at) = at {
                        live_leases.remove(&lease.token);
                        model.put_back(at);
                    }
                    continue;
                }
                let answer = match op {
                    Op::Extend(_) => {
                        let answer = store.extend(&lease).await;
                        if let (Some(at), Ok(standing)) = (at, &answer) {
                            let wanted = !model.builds[at].wanted_by.is_empty();
                            assert_eq!(*standing == LeaseStatus::Active, wanted);
                        }
                        answer.map(|_| ())
                    }
                    Op::Append(_) => store.append_log(&lease, vec![entry("one"), entry("two")]).await,
                    Op::Finish { good: true, .. } => store.finish(&lease, made("aa")).await,
                    Op::Finish { .. } => store.finish(&lease, failed()).await,
                    Op::Stopped(_) => store.finish_cancelled(&lease).await,
                    _ => store.release(&lease).await,
                };
                let Some(at) = at else {
                    assert!(
                        matches!(answer, Err(StoreError::LeaseExpired(_))),
                        "{answer:?} of a lease that is over"
                    );
                    continue;
                };
                answer.unwrap();
                match op {
                    Op::Append(_) => model.builds[at].lines += 2,
                    Op::Finish { good, .. } => {
                        live_leases.remove(&lease.token);
                        model.builds[at].state =
                            if good { BuildState::Succeeded } else { BuildState::Failed };
                        model.builds[at].turn = None;
                    }
                    Op::Stopped(_) | Op::Release(_) => {
                        live_leases.remove(&lease.token);
                        model.put_back(at);
                    }
                    _ => {}
                }
            }
        }
        same(place.store(), &model).await;
    }
}

async fn same(store: &SqliteStore, model: &Model) {
    let builds = everything(store).await;
    assert_eq!(builds.len(), model.builds.len(), "none is lost");
    for (build, expected) in builds.iter().zip(&model.builds) {
        assert_eq!(
            (build.id, build.state, &build.wanted_by),
            (expected.id, expected.state, &expected.wanted_by)
        );
        assert_eq!(
            build.outcome.is_some(),
            matches!(build.state, BuildState::Succeeded | BuildState::Failed)
        );
    }
    let queued = model.queued() as u64;
    let running = model.builds.iter().filter(|build| build.state == BuildState::Running).count() as u64;
    assert_eq!(store.depth().await.unwrap(), QueueDepth { queued, running });
    if let Some(last) = model.builds.last() {
        let seqs: Vec<u64> =
            store.log(last.id, 0, 1000).await.unwrap().iter().map(|entry| entry.seq).collect();
        assert_eq!(seqs, (1..=last.lines).collect::<Vec<_>>(), "numbers without gaps");
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        cases: std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(64),
        ..ProptestConfig::default()
    })]

    #[test]
    fn does_what_its_model_does(ops in ops()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(agrees(ops));
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
