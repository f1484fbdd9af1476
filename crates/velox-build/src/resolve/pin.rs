//! Resolves a [`ModuleRequest`] to an exact module: from the module cache, module proxies, the go command,
//! forges.

use std::{
    fs,
    path::{Path, PathBuf},
};

use futures::{StreamExt, stream};
use serde::Deserialize;
use velox_fetch::{
    download::DownloadRequest,
    forge::{ForgeError, RemoteRepository},
    modcache::CacheFile,
};
use velox_gomod::{
    dirhash, modfile,
    module::{ModuleVersion, split_path_version},
    semver,
};
use velox_manifest::{Diagnostic, catalogue};

use super::{
    download::{GoDownload, ModuleProxies},
    forge::{self, Forges, LocatedModule},
    request::{ModuleRequest, PreviousResolution, RepositoryHost, RepositoryLocation},
};
use crate::{
    download_failure,
    error::{Blame, Error, ErrorKind, checksum_mismatch},
    event::{Event, Phase},
    lock::is_commit,
    request::NetworkAccess,
    resolve::versions::{FIRST_YEAR, proxy_versions},
};

/// How many forge requests run at once.
const FORGE_REQUESTS: usize = 8;
/// The error of a module without any source.
const NOWHERE: &str = "no source has it";
/// The number of yearly majors of RoadRunner that are tried.
const YEARS: u64 = 12;

/// A downloaded module at an exact version.
#[derive(Debug, Clone)]
pub(crate) struct ResolvedModule {
    pub(crate) module: ModuleVersion,
    pub(crate) commit: Option<String>,
    /// The commit time, in seconds since 1970.
    pub(crate) time: Option<i64>,
    /// The directory with its files.
    pub(crate) tree: PathBuf,
    pub(crate) go_mod: String,
    /// The `h1:` sums of its zip and of its go.mod.
    pub(crate) zip_sum: String,
    pub(crate) mod_sum: String,
}

/// The sources of modules.
pub(crate) struct ModuleSources<'a> {
    pub(super) proxies: ModuleProxies<'a>,
    pub(super) forges: &'a Forges,
    pub(crate) scratch: &'a Path,
    pub(super) network: NetworkAccess,
}

impl ResolvedModule {
    /// Fails if a checksum differs from the previous lock's.
    fn agrees_with(&self, ask: &ModuleRequest) -> Result<(), Error> {
        let Self { module, zip_sum, mod_sum, .. } = self;
        let DownloadRequest { zip_sums, mod_sums, .. } = ask.wanted(module);
        for (file, found, known) in [("zip", zip_sum, zip_sums), ("go.mod", mod_sum, mod_sums)] {
            if let Some(known) = known.first().filter(|known| *known != found) {
                let text = format!("checksum of {file}\nexpected {known}\nfound    {found}");
                return Err(checksum_mismatch(&format!("{} {}", module.path, module.version), &text));
            }
        }
        Ok(())
    }
}

/// The state of a request.
enum ResolutionState {
    /// Query the module proxies and the go command; on failure, use `located` or query the forge.
    AskGo {
        module: ModuleVersion,
        located: Option<Box<LocatedModule>>,
    },
    /// Query the forge; `why` is the error of the previous source.
    AskForge {
        why: Option<String>,
    },
    /// Download from the forge.
    Take(Box<LocatedModule>),
    Done(Box<ResolvedModule>),
    Failed(Blame, Diagnostic),
}

impl ModuleSources<'_> {
    /// Resolves all requests, in the same order.
    ///
    /// # Errors
    /// One diagnostic for each request that no source can serve.
    pub(crate) async fn pin(&self, asks: &[ModuleRequest]) -> Result<Vec<ResolvedModule>, Error> {
        let mut states: Vec<ResolutionState> = asks
            .iter()
            .map(|ask| {
                let known = ask.known.as_ref().map(|known| &known.module);
                match (self.cached(ask), known.or(ask.module.as_ref()), &ask.module) {
                    (Some(pinned), ..) => ResolutionState::Done(Box::new(pinned)),
                    // Without `ask.module`, the module may be private: its path must not reach a proxy.
                    (None, Some(module), Some(_)) => {
                        ResolutionState::AskGo { module: module.clone(), located: None }
                    }
                    (None, ..) => ResolutionState::AskForge { why: None },
                }
            })
            .collect();
        // The second round queries modules that a forge located, or whose go.mod declares another path.
        for _ in 0..2 {
            self.ask_go(asks, &mut states).await?;
            self.ask_forges(asks, &mut states).await?;
        }

        let mut pinned = Vec::with_capacity(asks.len());
        let mut failed = Vec::new();
        let mut faults = Vec::new();
        let mut fail = |fault, diagnostic| {
            faults.push(fault);
            failed.push(diagnostic);
        };
        for (ask, state) in asks.iter().zip(states) {
            match state {
                ResolutionState::Done(module) => pinned.push(*module),
                ResolutionState::Take(located) | ResolutionState::AskGo { located: Some(located), .. } => {
                    pinned.push(self.take(*located).await?);
                }
                ResolutionState::Failed(fault, diagnostic) => fail(fault, diagnostic),
                ResolutionState::AskGo { located: None, .. } => {
                    fail(Blame::Request, unresolved(ask, NOWHERE, &[]));
                }
                ResolutionState::AskForge { why } => {
                    let why = why.as_deref().unwrap_or(NOWHERE);
                    fail(download_failure::fault(why), unresolved(ask, why, &[]));
                }
            }
        }
        if !failed.is_empty() {
            // A retry doesn't help if any module does not exist.
            let fault = [Blame::Request, Blame::Sources].into_iter().find(|fault| faults.contains(fault));
            return Err(Error::many(ErrorKind::Build, failed).fault(fault.unwrap_or_default()));
        }
        asks.iter().zip(&pinned).try_for_each(|(ask, pinned)| pinned.agrees_with(ask))?;
        Ok(pinned)
    }

    /// The module of the previous lock, if the module cache has it with the same sums.
    fn cached(&self, ask: &ModuleRequest) -> Option<ResolvedModule> {
        let PreviousResolution { module, commit, time, zip_sum, mod_sum } = ask.known.clone()?;
        let cache = self.proxies.cache();
        let (zip_sum, mod_sum) = (zip_sum?, mod_sum?);
        if !cache.is_unpacked(&module, &zip_sum) {
            return None;
        }
        let go_mod = fs::read_to_string(cache.path(&module, CacheFile::Mod).ok()?).ok()?;
        if dirhash::hash_go_mod(go_mod.as_bytes()) != mod_sum {
            return None;
        }
        Some(ResolvedModule {
            tree: cache.dir(&module).ok()?,
            module,
            commit,
            time,
            go_mod,
            zip_sum,
            mod_sum,
        })
    }

    /// Queries the module proxies and the go command, in one batch.
    async fn ask_go(&self, asks: &[ModuleRequest], states: &mut [ResolutionState]) -> Result<(), Error> {
        let wanted: Vec<DownloadRequest> = asks
            .iter()
            .zip(&*states)
            .filter_map(|(ask, state)| match state {
                ResolutionState::AskGo { module, .. } => Some(ask.wanted(module)),
                _ => None,
            })
            .collect();
        let answers = self.proxies.download(&wanted).await?;
        let total = u64::try_from(asks.len()).ok();
        for (done, (ask, state)) in asks.iter().zip(states.iter_mut()).enumerate() {
            let ResolutionState::AskGo { module, located } = state else { continue };
            let Some(answer) = answers.get(module) else { continue };
            *state = match (self.pinned(answer, located.as_deref()), located.take()) {
                (Ok(pinned), _) => Self::confirm(ask, module, pinned),
                (Err(_), Some(located)) => ResolutionState::Take(located),
                (Err(why), _) if ask.place.is_some() => ResolutionState::AskForge { why: Some(why) },
                (Err(why), _) => {
                    let advice = download_failure::advice(&why).map(str::to_owned);
                    let help: Vec<String> = self.instead(ask, &why).await.into_iter().chain(advice).collect();
                    ResolutionState::Failed(download_failure::fault(&why), unresolved(ask, &why, &help))
                }
            };
            let item = ask.subject.clone();
            let done = u64::try_from(done).unwrap_or_default();
            self.proxies.children.reporter.report(Event::Progress {
                phase: Phase::Resolve,
                done,
                total,
                item,
                bytes: None,
            });
        }
        Ok(())
    }

    /// Checks the module path in the downloaded go.mod. A replacement may declare the path of the replaced
    /// module.
    fn confirm(ask: &ModuleRequest, module: &ModuleVersion, pinned: ResolvedModule) -> ResolutionState {
        let declared = modfile::module_line(&pinned.go_mod).unwrap_or_else(|| module.path.clone());
        if declared == module.path || ask.replacement {
            return ResolutionState::Done(Box::new(pinned));
        }
        if ask.by_path {
            let mut diagnostic = unresolved(ask, &format!("its go.mod declares module {declared}"), &[]);
            diagnostic.help.push(format!("set module_name = \"{declared}\""));
            return ResolutionState::Failed(Blame::Request, diagnostic);
        }
        ResolutionState::AskGo {
            module: ModuleVersion { path: declared, version: module.version.clone() },
            located: None,
        }
    }

    /// Converts a finished download; the error is its reason.
    fn pinned(&self, answer: &GoDownload, located: Option<&LocatedModule>) -> Result<ResolvedModule, String> {
        #[derive(Deserialize)]
        struct VersionInfo {
            #[serde(rename = "Time")]
            time: Option<String>,
        }
        if !answer.error.is_empty() {
            return Err(answer.reason());
        }
        let go_mod = fs::read_to_string(&answer.go_mod)
            .map_err(|error| format!("{}: {error}", answer.go_mod.display()))?;
        let info = fs::read_to_string(&answer.info).ok();
        let time = info
            .and_then(|info| serde_json::from_str::<VersionInfo>(&info).ok())
            .and_then(|info| info.time?.parse::<jiff::Timestamp>().ok());
        let origin = answer.origin.as_ref().map(|origin| origin.hash.clone()).filter(|hash| is_commit(hash));
        Ok(ResolvedModule {
            module: ModuleVersion { path: answer.path.clone(), version: answer.version.clone() },
            commit: located.map(|located| located.commit.id.clone()).or(origin),
            time: time.map(|time| time.as_second()),
            tree: answer.dir.clone(),
            go_mod,
            zip_sum: answer.sum.clone(),
            mod_sum: answer.go_mod_sum.clone(),
        })
    }

    /// Queries the forges, in parallel.
    async fn ask_forges(&self, asks: &[ModuleRequest], states: &mut [ResolutionState]) -> Result<(), Error> {
        let open: Vec<(usize, &ModuleRequest, &RepositoryLocation, Option<String>)> = states
            .iter()
            .zip(asks)
            .enumerate()
            .filter_map(|(index, (state, ask))| match state {
                ResolutionState::AskForge { why } => Some((index, ask, ask.place.as_ref()?, why.clone())),
                _ => None,
            })
            .collect();
        let answers = stream::iter(open)
            .map(async |(index, ask, place, why)| (index, self.ask_forge(ask, place, why).await))
            .buffer_unordered(FORGE_REQUESTS)
            .collect::<Vec<_>>();
        let answers = tokio::select! {
            answers = answers => answers,
            () = self.proxies.children.cancel.cancelled() => return Err(Error::interrupted()),
        };
        for (index, state) in answers {
            if let Some(slot) = states.get_mut(index) {
                *slot = state;
            }
        }
        Ok(())
    }

    /// Queries the API of the forge, then git, which may have credentials that the API lacks.
    async fn ask_forge(
        &self,
        ask: &ModuleRequest,
        place: &RepositoryLocation,
        proxy: Option<String>,
    ) -> ResolutionState {
        if self.network == NetworkAccess::Offline {
            let why = proxy.unwrap_or_else(|| "not cached".to_owned());
            let help = ["run it once without --offline, or run `vx fetch` first".to_owned()];
            return ResolutionState::Failed(
                Blame::Other,
                unresolved(ask, &format!("{why} (offline)"), &help),
            );
        }
        let path = match (ask.path.as_str(), &place.host) {
            ("", RepositoryHost::GitHub { owner, repository }) => format!("github.com/{owner}/{repository}"),
            (path, _) => path.to_owned(),
        };
        if self.network == NetworkAccess::ProxiesOnly && !self.proxies.go.settings().is_private(&path) {
            if let (true, Some(reference)) = (ask.path.is_empty() && proxy.is_none(), &ask.reference)
                && let Some(module) = self.of_any_year(&path, reference).await
            {
                return ResolutionState::AskGo { module, located: None };
            }
            let why = proxy.unwrap_or_else(|| "no module proxy may be queried for it".to_owned());
            let advice = download_failure::advice(&why)
                .unwrap_or("this service uses module proxies only: use a tag of a public module");
            let instead = self.instead(ask, &why).await;
            let help: Vec<String> = instead.into_iter().chain([advice.to_owned()]).collect();
            return ResolutionState::Failed(download_failure::fault(&why), unresolved(ask, &why, &help));
        }
        // A ref may have moved since the lock.
        let commit = ask.known.as_ref().and_then(|known| known.commit.clone());
        let ask = &ModuleRequest { reference: commit.or_else(|| ask.reference.clone()), ..ask.clone() };
        let repository = self.forges.repository(place);
        let error = match forge::locate(repository.clone(), place, ask).await {
            Ok(located) => return self.route(ask, place, located).await,
            Err(error) => error,
        };
        let may_need_git = !matches!(place.host, RepositoryHost::Git { .. })
            && matches!(
                error,
                ForgeError::NotFound { .. }
                    | ForgeError::Unauthorized { .. }
                    | ForgeError::RateLimited { .. }
                    | ForgeError::Network { .. }
            );
        if may_need_git
            && let Some(git) = self.forges.by_git(place)
            && let Ok(located) = forge::locate(git, place, ask).await
        {
            return self.route(ask, place, located).await;
        }
        let fault = match &proxy {
            Some(why) if download_failure::fault(why) != Blame::Request => download_failure::fault(why),
            _ => fault_of_forge(&error),
        };
        ResolutionState::Failed(fault, self.not_found(ask, &repository, &error, proxy).await)
    }

    /// Finds the major of RoadRunner at a branch or commit using proxies only: its majors are years, and
    /// proxies serve only the one that go.mod declares.
    async fn of_any_year(&self, path: &str, reference: &str) -> Option<ModuleVersion> {
        let years = FIRST_YEAR..FIRST_YEAR + YEARS;
        let module = |year| ModuleVersion { path: format!("{path}/v{year}"), version: reference.to_owned() };
        let wanted: Vec<DownloadRequest> = years
            .map(|year| DownloadRequest { module: module(year), zip_sums: Vec::new(), mod_sums: Vec::new() })
            .collect();
        let answers = self.proxies.download(&wanted).await.ok()?;
        let served = |wanted: &DownloadRequest| {
            answers.get(&wanted.module).is_some_and(|answer| answer.error.is_empty())
        };
        wanted.into_iter().rev().find(served).map(|wanted| wanted.module)
    }

    /// Chooses the source of a located module: for a public repository a proxy, so that the checksum database
    /// verifies it, else the forge, since a private module path must not reach a proxy.
    async fn route(
        &self,
        ask: &ModuleRequest,
        place: &RepositoryLocation,
        located: LocatedModule,
    ) -> ResolutionState {
        if ask.by_path
            && !ask.replacement
            && ask.module.as_ref().is_some_and(|module| module.path != located.module)
        {
            let declared = located.module;
            let mut diagnostic = unresolved(ask, &format!("its go.mod declares module {declared}"), &[]);
            diagnostic.help.push(format!("set module_name = \"{declared}\""));
            return ResolutionState::Failed(Blame::Request, diagnostic);
        }
        // A fork keeps the module line of the original; as a replacement it needs its own path with that
        // major.
        let mut located = located;
        if ask.replacement {
            located.path = with_suffix_of(&ask.path, &located.module);
        }
        let private = self.proxies.go.settings().is_private(&located.path);
        let public = !place.own && (private || located.repository.is_public().await.unwrap_or(false));
        if !public {
            return ResolutionState::Take(Box::new(located));
        }
        let module = ModuleVersion { path: located.path.clone(), version: located.commit.id.clone() };
        ResolutionState::AskGo { module, located: Some(Box::new(located)) }
    }

    async fn take(&self, located: LocatedModule) -> Result<ResolvedModule, Error> {
        let (cache, children) = (self.proxies.cache(), self.proxies.children);
        let stored = located.store(&cache, self.scratch, children.reporter.as_ref());
        let stored = tokio::select! {
            stored = stored => stored?,
            () = children.cancel.cancelled() => return Err(Error::interrupted()),
        };
        Ok(ResolvedModule {
            module: stored.version,
            commit: Some(located.commit.id),
            time: Some(located.commit.time),
            tree: stored.tree,
            go_mod: located.go_mod,
            zip_sum: stored.zip_sum,
            mod_sum: stored.mod_sum,
        })
    }

    /// Suggests a similar version or module if the proxies don't have this one.
    async fn instead(&self, ask: &ModuleRequest, why: &str) -> Option<String> {
        let (Some(module), Some(fetcher)) = (&ask.module, self.proxies.fetcher) else { return None };
        if !download_failure::may_be_missing(why) || fetcher.needs_go(&module.path) {
            return None;
        }
        let with_v = format!("v{}", module.version);
        if semver::is_valid(&with_v) {
            return Some(format!("did you mean {with_v}?"));
        }
        let versions = tokio::select! {
            versions = proxy_versions(fetcher, &module.path) => versions,
            () = self.proxies.children.cancel.cancelled() => return None,
        };
        let is_there = versions.majors.iter().any(|major| major.versions.contains(&module.version));
        match versions.nearest(&module.version).as_slice() {
            [] => meant(&module.path).map(|meant| format!("did you mean {meant}?")),
            nearest if semver::is_valid(&module.version) && !is_there => {
                Some(format!("similar versions: {}", nearest.join(", ")))
            }
            _ => None,
        }
    }

    async fn not_found(
        &self,
        ask: &ModuleRequest,
        repository: &RemoteRepository,
        error: &ForgeError,
        proxy: Option<String>,
    ) -> Diagnostic {
        let nearest = match (error, ask.reference.as_deref()) {
            (ForgeError::NotFound { .. }, Some(wanted)) => repository.similar_tags(wanted).await,
            _ => Vec::new(),
        };
        let instead = match (nearest.as_slice(), &proxy) {
            ([], Some(proxy)) => self.instead(ask, proxy).await,
            ([], None) => None,
            (nearest, _) => Some(format!("similar versions: {}", nearest.join(", "))),
        };
        let told = matches!(error, ForgeError::NotFound { .. } | ForgeError::Unauthorized { .. });
        let help = error.help();
        let error = self.proxies.children.redactor.redact(&error.to_string());
        let (why, help): (String, Vec<String>) = match proxy {
            // The proxy error comes first unless it only says "not found", which is expected of private
            // modules.
            Some(proxy) if !told || !download_failure::is_not_found(&proxy) => {
                let advice = download_failure::advice(&proxy).map(str::to_owned);
                (format!("{proxy}; then: {error}"), advice.into_iter().chain(help).collect())
            }
            Some(proxy) => {
                let first = format!("the module proxy answered: {proxy}");
                (error, help.into_iter().chain([first]).collect())
            }
            None if ask.reference.is_none() && !told => {
                let tag = "a release tag can be resolved by a module proxy: `ref = \"v…\"`";
                (error, std::iter::once(tag.to_owned()).chain(help).collect())
            }
            None => (error, help),
        };
        unresolved(ask, &why, &instead.into_iter().chain(help).collect::<Vec<_>>())
    }
}

/// The minimum similarity of a suggested module path.
const ALIKE: f64 = 0.9;

/// The module path of a known plugin that is similar to `module`.
fn meant(module: &str) -> Option<String> {
    let base = split_path_version(module).map_or(module, |(base, _)| base);
    let alike = |plugin: &&catalogue::KnownPlugin| strsim::jaro_winkler(&plugin.module, base) >= ALIKE;
    let near = catalogue::nearest(base).into_iter().find(alike)?;
    (near.module != base).then(|| near.module_path())
}

/// `path` with the major suffix of another module path.
fn with_suffix_of(path: &str, other: &str) -> String {
    let base = split_path_version(path).map_or(path, |(base, _)| base);
    let suffix = split_path_version(other).map_or("", |(_, suffix)| suffix);
    format!("{base}{suffix}")
}

fn fault_of_forge(error: &ForgeError) -> Blame {
    match error {
        ForgeError::NotFound { .. } => Blame::Request,
        ForgeError::RateLimited { .. } | ForgeError::Network { .. } => Blame::Sources,
        _ => Blame::Other,
    }
}

fn unresolved(ask: &ModuleRequest, why: &str, help: &[String]) -> Diagnostic {
    let reference = ask.reference.as_deref().unwrap_or("the default branch");
    let message = format!("failed to resolve {reference} of {}: {why}", ask.subject);
    Diagnostic {
        help: help.to_vec(),
        ..Diagnostic::error(message).at(ask.span.clone()).label("requested here")
    }
}
