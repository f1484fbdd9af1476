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
    /// GONOPROXY: patterns of modules that only the go command may download.
    pub no_proxy: String,
    /// GOSUMDB; `None`: off.
    pub sum_db: Option<SumDbConfig>,
    /// GONOSUMDB: patterns of modules that the database isn't asked for. Toolchains are always verified.
    pub no_sum_db: String,
    /// `$GOPATH/pkg/sumdb`, where the newest signed tree is stored.
    pub sum_db_state: PathBuf,
    /// The credentials of proxies.
    pub netrc: Netrc,
    /// Whether unpacked modules are writable (`-modcacherw`).
    pub writable: bool,
    /// The number of concurrent downloads.
    pub max_downloads: usize,
}

/// A module to download.
#[derive(Debug, Clone)]
pub struct DownloadRequest {
    /// The module, at an exact version.
    pub module: ModuleVersion,
    /// The expected sums of its zip, as in go.sum; if empty, the checksum database is asked.
    pub zip_sums: Vec<String>,
    /// The same for its go.mod.
    pub mod_sums: Vec<String>,
}

impl DownloadRequest {
    /// A request with the sums of a go.sum.
    pub fn with_sums(sums: &GoSum, module: ModuleVersion) -> Self {
        let all = |version: &str| sums.get(&module.path, version).map(str::to_owned).collect();
        let (zip_sums, mod_sums) = (all(&module.version), all(&format!("{}/go.mod", module.version)));
        Self { module, zip_sums, mod_sums }
    }
}

/// A verified module in GOMODCACHE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DownloadedModule {
    /// Its sums.
    pub sums: ModuleSums,
    /// How they were verified.
    pub verified: Verification,
    /// The number of downloaded bytes; 0: the module was cached.
    pub bytes: u64,
}

/// How a module was verified, the strongest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verification {
    /// By expected sums.
    KnownSum,
    /// By the checksum database.
    ChecksumDatabase,
    /// Not at all: GOSUMDB is off or GONOSUMDB matches the module, so the first use is trusted.
    Unverified,
}
