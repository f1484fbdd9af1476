//! Tests the client against a failing service.

#![allow(clippy::unwrap_used)]

use std::{
    io::{Read as _, Seek as _},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use data_encoding::HEXLOWER;
use futures::StreamExt as _;
use jiff::Timestamp;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use velox_api::{
    ArtifactInfo, BuildId, LogEntry, Severity, SubmitRequest,
    client::{ClientError, ClientEvent, ServiceClient},
};

/// The timeout of each test.
const LONG: std::time::Duration = std::time::Duration::from_secs(60);

const BINARY: &[u8] = b"0123456789";

fn sum(bytes: &[u8]) -> String {
    HEXLOWER.encode(&Sha256::digest(bytes))
}

fn artifact(bytes: &[u8]) -> ArtifactInfo {
    ArtifactInfo {
        sha256: sum(bytes),
        size: bytes.len() as u64,
        file_name: "rr".to_owned(),
        target: "linux/amd64".to_owned(),
    }
}

fn view(state: &str) -> Value {
    json!({
        "id": BuildId::default(), "state": state, "attempts": 1, "created": Timestamp::UNIX_EPOCH,
        "build": {"roadrunner": "v1.0.0", "plugins": []},
        "links": {"self": "", "log": "", "configuration": "", "page": ""},
    })
}

fn entry(seq: u64) -> String {
    let entry = LogEntry { seq, ..LogEntry::new(Severity::Info, format!("line {seq}")) };
    format!("id: {seq}\ndata: {}\n\n", serde_json::to_string(&entry).unwrap())
}

/// Serves the responses in order for any request; the last one repeats.
async fn serve(answers: Vec<fn(HeaderMap) -> Response>) -> (ServiceClient, Arc<AtomicUsize>) {
    type Shared = (Arc<Vec<fn(HeaderMap) -> Response>>, Arc<AtomicUsize>);
    async fn answer(State((answers, asked)): State<Shared>, headers: HeaderMap) -> Response {
        let at = asked.fetch_add(1, Ordering::SeqCst).min(answers.len() - 1);
        answers[at](headers)
    }
    let asked = Arc::new(AtomicUsize::new(0));
    let router = Router::new()
        .route("/v1/builds", post(answer))
        .route("/v1/builds/{id}", get(answer).delete(answer))
        .route("/v1/builds/{id}/log", get(answer))
        .route("/v1/artifacts/{sha256}", get(answer))
        .with_state((Arc::new(answers), Arc::clone(&asked)));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    (client(&format!("http://{address}"), None).unwrap(), asked)
}

fn client(address: &str, token: Option<&str>) -> Result<ServiceClient, ClientError> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    ServiceClient::new(http, address, token.map(|token| token.to_owned().into()).as_ref())
}

/// A body that sends these bytes, then breaks the connection.
fn broken(bytes: impl Into<Bytes>) -> Body {
    let bytes = bytes.into();
    Body::from_stream(futures::stream::iter([true, false]).then(move |is_first| {
        let bytes = bytes.clone();
        async move {
            if is_first {
                return Ok(bytes);
            }
            // Lets the first bytes be sent before the error.
            tokio::task::yield_now().await;
            Err(std::io::Error::other("the connection broke"))
        }
    }))
}

/// A response whose body ends after these bytes, of `whole` announced.
fn cut(status: StatusCode, bytes: &'static [u8], whole: usize) -> Response {
    (status, [(header::CONTENT_LENGTH, whole)], broken(bytes)).into_response()
}

fn events(text: String) -> Response {
    ([(header::CONTENT_TYPE, "text/event-stream")], text).into_response()
}

async fn downloaded(client: &ServiceClient, artifact: &ArtifactInfo) -> Result<Vec<u8>, ClientError> {
    let mut file = tempfile::tempfile().unwrap();
    let mut nobody = |_| ();
    let download = client.download(artifact, &mut file, &mut nobody);
    tokio::time::timeout(LONG, download).await.expect("it ends")?;
    let mut bytes = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut bytes).unwrap();
    Ok(bytes)
}

#[tokio::test]
async fn a_download_goes_on_where_it_broke() {
    let (client, asked) = serve(vec![
        |_| cut(StatusCode::OK, &BINARY[..4], 10),
        |headers| {
            assert_eq!(headers[header::RANGE], "bytes=4-");
            cut(StatusCode::PARTIAL_CONTENT, &BINARY[4..5], 6)
        },
        |_| StatusCode::BAD_GATEWAY.into_response(),
        |headers| {
            assert_eq!(headers[header::RANGE], "bytes=5-");
            (StatusCode::PARTIAL_CONTENT, &BINARY[5..]).into_response()
        },
    ])
    .await;
    assert_eq!(downloaded(&client, &artifact(BINARY)).await.unwrap(), BINARY);
    assert_eq!(asked.load(Ordering::SeqCst), 4);
}

#[tokio::test]
async fn a_server_without_ranges_is_asked_for_all() {
    let (client, _) =
        serve(vec![|_| cut(StatusCode::OK, &BINARY[..4], 10), |_| BINARY.into_response()]).await;
    assert_eq!(downloaded(&client, &artifact(BINARY)).await.unwrap(), BINARY);
}

#[tokio::test]
async fn a_wrong_sum_is_tried_once_more() {
    let (client, _) = serve(vec![|_| b"012345678x".into_response(), |_| BINARY.into_response()]).await;
    assert_eq!(downloaded(&client, &artifact(BINARY)).await.unwrap(), BINARY);
    let (client, asked) = serve(vec![|_| b"012345678x".into_response()]).await;
    let error = downloaded(&client, &artifact(BINARY)).await.unwrap_err();
    assert!(matches!(&error, ClientError::Checksum { expected, .. } if *expected == sum(BINARY)), "{error}");
    assert_eq!(asked.load(Ordering::SeqCst), 2);
    let (client, _) = serve(vec![|_| b"0123456789and more".into_response()]).await;
    assert!(matches!(downloaded(&client, &artifact(BINARY)).await, Err(ClientError::InvalidResponse { .. })));
}

#[tokio::test]
async fn a_log_goes_on_where_it_broke() {
    let (client, _) = serve(vec![
        |_| StatusCode::SERVICE_UNAVAILABLE.into_response(),
        |_| {
            events(format!(
                ": hello\n\nretry: 2000\n\nevent: state\ndata: {}\n\n{}",
                view("running"),
                entry(1)
            ))
        },
        // The log stream ended cleanly: the client checks whether the build finished.
        |_| Json(view("running")).into_response(),
        |headers| {
            assert_eq!(headers["last-event-id"], "1");
            broken(format!("{}{}", entry(1), entry(2))).into_response()
        },
        |headers| {
            assert_eq!(headers["last-event-id"], "2");
            events(format!("{}event: end\nid: end\ndata: {}\n\n", entry(3), view("succeeded")))
        },
    ])
    .await;
    let mut lines = Vec::new();
    let mut told = |what| {
        if let ClientEvent::Log(entry) = what {
            lines.push(entry.text);
        }
    };
    let view = tokio::time::timeout(LONG, client.follow(BuildId::default(), &mut told)).await;
    let view = view.expect("it ends").unwrap();
    assert_eq!(view.state, velox_api::BuildState::Succeeded);
    assert_eq!(lines, ["line 1", "line 2", "line 3"]);
}

#[tokio::test]
async fn no_room_is_waited_for_and_a_no_is_not() {
    let (client, asked) = serve(vec![
        |_| (StatusCode::TOO_MANY_REQUESTS, [(header::RETRY_AFTER, "0")], "a proxy's page").into_response(),
        |_| StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        |_| (StatusCode::ACCEPTED, Json(view("queued"))).into_response(),
    ])
    .await;
    let mut waits = 0;
    let mut count = |what| waits += usize::from(matches!(what, ClientEvent::Retrying(..)));
    let view = client.submit(&SubmitRequest::default(), &mut count).await;
    assert_eq!(view.unwrap().state, velox_api::BuildState::Queued);
    assert_eq!((asked.load(Ordering::SeqCst), waits), (3, 2));

    let (client, asked) = serve(vec![|_| {
        let problem =
            json!({"type": "token_missing", "title": "No", "status": 401, "detail": "a token is needed"});
        (StatusCode::UNAUTHORIZED, Json(problem)).into_response()
    }])
    .await;
    let error = client.submit(&SubmitRequest::default(), &mut |_| ()).await.unwrap_err();
    assert_eq!(error.to_string(), "the build service answered: No: a token is needed");
    assert_eq!(asked.load(Ordering::SeqCst), 1);

    let (client, _) =
        serve(vec![|_| (StatusCode::FOUND, [(header::LOCATION, "/login")]).into_response()]).await;
    let error = client.submit(&SubmitRequest::default(), &mut |_| ()).await.unwrap_err();
    assert!(matches!(error, ClientError::InvalidResponse { .. }), "{error}");
    let (client, _) = serve(vec![|_| "<html>".into_response()]).await;
    let error = client.submit(&SubmitRequest::default(), &mut |_| ()).await.unwrap_err();
    assert!(matches!(error, ClientError::InvalidResponse { .. }), "{error}");
}

#[tokio::test]
async fn nobody_at_the_address() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let client = client(&format!("http://{free}"), None).unwrap();
    let error = client.submit(&SubmitRequest::default(), &mut |_| ()).await.unwrap_err();
    assert!(matches!(error, ClientError::Network { .. }), "{error}");
}

#[test]
fn a_token_goes_over_no_network_in_the_clear() {
    for good in [
        "https://a.example",
        "http://127.0.0.1:1",
        "http://[::1]:1/vx",
        "http://localhost",
        "http://x.localhost",
    ] {
        assert!(client(good, Some("vx_secret")).is_ok(), "{good}");
    }
    for bad in ["http://a.example", "http://10.0.0.1", "http://localhost.a.example", "http://[2001:db8::1]"] {
        let error = client(bad, Some("vx_secret")).unwrap_err();
        assert!(matches!(error, ClientError::InsecureToken { .. }), "{bad}: {error}");
        assert!(client(bad, None).is_ok(), "{bad}");
    }
    for bad in [
        "a.example",
        "ftp://a.example",
        "https://me:vx_secret@a.example",
        "https://vx_secret@a.example/",
        "https://a/?b",
    ] {
        let error = client(bad, None).unwrap_err();
        assert!(matches!(error, ClientError::Address { .. }), "{bad}: {error}");
        assert!(!error.to_string().contains("vx_secret"), "{error}");
    }
    let client = client("https://a.example/builds", Some("vx_secret")).unwrap();
    assert!(!format!("{client:?}").contains("vx_secret"), "{client:?}");
    assert!(client.page(BuildId::default()).starts_with("https://a.example/builds/builds/"));
}
