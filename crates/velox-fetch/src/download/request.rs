use std::path::PathBuf;

use reqwest::Client;
use velox_gomod::{gosum::GoSum, module::ModuleVersion};

use crate::{
    modcache::{ModCache, ModuleSums},
    proxy::{Netrc, ProxyList},
    sumdb::SumDbConfig,
};

/// How modules are downloaded.
#[derive(Debug, Clone)]
pub struct DownloadOptions {
    /// Follows [`redirects`], and knows the proxies and certificates of this machine.
    pub client: Client,
    /// GOMODCACHE.
    pub cache: ModCache,
    /// GOPROXY.
    pub proxies: ProxyList,
    /// GONOPROXY: the modules that only the go command may fetch.
    pub no_proxy: String,
    /// GOSUMDB; `None`: off.
    pub sum_db: Option<SumDbConfig>,
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
pub struct DownloadRequest {
    /// The module, at an exact version.
    pub module: ModuleVersion,
    /// The sums that its zip may have, as go.sum has them; none: the checksum database is asked.
    pub zip_sums: Vec<String>,
    /// The same for its go.mod.
    pub mod_sums: Vec<String>,
}

impl DownloadRequest {
    /// A module that is verified by what a go.sum says of it, where that says anything.
    #[must_use]
    pub fn verified_by(sums: &GoSum, module: ModuleVersion) -> Self {
        let all = |version: &str| sums.get(&module.path, version).map(str::to_owned).collect();
        let (zip_sums, mod_sums) = (all(&module.version), all(&format!("{}/go.mod", module.version)));
        Self { module, zip_sums, mod_sums }
    }
}

/// A module that lies in GOMODCACHE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DownloadedModule {
    /// Its sums.
    pub sums: ModuleSums,
    /// What they were compared with.
    pub verified: Verification,
    /// How many bytes were downloaded; 0: it was there.
    pub bytes: u64,
}

/// What vouches for a module, the best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verification {
    /// ModuleSums that were known before.
    Known,
    /// The checksum database.
    ChecksumDatabase,
    /// Nothing: GOSUMDB is off, or GONOSUMDB covers it. Its first use is trusted.
    Nothing,
}
