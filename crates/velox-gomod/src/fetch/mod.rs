//! Downloading modules from module proxies into GOMODCACHE, as the go command would leave them
//! (<https://go.dev/ref/mod#goproxy-protocol>, <https://go.dev/ref/mod#module-cache>): verified before anything is visible,
//! many at once.

mod database;
mod goproxy;
mod netrc;
mod probe;

use std::{fmt, io::Write as _, path::PathBuf, sync::Arc, time::Duration};

use futures::{StreamExt, stream};
use reqwest::{Client, StatusCode};
use secrecy::ExposeSecret;
use tempfile::NamedTempFile;
use tokio::sync::Semaphore;
use url::Url;

use self::{database::Database, goproxy::Source};
pub use self::{
    database::{SumDb, SumDbError},
    goproxy::{ProxyList, ProxyListError},
    netrc::Netrc,
    probe::{Probe, probe_proxies, probe_sum_db},
};
use crate::{
    modcache::{self, ModCache, Part, Sums},
    module::{self, Version, escape_path, escape_version, match_prefix_patterns},
};

/// No module zip is larger (<https://go.dev/ref/mod#zip-path-size-constraints>); nothing else comes near.
const LARGEST: u64 = 500 << 20;
/// How often a download is begun that breaks off, or meets a server in trouble.
const TRIES: u32 = 3;

/// How modules are downloaded.
#[derive(Debug, Clone)]
pub struct Options {
    /// Follows redirects, and knows the proxies and certificates of this machine.
    pub client: Client,
    /// GOMODCACHE.
    pub cache: ModCache,
    /// GOPROXY.
    pub proxies: ProxyList,
    /// GONOPROXY: the modules that only the go command may fetch.
    pub no_proxy: String,
    /// GOSUMDB; `None`: off.
    pub sum_db: Option<SumDb>,
    /// GONOSUMDB: the modules that the database isn't asked about.
    pub no_sum_db: String,
    /// `$GOPATH/pkg/sumdb`, where the newest signed tree is kept.
    pub sum_db_state: PathBuf,
    /// The credentials of proxies.
    pub netrc: Netrc,
    /// Whether unpacked modules can be written (`-modcacherw`).
    pub writable: bool,
    /// How many downloads run at once.
    pub at_once: usize,
}

/// A module to fetch.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// The module, at an exact version.
    pub module: Version,
    /// The sums that its zip may have, as go.sum has them; none: the checksum database is asked.
    pub zip_sums: Vec<String>,
    /// The same for its go.mod.
    pub mod_sums: Vec<String>,
}

/// A module that lies in GOMODCACHE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// Its sums.
    pub sums: Sums,
    /// What they were compared with.
    pub verified: Verified,
    /// How many bytes were downloaded; 0: it was there.
    pub bytes: u64,
}

/// What vouches for a module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verified {
    /// Sums that were known before.
    Known,
    /// The checksum database.
    Database,
    /// Nothing: GOSUMDB is off, or GONOSUMDB covers it. Its first use is trusted.
    Nothing,
}

/// Why a module isn't there.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The module path or version is malformed.
    #[error(transparent)]
    Module(#[from] module::Error),
    /// Only the go command can fetch it: GONOPROXY covers it, or only `direct` is left.
    #[error("{module} is to be fetched without a proxy")]
    NeedsGo {
        /// `path@version`.
        module: String,
    },
    /// GOPROXY ends with `off`.
    #[error("{module}: GOPROXY forbids to download it")]
    Off {
        /// `path@version`.
        module: String,
    },
    /// No proxy has it.
    #[error("{module}: {host}: {why}")]
    Download {
        /// `path@version`.
        module: String,
        /// The proxy that was asked last.
        host: String,
        /// What it said.
        why: String,
    },
    /// It is not what its sum says.
    #[error("{module} is not what its checksum says: its {file} has the sum {found}, {expected} is expected")]
    Mismatch {
        /// `path@version`.
        module: String,
        /// `zip` or `go.mod`.
        file: &'static str,
        /// Its sum.
        found: String,
        /// What it should be.
        expected: String,
    },
    /// The checksum database can't be asked, or contradicts itself.
    #[error("{module} can't be verified: {source}")]
    Database {
        /// `path@version`.
        module: String,
        /// What is wrong.
        source: crate::sumdb::Error,
    },
    /// GOMODCACHE can't be used, or the zip is none of this module.
    #[error(transparent)]
    Cache(#[from] modcache::Error),
    /// A task ended early.
    #[error("{module}: the download was given up")]
    Stopped {
        /// `path@version`.
        module: String,
    },
}

/// Downloads modules; clones share what they know.
#[derive(Clone)]
pub struct Fetcher {
    inner: Arc<Inner>,
}

struct Inner {
    options: Options,
    proxies: Proxies,
    database: Option<Database>,
    /// Hashing and unpacking keep a core busy: more at once only take memory.
    busy: Semaphore,
}

/// The proxies, and how to ask them.
#[derive(Clone)]
struct Proxies {
    client: Client,
    list: ProxyList,
    netrc: Netrc,
}

/// Why a file of a proxy isn't there.
#[derive(Debug, Clone)]
enum Failure {
    NotFound,
    Other(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotFound => "not found",
            Self::Other(why) => why,
        })
    }
}

impl std::error::Error for Failure {}

impl Fetcher {
    /// A fetcher; to be made inside a tokio runtime.
    #[must_use]
    pub fn new(options: Options) -> Self {
        let proxies = Proxies {
            client: options.client.clone(),
            list: options.proxies.clone(),
            netrc: options.netrc.clone(),
        };
        let cache = options.cache.root().join("cache/download/sumdb");
        let database = options
            .sum_db
            .clone()
            .map(|db| Database::new(db, proxies.clone(), options.sum_db_state.clone(), cache));
        let cores = std::thread::available_parallelism().map_or(4, usize::from);
        Self { inner: Arc::new(Inner { options, proxies, database, busy: Semaphore::new(cores) }) }
    }

    /// Whether only the go command can fetch this module.
    #[must_use]
    pub fn needs_go(&self, path: &str) -> bool {
        match_prefix_patterns(&self.inner.options.no_proxy, path) || !self.inner.options.proxies.has_proxy()
    }

    /// Fetches modules; the answers are in the same order. `progress` is told of each that was downloaded.
    pub async fn fetch(
        &self,
        wanted: Vec<Wanted>,
        progress: &(dyn Fn(&Version) + Sync),
    ) -> Vec<Result<Fetched, Error>> {
        stream::iter(wanted)
            .map(async |wanted| {
                let module = wanted.module.clone();
                let fetched = Arc::clone(&self.inner).fetch(wanted).await;
                if fetched.as_ref().is_ok_and(|fetched| fetched.bytes > 0) {
                    progress(&module);
                }
                fetched
            })
            .buffered(self.inner.options.at_once.max(1))
            .collect()
            .await
    }
}

impl Inner {
    async fn fetch(self: Arc<Self>, wanted: Wanted) -> Result<Fetched, Error> {
        let Wanted { module, zip_sums, mod_sums } = wanted;
        let name = format!("{}@{}", module.path, module.version);
        module::check(&module.path, &module.version)?;
        let cache = &self.options.cache;
        for sum in &zip_sums {
            if cache.is_unpacked(&module, sum) && cache.contains(&module) {
                let go_mod = cache.go_mod_sum(&module)?;
                if mod_sums.is_empty() || mod_sums.contains(&go_mod) {
                    let sums = Sums { zip: sum.clone(), go_mod };
                    return Ok(Fetched { sums, verified: Verified::Known, bytes: 0 });
                }
            }
        }
        let lock = {
            let (cache, module) = (cache.clone(), module.clone());
            blocking(&name, move || cache.lock(&module)).await??
        };
        // Another process may have brought it meanwhile.
        let (files, bytes) = match cache.contains(&module) {
            true => (None, 0),
            false => {
                let (files, bytes) = self.download(&module, &name).await?;
                (Some(files), bytes)
            }
        };
        let _turn = self.busy.acquire().await.map_err(|_| Error::Stopped { module: name.clone() })?;
        let inner = Arc::clone(&self);
        let label = name.clone();
        let keep = move || {
            let cache = &inner.options.cache;
            let mut verified = Verified::Known;
            let mut verify = |sums: &Sums| -> Result<(), Error> {
                verified = inner.verify(&module, &name, sums, &zip_sums, &mod_sums)?;
                Ok(())
            };
            let sums = match files {
                Some(Files { info, go_mod, zip }) => {
                    cache.keep(&lock, &module, &info, &go_mod, zip, &mut verify)?
                }
                None => {
                    let sums = cache.sums(&module)?;
                    verify(&sums)?;
                    sums
                }
            };
            cache.unpack(&lock, &module, inner.options.writable)?;
            Ok(Fetched { sums, verified, bytes })
        };
        blocking(&label, keep).await?
    }

    fn verify(
        &self,
        module: &Version,
        name: &str,
        sums: &Sums,
        zip_sums: &[String],
        mod_sums: &[String],
    ) -> Result<Verified, Error> {
        let mut verified = Verified::Known;
        let in_mod = format!("{}/go.mod", module.version);
        let checks = [
            ("zip", &sums.zip, zip_sums, module.version.as_str()),
            ("go.mod", &sums.go_mod, mod_sums, in_mod.as_str()),
        ];
        for (file, found, known, version) in checks {
            let known = if !known.is_empty() {
                known.to_vec()
            } else if let Some(database) = self.database_for(&module.path) {
                verified = Verified::Database;
                let lines = database.sums(&module.path, version);
                lines.map_err(|source| Error::Database { module: name.to_owned(), source })?
            } else {
                verified = Verified::Nothing;
                continue;
            };
            if !known.contains(found) {
                let (module, found, expected) = (name.to_owned(), found.clone(), known.join(" or "));
                return Err(Error::Mismatch { module, file, found, expected });
            }
        }
        Ok(verified)
    }

    fn database_for(&self, path: &str) -> Option<&Database> {
        self.database.as_ref().filter(|_| !match_prefix_patterns(&self.options.no_sum_db, path))
    }

    async fn download(&self, module: &Version, name: &str) -> Result<(Files, u64), Error> {
        if match_prefix_patterns(&self.options.no_proxy, &module.path) {
            return Err(Error::NeedsGo { module: name.to_owned() });
        }
        let folder = format!("{}/@v", escape_path(&module.path)?);
        let version = escape_version(&module.version)?;
        let file = |suffix: &str| format!("{folder}/{version}.{suffix}");
        let mut last: Option<(String, Failure)> = None;
        for entry in &self.options.proxies.0 {
            let proxy = match &entry.source {
                Source::Proxy(proxy) => proxy,
                Source::Direct => return Err(Error::NeedsGo { module: name.to_owned() }),
                Source::Off if last.is_none() => return Err(Error::Off { module: name.to_owned() }),
                Source::Off => break,
            };
            let zip_file = self.options.cache.new_file(module, Part::Zip)?;
            let (info, go_mod, zip) = (file("info"), file("mod"), file("zip"));
            let all = async {
                tokio::try_join!(
                    self.proxies.read(proxy, &info),
                    self.proxies.read(proxy, &go_mod),
                    self.proxies.save(proxy, &zip, zip_file),
                )
            };
            match all.await {
                Ok((info, go_mod, (zip, size))) => {
                    let bytes = size + (info.len() + go_mod.len()) as u64;
                    let text = |bytes: Vec<u8>| {
                        String::from_utf8(bytes).map_err(|_| Error::Download {
                            module: name.to_owned(),
                            host: host(proxy),
                            why: "its answer is no text".to_owned(),
                        })
                    };
                    return Ok((Files { info: text(info)?, go_mod: text(go_mod)?, zip }, bytes));
                }
                Err(failure) => {
                    let next = matches!(failure, Failure::NotFound) || entry.after_any_error;
                    last = Some((host(proxy), failure));
                    if !next {
                        break;
                    }
                }
            }
        }
        let (host, failure) =
            last.unwrap_or_else(|| ("GOPROXY".to_owned(), Failure::Other("no proxy was asked".to_owned())));
        Err(Error::Download { module: name.to_owned(), host, why: failure.to_string() })
    }
}

/// What a proxy has of a version.
struct Files {
    info: String,
    go_mod: String,
    zip: NamedTempFile,
}

impl Proxies {
    /// A small file.
    async fn read(&self, proxy: &Url, path: &str) -> Result<Vec<u8>, Failure> {
        let mut content = Vec::new();
        let mut take = |chunk: Option<&[u8]>| {
            match chunk {
                None => content.clear(),
                Some(chunk) => content.extend_from_slice(chunk),
            }
            Ok(())
        };
        self.get(proxy, path, &mut take).await?;
        Ok(content)
    }

    /// A large file, never in memory as a whole.
    async fn save(
        &self,
        proxy: &Url,
        path: &str,
        mut to: NamedTempFile,
    ) -> Result<(NamedTempFile, u64), Failure> {
        let file = to.as_file_mut();
        let mut size = 0;
        let mut take = |chunk: Option<&[u8]>| match chunk {
            None => {
                size = 0;
                file.set_len(0).and_then(|()| std::io::Seek::rewind(file))
            }
            Some(chunk) => {
                size += chunk.len() as u64;
                file.write_all(chunk)
            }
        };
        self.get(proxy, path, &mut take).await?;
        Ok((to, size))
    }

    /// Gives a file on in pieces; `None` is the beginning, of the first try and of every other.
    async fn get(
        &self,
        proxy: &Url,
        path: &str,
        take: &mut (dyn FnMut(Option<&[u8]>) -> std::io::Result<()> + Send),
    ) -> Result<(), Failure> {
        let other = |why: &dyn fmt::Display| Failure::Other(why.to_string());
        if proxy.scheme() == "file" {
            let folder = proxy.to_file_path().map_err(|()| other(&"no path of this machine"))?;
            let content = match tokio::fs::read(folder.join(path)).await {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(Failure::NotFound),
                content => content.map_err(|error| other(&error))?,
            };
            return take(None).and_then(|()| take(Some(&content))).map_err(|error| other(&error));
        }
        let url = Url::parse(&format!("{}/{path}", proxy.as_str().trim_end_matches('/')))
            .map_err(|error| other(&error))?;
        let mut tries = 0;
        loop {
            tries += 1;
            take(None).map_err(|error| other(&error))?;
            match self.once(&url, take).await {
                Err((failure, true)) if tries < TRIES => {
                    tracing::debug!("{}: {failure}", host(proxy));
                    tokio::time::sleep(Duration::from_millis(200) * tries * tries).await;
                }
                Err((failure, _)) => return Err(failure),
                Ok(()) => return Ok(()),
            }
        }
    }

    /// One request; whether another one could help comes with the failure.
    async fn once(
        &self,
        url: &Url,
        take: &mut (dyn FnMut(Option<&[u8]>) -> std::io::Result<()> + Send),
    ) -> Result<(), (Failure, bool)> {
        // reqwest's own words name the URL, which may hold a password.
        let passing = |error: reqwest::Error| (Failure::Other(cause(&error)), true);
        let mut plain = url.clone();
        let mut request = {
            let (_, _) = (plain.set_username(""), plain.set_password(None));
            self.client.get(plain)
        };
        if !url.username().is_empty() || url.password().is_some() {
            let decoded =
                |text: &str| percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
            request = request.basic_auth(decoded(url.username()), url.password().map(decoded));
        } else if let Some((login, password)) = url.host_str().and_then(|host| self.netrc.get(host)) {
            request = request.basic_auth(login, Some(password.expose_secret()));
        }
        let mut response = request.send().await.map_err(passing)?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND | StatusCode::GONE => return Err((Failure::NotFound, false)),
            status => {
                let again = status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS;
                return Err((Failure::Other(status.to_string()), again));
            }
        }
        let mut size = 0;
        while let Some(chunk) = response.chunk().await.map_err(passing)? {
            size += chunk.len() as u64;
            if size > LARGEST {
                return Err((Failure::Other(format!("it sends more than {LARGEST} bytes")), false));
            }
            take(Some(&chunk)).map_err(|error| (Failure::Other(error.to_string()), false))?;
        }
        Ok(())
    }
}

/// The innermost cause.
fn cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    if cause.source().is_none()
        && error.url().is_some()
        && std::ptr::eq(cause, error as &dyn std::error::Error)
    {
        return "it can't be reached".to_owned();
    }
    cause.to_string()
}

fn host(proxy: &Url) -> String {
    match (proxy.host_str(), proxy.port()) {
        (Some(host), Some(port)) => format!("{host}:{port}"),
        (Some(host), None) => host.to_owned(),
        (None, _) => proxy.path().to_owned(),
    }
}

async fn blocking<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(|_| Error::Stopped { module: name.to_owned() })
}
