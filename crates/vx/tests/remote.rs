//! `vx build --remote`: the service builds, and all else is as if it had been built here.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

#[path = "support/collector.rs"]
mod collector;
#[path = "support/sandbox.rs"]
mod sandbox;
#[path = "support/service.rs"]
mod service;

use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use collector::Collector;
use sandbox::{Ran, Sandbox};
use serde_json::Value;
use service::{PATIENCE, Service};
use velox_testkit::{ModuleProxy, plugin, roadrunner};

const RELEASE: &str = "v2025.0.77";

/// In the manual's format, with names of its own.
const CONFIGURATION: &str = r#"
[roadrunner]
ref = "v2025.0.77"

[github.plugins]
mine = { ref = "v1.0.0", owner = "acme", repository = "hello" }
"#;

/// Where modules come from, a service that builds from them, and somebody without Go or a proxy.
struct Story {
    proxy: ModuleProxy,
    machine: Sandbox,
    user: Sandbox,
}

impl Story {
    fn new() -> Self {
        let proxy = ModuleProxy::start();
        proxy.module("github.com/roadrunner-server/roadrunner/v2025", RELEASE, roadrunner("v2025").files());
        let hello = plugin("github.com/acme/hello", "hello").says("hello");
        proxy.module("github.com/acme/hello", "v1.0.0", hello.files());
        let broken = plugin("github.com/acme/broken", "broken").compile_error();
        proxy.module("github.com/acme/broken", "v1.0.0", broken.files());
        let machine = Sandbox::new().own_module_cache().proxy(&proxy.url());
        let user = Sandbox::new()
            .file("velox.toml", CONFIGURATION)
            .env("GOPROXY", "off")
            .env("GOTOOLCHAIN", "local");
        Self { proxy, machine, user }
    }

    fn serve(&self, arguments: &[&str]) -> Service {
        let mut command = self.machine.command(env!("CARGO_BIN_EXE_vx"), &["server", "--data", "data"]);
        command.args(arguments);
        Service::start(&mut command)
    }

    fn command(&self, service: &Service, arguments: &[&str]) -> Command {
        let mut command = self.user.command(env!("CARGO_BIN_EXE_vx"), &["build", "--remote", &service.url]);
        // Nothing of Go is found, save where the service builds.
        command.args(arguments).env("PATH", "/nonexistent");
        command
    }

    fn build(&self, service: &Service, arguments: &[&str]) -> Ran {
        Ran(self.command(service, arguments).output().unwrap())
    }
}

#[test]
fn a_server_comes_from_the_service_with_its_lock() {
    let story = Story::new();
    let service = story.serve(&[]);
    let ran = story.build(&service, &[]);
    assert_eq!(ran.code(), Some(0), "{}", ran.stderr());
    assert!(ran.stderr().contains("Resolved") && ran.stderr().contains("Finished"), "{}", ran.stderr());
    let rr = Command::new(story.user.path().join("rr")).arg("--version").output().unwrap();
    assert!(rr.status.success(), "{rr:?}");
    // The lock says it in the user's words: a build here holds to it.
    let lock = std::fs::read_to_string(story.user.path().join("velox.lock")).unwrap();
    assert!(lock.contains("mine") && lock.contains("github.com/acme/hello v1.0.0"), "{lock}");
    let checked = story.machine.command(env!("CARGO_BIN_EXE_vx"), &["lock", "--check"]);
    let checked = Ran(at(checked, &story.user).output().unwrap());
    assert_eq!(checked.code(), Some(0), "{}", checked.stderr());

    // Again: nothing is built, and nothing is written.
    let ran = story.build(&service, &["--locked", "--format", "json"]);
    assert_eq!(ran.code(), Some(0), "{}", ran.stdout());
    let events: Vec<Value> = ran.stdout().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let last = events.last().unwrap();
    assert_eq!(last["event"], "finished");
    assert_eq!(last["binaries"][0]["reused"], true);
    assert_eq!(std::fs::read_to_string(story.user.path().join("velox.lock")).unwrap(), lock);
    assert_eq!(
        story.proxy.requests().iter().filter(|path| path.contains("acme/hello/@v/v1.0.0.zip")).count(),
        1
    );
}

#[test]
fn a_token_is_needed_and_never_shown() {
    let story = Story::new();
    let made =
        story.machine.command(env!("CARGO_BIN_EXE_vx"), &["server", "token", "new", "ci"]).output().unwrap();
    let token = String::from_utf8(made.stdout).unwrap().trim().to_owned();
    assert!(token.starts_with("vx_"), "{}", String::from_utf8_lossy(&made.stderr));
    let service = story.serve(&["--tokens", "tokens.toml", "--audit-log", "audit.jsonl", "-vv"]);

    let ran = story.build(&service, &[]);
    assert_eq!(ran.code(), Some(2), "{}", ran.stderr());
    assert!(ran.stderr().contains("VX_REMOTE_TOKEN"), "{}", ran.stderr());
    let mut wrong = story.command(&service, &[]);
    let ran = Ran(wrong.env("VX_REMOTE_TOKEN", "vx_wrong_token").output().unwrap());
    assert_eq!(ran.code(), Some(2), "{}", ran.stderr());
    assert!(!ran.stderr().contains("vx_wrong_token"), "{}", ran.stderr());

    let mut right = story.command(&service, &["-vv"]);
    let ran = Ran(right.env("VX_REMOTE_TOKEN", &token).output().unwrap());
    assert_eq!(ran.code(), Some(0), "{}", ran.stderr());

    // The id that a client gave is in the answer, in the log and in the audit log.
    let bearer = format!("Bearer {token}");
    let answer = service.ask(
        "DELETE",
        "/v1/builds/00000000-0000-7000-8000-000000000000",
        &[("Authorization", &bearer), ("X-Request-Id", "mine-1")],
        b"",
    );
    assert_eq!((answer.status, answer.header("x-request-id")), (404, "mine-1"));
    assert_eq!(service.get("/metrics").status, 401);
    assert_eq!(service.ask("GET", "/metrics", &[("Authorization", &bearer)], b"").status, 403);

    let audit = std::fs::read_to_string(story.machine.path().join("audit.jsonl")).unwrap();
    let acts: Vec<Value> = audit.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let decisions: Vec<&str> = acts.iter().map(|act| act["decision"].as_str().unwrap()).collect();
    for decision in ["token_missing", "token_unknown", "queued", "refused", "forbidden"] {
        assert!(decisions.contains(&decision), "{decision}: {audit}");
    }
    let queued = acts.iter().find(|act| act["decision"] == "queued").unwrap();
    assert_eq!((&queued["who"], &queued["from"]), (&"ci".into(), &"127.0.0.1".into()));
    assert!(acts.iter().any(|act| act["request_id"] == "mine-1"), "{audit}");
    let said = service.said();
    assert!(said.contains("mine-1") && said.contains("answered"), "{said}");
    for text in [&said, &audit, &ran.stderr()] {
        assert!(!text.contains(&token[3..]) && !text.contains("wrong_token"), "{text}");
    }
}

#[test]
fn what_the_service_counts() {
    let story = Story::new();
    let service = story.serve(&[]);
    assert_eq!(story.build(&service, &["-q"]).code(), Some(0));
    assert_eq!(story.build(&service, &["-q"]).code(), Some(0));
    let metrics = service.get("/metrics");
    let text = String::from_utf8(metrics.body).unwrap();
    assert!(text.ends_with("# EOF\n"), "{text}");
    for line in [
        "vx_submissions_total{result=\"queued\"} 1",
        "vx_submissions_total{result=\"finished\"} 1",
        "vx_builds_total{state=\"succeeded\"} 1",
        "vx_workers_busy 0",
        "vx_queue_depth{state=\"queued\"} 0",
        "vx_requests_total{method=\"POST\",route=\"/v1/builds\",status=\"202\"} 1",
        "vx_build_phase_duration_seconds_count{phase=\"compile\"} 1",
    ] {
        assert!(text.lines().any(|known| known == line), "{line}\n{text}");
    }
    assert!(text.contains("vx_artifact_served_bytes_total"), "{text}");
}

#[test]
fn what_is_wrong_is_shown_where_it_is() {
    let story = Story::new();
    let service = story.serve(&["--allow-module", "github.com/roadrunner-server/*"]);
    let ran = story.build(&service, &[]);
    assert_eq!(ran.code(), Some(2), "{}", ran.stderr());
    assert!(ran.stderr().contains("velox.toml:6"), "{}", ran.stderr());

    for (arguments, said) in [
        (&["--offline"][..], "--offline is for builds on this machine"),
        (&["--go", "/usr/bin/go"], "--go is for builds on this machine"),
        (&["--with", "github.com/acme/hello=./mine"], "directory"),
        (&["--locked"], "velox.lock"),
    ] {
        let ran = story.build(&service, arguments);
        assert_eq!(ran.code(), Some(2), "{arguments:?}: {}", ran.stderr());
        assert!(ran.stderr().contains(said), "{arguments:?}: {}", ran.stderr());
    }
    let mut plain = story.user.command(env!("CARGO_BIN_EXE_vx"), &["build", "--remote", "http://192.0.2.1"]);
    let ran = Ran(plain.env("VX_REMOTE_TOKEN", "vx_secret").output().unwrap());
    assert_eq!(ran.code(), Some(2), "{}", ran.stderr());
    assert!(ran.stderr().contains("https") && !ran.stderr().contains("vx_secret"), "{}", ran.stderr());
}

#[test]
fn a_failed_build_says_what_the_compiler_said() {
    let story = Story::new();
    let service = story.serve(&[]);
    let ran = story.build(&service, &["--with", "github.com/acme/broken@v1.0.0"]);
    assert_eq!(ran.code(), Some(1), "{}", ran.stderr());
    assert!(ran.stderr().contains("broken"), "{}", ran.stderr());
    assert!(!story.user.path().join("rr").exists());
    let ran = story.build(&service, &["--with", "github.com/acme/nowhere@v1.0.0"]);
    assert_eq!(ran.code(), Some(1), "{}", ran.stderr());
    assert!(ran.stderr().contains("nowhere"), "{}", ran.stderr());
}

#[test]
fn ctrl_c_cancels_the_build_there() {
    let story = Story::new();
    // It is accepted, and nobody builds it.
    let service = story.serve(&["--jobs", "0"]);
    let child = story.command(&service, &[]).stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let submitted = || metric(&service, "vx_submissions_total{result=\"queued\"} 1");
    wait(submitted, &service);
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let ran = Ran(child.wait_with_output().unwrap());
    assert_eq!(ran.code(), Some(130), "{}", ran.stderr());
    assert!(metric(&service, "vx_queue_depth{state=\"queued\"} 0"), "it was cancelled");
}

#[test]
fn the_service_restarts_meanwhile() {
    let story = Story::new();
    let service = story.serve(&["--jobs", "0"]);
    let address = service.address().to_string();
    let child = story.command(&service, &[]).stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    wait(|| metric(&service, "vx_submissions_total{result=\"queued\"} 1"), &service);
    service.kill();
    let mut again = story.machine.command(env!("CARGO_BIN_EXE_vx"), &["server", "--data", "data"]);
    let mut again =
        again.args(["--address", &address]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let ran = Ran(child.wait_with_output().unwrap());
    again.kill().unwrap();
    again.wait().unwrap();
    assert_eq!(ran.code(), Some(0), "{}", ran.stderr());
    assert!(story.user.path().join("rr").exists());
}

#[test]
fn traces_go_where_the_environment_says() {
    let story = Story::new();
    let collector = Collector::start();
    let mut command = story.machine.command(env!("CARGO_BIN_EXE_vx"), &["server", "--data", "data"]);
    let service = Service::start(command.env("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url));
    let body = serde_json::json!({"build": {
        "roadrunner": RELEASE, "plugins": [{"module": "github.com/acme/hello", "ref": "v1.0.0"}],
    }});
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let headers = [("Content-Type", "application/json"), ("traceparent", parent)];
    let answer = service.ask("POST", "/v1/builds", &headers, body.to_string().as_bytes());
    assert_eq!(answer.status, 202, "{answer:?}");
    assert_eq!(service.built(answer.json()["id"].as_str().unwrap())["state"], "succeeded");
    service.terminate();
    assert!(service.ended().status.success());
    for name in ["vx-server", "POST /v1/builds", "build", "compile", "vx.build.id"] {
        assert!(collector.has(name.as_bytes()), "{name}: {}", collector.text());
    }
    let trace =
        [0x0a, 0xf7, 0x65, 0x19, 0x16, 0xcd, 0x43, 0xdd, 0x84, 0x48, 0xeb, 0x21, 0x1c, 0x80, 0x31, 0x9c];
    assert!(collector.has(&trace), "the client's trace goes on");
}

fn metric(service: &Service, line: &str) -> bool {
    String::from_utf8(service.get("/metrics").body).unwrap().lines().any(|known| known == line)
}

fn wait(condition: impl Fn() -> bool, service: &Service) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "{}", service.said());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The command, in another's directory.
fn at(mut command: Command, user: &Sandbox) -> Command {
    command.current_dir(user.path());
    command
}
