use std::{fs, path::Path};

use serde_json::{Value, json};
use velox_api::FailureKind;

use super::{TestService, submission};

const BUILD: &str = "/api.service.v1.BuildService/Build";
const VERSION: &str = "v5.1.8";

/// The request that corresponds to [`submission`].
fn call() -> Value {
    json!({
        "request_id": "", "rr_version": "v2025.1.5", "unknown": [1, {"x": null}],
        "target_platform": {"os": "linux", "arch": "amd64"},
        "plugins": [{"module_name": "github.com/roadrunner-server/rpc/v5", "tag": VERSION}],
    })
}

#[tokio::test]
async fn a_call_waits_for_the_build() {
    let service = TestService::start().await;
    let call = call();
    let (answer, ()) = tokio::join!(service.post(BUILD, &call), async {
        let lease = service.lease().await;
        service.print(&lease, "compiling").await;
        service.succeed(&lease, b"binary").await;
    });
    assert_eq!(
        (answer.status, &answer.json()["logs"]),
        (200, &json!("warning: unknown field unknown is ignored\ncompiling\n")),
        "{answer:?}"
    );
    let path = answer.json()["path"].as_str().unwrap().to_owned();
    assert_eq!(service.get(&path).await.text, "binary");
    // The REST API and the RPC share builds.
    assert_eq!(service.post("/v1/builds", &submission(VERSION)).await.status, 200);
    assert_eq!(service.post(BUILD, &call).await.json()["path"], path);
}

#[tokio::test]
async fn failures_have_codes() {
    let service = TestService::start().await;
    let call = call();
    for (kind, status, code) in [
        (FailureKind::Invalid, 400, "invalid_argument"),
        (FailureKind::Failed, 500, "internal"),
        (FailureKind::Unavailable, 503, "unavailable"),
        (FailureKind::Limit, 429, "resource_exhausted"),
    ] {
        let (answer, ()) = tokio::join!(service.post(BUILD, &call), async {
            let lease = service.lease().await;
            service.fail(&lease, kind, "no such version").await;
        });
        assert_eq!((answer.status, &answer.json()["code"]), (status, &json!(code)), "{answer:?}");
        assert_eq!(answer.json()["message"], "no such version");
    }
}

#[tokio::test]
async fn full_queue_and_broken_store() {
    let service = TestService::with(Default::default(), 0).await;
    let answer = service.post(BUILD, &call()).await;
    assert_eq!((answer.status, &answer.json()["code"]), (429, &json!("resource_exhausted")), "{answer:?}");
    assert_eq!(answer.header("retry-after"), "15");
    service.break_store();
    let answer = service.post(BUILD, &call()).await;
    assert_eq!(answer.status, 503);
    assert!(!answer.text.contains("table"), "{answer:?}");
}

#[tokio::test]
async fn a_shutdown_ends_calls_of_queued_builds() {
    let service = TestService::start().await;
    let call = call();
    let (answer, ()) = tokio::join!(service.post(BUILD, &call), async { service.state.draining.cancel() });
    assert_eq!((answer.status, &answer.json()["code"]), (503, &json!("unavailable")));
}

#[tokio::test]
async fn invalid_fields_are_named() {
    let service = TestService::start().await;
    type Change = fn(&mut Value);
    let cases: [(Change, &str); 14] = [
        (|call| call["request_id"] = json!("17"), "request_id"),
        (|call| call["rr_version"] = json!(""), "rr_version"),
        (|call| call["rr_version"] = json!("a b"), "rr_version"),
        (|call| call["plugins"][0]["replace"] = json!("github.com/acme/rpc"), "plugins[0].replace"),
        (
            |call| {
                call.as_object_mut().unwrap().remove("rr_version");
                call["rrVersion"] = json!("../x");
            },
            "rr_version",
        ),
        (|call| call["plugins"] = json!([]), "plugins"),
        (|call| call["plugins"] = json!(null), "plugins"),
        (|call| call["plugins"][0]["module_name"] = json!(""), "plugins[0].module_name"),
        (|call| call["plugins"][0]["module_name"] = json!("no module"), "plugins[0].module_name"),
        (|call| call["plugins"][0]["tag"] = json!(""), "plugins[0].tag"),
        (|call| call["target_platform"]["os"] = json!("plan9"), "target_platform"),
        (|call| call["target_platform"]["arch"] = json!(""), "target_platform.arch"),
        (|call| call["replaces"] = json!([{"old": "example.com/x"}]), "replaces[0].new"),
        (|call| call["excludes"] = json!([{"module": "example.com/x"}]), "excludes[0].version"),
    ];
    for (change, field) in cases {
        let mut call = call();
        change(&mut call);
        let answer = service.post(BUILD, &call).await;
        assert_eq!((answer.status, &answer.json()["code"]), (400, &json!("invalid_argument")), "{answer:?}");
        assert!(answer.json()["message"].as_str().unwrap().contains(field), "{field}: {answer:?}");
    }
    let mut race = call();
    race["race"] = json!(true);
    assert_eq!(service.post(BUILD, &race).await.json()["code"], "failed_precondition");
    for malformed in ["{", "[]", "{\"plugins\": 7}", "\"\""] {
        let json = [("content-type", "application/json")];
        assert_eq!(service.request("POST", BUILD, &json, malformed).await.status, 400, "{malformed}");
    }
}

/// The build script generates code from them without a compiler for protobuf files. `INSTA_UPDATE=always` writes them.
#[test]
fn the_descriptors_are_up_to_date() {
    let proto = Path::new(env!("CARGO_MANIFEST_DIR")).join("proto");
    let files = [
        "api/request/v1/request.proto",
        "api/response/v1/response.proto",
        "api/service/v1/service.proto",
        "grpc/health/v1/health.proto",
    ];
    let mut compiler = protox::Compiler::new([&proto]).unwrap();
    compiler.include_imports(true).include_source_info(true).open_files(files).unwrap();
    let (expected, file) = (compiler.encode_file_descriptor_set(), proto.join("api.binpb"));
    if std::env::var("INSTA_UPDATE").is_ok_and(|update| update == "always") {
        fs::write(&file, &expected).unwrap();
    }
    assert!(
        fs::read(&file).unwrap_or_default() == expected,
        "proto/api.binpb is out of date: run `INSTA_UPDATE=always cargo test -p velox-service --lib descriptors`"
    );
}
