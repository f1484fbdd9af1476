//! A repeatedly killed build service: no accepted build is lost, no binary is wrong, none is built twice.
//!
//! `make soak` runs the long form.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::SocketAddr,
    process::Command,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use data_encoding::HEXLOWER;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use velox_testkit::{ModuleProxy, plugin};

use crate::support::{
    sandbox::{RELEASE, Sandbox, acme_proxy, exclusive, long, program},
    service::{RunningService, request},
};

const HELLO: &str = "example.com/acme/hello";

/// A sandbox whose `go` counts how often it links a binary.
struct Machine {
    sandbox: Sandbox,
    _proxy: ModuleProxy,
}

impl Machine {
    /// Publishes this many versions of a plugin, each of which makes a different binary.
    fn new(versions: usize) -> Self {
        let proxy = acme_proxy();
        for version in 0..versions {
            let hello = plugin(HELLO, "hello").says(&format!("hello {version}"));
            proxy.module(HELLO, &format!("v1.0.{version}"), hello.files());
        }
        let sandbox = Sandbox::behind(&proxy);
        // A job can't write elsewhere.
        let script = format!(
            "#!/bin/sh\ncase \"$*\" in *./cmd/rr) echo \"$1\" >> \"$HOME/compiled\";; esac\nexec '{}' \"$@\"\n",
            program("go").unwrap().display()
        );
        let sandbox = sandbox.script("go", &script);
        Self { sandbox, _proxy: proxy }
    }

    fn server(&self, arguments: &[&str]) -> RunningService {
        RunningService::start(self.sandbox.vx_command("server --data data").args(arguments))
    }

    /// The number of compiled binaries.
    fn compiled(&self) -> usize {
        let compiled = fs::read_to_string(self.sandbox.at("data/home/compiled")).unwrap_or_default();
        compiled.lines().filter(|line| *line == "build").count()
    }
}

fn build_request(version: usize) -> Value {
    let plugins = json!([{ "module": HELLO, "ref": format!("v1.0.{version}") }]);
    json!({ "build": { "roadrunner": RELEASE, "plugins": plugins } })
}

/// Submits a build; returns its status and view if the response is complete.
fn try_submit(address: SocketAddr, version: usize) -> Option<(u16, Value)> {
    let headers = [("Content-Type", "application/json")];
    let body = build_request(version).to_string();
    let answer = request(address, "POST", "/v1/builds", &headers, body.as_bytes()).ok()?;
    Some((answer.status, serde_json::from_slice(&answer.body).ok()?))
}

/// A log that is followed across restarts of the service.
#[derive(Default)]
struct Followed {
    lines: Vec<(u64, String)>,
    ended: bool,
}

impl Followed {
    /// Follows the log until the connection breaks or the log ends.
    fn read(&mut self, address: SocketAddr, id: &str) {
        let last = self.lines.last().map_or(0, |(seq, _)| *seq).to_string();
        let headers = [("Accept", "text/event-stream"), ("Last-Event-ID", &last)];
        let path = format!("/v1/builds/{id}/log");
        let Ok(answer) = request(address, "GET", &path, &headers, b"") else { return };
        let text = answer.text();
        // An event after the last blank line is incomplete.
        let whole = text.rsplit_once("\n\n").map_or("", |(whole, _)| whole);
        for event in whole.split("\n\n") {
            let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
            let (Some(number), Some(data)) = (field("id:"), field("data:")) else { continue };
            self.ended |= number == "end";
            let entry: Value = serde_json::from_str(data).unwrap();
            if let (Ok(seq), Some(text)) = (number.parse(), entry["text"].as_str()) {
                self.lines.push((seq, text.to_owned()));
            }
        }
    }
}

/// The clients while the service is killed and restarted.
struct Clients {
    address: Mutex<SocketAddr>,
    /// The number of versions requested so far.
    versions: AtomicUsize,
    over: AtomicBool,
    /// Accepted builds: the version by build id.
    accepted: Mutex<BTreeMap<String, usize>>,
}

impl Clients {
    fn address(&self) -> SocketAddr {
        *self.address.lock().unwrap()
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// Submits builds one after another.
    fn ask(&self, mut version: usize) {
        while !self.is_over() {
            version = (version * 7 + 3) % self.versions.load(Ordering::Relaxed);
            if let Some((status, build)) = try_submit(self.address(), version) {
                assert!([200, 202, 429].contains(&status), "{status}: {build}");
                if let Some(id) = build["id"].as_str() {
                    self.accepted.lock().unwrap().insert(id.to_owned(), version);
                }
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Follows the log of a build to its end.
    fn follow(&self) -> Option<(String, Followed)> {
        let id = loop {
            match self.accepted.lock().unwrap().keys().next_back() {
                Some(id) => break id.clone(),
                None if self.is_over() => return None,
                None => {}
            }
            thread::sleep(Duration::from_millis(5));
        };
        let mut followed = Followed::default();
        while !followed.ended {
            followed.read(self.address(), &id);
            thread::sleep(Duration::from_millis(20));
        }
        Some((id, followed))
    }
}

/// Pseudo-random numbers, reproducible for a seed.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

#[test]
fn accepted_builds_survive_crashes() {
    let _exclusive = exclusive();
    let rounds = long(8, 100);
    // A build that never has enough time to finish would eventually fail.
    let max_interval_ms = long(900, 2500) as u64;
    let machine = Machine::new(rounds / 2 + 2);
    let arguments = ["--jobs", "2", "--queue", "50"];
    let service = machine.server(&arguments);
    let clients = Clients {
        address: Mutex::new(service.address()),
        versions: AtomicUsize::new(2),
        over: AtomicBool::new(false),
        accepted: Mutex::default(),
    };
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let (service, logs) = thread::scope(|scope| {
        let mut service = service;
        for number in 0..3 {
            let clients = &clients;
            scope.spawn(move || clients.ask(number));
        }
        let first = scope.spawn(|| clients.follow());
        let mut later = None;
        for round in 0..rounds {
            clients.versions.store(2 + round / 2, Ordering::Relaxed);
            thread::sleep(Duration::from_millis(50 + random.below(max_interval_ms)));
            service.kill();
            service = machine.server(&arguments);
            *clients.address.lock().unwrap() = service.address();
            if round == rounds / 2 {
                later = Some(scope.spawn(|| clients.follow()));
            }
        }
        clients.over.store(true, Ordering::Relaxed);
        let logs = [Some(first), later].into_iter().flatten().filter_map(|log| log.join().unwrap());
        let logs: Vec<_> = logs.collect();
        (service, logs)
    });
    let accepted = clients.accepted.into_inner().unwrap();
    assert!(accepted.len() > rounds / 4, "{accepted:?}");
    let mut attempts = 0;
    for (id, version) in &accepted {
        let build = service.built(id);
        assert_eq!(
            build["state"],
            "succeeded",
            "{build}; {}",
            service.get(&format!("/v1/builds/{id}/log")).text()
        );
        attempts += build["attempts"].as_u64().unwrap();
        let artifact = service.get(build["artifact"]["path"].as_str().unwrap());
        let sum = HEXLOWER.encode(&Sha256::digest(&artifact.body));
        assert_eq!(build["artifact"]["sha256"], sum);
        let again = service.post("/v1/builds", &build_request(*version));
        assert_eq!((again.status, again.id()), (200, id.clone()), "it is there already");
    }
    println!("{rounds} crashes, {} builds, {attempts} attempts", accepted.len());
    assert_eq!(logs.len(), 2);
    for (id, followed) in logs {
        let mut whole = Followed::default();
        whole.read(service.address(), &id);
        assert!(whole.ended && whole.lines.len() > 3, "{:?}", whole.lines);
        assert_eq!(followed.lines, whole.lines, "who came back has all of it once");
        assert!(followed.lines.iter().map(|(seq, _)| *seq).eq(1..=followed.lines.len() as u64));
    }
    let left: Vec<_> = fs::read_dir(machine.sandbox.at("data/jobs"))
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().into_string().ok())
        .filter(|name| name.starts_with("job-"))
        .collect();
    assert!(left.is_empty(), "jobs that died left {left:?}");
}

#[test]
fn equal_requests_compile_once() {
    let _exclusive = exclusive();
    let machine = Machine::new(1);
    let service = machine.server(&["--jobs", "2"]);
    let ids: BTreeSet<String> = thread::scope(|scope| {
        let ask = || {
            let answer = service.post("/v1/builds", &build_request(0));
            assert!([200, 202].contains(&answer.status), "{answer:?}");
            answer.id()
        };
        let crowd: Vec<_> = (0..long(50, 200)).map(|_| scope.spawn(ask)).collect();
        crowd.into_iter().map(|one| one.join().unwrap()).collect()
    });
    assert_eq!(ids.len(), 1, "{ids:?}");
    let build = service.built(ids.first().unwrap());
    assert_eq!(build["state"], "succeeded", "{build}");
    assert_eq!(machine.compiled(), 1);
    assert_eq!(service.post("/v1/builds", &build_request(0)).status, 200);
    // A missing binary is built again.
    let sum = build["artifact"]["sha256"].as_str().unwrap();
    let artifacts = machine.sandbox.at("data/artifacts");
    fs::remove_file(artifacts.join(&sum[..2]).join(sum)).unwrap();
    let again = service.post("/v1/builds", &build_request(0));
    assert_eq!(again.status, 202, "{again:?}");
    let again = service.built(&again.id());
    assert_eq!(again["artifact"]["sha256"], sum, "{again}");
    assert_eq!(service.get(again["artifact"]["path"].as_str().unwrap()).status, 200);
}

#[test]
fn different_requests_are_all_answered() {
    let _exclusive = exclusive();
    let count = long(8, 50);
    let machine = Machine::new(count);
    let service = machine.server(&["--jobs", "2", "--queue", "4"]);
    let refused = AtomicUsize::new(0);
    thread::scope(|scope| {
        for version in 0..count {
            let (service, refused) = (&service, &refused);
            scope.spawn(move || {
                let id = loop {
                    let answer = service.post("/v1/builds", &build_request(version));
                    if answer.status == 202 {
                        break answer.id();
                    }
                    assert_eq!(answer.status, 429, "{answer:?}");
                    assert!(answer.header("retry-after").parse::<u64>().is_ok(), "{answer:?}");
                    refused.fetch_add(1, Ordering::Relaxed);
                    thread::sleep(Duration::from_millis(200));
                };
                let build = service.built(&id);
                assert_eq!(build["state"], "succeeded", "{build}");
            });
        }
    });
    assert!(refused.into_inner() > 0, "the queue was never full");
    assert_eq!(machine.compiled(), count);
}

#[test]
fn data_directory_allows_one_server() {
    let machine = Machine::new(0);
    let _service = machine.server(&["--jobs", "0"]);
    let mut second: Command = machine.sandbox.vx_command("server --data data");
    let second = second.args(["--address", "127.0.0.1:0"]).output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    let message = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(message.contains("another server is using data: stop it"), "{message}");
}
