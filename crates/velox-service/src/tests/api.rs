use axum::{
    body::Body,
    http::{HeaderValue, Request},
};
use futures::StreamExt as _;
use serde_json::{Value, json};
use velox_api::BuildId;

use super::{TestService, answer, spec, submission};
use crate::http::access::AccessConfig;

const VERSION: &str = "v5.1.8";
const JSON: (&str, &str) = ("content-type", "application/json");

type Change = fn(&mut Value);

#[tokio::test]
async fn the_openapi_document_has_all_routes() {
    let service = TestService::start().await;
    let document = service.get("/v1/openapi.json").await.json();
    let paths = document["paths"].as_object().unwrap();
    let names: Vec<&str> = paths.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "/health",
            "/healthz",
            "/readyz",
            "/v1/artifacts/{sha256}",
            "/v1/builds",
            "/v1/builds/{id}",
            "/v1/builds/{id}/attestation",
            "/v1/builds/{id}/audit",
            "/v1/builds/{id}/log",
            "/v1/builds/{id}/sbom",
            "/v1/builds/{id}/velox.lock",
            "/v1/builds/{id}/velox.toml",
            "/v1/catalogue",
            "/v1/download",
            "/version",
        ]
    );
    for (path, methods) in paths {
        let url = path.replace("{id}", &BuildId::new().to_string()).replace("{sha256}", &"0".repeat(64));
        for method in ["get", "post", "put", "delete", "patch"] {
            let answer = service.request(&method.to_uppercase(), &url, &[], "").await;
            let is_documented = methods.get(method).is_some();
            assert_eq!(answer.status != 405, is_documented, "{method} {path}");
            assert!(is_documented || answer.headers.contains_key("allow"), "{method} {path}");
            if is_documented && path.starts_with("/v1/") {
                let unauthorized = &methods[method]["responses"]["401"]["content"];
                let schema = &unauthorized["application/problem+json"]["schema"]["$ref"];
                assert_eq!(schema, "#/components/schemas/Problem", "{method} {path}");
            }
        }
    }
    let schemas = document["components"]["schemas"].as_object().unwrap();
    for used in document.to_string().split("#/components/schemas/").skip(1) {
        let name = used.split('"').next().unwrap();
        assert!(schemas.contains_key(name), "{name} has no schema");
    }
}

#[tokio::test]
async fn download_by_a_query() {
    const PATH: &str = "/v1/download?roadrunner=v2025.1.5&target=linux/amd64\
                        &plugin=github.com/roadrunner-server/rpc/v5@v5.1.8";
    let service = TestService::start().await;
    let queued = service.get(PATH).await;
    assert_eq!((queued.status, queued.header("retry-after")), (202, "5"), "{queued:?}");
    let id = queued.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(queued.header("location"), format!("/v1/builds/{id}"));
    assert_eq!(queued.json()["queue"]["at"], 1);
    // It is the build of the same request over POST.
    assert_eq!(service.submit(VERSION).await.to_string(), id);
    let head = service.request("HEAD", PATH, &[], "").await;
    assert_eq!((head.status, &*head.text), (202, ""));

    // A failure is reported to the client that repeats its request; POST builds again.
    service.fail(&service.lease().await, velox_api::FailureKind::Failed, "it does not compile").await;
    for _ in 0..2 {
        let failed = service.get(PATH).await;
        assert_eq!(
            (failed.status, failed.json()["type"].as_str()),
            (422, Some("build_failed")),
            "{failed:?}"
        );
        assert_eq!(failed.json()["detail"], "it does not compile");
    }
    let again = service.submit(VERSION).await.to_string();
    assert_ne!(again, id);
    assert_eq!(service.get(PATH).await.json()["id"], again);

    let waiting = format!("{PATH}&wait=20");
    let (answer, artifact) = tokio::join!(service.get(&waiting), async {
        let lease = service.lease().await;
        service.succeed(&lease, b"a binary").await
    });
    let tag = format!("\"{}\"", artifact.sha256);
    assert_eq!((answer.status, &*answer.text, answer.header("etag")), (200, "a binary", &*tag));
    assert_eq!(answer.header("cache-control"), "private, no-cache");
    assert!(answer.header("content-disposition").contains("rr.exe"));
    let ask = async |method: &str, headers: &[(&str, &str)]| {
        let answer = service.request(method, PATH, headers, "").await;
        (answer.status, answer.text.clone())
    };
    assert_eq!(ask("GET", &[]).await, (200, "a binary".to_owned()));
    assert_eq!(ask("HEAD", &[]).await, (200, String::new()));
    assert_eq!(ask("GET", &[("if-none-match", &tag)]).await, (304, String::new()));
    assert_eq!(ask("GET", &[("range", "bytes=2-3")]).await, (206, "bi".to_owned()));
    assert_eq!(ask("GET", &[("range", "bytes=99-")]).await.0, 416);
    // Pages of other sites can't start builds, unless they have a token.
    let cross_site = ("sec-fetch-site", "cross-site");
    assert_eq!(ask("GET", &[cross_site]).await.0, 403);
    assert_eq!(ask("GET", &[("origin", "http://evil.example"), ("host", "localhost")]).await.0, 403);
    assert_eq!(ask("GET", &[cross_site, ("authorization", "Bearer vx_1")]).await.0, 200);

    let wrong = service.get("/v1/download?roadrunner=v2025.1.5&plugins=http").await;
    let errors = &wrong.json()["errors"];
    assert_eq!((wrong.status, errors.as_array().unwrap().len()), (422, 2), "{wrong:?}");
    assert_eq!((&errors[0]["field"], &errors[1]["field"]), (&json!("plugins"), &json!("plugin")));
    let host = service.get("/v1/download?roadrunner=v2025.1.5&plugin=localhost/x@v1.0.0").await;
    assert_eq!(
        (host.status, &host.json()["errors"][0]["field"]),
        (422, &json!("plugin[0].module")),
        "{host:?}"
    );
}

#[tokio::test]
async fn probes_of_other_clients() {
    let service = TestService::start().await;
    let health = service.get("/health").await;
    assert_eq!((health.status, health.json()), (200, json!({"status": "ok"})));
    let version = service.get("/version").await;
    assert_eq!((version.status, version.json()), (200, json!({"version": env!("CARGO_PKG_VERSION")})));
    service.state.draining.cancel();
    assert_eq!(service.get("/health").await.status, 503);
}

#[tokio::test]
async fn a_service_that_shuts_down_accepts_no_builds() {
    let service = TestService::start().await;
    let id = service.submit(VERSION).await;
    service.state.draining.cancel();
    let refused = service.post("/v1/builds", &submission("v5.0.9")).await;
    assert_eq!(
        (refused.status, refused.json()["type"].as_str()),
        (503, Some("shutting_down")),
        "{refused:?}"
    );
    assert_eq!(refused.header("retry-after"), "30");
    assert_eq!(service.get(&format!("/v1/builds/{id}")).await.status, 200, "what was accepted can be read");
}

#[tokio::test]
async fn errors_are_problems() {
    let service = TestService::start().await;
    let id = service.submit(VERSION).await;
    let unknown_build = format!("/v1/builds/{}", BuildId::new());
    let unknown_artifact = format!("/v1/artifacts/{}", "A".repeat(64));
    let (wait, typo) = (format!("/v1/builds/{id}?wait=long"), format!("/v1/builds/{id}?wiat=1"));
    let lock = format!("/v1/builds/{id}/velox.lock");
    let text = ("content-type", "text/plain");
    for (method, path, headers, body, status, kind) in [
        ("GET", "/nowhere", &[][..], "", 404, "not_found"),
        ("GET", "/v1/builds/no-build", &[], "", 404, "not_found"),
        ("GET", &unknown_build, &[], "", 404, "not_found"),
        ("GET", &wait, &[], "", 400, "invalid_query"),
        ("GET", &typo, &[], "", 400, "invalid_query"),
        ("GET", &lock, &[], "", 404, "not_found"),
        ("GET", "/v1/artifacts/..%2F..%2Fetc%2Fpasswd", &[], "", 404, "not_found"),
        ("GET", &unknown_artifact, &[], "", 404, "not_found"),
        ("GET", "/v1/builds/%ff", &[], "", 404, "not_found"),
        ("GET", "/v1/builds/%ff/log", &[], "", 404, "not_found"),
        ("GET", "/v1/artifacts/%ff", &[], "", 404, "not_found"),
        ("GET", "/builds/%ff", &[], "", 404, "not_found"),
        ("GET", "/assets/%ff", &[], "", 404, "not_found"),
        ("PUT", "/v1/builds", &[], "", 405, "method_not_allowed"),
        ("POST", "/v1/builds", &[], "{}", 415, "unsupported_media_type"),
        ("POST", "/v1/builds", &[text], "{}", 415, "unsupported_media_type"),
        ("POST", "/v1/builds", &[JSON], "{", 400, "malformed_json"),
        ("POST", "/v1/builds", &[JSON], "", 400, "malformed_json"),
        ("POST", "/v1/builds", &[JSON], "[]", 422, "invalid_request"),
        ("POST", "/v1/builds", &[JSON], "{}", 422, "invalid_request"),
    ] {
        let answer = service.request(method, path, headers, body).await;
        assert_eq!(answer.header("content-type"), "application/problem+json", "{method} {path}");
        let problem = answer.json();
        assert_eq!((answer.status, &problem["type"]), (status, &json!(kind)), "{method} {path}: {problem}");
        assert_eq!(problem["status"], status, "{method} {path}");
        assert!(!problem["title"].as_str().unwrap().is_empty(), "{method} {path}");
    }
}

#[tokio::test]
async fn browsers_get_errors_as_pages() {
    const BROWSER: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
    let service = TestService::with(AccessConfig { local_only: true, ..AccessConfig::default() }, 1).await;
    for (method, path, host, status, text) in [
        ("GET", "/nowhere", "localhost", 404, "No such path: /nowhere;"),
        ("GET", "/v1/builds/x", "localhost", 404, "No such build: x."),
        ("PUT", "/v1/builds", "localhost", 405, "PUT is not supported by /v1/builds;"),
        ("GET", "/", "other.example", 421, "use localhost"),
    ] {
        let page = service.request(method, path, &[("host", host), ("accept", BROWSER)], "").await;
        assert_eq!(page.status, status);
        assert_eq!(page.header("content-type"), "text/html; charset=utf-8", "{path}");
        assert_eq!(page.header("vary"), "accept");
        assert_eq!(page.headers.contains_key("allow"), status == 405);
        assert!(page.header("content-security-policy").contains("style-src 'self'"), "{page:?}");
        assert!(page.text.contains(text) && page.text.contains("<main"), "{page:?}");
        for accept in ["*/*", "application/json", "text/event-stream"] {
            let problem = service.request(method, path, &[("host", host), ("accept", accept)], "").await;
            assert_eq!(problem.header("content-type"), "application/problem+json", "{accept}");
        }
    }
}

#[tokio::test]
async fn invalid_fields_are_named() {
    let service = TestService::start().await;
    let cases: [(Change, &str); 10] = [
        (|build| build["roadrunner"] = json!("a b"), "build.roadrunner"),
        (|build| build["roadrunner"] = json!(7), "build.roadrunner"),
        (|build| build["plugins"][0]["module"] = json!("rpc"), "build.plugins[0].module"),
        (|build| build["plugins"] = json!([]), "build"),
        (|build| build["plugins"] = json!({}), "build.plugins"),
        (|build| build["target"] = json!("plan9/amd64"), "build.target"),
        (|build| build["dependencies"] = json!("none"), "build.dependencies"),
        (|build| build["race"] = json!("yes"), "build.race"),
        (|build| build["colour"] = json!("red"), "build.colour"),
        (|build| build["tags"] = json!(vec!["tag"; 501]), "build.tags"),
    ];
    for (change, field) in cases {
        let mut build = spec(VERSION);
        change(&mut build);
        let answer = service.post("/v1/builds", &json!({ "build": build })).await;
        assert_eq!(answer.status, 422, "{field}: {answer:?}");
        assert_eq!(answer.json()["errors"][0]["field"], field, "{answer:?}");
    }
    let mut race = submission(VERSION);
    race["build"]["race"] = json!(true);
    let answer = service.post("/v1/builds", &race).await;
    assert_eq!((answer.status, &answer.json()["type"]), (422, &json!("failed_precondition")));
    assert_eq!(service.state.service.store.depth().await.unwrap().queued, 0);
}

#[tokio::test]
async fn full_queue_and_broken_store() {
    let service = TestService::with(AccessConfig::default(), 0).await;
    let answer = service.post("/v1/builds", &submission(VERSION)).await;
    assert_eq!((answer.status, answer.header("retry-after")), (429, "15"));
    assert_eq!(service.get("/readyz").await.status, 200);
    service.break_store();
    let answer = service.post("/v1/builds", &submission(VERSION)).await;
    assert_eq!(answer.status, 503);
    assert!(!answer.text.contains("table"), "{answer:?}");
    assert_eq!(service.get("/readyz").await.status, 503);
    assert_eq!(service.get("/healthz").await.status, 200);
}

#[tokio::test]
async fn logs_are_followed_and_resumed() {
    let service = TestService::start().await;
    let id = service.submit(VERSION).await;
    let lease = service.lease().await;
    service.print(&lease, "one").await;
    let path = format!("/v1/builds/{id}/log");
    let response = service.send(Request::get(&path).body(Body::empty()).unwrap()).await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut stream = response.into_body().into_data_stream();
    let mut events = String::new();
    while !events.contains("\"one\"") {
        events += str::from_utf8(&stream.next().await.unwrap().unwrap()).unwrap();
    }
    service.print(&lease, "two").await;
    service.succeed(&lease, b"binary").await;
    while let Some(chunk) = stream.next().await {
        events += str::from_utf8(&chunk.unwrap()).unwrap();
    }
    let position = |text: &str| events.find(text).unwrap_or_else(|| panic!("no {text} in {events}"));
    let order =
        ["event: state", "id: 1\n", "\"text\":\"one\"", "id: 2\n", "event: end\n", "id: end\n", "\"sha256\""];
    assert!(order.map(position).is_sorted(), "{events}");

    let rest = service.request("GET", &path, &[("last-event-id", "1")], "").await.text;
    assert!(!rest.contains("\"one\"") && rest.contains("\"two\"") && rest.contains("event: end"), "{rest}");
    assert_eq!(service.request("GET", &path, &[("last-event-id", "end")], "").await.status, 204);
    let plain = service.request("GET", &format!("{path}?after=0"), &[("accept", "text/plain")], "").await;
    assert_eq!(plain.text, "one\ntwo\n");
}

#[tokio::test]
async fn a_shutdown_ends_long_responses() {
    let service = TestService::start().await;
    let id = service.submit(VERSION).await;
    let log = service.send(Request::get(format!("/v1/builds/{id}/log")).body(Body::empty()).unwrap()).await;
    let log = tokio::spawn(answer(log));
    let polling = format!("/v1/builds/{id}?wait=60");
    let (build, ()) = tokio::join!(service.get(&polling), async { service.state.draining.cancel() });
    assert_eq!(build.json()["state"], "queued");
    let log = log.await.unwrap().text;
    assert!(log.contains("retry:") && !log.contains("event: end"), "{log}");
    assert_eq!(service.get("/readyz").await.status, 503);
}

#[tokio::test]
async fn long_polling_ends_with_the_build() {
    let service = TestService::start().await;
    let path = format!("/v1/builds/{}", service.submit(VERSION).await);
    let polling = format!("{path}?wait=60");
    let (build, _) = tokio::join!(service.get(&polling), async {
        let lease = service.lease().await;
        service.succeed(&lease, b"binary").await
    });
    assert_eq!(build.json()["state"], "succeeded");
    let cached = service.request("GET", &path, &[("if-none-match", build.header("etag"))], "").await;
    assert_eq!(cached.status, 304);
    assert_eq!(service.post("/v1/builds", &submission(VERSION)).await.status, 200);
}

#[tokio::test]
async fn artifacts_are_downloaded_whole_and_in_ranges() {
    let service = TestService::start().await;
    let id = service.submit(VERSION).await;
    let artifact = service.succeed(&service.lease().await, b"0123456789").await;
    let build = service.get(&format!("/v1/builds/{id}")).await.json();
    let path = build["artifact"]["path"].as_str().unwrap();
    let whole = service.get(path).await;
    assert_eq!(whole.header("content-disposition"), "attachment; filename=\"rr.exe\"");
    assert_eq!(whole.header("accept-ranges"), "bytes");
    assert!(whole.header("cache-control").contains("immutable"));
    assert_eq!(whole.header("etag"), format!("\"{}\"", artifact.sha256));
    assert_eq!(whole.text, "0123456789");
    let range = service.request("GET", path, &[("range", "bytes=2-4")], "").await;
    assert_eq!((range.status, range.header("content-range")), (206, "bytes 2-4/10"));
    assert_eq!(range.text, "234");
    // HEAD ignores ranges.
    let head = service.request("HEAD", path, &[("range", "bytes=2-4")], "").await;
    assert_eq!((head.status, head.header("content-length"), head.text.as_str()), (200, "10", ""));
}

#[tokio::test]
async fn local_host_names_and_allowed_origins() {
    let origins = vec![HeaderValue::from_static("https://pages.example")];
    let service = TestService::with(AccessConfig { local_only: true, origins, https_only: true }, 1).await;
    for (host, status) in [("localhost:8080", 200), ("rebound.example", 421)] {
        assert_eq!(service.request("GET", "/healthz", &[("host", host)], "").await.status, status);
    }
    for (origin, allowed) in
        [("https://pages.example", "https://pages.example"), ("https://evil.example", "")]
    {
        let headers = [("host", "localhost"), ("origin", origin)];
        let answer = service.request("GET", "/healthz", &headers, "").await;
        assert_eq!(answer.header("access-control-allow-origin"), allowed);
        for header in [
            "x-content-type-options",
            "content-security-policy",
            "referrer-policy",
            "strict-transport-security",
        ] {
            assert!(answer.headers.contains_key(header), "{header}");
        }
    }
}

#[tokio::test]
async fn builds_are_cancelled_by_their_callers() {
    let service = TestService::start().await;
    let path = format!("/v1/builds/{}", service.submit(VERSION).await);
    let cancel = || Request::delete(&path).body(Body::empty()).unwrap();
    let denied = answer(service.send_from([10, 1, 1, 1], cancel()).await).await;
    assert_eq!((denied.status, &denied.json()["type"]), (403, &json!("forbidden")));
    let cancelled = answer(service.send(cancel()).await).await;
    assert_eq!((cancelled.status, &cancelled.json()["state"]), (200, &json!("cancelled")));
}

/// The worst bodies of a mebibyte: each takes linear time, and is rejected with a short response.
#[tokio::test]
async fn large_bodies_are_rejected_with_short_responses() {
    const MIB: usize = 1 << 20;
    let service = TestService::start().await;
    let repeat = |start: &str, part: &str, separator: &str, end: &str| {
        let count = (MIB - start.len() - end.len()) / (part.len() + separator.len());
        format!("{start}{}{end}", vec![part; count].join(separator))
    };
    let numbered = |part: &dyn Fn(usize) -> String| {
        let mut text = String::from("[roadrunner]\nref = 'v2025.1.5'\n");
        for at in 0.. {
            let next = part(at);
            if text.len() + next.len() > MIB * 9 / 10 {
                break;
            }
            text.push_str(&next);
        }
        json!({ "configuration": text }).to_string()
    };
    let plugin = |at: usize| format!("[plugins.x{at}]\nmodule_name = 'example.com/{at}/x'\ntag = 'v1'\n");
    let json = [("content-type", "application/json")];
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let rest = "/v1/builds";
    let rpc = "/api.service.v1.BuildService/Build";
    for (name, path, headers, body) in [
        (
            "plugins",
            rest,
            &json,
            repeat(
                "{\"build\":{\"roadrunner\":\"v1.0.0\",\"plugins\":[",
                "{\"module\":\"\",\"ref\":\"\"}",
                ",",
                "]}}",
            ),
        ),
        (
            "tags",
            rest,
            &json,
            repeat("{\"build\":{\"roadrunner\":\"v1.0.0\",\"plugins\":[],\"tags\":[", "\"\"", ",", "]}}"),
        ),
        ("text", rest, &json, repeat("{\"build\":{\"plugins\":[],\"roadrunner\":\"", "x y", " ", "\"}}")),
        ("calls", rpc, &json, repeat("{\"rr_version\":\"\",\"plugins\":[", "{}", ",", "]}")),
        ("replaces of calls", rpc, &json, repeat("{\"rr_version\":\"\",\"replaces\":[", "{}", ",", "]}")),
        ("version of calls", rpc, &json, repeat("{\"plugins\":[{}],\"rr_version\":\"", "x", "", "\"}")),
        ("tables", rest, &json, numbered(&plugin)),
        ("errors", rest, &json, numbered(&|at| format!("[plugins.x{at}]\nbad = {at}\n"))),
        ("keys", rest, &json, numbered(&|at| format!("k{at} = 1\n"))),
        ("dotted keys", rest, &json, numbered(&|at| format!("a.b{at} = 1\n"))),
        ("targets", rest, &json, numbered(&|_| "[[targets]]\nos = 'linux'\narch = 'amd64'\n".to_owned())),
        (
            "replaces",
            rest,
            &json,
            numbered(&|at| format!("[[replaces]]\nold = 'example.com/{at}'\nnew = 'x'\n")),
        ),
        ("brackets", rest, &json, numbered(&|_| "[".to_owned())),
        ("arrays", rest, &json, format!("{{\"configuration\":\"x = [{}\"}}", "1,".repeat(MIB / 4))),
        ("variables", rest, &json, numbered(&|_| "a = '${X}'\n".to_owned())),
        ("equal plugins", "/build", &form, repeat("rr=v2025.1.5&", "p=a", "&", "")),
        ("known plugins", "/build", &form, repeat("", "p=github.com/roadrunner-server/rpc/v5", "&", "")),
        ("long plugin", "/build", &form, repeat("p=", "a/", "", "")),
        ("versions", "/build", &form, repeat("p=a&", "p=b&v.a=1", "&", "")),
        ("lines", "/build", &form, repeat("more=", "x", "%0a", "")),
        ("more", "/build", &form, repeat("more=", "a.b/x@1", "%0a", "")),
        ("replaced lines", "/build", &form, repeat("p=a@1&replaces=", "x", "%0a", "")),
        ("form tags", "/build", &form, repeat("p=a@1&tags=", "-", ",", "")),
    ] {
        let start = std::time::Instant::now();
        let answer = service.request("POST", path, headers, &body).await;
        println!("{name}: {} in {:?}, {} bytes", answer.status, start.elapsed(), answer.text.len());
        assert!(matches!(answer.status, 400 | 422), "{name}: {}", answer.status);
        // The form is shown again with its values.
        let most = if path == "/build" { 8 * MIB } else { MIB / 8 };
        assert!(answer.text.len() < most, "{name}: {} bytes", answer.text.len());
    }
}

#[tokio::test]
async fn readiness_notices_a_broken_disk_and_database() {
    type Break = fn(&std::path::Path);
    let cases: [(&str, Break); 4] = [
        ("moved", |data| {
            for suffix in ["", "-wal", "-shm"] {
                let file = |folder: &str| data.join(folder).join(format!("builds.sqlite{suffix}"));
                std::fs::create_dir_all(data.join("away")).unwrap();
                std::fs::rename(file(""), file("away")).unwrap();
            }
        }),
        ("replaced", |data| {
            let file = data.join("builds.sqlite");
            std::fs::copy(&file, data.join("copy")).unwrap();
            std::fs::rename(data.join("copy"), file).unwrap();
        }),
        ("noise", |data| {
            let file = data.join("builds.sqlite");
            let noise: Vec<u8> =
                (0..std::fs::metadata(&file).unwrap().len()).map(|at| (at * 7 + at / 251) as u8).collect();
            let mut database = std::fs::OpenOptions::new().write(true).open(file).unwrap();
            std::io::Write::write_all(&mut database, &noise).unwrap();
        }),
        ("artifacts", |data| std::fs::remove_dir_all(data.join("artifacts")).unwrap()),
    ];
    for (name, broken) in cases {
        let service = TestService::start().await;
        service.submit(VERSION).await;
        assert_eq!(service.get("/readyz").await.status, 200, "{name}");
        broken(service.directory.path());
        assert_eq!(service.get("/readyz").await.status, 503, "{name}");
        if matches!(name, "moved" | "replaced") {
            let answer = service.post("/v1/builds", &submission("v5.0.0")).await;
            assert_eq!(answer.status, 503, "a build would be lost: {answer:?}");
        }
    }
    let service = TestService::start().await;
    let full = crate::job::disk::Disk::with_reserve(service.directory.path(), u64::MAX);
    let state = &service.state.service;
    let readiness = crate::readiness::Readiness::new(
        std::sync::Arc::clone(&state.store),
        std::sync::Arc::clone(&state.artifacts),
        full,
        service.state.draining.clone(),
    );
    let error = readiness.check().await.unwrap_err();
    assert!(error.detail().contains("disk of the service is full"), "{error:?}");
}
