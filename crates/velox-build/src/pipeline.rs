use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use futures::{StreamExt, TryStreamExt, stream};
use tokio_util::sync::CancellationToken;
use velox_gomod::fetch::Fetcher;
use velox_manifest::{GoTarget, Manifest};

use crate::{
    artifact::{
        archive::{self, ArchiveName},
        publish::publish,
        record::BuildRecord,
        store::{ArtifactStore, DEFAULT_STORE_LIMIT_BYTES, StoredArtifact},
    },
    cache_directory::cache_directory,
    compile::{
        compile_cache::{self, CompileCacheSession},
        go_build::{GoBuild, linker_flags},
        key, precompile, verify,
    },
    error::{Blame, Error, ErrorKind, finding},
    event::{BuildSummary, BuiltBinary, CompileCacheStats, Event, Note, Phase, Reporter, phase},
    lock::{Lock, LockFile, LockedPlugin, LockedTarget, RequestedVersions, TargetVariant},
    process::CommandRunner,
    request::{BuildRequest, Goal, Output, Upgrade},
    resolve::{Resolver, forge::Forges, network::Network, roadrunner_release},
    settings::BuildSettings,
    stamp::Stamp,
    toolchain::{InstalledGo, Toolchain, Toolchains},
    workspace::{Workspace, plugins_go, scratch::ScratchDirectory},
};

/// How many targets are compiled at once: while one links, on one core, another uses the rest.
const TARGETS_AT_ONCE: usize = 2;

/// Does what `request` asks for.
///
/// Cancelling `cancel` ends the children with their process groups, removes what was half made, and gives
/// [`crate::ErrorKind::Interrupted`].
///
/// # Errors
/// An [`Error`] whose diagnostics say what was asked, what happened and what to do.
pub async fn build(
    request: &BuildRequest,
    reporter: Arc<dyn Reporter>,
    cancel: CancellationToken,
) -> Result<BuildSummary, Error> {
    let manifest = request.manifest.with_plugin_replacements();
    let settings = BuildSettings::new(&manifest, &request.options, &request.environment);
    Pipeline::new(request, &manifest, &settings, reporter, cancel).run().await
}

pub(crate) struct Pipeline<'a> {
    pub(crate) request: &'a BuildRequest,
    /// With its replaces at its plugins.
    pub(crate) manifest: &'a Manifest,
    settings: &'a BuildSettings,
    pub(crate) asked: RequestedVersions,
    variants: Vec<TargetVariant>,
    store: ArtifactStore,
    pub(crate) reporter: Arc<dyn Reporter>,
    cancel: CancellationToken,
}

/// One binary to make.
struct BuildTarget<'a> {
    variant: &'a TargetVariant,
    file: PathBuf,
    key: Option<String>,
    /// `None`: it has to be compiled.
    artifact: Option<StoredArtifact>,
    /// Whether the store had it.
    reused: bool,
    compile_cache: Option<CompileCacheStats>,
}

/// What a build needs beyond its own values: a directory, a go command, the network.
pub(crate) struct BuildTools {
    pub(crate) scratch: ScratchDirectory,
    pub(crate) go: Toolchain,
    toolchains: Toolchains,
    children: CommandRunner,
    forges: Forges,
    fetcher: Option<Fetcher>,
}

impl<'a> Pipeline<'a> {
    pub(crate) fn new(
        request: &'a BuildRequest,
        manifest: &'a Manifest,
        settings: &'a BuildSettings,
        reporter: Arc<dyn Reporter>,
        cancel: CancellationToken,
    ) -> Self {
        Self {
            request,
            asked: RequestedVersions::new(manifest, settings, &request.base),
            variants: settings.targets.iter().map(|target| TargetVariant::new(target, settings)).collect(),
            store: ArtifactStore::new(&cache_directory(&request.environment)),
            manifest,
            settings,
            reporter,
            cancel,
        }
    }
}

impl Pipeline<'_> {
    async fn run(self) -> Result<BuildSummary, Error> {
        let output = match &self.request.goal {
            Goal::Build(output) | Goal::DryRun(output) => Some(output),
            Goal::Plan | Goal::Lock | Goal::CheckLock | Goal::Fetch => None,
        };
        if let Some(output) = output {
            output.check_for(self.settings)?;
            compile_cache::check(self.request)?;
            self.check_stamp()?;
        }
        self.check_names()?;
        let started = Instant::now();
        let found = LockFile::read(self.request)?;
        let fits = match found.fitting(&self.asked) {
            Ok(lock)
                if lock.covers(&self.variants)
                    && self.request.options.versions.upgrade == Upgrade::Nothing =>
            {
                Some(lock.clone())
            }
            Ok(_) => None,
            Err(differences) if self.must_fit() => return Err(found.mismatch(&differences)),
            Err(_) => None,
        };
        if let Some(lock) = &fits {
            let summary = self.resolved(lock, started)?;
            if matches!(self.request.goal, Goal::CheckLock | Goal::Plan) {
                return Ok(summary);
            }
            if let Some(output) = output {
                let stamp = self.stamp(lock);
                let wanted = self.wanted(lock, &stamp, output, &self.replaced(lock))?;
                let is_made = wanted.iter().all(|wanted| wanted.artifact.is_some());
                if !is_made {
                    output.probe(self.settings)?;
                }
                if matches!(self.request.goal, Goal::DryRun(_)) {
                    return Ok(summary);
                }
                if is_made {
                    return self.publish_all(summary, wanted.iter()).await;
                }
            }
        } else if let Some(output) = output {
            output.probe(self.settings)?;
        }

        let mut tools = self.tools(&found, fits.as_ref()).await?;
        let (lock, workspace) = match fits {
            Some(lock) => self.restore(&tools, &found, lock).await?,
            None => self.resolve(&mut tools, &found).await?,
        };
        let summary = self.summary(&lock, &self.stamp(&lock));
        let Goal::Build(output) = &self.request.goal else { return Ok(summary) };
        self.compile_all(&tools, &lock, &workspace, output, summary).await
    }

    /// The stamp, as far as it is known beforehand, is one that the linker's flags can carry.
    fn check_stamp(&self) -> Result<(), Error> {
        let BuildRequest { options, environment, .. } = self.request;
        let stamp = Stamp::choose(&options.stamp, &self.manifest.build_args, environment, "", 0);
        linker_flags(self.settings, "", &stamp).map(drop)
    }

    /// The plugins that `vx lock --upgrade NAME` names exist.
    fn check_names(&self) -> Result<(), Error> {
        let Upgrade::Only(upgraded) = &self.request.options.versions.upgrade else { return Ok(()) };
        let names = || self.manifest.plugins.iter().map(|plugin| plugin.name.value.as_str());
        let unknown = |name: &&String| *name != "roadrunner" && !names().any(|known| known == *name);
        match upgraded.iter().find(unknown) {
            None => Ok(()),
            Some(name) => Err(Error::configuration(format!("there is no plugin `{name}`"))
                .help(format!("the plugins are: roadrunner, {}", names().collect::<Vec<_>>().join(", ")))),
        }
    }

    pub(crate) fn must_fit(&self) -> bool {
        self.request.options.versions.locked || self.request.goal == Goal::CheckLock
    }

    /// `fits`: the lock, where no version is asked for any more.
    pub(crate) async fn tools(&self, found: &LockFile, fits: Option<&Lock>) -> Result<BuildTools, Error> {
        let request = self.request;
        let place =
            request.options.workspace.parent.clone().unwrap_or_else(|| cache_directory(&request.environment));
        let scratch = ScratchDirectory::create(&place, request.options.workspace.keep)?;
        let plain = CommandRunner::new(request, &self.reporter, &self.cancel);
        let installed = InstalledGo::find(&plain, request.options.go.as_deref(), scratch.path()).await?;
        let Network { children, forges, fetcher } =
            Network::new(request, &installed.settings, scratch.path(), &plain).await?;
        let toolchains = Toolchains {
            installed,
            children: children.clone(),
            fetcher: fetcher.clone(),
            offline: request.options.is_offline(),
            scratch: scratch.path().to_owned(),
        };
        let go = match (fits, &found.lock) {
            (Some(lock), _) => toolchains.exactly(&lock.go_version, lock.toolchain_sum()).await?,
            (None, Some(lock)) if request.options.versions.upgrade != Upgrade::Everything => {
                match toolchains.allows(&lock.go_version) {
                    Ok(()) => toolchains.from(&lock.go_version, lock.toolchain_sum()).await?,
                    Err(error) if self.must_fit() => return Err(error),
                    Err(_) => self.any_go(&toolchains).await?,
                }
            }
            (None, _) => self.any_go(&toolchains).await?,
        };
        Ok(BuildTools { scratch, go, toolchains, children, forges, fetcher })
    }

    async fn any_go(&self, toolchains: &Toolchains) -> Result<Toolchain, Error> {
        toolchains.for_release(roadrunner_release(self.manifest).as_ref()).await
    }

    pub(crate) fn resolver<'a>(&'a self, tools: &'a BuildTools, previous: Option<&'a Lock>) -> Resolver<'a> {
        Resolver {
            request: self.request,
            manifest: self.manifest,
            asked: &self.asked,
            previous,
            settings: self.settings,
            go: &tools.go,
            toolchains: &tools.toolchains,
            children: &tools.children,
            forges: &tools.forges,
            fetcher: tools.fetcher.as_ref(),
            scratch: tools.scratch.path(),
        }
    }

    /// Asks for versions, where the lock doesn't say them all.
    pub(crate) async fn resolve(
        &self,
        tools: &mut BuildTools,
        found: &LockFile,
    ) -> Result<(Lock, Workspace), Error> {
        let previous = found.lock.as_ref();
        let resolver = self.resolver(tools, previous);
        let resolving = phase(&*self.reporter, Phase::Resolve, resolver.resolve());
        let (mut lock, workspace) = self.beside(resolving, tools).await?;
        // What the go command chose for the modules compiles them.
        tools.go = tools.toolchains.exactly(&lock.go_version, lock.toolchain_sum()).await?;
        if let Some(previous) = previous {
            lock.adopt_targets(previous);
            if self.must_fit() && previous.go_mod != lock.go_mod {
                let message = "the modules for this target aren't all in it".to_owned();
                return Err(found.mismatch(&[message]));
            }
        }
        self.report_resolved(&lock)?;
        if let Some(trusted @ 1..) = tools.fetcher.as_ref().map(Fetcher::trusted) {
            let modules = if trusted == 1 { "1 module".to_owned() } else { format!("{trusted} modules") };
            let text = format!(
                "no checksum database was asked about {modules} (GONOSUMDB, GOSUMDB=off): the first use is trusted, and kept in the lock"
            );
            self.reporter.report(Event::Note(Note::Text { text }));
        }
        if !self.must_fit()
            && !matches!(self.request.goal, Goal::Plan | Goal::DryRun(_))
            && self.request.updates_lock
            && let Err(why) = found.write(&lock)
        {
            if self.request.goal == Goal::Lock {
                return Err(Error::build(why));
            }
            self.reporter.report(Event::Note(Note::Text { text: why }));
        }
        Ok((lock, workspace))
    }

    /// Makes the workspace of a lock that fits; only files that the caches lack are asked for.
    async fn restore(
        &self,
        tools: &BuildTools,
        found: &LockFile,
        mut lock: Lock,
    ) -> Result<(Lock, Workspace), Error> {
        if tools.go.is_trusted()
            && !self.must_fit()
            && let Some(sum) = tools.toolchains.sum_of(&lock.go_version)
        {
            lock.toolchain.insert(GoTarget::host().to_string(), sum);
            if let Err(why) = found.write(&lock) {
                self.reporter.report(Event::Note(Note::Text { text: why }));
            }
        }
        let locked: Vec<&LockedTarget> =
            self.variants.iter().filter_map(|variant| lock.targets.get(variant)).collect();
        let resolver = self.resolver(tools, Some(&lock));
        let zips = lock.zips(&locked)?;
        let tree = self.beside(resolver.fetch(&lock, &zips), tools).await?;
        let workspace = Workspace::create(&tree, tools.scratch.path().join("src"))?;
        for (module, directory) in self.replaced(&lock) {
            workspace.add_replacement(&module, &directory)?;
        }
        Ok((lock, workspace))
    }

    /// Runs `work`; where a compile follows, it begins meanwhile with what needs no modules.
    async fn beside<T>(&self, work: impl Future<Output = T>, tools: &BuildTools) -> T {
        match (&self.request.goal, self.settings.targets.first()) {
            // A shared compile cache has the standard library compiled already.
            (Goal::Build(_), Some(target)) if !compile_cache::is_wanted(self.request) => {
                precompile::beside(work, &tools.go, self.settings, target, tools.scratch.path()).await
            }
            _ => work.await,
        }
    }

    fn stamp(&self, lock: &Lock) -> Stamp {
        Stamp::choose(
            &self.request.options.stamp,
            &self.manifest.build_args,
            &self.request.environment,
            &lock.roadrunner.version,
            lock.roadrunner.time,
        )
    }

    /// Tells of a lock that needed no resolving.
    fn resolved(&self, lock: &Lock, started: Instant) -> Result<BuildSummary, Error> {
        self.reporter.report(Event::Started(Phase::Resolve));
        self.report_resolved(lock)?;
        self.reporter.report(Event::Finished(Phase::Resolve, started.elapsed()));
        Ok(self.summary(lock, &self.stamp(lock)))
    }

    fn report_resolved(&self, lock: &Lock) -> Result<(), Error> {
        let mut wrong = Vec::new();
        for raised in &lock.raised {
            if !self.settings.strict {
                self.reporter.report(Event::Raised(raised.clone()));
                continue;
            }
            let message = format!(
                "{} would be compiled at {}, not at {} as asked: {} demands it",
                raised.name,
                raised.selected,
                raised.asked,
                raised.demanded_by.join(", ")
            );
            let plugin = self.manifest.plugins.iter().find(|plugin| plugin.name.value == raised.name);
            let span = plugin.and_then(|plugin| plugin.reference.span.clone());
            let mut diagnostic = finding(message, span, Some("raised by Go's minimal version selection"));
            diagnostic
                .help
                .push(format!("ask for {}, or for an older version of what demands it", raised.selected));
            diagnostic.help.push("without --strict (strict = true) this is a warning".to_owned());
            wrong.push(diagnostic);
        }
        if !wrong.is_empty() {
            return Err(Error::many(ErrorKind::Build, wrong).fault(Blame::Request));
        }
        self.reporter.report(Event::Resolved {
            roadrunner: lock.roadrunner.module.clone(),
            version: lock.roadrunner.version.clone(),
            plugins: lock.plugins.iter().map(LockedPlugin::row).collect(),
        });
        Ok(())
    }

    fn replaced(&self, lock: &Lock) -> Vec<(String, PathBuf)> {
        key::replaced_directories(lock, self.manifest, &self.request.base)
    }

    fn wanted(
        &self,
        lock: &Lock,
        stamp: &Stamp,
        output: &Output,
        replaced: &[(String, PathBuf)],
    ) -> Result<Vec<BuildTarget<'_>>, Error> {
        self.variants
            .iter()
            .map(|variant| {
                let key = key::of(lock, variant, self.settings, stamp, replaced)?;
                let usable = key.as_deref().filter(|_| {
                    !self.request.options.cache.recompile && !self.request.options.workspace.keep
                });
                let artifact = usable.and_then(|key| self.store.get(key));
                Ok(BuildTarget {
                    reused: artifact.is_some(),
                    artifact,
                    compile_cache: None,
                    file: output.file(&self.settings.binary_name(&variant.target)),
                    key,
                    variant,
                })
            })
            .collect()
    }

    async fn compile_all(
        &self,
        tools: &BuildTools,
        lock: &Lock,
        workspace: &Workspace,
        output: &Output,
        summary: BuildSummary,
    ) -> Result<BuildSummary, Error> {
        let stamp = self.stamp(lock);
        phase(&*self.reporter, Phase::Prepare, async { prepare(lock, &stamp, self.settings, workspace) })
            .await?;
        let copies = key::copies(lock, workspace, self.replaced(lock))?;
        let wanted = self.wanted(lock, &stamp, output, &copies)?;
        let license = std::fs::read(workspace.directory().join("LICENSE")).ok();
        let made: Vec<BuildTarget<'_>> = stream::iter(wanted)
            .map(async |wanted| match wanted.artifact {
                Some(_) => Ok(wanted),
                None => self.compile_one(tools, lock, &stamp, workspace, license.as_deref(), wanted).await,
            })
            .buffered(TARGETS_AT_ONCE)
            .try_collect()
            .await?;
        let summary = self.publish_all(summary, made.iter()).await?;
        let made: Vec<&str> = made.iter().filter_map(|wanted| wanted.key.as_deref()).collect();
        self.store.keep_within(
            self.request.options.cache.store_limit_bytes.unwrap_or(DEFAULT_STORE_LIMIT_BYTES),
            &made,
        );
        if self.request.options.workspace.keep {
            let path = workspace.directory().to_owned();
            self.reporter.report(Event::Note(Note::WorkspaceKept { path }));
        }
        Ok(summary)
    }

    async fn compile_one<'w>(
        &self,
        tools: &BuildTools,
        lock: &Lock,
        stamp: &Stamp,
        workspace: &Workspace,
        license: Option<&[u8]>,
        mut wanted: BuildTarget<'w>,
    ) -> Result<BuildTarget<'w>, Error> {
        let BuildTarget { variant, .. } = wanted;
        let BuildTools { go, children, scratch, .. } = tools;
        let shared = CompileCacheSession::new(self.request, go, &lock.go_version, variant, scratch.path())?;
        let with_cache = match &shared {
            Some(Ok(shared)) => Some(go.with_environment(&shared.environment)),
            _ => None,
        };
        let go = with_cache.as_ref().unwrap_or(go);
        let binary = GoBuild {
            request: self.request,
            settings: self.settings,
            go,
            lock,
            stamp,
            workspace,
            variant,
            reporter: &*self.reporter,
        }
        .run()
        .await?;
        wanted.compile_cache =
            shared.map(|shared| shared.map_or_else(|unused| unused, |shared| shared.finish()));
        let locked = lock.targets.get(variant).cloned().unwrap_or_default();
        phase(&*self.reporter, Phase::Verify, async {
            verify::build_information(&binary, lock, &locked)?;
            if variant.target == GoTarget::host() && !self.request.options.compile.skip_smoke_test {
                verify::smoke_test(&binary, children, stamp, scratch.path()).await?;
            }
            Ok(())
        })
        .await?;
        let about = format!(
            "RoadRunner {} with {} plugins for {}",
            lock.roadrunner.version,
            lock.plugins.len(),
            variant.target
        );
        wanted.artifact = Some(match &wanted.key {
            Some(key) => self.store.put(key, &binary, license, about)?,
            None => StoredArtifact::outside(&binary, license, about)?,
        });
        Ok(wanted)
    }

    async fn publish_all<'w>(
        &self,
        mut summary: BuildSummary,
        made: impl Iterator<Item = &'w BuildTarget<'w>>,
    ) -> Result<BuildSummary, Error> {
        let mut binaries = Vec::new();
        for BuildTarget { variant, file, key, artifact, reused, compile_cache } in made {
            let Some(artifact) = artifact.clone() else { continue };
            let stays = key.is_some() && matches!(self.request.goal, Goal::Build(Output::Store(_)));
            if let Some(did) = compile_cache.clone() {
                summary.compile_cache.get_or_insert_default().add(did);
            }
            let archived = self.request.options.archive.then(|| ArchiveName {
                version: summary.stamp_version.clone(),
                target: variant.target.clone(),
            });
            binaries.push((
                BuiltBinary {
                    target: variant.target.to_string(),
                    path: if stays { artifact.binary() } else { file.clone() },
                    size: artifact.size,
                    sha256: artifact.sha256.clone(),
                    reused: *reused,
                    archive: None,
                },
                artifact,
                archived,
            ));
        }
        if self.cancel.is_cancelled() {
            return Err(Error::interrupted());
        }
        let publish_them = tokio::task::spawn_blocking(move || {
            let mut published = Vec::new();
            for (mut binary, artifact, archived) in binaries {
                if binary.path != artifact.binary() {
                    publish(&artifact, &binary.path, !binary.reused)?;
                }
                binary.archive = archived
                    .map(|release| archive::write(&release, &artifact, parent(&binary.path)))
                    .transpose()?;
                published.push(binary);
            }
            archive::write_checksums(&published)?;
            Ok(published)
        });
        let work = async {
            publish_them.await.map_err(|error| Error::build(format!("publishing ended early: {error}")))?
        };
        summary.binaries = phase(&*self.reporter, Phase::Publish, work).await?;
        Ok(summary)
    }

    fn summary(&self, lock: &Lock, stamp: &Stamp) -> BuildSummary {
        BuildSummary {
            roadrunner: lock.roadrunner.module.clone(),
            version: lock.roadrunner.version.clone(),
            plugins: lock.plugins.iter().map(LockedPlugin::row).collect(),
            raised: lock.raised.clone(),
            targets: self.settings.targets.clone(),
            go_version: lock.go_version.clone(),
            stamp_version: stamp.version.clone(),
            stamp_time: stamp.time.clone(),
            go_mod: lock.go_mod.clone(),
            lock: self.request.lock.clone().filter(|_| self.request.updates_lock),
            binaries: Vec::new(),
            compile_cache: None,
        }
    }
}

/// Makes the workspace what the Lock says, with the record of this build inside.
fn prepare(lock: &Lock, stamp: &Stamp, settings: &BuildSettings, workspace: &Workspace) -> Result<(), Error> {
    let record = serde_json::to_string(&BuildRecord::new(lock, stamp, settings))
        .map_err(|error| Error::build(format!("can't write the record of this build: {error}")))?;
    let modules: Vec<&str> = lock.plugins.iter().map(|plugin| plugin.module.as_str()).collect();
    workspace.write("go.mod", &lock.go_mod)?;
    workspace.write("go.sum", &lock.go_sum)?;
    workspace.write("container/plugins.go", &plugins_go::plugins_go(&modules, &record))
}

fn parent(file: &Path) -> &Path {
    file.parent().unwrap_or(Path::new("."))
}
