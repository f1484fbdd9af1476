//! A module proxy client with retries, limits and credentials (<https://go.dev/ref/mod#goproxy-protocol>).

use std::{
    collections::{HashMap, HashSet},
    io::{self, Write as _},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use reqwest::{Client, RequestBuilder, Response, StatusCode, header, redirect::Policy};
use secrecy::ExposeSecret;
use tempfile::NamedTempFile;
use tokio::io::AsyncReadExt as _;
use url::Url;
use velox_gomod::{
    module::{ModuleError, ModuleVersion, escape_path, escape_version},
    modzip::{MAX_GO_MOD_BYTES, MAX_ZIP_BYTES},
};

use super::{Netrc, ProxyError, ProxyErrorKind, ProxyList, ReadError};
use crate::modcache::ModCacheError;

/// The size limit of all files except zips; go.mod files are the largest.
const MAX_SMALL_FILE_BYTES: u64 = MAX_GO_MOD_BYTES;
/// Attempts per request with transient failures.
const MAX_TRIES: u32 = 3;
/// Requests to a host that end without any response, before it is not asked any more.
const MAX_SILENT_REQUESTS: u32 = 2;
/// The time limit of a response with its body; each read has its own, shorter limit.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(15 * 60);
/// A longer Retry-After counts as a failure.
const MAX_RETRY_WAIT: Duration = Duration::from_secs(10);
const MAX_MESSAGE_CHARS: usize = 200;
/// The error of a `file://` proxy without a directory.
pub(crate) const NO_DIRECTORY: &str = "no such directory";

/// The redirect policy of proxy clients: at most ten, and like the go command none from HTTPS to HTTP.
pub fn redirect_policy() -> Policy {
    Policy::custom(|attempt| {
        let from = attempt.previous().last().map(Url::scheme);
        if attempt.url().scheme() != "https" && from == Some("https") {
            attempt.error("redirect from HTTPS to plain HTTP")
        } else if attempt.previous().len() > 10 {
            attempt.error("more than 10 redirects")
        } else {
            attempt.follow()
        }
    })
}

/// The path of a version's file relative to a proxy's URL.
pub(crate) fn module_file(module: &ModuleVersion, suffix: &str) -> Result<String, ModuleError> {
    Ok(format!("{}/@v/{}.{suffix}", escape_path(&module.path)?, escape_version(&module.version)?))
}

/// The host and port of a proxy, or the path of a `file://` proxy, without credentials.
pub(crate) fn proxy_host(proxy: &Url) -> String {
    match (proxy.host_str(), proxy.port()) {
        (Some(host), Some(port)) => format!("{host}:{port}"),
        (Some(host), None) => host.to_owned(),
        (None, _) => proxy.path().to_owned(),
    }
}

/// A client for module proxies; clones share their state.
#[derive(Clone)]
pub(crate) struct ProxyClient {
    client: Client,
    pub(crate) list: ProxyList,
    netrc: Netrc,
    /// Hosts that failed after all attempts; later requests get one, so that a dead proxy costs little.
    failed_hosts: Arc<Mutex<HashSet<String>>>,
    /// The number of requests by host that timed out before a response, since its last response.
    silent_hosts: Arc<Mutex<HashMap<String, u32>>>,
}

/// The destination of a response body.
enum ResponseSink {
    Memory(Vec<u8>),
    File(NamedTempFile),
}

impl ResponseSink {
    fn clear(&mut self) -> Result<(), ModCacheError> {
        match self {
            Self::Memory(bytes) => {
                bytes.clear();
                Ok(())
            }
            Self::File(file) => file
                .as_file()
                .set_len(0)
                .and_then(|()| io::Seek::rewind(file.as_file_mut()))
                .map_err(|source| ModCacheError::File { path: file.path().to_owned(), source }),
        }
    }

    fn write(&mut self, chunk: &[u8]) -> Result<(), ModCacheError> {
        match self {
            Self::Memory(bytes) => {
                bytes.extend_from_slice(chunk);
                Ok(())
            }
            Self::File(file) => file
                .as_file_mut()
                .write_all(chunk)
                .map_err(|source| ModCacheError::File { path: file.path().to_owned(), source }),
        }
    }
}

/// A failed request, final or retryable.
enum RequestError {
    Final(ReadError),
    /// With the Retry-After time, if any.
    Retry(ReadError, Option<Duration>),
    /// No response within the client's time limit.
    Silent(ReadError),
}

impl RequestError {
    fn proxy(kind: ProxyErrorKind, message: impl ToString) -> Self {
        Self::Final(ProxyError::new(kind, message).into())
    }
}

impl From<reqwest::Error> for RequestError {
    /// Omits reqwest's message because its URL may contain a password.
    fn from(error: reqwest::Error) -> Self {
        let mut cause: &dyn std::error::Error = &error;
        while let Some(inner) = cause.source() {
            cause = inner;
        }
        let message = if std::ptr::addr_eq(cause, &error) {
            "failed to connect".to_owned()
        } else if error.is_timeout() {
            format!("timed out: {cause}")
        } else if error.is_body() || error.is_decode() {
            format!("response ended early: {cause}")
        } else {
            cause.to_string()
        };
        let kind = match crate::http::is_certificate_error(&error) {
            true => ProxyErrorKind::Certificate,
            false => ProxyErrorKind::Unreachable,
        };
        let failure = ProxyError::new(kind, message).into();
        if error.is_redirect() { Self::Final(failure) } else { Self::Retry(failure, None) }
    }
}

impl ProxyClient {
    pub(crate) fn new(client: &Client, list: &ProxyList, netrc: &Netrc) -> Self {
        Self {
            client: client.clone(),
            list: list.clone(),
            netrc: netrc.clone(),
            failed_hosts: Arc::default(),
            silent_hosts: Arc::default(),
        }
    }

    /// Reads a small file into memory.
    pub(crate) async fn read(&self, proxy: &Url, path: &str) -> Result<Vec<u8>, ReadError> {
        let mut body = ResponseSink::Memory(Vec::new());
        self.get(proxy, path, MAX_SMALL_FILE_BYTES, &mut body).await?;
        match body {
            ResponseSink::Memory(bytes) => Ok(bytes),
            ResponseSink::File(_) => Ok(Vec::new()),
        }
    }

    /// Reads a small text file.
    pub(crate) async fn read_text(&self, proxy: &Url, path: &str) -> Result<String, ReadError> {
        String::from_utf8(self.read(proxy, path).await?)
            .map_err(|_| ReadError::invalid("response is not UTF-8"))
    }

    /// Downloads a zip to a file; returns the file and its size.
    pub(crate) async fn save(
        &self,
        proxy: &Url,
        path: &str,
        to: NamedTempFile,
    ) -> Result<(NamedTempFile, u64), ReadError> {
        let mut body = ResponseSink::File(to);
        let size = self.get(proxy, path, MAX_ZIP_BYTES, &mut body).await?;
        match body {
            ResponseSink::File(file) => Ok((file, size)),
            ResponseSink::Memory(_) => Err(ReadError::invalid("no file")),
        }
    }

    async fn get(
        &self,
        proxy: &Url,
        path: &str,
        limit: u64,
        body: &mut ResponseSink,
    ) -> Result<u64, ReadError> {
        if proxy.scheme() == "file" {
            return read_file(proxy, path, limit, body).await;
        }
        let url = Url::parse(&format!("{}/{path}", proxy.as_str().trim_end_matches('/')))
            .map_err(ReadError::invalid)?;
        let host = proxy_host(proxy);
        let max_tries = if self.failed_hosts().contains(&host) { 1 } else { MAX_TRIES };
        let mut tries = 0;
        loop {
            if self.silent_hosts().get(&host).is_some_and(|requests| *requests >= MAX_SILENT_REQUESTS) {
                let message = format!("no response to {MAX_SILENT_REQUESTS} requests; not asked again");
                return Err(ProxyError::new(ProxyErrorKind::Unreachable, message).into());
            }
            tries += 1;
            body.clear()?;
            match self.request(&url, limit, body).await {
                Ok(size) => {
                    self.failed_hosts().remove(&host);
                    return Ok(size);
                }
                Err(RequestError::Retry(error, wait)) if tries < max_tries => {
                    tracing::debug!("{host}: {error}; retrying");
                    tokio::time::sleep(wait.unwrap_or(Duration::from_millis(200) * tries * tries)).await;
                }
                Err(RequestError::Silent(error)) => {
                    let mut silent = self.silent_hosts();
                    let requests = silent.entry(host.clone()).or_default();
                    *requests += 1;
                    if *requests >= MAX_SILENT_REQUESTS {
                        return Err(error);
                    }
                }
                Err(RequestError::Retry(error, _)) => {
                    self.failed_hosts().insert(host);
                    return Err(error);
                }
                Err(RequestError::Final(error)) => return Err(error),
            }
        }
    }

    async fn request(&self, url: &Url, limit: u64, body: &mut ResponseSink) -> Result<u64, RequestError> {
        let request = self.with_credentials(url).map_err(|error| RequestError::Final(error.into()))?;
        let sent = request.timeout(RESPONSE_TIMEOUT).send().await;
        let mut response = sent.map_err(|error| {
            let is_silent = error.is_timeout() && !error.is_connect();
            match RequestError::from(error) {
                RequestError::Retry(error, _) if is_silent => RequestError::Silent(error),
                error => error,
            }
        })?;
        self.silent_hosts().remove(&proxy_host(url));
        if response.status() != StatusCode::OK {
            return Err(status_error(response).await);
        }
        let mut size = 0;
        while let Some(chunk) = response.chunk().await? {
            size += chunk.len() as u64;
            if size > limit {
                return Err(RequestError::Final(too_large(limit)));
            }
            body.write(&chunk).map_err(|error| RequestError::Final(error.into()))?;
        }
        Ok(size)
    }

    /// A request with the credentials of the URL or netrc; only over HTTPS, like the go command.
    fn with_credentials(&self, url: &Url) -> Result<RequestBuilder, ProxyError> {
        let mut plain = url.clone();
        let _ = (plain.set_username(""), plain.set_password(None));
        let request = self.client.get(plain);
        let is_https = url.scheme() == "https";
        if !url.username().is_empty() || url.password().is_some() {
            if !is_https {
                let message = "GOPROXY contains a password, which is not sent over plain HTTP";
                return Err(ProxyError::new(ProxyErrorKind::Disallowed, message));
            }
            let decoded =
                |text: &str| percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
            return Ok(request.basic_auth(decoded(url.username()), url.password().map(decoded)));
        }
        Ok(match self.netrc.get(&proxy_host(url)).filter(|_| is_https) {
            Some((login, password)) => request.basic_auth(login, Some(password.expose_secret())),
            None => request,
        })
    }

    fn silent_hosts(&self) -> MutexGuard<'_, HashMap<String, u32>> {
        self.silent_hosts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed_hosts(&self) -> MutexGuard<'_, HashSet<String>> {
        self.failed_hosts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads from a `file://` proxy.
async fn read_file(proxy: &Url, path: &str, limit: u64, body: &mut ResponseSink) -> Result<u64, ReadError> {
    let directory = proxy.to_file_path().map_err(|()| ReadError::invalid("not a path of this machine"))?;
    let unreadable = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => {
            let message = if directory.is_dir() { "not found" } else { NO_DIRECTORY };
            ProxyError::new(ProxyErrorKind::NotFound, message).into()
        }
        _ => ReadError::from(ProxyError::new(ProxyErrorKind::Unreachable, error)),
    };
    let mut file = tokio::fs::File::open(directory.join(path)).await.map_err(unreadable)?;
    let mut size = 0;
    let mut buffer = vec![0; 128 << 10];
    loop {
        let count = file.read(&mut buffer).await.map_err(unreadable)?;
        size += count as u64;
        if size > limit {
            return Err(too_large(limit));
        }
        match buffer.get(..count) {
            Some([]) | None => return Ok(size),
            Some(chunk) => body.write(chunk)?,
        }
    }
}

fn too_large(limit: u64) -> ReadError {
    ReadError::invalid(format!("response exceeds the limit of {limit} bytes"))
}

async fn status_error(response: Response) -> RequestError {
    let status = response.status();
    // In seconds; the date format isn't supported.
    let retry_after = response.headers().get(header::RETRY_AFTER);
    let wait: Option<u64> = retry_after.and_then(|wait| wait.to_str().ok()?.trim().parse().ok());
    let wait = wait.map(Duration::from_secs);
    let mut message = message(response).await;
    let kind = match status {
        StatusCode::NOT_FOUND | StatusCode::GONE => ProxyErrorKind::NotFound,
        StatusCode::UNAUTHORIZED | StatusCode::PROXY_AUTHENTICATION_REQUIRED => ProxyErrorKind::Unauthorized,
        StatusCode::TOO_MANY_REQUESTS => ProxyErrorKind::RateLimited { retry_after: wait },
        status => ProxyErrorKind::Status(status.as_u16()),
    };
    let may_pass = status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error();
    match wait.filter(|wait| *wait > MAX_RETRY_WAIT) {
        None if may_pass => RequestError::Retry(ProxyError::new(kind, message).into(), wait),
        None => RequestError::proxy(kind, message),
        Some(wait) => {
            message.push_str(&format!(" (retry after {} s)", wait.as_secs()));
            RequestError::proxy(kind, message)
        }
    }
}

/// The status and the first line of an error response.
async fn message(mut response: Response) -> String {
    let status = response.status();
    let content_type = response.headers().get(header::CONTENT_TYPE);
    let is_text = content_type.is_some_and(|value| value.as_bytes().starts_with(b"text/plain"));
    let chunk = if is_text { response.chunk().await.ok().flatten() } else { None };
    let text = chunk.map(|chunk| String::from_utf8_lossy(&chunk).into_owned()).unwrap_or_default();
    let line = text.lines().next().unwrap_or_default();
    let line: String = line.chars().filter(|c| !c.is_control()).take(MAX_MESSAGE_CHARS).collect();
    if line.trim().is_empty() { status.to_string() } else { format!("{status}: {}", line.trim()) }
}
