use std::path::PathBuf;

use reqwest::Client;
use velox_gomod::{gosum::GoSum, module::ModuleVersion};

use crate::{
    modcache::{ModCache, ModuleSums},
    proxy::{Netrc, ProxyList},
    sumdb::SumDbConfig,
};

/// The settings of a [`Fetcher`](super::Fetcher).
#[derive(Debug, Clone)]
pub struct DownloadOptions {
    /// A client with [`redirect_policy`](crate::proxy::redirect_policy).
    pub client: Client,
    /// GOMODCACHE.
    pub cache: ModCache,
    /// GOPROXY.
    pub proxies: ProxyList,
    /// GONOPROXY.
    pub no_proxy: String,
    /// GOSUMDB; `None` if off.
    pub sum_db: Option<SumDbConfig>,
    /// GONOSUMDB; doesn't apply to toolchains.
    pub no_sum_db: String,
    /// `$GOPATH/pkg/sumdb`, which stores the latest signed tree.
    pub sum_db_state: PathBuf,
    /// The proxy credentials.
    pub netrc: Netrc,
    /// Whether unpacked modules are writable (`-modcacherw`).
    pub writable: bool,
    /// The maximum number of concurrent downloads.
    pub max_downloads: usize,
}

/// A module to download.
#[derive(Debug, Clone)]
pub struct DownloadRequest {
    /// The module at an exact version.
    pub module: ModuleVersion,
    /// The expected checksums of the zip; if empty, the checksum database is queried.
    pub zip_sums: Vec<String>,
    /// The expected checksums of the go.mod; likewise.
    pub mod_sums: Vec<String>,
}

impl DownloadRequest {
    /// Creates a request with the checksums of a go.sum.
    pub fn with_sums(sums: &GoSum, module: ModuleVersion) -> Self {
        let all = |version: &str| sums.get(&module.path, version).map(str::to_owned).collect();
        let (zip_sums, mod_sums) = (all(&module.version), all(&format!("{}/go.mod", module.version)));
        Self { module, zip_sums, mod_sums }
    }
}

/// A verified module in GOMODCACHE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DownloadedModule {
    /// The checksums.
    pub sums: ModuleSums,
    /// How they were verified.
    pub verified: Verification,
    /// The number of downloaded bytes; 0 if cached.
    pub bytes: u64,
}

/// How a module was verified, strongest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verification {
    /// By expected checksums.
    KnownSum,
    /// By the checksum database.
    ChecksumDatabase,
    /// Not verified: GOSUMDB is off or GONOSUMDB matches, so the first use is trusted.
    Unverified,
}
