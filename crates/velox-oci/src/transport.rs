//! One request: its body can be sent again, temporary failures are retried, rate limits are waited for.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use jiff::Timestamp;
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
    BlobContent, BlobDigest, Error, RegistryAccess, RegistryEvent, RegistryRepository,
    client::{AuthorizationValue, is_loopback},
};

/// <https://github.com/distribution/reference/blob/main/normalize.go>
const DOCKER_HUB_HOST: &str = "registry-1.docker.io";
const MAX_RETRIES: u32 = 4;
const FIRST_RETRY_DELAY: Duration = Duration::from_millis(200);
const MAX_ERROR_BODY_BYTES: usize = 64 << 10;
const MAX_MESSAGE_CHARS: usize = 300;
const UPLOAD_BUFFER_BYTES: usize = 128 << 10;

/// A request that can be sent again.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: Method,
    pub(crate) url: Url,
    headers: HeaderMap,
    body: RequestBody,
}

#[derive(Debug, Clone)]
pub(crate) enum RequestBody {
    Empty,
    Bytes(Bytes),
    /// A part of a blob; its upload is reported.
    Blob {
        digest: BlobDigest,
        content: BlobContent,
        start: u64,
        length: u64,
    },
}

impl Request {
    pub(crate) fn new(method: Method, url: Url) -> Self {
        Self { method, url, headers: HeaderMap::new(), body: RequestBody::Empty }
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

    /// Whether it is sent again after a temporary failure. Data is continued instead; canceling an upload is optional.
    fn is_repeatable(&self) -> bool {
        self.method != Method::PATCH && self.method != Method::DELETE
    }
}

impl RegistryRepository {
    /// The URL of the registry. One on this machine is asked whether it speaks TLS.
    pub(crate) async fn base(&self) -> Result<&Url, Error> {
        let host = match self.registry.host.as_str() {
            "docker.io" => DOCKER_HUB_HOST,
            host => host,
        };
        let url = |scheme: &str| {
            Url::parse(&format!("{scheme}://{host}/v2/")).map_err(|error| self.invalid(error.to_string()))
        };
        let find = async || {
            let secure = url("https")?;
            if !is_loopback(&secure) {
                return Ok(secure);
            }
            match self.exchange(&Request::get(secure.clone()), None).await {
                Ok(_) => Ok(secure),
                Err(Error::Network { .. }) => url("http"),
                Err(error) => Err(error),
            }
        };
        self.registry.base.get_or_try_init(find).await
    }

    /// A URL below `/v2/REPOSITORY/`.
    pub(crate) async fn url(&self, path: &str) -> Result<Url, Error> {
        let url = self.base().await?.join(&format!("{}/{path}", self.name));
        url.map_err(|error| self.invalid(error.to_string()))
    }

    /// Sends a request until it succeeds, fails for good, or was repeated too often. Without `Retry-After`, the waits for
    /// a rate limit double, from one second.
    pub(crate) async fn repeat(
        &self,
        request: &Request,
        authorization: Option<&AuthorizationValue>,
    ) -> Result<Response, Error> {
        let (mut retries, mut waits, mut waited) = (0, 0, 0);
        loop {
            let outcome = self.exchange(request, authorization).await;
            if let Ok(response) = &outcome
                && let Some(retry_after) = rate_limit(response)
            {
                let host = &self.registry.host;
                let seconds = retry_after.unwrap_or(2u64.saturating_pow(waits)).max(1);
                waits += 1;
                waited = seconds.saturating_add(waited);
                if waited > self.options().http.max_wait.as_secs() {
                    return Err(Error::RateLimited { host: host.clone(), retry_after });
                }
                self.report(RegistryEvent::RateLimited { host, seconds });
                tokio::time::sleep(Duration::from_secs(seconds)).await;
                continue;
            }
            let is_temporary = match &outcome {
                Ok(response) => matches!(response.status().as_u16(), 408 | 500 | 502..=504),
                Err(error) => matches!(error, Error::Network { .. }),
            };
            if !is_temporary || !request.is_repeatable() || retries == MAX_RETRIES {
                return outcome;
            }
            tokio::time::sleep(FIRST_RETRY_DELAY * 3u32.pow(retries)).await;
            retries += 1;
        }
    }

    /// Sends a request once.
    pub(crate) async fn exchange(
        &self,
        request: &Request,
        authorization: Option<&AuthorizationValue>,
    ) -> Result<Response, Error> {
        let mut builder =
            self.http().request(request.method.clone(), request.url.clone()).headers(request.headers.clone());
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
            RequestBody::Blob { digest, content, start, length } => {
                let body = self.upload_body(digest, content, *start, *length, &sent).await?;
                builder.header(CONTENT_LENGTH, *length).body(body)
            }
        };
        tokio::select! {
            response = builder.send() => response.map_err(|error| self.failure(&error)),
            () = stalled(&sent, self.options().http.read_timeout) => Err(self.timed_out()),
        }
    }

    async fn upload_body(
        &self,
        digest: &BlobDigest,
        content: &BlobContent,
        start: u64,
        length: u64,
        sent: &Arc<AtomicU64>,
    ) -> Result<Body, Error> {
        let (digest, sent, on_event) = (digest.clone(), Arc::clone(sent), self.options().on_event.clone());
        let chunks = match content {
            BlobContent::Bytes(bytes) => {
                let rest = bytes.slice(usize::try_from(start).unwrap_or(usize::MAX).min(bytes.len())..);
                stream::once(async move { Ok(rest) }).boxed()
            }
            BlobContent::File { path, offset } => {
                let failed = |error| Error::Io { path: path.clone(), error };
                let mut file = tokio::fs::File::open(path).await.map_err(failed)?;
                file.seek(io::SeekFrom::Start(offset + start)).await.map_err(failed)?;
                ReaderStream::with_capacity(file.take(length), UPLOAD_BUFFER_BYTES).boxed()
            }
        };
        Ok(Body::wrap_stream(chunks.inspect(move |chunk: &io::Result<Bytes>| {
            let bytes = chunk.as_ref().map_or(0, |chunk| chunk.len() as u64);
            sent.fetch_add(bytes, Ordering::Relaxed);
            if let Some(on_event) = &on_event {
                on_event(RegistryEvent::Transferred { digest: &digest, bytes });
            }
        })))
    }

    /// The next part of the body of a response.
    pub(crate) async fn chunk(&self, response: &mut Response) -> Result<Option<Bytes>, Error> {
        match tokio::time::timeout(self.options().http.read_timeout, response.chunk()).await {
            Ok(chunk) => chunk.map_err(|error| self.failure(&error)),
            Err(_) => Err(self.timed_out()),
        }
    }

    /// The body of a response of at most `limit` bytes.
    pub(crate) async fn body(
        &self,
        mut response: Response,
        what: &str,
        limit: usize,
    ) -> Result<Vec<u8>, Error> {
        let mut body = Vec::new();
        while let Some(chunk) = self.chunk(&mut response).await? {
            if body.len() + chunk.len() > limit {
                return Err(self.too_large(what, limit as u64));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    pub(crate) fn too_large(&self, what: &str, limit: u64) -> Error {
        self.invalid(format!("more than {limit} bytes for {what}"))
    }

    fn timed_out(&self) -> Error {
        let seconds = self.options().http.read_timeout.as_secs();
        Error::Network { host: self.registry.host.clone(), reason: format!("no data for {seconds} s") }
    }

    /// reqwest's own message contains the URL, which may contain a signature.
    fn failure(&self, error: &reqwest::Error) -> Error {
        let (host, reason) = (self.registry.host.clone(), velox_fetch::http::root_cause(error));
        if velox_fetch::http::is_certificate_error(error) {
            Error::Certificate { host, reason }
        } else if error.is_redirect() {
            Error::InvalidResponse { host, reason }
        } else if error.is_timeout() {
            Error::Network { host, reason: "timed out".to_owned() }
        } else if error.is_body() || error.is_decode() {
            Error::Network { host, reason: format!("response ended early: {reason}") }
        } else {
            Error::Network { host, reason }
        }
    }

    /// The error of an unsuccessful response.
    pub(crate) async fn failed(&self, response: Response, what: &str, access: RegistryAccess) -> Error {
        let (host, what) = (self.registry.host.clone(), what.to_owned());
        match response.status() {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => self.unauthorized(access).await,
            StatusCode::NOT_FOUND if access == RegistryAccess::Pull => Error::NotFound { host, what },
            status => {
                let body = self.body(response, &what, MAX_ERROR_BODY_BYTES).await;
                Error::Status {
                    host,
                    what,
                    status: status.as_u16(),
                    message: registry_message(&body.unwrap_or_default()),
                }
            }
        }
    }
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

/// `None`: the request isn't limited. `Some(None)`: the registry doesn't say how long.
fn rate_limit(response: &Response) -> Option<Option<u64>> {
    let after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()).map(str::trim);
    let seconds = after.and_then(|text| retry_seconds(text, Timestamp::now()));
    match response.status() {
        StatusCode::TOO_MANY_REQUESTS => Some(seconds),
        StatusCode::SERVICE_UNAVAILABLE => seconds.map(Some),
        _ => None,
    }
}

/// The value of Retry-After: seconds or a date.
fn retry_seconds(text: &str, now: Timestamp) -> Option<u64> {
    text.parse().ok().or_else(|| {
        let until = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
        Some(u64::try_from(until.duration_since(now).as_secs()).map_or(0, |seconds| seconds + 1))
    })
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
fn registry_message(body: &[u8]) -> Option<String> {
    let body: ErrorBody = serde_json::from_slice(body).ok()?;
    let first = body.errors.into_iter().next()?;
    let text = if first.message.is_empty() { first.code } else { first.message };
    Some(text.chars().filter(|c| !c.is_control()).take(MAX_MESSAGE_CHARS).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_is_in_seconds_or_ends_at_a_date() {
        let now = "1994-11-06T08:49:07Z".parse().unwrap();
        for (text, seconds) in [
            ("120", Some(120)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(31)),
            ("Sun, 06 Nov 1994 08:40:00 GMT", Some(0)),
            ("soon", None),
        ] {
            assert_eq!(retry_seconds(text, now), seconds, "{text}");
        }
    }
}
