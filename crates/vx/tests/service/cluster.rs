//! Several `vx server` and `vx worker` on NATS and an object store: no killed node loses or repeats a build.

use std::{
    collections::BTreeMap, fs, net::SocketAddr, path::PathBuf, process::Command, sync::Mutex, thread,
    time::Duration,
};

use serde_json::{Value, json};
use velox_testkit::{ModuleProxy, NatsServer, S3Server};

use super::documents::with_key;
use crate::support::{
    collector::Collector,
    sandbox::{RELEASE, Sandbox, VX, acme_proxy, long, program, skip, wait_until},
    service::{RunningService, request},
};

/// The services that all nodes share, and their sandbox.
struct Cluster {
    nats: NatsServer,
    s3: S3Server,
    sandbox: Sandbox,
    proxy: ModuleProxy,
    /// A file with one line per compiled binary.
    compiled: PathBuf,
    /// Compiling waits while this file exists.
    hold: PathBuf,
}

impl Cluster {
    fn start(test: &str) -> Option<Self> {
        let nats = match NatsServer::start() {
            Ok(nats) => nats,
            Err(error) => {
                skip(test, &error.to_string());
                return None;
            }
        };
        let s3 = S3Server::start().unwrap();
        let proxy = acme_proxy();
        let sandbox = Sandbox::behind(&proxy).envs(s3.environment());
        // A job can write to few directories.
        let modules = PathBuf::from(sandbox.value("GOMODCACHE"));
        fs::create_dir_all(&modules).unwrap();
        let (compiled, hold) = (modules.join("compiled"), modules.join("hold"));
        let script = format!(
            "#!/bin/sh\ncase \"$*\" in build*./cmd/rr)\n    echo \"$*\" >>'{}'\n    while [ -e '{}' ]; do sleep 0.05; \
             done ;;\nesac\nexec '{}' \"$@\"\n",
            compiled.display(),
            hold.display(),
            program("go").unwrap().display()
        );
        let sandbox = with_key(sandbox.script("go", &script), "key");
        Some(Self { nats, s3, sandbox, proxy, compiled, hold })
    }

    fn command(&self, command: &str, data: &str) -> Command {
        let nats = self.nats.url();
        self.sandbox.vx_command(&format!("{command} --data {data} --nats {nats} --artifacts s3://builds/rr"))
    }

    /// Starts a server that keeps no binaries: at start it removes those unused for an hour.
    fn server(&self, name: &str) -> RunningService {
        RunningService::start(self.command("server", name).args(["--jobs", "0", "--keep-size", "1"]))
    }

    fn worker(&self, name: &str) -> RunningService {
        let arguments = ["--jobs", "1", "--lease-time", "3s", "--sign-key", "key.pem"];
        RunningService::start(self.command("worker", name).args(arguments))
    }

    fn compiles(&self) -> usize {
        fs::read_to_string(&self.compiled).unwrap_or_default().lines().count()
    }

    fn hold(&self) {
        fs::write(&self.hold, "").unwrap();
    }

    fn go_on(&self) {
        fs::remove_file(&self.hold).unwrap();
    }

    fn until_compiling(&self, server: &RunningService, id: &str, how_often: usize) {
        wait_until("it is compiled", || {
            let view = server.get(&format!("/v1/builds/{id}")).json();
            assert!(!view["finished"].is_string(), "nothing is compiled: {view}");
            self.compiles() >= how_often
        });
    }
}

/// A build request for a small binary; each stamp makes a distinct one.
fn build(stamp: &str) -> Value {
    json!({ "build": {
        "roadrunner": RELEASE,
        "plugins": [{ "module": "example.com/acme/hello", "ref": "v1.0.0" }],
        "stamp_version": stamp,
    }})
}

/// Asserts that a log's entries are numbered from 1, and that there are more than this many.
fn is_numbered(log: &str, least: usize) {
    let numbers: Vec<u64> = log.lines().filter_map(|line| line.strip_prefix("id: ")?.parse().ok()).collect();
    assert!(numbers.iter().copied().eq(1..=numbers.len() as u64) && numbers.len() > least, "{log}");
}

/// Downloads a build's artifact and verifies its checksum.
fn is_whole(sandbox: &Sandbox, service: &RunningService, view: &Value) {
    let artifact = &view["artifact"];
    let binary = service.get(artifact["path"].as_str().unwrap());
    assert_eq!(binary.status, 200, "{view}");
    assert_eq!(Some(binary.body.len() as u64), artifact["size"].as_u64());
    fs::write(sandbox.at("rr"), &binary.body).unwrap();
    let sum = sandbox.run("sha256sum rr");
    assert_eq!(sum.split(' ').next(), artifact["sha256"].as_str());
}

#[test]
fn concurrent_requests_to_two_nodes_compile_once() {
    let Some(cluster) = Cluster::start("two nodes asked at once") else { return };
    cluster.hold();
    let servers = [cluster.server("one"), cluster.server("two")];
    let _workers = [cluster.worker("three"), cluster.worker("four")];
    let ids: Vec<String> = thread::scope(|scope| {
        let ask = |at: usize| {
            let answer = servers[at % 2].post("/v1/builds", &build("v1.2.3"));
            assert_eq!(answer.status, 202, "{answer:?}");
            answer.id()
        };
        let asking: Vec<_> = (0..24).map(|at| scope.spawn(move || ask(at))).collect();
        asking.into_iter().map(|asking| asking.join().unwrap()).collect()
    });
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    cluster.until_compiling(&servers[0], &ids[0], 1);
    cluster.go_on();
    for server in &servers {
        let view = server.built(&ids[0]);
        assert_eq!((&view["state"], &view["attempts"]), (&json!("succeeded"), &json!(1)), "{view}");
        is_whole(&cluster.sandbox, server, &view);
        // The worker signed it, and the server reads it from the bucket.
        let path = |name: &str| view["links"][name].as_str().unwrap().to_owned();
        let (sbom, attestation) = (server.get(&path("sbom")), server.get(&path("attestation")));
        assert_eq!((sbom.status, attestation.status), (200, 200), "{sbom:?} {attestation:?}");
        fs::write(cluster.sandbox.at("rr.json"), &attestation.body).unwrap();
        fs::write(cluster.sandbox.at("rr.cdx.json"), &sbom.body).unwrap();
        fs::write(cluster.sandbox.at("velox.lock"), server.get(&path("lock")).body).unwrap();
        let log = server.get(&format!("/v1/builds/{}/log", ids[0])).text();
        is_numbered(&log, 2);
        assert_eq!(server.post("/v1/builds", &build("v1.2.3")).status, 200);
        assert!(server.get("/readyz").status == 200);
    }
    assert_eq!(cluster.compiles(), 1);
    let verify = "verify rr --shared-caches --attestation rr.json --key key.pub --sbom rr.cdx.json";
    cluster.sandbox.vx(verify).ok();
}

#[test]
fn build_of_a_killed_worker_is_retried() {
    let Some(cluster) = Cluster::start("a worker that is killed") else { return };
    cluster.hold();
    let server = cluster.server("one");
    let worker = cluster.worker("two");
    let asked = server.post("/v1/builds", &build("v1.2.3")).id();
    cluster.until_compiling(&server, &asked, 1);
    thread::scope(|scope| {
        // One client follows the log throughout.
        let log = scope.spawn(|| server.get(&format!("/v1/builds/{asked}/log")).text());
        worker.kill();
        let _other = cluster.worker("three");
        cluster.until_compiling(&server, &asked, 2);
        cluster.go_on();
        let view = server.built(&asked);
        assert_eq!((&view["state"], &view["attempts"]), (&json!("succeeded"), &json!(2)), "{view}");
        is_whole(&cluster.sandbox, &server, &view);
        let log = log.join().unwrap();
        assert!(log.contains("\nevent: end\n") && log.contains("stopped responding"), "{log}");
        is_numbered(&log, 4);
    });
}

#[test]
fn worker_returns_its_build_on_shutdown() {
    let Some(cluster) = Cluster::start("a worker that is shut down") else { return };
    cluster.hold();
    let server = cluster.server("one");
    let worker =
        RunningService::start(cluster.command("worker", "two").args(["--drain", "0s", "--lease-time", "1h"]));
    let asked = server.post("/v1/builds", &build("v1.2.3")).id();
    cluster.until_compiling(&server, &asked, 1);
    worker.terminate();
    assert!(worker.ended().status.success());
    assert_eq!(server.get(&format!("/v1/builds/{asked}")).json()["state"], "queued");
    // The lease would have lasted an hour.
    let _other = cluster.worker("three");
    cluster.until_compiling(&server, &asked, 2);
    cluster.go_on();
    let view = server.built(&asked);
    assert_eq!((&view["state"], &view["attempts"]), (&json!("succeeded"), &json!(1)), "{view}");
}

#[test]
fn worker_serves_health_metrics_and_traces() {
    let Some(cluster) = Cluster::start("a worker tells of itself") else { return };
    let (of_server, of_worker) = (Collector::start(), Collector::start());
    let traced = |mut command: Command, collector: &Collector| {
        command.env("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url);
        command
    };
    let server =
        RunningService::start(traced(cluster.command("server", "one"), &of_server).args(["--jobs", "0"]));
    let arguments = ["--jobs", "1", "--metrics-address", "127.0.0.1:0"];
    let worker = RunningService::start(traced(cluster.command("worker", "two"), &of_worker).args(arguments));
    for path in ["/healthz", "/readyz"] {
        assert_eq!(worker.get(path).text(), "ok\n", "{path}");
    }
    assert_eq!(worker.get("/v1/builds").status, 404);

    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let headers = [("Content-Type", "application/json"), ("traceparent", parent)];
    let body = build("v1.2.3").to_string();
    let asked = server.ask("POST", "/v1/builds", &headers, body.as_bytes()).id();
    assert_eq!(server.built(&asked)["state"], "succeeded");
    let value = |name: &str| {
        let metrics = worker.get("/metrics").text();
        metrics.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok())
    };
    // The worker counts a build after its outcome is stored.
    wait_until("the build is counted", || value("vx_builds_total{state=\"succeeded\"}") == Some(1.0));
    assert!(value("vx_build_downloaded_bytes_total").is_some_and(|bytes| bytes > 1000.0));
    let downloaded = "vx_build_downloaded_bytes_total 0";
    assert!(server.get("/metrics").text().contains(downloaded), "nothing is built by the server");

    worker.terminate();
    assert!(worker.ended().status.success());
    for name in ["vx-worker", "compile", "vx.build.id"] {
        assert!(of_worker.has(name.as_bytes()), "{name}: {}", of_worker.text());
    }
    let trace =
        [0x0a, 0xf7, 0x65, 0x19, 0x16, 0xcd, 0x43, 0xdd, 0x84, 0x48, 0xeb, 0x21, 0x1c, 0x80, 0x31, 0x9c];
    assert!(of_worker.has(&trace), "its span links to the client's trace");
}

/// Submits a build until a node accepts it, while nodes start and stop.
fn accepted(address: &Mutex<SocketAddr>, stamp: &str) -> String {
    let (headers, body) = ([("Content-Type", "application/json")], build(stamp).to_string());
    let mut id = None;
    wait_until("a node takes the build", || {
        let address = *address.lock().unwrap();
        let Ok(answer) = request(address, "POST", "/v1/builds", &headers, body.as_bytes()) else {
            return false;
        };
        assert!([0, 200, 202, 429, 503].contains(&answer.status), "{answer:?}");
        let view: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        id = view["id"].as_str().map(str::to_owned);
        id.is_some()
    });
    id.unwrap()
}

#[test]
fn cluster_loses_no_accepted_build() {
    let rounds = long(3, 30);
    let Some(mut cluster) = Cluster::start("whoever is killed") else { return };
    let mut servers = [cluster.server("one"), cluster.server("two")].map(Some);
    let names = ["three", "four"];
    let mut workers = names.map(|name| Some(cluster.worker(name)));
    let addresses = [0, 1].map(|at: usize| Mutex::new(servers[at].as_ref().unwrap().address()));
    let ids = Mutex::new(BTreeMap::new());
    for round in 0..rounds {
        thread::scope(|scope| {
            for at in 0..3 {
                let (address, ids) = (&addresses[at % 2], &ids);
                scope.spawn(move || {
                    let stamp = format!("v1.{round}.{at}");
                    let id = accepted(address, &stamp);
                    ids.lock().unwrap().insert(id, stamp);
                });
            }
            // During a build, at another moment in each round.
            thread::sleep(Duration::from_millis(137 * (round as u64 % 7)));
            let at = round / 3 % 2;
            match round % 3 {
                0 => {
                    servers[at].take().unwrap().kill();
                    let server = cluster.server(["one", "two"][at]);
                    *addresses[at].lock().unwrap() = server.address();
                    servers[at] = Some(server);
                }
                1 => {
                    workers[at].take().unwrap().kill();
                    workers[at] = Some(cluster.worker(names[at]));
                }
                _ => {
                    cluster.nats.kill().unwrap();
                    thread::sleep(Duration::from_millis(200));
                    cluster.nats.restart().unwrap();
                }
            }
        });
    }
    let ids = ids.into_inner().unwrap();
    assert_eq!(ids.len(), rounds * 3, "each is another build: {ids:?}");
    let server = servers[0].as_ref().unwrap();
    let mut attempts = 0;
    for (id, stamp) in &ids {
        let view = server.built(id);
        assert_eq!(
            (&view["state"], &view["build"]["stamp_version"]),
            (&json!("succeeded"), &json!(stamp)),
            "{view}"
        );
        attempts += view["attempts"].as_u64().unwrap();
        is_whole(&cluster.sandbox, server, &view);
    }
    println!("{rounds} rounds, {} builds, {attempts} attempts, {} compiles", ids.len(), cluster.compiles());
    let _ = (&cluster.s3, &cluster.proxy);
}

#[test]
fn nats_over_tls() {
    let sandbox = Sandbox::new();
    let pair = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let [certificate, key] = ["nats.pem", "nats.key"].map(|name| sandbox.at(name));
    fs::write(&certificate, pair.cert.pem()).unwrap();
    fs::write(&key, pair.signing_key.serialize_pem()).unwrap();
    let nats = match NatsServer::start_with(&format!(
        "tls {{ cert_file: \"{}\", key_file: \"{}\" }}\nauthorization {{ user: vx, password: \"s3cret?\" }}",
        certificate.display(),
        key.display()
    )) {
        Ok(nats) => nats,
        Err(error) => return skip("NATS is reached by TLS", &error.to_string()),
    };
    let url = nats.url().replace("nats://", "tls://vx:s3cret%3F@");
    let binaries = sandbox.at("binaries").display().to_string();
    let arguments = ["server", "--data", "one", "--jobs", "0", "--nats", &url, "--artifacts", &binaries];
    let command = || sandbox.command(VX, &arguments);
    let server = RunningService::start(command().env("SSL_CERT_FILE", &certificate));
    assert_eq!(server.get("/readyz").status, 200);
    assert_eq!(server.post("/v1/builds", &build("v1.2.3")).status, 202);

    // A certificate of an unknown authority.
    let output = command().output().unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(message.contains("certificate") && !message.contains("s3cret"), "{message}");
}

#[test]
fn cluster_flag_errors_show_no_secrets() {
    let sandbox = Sandbox::new();
    let vx = |arguments: &[&str]| {
        let output = sandbox.command(VX, arguments).output().unwrap();
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!message.contains("s3cret"), "{message}");
        (output.status.code(), message)
    };
    let nats = "nats://vx:s3cret@127.0.0.1:1";
    for (arguments, why) in [
        (&["worker"][..], "--nats"),
        (&["worker", "--nats", nats], "--artifacts"),
        (&["server", "--nats", nats], "--artifacts"),
        (&["worker", "--nats", "vx:s3cret@host", "--artifacts", "/srv"], "nats://host:4222"),
        (&["worker", "--nats", nats, "--artifacts", "http://host"], "s3://"),
        (&["worker", "--nats", nats, "--artifacts", "s3://a:s3cret@b"], "environment"),
        (&["worker", "--nats", nats, "--artifacts", "/srv", "--jobs", "0"], "number"),
        (&["worker", "--nats", nats, "--artifacts", "/srv", "--lease-time", "1ms"], "at least 1s"),
        (&["worker", "--nats", nats, "--artifacts", "/srv", "--nats-credentials", "none"], "none"),
        (&["worker", "--nats", nats, "--artifacts", "/srv", "--metrics-address", "0.0.0.0:1"], "token"),
    ] {
        let (code, message) = vx(arguments);
        assert_eq!(code, Some(2), "{arguments:?}: {message}");
        assert!(message.contains(why), "{arguments:?}: {message}");
    }
}
