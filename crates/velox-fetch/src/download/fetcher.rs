use std::{
    fmt, io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use futures::future::join_all;
use tempfile::NamedTempFile;
use tokio::sync::Semaphore;
use url::Url;
use velox_gomod::{
    dirhash,
    module::{self, ModuleVersion, match_prefix_patterns},
};

use super::{DownloadError, DownloadOptions, DownloadRequest, DownloadedModule, ProxyAttempt, Verification};
use crate::{
    modcache::{self, CacheFile, ModCacheError, ModCacheLock, ModuleSums},
    proxy::{ProxyClient, ProxyError, ProxySource, module_file, proxy_host, text},
    sumdb::{ChecksumDatabase, SumDbError},
    toolchain::{self, InstalledToolchain},
};

/// Downloads modules; clones share what they know.
#[derive(Clone)]
pub struct Fetcher {
    pub(super) inner: Arc<Downloader>,
}

pub(super) struct Downloader {
    options: DownloadOptions,
    pub(super) proxies: ProxyClient,
    database: Option<ChecksumDatabase>,
    /// As many as may download at once.
    slots: Semaphore,
    /// Hashing and unpacking keep a core busy: more at once only take memory.
    busy: Semaphore,
    trusted: AtomicU64,
}

impl Fetcher {
    /// A fetcher; to be made inside a tokio runtime.
    #[must_use]
    pub fn new(options: DownloadOptions) -> Self {
        let proxies = ProxyClient::new(&options.client, &options.proxies, &options.netrc);
        let cache = options.cache.root().join("cache/download/sumdb");
        let database = options
            .sum_db
            .clone()
            .map(|db| ChecksumDatabase::new(db, proxies.clone(), options.sum_db_state.clone(), cache));
        let cores = std::thread::available_parallelism().map_or(4, usize::from);
        let (slots, busy) = (Semaphore::new(options.at_once.max(1)), Semaphore::new(cores));
        Self {
            inner: Arc::new(Downloader {
                options,
                proxies,
                database,
                slots,
                busy,
                trusted: AtomicU64::new(0),
            }),
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
        wanted: Vec<DownloadRequest>,
        progress: &(dyn Fn(&ModuleVersion, u64) + Sync),
    ) -> Vec<Result<DownloadedModule, DownloadError>> {
        let all = wanted.into_iter().map(async |wanted| {
            let module = wanted.module.clone();
            let fetched = self.fetch_one(wanted).await;
            if let Ok(DownloadedModule { bytes: bytes @ 1.., .. }) = &fetched {
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
    pub async fn fetch_one(&self, wanted: DownloadRequest) -> Result<DownloadedModule, DownloadError> {
        Arc::clone(&self.inner).fetch(wanted).await
    }

    /// Fetches the go.mod of modules, and nothing else of them: what version selection reads. One that can't be had is
    /// left to whoever needs it.
    pub async fn fetch_go_mods(&self, wanted: Vec<DownloadRequest>) {
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
        toolchain: &ModuleVersion,
        known: Vec<String>,
    ) -> Result<(toolchain::InstalledToolchain, Verification, u64), DownloadError> {
        Arc::clone(&self.inner).toolchain(toolchain.clone(), known).await
    }

    /// A version's go.mod as a proxy has it: nothing has verified it, so it is good for a guess only.
    ///
    /// # Errors
    /// No proxy has it.
    pub async fn unverified_go_mod(&self, module: &ModuleVersion) -> Result<String, DownloadError> {
        let name = format!("{}@{}", module.path, module.version);
        let go_mod = module_file(module, "mod")?;
        let ask = async |proxy: &Url| Ok(self.inner.proxies.read(proxy, &go_mod).await.and_then(text));
        Ok(self.inner.ask_in_turn(&module.path, &name, ask).await?.0)
    }
}

impl Downloader {
    async fn toolchain(
        self: Arc<Self>,
        module: ModuleVersion,
        known: Vec<String>,
    ) -> Result<(toolchain::InstalledToolchain, Verification, u64), DownloadError> {
        let name = format!("{}@{}", module.path, module.version);
        module::check(&module.path, &module.version)?;
        let lock = self.lock(&module, &name).await?;
        self.options.cache.clear_unfinished(&lock, &module);
        let has = |part| self.options.cache.path(&module, part).is_ok_and(|path| path.is_file());
        let downloaded = if has(CacheFile::Zip) && has(CacheFile::ZipHash) {
            None
        } else {
            let zip = module_file(&module, "zip")?;
            let ask = async |proxy: &Url| {
                let to = self.options.cache.new_file(&module, CacheFile::Zip)?;
                match self.proxies.save(proxy, &zip, to).await {
                    Err(ProxyError::Local(source)) => {
                        let path = self.options.cache.path(&module, CacheFile::Zip)?;
                        Err(ModCacheError::File { path, source }.into())
                    }
                    saved => Ok(saved),
                }
            };
            let ((zip, bytes), proxy) = self.ask_in_turn(&module.path, &name, ask).await?;
            Some((zip, bytes, proxy_host(proxy)))
        };
        let inner = Arc::clone(&self);
        let label = name.clone();
        let keep = move || {
            let cache = &inner.options.cache;
            let mut verified = Verification::KnownSum;
            let mut verify = |sum: &str| -> Result<(), DownloadError> {
                verified = inner.verify_toolchain(&module, &name, sum, &known)?;
                Ok(())
            };
            let (sum, bytes) = match downloaded {
                Some((zip, bytes, host)) => {
                    let kept = cache.keep_zip(&lock, &module, zip, &mut verify);
                    (kept.map_err(|error| refused(error, &name, host))?, bytes)
                }
                None => {
                    let path = cache.path(&module, CacheFile::ZipHash)?;
                    let sum = std::fs::read_to_string(&path)
                        .map_err(|source| ModCacheError::File { path, source })?
                        .trim()
                        .to_owned();
                    verify(&sum)?;
                    (sum, 0)
                }
            };
            let root = cache.unpack(&lock, &module, inner.options.writable)?;
            toolchain::finish_install(&root)?;
            Ok((toolchain::InstalledToolchain { root, sum }, verified, bytes))
        };
        blocking(&label, keep).await?
    }

    fn verify_toolchain(
        &self,
        module: &ModuleVersion,
        name: &str,
        sum: &str,
        known: &[String],
    ) -> Result<Verification, DownloadError> {
        if known.is_empty() && self.options.proxies.is_one_directory() {
            return Ok(Verification::Unverified);
        }
        self.compare(module, name, "zip", &module.version, sum, known)
    }

    async fn fetch(self: Arc<Self>, wanted: DownloadRequest) -> Result<DownloadedModule, DownloadError> {
        let DownloadRequest { module, zip_sums, mod_sums } = wanted;
        let name = format!("{}@{}", module.path, module.version);
        module::check(&module.path, &module.version)?;
        let cache = &self.options.cache;
        for sum in &zip_sums {
            if cache.is_unpacked(&module, sum) && cache.contains(&module) {
                let go_mod = cache.go_mod_sum(&module)?;
                if mod_sums.is_empty() || mod_sums.contains(&go_mod) {
                    let sums = ModuleSums { zip: sum.clone(), go_mod };
                    return Ok(DownloadedModule { sums, verified: Verification::KnownSum, bytes: 0 });
                }
            }
        }
        // Before the lock: a lock that waits is an open file.
        let _slot =
            self.slots.acquire().await.map_err(|_| DownloadError::Stopped { module: name.clone() })?;
        let lock = self.lock(&module, &name).await?;
        // Another process may have brought it meanwhile; one that is gone may have left half a zip.
        cache.clear_unfinished(&lock, &module);
        let (files, bytes) = if cache.contains(&module) {
            (None, 0)
        } else {
            let (files, bytes) = self.download(&module, &name).await?;
            (Some(files), bytes)
        };
        let _turn = self.busy.acquire().await.map_err(|_| DownloadError::Stopped { module: name.clone() })?;
        let inner = Arc::clone(&self);
        let label = name.clone();
        let keep = move || {
            let cache = &inner.options.cache;
            let mut verified = Verification::KnownSum;
            let mut verify = |sums: &ModuleSums| -> Result<(), DownloadError> {
                verified = inner.verify(&module, &name, sums, &zip_sums, &mod_sums)?;
                Ok(())
            };
            let sums = match files {
                Some(DownloadedFiles { host, info, rest: Some((go_mod, zip)) }) => cache
                    .keep(&lock, &module, info.as_deref(), &go_mod, zip, &mut verify)
                    .map_err(|error| refused(error, &name, host))?,
                Some(DownloadedFiles { info, rest: None, .. }) => {
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
            if verified == Verification::Unverified {
                inner.trusted.fetch_add(1, Ordering::Relaxed);
            }
            Ok(DownloadedModule { sums, verified, bytes })
        };
        blocking(&label, keep).await?
    }

    async fn fetch_go_mod(self: Arc<Self>, wanted: DownloadRequest) -> Result<(), DownloadError> {
        let DownloadRequest { module, mod_sums, .. } = wanted;
        let name = format!("{}@{}", module.path, module.version);
        module::check(&module.path, &module.version)?;
        let _slot =
            self.slots.acquire().await.map_err(|_| DownloadError::Stopped { module: name.clone() })?;
        let file = module_file(&module, "mod")?;
        let read = async |proxy: &Url| Ok(self.proxies.read(proxy, &file).await.and_then(text));
        let (go_mod, _) = self.ask_in_turn(&module.path, &name, read).await?;
        let inner = Arc::clone(&self);
        let label = name.clone();
        let keep = move || {
            let sum = dirhash::hash_go_mod(go_mod.as_bytes());
            inner.verify_go_mod(&module, &name, &sum, &mod_sums)?;
            Ok(inner.options.cache.keep_go_mod(&module, &go_mod)?)
        };
        blocking(&label, keep).await?
    }

    /// Waits for the lock of a version, which another process may hold for long.
    async fn lock(&self, module: &ModuleVersion, name: &str) -> Result<ModCacheLock, DownloadError> {
        let (cache, module) = (self.options.cache.clone(), module.clone());
        Ok(blocking(name, move || cache.lock(&module)).await??)
    }

    fn verify(
        &self,
        module: &ModuleVersion,
        name: &str,
        sums: &ModuleSums,
        zip_sums: &[String],
        mod_sums: &[String],
    ) -> Result<Verification, DownloadError> {
        let zip = self.compare(module, name, "zip", &module.version, &sums.zip, zip_sums)?;
        let go_mod = self.verify_go_mod(module, name, &sums.go_mod, mod_sums)?;
        Ok(zip.max(go_mod))
    }

    fn verify_go_mod(
        &self,
        module: &ModuleVersion,
        name: &str,
        sum: &str,
        known: &[String],
    ) -> Result<Verification, DownloadError> {
        self.compare(module, name, "go.mod", &format!("{}/go.mod", module.version), sum, known)
    }

    /// Compares a sum with those that are known, or else with the database's line for `version`.
    fn compare(
        &self,
        module: &ModuleVersion,
        name: &str,
        file: &'static str,
        version: &str,
        found: &str,
        known: &[String],
    ) -> Result<Verification, DownloadError> {
        let (known, verified) = if !known.is_empty() {
            (known.to_vec(), Verification::KnownSum)
        } else if let Some(database) = self.database_for(&module.path) {
            let failed = |source| DownloadError::Database { module: name.to_owned(), source };
            let lines = database.sums(&module.path, version).map_err(failed)?;
            if lines.is_empty() {
                let path = format!("{}@{version}", module.path);
                let cause = "it has no sum of that".into();
                return Err(failed(SumDbError::Outside { path, cause }));
            }
            (lines, Verification::ChecksumDatabase)
        } else {
            return Ok(Verification::Unverified);
        };
        if known.iter().any(|known| known == found) {
            return Ok(verified);
        }
        let (module, found, expected) = (name.to_owned(), found.to_owned(), known.join(" or "));
        Err(DownloadError::Mismatch { module, file, found, expected })
    }

    /// A toolchain is never a private module, whatever the patterns cover.
    fn database_for(&self, path: &str) -> Option<&ChecksumDatabase> {
        let spared =
            path != toolchain::TOOLCHAIN_MODULE && match_prefix_patterns(&self.options.no_sum_db, path);
        self.database.as_ref().filter(|_| !spared)
    }

    async fn download(
        &self,
        module: &ModuleVersion,
        name: &str,
    ) -> Result<(DownloadedFiles, u64), DownloadError> {
        let from = async |proxy: &Url| self.download_from(proxy, module).await;
        let ((mut files, bytes), proxy) = self.ask_in_turn(&module.path, name, from).await?;
        if files.info.is_none() {
            files.info = self.information_of_others(proxy, module).await;
        }
        Ok((files, bytes))
    }

    /// Asks the proxies one after the other, as GOPROXY says; which one answered comes with the answer. An outer error of
    /// `ask` is one that no other proxy can help with.
    pub(super) async fn ask_in_turn<T>(
        &self,
        path: &str,
        name: &str,
        ask: impl AsyncFn(&Url) -> Result<Result<T, ProxyError>, DownloadError>,
    ) -> Result<(T, &Url), DownloadError> {
        let module_name = || name.to_owned();
        if match_prefix_patterns(&self.options.no_proxy, path) {
            return Err(DownloadError::NeedsGo { module: module_name(), tried: Vec::new() });
        }
        let mut tried = Vec::new();
        for entry in &self.options.proxies.0 {
            let proxy = match &entry.source {
                ProxySource::Proxy(proxy) => proxy,
                // No version control has toolchains: what the proxies said is the answer.
                ProxySource::Direct if !tried.is_empty() && path == toolchain::TOOLCHAIN_MODULE => break,
                ProxySource::Direct => return Err(DownloadError::NeedsGo { module: module_name(), tried }),
                ProxySource::Off if tried.is_empty() => {
                    return Err(DownloadError::Off { module: module_name() });
                }
                ProxySource::Off => break,
            };
            match ask(proxy).await? {
                Ok(answer) => return Ok((answer, proxy)),
                Err(failure) => {
                    let next = matches!(failure, ProxyError::NotFound(_)) || entry.after_any_error;
                    tried.push(ProxyAttempt { host: proxy_host(proxy), why: failure.to_string() });
                    if !next {
                        break;
                    }
                }
            }
        }
        Err(DownloadError::Download { module: module_name(), tried })
    }

    /// The outer error is one that no other proxy can help with.
    async fn download_from(
        &self,
        proxy: &Url,
        module: &ModuleVersion,
    ) -> Result<Result<(DownloadedFiles, u64), ProxyError>, DownloadError> {
        let (go_mod, zip) = (module_file(module, "mod")?, module_file(module, "zip")?);
        let cache = &self.options.cache;
        let read = async {
            // The go command fetches no information where it needs none.
            if cache.lacks_only_information(module) {
                let info = self.information(proxy, module).await?;
                let bytes = info.as_ref().map_or(0, String::len) as u64;
                return Ok((DownloadedFiles { host: proxy_host(proxy), info, rest: None }, bytes));
            }
            let to = cache
                .new_file(module, CacheFile::Zip)
                .map_err(|error| ProxyError::Local(io::Error::other(error)))?;
            let (info, go_mod, (zip, size)) = tokio::try_join!(
                self.information(proxy, module),
                self.proxies.read(proxy, &go_mod),
                self.proxies.save(proxy, &zip, to),
            )?;
            let bytes = size + (info.as_ref().map_or(0, String::len) + go_mod.len()) as u64;
            Ok((DownloadedFiles { host: proxy_host(proxy), info, rest: Some((text(go_mod)?, zip)) }, bytes))
        };
        match read.await {
            Err(ProxyError::Local(source)) => {
                Err(ModCacheError::File { path: cache.path(module, CacheFile::Zip)?, source }.into())
            }
            answer => Ok(answer),
        }
    }
}

impl Downloader {
    /// `None` where this proxy has none.
    async fn information(&self, proxy: &Url, module: &ModuleVersion) -> Result<Option<String>, ProxyError> {
        let wrong = |why: &dyn fmt::Display| ProxyError::Other(why.to_string());
        let path = module_file(module, "info").map_err(|error| wrong(&error))?;
        match self.proxies.read(proxy, &path).await {
            Err(ProxyError::NotFound(_)) => Ok(None),
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
    async fn information_of_others(&self, last: &Url, module: &ModuleVersion) -> Option<String> {
        let proxies = self.options.proxies.0.iter().filter_map(|entry| match &entry.source {
            ProxySource::Proxy(proxy) => Some(proxy),
            ProxySource::Direct | ProxySource::Off => None,
        });
        for proxy in proxies.skip_while(|proxy| *proxy != last).skip(1) {
            if let Ok(Some(info)) = self.information(proxy, module).await {
                return Some(info);
            }
        }
        None
    }
}
/// Names the proxy whose zip is at fault.
fn refused(error: DownloadError, module: &str, host: String) -> DownloadError {
    match error {
        DownloadError::Cache(source @ (ModCacheError::Zip { .. } | ModCacheError::Sum(_))) => {
            DownloadError::Refused { module: module.to_owned(), host, source: Box::new(source) }
        }
        error => error,
    }
}

/// What a proxy has of a version: without the rest where the cache has that.
struct DownloadedFiles {
    host: String,
    /// Some proxies have none: those made of what a build left.
    info: Option<String>,
    rest: Option<(String, NamedTempFile)>,
}

async fn blocking<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, DownloadError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| DownloadError::Stopped { module: name.to_owned() })
}
