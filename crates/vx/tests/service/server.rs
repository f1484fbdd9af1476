//! `vx server`: builds requested over HTTP are built once, logged live and downloaded; errors are reported.

use std::{
    io::{Read, Write},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use http_body_util::BodyExt;
use serde_json::{Value, json};
use velox_testkit::{Fault, Files, ModuleProxy, plugin, roadrunner};

use crate::support::{
    sandbox::{CommandOutput, RELEASE, Sandbox, VX, acme_proxy, long, program, wait_until},
    service::{Answer, RunningService},
};

/// Method, path, headers, body, and the expected statuses.
type Case<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], &'a [u8], &'a [u16]);

pub(crate) const CALL: &str = "/api.service.v1.BuildService/Build";
const JSON: (&str, &str) = ("Content-Type", "application/json");

/// A small RoadRunner, a plugin that compiles, and one that doesn't.
fn proxy() -> ModuleProxy {
    let proxy = acme_proxy();
    let broken = plugin("example.com/acme/broken", "broken").compile_error();
    proxy.module("example.com/acme/broken", "v1.0.0", broken.files());
    proxy
}

fn server(sandbox: &Sandbox, arguments: &[&str]) -> Command {
    let mut command = sandbox.vx_command("server --data data");
    command.args(arguments);
    command
}

/// A service that builds nothing.
fn idle() -> (Sandbox, RunningService) {
    let sandbox = Sandbox::new();
    let service = RunningService::start(&mut server(&sandbox, &["--jobs", "0"]));
    (sandbox, service)
}

fn build(plugin: &str) -> Value {
    let module = format!("example.com/acme/{plugin}");
    json!({"roadrunner": RELEASE, "plugins": [{"module": module, "ref": "v1.0.0"}]})
}

fn call(plugin: &str) -> Value {
    json!({"rr_version": RELEASE, "plugins": [{"module_name": format!("example.com/acme/{plugin}"), "tag": "v1.0.0"}]})
}

/// A protobuf field with bytes in it (<https://protobuf.dev/programming-guides/encoding/>).
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut length = bytes.len();
    let mut field = vec![number << 3 | 2];
    while length >= 0x80 {
        field.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    field.push(length as u8);
    field.extend_from_slice(bytes);
    field
}

/// A `BuildRequest` in protobuf.
fn message(version: &str, module: &str, tag: &str) -> Vec<u8> {
    let plugin = [field(1, module.as_bytes()), field(2, tag.as_bytes())].concat();
    [field(2, version.as_bytes()), field(5, &plugin)].concat()
}

/// A message of gRPC (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>).
fn frame(message: &[u8]) -> Vec<u8> {
    [&[0], &(message.len() as u32).to_be_bytes()[..], message].concat()
}

/// Calls a method over gRPC on HTTP/2 without TLS; returns the response message and the trailers.
fn grpc(service: &RunningService, path: &str, body: Vec<u8>) -> (Vec<u8>, Vec<(String, String)>) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = reqwest::Client::builder().http2_prior_knowledge().no_proxy().build().unwrap();
        let request = client
            .post(format!("{}{path}", service.url))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(body);
        let response: http::Response<reqwest::Body> = request.send().await.unwrap().into();
        assert_eq!(response.status(), 200);
        let headers = response.headers().clone();
        let body = response.into_body().collect().await.unwrap();
        // An error without a message has its trailers in the headers.
        let trailers = body.trailers().cloned().unwrap_or(headers);
        let text = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
            (name.to_string(), value.to_str().unwrap_or_default().to_owned())
        };
        let trailers = trailers.iter().map(text).collect();
        (body.to_bytes().get(5..).unwrap_or_default().to_vec(), trailers)
    })
}

fn trailer<'a>(trailers: &'a [(String, String)], name: &str) -> &'a str {
    trailers.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
}

#[test]
fn build_is_made_once_and_survives_a_crash() {
    let proxy = proxy();
    let sandbox = Sandbox::behind(&proxy);
    let service = RunningService::start(&mut server(&sandbox, &[]));
    let asked = service.post("/v1/builds", &json!({ "build": build("hello") }));
    assert_eq!(asked.status, 202, "{asked:?}");
    let id = asked.id();
    assert_eq!(asked.header("location"), format!("/v1/builds/{id}"));

    // The same request over another protocol joins the same build.
    let call = std::thread::scope(|scope| {
        let call = scope.spawn(|| service.post(CALL, &call("hello")));
        let log = service.get(&format!("/v1/builds/{id}/log"));
        assert_eq!(log.header("content-type"), "text/event-stream");
        let log = log.text();
        assert!(log.contains("\nevent: end\n") && log.contains("\"succeeded\""), "{log}");
        let numbers: Vec<u64> =
            log.lines().filter_map(|line| line.strip_prefix("id: ")?.parse().ok()).collect();
        assert!(numbers.iter().copied().eq(1..=numbers.len() as u64) && numbers.len() > 2, "{numbers:?}");
        call.join().unwrap()
    });
    let view = service.built(&id);
    let path = view["artifact"]["path"].as_str().unwrap();
    assert_eq!((call.status, &call.json()["path"]), (200, &json!(path)), "{call:?}");
    assert!(call.json()["logs"].as_str().unwrap().lines().count() > 2, "{call:?}");

    let binary = service.get(path);
    assert_eq!(binary.body.len() as u64, view["artifact"]["size"].as_u64().unwrap());
    assert!(
        binary.header("content-disposition").contains("filename=\"rr"),
        "{}",
        binary.header("content-disposition")
    );
    std::fs::write(sandbox.at("rr"), &binary.body).unwrap();
    let sum = sandbox.run("sha256sum rr");
    assert_eq!(sum.split(' ').next(), view["artifact"]["sha256"].as_str());
    let start = binary.body.len() - 100;
    let end = service.ask("GET", path, &[("Range", &format!("bytes={start}-"))], b"");
    assert_eq!((end.status, end.body.as_slice()), (206, &binary.body[start..]));
    let same = service.ask("GET", path, &[("If-None-Match", binary.header("etag"))], b"");
    assert_eq!((same.status, same.body.len()), (304, 0));

    download_without_reading(&proxy, &service);

    // The accompanying files reproduce the binary elsewhere.
    for file in ["velox.toml", "velox.lock"] {
        let text = service.get(&format!("/v1/builds/{id}/{file}"));
        assert_eq!(text.status, 200, "{text:?}");
        std::fs::write(sandbox.at(file), text.body).unwrap();
    }
    std::fs::remove_file(sandbox.at("rr")).unwrap();
    sandbox.vx("build --locked").ok();
    assert_eq!(sandbox.run("sha256sum rr"), sum);

    // The catalogue queries versions in the background; the plugin is only fetched for a build.
    let fetches = || proxy.requests().iter().filter(|request| request.contains("acme/hello")).count();
    let fetched = fetches();
    assert_eq!(service.post("/v1/builds", &json!({ "build": build("hello") })).status, 200);
    service.kill();
    let service = RunningService::start(&mut server(&sandbox, &[]));
    let again = service.post("/v1/builds", &json!({ "build": build("hello") }));
    assert_eq!((again.status, &again.json()["id"]), (200, &json!(id)));
    assert_eq!(service.get(path).body, binary.body);
    assert!(service.get(&format!("/v1/builds/{id}/log")).text().contains("event: end"));
    assert_eq!(fetches(), fetched, "nothing was fetched again");
}

/// Clients that request an artifact without reading it use little memory and block no other client.
fn download_without_reading(proxy: &ModuleProxy, service: &RunningService) {
    let clients = long(64, 256) as u64;
    let mut files = plugin("example.com/acme/large", "large").files();
    let code = "package large\n\nimport _ \"embed\"\n\n//go:embed large.bin\nvar content string\n\n\
                func init() {\n\tif len(content) == 1 {\n\t\tpanic(content)\n\t}\n}\n";
    files.insert("large.go".to_owned(), code.into());
    // More than the socket buffers hold.
    files.insert("large.bin".to_owned(), vec![0; 48 << 20]);
    proxy.module("example.com/acme/large", "v1.0.0", files);
    let asked = service.post("/v1/builds", &json!({ "build": build("large") }));
    let view = service.built(&asked.id());
    let path = view["artifact"]["path"].as_str().unwrap_or_else(|| panic!("{view:#}"));
    let size = view["artifact"]["size"].as_u64().unwrap();
    assert!(size > 48 << 20, "{size}");

    let before = service.memory();
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let idle: Vec<_> = (0..clients)
        .map(|_| {
            let mut stream = service.connect();
            stream.write_all(request.as_bytes()).unwrap();
            let mut start = [0; 12];
            stream.read_exact(&mut start).unwrap();
            assert_eq!(&start, b"HTTP/1.1 200");
            stream
        })
        .collect();
    // Other clients are served meanwhile.
    for _ in 0..3 {
        assert_eq!(service.get(path).body.len() as u64, size);
    }
    let more = service.memory().saturating_sub(before);
    assert!(more < clients * (128 << 10), "{clients} clients that take nothing cost {more} bytes");
    drop(idle);
}

#[test]
fn damaged_binary_is_built_again() {
    let proxy = proxy();
    let sandbox = Sandbox::behind(&proxy);
    let service = RunningService::start(&mut server(&sandbox, &[]));
    let request = json!({ "build": build("hello") });
    let first = service.post("/v1/builds", &request).id();
    let view = service.built(&first);
    let path = view["artifact"]["path"].as_str().unwrap().to_owned();
    let whole = service.get(&path).body;
    let sha256 = path.rsplit('/').next().unwrap();
    let file = sandbox.at("data/artifacts").join(&sha256[..2]).join(sha256);
    let mut damaged = whole.clone();
    damaged[whole.len() / 2] ^= 1;
    std::fs::write(&file, damaged).unwrap();
    assert_eq!(service.get(&path).status, 404);
    let again = service.post("/v1/builds", &request);
    assert_eq!(again.status, 202, "{again:?}");
    assert_eq!(service.built(&again.id())["artifact"]["path"], path);
    assert_eq!(service.get(&path).body, whole);

    // Found by the next process.
    service.kill();
    std::fs::write(&file, &whole[..100]).unwrap();
    let service = RunningService::start(&mut server(&sandbox, &[]));
    let again = service.post("/v1/builds", &request);
    assert_eq!(again.status, 202, "{again:?}");
    service.built(&again.id());
    assert_eq!(service.get(&path).body, whole);

    // A forced build writes it anew.
    let modified = |file: &Path| std::fs::metadata(file).unwrap().modified().unwrap();
    let before = modified(&file);
    let forced = service.post("/v1/builds", &json!({ "build": build("hello"), "force": true }));
    service.built(&forced.id());
    assert!(modified(&file) > before);
}

#[cfg(unix)]
#[test]
fn a_service_of_root_builds_as_another_user() {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root can run builds as another user");
        return;
    }
    let proxy = proxy();
    let sandbox = Sandbox::behind(&proxy);
    // As the directories of a service are: its builds pass through.
    for directory in [sandbox.path().parent().unwrap().to_owned(), sandbox.path()] {
        std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o711)).unwrap();
    }
    std::fs::copy(VX, sandbox.at("vx")).unwrap();
    let listed = sandbox.vx_command("server --data data --job-user nobody");
    let mut command = Command::new(sandbox.at("vx"));
    command.args(listed.get_args()).current_dir(sandbox.path());
    command.envs(listed.get_envs().filter_map(|(name, value)| Some((name, value?))));
    // Those of the tests belong to root.
    for name in ["VX_SERVER_JOB_USER", "GOMODCACHE", "GOCACHE"] {
        command.env_remove(name);
    }
    let service = RunningService::start(&mut command);
    let built = service.built(&service.post("/v1/builds", &json!({ "build": build("hello") })).id());
    assert_eq!(built["state"], "succeeded", "{built:#}\n{}", service.stderr());
    let binary = service.get(built["artifact"]["path"].as_str().unwrap());
    assert!(binary.status == 200 && binary.body.starts_with(b"\x7fELF"));
    let owner = |path: &str| std::fs::metadata(sandbox.at(path)).unwrap().uid();
    assert_ne!(owner("data/go"), 0, "what builds leave belongs to their user");
    assert_eq!(owner("data/artifacts"), 0, "builds can't change finished binaries");
}

#[test]
fn caches_over_the_limit_are_emptied() {
    let proxy = proxy();
    let sandbox = Sandbox::behind(&proxy);
    let service = RunningService::start(server(&sandbox, &["--limit-cache", "1K"]).env_remove("GOMODCACHE"));
    let modules = sandbox.at("data/go/pkg");
    for what in ["with an empty cache", "after it was emptied"] {
        let asked = service.post("/v1/builds", &json!({ "build": build("hello"), "force": true }));
        assert_eq!(service.built(&asked.id())["state"], "succeeded", "{what}");
        if what == "with an empty cache" {
            wait_until("the caches are emptied", || !modules.exists());
        }
    }
    assert!(
        service.stderr().contains("clearing the module cache and the build cache"),
        "{}",
        service.stderr()
    );
}

#[test]
fn failure_kind_says_who_can_act() {
    let proxy = proxy();
    let module = |name: &str, files: Files| {
        proxy.module(&format!("example.com/acme/{name}"), "v1.0.0", files);
    };
    let made = |name: &str| plugin(&format!("example.com/acme/{name}"), name);
    let without_code = |name: &str| {
        let mut files = made(name).files();
        files.retain(|file, _| !file.ends_with(".go"));
        files
    };
    module("nothing", without_code("nothing"));
    let mut library = without_code("library");
    library.insert("library.go".to_owned(), b"package library\n".to_vec());
    module("library", library);
    module("renamed", made("original").files());
    module("needy", made("needy").imports("example.com/acme/gone", "v1.0.0").files());
    module("demanding", made("demanding").requires("example.com/acme/hello", "v1.1.0").files());
    let newer = plugin("example.com/acme/hello", "hello").says("newer");
    proxy.module("example.com/acme/hello", "v1.1.0", newer.files());
    // Faults of proxies and their networks.
    for (name, fault) in [
        ("down", Fault::Status(503)),
        ("dead", Fault::HangUp),
        ("busy", Fault::TooManyRequests { retry_after: 60 }),
        ("resetter-locked", Fault::Status(403)),
    ] {
        module(name, made(name).files());
        proxy.fail(&format!("/acme/{name}/"), fault);
    }
    module("leaning", made("leaning").imports("example.com/acme/down", "v1.0.0").files());
    module("corrupt", made("corrupt").files());
    proxy.serve("/example.com/acme/corrupt/@v/v1.0.0.zip", "no zip");

    let sandbox = Sandbox::new().own_module_cache();
    // Only this test's proxy, the last one, has its modules, so its response decides.
    let others = sandbox.value("GOPROXY");
    let sandbox = sandbox.env("GOPROXY", format!("{}|{}", others.trim_end_matches(",direct"), proxy.url()));
    let service = RunningService::start(&mut server(&sandbox, &["--jobs", "2"]));
    let with = |name: &str, field: &str, value: Value| {
        let mut build = build(name);
        build[field] = value;
        build
    };
    let at = |name: &str, reference: &str| {
        let module = format!("example.com/acme/{name}");
        with(name, "plugins", json!([{"module": module, "ref": reference}]))
    };
    let demanding = json!([
        {"module": "example.com/acme/hello", "ref": "v1.0.0"},
        {"module": "example.com/acme/demanding", "ref": "v1.0.0"},
    ]);
    let mut strict = with("hello", "plugins", demanding);
    strict["strict"] = json!(true);
    let replaced = json!([{"old": "example.com/acme/hello", "new": "example.com/acme/nowhere@v1.0.0"}]);
    let cases = [
        (at("hello", "v1.0.9"), "invalid", "failed to resolve v1.0.9 of plugin hello"),
        (at("hello", "no-branch"), "invalid", "failed to resolve no-branch of plugin hello"),
        (build("missing"), "invalid", "failed to resolve v1.0.0 of plugin missing"),
        (build("resetter-missing"), "invalid", "failed to resolve v1.0.0 of plugin resetter-missing"),
        (
            with("hello", "roadrunner", json!("v2025.0.99")),
            "invalid",
            "failed to resolve v2025.0.99 of RoadRunner",
        ),
        (with("hello", "replaces", replaced), "invalid", "example.com/acme/nowhere"),
        (build("nothing"), "invalid", "is this module a RoadRunner plugin"),
        (build("library"), "invalid", "p_library_"),
        (build("renamed"), "invalid", "module_name = \"example.com/acme/original\""),
        (build("needy"), "invalid", "example.com/acme/gone"),
        (strict, "invalid", "v1.0.0, but example.com/acme/demanding@v1.0.0 requires v1.1.0"),
        (build("broken"), "failed", "failed to compile plugin broken (example.com/acme/broken v1.0.0)"),
        (build("down"), "unavailable", "503"),
        (build("dead"), "unavailable", "failed to resolve v1.0.0 of plugin dead"),
        (build("busy"), "unavailable", "429"),
        (build("resetter-locked"), "unavailable", "403"),
        (build("leaning"), "unavailable", "example.com/acme/down"),
        (build("corrupt"), "unavailable", "invalid zip for module example.com/acme/corrupt"),
    ];
    let asked: Vec<String> =
        cases.iter().map(|(build, ..)| service.post("/v1/builds", &json!({ "build": build })).id()).collect();
    for (id, (build, kind, printed)) in asked.iter().zip(&cases) {
        let failure = service.built(id)["failure"].clone();
        let message = failure["message"].as_str().unwrap_or_default();
        assert!(
            failure["kind"] == *kind && message.contains(printed),
            "{build}: {kind}, {printed}: {failure:#}"
        );
    }
    let missing = frame(&message(RELEASE, "example.com/acme/missing", "v1.0.0"));
    let (_, trailers) = grpc(&service, CALL, missing);
    assert_eq!(trailer(&trailers, "grpc-status"), "3", "{trailers:?}");
    assert!(trailer(&trailers, "grpc-message").contains("plugin missing"), "{trailers:?}");

    // Failures are not cached: the version is published, and the proxy works again.
    module("missing", made("missing").files());
    proxy.heal();
    for name in ["missing", "down"] {
        let again = service.post("/v1/builds", &json!({ "build": build(name) }));
        assert_eq!(again.status, 202, "{again:?}");
        assert_eq!(service.built(&again.id())["state"], "succeeded", "{name}");
    }
}

#[test]
fn invalid_fields_are_named_in_protobuf() {
    let (_sandbox, service) = idle();
    let proto = ("Content-Type", "application/proto");
    let wrong = [
        (message("", "example.com/acme/hello", "v1.0.0"), "rr_version"),
        (message(RELEASE, "", "v1.0.0"), "plugins[0].module_name"),
        (message(RELEASE, "example.com/acme/hello", ""), "plugins[0].tag"),
        (field(2, RELEASE.as_bytes()), "plugins"),
        ([message(RELEASE, "example.com/acme/hello", "v1.0.0"), field(1, b"no-uuid")].concat(), "request_id"),
    ];
    for (message, field) in wrong {
        let answer = service.ask("POST", CALL, &[proto], &message);
        assert_eq!(answer.status, 400, "{field}: {answer:?}");
        let error = answer.json();
        assert_eq!(error["code"], "invalid_argument", "{field}: {error}");
        assert!(error["message"].as_str().unwrap().contains(field), "{field}: {error}");
        let (_, trailers) = grpc(&service, CALL, frame(&message));
        assert_eq!(trailer(&trailers, "grpc-status"), "3", "{field}: {trailers:?}");
    }
}

#[test]
fn malformed_requests_get_a_status() {
    let (_sandbox, service) = idle();
    let large = vec![b' '; 3 << 20];
    let mut bytes: Vec<u8> = (0..4096u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let proto = ("Content-Type", "application/proto");
    let web = ("Content-Type", "application/grpc-web+proto");
    let cases: [Case<'_>; 17] = [
        ("POST", "/v1/builds", &[JSON], &large, &[413]),
        ("POST", CALL, &[JSON], &large, &[413]),
        ("POST", CALL, &[proto], &large, &[413]),
        ("POST", "/v1/builds", &[JSON], b"\xff\xfe{", &[400]),
        ("POST", "/v1/builds", &[JSON], b"{\"build\":null}", &[422]),
        ("POST", "/v1/builds", &[JSON, ("Content-Encoding", "gzip")], b"{}", &[415]),
        ("POST", "/v1/builds", &[("Content-Type", "application/x-www-form-urlencoded")], b"a=b", &[415]),
        ("POST", CALL, &[("Content-Type", "text/html")], b"{}", &[415]),
        ("POST", CALL, &[JSON], b"{\"plugins\": [", &[400]),
        ("POST", CALL, &[JSON], b"{\"rr_version\": 7}", &[400]),
        ("POST", CALL, &[proto], b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", &[400]),
        ("POST", CALL, &[proto], b"\x2a\x03\x0a\x01", &[400]),
        ("POST", CALL, &[web], b"\x00\x00\x00\x00", &[200]),
        ("GET", CALL, &[], b"", &[405, 415]),
        ("POST", "/api.service.v1.BuildService/Other", &[JSON], b"{}", &[404, 501]),
        ("POST", "/api.service.v2.BuildService/Build", &[JSON], b"{}", &[404, 501]),
        ("PATCH", "/v1/builds", &[], b"", &[405]),
    ];
    for (method, path, headers, body, wanted) in cases {
        let answer = service.ask(method, path, headers, body);
        assert!(wanted.contains(&answer.status), "{method} {path} {headers:?}: {answer:?}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{method} {path}");
    }
    // Messages truncated at every length, and a valid message with every byte changed.
    let right = message(RELEASE, "example.com/acme/hello", "no such ref");
    for at in 0..right.len() {
        let mut wrong = right.clone();
        wrong[at] ^= 0xff;
        let answer = service.ask("POST", CALL, &[proto], &wrong);
        assert_eq!(answer.status, 400, "byte {at}: {answer:?}");
        bytes.rotate_left(7);
        let answer = service.ask("POST", CALL, &[proto], &bytes[..at]);
        assert_eq!(answer.status, 400, "{at} bytes: {answer:?}");
    }
    for raw in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b",
        b"\0\0\0\0",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nnonsense of some length",
    ] {
        let mut stream = service.connect();
        stream.write_all(raw).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let _ = stream.read_to_end(&mut Vec::new());
    }
    assert_eq!(service.get("/readyz").text(), "ok\n");
    assert_eq!(service.get("/v1/builds/00000000-0000-7000-8000-000000000000").status, 404);
    let printed = service.stderr();
    assert!(!printed.contains("panic") && !printed.contains("defect"), "{printed}");
}

#[test]
fn slow_clients_are_disconnected() {
    let (_sandbox, service) = idle();
    // Half a request header, no byte, the start of the HTTP/2 preface; and a body that never ends.
    let heads: [&[u8]; 3] = [b"GET /healthz HTTP/1.1\r\nHost: local", b"", b"PRI * HT"];
    let mut heads = heads.map(|start| {
        let mut stream = service.connect();
        stream.write_all(start).unwrap();
        stream
    });
    let body = |path: &str| {
        let mut stream = service.connect();
        let head = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n");
        stream.write_all(format!("{head}Content-Length: 1000\r\n\r\n{{").as_bytes()).unwrap();
        stream
    };
    let mut bodies = [body("/v1/builds"), body(CALL)];
    for stream in &mut bodies {
        assert_eq!(Answer::read(stream, false).status, 408);
    }
    for stream in &mut heads {
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer}");
    }
    assert_eq!(service.get("/healthz").status, 200);
}

#[test]
fn a_branch_or_commit_of_roadrunner_is_built() {
    let proxy = proxy();
    let (tree, version) = (roadrunner("v3"), "v3.0.0-20260611105417-0123456789ab");
    proxy.module(tree.module(), version, tree.files());
    let sandbox = Sandbox::behind(&proxy);
    let service = RunningService::start(&mut server(&sandbox, &[]));
    for reference in ["master", "0123456789ab"] {
        proxy.query(tree.module(), reference, version);
        let mut call = call("hello");
        call["rr_version"] = json!(reference);
        let answer = service.post(CALL, &call);
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    let mut call = call("hello");
    call["rr_version"] = json!("fedcba9876543");
    let answer = service.post(CALL, &call);
    assert_ne!(answer.status, 500, "{}", answer.text());
    assert!(answer.text().contains("fedcba9876543"), "{}", answer.text());
}

#[test]
fn grpc_and_grpc_web_with_health_and_reflection() {
    let proxy = proxy();
    let sandbox = Sandbox::behind(&proxy);
    let service = RunningService::start(&mut server(&sandbox, &[]));
    let request = frame(&message(RELEASE, "example.com/acme/hello", "v1.0.0"));
    let (answer, trailers) = grpc(&service, CALL, request.clone());
    assert_eq!(trailer(&trailers, "grpc-status"), "0", "{trailers:?}");
    assert!(String::from_utf8_lossy(&answer).contains("/v1/artifacts/"), "{answer:?}");
    let web = service.ask("POST", CALL, &[("Content-Type", "application/grpc-web+proto")], &request);
    assert_eq!((web.status, web.header("content-type")), (200, "application/grpc-web+proto"));
    let text = web.text();
    assert!(text.contains("/v1/artifacts/") && text.contains("grpc-status: 0"), "{text}");
    let (health, trailers) = grpc(&service, "/grpc.health.v1.Health/Check", frame(b""));
    assert_eq!((health.as_slice(), trailer(&trailers, "grpc-status")), (&[8, 1][..], "0"));
    let (_, trailers) = grpc(&service, "/grpc.health.v1.Health/Check", frame(&field(1, b"other")));
    assert_eq!(trailer(&trailers, "grpc-status"), "5");
    // list_services
    for version in ["v1", "v1alpha"] {
        let path = format!("/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo");
        let (services, _) = grpc(&service, &path, frame(&field(7, b"")));
        assert!(String::from_utf8_lossy(&services).contains("api.service.v1.BuildService"), "{services:?}");
    }
    let (_, trailers) = grpc(&service, "/api.service.v2.BuildService/Build", request);
    assert_eq!(trailer(&trailers, "grpc-status"), "12", "{trailers:?}");
}

#[test]
fn grpcurl_lists_describes_and_calls() {
    let Some(grpcurl) = program("grpcurl") else {
        println!(
            "skipped: no grpcurl on the PATH (go install github.com/fullstorydev/grpcurl/cmd/grpcurl@latest)"
        );
        return;
    };
    let proxy = proxy();
    let sandbox = Sandbox::behind(&proxy);
    let service = RunningService::start(&mut server(&sandbox, &[]));
    let address = service.address().to_string();
    let ask = |arguments: &[&str]| {
        CommandOutput::from(sandbox.command(&grpcurl, &[&["-plaintext"], arguments].concat())).ok()
    };
    let listed = ask(&[&address, "list"]);
    assert!(listed.lines().any(|line| line == "api.service.v1.BuildService"), "{listed}");
    let described = ask(&[&address, "describe", "api.request.v1.BuildRequest"]);
    assert!(described.contains("string rr_version = 2;"), "{described}");
    let data = call("hello").to_string();
    let built = ask(&["-d", &data, &address, "api.service.v1.BuildService/Build"]);
    assert!(built.contains("\"path\": \"/v1/artifacts/"), "{built}");
}

/// The Go program of tests/connect, compiled with the code that protoc generates from the protobuf files.
pub(crate) fn go_client(sandbox: &Sandbox) -> Option<PathBuf> {
    const FILES: [&str; 3] =
        ["api/request/v1/request.proto", "api/response/v1/response.proto", "api/service/v1/service.proto"];
    let directory = sandbox.at("client");
    let tools = directory.join("tools");
    std::fs::create_dir(&directory).unwrap();
    for name in ["go.mod", "go.sum", "main.go"] {
        let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/connect").join(name);
        std::fs::copy(own, directory.join(name)).unwrap();
    }
    if program("protoc").is_none() {
        println!("skipped: no protoc on the PATH (Debian's protobuf-compiler)");
        return None;
    }
    let run = |program: &str, arguments: &[String]| {
        let path = std::env::var_os("PATH").unwrap();
        let path = std::env::join_paths([tools.clone()].into_iter().chain(std::env::split_paths(&path)));
        let mut command = Command::new(program);
        command.args(arguments).env("PATH", path.unwrap()).current_dir(&directory);
        let output = command.output().unwrap();
        let printed = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() { Ok(()) } else { Err(printed) }
    };
    let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
    if let Err(printed) = run("go", &words("build -o tools/ tool")) {
        println!("skipped: the modules of the client can't be had: {printed}");
        return None;
    }
    let mut arguments = vec![concat!("-I", env!("CARGO_MANIFEST_DIR"), "/../velox-service/proto").to_owned()];
    for plugin in ["go", "connect-go"] {
        arguments.extend(words(&format!("--{plugin}_out=. --{plugin}_opt=module=client")));
        // The files have no Go package: each becomes one of the client's.
        arguments.extend(FILES.map(|file| {
            let folder = file.rsplit_once('/').unwrap().0;
            let package = folder.replace("api/", "").replace('/', "");
            format!("--{plugin}_opt=M{file}=client/{folder};{package}")
        }));
    }
    arguments.extend(FILES.map(str::to_owned));
    run("protoc", &arguments).unwrap();
    run("go", &words("build -o client .")).unwrap();
    Some(directory.join("client"))
}

/// The answers of a service to calls of [`go_client`].
pub(crate) fn answers_of(
    client: &Path,
    sandbox: &Sandbox,
    service: &RunningService,
    calls: &[Value],
) -> Vec<Value> {
    let calls: Vec<String> = calls.iter().map(Value::to_string).collect();
    std::fs::write(sandbox.at("calls"), calls.join("\n")).unwrap();
    let calls = std::fs::File::open(sandbox.at("calls")).unwrap();
    let output = CommandOutput::from(Command::new(client).arg(&service.url).stdin(calls));
    output.ok();
    output.events()
}

#[test]
fn connect_client_in_go() {
    let proxy = proxy();
    let sandbox = Sandbox::behind(&proxy);
    let Some(client) = go_client(&sandbox) else { return };
    let ask = |service: &RunningService, calls: &[Value]| answers_of(&client, &sandbox, service, calls);
    let with = |protocol: &str, changes: Value| {
        let mut call = json!({"protocol": protocol, "version": RELEASE, "module": "example.com/acme/hello",
            "tag": "v1.0.0", "os": "linux", "arch": go_arch()});
        call.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        call
    };
    let protocols = ["connect", "connect over HTTP/2", "grpc", "grpc-web"];
    let right = [json!({}), json!({"json": true}), json!({"gzip": true})];
    let wrong = [
        (json!({"version": "a b"}), "invalid_argument", "rr_version"),
        (json!({"os": "plan9"}), "invalid_argument", "target_platform"),
        (json!({"race": true}), "failed_precondition", "race"),
        (json!({"module": "example.com/acme/broken"}), "internal", "undefined: missing"),
    ];

    let service = RunningService::start(&mut server(&sandbox, &[]));
    for protocol in protocols {
        let calls: Vec<Value> =
            right.iter().chain(wrong.iter().map(|(changes, ..)| changes)).cloned().collect();
        let calls: Vec<Value> = calls.into_iter().map(|changes| with(protocol, changes)).collect();
        let answers = ask(&service, &calls);
        assert_eq!(answers.len(), calls.len());
        let (built, refused) = answers.split_at(right.len());
        for answer in built {
            let path = answer["path"].as_str().unwrap();
            assert!(path.starts_with("/v1/artifacts/") && answer["logs"] != "", "{protocol}: {answer}");
            assert_eq!(service.ask("HEAD", path, &[], b"").status, 200);
        }
        for (answer, (changes, code, printed)) in refused.iter().zip(&wrong) {
            let message = answer["message"].as_str().unwrap();
            assert!(answer["code"] == *code && message.contains(printed), "{protocol}, {changes}: {answer}");
        }
    }

    let token = sandbox.vx("server token new go --file tokens.toml").ok();
    let arguments = ["--jobs", "0", "--queue", "1", "--tokens", "tokens.toml", "--data", "other"];
    let service = RunningService::start(
        Command::new(VX)
            .arg("server")
            .args(arguments)
            .env("VX_SERVER_JOB_USER", "root")
            .current_dir(sandbox.path()),
    );
    for protocol in protocols {
        let token = json!({"token": token.trim(), "deadline": 300});
        let mut other = token.clone();
        other["module"] = json!("example.com/acme/other");
        let answers = ask(
            &service,
            &[json!({}), json!({"token": "vx_wrong"}), token, other].map(|changes| with(protocol, changes)),
        );
        let codes: Vec<_> = answers.iter().map(|answer| answer["code"].as_str().unwrap()).collect();
        assert_eq!(
            codes,
            ["unauthenticated", "unauthenticated", "deadline_exceeded", "resource_exhausted"],
            "{protocol}: {answers:?}"
        );
        assert!(
            answers[3]["retry_after"].as_str().unwrap().parse::<u64>().is_ok(),
            "{protocol}: {answers:?}"
        );
    }
}

/// This machine's GOARCH.
pub(crate) fn go_arch() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}

/// The requests of Velox's load test.
#[test]
fn requests_of_the_velox_load_test() {
    const PLUGINS: &str = "app-logger v5.1.8, logger v5.1.8, lock v5.1.8, rpc v5.1.8, centrifuge v5.1.8, \
        roadrunner-temporal v5.7.0, metrics v5.1.8, otel v5.1.8, http v5.2.7, gzip v5.1.8, prometheus v5.1.7, \
        headers v5.1.8, static v5.1.6, proxy_ip_parser v5.1.8, send v5.1.5, server v5.2.9, service v5.1.8, jobs v5.1.8, \
        amqp v5.2.2, sqs v5.1.8, beanstalk v5.1.8, nats v5.1.8, kafka v5.2.4, google-pub-sub v5.1.8, kv v5.2.8, \
        boltdb v5.1.8, memory v5.2.8, redis v5.1.9, memcached v5.1.8, fileserver v5.1.8, grpc v5.2.2, status v5.1.8, \
        tcp v5.1.8";
    let proxy = ModuleProxy::start();
    // Its commands use real plugins, replaced here by small ones.
    let workers =
        "package workers\n\nimport \"io\"\n\nfunc Run(string, []string, io.Writer) error { return nil }\n";
    let small = roadrunner("v2025").file("internal/cli/workers/workers.go", workers);
    proxy.module(small.module(), "v2025.1.2", small.files());
    let plugins: Vec<Value> = PLUGINS
        .split(", ")
        .map(|plugin| {
            let (name, tag) = plugin.split_once(' ').unwrap();
            let owner = if name == "roadrunner-temporal" { "temporalio" } else { "roadrunner-server" };
            let module = format!("github.com/{owner}/{name}/v5");
            proxy.module(&module, tag, velox_testkit::plugin(&module, &name.replace('-', "")).files());
            json!({"module_name": module, "tag": tag})
        })
        .collect();
    let ask = |service: &RunningService, user: u32, os: &str, arch: &str, more: &[(&str, &str)]| {
        let call = json!({
            "request_id": format!("00000000-0000-4000-8000-{user:012}"),
            "force_rebuild": true,
            "target_platform": {"os": os, "arch": arch},
            "rr_version": "v2025.1.2",
            "plugins": plugins,
        });
        let headers = [&[JSON, ("Accept", "application/json")], more].concat();
        service.ask("POST", CALL, &headers, call.to_string().as_bytes())
    };
    let sandbox = Sandbox::behind(&proxy);
    let service = RunningService::start(&mut server(&sandbox, &[]));
    // Its users send the same request concurrently; Velox answers all but one with 409.
    let answers: Vec<Answer> = std::thread::scope(|scope| {
        let (ask, service) = (&ask, &service);
        let users: Vec<_> =
            (1..=4).map(|user| scope.spawn(move || ask(service, user, "linux", go_arch(), &[]))).collect();
        users.into_iter().map(|user| user.join().unwrap()).collect()
    });
    for answer in answers {
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(answer.header("content-type").contains("application/json"), "{answer:?}");
        let path = answer.json()["path"].as_str().unwrap().to_owned();
        assert_eq!(service.ask("HEAD", &path, &[], b"").status, 200);
    }
    // All of its platforms are accepted; other tests compile them.
    let (_sandbox, idle) = idle();
    for os in ["linux", "windows", "darwin"] {
        for arch in ["amd64", "arm64"] {
            let late = ask(&idle, 5, os, arch, &[("Connect-Timeout-Ms", "100")]);
            assert_eq!(late.json()["code"], "deadline_exceeded", "{os}/{arch}: {late:?}");
        }
    }
}

#[test]
fn client_deadline_does_not_cancel_the_build() {
    let (_sandbox, service) = idle();
    let headers = [JSON, ("Connect-Timeout-Ms", "200")];
    let late = service.ask("POST", CALL, &headers, call("hello").to_string().as_bytes());
    assert_eq!(late.json()["code"], "deadline_exceeded", "{late:?}");
    let asked = service.post("/v1/builds", &json!({ "build": build("hello") }));
    assert_eq!((asked.status, &asked.json()["state"]), (202, &json!("queued")), "{asked:?}");
    let path = format!("/v1/builds/{}", asked.id());
    assert_eq!(service.delete(&path).json()["state"], "cancelled");
    assert_eq!(service.get(&path).json()["state"], "cancelled");
}

#[test]
fn readiness_is_told_until_the_drain_ends() {
    let (_sandbox, service) = idle();
    // A request that began before the signal holds the drain.
    let mut open = service.connect();
    open.write_all(
        b"POST /v1/builds HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{",
    ).unwrap();
    assert_eq!(service.get("/readyz").status, 200);
    service.terminate();
    wait_until("new connections are told", || service.get("/readyz").status == 503);
    for _ in 0..3 {
        let answer = service.get("/readyz");
        assert_eq!(
            (answer.status, answer.json()["type"].as_str()),
            (503, Some("shutting_down")),
            "{answer:?}"
        );
        assert_eq!((answer.header("connection"), service.get("/healthz").status), ("close", 200));
    }
    open.write_all(b"}").unwrap();
    let answer = Answer::read(&mut open, false);
    assert!((400..500).contains(&answer.status), "{answer:?}");
    let ended = service.ended();
    assert!(ended.status.success(), "{ended:?}");
}

#[test]
fn requests_without_a_token_fill_no_log() {
    const REQUESTS: u64 = 3000;
    let sandbox = Sandbox::new();
    let token = sandbox.vx("server token new ci").ok().trim().to_owned();
    let flags = ["--jobs", "0", "--tokens", "tokens.toml", "--audit-log", "audit.jsonl"];
    let service = RunningService::start(&mut server(&sandbox, &flags));
    let mut stream = service.connect();
    for number in 0..REQUESTS {
        let path = if number % 2 == 0 { "/v1/catalogue" } else { "/healthz" };
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let answer = Answer::read(&mut stream, false);
        assert_eq!(answer.status, if number % 2 == 0 { 401 } else { 200 }, "{answer:?}");
    }
    drop(stream);
    let bearer = format!("Bearer {token}");
    for _ in 0..5 {
        assert_eq!(service.ask("GET", "/v1/catalogue", &[("Authorization", &bearer)], b"").status, 200);
    }
    service.terminate();
    let log = String::from_utf8(service.ended().stderr).unwrap();
    let lines =
        |text: &str| -> Vec<Value> { text.lines().map(|line| serde_json::from_str(line).unwrap()).collect() };
    let (log, audit) = (lines(&log), lines(&sandbox.read("audit.jsonl")));
    let count = |lines: &[Value], of: &dyn Fn(&Value) -> bool| -> u64 {
        lines.iter().filter(|line| of(line)).map(|line| line["count"].as_u64().unwrap_or(1)).sum()
    };
    // Each interval has at most two lines for each reason.
    assert!(audit.len() <= 10 && log.len() <= 40, "{audit:?} {log:?}");
    assert_eq!(count(&audit, &|line| line["decision"] == "token_missing"), REQUESTS / 2, "{audit:?}");
    let handled = |line: &Value| line["msg"].as_str().is_some_and(|text| text.starts_with("handled"));
    assert_eq!(count(&log, &handled), REQUESTS + 5, "{log:?}");
    let network = |line: &Value| line["count"].is_u64() && line["network"] == "127.0.0.1";
    assert!(audit.iter().any(network) && log.iter().any(network), "{audit:?} {log:?}");
}

#[test]
fn invalid_server_flags_fail_at_start() {
    let sandbox = Sandbox::new().file("cert.pem", "no certificate").file("key.pem", "no key");
    let cases: [(&[&str], i32, &str); 7] = [
        (&["--address", "0.0.0.0:0"], 2, "--tokens"),
        (&["--address", "nowhere"], 2, "--address"),
        (&["--tls-cert", "cert.pem"], 2, "--tls-key"),
        (&["--tls-cert", "cert.pem", "--tls-key", "key.pem"], 2, "cert.pem"),
        (&["--cors-origin", "*"], 2, "origin"),
        (&["--tokens", "missing.toml"], 2, "missing.toml"),
        (&["--limit-time", "soon"], 2, "90s"),
    ];
    for (arguments, code, hint) in cases {
        let output = server(&sandbox, arguments).output().unwrap();
        let printed = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {printed}");
        assert!(printed.contains(hint), "{arguments:?}: {printed}");
    }
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = server(&sandbox, &["--address", &address]).output().unwrap();
    let printed = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && printed.contains(&address), "{printed}");
}

#[test]
fn tls_serves_http2_and_reloads_certificates() {
    let sandbox = Sandbox::new();
    let write = |name: &str| {
        let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        std::fs::write(sandbox.at(format!("{name}.key")), pair.signing_key.serialize_pem()).unwrap();
        std::fs::write(sandbox.at(format!("{name}.pem")), pair.cert.pem()).unwrap();
        reqwest::Certificate::from_pem(pair.cert.pem().as_bytes()).unwrap()
    };
    let first = write("server");
    let service = RunningService::start(&mut server(
        &sandbox,
        &["--jobs", "0", "--tls-cert", "server.pem", "--tls-key", "server.key"],
    ));
    assert!(service.url.starts_with("https://"), "{}", service.url);
    let url = format!("https://localhost:{}/healthz", service.address().port());
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let get = async |certificate: &reqwest::Certificate| {
        let client =
            reqwest::Client::builder().tls_certs_only([certificate.clone()]).no_proxy().build().unwrap();
        client.get(&url).send().await
    };
    runtime.block_on(async {
        let answer = get(&first).await.unwrap();
        assert_eq!((answer.version(), answer.status().as_u16()), (http::Version::HTTP_2, 200));
        assert!(answer.headers().contains_key("strict-transport-security"));
        let second = write("server");
        while get(&second).await.is_err() {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        assert!(get(&first).await.is_err());
    });
}
