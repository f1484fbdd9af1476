//! Reading files from a module proxy, with retries, size limits and credentials
//! (<https://go.dev/ref/mod#goproxy-protocol>).

use std::{
    collections::HashSet,
    fmt,
    io::{self, Write as _},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use reqwest::{Client, Response, StatusCode, header::RETRY_AFTER, redirect::Policy};
use secrecy::ExposeSecret;
use tempfile::NamedTempFile;
use tokio::io::AsyncReadExt as _;
use url::Url;
use velox_gomod::{
    module::{ModuleError, ModuleVersion, escape_path, escape_version},
    modzip::{MAX_GO_MOD_BYTES, MAX_ZIP_BYTES},
};

use super::{Netrc, ProxyList};

/// Everything but a zip is kept in memory: a go.mod may have this size, nothing else comes near.
const LARGEST_IN_MEMORY: u64 = MAX_GO_MOD_BYTES;
/// How often a download is begun that breaks off, or meets a server in trouble.
const TRIES: u32 = 3;
/// A proxy that wants to be left alone for longer is one in trouble.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// How much of an answer's words on an error is shown.
const SHOWN: usize = 200;

/// The redirects that a [`Fetcher`]'s client may follow: ten, and as the go command has it none from HTTPS to plain HTTP.
#[must_use]
pub fn redirect_policy() -> Policy {
    Policy::custom(|attempt| {
        let downgraded = attempt.url().scheme() != "https"
            && attempt.previous().last().is_some_and(|from| from.scheme() == "https");
        if downgraded {
            attempt.error("it redirects to plain HTTP")
        } else if attempt.previous().len() > 10 {
            attempt.error("it redirects more than 10 times")
        } else {
            attempt.follow()
        }
    })
}

/// Downloads modules; clones share what they know.
/// The proxies, and how to ask them.
#[derive(Clone)]
pub(crate) struct ProxyClient {
    client: Client,
    pub(crate) list: ProxyList,
    netrc: Netrc,
    /// The hosts that were asked in vain as often as is sensible: they get one try for each file from then on, so that
    /// hundreds of modules don't wait for a proxy that has died.
    in_trouble: Arc<Mutex<HashSet<String>>>,
}

/// Why a file of a proxy isn't there.
#[derive(Debug)]
pub(crate) enum ProxyError {
    /// The next proxy may have it. With the proxy's words, if it has some.
    NotFound(String),
    Other(String),
    /// Not the proxy's fault: the file can't be kept.
    Local(io::Error),
}

impl fmt::Display for ProxyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound(words) if words.is_empty() => f.write_str("not found"),
            Self::NotFound(words) | Self::Other(words) => f.write_str(words),
            Self::Local(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ProxyError {}

/// Where a proxy has a version's file.
pub(crate) fn module_file(module: &ModuleVersion, suffix: &str) -> Result<String, ModuleError> {
    Ok(format!("{}/@v/{}.{suffix}", escape_path(&module.path)?, escape_version(&module.version)?))
}

pub(crate) fn text(bytes: Vec<u8>) -> Result<String, ProxyError> {
    String::from_utf8(bytes).map_err(|_| ProxyError::Other("its answer is no text".to_owned()))
}

/// Takes a file in pieces; `None` is its beginning, of the first try and of every other.
type ChunkSink<'a> = &'a mut (dyn FnMut(Option<&[u8]>) -> io::Result<()> + Send);

impl ProxyClient {
    pub(crate) fn new(client: &Client, list: &ProxyList, netrc: &Netrc) -> Self {
        Self { client: client.clone(), list: list.clone(), netrc: netrc.clone(), in_trouble: Arc::default() }
    }

    /// A small file.
    pub(crate) async fn read(&self, proxy: &Url, path: &str) -> Result<Vec<u8>, ProxyError> {
        let mut content = Vec::new();
        let mut take = |chunk: Option<&[u8]>| {
            match chunk {
                None => content.clear(),
                Some(chunk) => content.extend_from_slice(chunk),
            }
            Ok(())
        };
        self.get(proxy, path, LARGEST_IN_MEMORY, &mut take).await?;
        Ok(content)
    }

    /// A large file, never in memory as a whole.
    pub(crate) async fn save(
        &self,
        proxy: &Url,
        path: &str,
        mut to: NamedTempFile,
    ) -> Result<(NamedTempFile, u64), ProxyError> {
        let file = to.as_file_mut();
        let mut size = 0;
        let mut take = |chunk: Option<&[u8]>| match chunk {
            None => {
                size = 0;
                file.set_len(0).and_then(|()| io::Seek::rewind(file))
            }
            Some(chunk) => {
                size += chunk.len() as u64;
                file.write_all(chunk)
            }
        };
        self.get(proxy, path, MAX_ZIP_BYTES, &mut take).await?;
        Ok((to, size))
    }

    async fn get(
        &self,
        proxy: &Url,
        path: &str,
        largest: u64,
        take: ChunkSink<'_>,
    ) -> Result<(), ProxyError> {
        if proxy.scheme() == "file" {
            return from_folder(proxy, path, largest, take).await;
        }
        let url = Url::parse(&format!("{}/{path}", proxy.as_str().trim_end_matches('/')))
            .map_err(|error| ProxyError::Other(error.to_string()))?;
        let host = proxy_host(proxy);
        let most = if self.in_trouble().contains(&host) { 1 } else { TRIES };
        let mut tries = 0;
        loop {
            tries += 1;
            take(None).map_err(ProxyError::Local)?;
            match self.once(&url, largest, take).await {
                Ok(()) => {
                    self.in_trouble().remove(&host);
                    return Ok(());
                }
                Err((failure, Some(wait))) if tries < most => {
                    tracing::debug!("{host}: {failure}");
                    tokio::time::sleep(wait.unwrap_or(Duration::from_millis(200) * tries * tries)).await;
                }
                Err((failure, again)) => {
                    if again.is_some() {
                        self.in_trouble().insert(host);
                    }
                    return Err(failure);
                }
            }
        }
    }

    /// One request. With the failure comes whether another one could help, and after what time, where the proxy says so.
    async fn once(
        &self,
        url: &Url,
        largest: u64,
        take: ChunkSink<'_>,
    ) -> Result<(), (ProxyError, Option<Option<Duration>>)> {
        // reqwest's own words name the URL, which may hold a password.
        let passing = |error: reqwest::Error| {
            let again = (!error.is_redirect()).then_some(None);
            (ProxyError::Other(cause(&error)), again)
        };
        let never = |why: String| (ProxyError::Other(why), None);
        let mut plain = url.clone();
        let mut request = {
            let (_, _) = (plain.set_username(""), plain.set_password(None));
            self.client.get(plain)
        };
        let has_credentials = !url.username().is_empty() || url.password().is_some();
        if has_credentials && url.scheme() != "https" {
            return Err(never("GOPROXY has a password for it, which isn't sent over plain HTTP".to_owned()));
        }
        if has_credentials {
            let decoded =
                |text: &str| percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
            request = request.basic_auth(decoded(url.username()), url.password().map(decoded));
        } else if let Some((login, password)) =
            self.netrc.get(&proxy_host(url)).filter(|_| url.scheme() == "https")
        {
            request = request.basic_auth(login, Some(password.expose_secret()));
        }
        let mut response = request.send().await.map_err(passing)?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND | StatusCode::GONE => {
                let status = response.status().to_string();
                return Err((ProxyError::NotFound(words(response, &status).await), None));
            }
            status => {
                let busy = status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error();
                let wait = retry_after(&response);
                let again = (busy && wait.is_none_or(|wait| wait <= LONGEST_WAIT)).then_some(wait);
                let mut why = words(response, &status.to_string()).await;
                if let Some(wait) = wait.filter(|wait| *wait > LONGEST_WAIT) {
                    why = format!("{why} (it can be asked again in {} s)", wait.as_secs());
                }
                return Err((ProxyError::Other(why), again));
            }
        }
        let mut size = 0;
        while let Some(chunk) = response.chunk().await.map_err(passing)? {
            size += chunk.len() as u64;
            if size > largest {
                return Err(never(format!("it sends more than the {largest} bytes that this file may have")));
            }
            take(Some(&chunk)).map_err(|error| (ProxyError::Local(error), None))?;
        }
        Ok(())
    }

    fn in_trouble(&self) -> std::sync::MutexGuard<'_, HashSet<String>> {
        self.in_trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A `file://` proxy.
async fn from_folder(proxy: &Url, path: &str, largest: u64, take: ChunkSink<'_>) -> Result<(), ProxyError> {
    let other = |error: io::Error| ProxyError::Other(error.to_string());
    let folder =
        proxy.to_file_path().map_err(|()| ProxyError::Other("it is no path of this machine".to_owned()))?;
    let mut file = match tokio::fs::File::open(folder.join(path)).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(ProxyError::NotFound(String::new()));
        }
        file => file.map_err(other)?,
    };
    take(None).map_err(ProxyError::Local)?;
    let mut size = 0;
    let mut buffer = vec![0; 128 << 10];
    loop {
        let count = file.read(&mut buffer).await.map_err(other)?;
        size += count as u64;
        if size > largest {
            return Err(ProxyError::Other(format!(
                "it has more than the {largest} bytes that this file may have"
            )));
        }
        match buffer.get(..count) {
            Some([]) | None => return Ok(()),
            Some(chunk) => take(Some(chunk)).map_err(ProxyError::Local)?,
        }
    }
}

/// What an answer that is none says: its status, and its first line where that is a text.
async fn words(mut response: Response, status: &str) -> String {
    let kind = response.headers().get(reqwest::header::CONTENT_TYPE);
    let is_text = kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/plain"));
    let chunk = if is_text { response.chunk().await.ok().flatten() } else { None };
    let text = chunk.map(|chunk| String::from_utf8_lossy(&chunk).into_owned()).unwrap_or_default();
    let line: String =
        text.lines().next().unwrap_or_default().chars().filter(|c| !c.is_control()).take(SHOWN).collect();
    if line.trim().is_empty() { status.to_owned() } else { format!("{status}: {}", line.trim()) }
}

/// In seconds; no proxy is known that gives a date.
fn retry_after(response: &Response) -> Option<Duration> {
    let text = response.headers().get(RETRY_AFTER)?.to_str().ok()?;
    text.trim().parse().ok().map(Duration::from_secs)
}

/// The innermost cause, and where reqwest keeps that to itself, what it was about.
fn cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    if std::ptr::addr_eq(cause, error) {
        return "it can't be reached".to_owned();
    }
    match cause.to_string() {
        text if error.is_timeout() => format!("it doesn't answer ({text})"),
        text if error.is_body() || error.is_decode() => format!("its answer breaks off ({text})"),
        text => text,
    }
}

/// As messages show it, and as netrc names it.
pub(crate) fn proxy_host(proxy: &Url) -> String {
    match (proxy.host_str(), proxy.port()) {
        (Some(host), Some(port)) => format!("{host}:{port}"),
        (Some(host), None) => host.to_owned(),
        (None, _) => proxy.path().to_owned(),
    }
}
