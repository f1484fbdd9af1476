use futures::{FutureExt, future::LocalBoxFuture};
use serde::Deserialize;
use url::Url;
use velox_gomod::{
    modfile::GoMod,
    module::{self, ModuleVersion, escape_path, escape_version, major_suffix, path_major_matches},
    semver,
};

use super::{DownloadError, Fetcher, fetcher::Downloader};
use crate::proxy::ProxyErrorKind;

/// The answer of a proxy to a version query (<https://go.dev/ref/mod#version-queries>).
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct QueryInfo {
    version: String,
    /// In RFC 3339.
    #[serde(default)]
    time: String,
}

impl Fetcher {
    /// The version of a branch, commit or tag, with its time in RFC 3339; `None` if no proxy knows it.
    pub async fn query(
        &self,
        path: &str,
        query: &str,
    ) -> Result<Option<(ModuleVersion, String)>, DownloadError> {
        let file = format!("@v/{}.info", escape_version(query)?);
        let Some(text) = self.inner.read_small(path, &file).await? else { return Ok(None) };
        let suffix = major_suffix(path);
        let Ok(QueryInfo { version, time }) = serde_json::from_str(&text) else { return Ok(None) };
        let is_valid = module::check(path, &version).is_ok() && path_major_matches(&version, suffix);
        Ok(is_valid.then(|| (ModuleVersion { path: path.to_owned(), version }, time)))
    }

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
        let Some(newest) = versions.iter().rfind(|version| semver::is_release(version)).or(versions.last())
        else {
            return Ok(versions);
        };
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
    fn read_small<'a>(
        &'a self,
        path: &'a str,
        file: &'a str,
    ) -> LocalBoxFuture<'a, Result<Option<String>, DownloadError>> {
        async move {
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
        .boxed_local()
    }
}
