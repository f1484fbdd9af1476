use velox_gomod::module::{ModuleVersion, match_prefix_patterns};

use super::{DownloadError, Verification, fetcher::Downloader};
use crate::{modcache::ModuleSums, sumdb::ChecksumDatabase, toolchain::TOOLCHAIN_MODULE};

impl Downloader {
    pub(super) fn verify(
        &self,
        module: &ModuleVersion,
        found: &ModuleSums,
        zip_sums: &[String],
        mod_sums: &[String],
    ) -> Result<Verification, DownloadError> {
        let zip = self.compare(module, "zip", &module.version, &found.zip, zip_sums)?;
        let go_mod = self.verify_go_mod(module, &found.go_mod, mod_sums)?;
        Ok(zip.max(go_mod))
    }

    pub(super) fn verify_go_mod(
        &self,
        module: &ModuleVersion,
        found: &str,
        known: &[String],
    ) -> Result<Verification, DownloadError> {
        self.compare(module, "go.mod", &format!("{}/go.mod", module.version), found, known)
    }

    pub(super) fn verify_toolchain(
        &self,
        module: &ModuleVersion,
        found: &str,
        known: &[String],
    ) -> Result<Verification, DownloadError> {
        if known.is_empty() && self.options.proxies.is_local_directory() {
            return Ok(Verification::Unverified);
        }
        self.compare(module, "zip", &module.version, found, known)
    }

    /// Compares a checksum with the known ones, or with the database's for `version` if there are none.
    fn compare(
        &self,
        module: &ModuleVersion,
        file: &'static str,
        version: &str,
        found: &str,
        known: &[String],
    ) -> Result<Verification, DownloadError> {
        let (known, verification) = if !known.is_empty() {
            (known.to_vec(), Verification::KnownSum)
        } else if let Some(database) = self.database_for(&module.path) {
            let sums = database.sums(&module.path, version);
            let sums =
                sums.map_err(|source| DownloadError::Database { module: module.to_string(), source })?;
            (sums, Verification::ChecksumDatabase)
        } else {
            return Ok(Verification::Unverified);
        };
        if known.iter().any(|known| known == found) {
            return Ok(verification);
        }
        let (module, found, expected) = (module.to_string(), found.to_owned(), known.join(" or "));
        Err(DownloadError::Mismatch { module, file, found, expected })
    }

    /// The database for a module; GONOSUMDB doesn't apply to toolchains.
    fn database_for(&self, path: &str) -> Option<&ChecksumDatabase> {
        let is_exempt = path != TOOLCHAIN_MODULE && match_prefix_patterns(&self.options.no_sum_db, path);
        self.database.as_ref().filter(|_| !is_exempt)
    }
}
