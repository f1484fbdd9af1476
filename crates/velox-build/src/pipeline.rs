//! The build: manifest → lock → workspace → artifact → output directory.

use std::{sync::Arc, time::Instant};

use futures::{FutureExt, future::LocalBoxFuture};
use tokio_util::sync::CancellationToken;
use velox_fetch::download::{DownloadRequest, Fetcher};
use velox_manifest::{Diagnostic, GoTarget, Level, unknown_plugin};

use crate::{
    cache_directory::{cache_directory, secure},
    compile::{c_compiler, go_build::linker_flags, precompile},
    context::{BuildContext, BuildTools},
    error::{Error, ErrorKind},
    event::{BuildSummary, Event, Phase, Reporter, phase},
    lock::{Lock, LockFile, ReleaseModules},
    package_reader::{self, PackageCheck, PackagesRead},
    request::{BuildRequest, Goal, Output, Upgrade},
    resolve::Resolver,
    shared_caches::SharedCaches,
    stamp::Stamp,
    targets,
    workspace::Workspace,
};

/// Runs a request up to its goal.
///
/// Cancelling `cancel` ends the child processes, removes temporary files, and gives
/// [`crate::ErrorKind::Interrupted`].
///
/// # Errors
/// A failed stage, as diagnostics.
pub fn build<'a>(
    request: &'a BuildRequest,
    reporter: Arc<dyn Reporter>,
    cancel: CancellationToken,
) -> LocalBoxFuture<'a, Result<BuildSummary, Error>> {
    run(request, None, reporter, cancel).boxed_local()
}

/// As [`build`], and checks the packages of the first target: its findings are warnings, with `--strict` (or `strict =
/// true`) errors before anything is linked.
///
/// # Errors
/// As [`build`]; with `--strict` a finding of the check, or its failure.
pub fn build_checked<'a>(
    request: &'a BuildRequest,
    check: PackageCheck<'a>,
    reporter: Arc<dyn Reporter>,
    cancel: CancellationToken,
) -> LocalBoxFuture<'a, Result<BuildSummary, Error>> {
    run(request, Some(check), reporter, cancel).boxed_local()
}

async fn run(
    request: &BuildRequest,
    package_check: Option<PackageCheck<'_>>,
    reporter: Arc<dyn Reporter>,
    cancel: CancellationToken,
) -> Result<BuildSummary, Error> {
    let package_check = package_check.as_ref();
    let context = BuildContext::new(request, reporter, cancel)?;
    let output = match &request.goal {
        Goal::Build(output) | Goal::DryRun(output) => Some(output),
        Goal::Plan | Goal::Lock | Goal::CheckLock | Goal::Fetch => None,
    };
    check(&context, output)?;
    if let Some(ignored) = &context.settings.ignored {
        context.reporter.report(Event::Warning(ignored.clone()));
    }

    let mut found = LockFile::read(request)?;
    let locked = context.matching_lock(&found)?;
    if locked.is_none() {
        context.drop_edited(&mut found);
    }
    if let Some(lock) = &locked
        && let Some(summary) = without_tools(&context, lock, output, package_check).await?
    {
        return Ok(summary);
    }
    if let Some(output) = output {
        output.probe(&context.settings)?;
    }

    match (&request.goal, &locked) {
        (Goal::CheckLock, Some(lock)) => return check_lock(&context, &found, lock).await,
        (Goal::DryRun(_), Some(lock)) => {
            // Without the release, the majors of the plugins are not compared.
            if let Err(error) = download_release(&context, &found, lock).await
                && error.kind == ErrorKind::Interrupted
            {
                return Err(error);
            }
            report_known(&context, package_check, None, lock)?;
            return Ok(context.summary(lock));
        }
        _ => {}
    }
    let mut tools = context.tools(&found, locked.as_ref()).await?;
    let (lock, workspace) = match locked {
        Some(lock) => restore(&context, &tools, &found, lock).await?,
        None => resolve(&context, &mut tools, &found).await?,
    };
    let Goal::Build(output) = &request.goal else {
        if matches!(request.goal, Goal::DryRun(_)) {
            let read = cached(&context, package_check, &lock)?;
            report_known(&context, package_check, read, &lock)?;
        }
        return Ok(context.summary(&lock));
    };
    let preparing = async { workspace.prepare(&lock) };
    phase(&*context.reporter, Phase::Prepare, preparing).await?;
    let read =
        |check: &PackageCheck<'_>| package_reader::read(&context, check.reader, &tools, &lock, &workspace);
    let read = async |check: &PackageCheck<'_>| match package_reader::cached(&context, check.reader, &lock)? {
        Some(cached) => Ok(cached),
        None => read(check).await,
    };
    if let Some(check) = package_check.filter(|_| context.settings.strict) {
        let reading = phase(&*context.reporter, Phase::Read, read(check));
        report_findings(&*context.reporter, true, (check.findings)(reading.await?))?;
    }
    let compile = async {
        let compiled = targets::compile(&context, &tools, &lock, &workspace, output).await;
        context.compiled.notify_one();
        compiled
    };
    let check = async {
        let Some(check) = package_check.filter(|_| !context.settings.strict) else { return Ok(Vec::new()) };
        if let Some(known) = (check.known)(&lock) {
            return Ok(known);
        }
        // Beside the linker: earlier, it would compile packages a second time.
        context.compiled.notified().await;
        match read(check).await {
            Err(error) if error.kind == ErrorKind::Interrupted => Err(error),
            // The binary is built all the same.
            result => Ok(result.map(|read| (check.findings)(read)).unwrap_or_default()),
        }
    };
    let (compiled, findings) = tokio::try_join!(compile, check)?;
    report_findings(&*context.reporter, false, findings)?;
    let mut summary = targets::publish(&context, &compiled, &lock).await?;
    targets::share(&context, &compiled, &mut summary).await?;
    targets::clean_up(&context, &compiled, &workspace);
    Ok(summary)
}

/// Reports what a check found as warnings.
///
/// # Errors
/// With `strict`, what it found.
pub fn report_findings(
    reporter: &dyn Reporter,
    strict: bool,
    findings: Vec<Diagnostic>,
) -> Result<(), Error> {
    let level = if strict { Level::Error } else { Level::Warning };
    let mut found: Vec<Diagnostic> =
        findings.into_iter().map(|finding| Diagnostic { level, ..finding }).collect();
    if strict && let Some(last) = found.last_mut() {
        last.help.push("without --strict (strict = true) this is a warning".to_owned());
        return Err(Error::many(ErrorKind::Configuration, found));
    }
    found.into_iter().for_each(|warning| reporter.report(Event::Warning(warning)));
    Ok(())
}

/// The earlier result of a check.
fn cached(
    context: &BuildContext<'_>,
    package_check: Option<&PackageCheck<'_>>,
    lock: &Lock,
) -> Result<Option<PackagesRead>, Error> {
    let read = package_check.map(|check| package_reader::cached(context, check.reader, lock));
    Ok(read.transpose()?.flatten())
}

/// Reports what is known of the packages without reading them: an earlier result, or what the versions tell.
fn report_known(
    context: &BuildContext<'_>,
    package_check: Option<&PackageCheck<'_>>,
    read: Option<PackagesRead>,
    lock: &Lock,
) -> Result<(), Error> {
    let Some(check) = package_check else { return Ok(()) };
    let findings = match read {
        Some(read) => (check.findings)(read),
        None => (check.known)(lock).unwrap_or_else(|| {
            let released = context.requested.released_plugins(lock);
            released.map(|released| (check.majors)(lock, &released)).unwrap_or_default()
        }),
    };
    report_findings(&*context.reporter, context.settings.strict, findings)
}

/// Fails early, before anything is downloaded.
fn check(context: &BuildContext<'_>, output: Option<&Output>) -> Result<(), Error> {
    let BuildRequest { options, environment, .. } = context.request;
    secure(&cache_directory(environment))?;
    if let Some(output) = output {
        output.check(&context.settings)?;
        if options.archive {
            output.check_archive()?;
        }
        output.check_sboms(&options.sboms, &context.settings)?;
        SharedCaches::of(context.request)?;
        c_compiler::check(context)?;
        let stamp = Stamp::choose(&options.stamp, &context.manifest.build_args, environment, "", 0);
        linker_flags(&context.settings, "", &stamp)?;
    }
    let Upgrade::Only(upgraded) = &options.versions.upgrade else { return Ok(()) };
    let plugins = context.manifest.plugins.iter().map(|plugin| plugin.name.value.as_str());
    let names: Vec<&str> = ["roadrunner"].into_iter().chain(plugins).collect();
    match upgraded.iter().find(|name| !names.contains(&name.as_str())) {
        None => Ok(()),
        Some(name) => Err(unknown_plugin(name, &names).into()),
    }
}

/// Whether the findings about a lock need its RoadRunner release, which the module cache lacks.
fn needs_release(context: &BuildContext<'_>, package_check: Option<&PackageCheck<'_>>, lock: &Lock) -> bool {
    !context.request.options.is_offline()
        && package_check.is_some_and(|check| (check.known)(lock).is_none())
        && context.requested.released_plugins(lock).is_none()
}

/// The summary, if the lock and the artifact store suffice for it.
async fn without_tools(
    context: &BuildContext<'_>,
    lock: &Lock,
    output: Option<&Output>,
    package_check: Option<&PackageCheck<'_>>,
) -> Result<Option<BuildSummary>, Error> {
    let started = Instant::now();
    context.reporter.report(Event::Started(Phase::Resolve));
    context.report_versions(lock)?;
    context.reporter.report(Event::Finished(Phase::Resolve, started.elapsed()));
    match (&context.request.goal, output) {
        (Goal::CheckLock, _) if context.requested.needs_release(lock) => Ok(None),
        (Goal::CheckLock, _)
            if !context.request.options.is_offline() && !context.requested.is_comparable(lock) =>
        {
            Ok(None)
        }
        (Goal::CheckLock | Goal::Plan, _) => Ok(Some(context.summary(lock))),
        (goal, Some(output)) => {
            let mut targets = targets::find(context, lock, output, &context.replaced(lock))?;
            if matches!(goal, Goal::Build(_)) {
                targets::download(context, lock, &mut targets).await?;
            }
            let is_stored = targets.iter().all(|target| target.artifact.is_some());
            if !is_stored && matches!(goal, Goal::Build(_)) {
                return Ok(None);
            }
            let read = cached(context, package_check, lock)?;
            if matches!(goal, Goal::DryRun(_)) {
                if !is_stored {
                    output.probe(&context.settings)?;
                }
                if read.is_none() && needs_release(context, package_check, lock) {
                    return Ok(None);
                }
                report_known(context, package_check, read, lock)?;
                return Ok(Some(context.summary(lock)));
            }
            if context.settings.strict && package_check.is_some() && read.is_none() {
                return Ok(None);
            }
            // Without a result, it was built before without the check.
            report_known(context, package_check, read, lock)?;
            targets::publish(context, &targets, lock).await.map(Some)
        }
        _ => Ok(None),
    }
}

/// Resolves the versions that the lock lacks, and writes it.
pub(crate) fn resolve<'a>(
    context: &'a BuildContext<'a>,
    tools: &'a mut BuildTools,
    found: &'a LockFile,
) -> LocalBoxFuture<'a, Result<(Lock, Workspace), Error>> {
    async move {
    let previous = found.lock.as_ref();
    let resolver = Resolver::new(context, tools, previous);
    let resolving = phase(&*context.reporter, Phase::Resolve, resolver.resolve());
    let (mut lock, workspace) = with_precompile(context, tools, resolving).await?;
    // The go command may have switched to a newer version for these modules.
    tools.go = tools.toolchains.exactly(&lock.go_version, lock.toolchain_sum()).await?;
    if let Some(previous) = previous {
        lock.adopt_targets(previous);
        if context.is_locked() && previous.go_mod != lock.go_mod {
            return Err(found.mismatch(&["the lock lacks modules of this target".to_owned()]));
        }
    }
    context.report_versions(&lock)?;
    if let Some(trusted @ 1..) = tools.fetcher.as_ref().map(Fetcher::unverified) {
        let modules = if trusted == 1 { "1 module".to_owned() } else { format!("{trusted} modules") };
        context.note(format!(
            "{modules} not verified by a checksum database (GONOSUMDB, GOSUMDB=off): trusted on first use, and recorded in the lock"
        ));
    }
    if !context.is_locked()
        && !matches!(context.request.goal, Goal::Plan | Goal::DryRun(_))
        && context.request.updates_lock
        && let Err(why) = found.write(&lock)
    {
        if context.request.goal == Goal::Lock {
            return Err(Error::build(why));
        }
        context.note(why);
    }
    Ok((lock, workspace))
    }
    .boxed_local()
}

/// Creates the workspace of a matching lock, downloading modules that the cache lacks.
pub(crate) fn restore<'a>(
    context: &'a BuildContext<'a>,
    tools: &'a BuildTools,
    found: &'a LockFile,
    mut lock: Lock,
) -> LocalBoxFuture<'a, Result<(Lock, Workspace), Error>> {
    async move {
        if tools.go.trusted
            && !context.is_locked()
            && let Some(sum) = tools.toolchains.sum_of(&lock.go_version)
        {
            lock.toolchain.insert(GoTarget::host().to_string(), sum);
            if let Err(why) = found.write(&lock) {
                context.note(why);
            }
        }
        let workspace = workspace_of(context, tools, &lock).await?;
        check_release(context, tools, found, &lock).await?;
        Ok((lock, workspace))
    }
    .boxed_local()
}

/// Downloads the modules that the cache lacks, and creates the workspace.
pub(crate) async fn workspace_of(
    context: &BuildContext<'_>,
    tools: &BuildTools,
    lock: &Lock,
) -> Result<Workspace, Error> {
    let locked: Vec<_> = context.variants.iter().filter_map(|variant| lock.targets.get(variant)).collect();
    let zips = lock.zips(&locked);
    let resolver = Resolver::new(context, tools, Some(lock));
    let tree = with_precompile(context, tools, resolver.fetch(lock, &zips)).await?;
    let workspace = Workspace::create(&tree, tools.scratch.path().join("src"))?;
    for (module, directory) in context.replaced(lock) {
        workspace.add_replacement(&module, &directory)?;
    }
    Ok(workspace)
}

/// Compares a lock with its RoadRunner, which the module cache lacks.
async fn check_lock(
    context: &BuildContext<'_>,
    found: &LockFile,
    lock: &Lock,
) -> Result<BuildSummary, Error> {
    match download_release(context, found, lock).await {
        Ok(tools) => check_release(context, &tools, found, lock).await?,
        Err(error) if error.kind == ErrorKind::Interrupted || context.requested.needs_release(lock) => {
            return Err(error);
        }
        Err(error) => {
            let why = error.diagnostics.first().map_or("", |diagnostic| &diagnostic.message);
            let name = found.name();
            context.note(format!("{name} was not compared with the go.mod and go.sum of RoadRunner: {why}"));
        }
    }
    Ok(context.summary(lock))
}

/// Downloads the RoadRunner of a lock into the module cache.
async fn download_release(
    context: &BuildContext<'_>,
    found: &LockFile,
    lock: &Lock,
) -> Result<BuildTools, Error> {
    let tools = context.tools(found, Some(lock)).await?;
    Resolver::new(context, &tools, Some(lock)).release().await?;
    Ok(tools)
}

/// Fails if a lock has anything that neither the configuration nor its RoadRunner asks for.
async fn check_release(
    context: &BuildContext<'_>,
    tools: &BuildTools,
    found: &LockFile,
    lock: &Lock,
) -> Result<(), Error> {
    let cache = tools.go.modules();
    let release = ReleaseModules::cached(cache, lock);
    let mut unread = context.requested.unread_go_mods(lock, release.as_ref());
    // What one requires may have to be read, too.
    let is_offline = context.request.options.is_offline();
    while let Some(fetcher) = tools.fetcher.as_ref().filter(|_| !unread.is_empty() && !is_offline) {
        let requests = unread.iter().filter(|module| !fetcher.needs_go(&module.path));
        fetcher
            .fetch_go_mods(requests.map(|it| DownloadRequest::with_sums(&lock.go_sum, it.clone())).collect())
            .await;
        let rest = context.requested.unread_go_mods(lock, release.as_ref());
        if rest.iter().all(|module| unread.contains(module)) {
            break;
        }
        unread = rest;
    }
    let differences = context.requested.differences_from(lock, release.as_ref());
    if differences.is_empty() { Ok(()) } else { Err(found.mismatch(&differences)) }
}

/// Runs `work`, and compiles the standard library concurrently if a compile follows.
async fn with_precompile<T>(
    context: &BuildContext<'_>,
    tools: &BuildTools,
    work: impl Future<Output = T>,
) -> T {
    match (&context.request.goal, context.variants.first()) {
        // A shared compile cache usually has the standard library.
        (Goal::Build(_), Some(variant))
            if SharedCaches::of(context.request).is_ok_and(|caches| caches.remotes.is_empty()) =>
        {
            precompile::beside(context, tools, variant, work).await
        }
        _ => work.await,
    }
}
