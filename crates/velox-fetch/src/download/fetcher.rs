use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use futures::{
    FutureExt,
    future::{LocalBoxFuture, join_all},
};
use tempfile::NamedTempFile;
use tokio::sync::{Semaphore, SemaphorePermit};
use url::Url;
use velox_gomod::{
    dirhash,
    module::{self, ModuleVersion, match_prefix_patterns},
};

use super::{DownloadError, DownloadOptions, DownloadRequest, DownloadedModule, ProxyAttempt, Verification};
use crate::{
    modcache::{CacheFile, ModCacheError, ModCacheLock, ModuleSums, check_info},
    proxy::{ProxyClient, ProxyErrorKind, ProxySource, ReadError, module_file, proxy_host},
    sumdb::ChecksumDatabase,
    toolchain::{self, InstalledToolchain, TOOLCHAIN_MODULE},
};

/// Downloads modules into GOMODCACHE; clones share their state.
#[derive(Clone)]
pub struct Fetcher {
    pub(super) inner: Arc<Downloader>,
}

pub(super) struct Downloader {
    pub(super) options: DownloadOptions,
    pub(super) proxies: ProxyClient,
    pub(super) database: Option<ChecksumDatabase>,
    downloads: Semaphore,
    /// Limits CPU-bound hashing and unpacking to save memory.
    cores: Semaphore,
    unverified: AtomicU64,
}

/// The downloaded files of a version.
struct ReceivedFiles {
    host: String,
    /// `None` if the proxy has none, such as one filled by builds.
    info: Option<String>,
    /// The go.mod and the zip, unless cached.
    content: Option<(String, NamedTempFile)>,
}

impl Fetcher {
    /// Creates a fetcher.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn new(options: DownloadOptions) -> Self {
        let proxies = ProxyClient::new(&options.client, &options.proxies, &options.netrc);
        let cache = options.cache.root().join("cache/download/sumdb");
        let database = options
            .sum_db
            .clone()
            .map(|db| ChecksumDatabase::new(db, proxies.clone(), options.sum_db_state.clone(), cache));
        let cores = std::thread::available_parallelism().map_or(4, usize::from);
        let (downloads, cores) = (Semaphore::new(options.max_downloads.max(1)), Semaphore::new(cores));
        let unverified = AtomicU64::new(0);
        Self { inner: Arc::new(Downloader { options, proxies, database, downloads, cores, unverified }) }
    }

    /// The number of unverified modules so far, including cached ones.
    pub fn unverified(&self) -> u64 {
        self.inner.unverified.load(Ordering::Relaxed)
    }

    /// Whether only the go command can download this module.
    pub fn needs_go(&self, path: &str) -> bool {
        match_prefix_patterns(&self.inner.options.no_proxy, path) || !self.inner.options.proxies.has_proxy()
    }

    /// Downloads modules, with the results in order. `progress` receives each uncached module and its bytes.
    pub async fn fetch_all(
        &self,
        requests: Vec<DownloadRequest>,
        progress: &(dyn Fn(&ModuleVersion, u64) + Sync),
    ) -> Vec<Result<DownloadedModule, DownloadError>> {
        let downloads = requests.into_iter().map(async |request| {
            let module = request.module.clone();
            let downloaded = self.fetch(request).await;
            if let Ok(DownloadedModule { bytes: bytes @ 1.., .. }) = &downloaded {
                progress(&module, *bytes);
            }
            downloaded
        });
        join_all(downloads).await
    }

    /// Downloads, verifies and unpacks a module, unless it is cached.
    pub fn fetch(
        &self,
        request: DownloadRequest,
    ) -> LocalBoxFuture<'static, Result<DownloadedModule, DownloadError>> {
        Arc::clone(&self.inner).fetch(request).boxed_local()
    }

    /// Downloads only go.mod files, for version selection. Errors are reported by a later [`Fetcher::fetch`].
    pub fn fetch_go_mods(&self, requests: Vec<DownloadRequest>) -> LocalBoxFuture<'_, ()> {
        async move {
            let downloads = requests.into_iter().map(async |request| {
                let module = request.module.clone();
                if let Err(error) = Arc::clone(&self.inner).fetch_go_mod(request).await {
                    tracing::debug!("go.mod of {module}: {error}");
                }
            });
            join_all(downloads).await;
        }
        .boxed_local()
    }

    /// Downloads and installs a toolchain with the expected checksums `known`. Also returns the downloaded
    /// bytes: 0 if another process has downloaded it meanwhile.
    ///
    /// Ignores GONOSUMDB, like the go command; unlike it, trusts the first use with GOSUMDB=off.
    pub fn toolchain(
        &self,
        toolchain: &ModuleVersion,
        known: Vec<String>,
    ) -> LocalBoxFuture<'static, Result<(InstalledToolchain, Verification, u64), DownloadError>> {
        Arc::clone(&self.inner).toolchain(toolchain.clone(), known).boxed_local()
    }

    /// Downloads a go.mod without verifying it.
    pub async fn unverified_go_mod(&self, module: &ModuleVersion) -> Result<String, DownloadError> {
        self.inner.read_text(module, "mod").await
    }
}

impl Downloader {
    async fn fetch(self: Arc<Self>, request: DownloadRequest) -> Result<DownloadedModule, DownloadError> {
        let DownloadRequest { module, zip_sums, mod_sums } = request;
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
        // Before the lock, because each waiting lock is an open file.
        let _permit = acquire(&self.downloads, &module).await?;
        let lock = self.lock(&module).await?;
        // Another process may have downloaded it meanwhile, or was killed and left a partial zip.
        cache.remove_partial_zips(&lock, &module);
        let (files, bytes) = if cache.contains(&module) {
            (None, 0)
        } else {
            let (files, bytes) = self.download(&module).await?;
            (Some(files), bytes)
        };
        let _core = acquire(&self.cores, &module).await?;
        let inner = Arc::clone(&self);
        blocking(module.clone(), move || {
            let cache = &inner.options.cache;
            let mut verified = Verification::KnownSum;
            let mut verify = |sums: &ModuleSums| -> Result<(), DownloadError> {
                verified = inner.verify(&module, sums, &zip_sums, &mod_sums)?;
                Ok(())
            };
            let sums = match files {
                Some(ReceivedFiles { host, info, content: Some((go_mod, zip)) }) => cache
                    .store_verified(&lock, &module, info.as_deref(), &go_mod, zip, &mut verify)
                    .map_err(|error| name_proxy(error, &module, host))?,
                files => {
                    let sums = cache.sums(&module)?;
                    verify(&sums)?;
                    if let Some(info) = files.and_then(|files| files.info) {
                        cache.store_info(&lock, &module, &info)?;
                    }
                    sums
                }
            };
            cache.unpack(&lock, &module, inner.options.writable)?;
            if verified == Verification::Unverified {
                inner.unverified.fetch_add(1, Ordering::Relaxed);
            }
            Ok(DownloadedModule { sums, verified, bytes })
        })
        .await?
    }

    async fn fetch_go_mod(self: Arc<Self>, request: DownloadRequest) -> Result<(), DownloadError> {
        let DownloadRequest { module, mod_sums, .. } = request;
        module::check(&module.path, &module.version)?;
        let _permit = acquire(&self.downloads, &module).await?;
        let go_mod = self.read_text(&module, "mod").await?;
        let inner = Arc::clone(&self);
        blocking(module.clone(), move || {
            inner.verify_go_mod(&module, &dirhash::hash_go_mod(go_mod.as_bytes()), &mod_sums)?;
            Ok(inner.options.cache.store_go_mod(&module, &go_mod)?)
        })
        .await?
    }

    async fn toolchain(
        self: Arc<Self>,
        module: ModuleVersion,
        known: Vec<String>,
    ) -> Result<(InstalledToolchain, Verification, u64), DownloadError> {
        module::check(&module.path, &module.version)?;
        let cache = &self.options.cache;
        let lock = self.lock(&module).await?;
        cache.remove_partial_zips(&lock, &module);
        let has = |file| cache.path(&module, file).is_ok_and(|path| path.is_file());
        let downloaded = if has(CacheFile::Zip) && has(CacheFile::ZipHash) {
            None
        } else {
            let path = module_file(&module, "zip")?;
            let save = async |proxy: &Url| {
                let to = cache.new_file(&module, CacheFile::Zip)?;
                self.proxies.save(proxy, &path, to).await
            };
            let ((zip, bytes), proxy) = self.ask_in_turn(&module.path, &module.to_string(), save).await?;
            Some((zip, bytes, proxy_host(proxy)))
        };
        let inner = Arc::clone(&self);
        blocking(module.clone(), move || {
            let cache = &inner.options.cache;
            let mut verified = Verification::KnownSum;
            let mut verify = |sum: &str| -> Result<(), DownloadError> {
                verified = inner.verify_toolchain(&module, sum, &known)?;
                Ok(())
            };
            let (sum, bytes) = match downloaded {
                Some((zip, bytes, host)) => {
                    let stored = cache.store_zip(&lock, &module, zip, &mut verify);
                    (stored.map_err(|error| name_proxy(error, &module, host))?, bytes)
                }
                None => {
                    let sum = cache.zip_sum(&module)?;
                    verify(&sum)?;
                    (sum, 0)
                }
            };
            let root = cache.unpack(&lock, &module, inner.options.writable)?;
            toolchain::finish_install(&root)?;
            Ok((InstalledToolchain { root, sum }, verified, bytes))
        })
        .await?
    }

    /// Waits for the lock of a version on a blocking thread.
    async fn lock(&self, module: &ModuleVersion) -> Result<ModCacheLock, DownloadError> {
        let (cache, locked) = (self.options.cache.clone(), module.clone());
        Ok(blocking(module.clone(), move || cache.lock(&locked)).await??)
    }

    async fn download(&self, module: &ModuleVersion) -> Result<(ReceivedFiles, u64), DownloadError> {
        let from = async |proxy: &Url| self.download_from(proxy, module).await;
        let ((mut files, bytes), proxy) = self.ask_in_turn(&module.path, &module.to_string(), from).await?;
        if files.info.is_none() {
            // The build stamp includes the version's time, which a later proxy may have.
            let later = self.options.proxies.proxies().skip_while(|(other, _)| *other != proxy).skip(1);
            for (proxy, _) in later {
                if let Ok(Some(info)) = self.read_info(proxy, module).await {
                    files.info = Some(info);
                    break;
                }
            }
        }
        Ok((files, bytes))
    }

    async fn download_from(
        &self,
        proxy: &Url,
        module: &ModuleVersion,
    ) -> Result<(ReceivedFiles, u64), ReadError> {
        let file = |suffix| module_file(module, suffix).map_err(ReadError::invalid);
        let cache = &self.options.cache;
        let host = proxy_host(proxy);
        // Builds of the go command don't need the info file.
        if cache.lacks_only_info(module) {
            let info = self.read_info(proxy, module).await?;
            let bytes = info.as_ref().map_or(0, String::len) as u64;
            return Ok((ReceivedFiles { host, info, content: None }, bytes));
        }
        let to = cache.new_file(module, CacheFile::Zip)?;
        let (go_mod, zip) = (file("mod")?, file("zip")?);
        let (info, go_mod, (zip, size)) = tokio::try_join!(
            self.read_info(proxy, module),
            self.proxies.read_text(proxy, &go_mod),
            self.proxies.save(proxy, &zip, to),
        )?;
        let bytes = size + (info.as_ref().map_or(0, String::len) + go_mod.len()) as u64;
        Ok((ReceivedFiles { host, info, content: Some((go_mod, zip)) }, bytes))
    }

    /// Reads a version's info file; `None` if the proxy has none.
    async fn read_info(&self, proxy: &Url, module: &ModuleVersion) -> Result<Option<String>, ReadError> {
        let path = module_file(module, "info").map_err(ReadError::invalid)?;
        match self.proxies.read_text(proxy, &path).await {
            Err(error) if error.kind() == Some(ProxyErrorKind::NotFound) => Ok(None),
            Err(error) => Err(error),
            Ok(info) if check_info(module, &info).is_ok() => Ok(Some(info)),
            Ok(_) => Err(ReadError::invalid(".info is not JSON with this version")),
        }
    }

    /// Reads a version's text file from the first proxy that has it.
    fn read_text<'a>(
        &'a self,
        module: &'a ModuleVersion,
        suffix: &'a str,
    ) -> LocalBoxFuture<'a, Result<String, DownloadError>> {
        async move {
            let path = module_file(module, suffix)?;
            let read = async |proxy: &Url| self.proxies.read_text(proxy, &path).await;
            Ok(self.ask_in_turn(&module.path, &module.to_string(), read).await?.0)
        }
        .boxed_local()
    }

    /// Tries the proxies in the order of GOPROXY; returns the first response and its proxy.
    pub(super) async fn ask_in_turn<T>(
        &self,
        path: &str,
        name: &str,
        ask: impl AsyncFn(&Url) -> Result<T, ReadError>,
    ) -> Result<(T, &Url), DownloadError> {
        let module = || name.to_owned();
        if match_prefix_patterns(&self.options.no_proxy, path) {
            return Err(DownloadError::NeedsGo { module: module(), tried: Vec::new() });
        }
        let mut tried = Vec::new();
        for entry in self.options.proxies.entries() {
            let proxy = match &entry.source {
                ProxySource::Proxy(proxy) => proxy,
                // Toolchains aren't available from version control.
                ProxySource::Direct if !tried.is_empty() && path == TOOLCHAIN_MODULE => break,
                ProxySource::Direct => return Err(DownloadError::NeedsGo { module: module(), tried }),
                ProxySource::Off if tried.is_empty() => {
                    return Err(DownloadError::Off { module: module() });
                }
                ProxySource::Off => break,
            };
            match ask(proxy).await {
                Ok(answer) => return Ok((answer, proxy)),
                Err(ReadError::Proxy(error)) => {
                    let falls_through = error.kind == ProxyErrorKind::NotFound || entry.after_any_error;
                    tried.push(ProxyAttempt { host: proxy_host(proxy), error });
                    if !falls_through {
                        break;
                    }
                }
                Err(ReadError::Local(error)) => return Err(error.into()),
            }
        }
        Err(DownloadError::Download { module: module(), tried })
    }
}

/// Adds the proxy to an error about its zip.
fn name_proxy(error: DownloadError, module: &ModuleVersion, host: String) -> DownloadError {
    match error {
        DownloadError::Cache(source @ (ModCacheError::Zip { .. } | ModCacheError::Sum(_))) => {
            DownloadError::InvalidZip { module: module.to_string(), host, source: Box::new(source) }
        }
        error => error,
    }
}

async fn acquire<'a>(
    semaphore: &'a Semaphore,
    module: &ModuleVersion,
) -> Result<SemaphorePermit<'a>, DownloadError> {
    semaphore.acquire().await.map_err(|_| DownloadError::Cancelled { module: module.to_string() })
}

async fn blocking<T: Send + 'static>(
    module: ModuleVersion,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, DownloadError> {
    let cancelled = |_| DownloadError::Cancelled { module: module.to_string() };
    tokio::task::spawn_blocking(work).await.map_err(cancelled)
}
