//! `vx build --remote`: the service compiles; files, output and exit codes are those of a local build.

#![cfg(target_os = "linux")]

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use serde_json::Value;
use velox_testkit::{ModuleProxy, plugin};

use crate::support::{
    collector::Collector,
    sandbox::{CommandOutput, RELEASE, Sandbox, program, wait_until},
    service::RunningService,
};

/// In the manual's format, with custom plugin names.
const CONFIGURATION: &str = r#"
[roadrunner]
ref = "v2025.0.77"

[github.plugins]
mine = { ref = "v1.0.0", owner = "acme", repository = "hello" }
"#;

/// A module proxy, a sandbox for the service, and a user without Go and without a proxy.
struct Story {
    proxy: ModuleProxy,
    machine: Sandbox,
    user: Sandbox,
}

impl Story {
    fn new() -> Self {
        let proxy = ModuleProxy::start();
        proxy.roadrunner(RELEASE).plugin("github.com/acme/hello", "v1.0.0");
        let broken = plugin("github.com/acme/broken", "broken").compile_error();
        proxy.module("github.com/acme/broken", "v1.0.0", broken.files());
        let machine = Sandbox::behind(&proxy);
        let user = Sandbox::new()
            .file("velox.toml", CONFIGURATION)
            .env("GOPROXY", "off")
            .env("GOTOOLCHAIN", "local");
        Self { proxy, machine, user }
    }

    fn serve(&self, arguments: &[&str]) -> RunningService {
        RunningService::start(self.machine.vx_command("server --data data").args(arguments))
    }

    /// `vx build --remote`, without a go command on the PATH.
    fn command(&self, service: &RunningService, arguments: &str) -> Command {
        let mut command = self.user.vx_command(&format!("build --remote {} {arguments}", service.url));
        command.env("PATH", "/nonexistent");
        command
    }

    fn build(&self, service: &RunningService, arguments: &str) -> CommandOutput {
        self.command(service, arguments).into()
    }
}

#[test]
fn remote_build_writes_binary_and_lock() {
    let story = Story::new();
    let service = story.serve(&[]);
    story.build(&service, "").succeeds_with(&["Resolved", "Finished"]);
    let rr = Command::new(story.user.at("rr")).arg("--version").output().unwrap();
    assert!(rr.status.success(), "{rr:?}");
    // The lock has the plugin names of the user's file: a local build accepts it.
    let lock = story.user.read("velox.lock");
    assert!(lock.contains("mine") && lock.contains("github.com/acme/hello v1.0.0"), "{lock}");
    let mut checked = story.machine.vx_command("lock --check");
    CommandOutput::from(checked.current_dir(story.user.path())).ok();

    // The second build is reused, and the lock is unchanged.
    // The image of a remote build is made here.
    let ran = story.build(&service, "--locked --format json --image acme/rr:1 --image-output image");
    ran.ok();
    let events: Vec<Value> = ran.stdout().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let last = events.last().unwrap();
    assert_eq!(last["event"], "finished");
    assert_eq!(last["binaries"][0]["reused"], true);
    let file = |digest: &Value| {
        format!("image/blobs/sha256/{}", digest.as_str().unwrap().trim_start_matches("sha256:"))
    };
    let manifest: Value = serde_json::from_slice(&story.user.bytes(&file(&last["image"]["digest"]))).unwrap();
    story.user.run(&format!("tar -xzf {} usr/bin/rr", file(&manifest["layers"][0]["digest"])));
    assert!(story.user.bytes("usr/bin/rr") == story.user.bytes("rr"));
    assert_eq!(story.user.read("velox.lock"), lock);
    assert_eq!(
        story.proxy.requests().iter().filter(|path| path.contains("acme/hello/@v/v1.0.0.zip")).count(),
        1
    );
}

#[test]
fn remote_build_needs_a_token_and_never_shows_it() {
    let story = Story::new();
    let token = story.machine.vx("server token new ci").ok().trim().to_owned();
    assert!(token.starts_with("vx_"), "{token}");
    let service = story.serve(&[
        "--tokens",
        "tokens.toml",
        "--audit-log",
        "audit.jsonl",
        "--allow-module",
        "github.com/roadrunner-server/*,github.com/acme/*",
        "-vv",
    ]);

    story.build(&service, "").fails_with(2, &["VX_REMOTE_TOKEN"]);
    let mut wrong = story.command(&service, "");
    let ran = CommandOutput::from(wrong.env("VX_REMOTE_TOKEN", "vx_wrong_token"));
    ran.fails(2);
    assert!(!ran.stderr().contains("vx_wrong_token"), "{}", ran.stderr());

    let watcher = story.machine.vx("server token new watcher --scope read").ok();
    let mut ran = None;
    // The service checks the file for changes every second.
    wait_until("the new token is known", || {
        let mut may_look = story.command(&service, "");
        let now = CommandOutput::from(may_look.env("VX_REMOTE_TOKEN", &watcher));
        let is_known = !now.stderr().contains("VX_REMOTE_TOKEN");
        ran = Some(now);
        is_known
    });
    let ran = ran.unwrap();
    ran.fails_with(2, &["ask the operator of the build service"]);
    assert!(!ran.stderr().contains(watcher.trim()), "{}", ran.stderr());

    let mut right = story.command(&service, "-vv");
    let ran = CommandOutput::from(right.env("VX_REMOTE_TOKEN", &token));
    ran.ok();

    // The client's request id is in the response, the log and the audit log.
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

    // Also over gRPC-web and Connect, where the message contains the client's request id.
    let call = |id: &str, module: &str, token: &str, kind: &str| {
        let body = format!(
            r#"{{"request_id": "{id}", "rr_version": "{RELEASE}", "plugins": [{{"module_name": "{module}", "tag": "v1.0.0"}}]}}"#
        );
        let headers = [("Authorization", token), ("Content-Type", kind), ("X-Request-Id", &id[..4])];
        service.ask("POST", "/api.service.v1.BuildService/Build", &headers, body.as_bytes())
    };
    let [looks, private, fine] = [1, 2, 3].map(|n| format!("{n}aaaaaaa-0000-7000-8000-000000000000"));
    let watcher = format!("Bearer {}", watcher.trim());
    assert_eq!(call(&looks, "github.com/acme/hello", &watcher, "application/json").status, 403);
    assert_eq!(call(&private, "github.com/stranger/x", &bearer, "application/json").status, 403);
    assert_eq!(call(&fine, "github.com/acme/hello", &bearer, "application/json").status, 200);
    let grpc_web = [&[0; 5][..], &[]].concat();
    let headers = [("Authorization", watcher.as_str()), ("Content-Type", "application/grpc-web+proto")];
    let headers = [&headers[..], &[("X-Request-Id", "web-1")]].concat();
    let refused = service.ask("POST", "/api.service.v1.BuildService/Build", &headers, &grpc_web);
    assert_eq!(refused.status, 200, "{refused:?}");

    let audit = story.machine.read("audit.jsonl");
    let acts: Vec<Value> = audit.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let decisions: Vec<&str> = acts.iter().map(|act| act["decision"].as_str().unwrap()).collect();
    for decision in ["token_missing", "token_unknown", "queued", "refused", "forbidden"] {
        assert!(decisions.contains(&decision), "{decision}: {audit}");
    }
    let queued = acts.iter().find(|act| act["decision"] == "queued").unwrap();
    assert_eq!((&queued["who"], &queued["from"]), (&"ci".into(), &"127.0.0.1".into()));
    assert!(acts.iter().any(|act| act["request_id"] == "mine-1"), "{audit}");
    for (request, id, who, decision, status) in [
        ("1aaa", None, "watcher", "forbidden", Some(403)),
        ("2aaa", Some(&private), "ci", "forbidden", Some(403)),
        ("3aaa", Some(&fine), "ci", "finished", None),
        ("web-1", None, "watcher", "forbidden", Some(403)),
    ] {
        let act = acts.iter().find(|act| act["request_id"] == request).unwrap_or_else(|| panic!("{audit}"));
        assert_eq!((&act["who"], &act["decision"]), (&who.into(), &decision.into()), "{act}");
        assert_eq!(act["status"].as_u64(), status, "{act}");
        assert_eq!(act["call_id"].as_str(), id.map(String::as_str), "{act}");
    }
    let message = service.stderr();
    assert!(message.contains("mine-1") && message.contains("handled request"), "{message}");
    assert!(message.lines().any(|line| line.contains("3aaa") && line.contains(&fine)), "{message}");
    for text in [&message, &audit, &ran.stderr()] {
        assert!(!text.contains(&token[3..]) && !text.contains("wrong_token"), "{text}");
    }
}

#[test]
fn metrics_count_submissions_and_builds() {
    let story = Story::new();
    let service = story.serve(&[]);
    assert_eq!(story.build(&service, "-q").code(), Some(0));
    assert_eq!(story.build(&service, "-q").code(), Some(0));
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
fn remote_build_errors_point_into_the_file() {
    let story = Story::new();
    let service = story.serve(&["--allow-module", "github.com/roadrunner-server/*"]);
    story.build(&service, "").fails_with(2, &["velox.toml:6"]);

    for (arguments, message) in [
        ("--offline", "--offline is not supported by remote builds"),
        ("--go /usr/bin/go", "--go is not supported by remote builds"),
        ("--with github.com/acme/hello=./mine", "directory"),
        ("--locked", "velox.lock"),
    ] {
        story.build(&service, arguments).fails_with(2, &[message]);
    }
    let mut plain = story.user.vx_command("build --remote http://192.0.2.1");
    let ran = CommandOutput::from(plain.env("VX_REMOTE_TOKEN", "vx_secret"));
    ran.fails(2);
    assert!(ran.stderr().contains("https") && !ran.stderr().contains("vx_secret"), "{}", ran.stderr());
}

#[test]
fn plugins_that_do_not_start_are_reported_before_a_remote_build() {
    let mut story = Story::new();
    story.user = story.user.plugins("github.com/roadrunner-server/fileserver/v5@v5.1.9");
    let finding = "plugin fileserver does not start without logger";
    let refused = story.user.vx("build --remote http://127.0.0.1:1 --strict");
    refused
        .fails_with(2, &[&format!("error: {finding}"), "velox.toml:", "help: add logger: `vx add logger`"]);
    // The warning comes first, whatever the service says.
    let service = story.serve(&["--allow-module", "github.com/acme/*"]);
    story.build(&service, "").fails_with(2, &[&format!("warning: {finding}"), "error: "]);
}

#[test]
fn failed_remote_build_shows_compiler_output() {
    let story = Story::new();
    let service = story.serve(&[]);
    story.build(&service, "--with github.com/acme/broken@v1.0.0").fails_with(1, &["broken"]);
    assert!(!story.user.has("rr"));
    story.build(&service, "--with github.com/acme/nowhere@v1.0.0").fails_with(1, &["nowhere"]);
}

#[test]
fn ctrl_c_cancels_the_remote_build() {
    let story = Story::new();
    // No worker takes the accepted build.
    let service = story.serve(&["--jobs", "0"]);
    let child = story.command(&service, "").stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let submitted = || metric(&service, "vx_submissions_total{result=\"queued\"} 1");
    wait_until("the service has it", submitted);
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    CommandOutput(child.wait_with_output().unwrap()).fails(130);
    assert!(metric(&service, "vx_queue_depth{state=\"queued\"} 0"), "it was cancelled");
}

#[test]
fn client_waits_for_a_killed_service() {
    let story = Story::new();
    // The first compilation never ends.
    let go = program("go").unwrap();
    let once = "if [ \"$1\" = build ] && ! [ -e $HOME/once ]; then touch $HOME/once; exec sleep 600; fi";
    let script = format!("#!/bin/sh\n{once}\nexec {} \"$@\"\n", go.display());
    let story = Story { machine: story.machine.script("go", &script), ..story };
    let service = story.serve(&[]);
    let address = service.address().to_string();
    let child = story.command(&service, "").stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    wait_until("the service has it", || story.machine.has("data/home/once"));
    service.kill();
    let mut again = story.machine.vx_command("server --data data");
    let mut again =
        again.args(["--address", &address]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let ran = CommandOutput(child.wait_with_output().unwrap());
    again.kill().unwrap();
    again.wait().unwrap();
    ran.ok();
    assert!(story.user.has("rr"));
}

#[test]
fn private_certificate_authority_is_trusted_by_file() {
    let story = Story::new();
    let place = story.user.path();
    let authority = |name: &str| {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        std::fs::write(place.join(name), params.self_signed(&key).unwrap().pem()).unwrap();
        Issuer::new(params, key)
    };
    authority("others.pem");
    let ours = authority("ours.pem");
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let (certificate, private) = (place.join("server.pem"), place.join("server.key"));
    std::fs::write(&certificate, params.signed_by(&key, &ours).unwrap().pem()).unwrap();
    std::fs::write(&private, key.serialize_pem()).unwrap();
    let [certificate, private] = [&certificate, &private].map(|file| file.to_str().unwrap());
    let service = story.serve(&["--tls-cert", certificate, "--tls-key", private]);
    assert!(service.url.starts_with("https://"), "{}", service.url);

    let trusting = |file: &str| {
        let mut command = story.command(&service, "");
        CommandOutput::from(command.env("SSL_CERT_FILE", file))
    };
    trusting("others.pem").fails_with(1, &["certificate", "SSL_CERT_FILE"]);
    assert!(!story.user.has("rr"));
    trusting("ours.pem").ok();
    assert!(story.user.has("rr"));
}

#[test]
fn remote_build_of_several_targets_respects_locked() {
    let story = Story::new();
    let service = story.serve(&["--jobs", "2"]);
    let targets = "--target linux/amd64 --target windows/amd64";
    story.build(&service, targets).ok();
    let place = |name: &str| story.user.at(name);
    for (file, start) in [("rr-linux-amd64", &b"\x7fELF"[..]), ("rr-windows-amd64.exe", b"MZ")] {
        let bytes = std::fs::read(place(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        assert!(bytes.starts_with(start), "{file}");
    }
    let lock = std::fs::read_to_string(place("velox.lock")).unwrap();
    assert!(lock.contains("linux/amd64") && lock.contains("windows/amd64"), "{lock}");
    story.build(&service, &format!("{targets} --locked")).ok();

    // The configuration changed, the lock didn't: no request reaches the service.
    let submissions = || {
        let text = service.get("/metrics").text();
        text.lines()
            .filter(|line| line.starts_with("vx_submissions_total"))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let before = submissions();
    let newer = CONFIGURATION.replace("v1.0.0", "v1.1.0");
    std::fs::write(place("velox.toml"), newer).unwrap();
    story.build(&service, "--locked").fails_with(2, &["velox.lock does not match the configuration"]);
    assert_eq!(submissions(), before);
    assert_eq!(std::fs::read_to_string(place("velox.lock")).unwrap(), lock);
}

#[test]
fn altered_binary_is_rejected() {
    let story = Story::new();
    let service = story.serve(&[]);
    let between = tampering_proxy(service.address());
    let mut command = story.user.vx_command(&format!("build --remote {between}"));
    CommandOutput::from(command.env("PATH", "/nonexistent"))
        .fails_with(1, &["checksum mismatch for the downloaded binary"]);
    let left: Vec<_> = std::fs::read_dir(story.user.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "velox.toml")
        .collect();
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(story.build(&service, "").code(), Some(0));
}

/// A TCP proxy to a service that alters the first byte of binaries.
fn tampering_proxy(service: SocketAddr) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let server = TcpStream::connect(service).unwrap();
                let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                let is_binary = Arc::new(AtomicBool::new(false));
                let seen = Arc::clone(&is_binary);
                std::thread::spawn(move || {
                    let mut buffer = [0; 1 << 16];
                    while let Ok(length @ 1..) = from.read(&mut buffer) {
                        if buffer.starts_with(b"GET /v1/artifacts/") {
                            seen.store(true, Ordering::SeqCst);
                        }
                        if to.write_all(&buffer[..length]).is_err() {
                            break;
                        }
                    }
                    let _ = to.shutdown(Shutdown::Write);
                });
                let (mut from, mut to) = (server, client);
                let mut buffer = [0; 1 << 16];
                while let Ok(length @ 1..) = from.read(&mut buffer) {
                    // A part of a binary, not the response header.
                    if is_binary.load(Ordering::SeqCst) && !buffer.starts_with(b"HTTP/1.1") {
                        buffer[0] ^= 1;
                    }
                    if to.write_all(&buffer[..length]).is_err() {
                        break;
                    }
                }
                let _ = to.shutdown(Shutdown::Both);
            });
        }
    });
    url
}

#[test]
fn traces_are_exported_to_the_collector() {
    let story = Story::new();
    let collector = Collector::start();
    let mut command = story.machine.vx_command("server --data data");
    let service = RunningService::start(command.env("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url));
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

fn metric(service: &RunningService, line: &str) -> bool {
    String::from_utf8(service.get("/metrics").body).unwrap().lines().any(|known| known == line)
}
