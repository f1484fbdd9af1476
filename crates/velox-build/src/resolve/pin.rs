//! Resolves a [`ModuleRequest`] with the module cache, module proxies, the go command and forges.

use std::fs;

use futures::{StreamExt, future::join_all, stream};
use velox_fetch::{
    download::DownloadRequest,
    forge::{ForgeError, RemoteRepository},
    modcache::CacheFile,
};
use velox_gomod::{
    dirhash, modfile,
    module::{ModuleVersion, major_suffix, without_major},
    semver,
};
use velox_manifest::{
    Diagnostic,
    catalogue::{self, ROADRUNNER_MODULE},
    check::with_v,
};

use super::{
    download::{GoDownload, VersionInfo},
    forge::{self, LocatedModule},
    resolved::ResolvedModule,
    resolver::Resolver,
};
use crate::{
    download_failure,
    error::{Blame, Error, ErrorKind, checksum_mismatch, until_cancelled},
    event::{Event, Phase},
    lock::is_commit,
    module_request::{ModuleRequest, PreviousResolution, RepositoryHost, RepositoryLocation},
    request::NetworkAccess,
    resolve::versions::{candidate_paths, proxy_versions},
    workspace::tree,
};

/// How many forge requests run at once.
const MAX_CONCURRENT_FORGE_REQUESTS: usize = 8;
/// The error of a module without any source.
const NO_SOURCE: &str = "no source has it";
/// The error of a ref that no major of a module has at the module proxies.
const NOT_AT_PROXIES: &str = "not found at the module proxies";
/// RoadRunner's default branch, for the module proxies: they can't be queried for one.
const DEFAULT_BRANCH: &str = "master";

impl ResolvedModule {
    /// Fails if a checksum differs from the previous lock's.
    fn check_sums(&self, request: &ModuleRequest) -> Result<(), Error> {
        let Self { module, zip_sum, mod_sum, .. } = self;
        let DownloadRequest { zip_sums, mod_sums, .. } = request.wanted(module);
        for (file, found, expected) in [("zip", zip_sum, zip_sums), ("go.mod", mod_sum, mod_sums)] {
            if let Some(expected) = expected.first().filter(|expected| *expected != found) {
                let text = format!("checksum of {file}\nexpected {expected}\nfound    {found}");
                return Err(checksum_mismatch(&format!("{} {}", module.path, module.version), &text));
            }
        }
        Ok(())
    }
}

/// The state of a request.
enum ResolutionState {
    /// Query the module proxies and the go command; on failure, use `located` or query the forge.
    QueryGo {
        module: ModuleVersion,
        located: Option<Box<LocatedModule>>,
        /// The requested module, if its go.mod declares `module`: only equal files are the same module.
        named: Option<Box<ResolvedModule>>,
    },
    /// Query the module proxies for a branch or a commit: the module path at that commit is unknown.
    QueryMajors,
    /// Query the forge; `why` is the error of the previous source.
    QueryForge {
        why: Option<String>,
    },
    /// Download from the forge.
    UseForge(Box<LocatedModule>),
    Done(Box<ResolvedModule>),
    Failed(UnresolvedModule),
}

/// A module that no source could resolve.
pub(super) struct UnresolvedModule {
    fault: Blame,
    /// The subject of its request.
    subject: String,
    why: String,
    /// The error of the first source, if the others could not be asked either.
    cause: String,
    diagnostic: Diagnostic,
}

impl ResolutionState {
    fn query_go(module: ModuleVersion) -> Self {
        Self::QueryGo { module, located: None, named: None }
    }
}

/// The repository that the module path in a go.mod names.
enum DeclaredOwner {
    /// The requested one.
    Named,
    /// Another one on a forge: the requested repository is a fork or a mirror of it.
    Other,
    /// A path of another host can name any repository.
    Unknown,
}

/// Compares the module path that a go.mod declares with the requested repository.
fn module_owner(request: &ModuleRequest, declared: &str) -> DeclaredOwner {
    let Some(identity) = &request.identity else { return DeclaredOwner::Named };
    let base = without_major(declared);
    let parts = |path: &str| path.split_once('/').map(|(host, path)| (host.to_owned(), path.to_lowercase()));
    let (Some((host, named)), Some((declared_host, declared))) = (parts(identity), parts(base)) else {
        return DeclaredOwner::Unknown;
    };
    let is_forge = ["github.com", "gitlab.com", &host].contains(&declared_host.as_str());
    let is_mirror = request.place.as_ref().is_some_and(|place| place.own);
    match named == declared {
        true if declared_host == host || (is_mirror && is_forge) => DeclaredOwner::Named,
        _ if is_forge => DeclaredOwner::Other,
        _ => DeclaredOwner::Unknown,
    }
}

/// The error of a module path whose go.mod declares another one.
fn other_module_path(request: &ModuleRequest, named: &ModuleVersion, declared: &str) -> UnresolvedModule {
    let ModuleVersion { path, version } = named;
    let help = [
        format!("set module_name = \"{declared}\""),
        format!(
            "if {path} is a fork, replace the original with it: --with {declared}={path}@{version}, or module_name = \"{declared}\" and in [[replaces]] old = \"{declared}\", new = \"{path}@{version}\""
        ),
    ];
    unresolved(request, Blame::Request, &format!("its go.mod declares module {declared}"), &help)
}

impl Resolver<'_> {
    /// Resolves all requests, in the same order; the error has a diagnostic for each one that failed.
    pub(super) async fn pin(&self, requests: &[ModuleRequest]) -> Result<Vec<ResolvedModule>, Error> {
        let (requests, mut without_version) = self.select_versions(requests).await?;
        let requests = requests.as_slice();
        let mut states: Vec<ResolutionState> = requests
            .iter()
            .enumerate()
            .map(|(index, request)| {
                if let Some(unresolved) = without_version.remove(&index) {
                    return ResolutionState::Failed(unresolved);
                }
                let previous = request.known.as_ref().map(|previous| &previous.module);
                let module = previous.or(request.module.as_ref()).filter(|_| request.may_query_proxies());
                let may_be_branch = previous.is_none()
                    && request.version_prefix().is_some()
                    && request.place.is_some()
                    && self.context.request.options.network == NetworkAccess::Full;
                match (self.previous_module(request), module) {
                    (Some(resolved), _) => ResolutionState::Done(Box::new(resolved)),
                    (None, Some(_)) if may_be_branch => ResolutionState::QueryForge { why: None },
                    (None, Some(module)) => ResolutionState::query_go(module.clone()),
                    (None, None) if request.root.as_deref() == Some(ROADRUNNER_MODULE) => {
                        ResolutionState::QueryMajors
                    }
                    (None, None) => ResolutionState::QueryForge { why: None },
                }
            })
            .collect();
        for (request, state) in requests.iter().zip(&mut states) {
            if matches!(state, ResolutionState::QueryMajors) {
                *state = self.query_majors(request).await?;
            }
        }
        // The second round queries modules that a forge located, or whose go.mod declares another path.
        for _ in 0..2 {
            self.query_go(requests, &mut states).await?;
            self.query_forges(requests, &mut states).await?;
        }

        let mut resolved = Vec::with_capacity(requests.len());
        let mut failed = Vec::new();
        for (request, state) in requests.iter().zip(states) {
            match state {
                ResolutionState::Done(module) => resolved.push(*module),
                ResolutionState::UseForge(located)
                | ResolutionState::QueryGo { located: Some(located), .. } => {
                    resolved.push(self.download_from_forge(*located).await?);
                }
                ResolutionState::Failed(unresolved) => failed.push(unresolved),
                ResolutionState::QueryMajors | ResolutionState::QueryGo { located: None, .. } => {
                    failed.push(unresolved(request, Blame::Request, NO_SOURCE, &[]));
                }
                ResolutionState::QueryForge { why } => {
                    let why = why.as_deref().unwrap_or(NO_SOURCE);
                    failed.push(unresolved(request, download_failure::fault(why), why, &[]));
                }
            }
        }
        if !failed.is_empty() {
            // A retry doesn't help if any module does not exist.
            let has = |fault: &Blame| failed.iter().any(|unresolved| unresolved.fault == *fault);
            let fault = [Blame::Request, Blame::Sources].into_iter().find(has).unwrap_or_default();
            return Err(Error::many(ErrorKind::Build, merged(failed)).fault(fault));
        }
        requests.iter().zip(&resolved).try_for_each(|(request, resolved)| resolved.check_sums(request))?;
        Ok(resolved)
    }

    /// The module of the previous lock, if the module cache has it with the same sums.
    fn previous_module(&self, request: &ModuleRequest) -> Option<ResolvedModule> {
        let PreviousResolution { module, commit, time, zip_sum, mod_sum } = request.known.clone()?;
        let cache = self.go.modules();
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
    async fn query_go(
        &self,
        requests: &[ModuleRequest],
        states: &mut [ResolutionState],
    ) -> Result<(), Error> {
        let downloads: Vec<DownloadRequest> = requests
            .iter()
            .zip(&*states)
            .filter_map(|(request, state)| match state {
                ResolutionState::QueryGo { module, .. } => Some(request.wanted(module)),
                _ => None,
            })
            .collect();
        let results = self.download(&downloads).await?;
        let total = u64::try_from(requests.len()).ok();
        for (done, (request, state)) in requests.iter().zip(states.iter_mut()).enumerate() {
            let ResolutionState::QueryGo { module, located, named } = state else { continue };
            let Some(result) = results.get(module) else { continue };
            *state = match (self.resolved_module(result, located.as_deref()), located.take(), named.take()) {
                (Ok(resolved), _, Some(named)) => {
                    let is_same = tree::digest(&resolved.tree)? == tree::digest(&named.tree)?;
                    ResolutionState::Done(if is_same { Box::new(resolved) } else { named })
                }
                (Err(_), _, Some(named)) => ResolutionState::Done(named),
                (Ok(resolved), located, None) => {
                    if located.is_none() {
                        self.report_prefix(request, &resolved.module.version);
                    }
                    Self::check_module_path(request, module, resolved)
                }
                (Err(_), Some(located), None) => ResolutionState::UseForge(located),
                (Err(why), None, None) if request.place.is_some() => {
                    ResolutionState::QueryForge { why: Some(why) }
                }
                (Err(why), None, None) => {
                    let advice = download_failure::advice(&why).map(str::to_owned);
                    let help: Vec<String> =
                        self.suggestion(request, &why).await.into_iter().chain(advice).collect();
                    let fault = download_failure::fault(&why);
                    ResolutionState::Failed(unresolved(request, fault, &why, &help))
                }
            };
            let done = u64::try_from(done).unwrap_or_default();
            let progress = Event::progress(Phase::Resolve, done, total, request.subject.clone());
            self.context.reporter.report(progress);
        }
        Ok(())
    }

    /// Reports which version a prefix selected.
    fn report_prefix(&self, request: &ModuleRequest, version: &str) {
        let Some(prefix) = request.version_prefix() else { return };
        self.context.note(format!(
            "{}: {prefix} is a version prefix; the newest version is {version}",
            request.subject
        ));
    }

    /// Checks the module path in go.mod. A replacement may declare the path of the replaced module, and a fork
    /// that of the original: it is compiled under its own path, as a replacement of the original.
    fn check_module_path(
        request: &ModuleRequest,
        module: &ModuleVersion,
        resolved: ResolvedModule,
    ) -> ResolutionState {
        let declared = modfile::module_line(&resolved.go_mod).unwrap_or_else(|| module.path.clone());
        if declared == module.path || request.replacement {
            return ResolutionState::Done(Box::new(resolved));
        }
        if request.by_path {
            return ResolutionState::Failed(other_module_path(request, module, &declared));
        }
        match module_owner(request, &declared) {
            DeclaredOwner::Named => {
                ResolutionState::query_go(ModuleVersion { path: declared, ..resolved.module })
            }
            DeclaredOwner::Other => ResolutionState::Done(Box::new(resolved)),
            DeclaredOwner::Unknown => ResolutionState::QueryGo {
                module: ModuleVersion::new(declared, &resolved.module.version),
                located: None,
                named: Some(Box::new(resolved)),
            },
        }
    }

    /// Converts a finished download; the error is its reason.
    fn resolved_module(
        &self,
        result: &GoDownload,
        located: Option<&LocatedModule>,
    ) -> Result<ResolvedModule, String> {
        if !result.error.is_empty() {
            return Err(result.reason());
        }
        let go_mod = fs::read_to_string(&result.go_mod)
            .map_err(|error| format!("{}: {error}", result.go_mod.display()))?;
        let time =
            VersionInfo::read(&result.info).and_then(|info| info.time?.parse::<jiff::Timestamp>().ok());
        let origin = result.origin.as_ref().map(|origin| origin.hash.clone()).filter(|hash| is_commit(hash));
        Ok(ResolvedModule {
            module: ModuleVersion::new(&result.path, &result.version),
            commit: located.map(|located| located.commit.id.clone()).or(origin),
            time: time.map(|time| time.as_second()),
            tree: result.dir.clone(),
            go_mod,
            zip_sum: result.sum.clone(),
            mod_sum: result.go_mod_sum.clone(),
        })
    }

    /// Queries the forges, in parallel.
    async fn query_forges(
        &self,
        requests: &[ModuleRequest],
        states: &mut [ResolutionState],
    ) -> Result<(), Error> {
        let pending: Vec<(usize, &ModuleRequest, &RepositoryLocation, Option<String>)> = states
            .iter()
            .zip(requests)
            .enumerate()
            .filter_map(|(index, (state, request))| match state {
                ResolutionState::QueryForge { why } => {
                    Some((index, request, request.place.as_ref()?, why.clone()))
                }
                _ => None,
            })
            .collect();
        let results = stream::iter(pending)
            .map(async |(index, request, place, why)| (index, self.query_forge(request, place, why).await))
            .buffer_unordered(MAX_CONCURRENT_FORGE_REQUESTS)
            .collect::<Vec<_>>();
        for (index, state) in until_cancelled(&self.context.cancel, results).await? {
            if let Some(slot) = states.get_mut(index) {
                *slot = state;
            }
        }
        Ok(())
    }

    /// Queries the API of the forge, then git, which may have credentials that the API lacks.
    async fn query_forge(
        &self,
        request: &ModuleRequest,
        place: &RepositoryLocation,
        proxy_error: Option<String>,
    ) -> ResolutionState {
        if self.context.request.options.network == NetworkAccess::Offline {
            let why = proxy_error.unwrap_or_else(|| "not cached".to_owned());
            let help = ["run it once without --offline, or run `vx fetch` first".to_owned()];
            let why = format!("{why} (offline)");
            return ResolutionState::Failed(unresolved(request, Blame::Other, &why, &help));
        }
        let path = match (request.path.as_str(), &place.host) {
            ("", RepositoryHost::GitHub { owner, repository }) => format!("github.com/{owner}/{repository}"),
            (path, _) => path.to_owned(),
        };
        if self.context.request.options.network == NetworkAccess::ProxiesOnly
            && !self.go.settings.is_private(&path)
        {
            if request.path.is_empty()
                && proxy_error.is_none()
                && let Ok(state) = self.query_majors(request).await
            {
                return state;
            }
            let fault = proxy_error.as_deref().map_or(Blame::Request, download_failure::fault);
            let why = proxy_error.unwrap_or_else(|| "no module proxy may be queried for it".to_owned());
            let advice = download_failure::advice(&why)
                .unwrap_or("this service uses module proxies only: use a tag of a public module");
            let suggestion = self.suggestion(request, &why).await;
            let help: Vec<String> = suggestion.into_iter().chain([advice.to_owned()]).collect();
            return ResolutionState::Failed(unresolved(request, fault, &why, &help));
        }
        // A ref may have moved since the lock.
        let commit = request.known.as_ref().and_then(|previous| previous.commit.clone());
        let request =
            &ModuleRequest { reference: commit.or_else(|| request.reference.clone()), ..request.clone() };
        let repository = self.tools.forges.repository(place);
        let error = match forge::locate(repository.clone(), place, request).await {
            Ok(located) => return self.choose_source(request, place, located).await,
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
            && let Some(git) = self.tools.forges.by_git(place)
            && let Ok(located) = forge::locate(git, place, request).await
        {
            return self.choose_source(request, place, located).await;
        }
        if proxy_error.is_none()
            && let Some(state) = self.without_forge(request, &error).await
        {
            return state;
        }
        let fault = match &proxy_error {
            Some(why) if download_failure::fault(why) != Blame::Request => download_failure::fault(why),
            _ => fault_of_forge(&error),
        };
        ResolutionState::Failed(self.not_found(request, fault, &repository, &error, proxy_error).await)
    }

    /// The next source of a ref that the forge didn't resolve: a version prefix is left to Go, and if the
    /// forge was not available, proxies are queried for the branch or commit.
    async fn without_forge(&self, request: &ModuleRequest, error: &ForgeError) -> Option<ResolutionState> {
        if let (Some(prefix), Some(module)) = (request.version_prefix(), &request.module) {
            if !matches!(error, ForgeError::NotFound { .. }) {
                let error = self.tools.commands.redactor.redact(&error.to_string());
                self.context
                    .note(format!("{}: failed to look for a branch {prefix}: {error}", request.subject));
            }
            return Some(ResolutionState::query_go(module.clone()));
        }
        let is_unavailable = matches!(error, ForgeError::Network { .. } | ForgeError::RateLimited { .. });
        let is_roadrunner = request.root.as_deref() == Some(ROADRUNNER_MODULE);
        if !is_unavailable || (request.reference.is_none() && !is_roadrunner) {
            return None;
        }
        match self.query_majors(request).await {
            Ok(state @ ResolutionState::QueryGo { .. }) => Some(state),
            _ => None,
        }
    }

    /// Queries the module proxies for a branch or a commit at all module paths that it may have. The newest
    /// commit is the branch: a proxy may still have an older answer for a previous major.
    async fn query_majors(&self, request: &ModuleRequest) -> Result<ResolutionState, Error> {
        let (Some(root), Some(fetcher)) = (&request.root, &self.tools.fetcher) else {
            return Ok(ResolutionState::QueryForge { why: None });
        };
        let reference = request.reference.as_deref().unwrap_or(DEFAULT_BRANCH);
        if fetcher.needs_go(root) {
            return Ok(ResolutionState::QueryForge { why: None });
        }
        let paths = candidate_paths(root);
        let answers = join_all(paths.iter().map(|path| fetcher.query(path, reference)));
        let (mut found, mut failure) = (Vec::new(), None);
        for answer in until_cancelled(&self.context.cancel, answers).await? {
            match answer {
                Ok(answer) => found.extend(answer),
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        let newest = found.into_iter().max_by_key(|(_, time)| time.parse::<jiff::Timestamp>().ok());
        if let Some((module, _)) = newest {
            return Ok(ResolutionState::query_go(module));
        }
        // A 404 of one path says nothing while another path can't be queried.
        let why = failure.map_or_else(|| NOT_AT_PROXIES.to_owned(), |error| error.to_string());
        Ok(ResolutionState::QueryForge { why: Some(why) })
    }

    /// Chooses the source of a located module: for a public repository a proxy, so that the checksum database
    /// verifies it, else the forge, since a private module path must not reach a proxy.
    async fn choose_source(
        &self,
        request: &ModuleRequest,
        place: &RepositoryLocation,
        located: LocatedModule,
    ) -> ResolutionState {
        if request.by_path
            && !request.replacement
            && request.module.as_ref().is_some_and(|module| module.path != located.module)
        {
            let named = ModuleVersion::new(&request.path, request.reference.clone().unwrap_or_default());
            return ResolutionState::Failed(other_module_path(request, &named, &located.module));
        }
        // A fork keeps the module line of the original; a replacement needs its own path with that major.
        let mut located = located;
        if request.replacement {
            located.path = with_suffix_of(&request.path, &located.module);
        } else if let (DeclaredOwner::Other, Some(identity)) =
            (module_owner(request, &located.module), &request.identity)
        {
            located.path = with_suffix_of(identity, &located.module);
        }
        let private = self.go.settings.is_private(&located.path);
        let public = !place.own && (private || located.repository.is_public().await.unwrap_or(false));
        if !public {
            return ResolutionState::UseForge(Box::new(located));
        }
        let module = ModuleVersion::new(&located.path, &located.commit.id);
        ResolutionState::QueryGo { module, located: Some(Box::new(located)), named: None }
    }

    async fn download_from_forge(&self, located: LocatedModule) -> Result<ResolvedModule, Error> {
        let cache = self.go.modules();
        let stored = located.store(&cache, self.tools.scratch.path(), &*self.context.reporter);
        until_cancelled(&self.context.cancel, stored).await?
    }

    /// Suggests a similar version or module if the proxies don't have this one.
    async fn suggestion(&self, request: &ModuleRequest, why: &str) -> Option<String> {
        let (Some(module), Some(fetcher)) = (&request.module, &self.tools.fetcher) else { return None };
        if !download_failure::may_be_missing(why) || fetcher.needs_go(&module.path) {
            return None;
        }
        // `unresolved` says what was meant.
        if with_v(&module.version).is_some() {
            return None;
        }
        let listing = proxy_versions(fetcher, &module.path);
        let versions = until_cancelled(&self.context.cancel, listing).await.ok()?;
        let exists = versions.majors.iter().any(|major| major.versions.contains(&module.version));
        match versions.nearest(&module.version).as_slice() {
            [] => suggested_module(&module.path).map(|similar| format!("did you mean `{similar}`?")),
            nearest if semver::is_valid(&module.version) && !exists => {
                Some(format!("similar versions: {}", nearest.join(", ")))
            }
            _ => None,
        }
    }

    async fn not_found(
        &self,
        request: &ModuleRequest,
        fault: Blame,
        repository: &RemoteRepository,
        error: &ForgeError,
        proxy_error: Option<String>,
    ) -> UnresolvedModule {
        let nearest = match (error, request.reference.as_deref()) {
            (ForgeError::NotFound { .. }, Some(reference)) => repository.similar_tags(reference).await,
            _ => Vec::new(),
        };
        let suggestion = match (nearest.as_slice(), &proxy_error) {
            ([], Some(proxy_error)) => self.suggestion(request, proxy_error).await,
            ([], None) => None,
            (nearest, _) => Some(format!("similar versions: {}", nearest.join(", "))),
        };
        let is_definite = matches!(error, ForgeError::NotFound { .. } | ForgeError::Unauthorized { .. });
        let help = error.help();
        let error = self.tools.commands.redactor.redact(&error.to_string());
        let cause = proxy_error.clone().filter(|_| !is_definite);
        let (why, help): (String, Vec<String>) = match proxy_error {
            // The proxy error comes first, except for "not found", which is expected of private modules.
            Some(proxy_error) if !is_definite || !download_failure::is_not_found(&proxy_error) => {
                let advice = download_failure::advice(&proxy_error).map(str::to_owned);
                (format!("{proxy_error}; then: {error}"), advice.into_iter().chain(help).collect())
            }
            Some(proxy_error) => {
                let first = format!("the module proxy answered: {proxy_error}");
                (error, help.into_iter().chain([first]).collect())
            }
            None if request.reference.is_none() && !is_definite => {
                let tag = "a release tag can be resolved by a module proxy: `ref = \"v…\"`";
                (error, std::iter::once(tag.to_owned()).chain(help).collect())
            }
            None => (error, help),
        };
        let cause = [Some(cause.unwrap_or_else(|| why.clone())), suggestion.clone()];
        let cause = cause.into_iter().flatten().collect::<Vec<_>>().join("; ");
        let help: Vec<String> = suggestion.into_iter().chain(help).collect();
        UnresolvedModule { cause, ..unresolved(request, fault, &why, &help) }
    }
}

/// The minimum similarity of a suggested module path.
const MIN_SIMILARITY: f64 = 0.9;

/// The module path of a known plugin that is similar to `module`.
fn suggested_module(module: &str) -> Option<String> {
    let base = without_major(module);
    let is_similar =
        |plugin: &&catalogue::KnownPlugin| strsim::jaro_winkler(&plugin.module, base) >= MIN_SIMILARITY;
    let near = catalogue::nearest(base).into_iter().find(is_similar)?;
    (near.module != base).then(|| near.module_path_like(module))
}

/// `path` with the major suffix of another module path.
fn with_suffix_of(path: &str, other: &str) -> String {
    let base = without_major(path);
    let suffix = major_suffix(other);
    format!("{base}{suffix}")
}

fn fault_of_forge(error: &ForgeError) -> Blame {
    match error {
        ForgeError::NotFound { .. } => Blame::Request,
        ForgeError::RateLimited { .. } | ForgeError::Network { .. } => Blame::Sources,
        _ => Blame::Other,
    }
}

pub(super) fn unresolved(
    request: &ModuleRequest,
    fault: Blame,
    why: &str,
    help: &[String],
) -> UnresolvedModule {
    let reference = request.reference.as_deref().unwrap_or("the default branch");
    let message = format!("failed to resolve {reference} of {}: {why}", request.subject);
    let meant =
        request.reference.as_deref().and_then(with_v).map(|version| format!("did you mean `{version}`?"));
    let diagnostic = Diagnostic {
        help: meant.into_iter().chain(help.iter().cloned()).collect(),
        ..Diagnostic::error(message).at(request.span.clone()).label("requested here")
    };
    let (subject, why, cause) = (request.subject.clone(), why.to_owned(), why.to_owned());
    UnresolvedModule { fault, subject, why, cause, diagnostic }
}

/// The diagnostics; one for all modules that fail with the same cause at the same source, such as an unreachable proxy.
fn merged(failed: Vec<UnresolvedModule>) -> Vec<Diagnostic> {
    let mut causes: Vec<(UnresolvedModule, Vec<String>)> = Vec::new();
    for module in failed {
        let is_same = |(first, _): &&mut (UnresolvedModule, Vec<String>)| {
            first.fault == Blame::Sources && first.cause == module.cause
        };
        match causes.iter_mut().find(is_same) {
            Some((_, others)) => others.push(module.subject),
            None => causes.push((module, Vec::new())),
        }
    }
    let diagnostic = |(module, others): (UnresolvedModule, Vec<String>)| {
        let UnresolvedModule { subject, why, cause, mut diagnostic, .. } = module;
        let count = match others.len() {
            0 => return diagnostic,
            1 => "1 other module".to_owned(),
            others => format!("{others} other modules"),
        };
        diagnostic.message = format!("failed to resolve {subject} and {count}: {why}");
        // A source that can't be reached has none of them.
        if download_failure::is_not_found(&cause) {
            diagnostic.help.insert(0, format!("the others: {}", others.join(", ")));
        }
        diagnostic
    };
    causes.into_iter().map(diagnostic).collect()
}
