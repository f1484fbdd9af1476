//! Downloads modules before the go command needs them, with more concurrency than the go command has. Follows
//! the imports of RoadRunner's main package.
//!
//! This is only an optimization: the go command selects the versions and downloads what is missing.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use futures::{StreamExt, stream::FuturesUnordered};
use velox_fetch::{
    download::{DownloadRequest, Fetcher},
    modcache::ModCache,
};
use velox_gomod::{
    gosum::GoSum,
    modfile::{GoMod, Replace},
    module::ModuleVersion,
    semver,
};

use super::{
    download::{self, DownloadProgress},
    plugin::ResolvedPlugin,
    resolver::Resolver,
};
use crate::{
    context::BuildContext,
    error::{Error, until_cancelled},
    event::{Phase, phase},
    imports::{imports_of_package, module_of},
    lock::{replacement_of, source_of},
    module_request::own_place_of_module,
    workspace::Workspace,
};

/// The location of a module's files.
enum ModuleFiles {
    Present(PathBuf),
    /// Being downloaded; these packages are read afterwards.
    Downloading(Vec<String>),
    /// Left to the go command.
    Unavailable,
}

struct Prefetch<'a> {
    fetcher: &'a Fetcher,
    cache: &'a ModCache,
    main: &'a str,
    replaces: &'a [Replace],
    /// The expected result of minimal version selection, by module path.
    versions: BTreeMap<&'a str, &'a str>,
    sums: &'a GoSum,
    workspace: &'a Workspace,
    context: &'a BuildContext<'a>,
    /// By module path before replacement.
    files: BTreeMap<String, ModuleFiles>,
}

impl Resolver<'_> {
    /// Downloads the modules of the workspace's packages that its go.mod or a plugin's go.mod names, and the
    /// go.mod of every required module.
    pub(super) async fn prefetch(
        &self,
        workspace: &Workspace,
        go_mod: &GoMod,
        plugins: &[ResolvedPlugin],
        sums: &GoSum,
    ) -> Result<(), Error> {
        let (Some(fetcher), Some(main)) = (&self.tools.fetcher, &go_mod.module) else { return Ok(()) };
        let cache = &self.go.modules();
        let mut prefetch = Prefetch {
            fetcher,
            cache,
            main,
            replaces: &go_mod.replace,
            versions: versions(go_mod, plugins),
            sums,
            workspace,
            context: self.context,
            files: BTreeMap::new(),
        };
        let progress = DownloadProgress::new(&*self.context.reporter, Phase::Fetch, None);
        let work = async {
            prefetch.follow_imports(&progress).await?;
            // The go command may never read modules that only a plugin's go.mod names.
            let required = go_mod.require.iter().flat_map(|line| {
                let path = line.path.as_str();
                [Some(&*line.version), prefetch.versions.get(path).copied()].map(|version| (path, version))
            });
            let requests = required
                .filter_map(|(path, version)| Some((path, version?)))
                .collect::<BTreeSet<_>>()
                .into_iter()
                .filter_map(|(path, version)| prefetch.source_of(path, version))
                .filter(|module| prefetch.may_query(module) && !cache.has_go_mod(module))
                .map(|module| DownloadRequest::with_sums(sums, module))
                .collect();
            fetcher.fetch_go_mods(requests).await;
            Ok(())
        };
        let work = until_cancelled(&self.context.cancel, work);
        phase(&*self.context.reporter, Phase::Fetch, async { work.await? }).await
    }
}

impl Prefetch<'_> {
    async fn follow_imports(&mut self, progress: &DownloadProgress<'_>) -> Result<(), Error> {
        let root = self.workspace.directory().to_owned();
        self.files.insert(self.main.to_owned(), ModuleFiles::Present(root));
        let mut pending = vec![format!("{}/cmd/rr", self.main)];
        let mut seen = BTreeSet::new();
        let mut running = FuturesUnordered::new();
        loop {
            while let Some(package) = pending.pop() {
                if seen.contains(&package) {
                    continue;
                }
                let modules = self.versions.keys().copied().chain([self.main]);
                let Some(module) = module_of(&package, modules).map(str::to_owned) else { continue };
                if !self.files.contains_key(&module) {
                    let (files, request) = self.locate(&module);
                    self.files.insert(module.clone(), files);
                    if let Some(request) = request {
                        let (fetcher, module) = (self.fetcher, module.clone());
                        running.push(async move { (module, fetcher.fetch(request).await) });
                    }
                }
                match self.files.get_mut(&module) {
                    Some(ModuleFiles::Present(directory)) => {
                        let inside = package.get(module.len()..).unwrap_or_default().trim_start_matches('/');
                        pending.extend(imports_of_package(
                            &directory.join(inside),
                            &self.context.settings.targets,
                        ));
                    }
                    Some(ModuleFiles::Downloading(waiting)) => waiting.push(package.clone()),
                    Some(ModuleFiles::Unavailable) | None => {}
                }
                // A waiting package is visited again after the download.
                if !matches!(self.files.get(&module), Some(ModuleFiles::Downloading(_))) {
                    seen.insert(package);
                }
            }
            let Some((module, fetched)) = running.next().await else { return Ok(()) };
            let version = self.source(&module);
            let fetched = match &version {
                Some(version) => download::judge(version, fetched)?
                    .inspect(|fetched| progress.one(version, fetched.bytes))
                    .ok(),
                None => None,
            };
            let directory = fetched.and(version).and_then(|version| self.cache.dir(&version).ok());
            let files = directory.map_or(ModuleFiles::Unavailable, ModuleFiles::Present);
            if let Some(ModuleFiles::Downloading(waiting)) = self.files.insert(module, files) {
                pending.extend(waiting);
            }
        }
    }

    /// The location of a newly imported module, and the download it needs.
    fn locate(&self, module: &str) -> (ModuleFiles, Option<DownloadRequest>) {
        match (self.replaced(module), self.source(module)) {
            (Some(Replace { new_version: None, new_path, .. }), _) => {
                (ModuleFiles::Present(self.workspace.directory().join(new_path)), None)
            }
            (_, Some(version)) if self.may_query(&version) => {
                (ModuleFiles::Downloading(Vec::new()), Some(DownloadRequest::with_sums(self.sums, version)))
            }
            _ => (ModuleFiles::Unavailable, None),
        }
    }

    /// Public proxies must not be queried for the modules of self-hosted forges.
    fn may_query(&self, ModuleVersion { path, .. }: &ModuleVersion) -> bool {
        !self.fetcher.needs_go(path) && own_place_of_module(path, &self.context.manifest).is_none()
    }

    fn replaced(&self, module: &str) -> Option<&Replace> {
        replacement_of(self.replaces, &ModuleVersion::new(module, *self.versions.get(module)?))
    }

    /// The module version that provides `module` after replacement; `None`: a directory.
    fn source(&self, module: &str) -> Option<ModuleVersion> {
        self.source_of(module, self.versions.get(module)?)
    }

    fn source_of(&self, path: &str, version: &str) -> Option<ModuleVersion> {
        source_of(self.replaces, &ModuleVersion::new(path, version))
    }
}

/// The highest version of each module in the composed go.mod and the plugins' go.mod files, which list all
/// dependencies of their packages (<https://go.dev/ref/mod#graph-pruning>).
fn versions<'a>(go_mod: &'a GoMod, plugins: &'a [ResolvedPlugin]) -> BTreeMap<&'a str, &'a str> {
    let mut versions: BTreeMap<&str, &str> = BTreeMap::new();
    let of_plugins = plugins.iter().filter_map(|plugin| plugin.go_mod.as_ref());
    for line in [go_mod].into_iter().chain(of_plugins).flat_map(|go_mod| &go_mod.require) {
        let highest = versions.entry(&line.path).or_insert(&line.version);
        if semver::compare(&line.version, highest).is_gt() {
            *highest = &line.version;
        }
    }
    versions
}
