//! Which versions a module has, as the module proxies list them (<https://go.dev/ref/mod#goproxy-protocol>).

use std::sync::atomic::{AtomicBool, Ordering};

use url::Url;

use super::{DownloadError, Fetcher, fetcher::Downloader};
use crate::proxy::{ProxyError, text};
use velox_gomod::{
    modfile::GoMod,
    module::{escape_path, escape_version},
    semver,
};

impl Fetcher {
    /// The released versions of a module, pre-releases among them, the lowest first; without those that its newest
    /// version takes back. None: no proxy knows the module.
    ///
    /// # Errors
    /// [`DownloadError::NeedsGo`] where no proxy may be asked, and whatever keeps the proxies from answering.
    pub async fn versions(&self, path: &str) -> Result<Vec<String>, DownloadError> {
        self.inner.versions(path).await
    }
}

impl Downloader {
    async fn versions(&self, path: &str) -> Result<Vec<String>, DownloadError> {
        let Some(list) = self.small(path, "@v/list").await? else { return Ok(Vec::new()) };
        let mut versions: Vec<String> = list
            .lines()
            .filter_map(|line| line.split_whitespace().next())
            .filter(|version| semver::is_valid(version))
            .map(str::to_owned)
            .collect();
        versions.sort_by(|a, b| semver::compare(a, b));
        versions.dedup();
        self.without_retracted(path, versions).await
    }

    /// What an author took back stands in the newest version (<https://go.dev/ref/mod#go-mod-file-retract>).
    async fn without_retracted(
        &self,
        path: &str,
        mut versions: Vec<String>,
    ) -> Result<Vec<String>, DownloadError> {
        let is_release = |version: &&String| semver::prerelease(version).is_none_or(str::is_empty);
        let Some(newest) = versions.iter().rfind(is_release).or(versions.last()) else { return Ok(versions) };
        let file = format!("@v/{}.mod", escape_version(newest)?);
        let text = self.small(path, &file).await.ok().flatten().unwrap_or_default();
        let retracted = GoMod::parse_lax(&text).map(|go_mod| go_mod.retract).unwrap_or_default();
        versions.retain(|version| {
            !retracted.iter().any(|range| {
                semver::compare(version, &range.low).is_ge() && semver::compare(version, &range.high).is_le()
            })
        });
        Ok(versions)
    }

    /// A small text of a module, from the first proxy that has it; `None`: they all say that there is none.
    async fn small(&self, path: &str, file: &str) -> Result<Option<String>, DownloadError> {
        let name = format!("{}/{file}", escape_path(path)?);
        let trouble = AtomicBool::new(false);
        let ask = async |proxy: &Url| {
            let answer = self.proxies.read(proxy, &name).await.and_then(text);
            let said = matches!(answer, Ok(_) | Err(ProxyError::NotFound(_)));
            trouble.fetch_or(!said, Ordering::Relaxed);
            Ok(answer)
        };
        match self.ask_in_turn(path, path, ask).await {
            Ok((text, _)) => Ok(Some(text)),
            Err(DownloadError::Download { tried, .. } | DownloadError::NeedsGo { tried, .. })
                if !tried.is_empty() && !trouble.load(Ordering::Relaxed) =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}
