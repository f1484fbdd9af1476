//! Resolves a manifest to a [`Lock`].

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use futures::{FutureExt, future::LocalBoxFuture};
use velox_gomod::{
    gosum::GoSum,
    goversion::GoVersion,
    modfile::{GoMod, GoModFile, Replace},
    module::ModuleVersion,
    semver,
};
use velox_manifest::{
    Diagnostic, GoSelection, GoTarget, ModuleDirective, Plugin, Replacement, VersionConstraint,
};

use super::{
    compose::GoModComposition,
    directives,
    held_back::HeldBackPlugins,
    packages,
    plugin::{ResolvedPlugin, add_built_in, local_go_mod, local_plugin, remote_plugin, same_modules},
    resolved::ResolvedModule,
    resolver::Resolver,
};
use crate::{
    error::{Error, ErrorKind},
    event::{LoweredModule, RaisedPlugin},
    imports::{PLUGINS_GO, imports_of, registered_plugins},
    local_module::LocalDirectives,
    lock::{Lock, LockedPlugin, LockedReplacement, LockedRoadRunner},
    module_request::{ModuleRequest, PluginSource, PreviousResolution},
    request::Goal,
    workspace::{Workspace, plugins_go},
};

/// A RoadRunner release.
#[derive(Debug, Clone)]
pub struct RoadRunnerRelease {
    /// The module with its exact version.
    pub module: ModuleVersion,
    /// Its go.mod.
    pub go_mod: GoMod,
    /// The plugins of its `container/plugins.go`.
    pub plugins: Vec<ModuleVersion>,
}

/// The owner of a resolved module, by its index in the manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum ModuleOwner {
    RoadRunner,
    Plugin(usize),
    Replace(usize),
}

type ResolvedByOwner = BTreeMap<ModuleOwner, ResolvedModule>;

impl Resolver<'_> {
    /// Resolves the manifest. The workspace used for it is returned for the next stage.
    pub(crate) async fn resolve(&self) -> Result<(Lock, Workspace), Error> {
        let manifest = &self.context.manifest;
        let (owners, requests): (Vec<ModuleOwner>, Vec<ModuleRequest>) = self.asks()?.into_iter().unzip();
        let resolved: ResolvedByOwner = owners.into_iter().zip(self.pin(&requests).await?).collect();
        let roadrunner = resolved
            .get(&ModuleOwner::RoadRunner)
            .ok_or_else(|| Error::build("internal error: RoadRunner was not resolved"))?;
        let release = release(roadrunner)?;
        let mut plugins = self.plugins(&resolved)?;
        for text in add_built_in(&mut plugins, &roadrunner.tree, &release, &roadrunner.module)? {
            self.context.note(text);
        }
        plugins.sort_by(|a, b| a.name.cmp(&b.name));
        directives::check(manifest, &roadrunner.module, &plugins)?;

        let (line, module) = newest_go_line(&release, roadrunner, &plugins);
        let named = match &manifest.go {
            Some(go) if go.value == GoSelection::Release => {
                let selected = self.tools.toolchains.selected(&go.value, Some(&release)).await;
                Some(selected.map_err(|error| error.at(&go.span))?)
            }
            _ => None,
        };
        let go = named.as_ref().unwrap_or(self.go);
        let newer = self.tools.toolchains.newer(go, line, module, manifest).await?;
        let go = newer.as_ref().unwrap_or(go);
        Resolver { go, ..*self }.complete(&release, roadrunner, &resolved, plugins).await
    }

    /// Selects versions with the go command in a new workspace.
    async fn complete(
        &self,
        release: &GoMod,
        roadrunner: &ResolvedModule,
        resolved: &ResolvedByOwner,
        plugins: Vec<ResolvedPlugin>,
    ) -> Result<(Lock, Workspace), Error> {
        let manifest = &self.context.manifest;
        let workspace = Workspace::create(&roadrunner.tree, self.tools.scratch.path().join("src"))?;
        let sums = self.sums(&workspace, resolved.values())?;
        let imports = |counts: &dyn Fn(&str) -> bool| {
            imports_of(workspace.directory(), counts)
                .map_err(|error| Error::file("read", workspace.directory(), &error))
        };
        let registered = &imports(&|path| path == PLUGINS_GO)?;
        let imported = &imports(&|path| path != PLUGINS_GO)?;
        let mut replaces = self.replaces(&plugins, resolved, &workspace)?;
        let versions =
            |lines: &[ModuleDirective]| lines.iter().map(ModuleDirective::module_version).collect();
        let mut excludes: Vec<ModuleVersion> = versions(&manifest.excludes);
        let floors: Vec<ModuleVersion> = versions(&manifest.requires);
        self.local_directives(&plugins, &mut replaces, &mut excludes, &workspace)?;
        let in_list = plugins.iter().filter(|plugin| !plugin.built_in);
        let modules: Vec<&str> = in_list.map(|plugin| plugin.module.as_str()).collect();
        workspace.write(PLUGINS_GO, &plugins_go::plugins_go(&modules))?;
        let mut decisions = HeldBackPlugins::new(self.previous, &roadrunner.module, &plugins);
        // The first round lists the modules with RoadRunner's versions. Each later one lowers the dependencies of
        // another plugin, or raises them again for good.
        let (nothing, mut compiled, mut is_first) = (BTreeSet::new(), None, true);
        loop {
            let composition = GoModComposition {
                release,
                registered,
                imported,
                plugins: &plugins,
                replaces: replaces.clone(),
                excludes: excludes.clone(),
                floors: floors.clone(),
                dependencies: self.context.settings.dependencies,
                lowered: if is_first { &nothing } else { &decisions.lowered },
                compiled: compiled.as_ref(),
            };
            let is_held_back = composition.held_back();
            let held_back: Vec<&ResolvedPlugin> =
                plugins.iter().filter(|plugin| is_held_back.contains(plugin.module.as_str())).collect();
            let composed = composition.go_mod();
            workspace.write("go.mod", &composed.to_string())?;
            workspace.write("go.sum", &sums.to_string())?;
            self.prefetch(&workspace, &composed, &plugins, &sums).await?;
            let listed = self.lock(roadrunner, &plugins, &workspace).await;
            let applies_decisions = std::mem::take(&mut is_first) && !decisions.lowered.is_empty();
            let mut lock = match listed {
                Err(error) if decisions.lower_for(&error, &held_back) || applies_decisions => continue,
                lock => lock?,
            };
            let modules = lock.targets.values().flat_map(|target| &target.modules);
            compiled.get_or_insert_with(|| modules.map(|module| module.path.clone()).collect());
            if applies_decisions {
                continue;
            }
            let writes_lock = matches!(self.context.request.goal, Goal::Build(_) | Goal::Lock | Goal::Fetch);
            if writes_lock && decisions.compile(self, &workspace, &held_back).await? {
                continue;
            }
            lock.lowered = lowered(&lock, release, &plugins, &decisions.lowered);
            return Ok((lock, workspace));
        }
    }

    /// The RoadRunner release, with the plugins it contains.
    pub(crate) fn release<'a>(&'a self) -> LocalBoxFuture<'a, Result<RoadRunnerRelease, Error>> {
        async move {
            let mut request = ModuleRequest::roadrunner(&self.context.manifest);
            request.known = self.known_roadrunner();
            let resolved = self.pin(std::slice::from_ref(&request)).await?;
            let roadrunner = resolved
                .first()
                .ok_or_else(|| Error::build("internal error: RoadRunner was not resolved"))?;
            let go_mod = release(roadrunner)?;
            let plugins = registered_plugins(&roadrunner.tree, &go_mod)
                .map_err(|error| Error::file("read", &roadrunner.tree, &error))?;
            Ok(RoadRunnerRelease { module: roadrunner.module.clone(), go_mod, plugins })
        }
        .boxed_local()
    }

    /// The module and the go.mod of a plugin, or of what replaces it. The version of a directory is empty.
    pub(crate) fn plugin_go_mod<'a>(
        &'a self,
        plugin: &'a Plugin,
    ) -> LocalBoxFuture<'a, Result<(ModuleVersion, GoMod), Error>> {
        async move {
            match PluginSource::new(plugin, &self.context.manifest) {
                PluginSource::Directory(path) => {
                    let span = plugin.replace.as_ref().and_then(|replace| replace.span.clone());
                    let (path, go_mod) = local_go_mod(&self.context.request.base.join(path), &span)?;
                    Ok((ModuleVersion::new(path, ""), go_mod))
                }
                PluginSource::Remote(request) => {
                    let resolved = self.pin(std::slice::from_ref(&*request)).await?;
                    let resolved = resolved
                        .into_iter()
                        .next()
                        .ok_or_else(|| Error::build("internal error: a plugin was not resolved"))?;
                    let go_mod = GoMod::parse_lax(&resolved.go_mod).unwrap_or_default();
                    Ok((resolved.module, go_mod))
                }
            }
        }
        .boxed_local()
    }

    /// The modules to resolve. Local directories are not among them.
    pub(super) fn asks(&self) -> Result<Vec<(ModuleOwner, ModuleRequest)>, Error> {
        let manifest = &self.context.manifest;
        let mut roadrunner = ModuleRequest::roadrunner(manifest);
        roadrunner.known = self.known_roadrunner();
        let mut requests = vec![(ModuleOwner::RoadRunner, roadrunner)];
        for (index, plugin) in manifest.plugins.iter().enumerate() {
            if let PluginSource::Remote(mut request) = PluginSource::new(plugin, manifest) {
                request.known = self.known_plugin(&plugin.name.value);
                requests.push((ModuleOwner::Plugin(index), *request));
            }
        }
        let mut errors = Vec::new();
        for (index, replace) in manifest.replaces.iter().enumerate() {
            let Replacement::Module { path, version } = &replace.new.value else { continue };
            match version {
                Some(version) if semver::canonical(version).as_deref() == Some(version) => {}
                Some(version) => {
                    let subject = format!("the replacement of {}", replace.old.value.0);
                    let request = ModuleRequest::replacement(
                        subject,
                        path,
                        version,
                        replace.new.span.clone(),
                        manifest,
                    );
                    requests.push((ModuleOwner::Replace(index), request));
                }
                None => {
                    let message = format!("the replacement of {} has no version", replace.old.value.0);
                    let diagnostic = Diagnostic::error(message)
                        .at(replace.new.span.clone())
                        .label("a version is required")
                        .help(format!("set new = \"{path}@VERSION\" with a tag, a branch or a commit"));
                    errors.push(diagnostic);
                }
            }
        }
        if errors.is_empty() { Ok(requests) } else { Err(Error::many(ErrorKind::Configuration, errors)) }
    }

    /// RoadRunner in the previous lock, if the requested ref is unchanged.
    fn known_roadrunner(&self) -> Option<PreviousResolution> {
        let is_unchanged = |lock: &&Lock| {
            lock.roadrunner.from == self.context.requested.roadrunner
                && !self.context.request.options.versions.upgrade.includes("roadrunner")
        };
        let lock = self.previous.filter(is_unchanged)?;
        let LockedRoadRunner { commit, time, .. } = &lock.roadrunner;
        Some(PreviousResolution::new(lock, lock.roadrunner(), commit.clone(), Some(*time)))
    }

    /// A plugin in the previous lock, if the requested ref is unchanged. Its name may differ.
    fn known_plugin(&self, name: &str) -> Option<PreviousResolution> {
        let lock = self.previous.filter(|_| !self.context.request.options.versions.upgrade.includes(name))?;
        let from = self.context.requested.plugins.get(name);
        let locked = lock.plugins.iter().find(|plugin| plugin.from.is_some() && plugin.from.as_ref() == from);
        // A raised plugin is resolved at its requested version again: it may no longer be raised.
        let raised = |module: &str| lock.raised.iter().find(|raised| raised.module == module);
        let (module, commit) = locked.and_then(|plugin| match raised(&plugin.module) {
            None => Some((plugin.source()?, plugin.commit.clone())),
            Some(RaisedPlugin { module, asked, .. }) => {
                VersionConstraint::of(&plugin.asked).map(|_| (ModuleVersion::new(module, asked), None))
            }
        })?;
        Some(PreviousResolution::new(lock, module, commit, None))
    }

    /// The resolved plugins of the manifest, or the errors of all of them.
    fn plugins(&self, resolved: &ResolvedByOwner) -> Result<Vec<ResolvedPlugin>, Error> {
        let manifest = &self.context.manifest;
        let mut plugins = Vec::new();
        let mut errors = Vec::new();
        for (index, plugin) in manifest.plugins.iter().enumerate() {
            let result =
                match (PluginSource::new(plugin, manifest), resolved.get(&ModuleOwner::Plugin(index))) {
                    (PluginSource::Directory(path), _) => {
                        local_plugin(plugin, path, &self.context.request.base)
                    }
                    (PluginSource::Remote(_), Some(resolved)) => {
                        let resolved = remote_plugin(plugin, manifest, resolved);
                        if let (None, Some(LockedReplacement::Module { path, .. })) =
                            (&plugin.replace, &resolved.replacement)
                        {
                            self.context.note(format!(
                                "plugin {}: {path} is a fork of {}, and replaces it",
                                resolved.name, resolved.module
                            ));
                        }
                        Ok(resolved)
                    }
                    (PluginSource::Remote(_), None) => continue,
                };
            match result {
                Ok(plugin) => plugins.push(plugin),
                Err(diagnostic) => errors.push(diagnostic),
            }
        }
        errors.extend(same_modules(&plugins));
        if errors.is_empty() { Ok(plugins) } else { Err(Error::many(ErrorKind::Configuration, errors)) }
    }

    /// The replacements of the plugins and of the manifest. Directories are copied into the workspace.
    fn replaces(
        &self,
        plugins: &[ResolvedPlugin],
        resolved: &ResolvedByOwner,
        workspace: &Workspace,
    ) -> Result<Vec<Replace>, Error> {
        let mut replaces = Vec::new();
        for plugin in plugins {
            let (new_path, new_version) = match &plugin.replacement {
                Some(LockedReplacement::Module { path, version }) => (path.clone(), Some(version.clone())),
                Some(LockedReplacement::Directory { path }) => {
                    (workspace.add_replacement(&plugin.module, &self.context.request.base.join(path))?, None)
                }
                None => continue,
            };
            replaces.push(Replace {
                old_path: plugin.module.clone(),
                old_version: None,
                new_path,
                new_version,
            });
        }
        for (index, replace) in self.context.manifest.replaces.iter().enumerate() {
            let (old_path, old_version) = replace.old.value.clone();
            let (new_path, new_version) =
                match (&replace.new.value, resolved.get(&ModuleOwner::Replace(index))) {
                    (Replacement::Directory(directory), _) => {
                        let directory = self.context.request.base.join(directory);
                        local_go_mod(&directory, &replace.new.span)?;
                        (workspace.add_replacement(&old_path, &directory)?, None)
                    }
                    (Replacement::Module { .. }, Some(resolved)) => {
                        (resolved.module.path.clone(), Some(resolved.module.version.clone()))
                    }
                    (Replacement::Module { path, version }, None) => (path.clone(), version.clone()),
                };
            replaces.push(Replace { old_path, old_version, new_path, new_version });
        }
        Ok(replaces)
    }

    /// Adds the replace and exclude lines of local modules, seen from there. What the configuration names
    /// itself wins.
    fn local_directives(
        &self,
        plugins: &[ResolvedPlugin],
        replaces: &mut Vec<Replace>,
        excludes: &mut Vec<ModuleVersion>,
        workspace: &Workspace,
    ) -> Result<(), Error> {
        let of_plugins = plugins.iter().filter_map(|plugin| match &plugin.replacement {
            Some(LockedReplacement::Directory { path }) => Some((path.clone(), plugin.span.clone())),
            _ => None,
        });
        let of_replaces =
            self.context.manifest.replaces.iter().filter_map(|replace| match &replace.new.value {
                Replacement::Directory(path) => Some((PathBuf::from(path), replace.new.span.clone())),
                Replacement::Module { .. } => None,
            });
        let note = |text| self.context.note(text);
        let local: Vec<_> = of_plugins.chain(of_replaces).collect();
        for (path, span) in local {
            let go_mod = path.join("go.mod");
            let local = LocalDirectives::read(&self.context.request.base.join(&path));
            for mut replace in local.replaces {
                let (old, new) = (replace.old_path.clone(), replace.new_path.clone());
                let is_requested = plugins.iter().any(|plugin| !plugin.added && plugin.module == old)
                    || replaces.iter().any(|known| known.old_path == old);
                if is_requested {
                    note(format!(
                        "{}: `replace {old}` is ignored: {old} is requested otherwise",
                        go_mod.display()
                    ));
                    continue;
                }
                if replace.new_version.is_none() {
                    let directory = Path::new(&new);
                    local_go_mod(directory, &span)?;
                    replace.new_path = workspace.add_replacement(&old, directory)?;
                }
                note(format!("{}: `replace {old}` applies: {new} is compiled", go_mod.display()));
                replaces.push(replace);
            }
            for exclude in local.excludes {
                let requests = |plugin: &ResolvedPlugin| {
                    plugin.module == exclude.path && plugin.version == exclude.version
                };
                if plugins.iter().any(requests) {
                    note(format!("{}: `exclude {exclude}` is ignored: it is requested", go_mod.display()));
                } else {
                    excludes.push(exclude);
                }
            }
        }
        Ok(())
    }

    /// Lets the go command select versions and download the modules.
    async fn lock(
        &self,
        roadrunner: &ResolvedModule,
        plugins: &[ResolvedPlugin],
        workspace: &Workspace,
    ) -> Result<Lock, Error> {
        let mut targets = BTreeMap::new();
        let mut selected = BTreeMap::new();
        for variant in &self.context.variants {
            let listed = packages::list(self.go, &self.tools.commands, variant, workspace).await;
            let listed = listed.map_err(|error| self.with_span(error, plugins))?;
            selected.extend(listed.modules.iter().map(|m| (m.path.clone(), m.version.clone())));
            targets.insert(variant.clone(), listed);
        }
        let raised = self.raised(plugins, &selected, workspace).await?;
        let go_version = self.go.version_in(workspace.directory()).await?;
        let go_version = self.tools.toolchains.patched(self.go, go_version).await?;
        let locked = plugins
            .iter()
            .map(|plugin| LockedPlugin {
                from: self.context.requested.plugins.get(&plugin.name).filter(|_| !plugin.added).cloned(),
                version: selected.get(&plugin.module).unwrap_or(&plugin.version).clone(),
                name: plugin.name.clone(),
                module: plugin.module.clone(),
                asked: plugin.asked.clone(),
                commit: plugin.commit.clone(),
                replacement: plugin.replacement.clone(),
                built_in: plugin.built_in,
            })
            .collect();
        let mut lock = Lock {
            roadrunner: LockedRoadRunner {
                from: self.context.requested.roadrunner.clone(),
                module: roadrunner.module.path.clone(),
                version: roadrunner.module.version.clone(),
                commit: roadrunner.commit.clone(),
                time: roadrunner.time.unwrap_or_default(),
            },
            plugins: locked,
            settings: self.context.requested.settings.clone(),
            raised,
            lowered: Vec::new(),
            targets,
            go_mod: parse_go_mod(workspace.read("go.mod")?)?,
            go_sum: parse_go_sum(&workspace.read("go.sum")?)?,
            toolchain: self.toolchain_sums(&go_version),
            go_version,
        };
        // Those of earlier versions stay out of the lock.
        if let Some(sums) = self.context.requested.read_sums(self.go.modules(), &lock) {
            lock.go_sum = sums;
        }
        Ok(lock)
    }

    /// The sums of a Go toolchain by host platform, from the previous lock and the module cache.
    fn toolchain_sums(&self, go_version: &str) -> BTreeMap<String, String> {
        let previous = self.previous.filter(|lock| lock.go_version == go_version);
        let mut sums = previous.map(|lock| lock.toolchain.clone()).unwrap_or_default();
        if let Some(sum) = self.tools.toolchains.sum_of(go_version) {
            sums.entry(GoTarget::host().to_string()).or_insert(sum);
        }
        sums
    }

    /// The initial go.sum: RoadRunner's sums and those of the resolved modules, which are already verified.
    /// The sums of the previous lock are kept, so that no version can change its content.
    fn sums<'a>(
        &self,
        workspace: &Workspace,
        resolved: impl Iterator<Item = &'a ResolvedModule>,
    ) -> Result<GoSum, Error> {
        let release = workspace.directory().join("go.sum");
        let text = fs::read_to_string(&release).unwrap_or_default();
        let mut sums = parse_go_sum(&text)?;
        if let Some(previous) = self.previous {
            // Others were added by hand, for a module that is required later.
            let used = self.context.requested.used_sums(self.go.modules(), previous);
            sums.merge(used.unwrap_or_else(|| previous.go_sum.clone()));
        }
        for ResolvedModule { module, zip_sum, mod_sum, .. } in resolved {
            sums.insert(&module.path, &module.version, zip_sum);
            sums.insert(&module.path, &format!("{}/go.mod", module.version), mod_sum);
        }
        Ok(sums)
    }

    /// The plugins whose selected version differs from the requested one, with the modules that require it.
    async fn raised(
        &self,
        plugins: &[ResolvedPlugin],
        selected: &BTreeMap<String, String>,
        workspace: &Workspace,
    ) -> Result<Vec<RaisedPlugin>, Error> {
        let mut raised: Vec<RaisedPlugin> = plugins
            .iter()
            // An added plugin has no requested version.
            .filter(|plugin| plugin.replacement.is_none() && !plugin.added)
            .filter_map(|plugin| {
                let selected = selected.get(&plugin.module)?;
                (*selected != plugin.version).then(|| RaisedPlugin {
                    name: plugin.name.clone(),
                    module: plugin.module.clone(),
                    asked: plugin.version.clone(),
                    selected: selected.clone(),
                    demanded_by: Vec::new(),
                })
            })
            .collect();
        if raised.is_empty() {
            return Ok(Vec::new());
        }
        let graph = packages::graph(self.go, workspace).await?;
        for raised in &mut raised {
            raised.demanded_by = packages::demanding(&graph, &raised.module, &raised.selected);
        }
        Ok(raised)
    }

    /// Sets the span of a go command error to the plugin or the requirement whose module it names.
    fn with_span(&self, mut error: Error, plugins: &[ResolvedPlugin]) -> Error {
        let text = error.output.join("\n");
        let floors = self.context.manifest.requires.iter().map(|it| (&it.module.value, &it.module.span));
        let named = plugins
            .iter()
            .map(|plugin| (&plugin.module, &plugin.span))
            .chain(floors)
            .filter(|(module, span)| span.is_some() && text.contains(module.as_str()))
            .max_by_key(|(module, _)| module.len());
        if let (Some((module, span)), Some(first)) = (named, error.diagnostics.first_mut())
            && first.span.is_none()
        {
            first.span.clone_from(span);
            first.label = Some(format!("it names {module}"));
        }
        error
    }
}

/// The modules below the release's `// indirect` versions, for each plugin whose dependencies are lowered.
fn lowered(
    lock: &Lock,
    release: &GoMod,
    plugins: &[ResolvedPlugin],
    lowered: &BTreeSet<String>,
) -> Vec<LoweredModule> {
    let selected = |path: &str| lock.go_mod.require.iter().find(|line| line.path == path);
    let mut modules = Vec::new();
    for plugin in plugins.iter().filter(|plugin| lowered.contains(&plugin.module)) {
        let required: BTreeSet<&str> = plugin.requires().map(|line| line.path.as_str()).collect();
        let tested =
            release.require.iter().filter(|line| line.indirect && required.contains(line.path.as_str()));
        modules.extend(tested.filter_map(|tested| {
            let selected = selected(&tested.path)?;
            semver::compare(&selected.version, &tested.version).is_lt().then(|| LoweredModule {
                plugin: plugin.name.clone(),
                module: tested.path.clone(),
                from: tested.version.clone(),
                to: selected.version.clone(),
            })
        }));
    }
    modules
}

/// The newest `go` line of RoadRunner and the plugins, with the module that has it.
fn newest_go_line<'a>(
    release: &'a GoMod,
    roadrunner: &'a ResolvedModule,
    plugins: &'a [ResolvedPlugin],
) -> (Option<&'a str>, &'a str) {
    let of_plugins = plugins.iter().map(|plugin| (plugin.go_mod.as_ref(), plugin.module.as_str()));
    std::iter::once((Some(release), roadrunner.module.path.as_str()))
        .chain(of_plugins)
        .filter_map(|(go_mod, module)| Some((go_mod?.go.as_deref()?, module)))
        // `max_by_key` returns the last maximum: RoadRunner wins a tie.
        .rev()
        .max_by_key(|(line, _)| line.parse::<GoVersion>().ok())
        .map_or((None, &roadrunner.module.path), |(line, module)| (Some(line), module))
}

fn parse_go_mod(text: String) -> Result<GoModFile, Error> {
    GoModFile::parse(text).map_err(|error| Error::build(format!("failed to parse the resolved {error}")))
}

fn parse_go_sum(text: &str) -> Result<GoSum, Error> {
    GoSum::parse(text).map_err(|error| Error::build(format!("failed to parse RoadRunner's go.sum: {error}")))
}

fn release(roadrunner: &ResolvedModule) -> Result<GoMod, Error> {
    GoMod::parse(&roadrunner.go_mod).map_err(|error| {
        Error::build(format!(
            "failed to parse the go.mod of {} {}: {error}",
            roadrunner.module.path, roadrunner.module.version
        ))
    })
}
