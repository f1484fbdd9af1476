//! What a program asks a build service with: submit, follow, cancel, download.

use std::{
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
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
use sse_stream::SseByteStream;
use tokio::time::{Instant, sleep};
use url::{Host, Url};

use crate::{
    build::{ArtifactInfo, BuildId, LogEntry},
    view::{BuildView, Problem, SubmitRequest},
};

/// For how long a service may be away, or say that it has no room, before it is given up.
const PATIENCE: Duration = Duration::from_secs(10 * 60);

/// For how long a service may be away that never answered.
const FIRST_PATIENCE: Duration = Duration::from_secs(5);

/// The first pause before another try; each one is twice as long as the one before, up to the last.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));

/// An answer other than a binary or a log is never larger.
const LARGEST_ANSWER: u64 = 32 << 20;

/// How often a binary is downloaded that isn't what its sum says.
const DOWNLOADS: u32 = 2;

/// Why a service couldn't be asked, or what it said.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The address is none of a service.
    #[error("`{address}` is no address of a build service: {why}")]
    Address {
        /// The address, without what might be a password.
        address: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The token isn't sent where others could read it.
    #[error("the token isn't sent to {host} over plain http, where others could read it: use https")]
    InsecureToken {
        /// The service's host.
        host: String,
    },
    /// The token can't be one.
    #[error("the token has characters in it that no token has")]
    InvalidToken,
    /// The service can't be reached, or went away.
    #[error("the build service at {host} can't be reached: {why}")]
    Network {
        /// The service's host.
        host: String,
        /// Why.
        why: String,
    },
    /// Nobody vouches for the service's certificate.
    #[error("the certificate of the build service at {host} isn't trusted: {why}")]
    Certificate {
        /// The service's host.
        host: String,
        /// Why.
        why: String,
    },
    /// The service says no.
    #[error("{}", said(.0))]
    Rejected(Box<Problem>),
    /// What answers isn't such a service.
    #[error("{host} answers, but not as a build service does: {why}")]
    InvalidResponse {
        /// The host.
        host: String,
        /// What is wrong.
        why: String,
    },
    /// The binary isn't what the service says that it is.
    #[error(
        "the binary that came isn't the one that the service made: its SHA-256 is {found}, not {expected}"
    )]
    Checksum {
        /// What the service says.
        expected: String,
        /// What came.
        found: String,
    },
    /// The binary can't be written.
    #[error("can't write the binary: {0}")]
    Io(#[from] io::Error),
}

fn said(problem: &Problem) -> String {
    match problem.detail.as_str() {
        "" => format!("the build service says: {}", problem.title),
        detail => format!("the build service says: {}: {detail}", problem.title),
    }
}

/// What goes on, told while it does.
#[derive(Debug, Clone)]
pub enum ClientEvent {
    /// A line of the build's log.
    Log(LogEntry),
    /// The build is at another state.
    State(Box<BuildView>),
    /// The service is asked again after this time, and why.
    Retrying(Duration, String),
    /// So many bytes of the binary are here.
    Downloaded(u64),
}

/// A build service, as a client sees it. Clones share their connections.
#[derive(Debug, Clone)]
pub struct ServiceClient {
    http: reqwest::Client,
    /// Ends with a slash.
    base: Url,
    token: Option<HeaderValue>,
}

/// What an attempt came to.
enum Attempt<T> {
    Done(T),
    /// Another one may do better, after this time where the service says so.
    Again(ClientError, Option<Duration>),
    Failed(ClientError),
}

impl ServiceClient {
    /// The service at this address (`https://builds.example.com`, with a path where a proxy put it below one). `http`
    /// should follow no redirects.
    ///
    /// # Errors
    /// No such address; a token that would go over a network in the clear.
    pub fn new(
        http: reqwest::Client,
        address: &str,
        token: Option<&SecretString>,
    ) -> Result<Self, ClientError> {
        let wrong = |why| ClientError::Address { address: without_password(address), why };
        let mut base =
            Url::parse(address).map_err(|_| wrong("write a URL, such as https://builds.example.com"))?;
        if !matches!(base.scheme(), "http" | "https") || base.host().is_none() {
            return Err(wrong("write an http:// or https:// URL"));
        }
        if !base.username().is_empty() || base.password().is_some() {
            return Err(wrong("a token or password in it would be seen by others: use VX_REMOTE_TOKEN"));
        }
        if base.query().is_some() || base.fragment().is_some() {
            return Err(wrong("leave out what follows the path"));
        }
        if !base.path().ends_with('/') {
            base.set_path(&format!("{}/", base.path()));
        }
        let token = match token {
            Some(_) if base.scheme() == "http" && !is_this_machine(&base) => {
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

    /// Its host, for messages.
    #[must_use]
    pub fn host(&self) -> String {
        host(&self.base)
    }

    /// The page of a build.
    #[must_use]
    pub fn page(&self, id: BuildId) -> String {
        self.url(&format!("builds/{id}")).map_or_else(|_| id.to_string(), |url| url.to_string())
    }

    /// Asks for a build. Where the service has no room, it is asked again as it says.
    ///
    /// # Errors
    /// It isn't taken, or the service can't be reached.
    pub async fn submit(
        &self,
        submit: &SubmitRequest,
        told: &mut (dyn FnMut(ClientEvent) + Send),
    ) -> Result<BuildView, ClientError> {
        let mut waiting = Waiting::new(FIRST_PATIENCE);
        loop {
            let request = self.request(Method::POST, "v1/builds")?.json(submit);
            match self.json(request).await {
                Attempt::Done(view) => return Ok(view),
                Attempt::Failed(error) => return Err(error),
                Attempt::Again(error, after) => waiting.again(error, after, told).await?,
            }
        }
    }

    /// The build as it is.
    ///
    /// # Errors
    /// There is none of that name, or the service can't be reached.
    pub async fn build(&self, id: BuildId) -> Result<BuildView, ClientError> {
        let mut waiting = Waiting::new(PATIENCE);
        loop {
            match self.json(self.request(Method::GET, &format!("v1/builds/{id}"))?).await {
                Attempt::Done(view) => return Ok(view),
                Attempt::Failed(error) => return Err(error),
                Attempt::Again(error, after) => waiting.again(error, after, &mut |_| ()).await?,
            }
        }
    }

    /// Follows the build's log to its end, whatever becomes of the connection, and answers with the build as it ended.
    ///
    /// # Errors
    /// There is none of that name, or the service stays away.
    pub async fn follow(
        &self,
        id: BuildId,
        told: &mut (dyn FnMut(ClientEvent) + Send),
    ) -> Result<BuildView, ClientError> {
        let mut after = 0;
        let mut waiting = Waiting::new(PATIENCE);
        loop {
            let before = after;
            let attempt = self.read_log(id, &mut after, told).await;
            if after != before {
                waiting = Waiting::new(PATIENCE);
            }
            match attempt {
                Attempt::Done(Some(view)) => return Ok(view),
                // It was cut off in good order, as a proxy or a service that goes down does it.
                Attempt::Done(None) => {
                    let view = self.build(id).await?;
                    if !view.state.is_final() {
                        sleep(PAUSES.0).await;
                    }
                }
                Attempt::Failed(error) => return Err(error),
                Attempt::Again(error, wait) => waiting.again(error, wait, told).await?,
            }
        }
    }

    /// Reads on after the entry `after`, as long as the connection lasts.
    async fn read_log(
        &self,
        id: BuildId,
        after: &mut u64,
        told: &mut (dyn FnMut(ClientEvent) + Send),
    ) -> Attempt<Option<BuildView>> {
        let request = match self.request(Method::GET, &format!("v1/builds/{id}/log")) {
            Ok(request) => request.header(ACCEPT, "text/event-stream"),
            Err(error) => return Attempt::Failed(error),
        };
        let request = if *after > 0 { request.header("last-event-id", *after) } else { request };
        let response = match self.answer(request).await {
            Attempt::Done(response) => response,
            Attempt::Again(error, wait) => return Attempt::Again(error, wait),
            Attempt::Failed(error) => return Attempt::Failed(error),
        };
        let mut events = SseByteStream::new(response.bytes_stream());
        while let Some(event) = events.next().await {
            let event = match event {
                Ok(event) => event,
                Err(error) => return Attempt::Again(self.lost(&error), None),
            };
            let Some(data) = event.data else { continue };
            match event.event.as_deref() {
                None | Some("" | "message") => {
                    let Ok(entry) = serde_json::from_str::<LogEntry>(&data) else { continue };
                    // A reconnect may bring what is known.
                    if entry.seq > *after {
                        *after = entry.seq;
                        told(ClientEvent::Log(entry));
                    }
                }
                Some("state") => {
                    if let Ok(view) = serde_json::from_str::<BuildView>(&data) {
                        told(ClientEvent::State(Box::new(view)));
                    }
                }
                Some("end") => match serde_json::from_str::<BuildView>(&data) {
                    Ok(view) => return Attempt::Done(Some(view)),
                    Err(error) => return Attempt::Failed(self.bad(error.to_string())),
                },
                Some(_) => {}
            }
        }
        Attempt::Done(None)
    }

    /// The caller doesn't want the build any more. It isn't tried twice: somebody waits for the program to end.
    ///
    /// # Errors
    /// The service says no, or can't be reached.
    pub async fn cancel(&self, id: BuildId) -> Result<BuildView, ClientError> {
        match self.json(self.request(Method::DELETE, &format!("v1/builds/{id}"))?).await {
            Attempt::Done(view) => Ok(view),
            Attempt::Again(error, _) | Attempt::Failed(error) => Err(error),
        }
    }

    /// The `velox.lock` of a build that succeeded.
    ///
    /// # Errors
    /// It has none, or the service can't be reached.
    pub async fn lock(&self, id: BuildId) -> Result<String, ClientError> {
        let mut waiting = Waiting::new(PATIENCE);
        loop {
            let attempt =
                match self.answer(self.request(Method::GET, &format!("v1/builds/{id}/velox.lock"))?).await {
                    Attempt::Done(response) => self.text(response).await,
                    Attempt::Again(error, after) => Attempt::Again(error, after),
                    Attempt::Failed(error) => Attempt::Failed(error),
                };
            match attempt {
                Attempt::Done(text) => return Ok(text),
                Attempt::Failed(error) => return Err(error),
                Attempt::Again(error, after) => waiting.again(error, after, &mut |_| ()).await?,
            }
        }
    }

    /// Downloads a binary into an empty file. Where the connection breaks, the rest is asked for; at the end the whole is
    /// what its SHA-256 says.
    ///
    /// # Errors
    /// The service stays away, or has another binary under that name; the file can't be written.
    pub async fn download(
        &self,
        artifact: &ArtifactInfo,
        file: &mut File,
        told: &mut (dyn FnMut(ClientEvent) + Send),
    ) -> Result<(), ClientError> {
        let mut waiting = Waiting::new(PATIENCE);
        let mut tries = 0;
        loop {
            let have = file.seek(SeekFrom::End(0))?;
            if have < artifact.size {
                match self.read_artifact(artifact, have, file, told).await {
                    Attempt::Done(()) => {}
                    Attempt::Failed(error) => return Err(error),
                    Attempt::Again(error, after) => {
                        if file.seek(SeekFrom::End(0))? > have {
                            waiting = Waiting::new(PATIENCE);
                        }
                        waiting.again(error, after, told).await?;
                    }
                }
                continue;
            }
            let found = sum(file)?;
            if found == artifact.sha256 {
                return Ok(());
            }
            tries += 1;
            if tries >= DOWNLOADS {
                return Err(ClientError::Checksum { expected: artifact.sha256.clone(), found });
            }
            file.set_len(0)?;
        }
    }

    /// What follows the first `have` bytes, as long as the connection lasts.
    async fn read_artifact(
        &self,
        artifact: &ArtifactInfo,
        have: u64,
        file: &mut File,
        told: &mut (dyn FnMut(ClientEvent) + Send),
    ) -> Attempt<()> {
        let request = match self.request(Method::GET, &format!("v1/artifacts/{}", artifact.sha256)) {
            // What is compressed on the way can't be resumed.
            Ok(request) => request.header(ACCEPT_ENCODING, "identity"),
            Err(error) => return Attempt::Failed(error),
        };
        let request = if have > 0 { request.header(RANGE, format!("bytes={have}-")) } else { request };
        let response = match self.answer(request).await {
            Attempt::Done(response) => response,
            Attempt::Again(error, wait) => return Attempt::Again(error, wait),
            Attempt::Failed(error) => return Attempt::Failed(error),
        };
        let mut at = have;
        if have > 0 && response.status() != StatusCode::PARTIAL_CONTENT {
            at = 0;
            if let Err(error) = file.set_len(0).and_then(|()| file.rewind()) {
                return Attempt::Failed(error.into());
            }
        }
        let mut pieces = response.bytes_stream();
        while let Some(piece) = pieces.next().await {
            let piece = match piece {
                Ok(piece) => piece,
                Err(error) => return Attempt::Again(self.lost(&error), None),
            };
            at += piece.len() as u64;
            if at > artifact.size {
                return Attempt::Failed(self.bad("the binary is larger than it should be".to_owned()));
            }
            if let Err(error) = file.write_all(&piece) {
                return Attempt::Failed(error.into());
            }
            told(ClientEvent::Downloaded(at));
        }
        if at < artifact.size {
            let why = "the download ended before its end".to_owned();
            return Attempt::Again(ClientError::Network { host: self.host(), why }, None);
        }
        Attempt::Done(())
    }

    fn url(&self, path: &str) -> Result<Url, ClientError> {
        self.base.join(path).map_err(|error| self.bad(error.to_string()))
    }

    fn request(&self, method: Method, path: &str) -> Result<RequestBuilder, ClientError> {
        let request = self.http.request(method, self.url(path)?);
        Ok(match &self.token {
            Some(token) => request.header(AUTHORIZATION, token.clone()),
            None => request,
        })
    }

    async fn json<T: DeserializeOwned>(&self, request: RequestBuilder) -> Attempt<T> {
        let response = match self.answer(request).await {
            Attempt::Done(response) => response,
            Attempt::Again(error, after) => return Attempt::Again(error, after),
            Attempt::Failed(error) => return Attempt::Failed(error),
        };
        match self.text(response).await {
            Attempt::Done(text) => match serde_json::from_str(&text) {
                Ok(value) => Attempt::Done(value),
                Err(error) => Attempt::Failed(self.bad(error.to_string())),
            },
            Attempt::Again(error, after) => Attempt::Again(error, after),
            Attempt::Failed(error) => Attempt::Failed(error),
        }
    }

    async fn text(&self, response: Response) -> Attempt<String> {
        let mut bytes = Vec::new();
        let mut pieces = response.bytes_stream();
        loop {
            match pieces.try_next().await {
                Ok(Some(piece)) => bytes.extend_from_slice(&piece),
                Ok(None) => break,
                Err(error) => return Attempt::Again(self.lost(&error), None),
            }
            if bytes.len() as u64 > LARGEST_ANSWER {
                return Attempt::Failed(self.bad("it is larger than 32 MiB".to_owned()));
            }
        }
        match String::from_utf8(bytes) {
            Ok(text) => Attempt::Done(text),
            Err(error) => Attempt::Failed(self.bad(error.to_string())),
        }
    }

    /// A successful answer.
    async fn answer(&self, request: RequestBuilder) -> Attempt<Response> {
        let response = match request.send().await {
            Ok(response) => response,
            Err(error) => {
                return match self.lost(&error) {
                    // The next try would meet the same one.
                    error @ ClientError::Certificate { .. } => Attempt::Failed(error),
                    error => Attempt::Again(error, None),
                };
            }
        };
        let status = response.status();
        if status.is_success() {
            return Attempt::Done(response);
        }
        if status.is_redirection() {
            let why = format!("it redirects ({status}): name the address that it redirects to");
            return Attempt::Failed(self.bad(why));
        }
        let after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let after = after.map(Duration::from_secs);
        let problem = match self.text(response).await {
            Attempt::Done(text) => serde_json::from_str::<Problem>(&text).ok(),
            Attempt::Again(..) | Attempt::Failed(_) => None,
        };
        let error = match problem {
            Some(problem) => ClientError::Rejected(Box::new(problem)),
            // A proxy before the service says it in its own way.
            None => self.bad(format!("it says {status}")),
        };
        match status {
            StatusCode::TOO_MANY_REQUESTS
            | StatusCode::INTERNAL_SERVER_ERROR
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT => Attempt::Again(error, after),
            _ => Attempt::Failed(error),
        }
    }

    fn lost(&self, error: &(dyn std::error::Error + 'static)) -> ClientError {
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

    fn bad(&self, why: String) -> ClientError {
        ClientError::InvalidResponse { host: self.host(), why }
    }
}

/// The pauses between tries, until patience ends.
struct Waiting {
    started: Instant,
    pause: Duration,
    until: Instant,
}

impl Waiting {
    fn new(patience: Duration) -> Self {
        let started = Instant::now();
        Self { started, pause: PAUSES.0, until: started + patience }
    }

    /// Waits for the next try, as the service says or ever longer.
    ///
    /// # Errors
    /// There is no patience left for `error`.
    async fn again(
        &mut self,
        error: ClientError,
        after: Option<Duration>,
        told: &mut (dyn FnMut(ClientEvent) + Send),
    ) -> Result<(), ClientError> {
        // A service that answers is worth more patience than one that may not be there.
        if matches!(&error, ClientError::Rejected(problem) if problem.status == 429 || problem.status == 503)
        {
            self.until = self.until.max(self.started + PATIENCE);
        }
        let pause = after.unwrap_or(self.pause);
        if Instant::now() + pause > self.until {
            return Err(error);
        }
        told(ClientEvent::Retrying(pause, error.to_string()));
        sleep(pause).await;
        self.pause = (self.pause * 2).min(PAUSES.1);
        Ok(())
    }
}

/// The SHA-256 of a file, in hexadecimal.
fn sum(file: &mut File) -> io::Result<String> {
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

fn is_this_machine(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => IpAddr::V6(address).to_canonical().is_loopback(),
        None => false,
    }
}

/// What stands before an `@` may be a password.
fn without_password(address: &str) -> String {
    match address.rsplit_once('@') {
        Some((_, rest)) => format!("…@{rest}"),
        None => address.to_owned(),
    }
}
