//! Tests on a real NATS server.

use std::time::Instant;

use async_nats::{
    HeaderMap,
    jetstream::stream::{Config, DiscardPolicy},
};
use futures::future::join_all;
use secrecy::SecretString;
use velox_testkit::NatsServer;

use super::{
    record::{KeyPointer, written},
    *,
};
use crate::{
    options::ClusterOptions,
    store::behaviour::{SOON, artifact_of, entry, every_behaviour, lease, made, new, until, until_depth},
};

fn server() -> Option<NatsServer> {
    match NatsServer::start() {
        Ok(server) => Some(server),
        Err(error) => {
            println!("skipped: {error}");
            None
        }
    }
}

fn cluster(server: &NatsServer) -> ClusterOptions {
    ClusterOptions {
        nats: vec![server.url().parse().expect("it is a URL")],
        credentials: None,
        artifacts: "file:///nowhere".parse().expect("it is a URL"),
        replicas: 1,
        lease_time: Duration::from_secs(30),
    }
}

async fn node(server: &NatsServer, options: StoreOptions) -> JetStreamStore {
    JetStreamStore::connect(&cluster(server), options).await.expect("it connects")
}

async fn open(options: StoreOptions) -> Option<(JetStreamStore, NatsServer)> {
    let server = server()?;
    Some((node(&server, options).await, server))
}

every_behaviour!(open);

fn build_of(new: &NewBuild) -> Build {
    Build::queued(new.clone(), new.spec.key().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_asked_at_once_make_one_build() {
    let Some(server) = server() else { return };
    let (one, other) = tokio::join!(node(&server, StoreOptions::LARGE), node(&server, StoreOptions::LARGE));
    for round in 0..20 {
        let requests = (0..16)
            .map(|at| if at % 2 == 0 { &one } else { &other }.submit(new(&format!("r{round}"), "ann")));
        let submitted: Vec<Submission> =
            join_all(requests).await.into_iter().map(|one| one.expect("it is taken")).collect();
        let queued = submitted.iter().filter(|one| matches!(one, Submission::Queued(_))).count();
        assert_eq!(queued, 1, "{submitted:?}");
        let id = submitted[0].build().id;
        assert!(submitted.iter().all(|one| one.build().id == id));
        let leased = lease(if round % 2 == 0 { &one } else { &other }).await;
        assert_eq!(leased.build.id, id);
        // Nodes are notified of each other's changes.
        let elsewhere = if round % 2 == 0 { &other } else { &one };
        let wait = until(elsewhere, id, |build| build.state == BuildState::Succeeded);
        let finish = async {
            let by = if round % 2 == 0 { &one } else { &other };
            by.append_log(&leased, vec![entry("it goes on")]).await.expect("it is kept");
            by.finish(&leased, made("aa")).await.expect("it ends");
        };
        tokio::join!(wait, finish);
        assert_eq!(elsewhere.log(id, 0, 9).await.expect("it can be read").len(), 1);
    }
    until_depth(&one, 0, 0).await;
    until_depth(&other, 0, 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_bounds_hold_on_many_nodes() {
    let Some(server) = server() else { return };
    let options = StoreOptions { queue: Some(10), ..StoreOptions::LARGE };
    let nodes = join_all((0..4).map(|_| node(&server, options))).await;
    let submit = |at: usize, who: &str, at_once| {
        let new = NewBuild { at_once, ..new(&format!("{who}{at}"), who) };
        nodes[at % 4].submit(new)
    };
    let mut asked = join_all((0..8).map(|at| submit(at, "bob", Some(3)))).await;
    let busy =
        asked.iter().filter(|answer| matches!(answer, Err(StoreError::TenantLimit { limit: 3 }))).count();
    assert_eq!(busy, 5, "{asked:?}");
    asked = join_all((0..40).map(|at| submit(at, "ann", None))).await;
    let full =
        asked.iter().filter(|answer| matches!(answer, Err(StoreError::QueueFull { waiting: 10 }))).count();
    assert_eq!(full, 33, "{asked:?}");
    until_depth(&nodes[0], 10, 0).await;

    // The gate of a dead node is taken over after the timeout.
    let store = &nodes[0];
    drop(store.state.admit(&new("gate", "cid")).await.expect("there is room"));
    let since = Instant::now();
    assert!(matches!(nodes[1].submit(new("cid", "cid")).await, Ok(Submission::Queued(_))));
    assert!(since.elapsed() < SOON);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_dead_node_began_is_carried_on() {
    let Some(server) = server() else { return };
    let store = node(&server, StoreOptions::LARGE).await;
    let shared = &store.state;

    // The node died after the key was written: the next submission resumes.
    let pointed = build_of(&new("a", "ann"));
    let pointer = written(&KeyPointer { build: pointed.clone(), made: None }).expect("it can be written");
    shared.keys.put(&pointed.key, pointer, &HeaderMap::new(), 0).await.expect("it is kept");
    let submitted = store.submit(new("a", "bob")).await.expect("it is taken");
    assert!(matches!(&submitted, Submission::Joined(build) if build.id == pointed.id), "{submitted:?}");
    let leased = lease(&store).await;
    assert_eq!(leased.build.id, pointed.id);
    store.finish(&leased, made("ab")).await.expect("it ends");
    // The job in the other tenant's lane was removed too.
    assert_eq!(shared.job_names().await.expect("they can be listed"), [] as [String; 0]);

    // The node died after the record was created: any node publishes the job.
    let recorded = build_of(&new("b", "ann"));
    shared.create_record(&recorded).await.expect("it is kept");
    assert_eq!(lease(&store).await.build.id, recorded.id);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_whose_build_is_over_is_acked_away() {
    let Some(server) = server() else { return };
    let store = node(&server, StoreOptions::LARGE).await;
    let submitted = store.submit(new("a", "ann")).await.expect("it is taken");
    store.finish(&lease(&store).await, made("ac")).await.expect("it ends");
    let build = submitted.build();
    store.state.publish(build, &build.tenant).await.expect("it is kept");
    let gone = build_of(&new("b", "ann"));
    store.state.publish(&gone, &gone.tenant).await.expect("it is kept");
    assert!(timeout(Duration::from_millis(500), store.lease("worker")).await.is_err());
    assert_eq!(store.state.job_names().await.expect("they can be listed"), [] as [String; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_takes_no_more_leaves_nothing_behind() {
    let Some(server) = server() else { return };
    let store = node(&server, StoreOptions::LARGE).await;
    let shared = &store.state;
    let there = shared.jobs.stream.cached_info().config.clone();
    assert_eq!((there.max_messages, there.discard), (1200, DiscardPolicy::New));
    let small = Config { max_messages: 1, ..there };
    shared.jobs.context.update_stream(&small).await.expect("it can be changed");
    store.submit(new("a", "ann")).await.expect("it is taken");
    assert!(matches!(store.submit(new("b", "ann")).await, Err(StoreError::QueueFull { .. })));
    until_depth(&store, 1, 0).await;
    store.finish(&lease(&store).await, made("ad")).await.expect("it ends");
    assert!(matches!(store.submit(new("b", "ann")).await, Ok(Submission::Queued(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_loses_nothing_and_is_waited_for() {
    let Some(mut server) = server() else { return };
    let store = node(&server, StoreOptions::LARGE).await;
    let first = store.submit(new("a", "ann")).await.expect("it is taken").build().id;
    store.submit(new("b", "ann")).await.expect("it is taken");
    let leased = lease(&store).await;
    store.append_log(&leased, vec![entry("before")]).await.expect("it is kept");

    for round in 0..5 {
        server.kill().expect("it can be killed");
        assert!(matches!(store.ready().await, Err(StoreError::Failed(_))));
        // Requests while the server is down.
        let name = format!("c{round}");
        let submit = store.submit(new(&name, "ann"));
        let append = store.append_log(&leased, vec![entry("meanwhile")]);
        let restart = async {
            sleep(Duration::from_millis(200)).await;
            tokio::task::block_in_place(|| server.restart()).expect("it starts");
        };
        let (submitted, appended, ()) = tokio::join!(submit, append, restart);
        assert!(matches!(submitted, Ok(Submission::Queued(_))), "{submitted:?}");
        appended.expect("it is kept");
        store.ready().await.expect("it answers");
    }

    let log = store.log(first, 0, 99).await.expect("it can be read");
    assert_eq!(log.iter().map(|entry| entry.seq).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6]);
    // Notifications still arrive.
    let wait = until(&store, first, |build| build.state == BuildState::Succeeded);
    let (_, finished) = tokio::join!(wait, store.finish(&leased, made("ae")));
    finished.expect("it ends");
    for _ in 0..6 {
        store.finish(&lease(&store).await, made("ae")).await.expect("it ends");
    }
    until_depth(&store, 0, 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_artifact_that_is_needed_is_not_forgotten() {
    let Some(server) = server() else { return };
    let store = node(&server, StoreOptions::LARGE).await;
    store.submit(new("a", "ann")).await.expect("it is taken");
    let (artifact, sha256) = (artifact_of("a1"), "a1".repeat(32));
    let hour_ago = velox_api::now() - crate::store::MIN_RETENTION;
    let later = velox_api::now() + Duration::from_secs(60);
    let forget = async |before| {
        store
            .remove_artifacts(std::slice::from_ref(&sha256), before)
            .await
            .expect("it can be tidied up")
            .contains(&sha256)
    };

    let leased = lease(&store).await;
    store.reserve_artifact(&leased, &artifact).await.expect("it is kept");
    store.prune(later, 9, hour_ago).await.expect("it can be tidied up");
    assert!(!forget(hour_ago).await, "it is about to be stored");
    // The build took more than an hour: it mustn't finish with a removed artifact.
    assert!(forget(later).await);
    let error = store.reserve_artifact(&leased, &artifact).await.expect_err("its bytes are on their way out");
    assert!(error.to_string().contains("just being removed"), "{error}");
    store.finish(&leased, made("a1")).await.expect("it is put back");
    let leased = lease(&store).await;
    let log = store.log(leased.build.id, 0, 9).await.expect("it can be read");
    assert!(log.last().is_some_and(|last| last.text.contains("removed before the build ended")), "{log:?}");

    // Once the tombstone is removed, the bytes are too.
    store.prune(hour_ago, 9, later).await.expect("it can be tidied up");
    store.reserve_artifact(&leased, &artifact).await.expect("it is kept");
    store.finish(&leased, made("a1")).await.expect("it ends");
    assert!(!forget(hour_ago).await);
    assert!(store.artifact(&sha256).await.expect("it can be looked for").is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_left_of_what_is_forgotten() {
    let Some(server) = server() else { return };
    let (one, other) = tokio::join!(node(&server, StoreOptions::LARGE), node(&server, StoreOptions::LARGE));
    for number in 0..20 {
        let limited = NewBuild { per_hour: Some(1000), ..new(&format!("a{number}"), "ann") };
        one.submit(limited).await.expect("it is taken");
        let leased = lease(&one).await;
        one.append_log(&leased, vec![entry("hello")]).await.expect("it is kept");
        one.finish(&leased, made(&format!("{number:02x}"))).await.expect("it ends");
    }
    let later = velox_api::now() + Duration::from_secs(60);
    let (some, others) = tokio::join!(one.prune(later, 9, later), other.prune(later, 9, later));
    assert_eq!(some.expect("it can be tidied up") + others.expect("it can be tidied up"), 20);
    one.prune(later, 9, later).await.expect("it can be tidied up");
    let JetStreamState { builds, keys, artifacts, logs, jobs, .. } = &*one.state;
    for stream in [builds, keys, artifacts, logs, jobs] {
        let info = stream.stream.get_info().await.expect("it answers");
        // The gate is in the key bucket; the quota of the tenant is gone.
        let left = u64::from(info.config.name == "KV_vx-keys");
        assert_eq!(info.state.messages, left, "{}", info.config.name);
    }
    until_depth(&other, 0, 0).await;
    let submitted = other.submit(new("a1", "ann")).await.expect("it is taken");
    assert!(matches!(submitted, Submission::Queued(_)), "{submitted:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_that_nobody_waits_for_goes_back() {
    let Some(server) = server() else { return };
    // A job taken at the moment of cancellation is redelivered when its lease expires.
    let store =
        node(&server, StoreOptions { lease_time: Duration::from_secs(3), ..StoreOptions::LARGE }).await;
    store.submit(new("a", "ann")).await.expect("it is taken");
    // Cancels the lease call at various points.
    for micros in (0..6000).step_by(200) {
        let took = timeout(Duration::from_micros(micros), store.lease("worker")).await;
        if let Ok(leased) = took {
            store.release(&leased.expect("it can be leased")).await.expect("it goes back");
        }
    }
    let leased =
        timeout(SOON, store.lease("worker")).await.expect("it isn't lost").expect("it can be leased");
    store.finish(&leased, made("af")).await.expect("it ends");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_is_in_an_error() {
    let server = NatsServer::start_with("authorization { user: vx, password: right }");
    let Ok(server) = server else { return };
    let connect = async |user: &str, credentials: Option<&str>| {
        let url = server.url().replace("nats://", &format!("nats://{user}@"));
        let cluster = ClusterOptions {
            nats: vec![url.parse().expect("it is a URL")],
            credentials: credentials.map(SecretString::from),
            ..cluster(&server)
        };
        JetStreamStore::connect(&cluster, StoreOptions::LARGE).await
    };
    connect("vx:right", None).await.expect("it connects");
    for (user, credentials) in [("vx:s3cret", None), ("vx:s3cret", Some("s3cret"))] {
        let error = connect(user, credentials).await.expect_err("it is refused").to_string();
        assert!(!error.contains("s3cret") && error.starts_with("failed to connect to NATS"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_credentials_of_a_file_let_in() {
    let started =
        NatsServer::start_with_operator().and_then(|of| Ok((of, NatsServer::start_with_operator()?)));
    let ((server, right), (_, wrong)) = match started {
        Ok(started) => started,
        Err(error) => return println!("skipped: {error}"),
    };
    let connect = async |credentials: &str| {
        let cluster =
            ClusterOptions { credentials: Some(SecretString::from(credentials)), ..cluster(&server) };
        JetStreamStore::connect(&cluster, StoreOptions::LARGE).await
    };
    let store = connect(&right).await.expect("it connects");
    store.submit(new("a", "ann")).await.expect("it is taken");
    store.finish(&lease(&store).await, made("ba")).await.expect("it ends");
    let error = connect(&wrong).await.expect_err("they are another operator's").to_string();
    let secrets = wrong.lines().filter(|line| line.len() > 40);
    assert!(error.starts_with("failed to connect to NATS"), "{error}");
    assert!(secrets.into_iter().all(|secret| !error.contains(secret)), "{error}");
}

/// How long an operation may take before it counts as hung, on however slow a machine.
const HANG_TIMEOUT: Duration = Duration::from_secs(300);

/// Repeats an operation until it succeeds: single attempts may fail while a leader is elected.
async fn until_ok<T>(operation: impl AsyncFn() -> Result<T, StoreError>) -> T {
    let attempts = async {
        loop {
            match operation().await {
                Ok(value) => return value,
                Err(error) => println!("retrying after: {error}"),
            }
            sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(HANG_TIMEOUT, attempts).await.expect("the operation hangs")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_of_three_goes_on_without_one() {
    let mut servers = match NatsServer::cluster(3) {
        Ok(servers) => servers,
        Err(error) => return println!("skipped: {error}"),
    };
    let cluster = ClusterOptions {
        nats: servers.iter().map(|server| server.url().parse().expect("a URL")).collect(),
        replicas: 3,
        ..cluster(&servers[0])
    };
    // No lease may expire, however long an election takes.
    let options = StoreOptions { lease_time: 2 * HANG_TIMEOUT, ..StoreOptions::LARGE };
    let store = until_ok(|| JetStreamStore::connect(&cluster, options)).await;
    let first = until_ok(|| store.submit(new("a", "ann"))).await.build().id;
    let leased = until_ok(|| store.lease("worker")).await;
    until_ok(|| store.append_log(&leased, vec![entry("before")])).await;

    for (round, server) in servers.iter_mut().enumerate() {
        tokio::task::block_in_place(|| server.kill()).expect("killed");
        let name = format!("b{round}");
        until_ok(|| store.submit(new(&name, "ann"))).await;
        until_ok(|| store.append_log(&leased, vec![entry("meanwhile")])).await;
        until_ok(|| store.extend(&leased)).await;
        let other = until_ok(|| store.lease("worker")).await;
        until_ok(|| store.finish(&other, made("bb"))).await;
        tokio::task::block_in_place(|| server.restart()).expect("restarted");
        timeout(HANG_TIMEOUT, until_replicated(&store)).await.expect("the servers catch up");
    }
    let log = until_ok(|| store.log(first, 0, 99)).await;
    assert_eq!(log.iter().map(|entry| entry.seq).collect::<Vec<_>>(), [1, 2, 3, 4]);
    until_ok(|| store.finish(&leased, made("bb"))).await;
    until_depth(&store, 0, 0).await;
}

/// Waits until all replicas are up to date.
async fn until_replicated(store: &JetStreamStore) {
    let JetStreamState { builds, keys, artifacts, logs, jobs, .. } = &*store.state;
    for stream in [builds, keys, artifacts, logs, jobs] {
        loop {
            let info = stream.stream.get_info().await.ok().and_then(|info| info.cluster);
            let whole = |info: &async_nats::jetstream::stream::ClusterInfo| {
                info.leader.is_some() && info.replicas.iter().all(|peer| peer.current && !peer.offline)
            };
            if info.as_ref().is_some_and(whole) {
                break;
            }
            sleep(Duration::from_millis(100)).await;
        }
    }
}
