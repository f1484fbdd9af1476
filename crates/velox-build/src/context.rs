//! The context that the stages of a build share: the request with its settings, and the tools.

use std::{path::PathBuf, sync::Arc};

use futures::{FutureExt, future::LocalBoxFuture};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use velox_fetch::download::Fetcher;
use velox_gomod::goversion::GoVersion;
use velox_manifest::{Diagnostic, GoSelection, Manifest, Spanned};

use crate::{
    cache_directory::{cache_directory, check_go_cache, secure},
    error::{Blame, Error, ErrorKind},
    event::{BuildSummary, Event, Reporter},
    forges::Forges,
    go_memory::{available_memory, garbage_collector_variables},
    lock::{Lock, LockFile, LockedPlugin, RequestedVersions, TargetVariant, go_setting, unused_directives},
    module_request::roadrunner_release,
    network::Network,
    process::CommandRunner,
    request::{BuildRequest, Goal, Output, Upgrade},
    settings::BuildSettings,
    shared_caches::SharedArtifacts,
    stamp::Stamp,
    toolchain::{InstalledGo, Toolchain, Toolchains},
    workspace::scratch::ScratchDirectory,
};

pub(crate) struct BuildContext<'a> {
    pub(crate) request: &'a BuildRequest,
    /// With each `[[replaces]]` of a plugin moved to that plugin.
    pub(crate) manifest: Manifest,
    pub(crate) settings: BuildSettings,
    pub(crate) requested: RequestedVersions,
    pub(crate) variants: Vec<TargetVariant>,
    pub(crate) reporter: Arc<dyn Reporter>,
    pub(crate) cancel: CancellationToken,
    /// Notified when all packages of a target are compiled, before they are linked.
    pub(crate) compiled: Notify,
    pub(crate) shared: SharedArtifacts,
}

/// A scratch directory, a go command and the network.
pub(crate) struct BuildTools {
    pub(crate) scratch: ScratchDirectory,
    pub(crate) go: Toolchain,
    pub(crate) toolchains: Toolchains,
    pub(crate) commands: CommandRunner,
    pub(crate) forges: Forges,
    pub(crate) fetcher: Option<Fetcher>,
}

impl<'a> BuildContext<'a> {
    pub(crate) fn new(
        request: &'a BuildRequest,
        reporter: Arc<dyn Reporter>,
        cancel: CancellationToken,
    ) -> Result<Self, Error> {
        let manifest = request.manifest.with_plugin_replacements();
        let settings = BuildSettings::new(&manifest, &request.options, &request.environment)?;
        Ok(Self {
            requested: RequestedVersions::new(&manifest, &settings, &request.base),
            variants: settings.targets.iter().map(|target| TargetVariant::new(target, &settings)).collect(),
            request,
            manifest,
            settings,
            reporter,
            cancel,
            compiled: Notify::new(),
            shared: SharedArtifacts::default(),
        })
    }

    /// The first target.
    pub(crate) fn first_variant(&self) -> Result<&TargetVariant, Error> {
        self.variants.first().ok_or_else(|| Error::configuration("there is no target"))
    }

    pub(crate) fn note(&self, text: String) {
        self.reporter.report(Event::note(text));
    }

    /// Whether a lock that does not match the manifest is an error.
    pub(crate) fn is_locked(&self) -> bool {
        self.request.options.versions.locked || self.request.goal == Goal::CheckLock
    }

    /// The lock, if no version has to be resolved.
    pub(crate) fn matching_lock(&self, found: &LockFile) -> Result<Option<Lock>, Error> {
        match found.matching(&self.requested) {
            Ok(lock) => {
                let upgrades = self.request.options.versions.upgrade != Upgrade::Nothing;
                let keeps_go = self.manifest.go.is_none() || self.unlocked_go(found).is_none();
                Ok((lock.covers(&self.variants) && !upgrades && keeps_go).then(|| lock.clone()))
            }
            Err(differences) if self.is_locked() => Err(found.mismatch(&differences)),
            // Resolving again would trust whatever a proxy sends instead.
            Err(_) => match found.lock.as_ref().map(|lock| self.requested.missing_sums(lock)) {
                Some(missing) if !missing.is_empty() && self.request.goal != Goal::Lock => {
                    Err(Error::configuration(missing.join("\n"))
                        .help("it was edited or truncated: recreate it with `vx lock`"))
                }
                _ => Ok(None),
            },
        }
    }

    /// Drops a lock that somebody edited, with a warning.
    pub(crate) fn drop_edited(&self, found: &mut LockFile) {
        let edits = found.drop_edited(&self.requested);
        if edits.is_empty() {
            return;
        }
        let message =
            format!("{} has what the configuration doesn't request: {}", found.name(), edits.join("; "));
        let warning = Diagnostic::warning(message)
            .help("all versions are resolved again; review where the change came from: a lock decides what is compiled");
        self.reporter.report(Event::Warning(warning));
    }

    /// `locked`: the lock, if no version has to be resolved.
    pub(crate) fn tools<'b>(
        &'b self,
        found: &'b LockFile,
        locked: Option<&'b Lock>,
    ) -> LocalBoxFuture<'b, Result<BuildTools, Error>> {
        async move {
            let BuildRequest { options, environment, .. } = self.request;
            let parent = options.workspace.parent.clone().unwrap_or_else(|| cache_directory(environment));
            secure(&parent)?;
            let scratch = ScratchDirectory::create(&parent, options.workspace.keep)?;
            let plain = CommandRunner::new(self.request, &self.reporter, &self.cancel);
            let installed = InstalledGo::find(&plain, options.go.as_deref(), scratch.path()).await?;
            check_go_cache("GOMODCACHE", &installed.settings.gomodcache)?;
            check_go_cache("GOCACHE", &installed.settings.gocache)?;
            let Network { children: commands, forges, fetcher } =
                Network::new(self.request, &installed.settings, scratch.path(), &plain).await?;
            let memory = garbage_collector_variables(environment, available_memory());
            let toolchains = Toolchains {
                installed,
                children: commands.with_environment(&memory),
                fetcher: fetcher.clone(),
                offline: options.is_offline(),
                scratch: scratch.path().to_owned(),
            };
            let go = match (locked, &found.lock) {
                (Some(lock), _) => toolchains
                    .exactly(&lock.go_version, lock.toolchain_sum())
                    .await
                    .map_err(|error| found.at_go_version(error))?,
                (None, _) if let Some(selection) = self.unlocked_go(found) => toolchains
                    .selected(&selection.value, None)
                    .await
                    .map_err(|error| error.at(&selection.span))?,
                (None, Some(lock)) if options.versions.upgrade != Upgrade::Everything => {
                    match toolchains.allows(&lock.go_version) {
                        Ok(()) => toolchains.from(&lock.go_version, lock.toolchain_sum()).await?,
                        Err(error) if self.is_locked() => return Err(error),
                        Err(_) => self.any_go(&toolchains).await?,
                    }
                }
                (None, _) => self.any_go(&toolchains).await?,
            };
            Ok(BuildTools { scratch, go, toolchains, commands, forges, fetcher })
        }
        .boxed_local()
    }

    /// The `[go] version` that the lock doesn't have; `release` is decided when RoadRunner is resolved.
    fn unlocked_go(&self, found: &LockFile) -> Option<&Spanned<GoSelection>> {
        let selection = self.manifest.go.as_ref().filter(|go| go.value != GoSelection::Release)?;
        let is_new_enough = |lock: &Lock| {
            let lowest = self.request.options.versions.lowest_go.as_ref().and_then(|it| it.parse().ok());
            lowest.is_none_or(|lowest: GoVersion| {
                GoVersion::from_toolchain_name(&lock.go_version) >= Some(lowest)
            })
        };
        let is_kept =
            |lock: &Lock| lock.settings.contains(&go_setting(&selection.value)) && is_new_enough(lock);
        let upgrades = self.request.options.versions.upgrade == Upgrade::Everything;
        (upgrades || !found.lock.as_ref().is_some_and(is_kept)).then_some(selection)
    }

    async fn any_go(&self, toolchains: &Toolchains) -> Result<Toolchain, Error> {
        toolchains.for_release(roadrunner_release(&self.manifest).as_ref()).await
    }

    /// Reports the versions of a lock, and a stamp that contradicts them. With `--strict`, a raised plugin is an error.
    pub(crate) fn report_versions(&self, lock: &Lock) -> Result<(), Error> {
        if let Goal::Build(Output::Directory(_) | Output::File(_)) | Goal::DryRun(_) = &self.request.goal
            && let Some(contradiction) = self.stamp(lock).contradiction(&lock.roadrunner.version)
        {
            self.reporter.report(Event::Warning(contradiction));
        }
        for warning in unused_directives(&self.manifest, lock) {
            self.reporter.report(Event::Warning(warning));
        }
        if !self.settings.strict || lock.raised.is_empty() {
            report_versions(lock, &*self.reporter);
            return Ok(());
        }
        let diagnostics = lock.raised.iter().map(|raised| {
            let message = format!(
                "plugin {} was requested at {}, but {} requires {}",
                raised.name,
                raised.asked,
                raised.demanded_by.join(", "),
                raised.selected,
            );
            let plugin = self.manifest.plugins.iter().find(|plugin| plugin.name.value == raised.name);
            let span = plugin.and_then(|plugin| plugin.reference.span.clone());
            Diagnostic::error(message)
                .at(span)
                .label("raised by minimal version selection")
                .help(format!(
                    "request {}, or an older version of the module that requires it",
                    raised.selected
                ))
                .help("without --strict (strict = true) this is a warning")
        });
        Err(Error::many(ErrorKind::Build, diagnostics.collect()).fault(Blame::Request))
    }

    pub(crate) fn stamp(&self, lock: &Lock) -> Stamp {
        stamp(self.request, &self.settings, lock)
    }

    /// The directories of local replacements, each with the path of the replaced module.
    pub(crate) fn replaced(&self, lock: &Lock) -> Vec<(String, PathBuf)> {
        lock.replaced_directories(&self.manifest, &self.request.base)
    }

    pub(crate) fn summary(&self, lock: &Lock) -> BuildSummary {
        let place = self.request.lock.clone().filter(|_| self.request.updates_lock);
        summary(self.request, &self.settings, lock, place)
    }
}

pub(crate) fn report_versions(lock: &Lock, reporter: &dyn Reporter) {
    for raised in &lock.raised {
        reporter.report(Event::Raised(raised.clone()));
    }
    for of_plugin in lock.lowered.chunk_by(|one, other| one.plugin == other.plugin) {
        let modules =
            of_plugin.iter().map(|lowered| format!("{} {} to {}", lowered.module, lowered.from, lowered.to));
        let plugin = of_plugin.first().map(|lowered| lowered.plugin.as_str()).unwrap_or_default();
        let text = format!(
            "plugin {plugin} doesn't compile with RoadRunner's own dependencies; lowered: {}",
            modules.collect::<Vec<_>>().join(", ")
        );
        reporter.report(Event::note(text));
    }
    reporter.report(Event::Resolved {
        roadrunner: lock.roadrunner.module.clone(),
        version: lock.roadrunner.version.clone(),
        plugins: lock.plugins.iter().map(LockedPlugin::row).collect(),
    });
}

pub(crate) fn stamp(request: &BuildRequest, settings: &BuildSettings, lock: &Lock) -> Stamp {
    let (options, environment) = (&request.options.stamp, &request.environment);
    let roadrunner = &lock.roadrunner;
    Stamp::choose(options, &settings.arguments, environment, &roadrunner.version, roadrunner.time)
}

/// The summary of a build that has no binaries yet. `place`: the lock file.
pub(crate) fn summary(
    request: &BuildRequest,
    settings: &BuildSettings,
    lock: &Lock,
    place: Option<PathBuf>,
) -> BuildSummary {
    let stamp = stamp(request, settings, lock);
    BuildSummary {
        roadrunner: lock.roadrunner.module.clone(),
        version: lock.roadrunner.version.clone(),
        commit: lock.roadrunner.commit.clone(),
        plugins: lock.plugins.iter().map(LockedPlugin::row).collect(),
        raised: lock.raised.clone(),
        lowered: lock.lowered.clone(),
        targets: settings.targets.clone(),
        variables: settings.variables.clone(),
        go_version: lock.go_version.clone(),
        stamp_version: stamp.version,
        stamp_version_source: stamp.version_source,
        stamp_time: stamp.time,
        stamp_time_source: stamp.time_source,
        go_mod: lock.go_mod.text().to_owned(),
        lock: place,
        binaries: Vec::new(),
        attestation: None,
        compile_cache: None,
        image: None,
    }
}
