//! One request: its body can be sent again, temporary failures are retried, rate limits are waited for.

use std::{
    io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use reqwest::{
    Body, Method, Response, StatusCode,
    header::{AUTHORIZATION, CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER},
};
use secrecy::ExposeSecret as _;
use serde::Deserialize;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio_util::io::ReaderStream;
use url::Url;

use crate::{
    BlobDigest, Error,
    registry::{AuthorizationValue, ClientState, Registry, RegistryEvent},
};

const MAX_RETRIES: u32 = 4;
const FIRST_RETRY_DELAY: Duration = Duration::from_millis(200);
const MAX_RATE_LIMIT_WAITS: u32 = 8;
/// The wait for a rate limit without `Retry-After`; doubled each time.
const RATE_LIMIT_DELAY_SECONDS: u64 = 1;
const MAX_ERROR_BODY_BYTES: usize = 64 << 10;
const MAX_MESSAGE_CHARS: usize = 300;
const UPLOAD_BUFFER_BYTES: usize = 128 << 10;

/// A request that can be sent again.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
    pub(crate) body: RequestBody,
    /// Whether a request that failed temporarily is sent again.
    pub(crate) is_repeatable: bool,
}

#[derive(Debug, Clone)]
pub(crate) enum RequestBody {
    Empty,
    Bytes(Bytes),
    /// A part of a blob; its upload is reported.
    Blob {
        digest: BlobDigest,
        content: BlobPart,
    },
}

#[derive(Debug, Clone)]
pub(crate) enum BlobPart {
    Bytes(Bytes),
    File { path: PathBuf, offset: u64, length: u64 },
}

/// A failed exchange.
pub(crate) struct Failure {
    pub(crate) error: Error,
    pub(crate) is_certificate: bool,
    is_temporary: bool,
}

impl Request {
    pub(crate) fn new(method: Method, url: Url) -> Self {
        Self { method, url, headers: HeaderMap::new(), body: RequestBody::Empty, is_repeatable: true }
    }

    pub(crate) fn get(url: Url) -> Self {
        Self::new(Method::GET, url)
    }

    pub(crate) fn header(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.append(name, value);
        }
        self
    }

    pub(crate) fn body(self, body: RequestBody) -> Self {
        Self { body, ..self }
    }

    pub(crate) fn once(self) -> Self {
        Self { is_repeatable: false, ..self }
    }
}

/// Sends a request until it succeeds, fails for good, or was repeated too often.
pub(crate) async fn repeat(
    registry: &Registry,
    client: &ClientState,
    request: &Request,
    authorization: Option<&AuthorizationValue>,
) -> Result<Response, Error> {
    let (mut retries, mut waits) = (0, 0);
    loop {
        let outcome = plain_send(registry, client, request, authorization).await;
        let is_temporary = match &outcome {
            Ok(response) => {
                if let Some(wait) = rate_limit(response) {
                    let seconds = wait.unwrap_or(RATE_LIMIT_DELAY_SECONDS << waits);
                    let is_too_long = seconds > client.options.http.max_wait.as_secs();
                    if is_too_long || waits == MAX_RATE_LIMIT_WAITS {
                        return Err(Error::RateLimited { host: registry.host.clone(), retry_after: wait });
                    }
                    waits += 1;
                    client.report(RegistryEvent::RateLimited { host: &registry.host, seconds });
                    tokio::time::sleep(Duration::from_secs(seconds)).await;
                    continue;
                }
                matches!(response.status().as_u16(), 408 | 500 | 502..=504)
            }
            Err(failure) => failure.is_temporary,
        };
        if !is_temporary || !request.is_repeatable || retries == MAX_RETRIES {
            return outcome.map_err(|failure| failure.error);
        }
        tokio::time::sleep(FIRST_RETRY_DELAY * 3u32.pow(retries)).await;
        retries += 1;
    }
}

/// Sends a request once.
pub(crate) async fn plain_send(
    registry: &Registry,
    client: &ClientState,
    request: &Request,
    authorization: Option<&AuthorizationValue>,
) -> Result<Response, Failure> {
    let network = |reason: String| Failure {
        error: Error::Network { host: registry.host.clone(), reason },
        is_certificate: false,
        is_temporary: true,
    };
    let is_upload = matches!(request.body, RequestBody::Blob { .. });
    let mut builder = client
        .http(registry, is_upload)
        .request(request.method.clone(), request.url.clone())
        .headers(request.headers.clone());
    if let Some(value) = authorization
        && let Ok(mut value) = HeaderValue::from_str(value.expose_secret())
    {
        value.set_sensitive(true);
        builder = builder.header(AUTHORIZATION, value);
    }
    let sent = Arc::new(AtomicU64::new(0));
    builder = match &request.body {
        RequestBody::Empty if request.method == Method::POST || request.method == Method::PUT => {
            builder.header(CONTENT_LENGTH, 0)
        }
        RequestBody::Empty => builder,
        RequestBody::Bytes(bytes) => builder.body(bytes.clone()),
        RequestBody::Blob { digest, content } => {
            let (length, body) = upload_body(client, digest, content, &sent)
                .await
                .map_err(|error| Failure { error, is_certificate: false, is_temporary: false })?;
            builder.header(CONTENT_LENGTH, length).body(body)
        }
    };
    let response = builder.send();
    let answer = if is_upload {
        let timeout = client.options.http.read_timeout;
        tokio::select! {
            answer = response => answer,
            () = stalled(&sent, timeout) => {
                return Err(network(format!("timed out: the registry accepted no data for {} s", timeout.as_secs())));
            }
        }
    } else {
        response.await
    };
    answer.map_err(|error| {
        let is_certificate = velox_fetch::http::is_certificate_error(&error);
        Failure {
            is_certificate,
            is_temporary: !is_certificate && !error.is_redirect(),
            ..network(reason(&error))
        }
    })
}

/// Returns when `sent` hasn't changed for this time.
async fn stalled(sent: &AtomicU64, timeout: Duration) {
    let mut before = sent.load(Ordering::Relaxed);
    loop {
        tokio::time::sleep(timeout).await;
        let now = sent.load(Ordering::Relaxed);
        if now == before {
            return;
        }
        before = now;
    }
}

async fn upload_body(
    client: &ClientState,
    digest: &BlobDigest,
    content: &BlobPart,
    sent: &Arc<AtomicU64>,
) -> Result<(u64, Body), Error> {
    let (digest, sent) = (digest.clone(), Arc::clone(sent));
    let on_event = client.options.on_event.clone();
    let count = move |chunk: &io::Result<Bytes>| {
        let bytes = chunk.as_ref().map_or(0, |chunk| chunk.len() as u64);
        sent.fetch_add(bytes, Ordering::Relaxed);
        if let Some(on_event) = &on_event {
            on_event(RegistryEvent::Uploaded { digest: &digest, bytes });
        }
    };
    match content {
        BlobPart::Bytes(bytes) => {
            let length = bytes.len() as u64;
            let chunk = bytes.clone();
            Ok((length, Body::wrap_stream(stream::once(async move { Ok(chunk) }).boxed().inspect(count))))
        }
        BlobPart::File { path, offset, length } => {
            let failed = |error| Error::Io { path: path.clone(), error };
            let mut file = tokio::fs::File::open(path).await.map_err(failed)?;
            file.seek(io::SeekFrom::Start(*offset)).await.map_err(failed)?;
            let chunks = ReaderStream::with_capacity(file.take(*length), UPLOAD_BUFFER_BYTES);
            Ok((*length, Body::wrap_stream(chunks.inspect(count))))
        }
    }
}

/// `None`: the request isn't limited. `Some(None)`: the registry doesn't say how long.
fn rate_limit(response: &Response) -> Option<Option<u64>> {
    let status = response.status();
    let after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()).map(str::trim);
    let seconds = after.and_then(|text| {
        text.parse().ok().or_else(|| {
            let until = httpdate::parse_http_date(text).ok()?;
            Some(until.duration_since(SystemTime::now()).map_or(0, |wait| wait.as_secs() + 1))
        })
    });
    match status {
        StatusCode::TOO_MANY_REQUESTS => Some(seconds),
        StatusCode::SERVICE_UNAVAILABLE => seconds.map(Some),
        _ => None,
    }
}

#[derive(Deserialize)]
struct ErrorBody {
    errors: Vec<RegistryMessage>,
}

#[derive(Deserialize)]
struct RegistryMessage {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

/// <https://github.com/opencontainers/distribution-spec/blob/main/spec.md#error-codes>
pub(crate) async fn registry_message(response: Response) -> Option<String> {
    let body = limited_body(response, MAX_ERROR_BODY_BYTES).await.ok()??;
    let body: ErrorBody = serde_json::from_slice(&body).ok()?;
    let first = body.errors.into_iter().next()?;
    let text = if first.message.is_empty() { first.code } else { first.message };
    Some(text.chars().filter(|c| !c.is_control()).take(MAX_MESSAGE_CHARS).collect())
}

/// The body of a response; `None` if it is larger than the limit.
pub(crate) async fn limited_body(
    mut response: Response,
    limit: usize,
) -> Result<Option<Vec<u8>>, reqwest::Error> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > limit {
            return Ok(None);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Some(body))
}

/// reqwest's own message contains the URL, which may contain a signature.
pub(crate) fn reason(error: &reqwest::Error) -> String {
    let cause = velox_fetch::http::root_cause(error);
    if error.is_redirect() {
        cause
    } else if error.is_timeout() {
        "timed out".to_owned()
    } else if error.is_body() || error.is_decode() {
        format!("response ended early: {cause}")
    } else {
        cause
    }
}
