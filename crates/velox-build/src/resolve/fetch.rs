//! Downloads the modules of a lock that the module cache lacks, at exactly the locked versions.

use std::path::PathBuf;

use futures::{FutureExt, future::LocalBoxFuture};
use velox_fetch::{download::DownloadRequest, modcache::ModCache};
use velox_gomod::{gosum::GoSum, module::ModuleVersion};

use super::{download::ProxyFailures, resolved::ResolvedModule, resolver::Resolver};
use crate::{
    download_failure,
    error::{Error, checksum_mismatch},
    event::{Phase, phase},
    lock::Lock,
    module_request::ModuleRequest,
};

impl Resolver<'_> {
    /// Downloads `modules`, verified by the sums of the lock. Returns RoadRunner's source directory.
    pub(crate) fn fetch<'a>(
        &'a self,
        lock: &'a Lock,
        modules: &'a [ModuleVersion],
    ) -> LocalBoxFuture<'a, Result<PathBuf, Error>> {
        async move {
            let cache = self.go.modules();
            let sums = &lock.go_sum;
            let missing = missing(&cache, sums, modules)?;
            if !missing.is_empty() {
                if self.context.request.options.is_offline() {
                    return Err(offline(&missing));
                }
                let work = self.download_missing(sums, missing);
                phase(&*self.context.reporter, Phase::Fetch, work).await?;
            }
            cache.dir(&lock.roadrunner()).map_err(|error| Error::build(error.to_string()))
        }
        .boxed_local()
    }

    async fn download_missing(&self, sums: &GoSum, mut missing: Vec<ModuleVersion>) -> Result<(), Error> {
        let requests: Vec<ModuleRequest> = self.asks()?.into_iter().map(|(_, request)| request).collect();
        let mut tried = ProxyFailures::new();
        if let Some(fetcher) = &self.tools.fetcher {
            // Modules that were resolved without a proxy may be private: their paths must not reach one.
            let private_modules: Vec<&ModuleVersion> = requests
                .iter()
                .filter(|request| request.module.is_none())
                .filter_map(|request| request.known.as_ref().map(|previous| &previous.module))
                .collect();
            let downloads = missing
                .iter()
                .filter(|module| !private_modules.contains(module) && !fetcher.needs_go(&module.path))
                .map(|module| DownloadRequest::with_sums(sums, module.clone()))
                .collect();
            for (module, fetched) in self.fetch_from_proxies(fetcher, downloads, Phase::Fetch).await? {
                match fetched {
                    Ok(_) => missing.retain(|other| *other != module),
                    Err(proxies) => drop(tried.insert(module.path, proxies)),
                }
            }
        }
        // RoadRunner and the plugins may be available from a forge only.
        let forge_requests: Vec<ModuleRequest> = requests
            .into_iter()
            .filter(|request| {
                request.known.as_ref().is_some_and(|previous| missing.contains(&previous.module))
            })
            .collect();
        for ResolvedModule { module, zip_sum, .. } in self.pin(&forge_requests).await? {
            if !sums.get(&module.path, &module.version).any(|sum| sum == zip_sum) {
                let name = format!("{} {}", module.path, module.version);
                return Err(checksum_mismatch(&name, &format!("found    {zip_sum}")));
            }
            missing.retain(|other| *other != module);
        }
        let results = self.by_go(&missing.iter().collect::<Vec<_>>(), &mut tried).await?;
        let mut failed = Vec::new();
        for module in &missing {
            let name = format!("{} {}", module.path, module.version);
            match results.get(module) {
                Some(result) if result.error.is_empty() => {
                    let expected: Vec<&str> = sums.get(&module.path, &module.version).collect();
                    if !expected.contains(&result.sum.as_str()) {
                        let text = format!("expected {}\nfound    {}", expected.join(" or "), result.sum);
                        return Err(checksum_mismatch(&name, &text));
                    }
                }
                Some(result) => failed.push(format!("{name}: {}", result.reason())),
                None => failed.push(format!("{name}: no output of the go command")),
            }
        }
        if failed.is_empty() {
            return Ok(());
        }
        let advice = failed.iter().find_map(|why| download_failure::advice(why));
        let error = Error::build(format!("failed to download {} modules of the lock", failed.len()))
            .fault(download_failure::fault(&failed.join("\n")))
            .output(failed);
        Err(match advice {
            Some(advice) => error.help(advice),
            None => error,
        })
    }
}

/// The modules that the cache lacks; it is an error if the lock has no sum for one.
fn missing(cache: &ModCache, sums: &GoSum, modules: &[ModuleVersion]) -> Result<Vec<ModuleVersion>, Error> {
    let mut missing = Vec::new();
    for module in modules {
        let mut expected = sums.get(&module.path, &module.version).peekable();
        if expected.peek().is_none() {
            return Err(Error::configuration(format!(
                "the lock has no sum for {} {}",
                module.path, module.version
            ))
            .help("it was edited or truncated: recreate it with `vx lock`"));
        }
        if !expected.any(|sum| cache.is_unpacked(module, sum)) {
            missing.push(module.clone());
        }
    }
    Ok(missing)
}

fn offline(missing: &[ModuleVersion]) -> Error {
    let lines = missing.iter().map(|module| format!("{} {}", module.path, module.version)).collect();
    let message = match missing.len() {
        1 => "1 module is not cached; `--offline` forbids downloading it".to_owned(),
        many => format!("{many} modules are not cached; `--offline` forbids downloading them"),
    };
    Error::build(message).help("run `vx fetch` with the same configuration").output(lines)
}
