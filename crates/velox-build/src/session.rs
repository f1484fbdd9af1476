//! Queries about a request: its lock, the RoadRunner release, the modules, and the existing versions.

use std::{collections::BTreeMap, fs, path::PathBuf, sync::Arc};

use tokio_util::sync::CancellationToken;
use velox_fetch::modcache::CacheFile;
use velox_gomod::{
    graph::{MissingGoMods, RequirementGraph},
    modfile::GoMod,
    module::ModuleVersion,
};
use velox_manifest::{GoTarget, Manifest, Origin, Plugin, catalogue::ROADRUNNER_MODULE};

use crate::{
    artifact::store::ArtifactStore,
    cache_directory::cache_directory,
    compile::key,
    context::{BuildContext, BuildTools},
    error::{Error, ErrorKind},
    event::{Phase, Reporter, phase},
    link_reader::{self, LinkReader},
    lock::{Lock, LockFile, SelectedModule, source_of},
    module_request::{RepositoryLocation, own_place_of_module, own_place_of_roadrunner, place_of_plugin},
    package_reader::{self, PackageReader, PackagesRead},
    pipeline,
    request::BuildRequest,
    resolve::{
        Resolver, RoadRunnerRelease, packages,
        versions::{MajorSearch, Versions, roadrunner_starts},
    },
    sbom::{self, Sbom},
    workspace::Workspace,
};

/// Queries about a request; each resolves as much as it needs, like a build.
pub struct QuerySession<'a> {
    pub(crate) context: BuildContext<'a>,
}

/// A lock file compared with the configuration.
#[derive(Debug, Clone, Default)]
pub struct LockStatus {
    /// The lock; `None`: there is no lock file.
    pub lock: Option<Lock>,
    /// Whether the lock has the requested RoadRunner.
    pub has_roadrunner: bool,
    /// Differences between the configuration and the lock, one sentence each.
    pub differences: Vec<String>,
}

/// All modules of a binary at exact versions, and the requirements between them.
pub struct ResolvedModules {
    /// The lock, if it matches the configuration, else a newly resolved one.
    pub lock: Lock,
    /// The RoadRunner release.
    pub release: RoadRunnerRelease,
    /// The requirements between modules, after minimal version selection.
    pub graph: RequirementGraph,
    /// The modules that are compiled for at least one target.
    pub compiled: BTreeMap<String, SelectedModule>,
    /// The lowest versions in `[[requires]]`, by module path.
    pub floors: BTreeMap<String, String>,
}

/// The subject of a version query.
#[derive(Debug, Clone)]
pub enum VersionSubject {
    /// A module path; its major and all higher ones are listed.
    Module(String),
    /// A plugin of the manifest, by its name.
    Plugin(String),
    /// RoadRunner itself.
    RoadRunner,
}

impl<'a> QuerySession<'a> {
    /// The goal and the output options of the request are ignored.
    ///
    /// # Errors
    /// An invalid Go variable, such as GOOS.
    pub fn new(
        request: &'a BuildRequest,
        reporter: Arc<dyn Reporter>,
        cancel: CancellationToken,
    ) -> Result<Self, Error> {
        Ok(Self { context: BuildContext::new(request, reporter, cancel)? })
    }

    /// The manifest, with each `[[replaces]]` of a plugin moved to that plugin.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.context.manifest
    }

    /// Reads the lock file and compares it with the configuration.
    ///
    /// # Errors
    /// The lock file can't be read.
    pub fn lock_status(&self) -> Result<LockStatus, Error> {
        let requested = &self.context.requested;
        let lock = LockFile::read(self.context.request)?.lock;
        Ok(LockStatus {
            has_roadrunner: lock.as_ref().is_some_and(|lock| lock.roadrunner.from == requested.roadrunner),
            differences: lock.as_ref().map(|lock| requested.differences(lock)).unwrap_or_default(),
            lock,
        })
    }

    /// Resolves the RoadRunner release of the manifest.
    ///
    /// # Errors
    /// Its ref can't be resolved.
    pub async fn release(&self) -> Result<RoadRunnerRelease, Error> {
        let context = &self.context;
        // An unreadable lock counts as none: queries still work.
        let found = LockFile::read(self.context.request).unwrap_or_default();
        let tools = context.tools(&found, None).await?;
        Resolver::new(context, &tools, found.lock.as_ref()).release().await
    }

    /// The module and the go.mod of each plugin, or of what replaces it, in the same order. The version of a directory
    /// is empty.
    ///
    /// # Errors
    /// The go command fails, or an interruption. A plugin that can't be resolved is an inner error.
    pub async fn plugin_go_mods(
        &self,
        plugins: &[Plugin],
    ) -> Result<Vec<Result<(ModuleVersion, GoMod), Error>>, Error> {
        let context = &self.context;
        let tools = context.tools(&LockFile::default(), None).await?;
        let resolver = Resolver::new(context, &tools, None);
        let mut go_mods = Vec::new();
        for plugin in plugins {
            match resolver.plugin_go_mod(plugin).await {
                Err(error) if error.kind == ErrorKind::Interrupted => return Err(error),
                result => go_mods.push(result),
            }
        }
        Ok(go_mods)
    }

    /// Resolves all modules. Caches may be filled; no lock is written unless the request's goal asks for one.
    ///
    /// # Errors
    /// As [`crate::build`], up to the resolved versions.
    pub async fn resolve(&self) -> Result<ResolvedModules, Error> {
        let context = &self.context;
        let mut found = LockFile::read(self.context.request)?;
        if !context.is_locked() && found.matching(&context.requested).is_err() {
            context.drop_edited(&mut found);
        }
        let mut tools = context.tools(&found, found.matching(&context.requested).ok()).await?;
        let lock = match found.matching(&context.requested) {
            Ok(lock) => lock.clone(),
            Err(differences) if context.is_locked() => return Err(found.mismatch(&differences)),
            Err(_) => pipeline::resolve(context, &mut tools, &found).await?.0,
        };
        let release = Resolver::new(context, &tools, Some(&lock)).release().await?;
        let graph = graph(context, &tools, &lock).await?;
        let mut compiled = BTreeMap::new();
        for target in lock.targets.values() {
            compiled.extend(lock.selected(target));
        }
        let floors = context.manifest.requires.iter();
        let floors = floors.map(|it| (it.module.value.clone(), it.version.value.clone())).collect();
        Ok(ResolvedModules { lock, release, graph, compiled, floors })
    }

    /// The bill of materials of each target, in the order of the request. Downloads the modules that the cache lacks;
    /// writes no lock unless the request's goal asks for one.
    ///
    /// # Errors
    /// As [`crate::build`], up to the downloads.
    pub async fn sboms(&self) -> Result<Vec<Sbom>, Error> {
        let context = &self.context;
        let mut found = LockFile::read(context.request)?;
        let locked = context.matching_lock(&found)?;
        if locked.is_none() {
            context.drop_edited(&mut found);
        }
        let mut tools = context.tools(&found, locked.as_ref()).await?;
        let lock = match locked {
            Some(lock) => lock,
            None => pipeline::resolve(context, &mut tools, &found).await?.0,
        };
        let targets: Vec<_> =
            context.variants.iter().filter_map(|variant| lock.targets.get(variant)).collect();
        let roadrunner =
            Resolver::new(context, &tools, Some(&lock)).fetch(&lock, &lock.zips(&targets)).await?;
        let replaced = context.replaced(&lock);
        let mut sboms = Vec::new();
        for variant in &context.variants {
            sboms.push(sbom::collect(context, &tools.go, &lock, variant, &roadrunner, &replaced).await?);
        }
        Ok(sboms)
    }

    /// The tools and the source tree of a lock; without one, it is resolved first.
    pub(crate) async fn prepare(
        &self,
        found: &LockFile,
        locked: Option<Lock>,
    ) -> Result<(BuildTools, Lock, Workspace), Error> {
        let context = &self.context;
        let mut tools = context.tools(found, locked.as_ref()).await?;
        let (lock, workspace) = match locked {
            Some(lock) => pipeline::restore(context, &tools, found, lock).await?,
            None => pipeline::resolve(context, &mut tools, found).await?,
        };
        workspace.prepare(&lock)?;
        Ok((tools, lock, workspace))
    }

    /// Runs a reader on the packages of the first target, or takes its result from the cache if nothing changed.
    /// Packages that were not compiled yet are compiled into GOCACHE, as a build would.
    ///
    /// # Errors
    /// As [`crate::build`], up to the compilation; a failure of the reader.
    pub async fn read_packages(&self, reader: PackageReader) -> Result<PackagesRead, Error> {
        let context = &self.context;
        let found = LockFile::read(context.request)?;
        let locked = context.matching_lock(&found)?;
        if let Some(lock) = &locked
            && let Some(read) = package_reader::cached(context, reader, lock)?
        {
            return Ok(read);
        }
        let (tools, lock, workspace) = self.prepare(&found, locked).await?;
        if let Some(read) = package_reader::cached(context, reader, &lock)? {
            return Ok(read);
        }
        let reading = package_reader::read(context, reader, &tools, &lock, &workspace);
        phase(&*context.reporter, Phase::Read, reading).await
    }

    /// Links the binary of the first target with all symbols, over the same compiled packages as a build, and reads it;
    /// or takes the result from the cache if nothing changed. Returns it with the lock and the target.
    ///
    /// # Errors
    /// As [`crate::build`], up to the link; a failure of the reader.
    pub async fn read_link(&self, reader: LinkReader) -> Result<(String, Lock, GoTarget), Error> {
        let context = &self.context;
        let target = context.first_variant()?.target.clone();
        let found = LockFile::read(context.request)?;
        let locked = context.matching_lock(&found)?;
        if let Some(lock) = &locked
            && let Some(output) = link_reader::cached(context, reader, lock)?
        {
            return Ok((output, lock.clone(), target));
        }
        let (tools, lock, workspace) = self.prepare(&found, locked).await?;
        if let Some(output) = link_reader::cached(context, reader, &lock)? {
            return Ok((output, lock, target));
        }
        let output = link_reader::read(context, reader, &tools, &lock, &workspace).await?;
        Ok((output, lock, target))
    }

    /// What a reader printed about the packages of a lock, which need not be in a file; `None`: it is not in the cache.
    ///
    /// # Errors
    /// There is no target, or a local replacement can't be read.
    pub fn cached_packages(&self, reader: PackageReader, lock: &Lock) -> Result<Option<PackagesRead>, Error> {
        package_reader::cached(&self.context, reader, lock)
    }

    /// As [`Self::read_packages`], but only if that takes no compilation: the result is in the cache, or the artifact
    /// store has the binary.
    ///
    /// # Errors
    /// As [`Self::read_packages`].
    pub async fn read_built_packages(&self, reader: PackageReader) -> Result<Option<PackagesRead>, Error> {
        let context = &self.context;
        let found = LockFile::read(context.request)?;
        let (Some(lock), Some(variant)) = (context.matching_lock(&found)?, context.variants.first()) else {
            return Ok(None);
        };
        if let Some(read) = package_reader::cached(context, reader, &lock)? {
            return Ok(Some(read));
        }
        let (stamp, replaced) = (context.stamp(&lock), context.replaced(&lock));
        let key = key::of(&lock, variant, &context.settings, Some(&stamp), &replaced)?;
        let store = ArtifactStore::new(&cache_directory(&context.request.environment));
        match key.is_some_and(|key| store.get(&key).is_some()) {
            true => self.read_packages(reader).await.map(Some),
            false => Ok(None),
        }
    }

    /// The versions of every subject, in the same order: from the module proxies, the go command, and for
    /// repositories on a self-hosted forge from their tags.
    ///
    /// # Errors
    /// The go command fails, or an interruption. A subject without versions is not an error.
    pub async fn versions(&self, subjects: &[VersionSubject]) -> Result<Vec<Versions>, Error> {
        let context = &self.context;
        // An unreadable lock counts as none: queries still work.
        let found = LockFile::read(self.context.request).unwrap_or_default();
        let tools = context.tools(&found, None).await?;
        let mut searches: Vec<MajorSearch> = Vec::new();
        let mut repositories: Vec<(usize, RepositoryLocation, String)> = Vec::new();
        for (index, subject) in subjects.iter().enumerate() {
            match self.version_source(subject, found.lock.as_ref()) {
                VersionSource::Modules(paths) => {
                    searches.extend(paths.iter().map(|path| MajorSearch::new(index, path)));
                }
                VersionSource::Repository(place, module) => repositories.push((index, place, module)),
            }
        }
        Resolver::new(context, &tools, None).versions(searches, &repositories, subjects.len()).await
    }

    fn version_source(&self, subject: &VersionSubject, lock: Option<&Lock>) -> VersionSource {
        match subject {
            VersionSubject::Module(path) => match own_place_of_module(path, &self.context.manifest) {
                Some(place) => VersionSource::Repository(place, path.clone()),
                None => VersionSource::Modules(vec![path.clone()]),
            },
            VersionSubject::RoadRunner => match own_place_of_roadrunner(&self.context.manifest) {
                Some(place) => VersionSource::Repository(place, ROADRUNNER_MODULE.to_owned()),
                None => VersionSource::Modules(roadrunner_starts()),
            },
            VersionSubject::Plugin(name) => {
                let Some(plugin) =
                    self.context.manifest.plugins.iter().find(|plugin| plugin.name.value == *name)
                else {
                    return VersionSource::Modules(Vec::new());
                };
                let locked = lock.and_then(|lock| lock.plugins.iter().find(|plugin| plugin.name == *name));
                let module = match locked {
                    Some(locked) => Some(locked.module.clone()),
                    None => plugin.module_path(&self.context.manifest),
                };
                // The repository is listed if it is on a self-hosted forge, or if its module is unknown.
                let place = place_of_plugin(plugin, &self.context.manifest).filter(|place| {
                    !matches!(plugin.origin, Origin::Module(_)) && (place.own || module.is_none())
                });
                match place {
                    Some(place) => VersionSource::Repository(place, module.unwrap_or_default()),
                    None => VersionSource::Modules(module.into_iter().collect()),
                }
            }
        }
    }
}

enum VersionSource {
    /// Module paths to start from.
    Modules(Vec<String>),
    /// A repository with its module path, or an empty one if unknown.
    Repository(RepositoryLocation, String),
}

/// Loads the graph from the module cache; the go command downloads and verifies missing go.mod files.
async fn graph(
    context: &BuildContext<'_>,
    tools: &BuildTools,
    lock: &Lock,
) -> Result<RequirementGraph, Error> {
    let main = &lock.go_mod;
    let cache = tools.go.modules();
    let directories: BTreeMap<String, PathBuf> = context.replaced(lock).into_iter().collect();
    let read = |module: &ModuleVersion| {
        let path = match source_of(&main.replace, module) {
            Some(source) => cache.path(&source, CacheFile::Mod).ok()?,
            None => directories.get(&module.path)?.join("go.mod"),
        };
        GoMod::parse_lax(&fs::read_to_string(path).ok()?).ok()
    };
    if let Ok(graph) = RequirementGraph::load(main, &read) {
        return Ok(graph);
    }
    let workspace = Workspace::empty(tools.scratch.path().join("graph"))?;
    workspace.write("go.mod", lock.go_mod.text())?;
    workspace.write("go.sum", &lock.go_sum.to_string())?;
    for (module, directory) in &directories {
        workspace.add_replacement(module, directory)?;
    }
    packages::graph(&tools.go, &workspace).await.map_err(|error| {
        if context.request.options.is_offline() {
            error.help("run it once without `--offline`, or run `vx fetch` first")
        } else {
            error
        }
    })?;
    RequirementGraph::load(main, &read).map_err(|MissingGoMods(modules)| {
        Error::build(format!("failed to download the go.mod files of {} modules", modules.len()))
            .output(modules.iter().map(ModuleVersion::to_string).collect())
    })
}
