use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use futures::{StreamExt, TryStreamExt, stream};
use tokio_util::sync::CancellationToken;
use velox_fetch::download::Fetcher;
use velox_manifest::{GoTarget, Manifest};

use crate::{
    Binary, CompileCache, Error, ErrorKind, Event, Fault, Goal, Note, Output, Phase, Reporter, Request,
    Store, Summary, archive,
    cache::cache_directory,
    compile::{Compile, linker_flags},
    compile_cache, container,
    error::finding,
    key,
    lock::{Asked, Lock, LockFile, LockedTarget, Variant},
    network::Network,
    precompile,
    process::Children,
    publish::publish,
    record::Record,
    resolve::{Forges, Resolver, roadrunner_release, with_replaces_at_plugins},
    scratch::Scratch,
    settings::Settings,
    stamp::Stamp,
    store::{Artifact, DEFAULT_LIMIT},
    toolchain::{Installed, Toolchain, Toolchains},
    verify,
    workspace::Workspace,
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
    request: &Request,
    reporter: Arc<dyn Reporter>,
    cancel: CancellationToken,
) -> Result<Summary, Error> {
    let manifest = with_replaces_at_plugins(&request.manifest);
    let settings = Settings::new(&manifest, &request.options, &request.environment);
    Pipeline::new(request, &manifest, &settings, reporter, cancel).run().await
}

pub(crate) struct Pipeline<'a> {
    pub(crate) request: &'a Request,
    /// With its replaces at its plugins.
    pub(crate) manifest: &'a Manifest,
    settings: &'a Settings,
    pub(crate) asked: Asked,
    variants: Vec<Variant>,
    store: Store,
    pub(crate) reporter: Arc<dyn Reporter>,
    cancel: CancellationToken,
}

/// One binary to make.
struct Wanted<'a> {
    variant: &'a Variant,
    file: PathBuf,
    key: Option<String>,
    /// `None`: it has to be compiled.
    artifact: Option<Artifact>,
    /// Whether the store had it.
    reused: bool,
    compile_cache: Option<CompileCache>,
}

/// What a build needs beyond its own values: a directory, a go command, the network.
pub(crate) struct Tools {
    pub(crate) scratch: Scratch,
    pub(crate) go: Toolchain,
    toolchains: Toolchains,
    children: Children,
    forges: Forges,
    fetcher: Option<Fetcher>,
}

impl<'a> Pipeline<'a> {
    pub(crate) fn new(
        request: &'a Request,
        manifest: &'a Manifest,
        settings: &'a Settings,
        reporter: Arc<dyn Reporter>,
        cancel: CancellationToken,
    ) -> Self {
        Self {
            request,
            asked: Asked::new(manifest, settings, &request.base),
            variants: settings.targets.iter().map(|target| Variant::new(target, settings)).collect(),
            store: Store::new(&cache_directory(&request.environment)),
            manifest,
            settings,
            reporter,
            cancel,
        }
    }
}

impl Pipeline<'_> {
    async fn run(self) -> Result<Summary, Error> {
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
            Ok(lock) if lock.covers(&self.variants) && !self.renews() => Some(lock.clone()),
            Ok(_) => None,
            Err(differences) if self.must_fit() => return Err(does_not_fit(&found, &differences)),
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
        let Request { options, environment, .. } = self.request;
        let stamp = Stamp::choose(options, &self.manifest.build_args, environment, "", 0);
        linker_flags(self.settings, "", &stamp).map(drop)
    }

    /// `vx lock --upgrade NAME` names what is there.
    fn check_names(&self) -> Result<(), Error> {
        let names = || self.manifest.plugins.iter().map(|plugin| plugin.name.value.as_str());
        let unknown = |only: &&String| *only != "roadrunner" && !names().any(|name| name == *only);
        match self.request.options.upgrade_only.iter().find(unknown) {
            None => Ok(()),
            Some(name) => Err(Error::configuration(format!("there is no plugin `{name}`"))
                .help(format!("there are: roadrunner, {}", names().collect::<Vec<_>>().join(", ")))),
        }
    }

    /// Whether versions of the lock are to be replaced.
    fn renews(&self) -> bool {
        self.request.options.upgrade || !self.request.options.upgrade_only.is_empty()
    }

    pub(crate) fn must_fit(&self) -> bool {
        self.request.options.locked || self.request.goal == Goal::CheckLock
    }

    /// `fits`: the lock, where no version is asked for any more.
    pub(crate) async fn tools(&self, found: &LockFile, fits: Option<&Lock>) -> Result<Tools, Error> {
        let request = self.request;
        let place =
            request.options.workspaces.clone().unwrap_or_else(|| cache_directory(&request.environment));
        let scratch = Scratch::create(&place, request.options.keep_workspace)?;
        let plain = Children::new(request, &self.reporter, &self.cancel);
        let installed = Installed::find(&plain, request.options.go.as_deref(), scratch.path()).await?;
        let Network { children, forges, fetcher } =
            Network::new(request, &installed.settings, scratch.path(), &plain).await?;
        let toolchains = Toolchains {
            installed,
            children: children.clone(),
            fetcher: fetcher.clone(),
            offline: request.options.offline,
            scratch: scratch.path().to_owned(),
        };
        let go = match (fits, &found.lock) {
            (Some(lock), _) => toolchains.exactly(&lock.go_version, lock.toolchain_sum()).await?,
            (None, Some(lock)) if !request.options.upgrade => match toolchains.allows(&lock.go_version) {
                Ok(()) => toolchains.from(&lock.go_version, lock.toolchain_sum()).await?,
                Err(error) if self.must_fit() => return Err(error),
                Err(_) => self.any_go(&toolchains).await?,
            },
            (None, _) => self.any_go(&toolchains).await?,
        };
        Ok(Tools { scratch, go, toolchains, children, forges, fetcher })
    }

    async fn any_go(&self, toolchains: &Toolchains) -> Result<Toolchain, Error> {
        toolchains.for_release(roadrunner_release(self.manifest).as_ref()).await
    }

    pub(crate) fn resolver<'a>(&'a self, tools: &'a Tools, previous: Option<&'a Lock>) -> Resolver<'a> {
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
        tools: &mut Tools,
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
                return Err(does_not_fit(found, &[message]));
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
            && self.request.unchanged
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
        tools: &Tools,
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
    async fn beside<T>(&self, work: impl Future<Output = T>, tools: &Tools) -> T {
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
            &self.request.options,
            &self.manifest.build_args,
            &self.request.environment,
            &lock.roadrunner.version,
            lock.roadrunner.time,
        )
    }

    /// Tells of a lock that needed no resolving.
    fn resolved(&self, lock: &Lock, started: Instant) -> Result<Summary, Error> {
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
            return Err(Error::many(ErrorKind::Build, wrong).fault(Fault::Request));
        }
        self.reporter.report(Event::Resolved {
            roadrunner: lock.roadrunner.module.clone(),
            version: lock.roadrunner.version.clone(),
            plugins: lock.plugins.iter().map(crate::LockedPlugin::row).collect(),
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
    ) -> Result<Vec<Wanted<'_>>, Error> {
        self.variants
            .iter()
            .map(|variant| {
                let key = key::of(lock, variant, self.settings, stamp, replaced)?;
                let usable = key
                    .as_deref()
                    .filter(|_| !self.request.options.no_cache && !self.request.options.keep_workspace);
                let artifact = usable.and_then(|key| self.store.get(key));
                Ok(Wanted {
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
        tools: &Tools,
        lock: &Lock,
        workspace: &Workspace,
        output: &Output,
        summary: Summary,
    ) -> Result<Summary, Error> {
        let stamp = self.stamp(lock);
        phase(&*self.reporter, Phase::Prepare, async { prepare(lock, &stamp, self.settings, workspace) })
            .await?;
        let copies = key::copies(lock, workspace, self.replaced(lock))?;
        let wanted = self.wanted(lock, &stamp, output, &copies)?;
        let license = std::fs::read(workspace.directory().join("LICENSE")).ok();
        let made: Vec<Wanted<'_>> = stream::iter(wanted)
            .map(async |wanted| match wanted.artifact {
                Some(_) => Ok(wanted),
                None => self.compile_one(tools, lock, &stamp, workspace, license.as_deref(), wanted).await,
            })
            .buffered(TARGETS_AT_ONCE)
            .try_collect()
            .await?;
        let summary = self.publish_all(summary, made.iter()).await?;
        let made: Vec<&str> = made.iter().filter_map(|wanted| wanted.key.as_deref()).collect();
        self.store.keep_within(self.request.options.cache_limit.unwrap_or(DEFAULT_LIMIT), &made);
        if self.request.options.keep_workspace {
            let path = workspace.directory().to_owned();
            self.reporter.report(Event::Note(Note::WorkspaceKept { path }));
        }
        Ok(summary)
    }

    async fn compile_one<'w>(
        &self,
        tools: &Tools,
        lock: &Lock,
        stamp: &Stamp,
        workspace: &Workspace,
        license: Option<&[u8]>,
        mut wanted: Wanted<'w>,
    ) -> Result<Wanted<'w>, Error> {
        let Wanted { variant, .. } = wanted;
        let Tools { go, children, scratch, .. } = tools;
        let shared = compile_cache::Use::new(self.request, go, &lock.go_version, variant, scratch.path())?;
        let with_cache = match &shared {
            Some(Ok(shared)) => Some(go.with_environment(&shared.environment)),
            _ => None,
        };
        let go = with_cache.as_ref().unwrap_or(go);
        let binary = Compile {
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
            if variant.target == GoTarget::host() && !self.request.options.no_smoke_test {
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
            None => Artifact::outside(&binary, license, about)?,
        });
        Ok(wanted)
    }

    async fn publish_all<'w>(
        &self,
        mut summary: Summary,
        made: impl Iterator<Item = &'w Wanted<'w>>,
    ) -> Result<Summary, Error> {
        let mut binaries = Vec::new();
        for Wanted { variant, file, key, artifact, reused, compile_cache } in made {
            let Some(artifact) = artifact.clone() else { continue };
            let stays = key.is_some() && matches!(self.request.goal, Goal::Build(Output::Store(_)));
            if let Some(did) = compile_cache.clone() {
                summary.compile_cache.get_or_insert_default().add(did);
            }
            let archived = self.request.options.archive.then(|| archive::Release {
                version: summary.stamp_version.clone(),
                target: variant.target.clone(),
            });
            binaries.push((
                Binary {
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

    fn summary(&self, lock: &Lock, stamp: &Stamp) -> Summary {
        Summary {
            roadrunner: lock.roadrunner.module.clone(),
            version: lock.roadrunner.version.clone(),
            plugins: lock.plugins.iter().map(crate::LockedPlugin::row).collect(),
            raised: lock.raised.clone(),
            targets: self.settings.targets.clone(),
            go_version: lock.go_version.clone(),
            stamp_version: stamp.version.clone(),
            stamp_time: stamp.time.clone(),
            go_mod: lock.go_mod.clone(),
            lock: self.request.lock.clone().filter(|_| self.request.unchanged),
            binaries: Vec::new(),
            compile_cache: None,
        }
    }
}

pub(crate) async fn phase<T>(
    reporter: &dyn Reporter,
    phase: Phase,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    reporter.report(Event::Started(phase));
    let since = Instant::now();
    let done = work.await?;
    reporter.report(Event::Finished(phase, since.elapsed()));
    Ok(done)
}

/// Makes the workspace what the Lock says, with the record of this build inside.
fn prepare(lock: &Lock, stamp: &Stamp, settings: &Settings, workspace: &Workspace) -> Result<(), Error> {
    let record = serde_json::to_string(&Record::new(lock, stamp, settings))
        .map_err(|error| Error::build(format!("can't write the record of this build: {error}")))?;
    let modules: Vec<&str> = lock.plugins.iter().map(|plugin| plugin.module.as_str()).collect();
    workspace.write("go.mod", &lock.go_mod)?;
    workspace.write("go.sum", &lock.go_sum)?;
    workspace.write("container/plugins.go", &container::plugins_go(&modules, &record))
}

fn parent(file: &Path) -> &Path {
    file.parent().unwrap_or(Path::new("."))
}

pub(crate) fn does_not_fit(found: &LockFile, differences: &[String]) -> Error {
    let mut error = if found.lock.is_some() {
        Error::configuration(format!("{} doesn't fit the configuration", found.name()))
    } else {
        Error::configuration(format!("there is no {} to hold to", found.name()))
    };
    error = error.help("`vx lock` brings it up to date: commit what it changes");
    if found.lock.is_some() { error.output(differences.to_vec()) } else { error }
}
