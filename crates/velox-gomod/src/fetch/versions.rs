//! Which versions a module has, as the module proxies list them (<https://go.dev/ref/mod#goproxy-protocol>).

use super::{Error, Failure, Fetcher, Inner, host, match_prefix_patterns};
use crate::{
    fetch::goproxy::Source,
    modfile::GoMod,
    module::{escape_path, escape_version},
    semver,
};

impl Fetcher {
    /// The released versions of a module, pre-releases among them, the lowest first; without those that its newest
    /// version takes back. None: no proxy knows the module.
    ///
    /// # Errors
    /// [`Error::NeedsGo`] where no proxy may be asked, and whatever keeps the proxies from answering.
    pub async fn versions(&self, path: &str) -> Result<Vec<String>, Error> {
        self.inner.versions(path).await
    }
}

impl Inner {
    async fn versions(&self, path: &str) -> Result<Vec<String>, Error> {
        if match_prefix_patterns(&self.options.no_proxy, path) {
            return Err(Error::NeedsGo { module: path.to_owned() });
        }
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
    async fn without_retracted(&self, path: &str, mut versions: Vec<String>) -> Result<Vec<String>, Error> {
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
    async fn small(&self, path: &str, file: &str) -> Result<Option<String>, Error> {
        let name = format!("{}/{file}", escape_path(path)?);
        let mut asked = false;
        for entry in &self.options.proxies.0 {
            let proxy = match &entry.source {
                Source::Proxy(proxy) => proxy,
                Source::Direct if !asked => return Err(Error::NeedsGo { module: path.to_owned() }),
                Source::Off if !asked => return Err(Error::Off { module: path.to_owned() }),
                Source::Direct | Source::Off => break,
            };
            asked = true;
            match self.proxies.read(proxy, &name).await {
                Ok(bytes) => return Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
                Err(Failure::NotFound) => {}
                Err(Failure::Other(_)) if entry.after_any_error => {}
                Err(Failure::Other(why)) => {
                    return Err(Error::Download { module: path.to_owned(), host: host(proxy), why });
                }
            }
        }
        Ok(None)
    }
}
