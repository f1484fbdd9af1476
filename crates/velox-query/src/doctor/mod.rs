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

use velox_build::{BuildEnvironment, BuildRequest, Error, GoInstallation, Reporter, cache_directory};

/// How long one check may take; what takes longer is a finding too.
const PATIENCE: Duration = Duration::from_secs(30);

/// Something that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnosis {
    /// What was looked at: `go`, `git`, `proxy`, `sumdb`, `github`, `gitlab`, `ssh`, `private`, `caches`, `disk`.
    pub check: &'static str,
    /// How it is.
    pub state: Health,
    /// What was found, in one line. Never a token.
    pub message: String,
    /// What to do about it.
    pub remedy: Option<String>,
}

/// How something is that was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// As it should be.
    Ok,
    /// Some builds will fail, or be slow.
    Warning,
    /// Builds fail.
    Error,
}

impl Diagnosis {
    fn ok(check: &'static str, message: impl Into<String>) -> Self {
        Self { check, state: Health::Ok, message: message.into(), remedy: None }
    }

    fn warning(check: &'static str, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { state: Health::Warning, remedy: Some(remedy.into()), ..Self::ok(check, message) }
    }

    fn error(check: &'static str, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { state: Health::Error, ..Self::warning(check, message, remedy) }
    }
}

/// All that the checks look at.
struct DoctorContext<'a> {
    request: &'a BuildRequest,
    environment: &'a BuildEnvironment<'a>,
    /// Whether there is a configuration, which may have tokens and private plugins.
    configured: bool,
    /// `None`: there is a go command, and it doesn't work.
    go: Option<&'a GoInstallation>,
    git: Option<&'a Path>,
}

/// Looks at everything that a build of `request` needs, and tells each finding as soon as those before it are told.
///
/// # Errors
/// The user interrupted it. Everything else that is wrong is a finding.
pub async fn diagnose(
    request: &BuildRequest,
    reporter: Arc<dyn Reporter>,
    cancel: CancellationToken,
    mut tell: impl FnMut(Diagnosis),
) -> Result<(), Error> {
    let environment = BuildEnvironment::open(request, &reporter, &cancel).await;
    let found = environment.go();
    let go = found.as_ref().ok();
    for finding in local::go(request, found.as_ref().map_err(|error| *error)) {
        tell(finding);
    }
    if let Some(error) = environment.network_error() {
        tell(broken("network", error));
    }
    let git = environment.git();
    let context = DoctorContext {
        request,
        configured: request.source.is_some(),
        go,
        environment: &environment,
        git: git.as_deref(),
    };
    let online = !request.options.is_offline();
    let mut checks: Vec<(&'static str, LocalBoxFuture<'_, Vec<Diagnosis>>)> =
        vec![("git", local::git(&context).boxed_local())];
    if online {
        checks.push(("proxy", remote::proxies(&context).boxed_local()));
        checks.push(("sumdb", remote::sum_db(&context).boxed_local()));
        checks.push(("github", remote::github(&context).boxed_local()));
        checks.push(("gitlab", remote::gitlab(&context).boxed_local()));
        checks.push(("ssh", remote::ssh(&context).boxed_local()));
        checks.push(("private", remote::private(&context).boxed_local()));
    }
    checks.push(("caches", local::caches(&context).boxed_local()));
    checks.push(("disk", local::disk(&context).boxed_local()));
    let at_once = checks.len();
    let patiently = checks.into_iter().map(async |(check, findings)| {
        tokio::time::timeout(PATIENCE, findings).await.unwrap_or_else(|_| {
            let message = format!("no answer within {} seconds", PATIENCE.as_secs());
            vec![Diagnosis::warning(check, message, "is the network slow, or a disk?")]
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
fn broken(check: &'static str, error: &Error) -> Diagnosis {
    let first = error.diagnostics.first();
    let message = first.map_or_else(|| error.to_string(), |first| first.message.clone());
    let remedy = first.and_then(|first| first.help.first()).cloned();
    Diagnosis { check, state: Health::Error, message, remedy }
}

/// Where a build puts its files, each with a name for it.
fn places(context: &DoctorContext<'_>) -> Vec<(&'static str, PathBuf)> {
    let mut places = Vec::new();
    if let Some(go) = context.go {
        places.push(("Go's module cache", go.module_cache.clone()));
        places.push(("Go's compile cache", go.compile_cache.clone()));
    }
    places.push(("vx's cache", cache_directory(&context.request.environment)));
    places
}
