//! What on this machine would keep a build from working, and what to do about it.

mod local;
mod remote;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures::{FutureExt, StreamExt, future::LocalBoxFuture, stream};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::{
    Error, Reporter, Request, cache::cache_directory, network::Network, process::Children, scratch::Scratch,
    toolchain::Installed,
};

/// How long one check may take; what takes longer is a finding too.
const PATIENCE: Duration = Duration::from_secs(30);

/// Something that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Observation {
    /// What was looked at: `go`, `git`, `proxy`, `sumdb`, `github`, `gitlab`, `ssh`, `private`, `caches`, `disk`.
    pub check: &'static str,
    /// How it is.
    pub state: State,
    /// What was found, in one line. Never a token.
    pub message: String,
    /// What to do about it.
    pub remedy: Option<String>,
}

/// How something is that was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// As it should be.
    Ok,
    /// Some builds will fail, or be slow.
    Warning,
    /// Builds fail.
    Error,
}

impl Observation {
    fn ok(check: &'static str, message: impl Into<String>) -> Self {
        Self { check, state: State::Ok, message: message.into(), remedy: None }
    }

    fn warning(check: &'static str, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { state: State::Warning, remedy: Some(remedy.into()), ..Self::ok(check, message) }
    }

    fn error(check: &'static str, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { state: State::Error, ..Self::warning(check, message, remedy) }
    }
}

/// All that the checks look at.
struct Patient<'a> {
    request: &'a Request,
    /// Whether there is a configuration, which may have tokens and private plugins.
    configured: bool,
    /// `None`: there is a go command, and it doesn't work.
    go: Option<&'a Installed>,
    network: Option<&'a Network>,
    children: &'a Children,
    git: Option<&'a Path>,
    scratch: &'a Path,
}

/// Looks at everything that a build of `request` needs, and tells each finding as soon as those before it are told.
///
/// # Errors
/// The user interrupted it. Everything else that is wrong is a finding.
pub async fn examine(
    request: &Request,
    reporter: Arc<dyn Reporter>,
    cancel: CancellationToken,
    mut tell: impl FnMut(Observation),
) -> Result<(), Error> {
    let children = Children::new(request, &reporter, &cancel);
    let cache = cache_directory(&request.environment);
    // Where even that can't be made, most of what follows is still worth knowing; the caches' own check says why.
    let scratch = Scratch::create(&cache, false).ok();
    let directory = scratch.as_ref().map_or_else(|| request.base.clone(), |it| it.path().to_owned());
    let found = Installed::find(&children, request.options.go.as_deref(), &directory).await;
    let go = found.as_ref().ok();
    for finding in local::go(request, found.as_ref()) {
        tell(finding);
    }
    let mut network = None;
    if let Some(go) = go {
        match Network::new(request, &go.settings, &directory, &children).await {
            Ok(set_up) => network = Some(set_up),
            Err(error) => tell(broken("network", &error)),
        }
    }
    let git = children.find("git");
    let patient = Patient {
        request,
        configured: request.source.is_some(),
        go,
        network: network.as_ref(),
        children: network.as_ref().map_or(&children, |network| &network.children),
        git: git.as_deref(),
        scratch: &directory,
    };
    let online = !request.options.offline;
    let mut checks: Vec<(&'static str, LocalBoxFuture<'_, Vec<Observation>>)> =
        vec![("git", local::git(&patient).boxed_local())];
    if online {
        checks.push(("proxy", remote::proxies(&patient).boxed_local()));
        checks.push(("sumdb", remote::sum_db(&patient).boxed_local()));
        checks.push(("github", remote::github(&patient).boxed_local()));
        checks.push(("gitlab", remote::gitlab(&patient).boxed_local()));
        checks.push(("ssh", remote::ssh(&patient).boxed_local()));
        checks.push(("private", remote::private(&patient).boxed_local()));
    }
    checks.push(("caches", local::caches(&patient).boxed_local()));
    checks.push(("disk", local::disk(&patient).boxed_local()));
    let at_once = checks.len();
    let patiently = checks.into_iter().map(async |(check, findings)| {
        tokio::time::timeout(PATIENCE, findings).await.unwrap_or_else(|_| {
            let message = format!("no answer within {} seconds", PATIENCE.as_secs());
            vec![Observation::warning(check, message, "is the network slow, or a disk?")]
        })
    });
    let mut findings = stream::iter(patiently).buffered(at_once);
    loop {
        let next = tokio::select! {
            next = findings.next() => next,
            () = cancel.cancelled() => return Err(Error::interrupted()),
        };
        match next {
            Some(findings) => findings.into_iter().for_each(&mut tell),
            None => return Ok(()),
        }
    }
}

/// An error of the build's own, as a finding.
fn broken(check: &'static str, error: &Error) -> Observation {
    let first = error.diagnostics.first();
    let message = first.map_or_else(|| error.to_string(), |first| first.message.clone());
    let remedy = first.and_then(|first| first.help.first()).cloned();
    Observation { check, state: State::Error, message, remedy }
}

/// Where a build puts its files, each with a name for it.
fn places(patient: &Patient<'_>) -> Vec<(&'static str, PathBuf)> {
    let mut places = Vec::new();
    if let Some(go) = patient.go {
        places.push(("Go's module cache", go.settings.gomodcache.clone()));
        places.push(("Go's compile cache", go.settings.gocache.clone()));
    }
    places.push(("vx's cache", cache_directory(&patient.request.environment)));
    places
}
