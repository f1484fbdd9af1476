use url::Url;
use velox_gomod::{
    modfile::GoMod,
    module::{escape_path, escape_version},
    semver,
};

use super::{DownloadError, Fetcher, fetcher::Downloader};
use crate::proxy::ProxyErrorKind;

impl Fetcher {
    /// The versions of a module in ascending order, including pre-releases and without retracted versions
    /// (<https://go.dev/ref/mod#go-mod-file-retract>); empty if no proxy has the module.
    pub async fn versions(&self, path: &str) -> Result<Vec<String>, DownloadError> {
        let list = self.inner.read_small(path, "@v/list").await?.unwrap_or_default();
        let mut versions: Vec<String> = list
            .lines()
            .filter_map(|line| line.split_whitespace().next())
            .filter(|version| semver::is_valid(version))
            .map(str::to_owned)
            .collect();
        versions.sort_by(|a, b| semver::compare(a, b));
        versions.dedup();
        let is_release = |version: &&String| semver::prerelease(version).is_none_or(str::is_empty);
        let Some(newest) = versions.iter().rfind(is_release).or(versions.last()) else { return Ok(versions) };
        let file = format!("@v/{}.mod", escape_version(newest)?);
        let text = self.inner.read_small(path, &file).await.ok().flatten().unwrap_or_default();
        let retracted = GoMod::parse_lax(&text).map(|go_mod| go_mod.retract).unwrap_or_default();
        versions.retain(|version| {
            !retracted.iter().any(|range| {
                semver::compare(version, &range.low).is_ge() && semver::compare(version, &range.high).is_le()
            })
        });
        Ok(versions)
    }
}

impl Downloader {
    /// Reads a small text file from the first proxy that has it; `None` if no proxy has it.
    async fn read_small(&self, path: &str, file: &str) -> Result<Option<String>, DownloadError> {
        let file = format!("{}/{file}", escape_path(path)?);
        let read = async |proxy: &Url| self.proxies.read_text(proxy, &file).await;
        match self.ask_in_turn(path, path, read).await {
            Ok((text, _)) => Ok(Some(text)),
            Err(DownloadError::Download { tried, .. } | DownloadError::NeedsGo { tried, .. })
                if !tried.is_empty()
                    && tried.iter().all(|attempt| attempt.error.kind == ProxyErrorKind::NotFound) =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}
