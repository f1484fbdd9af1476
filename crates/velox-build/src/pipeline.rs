use std::{path::Path, sync::Arc, time::Instant};

use tokio_util::sync::CancellationToken;

use crate::{
    Binary, Error, Event, Note, Output, Phase, Reporter, Request, Summary,
    compile::compile,
    container,
    lock::Lock,
    network::Network,
    process::Children,
    publish::publish,
    record::Record,
    resolve::Resolver,
    scratch::{Scratch, cache_directory},
    settings::Settings,
    stamp::Stamp,
    toolchain::Toolchain,
    verify,
    workspace::Workspace,
};

/// Builds what `request` asks for; without an output it ends before the compile.
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
    let scratch = Scratch::create(&cache_directory(&request.environment), request.options.keep_workspace)?;
    let plain = Children::new(request, &reporter, &cancel);
    let go = Toolchain::find(plain.clone(), scratch.path()).await?;
    let settings = Settings::new(&request.manifest, &request.options, &request.environment, go.host());
    if let Some(output) = &request.output {
        output.check(settings.binary_name())?;
    }
    let Network { children, forges } = Network::new(request, &go, scratch.path(), &plain).await?;
    let go = go.with_children(children.clone());

    let resolver = Resolver {
        request,
        settings: &settings,
        go: &go,
        children: &children,
        forges: &forges,
        scratch: scratch.path(),
    };
    let (lock, workspace) = phase(&*reporter, Phase::Resolve, resolver.resolve()).await?;
    let stamp = Stamp::choose(
        &request.options,
        &request.manifest.build_args,
        &request.environment,
        &lock.roadrunner.version,
        lock.roadrunner.time,
    );
    let mut summary = summary(&lock, &stamp);
    reporter.report(Event::Resolved {
        roadrunner: summary.roadrunner.clone(),
        version: summary.version.clone(),
        plugins: summary.plugins.clone(),
    });
    let Some(output) = &request.output else { return Ok(summary) };

    phase(&*reporter, Phase::Prepare, async { prepare(&lock, &stamp, &settings, &workspace) }).await?;
    let binary = compile(request, &settings, &go, &lock, &stamp, &workspace, &*reporter).await?;
    phase(&*reporter, Phase::Verify, async {
        verify::build_information(&binary, &lock)?;
        if settings.target == go.host() && !request.options.no_smoke_test {
            verify::smoke_test(&binary, &children, &stamp, scratch.path()).await?;
        }
        Ok(())
    })
    .await?;
    let name = settings.binary_name();
    let binary =
        phase(&*reporter, Phase::Publish, publish_unless(&cancel, binary, output.clone(), name)).await?;
    if request.options.keep_workspace {
        reporter.report(Event::Note(Note::WorkspaceKept { path: workspace.directory().to_owned() }));
    }
    summary.binary = Some(binary);
    Ok(summary)
}

async fn phase<T>(
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

async fn publish_unless(
    cancel: &CancellationToken,
    binary: impl AsRef<Path> + Send + 'static,
    output: Output,
    name: &'static str,
) -> Result<Binary, Error> {
    if cancel.is_cancelled() {
        return Err(Error::interrupted());
    }
    tokio::task::spawn_blocking(move || publish(binary.as_ref(), &output, name))
        .await
        .map_err(|error| Error::build(format!("publishing ended early: {error}")))?
}

fn summary(lock: &Lock, stamp: &Stamp) -> Summary {
    Summary {
        roadrunner: lock.roadrunner.module.clone(),
        version: lock.roadrunner.version.clone(),
        plugins: lock.plugins.iter().map(crate::LockedPlugin::row).collect(),
        raised: lock.raised.clone(),
        target: lock.target.clone(),
        go_version: lock.go_version.clone(),
        stamp_version: stamp.version.clone(),
        stamp_time: stamp.time.clone(),
        go_mod: lock.go_mod.clone(),
        binary: None,
    }
}
