//! Downloading modules from module proxies into GOMODCACHE, as the go command would leave them
//! (<https://go.dev/ref/mod#goproxy-protocol>, <https://go.dev/ref/mod#module-cache>): verified before anything is visible,
//! many at once.

mod database;
mod goproxy;
mod netrc;
mod probe;
mod versions;

use std::{
    collections::HashSet,
    fmt,
    io::{self, Write as _},
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::future::join_all;
use reqwest::{Client, Response, StatusCode, header::RETRY_AFTER, redirect::Policy};
use secrecy::ExposeSecret;
use tempfile::NamedTempFile;
use tokio::{io::AsyncReadExt as _, sync::Semaphore};
use url::Url;

use self::{database::Database, goproxy::Source};
pub use self::{
    database::{SumDb, SumDbError},
    goproxy::{ProxyList, ProxyListError},
    netrc::Netrc,
    probe::{Probe, probe_proxies, probe_sum_db},
};
use crate::{
    gosum::GoSum,
    modcache::{self, ModCache, Part, Sums},
    module::{self, Version, escape_path, escape_version, match_prefix_patterns},
    modzip::{MAX_GO_MOD, MAX_ZIP_FILE},
    toolchain,
};

/// Everything but a zip is kept in memory: a go.mod may have this size, nothing else comes near.
const LARGEST_IN_MEMORY: u64 = MAX_GO_MOD;
/// How often a download is begun that breaks off, or meets a server in trouble.
const TRIES: u32 = 3;
/// A proxy that wants to be left alone for longer is one in trouble.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// How much of an answer's words on an error is shown.
const SHOWN: usize = 200;

/// How modules are downloaded.
#[derive(Debug, Clone)]
pub struct Options {
    /// Follows [`redirects`], and knows the proxies and certificates of this machine.
    pub client: Client,
    /// GOMODCACHE.
    pub cache: ModCache,
    /// GOPROXY.
    pub proxies: ProxyList,
    /// GONOPROXY: the modules that only the go command may fetch.
    pub no_proxy: String,
    /// GOSUMDB; `None`: off.
    pub sum_db: Option<SumDb>,
    /// GONOSUMDB: the modules that the database isn't asked about; it is about toolchains all the same.
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

impl Wanted {
    /// A module that is verified by what a go.sum says of it, where that says anything.
    #[must_use]
    pub fn verified_by(sums: &GoSum, module: Version) -> Self {
        let all = |version: &str| sums.get(&module.path, version).map(str::to_owned).collect();
        let (zip_sums, mod_sums) = (all(&module.version), all(&format!("{}/go.mod", module.version)));
        Self { module, zip_sums, mod_sums }
    }
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

/// What vouches for a module, the best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
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
        /// The proxies that were asked before, and couldn't serve it.
        tried: Vec<Tried>,
    },
    /// GOPROXY ends with `off`.
    #[error("{module}: GOPROXY forbids to download it")]
    Off {
        /// `path@version`.
        module: String,
    },
    /// No proxy has it.
    #[error("{module}: {}", tried.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Download {
        /// `path@version`.
        module: String,
        /// The proxies that were asked, in their order.
        tried: Vec<Tried>,
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
    /// The zip is none of this module.
    #[error("{source} (from {host})")]
    Refused {
        /// `path@version`.
        module: String,
        /// The proxy that sent it.
        host: String,
        /// What is wrong with it.
        source: Box<modcache::Error>,
    },
    /// GOMODCACHE can't be used, or has another module of this name.
    #[error(transparent)]
    Cache(#[from] modcache::Error),
    /// A task ended early.
    #[error("{module}: the download was given up")]
    Stopped {
        /// `path@version`.
        module: String,
    },
}

/// A proxy that couldn't serve a module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tried {
    /// Its host, with the port where there is one; of a `file://` proxy its folder. Never a password.
    pub host: String,
    /// What it said.
    pub why: String,
}

impl fmt::Display for Tried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.host, self.why)
    }
}

/// The redirects that a [`Fetcher`]'s client may follow: ten, and as the go command has it none from HTTPS to plain HTTP.
#[must_use]
pub fn redirects() -> Policy {
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
#[derive(Clone)]
pub struct Fetcher {
    inner: Arc<Inner>,
}

struct Inner {
    options: Options,
    proxies: Proxies,
    database: Option<Database>,
    /// As many as may download at once.
    slots: Semaphore,
    /// Hashing and unpacking keep a core busy: more at once only take memory.
    busy: Semaphore,
    trusted: AtomicU64,
}

/// The proxies, and how to ask them.
#[derive(Clone)]
struct Proxies {
    client: Client,
    list: ProxyList,
    netrc: Netrc,
    /// The hosts that were asked in vain as often as is sensible: they get one try for each file from then on, so that
    /// hundreds of modules don't wait for a proxy that has died.
    in_trouble: Arc<Mutex<HashSet<String>>>,
}

/// Why a file of a proxy isn't there.
#[derive(Debug)]
enum Failure {
    /// The next proxy may have it. With the proxy's words, if it has some.
    NotFound(String),
    Other(String),
    /// Not the proxy's fault: the file can't be kept.
    Local(io::Error),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound(words) if words.is_empty() => f.write_str("not found"),
            Self::NotFound(words) | Self::Other(words) => f.write_str(words),
            Self::Local(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Failure {}

impl Fetcher {
    /// A fetcher; to be made inside a tokio runtime.
    #[must_use]
    pub fn new(options: Options) -> Self {
        let proxies = Proxies::new(&options.client, &options.proxies, &options.netrc);
        let cache = options.cache.root().join("cache/download/sumdb");
        let database = options
            .sum_db
            .clone()
            .map(|db| Database::new(db, proxies.clone(), options.sum_db_state.clone(), cache));
        let cores = std::thread::available_parallelism().map_or(4, usize::from);
        let (slots, busy) = (Semaphore::new(options.at_once.max(1)), Semaphore::new(cores));
        Self {
            inner: Arc::new(Inner { options, proxies, database, slots, busy, trusted: AtomicU64::new(0) }),
        }
    }

    /// Of how many modules nothing vouched for the sums so far, those among them that were in the cache.
    #[must_use]
    pub fn trusted(&self) -> u64 {
        self.inner.trusted.load(Ordering::Relaxed)
    }

    /// Whether only the go command can fetch this module.
    #[must_use]
    pub fn needs_go(&self, path: &str) -> bool {
        match_prefix_patterns(&self.inner.options.no_proxy, path) || !self.inner.options.proxies.has_proxy()
    }

    /// Fetches modules; the answers are in the same order. `progress` is told of each that was downloaded,
    /// with its size in bytes.
    pub async fn fetch(
        &self,
        wanted: Vec<Wanted>,
        progress: &(dyn Fn(&Version, u64) + Sync),
    ) -> Vec<Result<Fetched, Error>> {
        let all = wanted.into_iter().map(async |wanted| {
            let module = wanted.module.clone();
            let fetched = self.fetch_one(wanted).await;
            if let Ok(Fetched { bytes: bytes @ 1.., .. }) = &fetched {
                progress(&module, *bytes);
            }
            fetched
        });
        join_all(all).await
    }

    /// Fetches a module.
    ///
    /// # Errors
    /// No proxy has it, nothing vouches for it, or it can't be kept.
    pub async fn fetch_one(&self, wanted: Wanted) -> Result<Fetched, Error> {
        Arc::clone(&self.inner).fetch(wanted).await
    }

    /// Fetches the go.mod of modules, and nothing else of them: what version selection reads. One that can't be had is
    /// left to whoever needs it.
    pub async fn fetch_go_mods(&self, wanted: Vec<Wanted>) {
        let all = wanted.into_iter().map(async |wanted| {
            let name = format!("{}@{}", wanted.module.path, wanted.module.version);
            if let Err(error) = Arc::clone(&self.inner).fetch_go_mod(wanted).await {
                tracing::debug!("{name}: its go.mod: {error}");
            }
        });
        join_all(all).await;
    }
}

impl Fetcher {
    /// Fetches a toolchain's module and makes it ready to run; `known` are the sums that it may have. The answer has
    /// downloaded nothing where another process did it meanwhile.
    ///
    /// As for the go command, GONOSUMDB spares no toolchain; with GOSUMDB=off, where that one refuses them, the first use
    /// is trusted.
    ///
    /// # Errors
    /// A toolchain that no proxy has, that isn't what its sum says, or that the cache can't keep.
    pub async fn toolchain(
        &self,
        toolchain: &Version,
        known: Vec<String>,
    ) -> Result<(toolchain::Ready, Verified, u64), Error> {
        Arc::clone(&self.inner).toolchain(toolchain.clone(), known).await
    }

    /// A version's go.mod as a proxy has it: nothing has verified it, so it is good for a guess only.
    ///
    /// # Errors
    /// No proxy has it.
    pub async fn unverified_go_mod(&self, module: &Version) -> Result<String, Error> {
        let name = format!("{}@{}", module.path, module.version);
        let go_mod = place(module, "mod")?;
        let ask = async |proxy: &Url| Ok(self.inner.proxies.read(proxy, &go_mod).await.and_then(text));
        Ok(self.inner.ask_in_turn(&module.path, &name, ask).await?.0)
    }
}

impl Inner {
    async fn toolchain(
        self: Arc<Self>,
        module: Version,
        known: Vec<String>,
    ) -> Result<(toolchain::Ready, Verified, u64), Error> {
        let name = format!("{}@{}", module.path, module.version);
        module::check(&module.path, &module.version)?;
        let lock = self.lock(&module, &name).await?;
        self.options.cache.clear_unfinished(&lock, &module);
        let has = |part| self.options.cache.path(&module, part).is_ok_and(|path| path.is_file());
        let downloaded = if has(Part::Zip) && has(Part::ZipHash) {
            None
        } else {
            let zip = place(&module, "zip")?;
            let ask = async |proxy: &Url| {
                let to = self.options.cache.new_file(&module, Part::Zip)?;
                match self.proxies.save(proxy, &zip, to).await {
                    Err(Failure::Local(source)) => {
                        let path = self.options.cache.path(&module, Part::Zip)?;
                        Err(modcache::Error::File { path, source }.into())
                    }
                    saved => Ok(saved),
                }
            };
            let ((zip, bytes), proxy) = self.ask_in_turn(&module.path, &name, ask).await?;
            Some((zip, bytes, host(proxy)))
        };
        let inner = Arc::clone(&self);
        let label = name.clone();
        let keep = move || {
            let cache = &inner.options.cache;
            let mut verified = Verified::Known;
            let mut verify = |sum: &str| -> Result<(), Error> {
                verified = inner.verify_toolchain(&module, &name, sum, &known)?;
                Ok(())
            };
            let (sum, bytes) = match downloaded {
                Some((zip, bytes, host)) => {
                    let kept = cache.keep_zip(&lock, &module, zip, &mut verify);
                    (kept.map_err(|error| refused(error, &name, host))?, bytes)
                }
                None => {
                    let path = cache.path(&module, Part::ZipHash)?;
                    let sum = std::fs::read_to_string(&path)
                        .map_err(|source| modcache::Error::File { path, source })?
                        .trim()
                        .to_owned();
                    verify(&sum)?;
                    (sum, 0)
                }
            };
            let root = cache.unpack(&lock, &module, inner.options.writable)?;
            toolchain::make_ready(&root)?;
            Ok((toolchain::Ready { root, sum }, verified, bytes))
        };
        blocking(&label, keep).await?
    }

    fn verify_toolchain(
        &self,
        module: &Version,
        name: &str,
        sum: &str,
        known: &[String],
    ) -> Result<Verified, Error> {
        if known.is_empty() && self.options.proxies.is_one_directory() {
            return Ok(Verified::Nothing);
        }
        self.compare(module, name, "zip", &module.version, sum, known)
    }

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
        // Before the lock: a lock that waits is an open file.
        let _slot = self.slots.acquire().await.map_err(|_| Error::Stopped { module: name.clone() })?;
        let lock = self.lock(&module, &name).await?;
        // Another process may have brought it meanwhile; one that is gone may have left half a zip.
        cache.clear_unfinished(&lock, &module);
        let (files, bytes) = if cache.contains(&module) {
            (None, 0)
        } else {
            let (files, bytes) = self.download(&module, &name).await?;
            (Some(files), bytes)
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
                Some(Files { host, info, rest: Some((go_mod, zip)) }) => cache
                    .keep(&lock, &module, info.as_deref(), &go_mod, zip, &mut verify)
                    .map_err(|error| refused(error, &name, host))?,
                Some(Files { info, rest: None, .. }) => {
                    let sums = cache.sums(&module)?;
                    verify(&sums)?;
                    if let Some(info) = info {
                        cache.complete(&lock, &module, &info)?;
                    }
                    sums
                }
                None => {
                    let sums = cache.sums(&module)?;
                    verify(&sums)?;
                    sums
                }
            };
            cache.unpack(&lock, &module, inner.options.writable)?;
            if verified == Verified::Nothing {
                inner.trusted.fetch_add(1, Ordering::Relaxed);
            }
            Ok(Fetched { sums, verified, bytes })
        };
        blocking(&label, keep).await?
    }

    async fn fetch_go_mod(self: Arc<Self>, wanted: Wanted) -> Result<(), Error> {
        let Wanted { module, mod_sums, .. } = wanted;
        let name = format!("{}@{}", module.path, module.version);
        module::check(&module.path, &module.version)?;
        let _slot = self.slots.acquire().await.map_err(|_| Error::Stopped { module: name.clone() })?;
        let file = place(&module, "mod")?;
        let read = async |proxy: &Url| Ok(self.proxies.read(proxy, &file).await.and_then(text));
        let (go_mod, _) = self.ask_in_turn(&module.path, &name, read).await?;
        let inner = Arc::clone(&self);
        let label = name.clone();
        let keep = move || {
            let sum = crate::dirhash::hash_go_mod(go_mod.as_bytes());
            inner.verify_go_mod(&module, &name, &sum, &mod_sums)?;
            Ok(inner.options.cache.keep_go_mod(&module, &go_mod)?)
        };
        blocking(&label, keep).await?
    }

    /// Waits for the lock of a version, which another process may hold for long.
    async fn lock(&self, module: &Version, name: &str) -> Result<modcache::Lock, Error> {
        let (cache, module) = (self.options.cache.clone(), module.clone());
        Ok(blocking(name, move || cache.lock(&module)).await??)
    }

    fn verify(
        &self,
        module: &Version,
        name: &str,
        sums: &Sums,
        zip_sums: &[String],
        mod_sums: &[String],
    ) -> Result<Verified, Error> {
        let zip = self.compare(module, name, "zip", &module.version, &sums.zip, zip_sums)?;
        let go_mod = self.verify_go_mod(module, name, &sums.go_mod, mod_sums)?;
        Ok(zip.max(go_mod))
    }

    fn verify_go_mod(
        &self,
        module: &Version,
        name: &str,
        sum: &str,
        known: &[String],
    ) -> Result<Verified, Error> {
        self.compare(module, name, "go.mod", &format!("{}/go.mod", module.version), sum, known)
    }

    /// Compares a sum with those that are known, or else with the database's line for `version`.
    fn compare(
        &self,
        module: &Version,
        name: &str,
        file: &'static str,
        version: &str,
        found: &str,
        known: &[String],
    ) -> Result<Verified, Error> {
        let (known, verified) = if !known.is_empty() {
            (known.to_vec(), Verified::Known)
        } else if let Some(database) = self.database_for(&module.path) {
            let failed = |source| Error::Database { module: name.to_owned(), source };
            let lines = database.sums(&module.path, version).map_err(failed)?;
            if lines.is_empty() {
                let path = format!("{}@{version}", module.path);
                let cause = "it has no sum of that".into();
                return Err(failed(crate::sumdb::Error::Outside { path, cause }));
            }
            (lines, Verified::Database)
        } else {
            return Ok(Verified::Nothing);
        };
        if known.iter().any(|known| known == found) {
            return Ok(verified);
        }
        let (module, found, expected) = (name.to_owned(), found.to_owned(), known.join(" or "));
        Err(Error::Mismatch { module, file, found, expected })
    }

    /// A toolchain is never a private module, whatever the patterns cover.
    fn database_for(&self, path: &str) -> Option<&Database> {
        let spared = path != toolchain::MODULE && match_prefix_patterns(&self.options.no_sum_db, path);
        self.database.as_ref().filter(|_| !spared)
    }

    async fn download(&self, module: &Version, name: &str) -> Result<(Files, u64), Error> {
        let from = async |proxy: &Url| self.download_from(proxy, module).await;
        let ((mut files, bytes), proxy) = self.ask_in_turn(&module.path, name, from).await?;
        if files.info.is_none() {
            files.info = self.information_of_others(proxy, module).await;
        }
        Ok((files, bytes))
    }

    /// Asks the proxies one after the other, as GOPROXY says; which one answered comes with the answer. An outer error of
    /// `ask` is one that no other proxy can help with.
    async fn ask_in_turn<T>(
        &self,
        path: &str,
        name: &str,
        ask: impl AsyncFn(&Url) -> Result<Result<T, Failure>, Error>,
    ) -> Result<(T, &Url), Error> {
        let module_name = || name.to_owned();
        if match_prefix_patterns(&self.options.no_proxy, path) {
            return Err(Error::NeedsGo { module: module_name(), tried: Vec::new() });
        }
        let mut tried = Vec::new();
        for entry in &self.options.proxies.0 {
            let proxy = match &entry.source {
                Source::Proxy(proxy) => proxy,
                // No version control has toolchains: what the proxies said is the answer.
                Source::Direct if !tried.is_empty() && path == toolchain::MODULE => break,
                Source::Direct => return Err(Error::NeedsGo { module: module_name(), tried }),
                Source::Off if tried.is_empty() => return Err(Error::Off { module: module_name() }),
                Source::Off => break,
            };
            match ask(proxy).await? {
                Ok(answer) => return Ok((answer, proxy)),
                Err(failure) => {
                    let next = matches!(failure, Failure::NotFound(_)) || entry.after_any_error;
                    tried.push(Tried { host: host(proxy), why: failure.to_string() });
                    if !next {
                        break;
                    }
                }
            }
        }
        Err(Error::Download { module: module_name(), tried })
    }

    /// The outer error is one that no other proxy can help with.
    async fn download_from(
        &self,
        proxy: &Url,
        module: &Version,
    ) -> Result<Result<(Files, u64), Failure>, Error> {
        let (go_mod, zip) = (place(module, "mod")?, place(module, "zip")?);
        let cache = &self.options.cache;
        let read = async {
            // The go command fetches no information where it needs none.
            if cache.lacks_only_information(module) {
                let info = self.information(proxy, module).await?;
                let bytes = info.as_ref().map_or(0, String::len) as u64;
                return Ok((Files { host: host(proxy), info, rest: None }, bytes));
            }
            let to =
                cache.new_file(module, Part::Zip).map_err(|error| Failure::Local(io::Error::other(error)))?;
            let (info, go_mod, (zip, size)) = tokio::try_join!(
                self.information(proxy, module),
                self.proxies.read(proxy, &go_mod),
                self.proxies.save(proxy, &zip, to),
            )?;
            let bytes = size + (info.as_ref().map_or(0, String::len) + go_mod.len()) as u64;
            Ok((Files { host: host(proxy), info, rest: Some((text(go_mod)?, zip)) }, bytes))
        };
        match read.await {
            Err(Failure::Local(source)) => {
                Err(modcache::Error::File { path: cache.path(module, Part::Zip)?, source }.into())
            }
            answer => Ok(answer),
        }
    }
}

impl Inner {
    /// `None` where this proxy has none.
    async fn information(&self, proxy: &Url, module: &Version) -> Result<Option<String>, Failure> {
        let wrong = |why: &dyn fmt::Display| Failure::Other(why.to_string());
        let path = place(module, "info").map_err(|error| wrong(&error))?;
        match self.proxies.read(proxy, &path).await {
            Err(Failure::NotFound(_)) => Ok(None),
            Err(failure) => Err(failure),
            Ok(bytes) => {
                let info = text(bytes)?;
                modcache::check_info(module, &info)
                    .map_err(|_| wrong(&"its .info is no JSON with this version"))?;
                Ok(Some(info))
            }
        }
    }

    /// What the proxies behind this one know of a version: its time goes into the stamp of a server.
    async fn information_of_others(&self, last: &Url, module: &Version) -> Option<String> {
        let proxies = self.options.proxies.0.iter().filter_map(|entry| match &entry.source {
            Source::Proxy(proxy) => Some(proxy),
            Source::Direct | Source::Off => None,
        });
        for proxy in proxies.skip_while(|proxy| *proxy != last).skip(1) {
            if let Ok(Some(info)) = self.information(proxy, module).await {
                return Some(info);
            }
        }
        None
    }
}

/// Where a proxy has a version's file.
fn place(module: &Version, suffix: &str) -> Result<String, module::Error> {
    Ok(format!("{}/@v/{}.{suffix}", escape_path(&module.path)?, escape_version(&module.version)?))
}

fn text(bytes: Vec<u8>) -> Result<String, Failure> {
    String::from_utf8(bytes).map_err(|_| Failure::Other("its answer is no text".to_owned()))
}

/// Names the proxy whose zip is at fault.
fn refused(error: Error, module: &str, host: String) -> Error {
    match error {
        Error::Cache(source @ (modcache::Error::Zip { .. } | modcache::Error::Sum(_))) => {
            Error::Refused { module: module.to_owned(), host, source: Box::new(source) }
        }
        error => error,
    }
}

/// What a proxy has of a version: without the rest where the cache has that.
struct Files {
    host: String,
    /// Some proxies have none: those made of what a build left.
    info: Option<String>,
    rest: Option<(String, NamedTempFile)>,
}

/// Takes a file in pieces; `None` is its beginning, of the first try and of every other.
type Take<'a> = &'a mut (dyn FnMut(Option<&[u8]>) -> io::Result<()> + Send);

impl Proxies {
    fn new(client: &Client, list: &ProxyList, netrc: &Netrc) -> Self {
        Self { client: client.clone(), list: list.clone(), netrc: netrc.clone(), in_trouble: Arc::default() }
    }

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
        self.get(proxy, path, LARGEST_IN_MEMORY, &mut take).await?;
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
                file.set_len(0).and_then(|()| io::Seek::rewind(file))
            }
            Some(chunk) => {
                size += chunk.len() as u64;
                file.write_all(chunk)
            }
        };
        self.get(proxy, path, MAX_ZIP_FILE, &mut take).await?;
        Ok((to, size))
    }

    async fn get(&self, proxy: &Url, path: &str, largest: u64, take: Take<'_>) -> Result<(), Failure> {
        if proxy.scheme() == "file" {
            return from_folder(proxy, path, largest, take).await;
        }
        let url = Url::parse(&format!("{}/{path}", proxy.as_str().trim_end_matches('/')))
            .map_err(|error| Failure::Other(error.to_string()))?;
        let host = host(proxy);
        let most = if self.in_trouble().contains(&host) { 1 } else { TRIES };
        let mut tries = 0;
        loop {
            tries += 1;
            take(None).map_err(Failure::Local)?;
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
        take: Take<'_>,
    ) -> Result<(), (Failure, Option<Option<Duration>>)> {
        // reqwest's own words name the URL, which may hold a password.
        let passing = |error: reqwest::Error| {
            let again = (!error.is_redirect()).then_some(None);
            (Failure::Other(cause(&error)), again)
        };
        let never = |why: String| (Failure::Other(why), None);
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
        } else if let Some((login, password)) = self.netrc.get(&host(url)).filter(|_| url.scheme() == "https")
        {
            request = request.basic_auth(login, Some(password.expose_secret()));
        }
        let mut response = request.send().await.map_err(passing)?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND | StatusCode::GONE => {
                let status = response.status().to_string();
                return Err((Failure::NotFound(words(response, &status).await), None));
            }
            status => {
                let busy = status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error();
                let wait = retry_after(&response);
                let again = (busy && wait.is_none_or(|wait| wait <= LONGEST_WAIT)).then_some(wait);
                let mut why = words(response, &status.to_string()).await;
                if let Some(wait) = wait.filter(|wait| *wait > LONGEST_WAIT) {
                    why = format!("{why} (it can be asked again in {} s)", wait.as_secs());
                }
                return Err((Failure::Other(why), again));
            }
        }
        let mut size = 0;
        while let Some(chunk) = response.chunk().await.map_err(passing)? {
            size += chunk.len() as u64;
            if size > largest {
                return Err(never(format!("it sends more than the {largest} bytes that this file may have")));
            }
            take(Some(&chunk)).map_err(|error| (Failure::Local(error), None))?;
        }
        Ok(())
    }

    fn in_trouble(&self) -> std::sync::MutexGuard<'_, HashSet<String>> {
        self.in_trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A `file://` proxy.
async fn from_folder(proxy: &Url, path: &str, largest: u64, take: Take<'_>) -> Result<(), Failure> {
    let other = |error: io::Error| Failure::Other(error.to_string());
    let folder =
        proxy.to_file_path().map_err(|()| Failure::Other("it is no path of this machine".to_owned()))?;
    let mut file = match tokio::fs::File::open(folder.join(path)).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(Failure::NotFound(String::new()));
        }
        file => file.map_err(other)?,
    };
    take(None).map_err(Failure::Local)?;
    let mut size = 0;
    let mut buffer = vec![0; 128 << 10];
    loop {
        let count = file.read(&mut buffer).await.map_err(other)?;
        size += count as u64;
        if size > largest {
            return Err(Failure::Other(format!(
                "it has more than the {largest} bytes that this file may have"
            )));
        }
        match buffer.get(..count) {
            Some([]) | None => return Ok(()),
            Some(chunk) => take(Some(chunk)).map_err(Failure::Local)?,
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
