//! Bringing the files of a lock that fits: only what the caches lack is asked for, at exactly the locked version.

use std::path::PathBuf;

use velox_gomod::{gosum::GoSum, modcache::ModCache, module::Version};

use super::{
    Resolver,
    ask::Ask,
    goproxy,
    pin::{Pinned, Sources},
};
use crate::{Error, Phase, lock::Lock, pipeline::phase};

impl Resolver<'_> {
    /// Brings `modules` into the module cache, each verified by the lock's sum; the answer is RoadRunner's own tree.
    pub(crate) async fn fetch(&self, lock: &Lock, modules: &[Version]) -> Result<PathBuf, Error> {
        let cache = ModCache::new(&self.go.settings().gomodcache);
        let sums = lock.sums()?;
        let missing = missing(&cache, &sums, modules)?;
        if !missing.is_empty() {
            if self.request.options.offline {
                return Err(offline(&missing));
            }
            let work = self.bring(&sums, missing);
            phase(self.children.reporter.as_ref(), Phase::Fetch, work).await?;
        }
        cache.dir(&lock.roadrunner()).map_err(|error| Error::build(error.to_string()))
    }

    async fn bring(&self, sums: &GoSum, mut missing: Vec<Version>) -> Result<(), Error> {
        // RoadRunner and the plugins may have to come from a forge.
        let asks: Vec<Ask> = self
            .asks(self.manifest)?
            .into_iter()
            .map(|(_, ask)| ask)
            .filter(|ask| ask.known.as_ref().is_some_and(|known| missing.contains(&known.module)))
            .collect();
        let sources = Sources {
            go: self.go,
            children: self.children,
            forges: self.forges,
            scratch: self.scratch,
            offline: false,
        };
        for Pinned { module, zip_sum, .. } in sources.pin(&asks).await? {
            if sums.get(&module.path, &module.version).any(|sum| sum == zip_sum) {
                missing.retain(|other| *other != module);
            }
        }
        let answers = goproxy::download(self.go, self.children, &missing).await?;
        let mut failed = Vec::new();
        for module in &missing {
            let name = format!("{} {}", module.path, module.version);
            match answers.get(&module.path) {
                Some(answer) if answer.error.is_empty() => {
                    let known: Vec<&str> = sums.get(&module.path, &module.version).collect();
                    if !known.contains(&answer.sum.as_str()) {
                        let text = format!("the lock says {}, it is {}", known.join(" or "), answer.sum);
                        return Err(goproxy::checksum_mismatch(&name, &text));
                    }
                }
                Some(answer) => failed.push(format!("{name}: {}", answer.reason())),
                None => failed.push(format!("{name}: the go command says nothing about it")),
            }
        }
        if failed.is_empty() {
            return Ok(());
        }
        Err(Error::build(format!("can't get {} of the lock's modules", failed.len())).output(failed))
    }
}

/// The modules that the cache lacks.
///
/// # Errors
/// One without a sum in the lock: nothing could verify it.
fn missing(cache: &ModCache, sums: &GoSum, modules: &[Version]) -> Result<Vec<Version>, Error> {
    let mut missing = Vec::new();
    for module in modules {
        let mut known = sums.get(&module.path, &module.version).peekable();
        if known.peek().is_none() {
            return Err(Error::configuration(format!(
                "the lock has no sum for {} {}",
                module.path, module.version
            ))
            .help("it was changed by hand, or cut: make it anew with `vx lock`"));
        }
        if !known.any(|sum| cache.is_unpacked(module, sum)) {
            missing.push(module.clone());
        }
    }
    Ok(missing)
}

fn offline(missing: &[Version]) -> Error {
    let lines = missing.iter().map(|module| format!("{} {}", module.path, module.version)).collect();
    let message = match missing.len() {
        1 => "1 module is missing, and --offline forbids to ask for it".to_owned(),
        many => format!("{many} modules are missing, and --offline forbids to ask for them"),
    };
    Error::build(message).help("`vx fetch` with the same configuration brings them").output(lines)
}
