//! An HTTP client of the build service: submit, follow, cancel, download.

use std::{
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    mem,
    net::IpAddr,
    time::Duration,
};

use data_encoding::HEXLOWER;
use futures::{StreamExt as _, TryStreamExt as _};
use reqwest::{
    Method, RequestBuilder, Response, StatusCode,
    header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, HeaderValue, RANGE, RETRY_AFTER},
};
use secrecy::{ExposeSecret as _, SecretString};
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};
use tokio::{
    io::AsyncBufReadExt as _,
    time::{Instant, sleep},
};
use tokio_util::io::StreamReader;
use url::{Host, Url};

use crate::{
    build::{ArtifactInfo, BuildId, LogEntry},
    view::{BuildView, Problem, SubmitRequest},
};

/// How long requests to an unavailable or full service are retried.
const RETRY_TIMEOUT: Duration = Duration::from_secs(10 * 60);

/// How long the first request is retried: the service may not exist.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The first and the longest delay between retries; it doubles in between.
const RETRY_DELAYS: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));

/// The largest response other than a binary or a log.
const MAX_RESPONSE_BYTES: u64 = 32 << 20;

/// The number of downloads of a binary with a wrong checksum.
const MAX_DOWNLOADS: u32 = 2;

/// An error of the client, or one that the service answered with. `host` is the service's, `why` the reason.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the fields are described once, above")]
pub enum ClientError {
    /// The service URL is invalid; `address` has no password.
    #[error("invalid build service URL `{address}`: {why}")]
    Address { address: String, why: &'static str },
    /// The token would be sent over an unencrypted connection.
    #[error("refusing to send the token to {host} over unencrypted HTTP; use https")]
    InsecureToken { host: String },
    /// The token has invalid characters.
    #[error("the token contains invalid characters")]
    InvalidToken,
    /// The connection failed.
    #[error("failed to connect to the build service at {host}: {why}")]
    Network { host: String, why: String },
    /// The service's certificate isn't trusted.
    #[error("untrusted certificate of the build service at {host}: {why}")]
    Certificate { host: String, why: String },
    /// The service returned a problem.
    #[error("{}", rejection_text(.0))]
    Rejected(Box<Problem>),
    /// The response is not one of a build service.
    #[error("unexpected response from {host}: {why}")]
    InvalidResponse { host: String, why: String },
    /// The downloaded binary is damaged: its SHA-256 is not the one that the service states.
    #[error("checksum mismatch for the downloaded binary: expected SHA-256 {expected}, found {found}")]
    Checksum { expected: String, found: String },
    /// Writing the binary failed.
    #[error("failed to write the binary: {0}")]
    Io(#[from] io::Error),
}

fn rejection_text(problem: &Problem) -> String {
    match problem.detail.as_str() {
        "" => format!("the build service answered: {}", problem.title),
        detail => format!("the build service answered: {}: {detail}", problem.title),
    }
}

/// Progress of a request.
#[derive(Debug, Clone)]
pub enum ClientEvent {
    /// A line of the build's log.
    Log(LogEntry),
    /// The build changed its state.
    State(Box<BuildView>),
    /// The request is retried after this delay, for this reason.
    Retrying(Duration, String),
    /// How many bytes of the binary are downloaded.
    Downloaded(u64),
}

/// A client of a build service. Clones share their connections.
#[derive(Debug, Clone)]
pub struct ServiceClient {
    http: reqwest::Client,
    /// Ends with a slash.
    base: Url,
    token: Option<HeaderValue>,
}

/// Why an attempt failed.
enum Failure {
    /// It may be retried, after this delay where the service names one.
    Temporary(ClientError, Option<Duration>),
    Final(ClientError),
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        Self::Final(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Final(error.into())
    }
}

impl From<Failure> for ClientError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Temporary(error, _) | Failure::Final(error) => error,
        }
    }
}

impl ServiceClient {
    /// Creates a client for the service at this URL (`https://builds.example.com`, with a path if a proxy
    /// adds one). `http` should not follow redirects.
    ///
    /// # Errors
    /// The URL or the token is invalid, or the token would be sent unencrypted.
    pub fn new(
        http: reqwest::Client,
        address: &str,
        token: Option<&SecretString>,
    ) -> Result<Self, ClientError> {
        let wrong = |why| ClientError::Address { address: without_password(address), why };
        let mut base =
            Url::parse(address).map_err(|_| wrong("expected a URL such as https://builds.example.com"))?;
        if !matches!(base.scheme(), "http" | "https") || base.host().is_none() {
            return Err(wrong("expected an http:// or https:// URL"));
        }
        if !base.username().is_empty() || base.password().is_some() {
            return Err(wrong("it contains credentials; use VX_REMOTE_TOKEN"));
        }
        if base.query().is_some() || base.fragment().is_some() {
            return Err(wrong("query and fragment are not supported"));
        }
        if !base.path().ends_with('/') {
            base.set_path(&format!("{}/", base.path()));
        }
        let token = match token {
            Some(_) if base.scheme() == "http" && !is_loopback_host(&base) => {
                return Err(ClientError::InsecureToken { host: host(&base) });
            }
            Some(token) => {
                let mut value = HeaderValue::from_str(&format!("Bearer {}", token.expose_secret().trim()))
                    .map_err(|_| ClientError::InvalidToken)?;
                value.set_sensitive(true);
                Some(value)
            }
            None => None,
        };
        Ok(Self { http, base, token })
    }

    /// The service's host, for messages.
    #[must_use]
    pub fn host(&self) -> String {
        host(&self.base)
    }

    /// The URL of a build's web page.
    #[must_use]
    pub fn page(&self, id: BuildId) -> String {
        self.url(&format!("builds/{id}")).map_or_else(|_| id.to_string(), |url| url.to_string())
    }

    /// Submits a build; retries if the queue is full.
    ///
    /// # Errors
    /// The request is rejected, or the connection fails.
    pub async fn submit(
        &self,
        submit: &SubmitRequest,
        progress: &mut (dyn FnMut(ClientEvent) + Send),
    ) -> Result<BuildView, ClientError> {
        let mut timer = RetryTimer::new(CONNECT_TIMEOUT);
        loop {
            let request = self.request(Method::POST, "v1/builds")?.json(submit);
            match self.json(request).await {
                Ok(view) => return Ok(view),
                Err(failure) => timer.wait(failure, progress).await?,
            }
        }
    }

    /// Returns the build.
    ///
    /// # Errors
    /// The build doesn't exist, or the service is unreachable.
    pub async fn build(&self, id: BuildId) -> Result<BuildView, ClientError> {
        self.parse(&self.file(&format!("v1/builds/{id}")).await?)
    }

    /// Follows the build's log to its end, reconnecting if needed, and returns the finished build.
    ///
    /// # Errors
    /// The build doesn't exist, or the service is unreachable.
    pub async fn follow(
        &self,
        id: BuildId,
        progress: &mut (dyn FnMut(ClientEvent) + Send),
    ) -> Result<BuildView, ClientError> {
        let mut after = 0;
        let mut timer = RetryTimer::new(RETRY_TIMEOUT);
        loop {
            let before = after;
            let attempt = self.read_log(id, &mut after, progress).await;
            if after != before {
                timer = RetryTimer::new(RETRY_TIMEOUT);
            }
            match attempt {
                Ok(Some(view)) => return Ok(view),
                // The stream ended cleanly, as when a proxy or the service shuts down.
                Ok(None) => {
                    let view = self.build(id).await?;
                    if !view.state.is_final() {
                        sleep(RETRY_DELAYS.0).await;
                    }
                }
                Err(failure) => timer.wait(failure, progress).await?,
            }
        }
    }

    /// Reads the log after the entry `after` until the connection ends.
    async fn read_log(
        &self,
        id: BuildId,
        after: &mut u64,
        progress: &mut (dyn FnMut(ClientEvent) + Send),
    ) -> Result<Option<BuildView>, Failure> {
        let request = self.request(Method::GET, &format!("v1/builds/{id}/log"))?;
        let request = request.header(ACCEPT, "text/event-stream");
        let request = if *after > 0 { request.header("last-event-id", *after) } else { request };
        let response = self.send(request).await?;
        // https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
        let mut lines = StreamReader::new(response.bytes_stream().map_err(io::Error::other)).lines();
        let (mut kind, mut data) = (String::new(), String::new());
        while let Some(line) = lines.next_line().await.map_err(|error| self.interrupted(&error))? {
            if let Some((field, value)) = line.split_once(':') {
                let value = value.strip_prefix(' ').unwrap_or(value);
                match field {
                    "event" => value.clone_into(&mut kind),
                    // Lines of JSON can be joined.
                    "data" => data.push_str(value),
                    _ => {}
                }
            }
            if !line.is_empty() {
                continue;
            }
            let (kind, data) = (mem::take(&mut kind), mem::take(&mut data));
            match kind.as_str() {
                "" | "message" => {
                    let Ok(entry) = serde_json::from_str::<LogEntry>(&data) else { continue };
                    // A reconnect may repeat entries.
                    if entry.seq > *after {
                        *after = entry.seq;
                        progress(ClientEvent::Log(entry));
                    }
                }
                "state" => {
                    if let Ok(view) = serde_json::from_str::<BuildView>(&data) {
                        progress(ClientEvent::State(Box::new(view)));
                    }
                }
                "end" => return Ok(Some(self.parse(&data)?)),
                _ => {}
            }
        }
        Ok(None)
    }

    /// Cancels the build. Not retried: the user waits for the program to exit.
    ///
    /// # Errors
    /// The service rejects the request or is unreachable.
    pub async fn cancel(&self, id: BuildId) -> Result<BuildView, ClientError> {
        Ok(self.json(self.request(Method::DELETE, &format!("v1/builds/{id}"))?).await?)
    }

    /// Returns the `velox.lock` of a successful build.
    ///
    /// # Errors
    /// The build has none, or the service is unreachable.
    pub async fn lock(&self, id: BuildId) -> Result<String, ClientError> {
        self.file(&format!("v1/builds/{id}/velox.lock")).await
    }

    /// Returns the signed provenance of a successful build.
    ///
    /// # Errors
    /// The build has none, or the service is unreachable.
    pub async fn attestation(&self, id: BuildId) -> Result<String, ClientError> {
        self.file(&format!("v1/builds/{id}/attestation")).await
    }

    async fn file(&self, path: &str) -> Result<String, ClientError> {
        let mut timer = RetryTimer::new(RETRY_TIMEOUT);
        loop {
            match self.text(self.request(Method::GET, path)?).await {
                Ok(text) => return Ok(text),
                Err(failure) => timer.wait(failure, &mut |_| ()).await?,
            }
        }
    }

    /// Downloads a binary into an empty file, resuming after connection errors, and verifies its SHA-256.
    ///
    /// # Errors
    /// The service is unreachable, the checksum doesn't match, or the file can't be written.
    pub async fn download(
        &self,
        artifact: &ArtifactInfo,
        file: &mut File,
        progress: &mut (dyn FnMut(ClientEvent) + Send),
    ) -> Result<(), ClientError> {
        let mut timer = RetryTimer::new(RETRY_TIMEOUT);
        let mut tries = 0;
        loop {
            let have = file.seek(SeekFrom::End(0))?;
            if have < artifact.size {
                if let Err(failure) = self.read_artifact(artifact, have, file, progress).await {
                    if file.seek(SeekFrom::End(0))? > have {
                        timer = RetryTimer::new(RETRY_TIMEOUT);
                    }
                    timer.wait(failure, progress).await?;
                }
                continue;
            }
            let found = sha256_of(file)?;
            if found == artifact.sha256 {
                return Ok(());
            }
            tries += 1;
            if tries >= MAX_DOWNLOADS {
                return Err(ClientError::Checksum { expected: artifact.sha256.clone(), found });
            }
            file.set_len(0)?;
        }
    }

    /// Reads the binary after the first `have` bytes until the connection ends.
    async fn read_artifact(
        &self,
        artifact: &ArtifactInfo,
        have: u64,
        file: &mut File,
        progress: &mut (dyn FnMut(ClientEvent) + Send),
    ) -> Result<(), Failure> {
        let request = self.request(Method::GET, &format!("v1/artifacts/{}", artifact.sha256))?;
        // A compressed response can't be resumed.
        let request = request.header(ACCEPT_ENCODING, "identity");
        let request = if have > 0 { request.header(RANGE, format!("bytes={have}-")) } else { request };
        let response = self.send(request).await?;
        let mut at = have;
        if have > 0 && response.status() != StatusCode::PARTIAL_CONTENT {
            at = 0;
            file.set_len(0)?;
            file.rewind()?;
        }
        let mut pieces = response.bytes_stream();
        while let Some(piece) = pieces.next().await {
            let piece = piece.map_err(|error| self.interrupted(&error))?;
            at += piece.len() as u64;
            if at > artifact.size {
                return Err(self.invalid_response("the binary is larger than its stated size").into());
            }
            file.write_all(&piece)?;
            progress(ClientEvent::Downloaded(at));
        }
        if at < artifact.size {
            let why = "the download ended early".to_owned();
            return Err(Failure::Temporary(ClientError::Network { host: self.host(), why }, None));
        }
        Ok(())
    }

    fn url(&self, path: &str) -> Result<Url, ClientError> {
        self.base.join(path).map_err(|error| self.invalid_response(error))
    }

    fn request(&self, method: Method, path: &str) -> Result<RequestBuilder, ClientError> {
        let request = self.http.request(method, self.url(path)?);
        Ok(match &self.token {
            Some(token) => request.header(AUTHORIZATION, token.clone()),
            None => request,
        })
    }

    async fn json<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, Failure> {
        Ok(self.parse(&self.text(request).await?)?)
    }

    fn parse<T: DeserializeOwned>(&self, json: &str) -> Result<T, ClientError> {
        serde_json::from_str(json).map_err(|error| self.invalid_response(error))
    }

    async fn text(&self, request: RequestBuilder) -> Result<String, Failure> {
        self.body(self.send(request).await?).await
    }

    async fn body(&self, response: Response) -> Result<String, Failure> {
        let mut bytes = Vec::new();
        let mut pieces = response.bytes_stream();
        while let Some(piece) = pieces.next().await {
            bytes.extend_from_slice(&piece.map_err(|error| self.interrupted(&error))?);
            if bytes.len() as u64 > MAX_RESPONSE_BYTES {
                return Err(self.invalid_response("the response exceeds 32 MiB").into());
            }
        }
        Ok(String::from_utf8(bytes).map_err(|error| self.invalid_response(error))?)
    }

    /// Sends the request and returns a successful response.
    async fn send(&self, request: RequestBuilder) -> Result<Response, Failure> {
        let response = request.send().await.map_err(|error| match self.network_error(&error) {
            // A retry would fail the same way.
            error @ ClientError::Certificate { .. } => Failure::Final(error),
            error => Failure::Temporary(error, None),
        })?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        if status.is_redirection() {
            let why = format!("redirect ({status}); use the URL that it redirects to");
            return Err(self.invalid_response(why).into());
        }
        let after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let after = after.map(Duration::from_secs);
        let body = self.body(response).await.unwrap_or_default();
        let error = match serde_json::from_str::<Problem>(&body) {
            Ok(problem) => ClientError::Rejected(Box::new(problem)),
            // The response of a proxy in front of the service.
            Err(_) => self.invalid_response(format!("status {status}")),
        };
        Err(match status {
            StatusCode::TOO_MANY_REQUESTS
            | StatusCode::INTERNAL_SERVER_ERROR
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT => Failure::Temporary(error, after),
            _ => Failure::Final(error),
        })
    }

    fn network_error(&self, error: &(dyn std::error::Error + 'static)) -> ClientError {
        let mut cause = error;
        while let Some(next) = cause.source() {
            cause = next;
        }
        let (host, why) = (self.host(), cause.to_string());
        match why.contains("certificate") {
            true => ClientError::Certificate { host, why },
            false => ClientError::Network { host, why },
        }
    }

    fn interrupted(&self, error: &(dyn std::error::Error + 'static)) -> Failure {
        Failure::Temporary(self.network_error(error), None)
    }

    fn invalid_response(&self, why: impl ToString) -> ClientError {
        ClientError::InvalidResponse { host: self.host(), why: why.to_string() }
    }
}

/// The delays between retries, until a deadline.
struct RetryTimer {
    started: Instant,
    pause: Duration,
    until: Instant,
}

impl RetryTimer {
    fn new(timeout: Duration) -> Self {
        let started = Instant::now();
        Self { started, pause: RETRY_DELAYS.0, until: started + timeout }
    }

    /// Waits before the next retry: as long as `Retry-After` says, else with exponential backoff.
    ///
    /// # Errors
    /// Returns the error if it is final, or once the deadline is exceeded.
    async fn wait(
        &mut self,
        failure: Failure,
        progress: &mut (dyn FnMut(ClientEvent) + Send),
    ) -> Result<(), ClientError> {
        let (error, after) = match failure {
            Failure::Temporary(error, after) => (error, after),
            Failure::Final(error) => return Err(error),
        };
        // A service that responds gets the longer timeout.
        if matches!(&error, ClientError::Rejected(problem) if problem.status == 429 || problem.status == 503)
        {
            self.until = self.until.max(self.started + RETRY_TIMEOUT);
        }
        let pause = after.unwrap_or(self.pause);
        if Instant::now() + pause > self.until {
            return Err(error);
        }
        progress(ClientEvent::Retrying(pause, error.to_string()));
        sleep(pause).await;
        self.pause = (self.pause * 2).min(RETRY_DELAYS.1);
        Ok(())
    }
}

/// The SHA-256 of a file, in hexadecimal.
fn sha256_of(file: &mut File) -> io::Result<String> {
    file.rewind()?;
    let mut digest = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        let read = file.read(&mut buffer)?;
        match buffer.get(..read) {
            Some([]) | None => break,
            Some(bytes) => digest.update(bytes),
        }
    }
    Ok(HEXLOWER.encode(&digest.finalize()))
}

fn host(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

fn is_loopback_host(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => IpAddr::V6(address).to_canonical().is_loopback(),
        None => false,
    }
}

/// The text before an `@` may be a password.
fn without_password(address: &str) -> String {
    match address.rsplit_once('@') {
        Some((_, rest)) => format!("…@{rest}"),
        None => address.to_owned(),
    }
}
