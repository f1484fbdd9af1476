//! Downloads from the module proxies, and with `go mod download`.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use serde::Deserialize;
use velox_fetch::{
    download::{DownloadError, DownloadRequest, DownloadedModule, Fetcher, ProxyAttempt},
    modcache::CacheFile,
};
use velox_gomod::{module::ModuleVersion, semver};

use super::resolver::Resolver;
use crate::{
    download_failure::{of_go, unserved},
    error::{Error, checksum_mismatch, until_cancelled},
    event::{Event, Phase, Reporter},
    toolchain::ModuleMode,
};

/// The output of `go mod download -json` for a module (<https://go.dev/ref/mod#go-mod-download>).
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct GoDownload {
    pub(super) path: String,
    pub(super) version: String,
    pub(super) query: String,
    pub(super) error: String,
    pub(super) info: PathBuf,
    pub(super) go_mod: PathBuf,
    pub(super) dir: PathBuf,
    pub(super) sum: String,
    pub(super) go_mod_sum: String,
    pub(super) origin: Option<VcsOrigin>,
    /// The failed attempts with proxies before the go command ran.
    #[serde(skip)]
    tried: Vec<ProxyAttempt>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct VcsOrigin {
    #[serde(rename = "URL")]
    pub(crate) url: Option<String>,
    pub(crate) hash: String,
}

/// The failed attempts by module path.
pub(super) type ProxyFailures = BTreeMap<String, Vec<ProxyAttempt>>;

impl Resolver<'_> {
    /// Downloads exact versions from the module proxies; queries and the rest with one go command. The result
    /// has an entry for each request. A checksum mismatch is an error: no other source is tried then.
    pub(super) async fn download(
        &self,
        requests: &[DownloadRequest],
    ) -> Result<BTreeMap<ModuleVersion, GoDownload>, Error> {
        let (mut results, mut tried) = self.download_exact(requests).await?;
        let modules = requests.iter().map(|request| &request.module);
        let rest: Vec<&ModuleVersion> = modules.filter(|module| !results.contains_key(module)).collect();
        results.extend(self.by_go(&rest, &mut tried).await?);
        Ok(results)
    }

    /// Downloads the exact versions from the module proxies.
    async fn download_exact(
        &self,
        requests: &[DownloadRequest],
    ) -> Result<(BTreeMap<ModuleVersion, GoDownload>, ProxyFailures), Error> {
        let (mut results, mut tried) = (BTreeMap::new(), ProxyFailures::new());
        let Some(fetcher) = &self.tools.fetcher else { return Ok((results, tried)) };
        let is_exact =
            |module: &ModuleVersion| semver::canonical(&module.version).as_deref() == Some(&module.version);
        let requests: Vec<DownloadRequest> = requests
            .iter()
            .filter(|DownloadRequest { module, .. }| is_exact(module) && !fetcher.needs_go(&module.path))
            .cloned()
            .collect();
        let cache = self.go.modules();
        for (module, fetched) in self.fetch_from_proxies(fetcher, requests, Phase::Resolve).await? {
            let path_of = |part| cache.path(&module, part);
            let fetched = match fetched {
                Ok(fetched) => fetched,
                Err(proxies) => {
                    tried.insert(module.path, proxies);
                    continue;
                }
            };
            if let (Ok(info), Ok(go_mod), Ok(dir)) =
                (path_of(CacheFile::Info), path_of(CacheFile::Mod), cache.dir(&module))
            {
                let result = GoDownload {
                    path: module.path.clone(),
                    version: module.version.clone(),
                    origin: VersionInfo::read(&info).and_then(|info| info.origin),
                    info,
                    go_mod,
                    dir,
                    sum: fetched.sums.zip,
                    go_mod_sum: fetched.sums.go_mod,
                    ..GoDownload::default()
                };
                results.insert(module, result);
            }
        }
        Ok((results, tried))
    }

    /// Downloads from the proxies. Returns the failed attempts of modules that another source may have.
    pub(super) async fn fetch_from_proxies(
        &self,
        fetcher: &Fetcher,
        requests: Vec<DownloadRequest>,
        phase: Phase,
    ) -> Result<Vec<(ModuleVersion, Result<DownloadedModule, Vec<ProxyAttempt>>)>, Error> {
        let modules: Vec<ModuleVersion> = requests.iter().map(|request| request.module.clone()).collect();
        let total = u64::try_from(requests.len()).ok();
        let progress = DownloadProgress::new(&*self.context.reporter, phase, total);
        let on_download = |module: &ModuleVersion, bytes| progress.one(module, bytes);
        let work = fetcher.fetch_all(requests, &on_download);
        let results = until_cancelled(&self.context.cancel, work).await?;
        let mut fetched = Vec::new();
        for (module, result) in modules.into_iter().zip(results) {
            let result = judge(&module, result)?;
            fetched.push((module, result));
        }
        Ok(fetched)
    }

    pub(super) async fn by_go(
        &self,
        modules: &[&ModuleVersion],
        tried: &mut ProxyFailures,
    ) -> Result<BTreeMap<ModuleVersion, GoDownload>, Error> {
        if modules.is_empty() {
            return Ok(BTreeMap::new());
        }
        // Outside of any module, so that no go.mod in a parent directory changes the result.
        let outside = tempfile::tempdir()
            .map_err(|error| Error::file("create a directory in", &std::env::temp_dir(), &error))?;
        let queries: Vec<String> =
            modules.iter().map(|module| format!("{}@{}", module.path, module.version)).collect();
        let arguments: Vec<&str> = ["mod", "download", "-json", "--"]
            .into_iter()
            .chain(queries.iter().map(String::as_str))
            .collect();
        let total = u64::try_from(modules.len()).ok();
        let on_line = |line: &str| {
            if let Some(item) = line.strip_prefix("go: downloading ") {
                self.context.reporter.report(Event::progress(Phase::Resolve, 0, total, item.to_owned()));
            }
        };
        let finished =
            self.go.run(ModuleMode::Complete, None, &arguments, outside.path(), Some(&on_line)).await?;

        let mut downloads: Vec<GoDownload> = Vec::new();
        for result in serde_json::Deserializer::from_str(&finished.stdout).into_iter::<GoDownload>() {
            let result = result.map_err(|error| {
                Error::build(format!("failed to parse the output of `go mod download -json`: {error}"))
                    .output(finished.stderr.clone())
            })?;
            if is_security_error(&result.error) {
                return Err(checksum_mismatch(&format!("{}@{}", result.path, result.version), &result.error));
            }
            downloads.push(result);
        }
        let why = finished.stderr.last().cloned().unwrap_or_else(|| "no output of the go command".to_owned());
        if is_security_error(&why) {
            return Err(checksum_mismatch("a module", &finished.stderr.join("\n")));
        }
        let result = |module: &ModuleVersion| {
            let of_path = || downloads.iter().filter(|result| result.path == module.path);
            let is_match =
                |result: &&GoDownload| result.query == module.version || result.version == module.version;
            // A result without a version is matched by its path, if that is unique.
            of_path().find(is_match).or_else(|| of_path().next().filter(|_| of_path().count() == 1)).cloned()
        };
        let mut results = BTreeMap::new();
        for module in modules {
            let mut result =
                result(module).unwrap_or_else(|| GoDownload { error: why.clone(), ..GoDownload::default() });
            result.tried = tried.get(&module.path).cloned().unwrap_or_default();
            results.insert((*module).clone(), result);
        }
        Ok(results)
    }
}

/// Reports the progress of downloads.
pub(super) struct DownloadProgress<'a> {
    reporter: &'a dyn Reporter,
    phase: Phase,
    total: Option<u64>,
    done: AtomicU64,
    bytes: AtomicU64,
}

impl<'a> DownloadProgress<'a> {
    pub(super) fn new(reporter: &'a dyn Reporter, phase: Phase, total: Option<u64>) -> Self {
        Self { reporter, phase, total, done: AtomicU64::new(0), bytes: AtomicU64::new(0) }
    }

    /// Reports a finished download; a cached module (0 bytes) is not reported.
    pub(super) fn one(&self, module: &ModuleVersion, bytes: u64) {
        if bytes == 0 {
            return;
        }
        let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
        let bytes = Some(self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes);
        let item = format!("{} {}", module.path, module.version);
        let (phase, total) = (self.phase, self.total);
        self.reporter.report(Event::Progress { phase, done, total, item, bytes });
    }
}

/// Splits a download result: inner errors, with the failed attempts, leave the module to other sources.
pub(super) fn judge(
    module: &ModuleVersion,
    result: Result<DownloadedModule, DownloadError>,
) -> Result<Result<DownloadedModule, Vec<ProxyAttempt>>, Error> {
    result.map_or_else(
        |error| unserved(&format!("{} {}", module.path, module.version), error).map(Err),
        |fetched| Ok(Ok(fetched)),
    )
}

/// An `.info` file of a module proxy (<https://go.dev/ref/mod#goproxy-protocol>).
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct VersionInfo {
    pub(super) time: Option<String>,
    pub(crate) origin: Option<VcsOrigin>,
}

impl VersionInfo {
    pub(crate) fn read(path: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(path).ok()?).ok()
    }
}

fn is_security_error(text: &str) -> bool {
    text.contains("SECURITY ERROR") || text.contains("checksum mismatch")
}

impl GoDownload {
    /// The error without Go's module prefix, with the failed attempts of other hosts.
    pub(super) fn reason(&self) -> String {
        let text =
            self.error.strip_prefix(&format!("{}@{}: ", self.path, self.version)).unwrap_or(&self.error);
        let text = of_go(&text.split_whitespace().collect::<Vec<_>>().join(" "), &self.path);
        let others: Vec<String> = self
            .tried
            .iter()
            .filter(|tried| !text.contains(&tried.host))
            .map(ProxyAttempt::to_string)
            .collect();
        if others.is_empty() { text } else { format!("{text} (tried before: {})", others.join("; ")) }
    }
}
