//! Diagnosis of the local toolchain, network and configuration.

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
use velox_build::{
    BuildEnvironment, BuildRequest, Error, GoInstallation, Reporter, cache_directory, until_cancelled,
};

const CHECK_TIMEOUT: Duration = Duration::from_secs(30);

/// The result of one check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnosis {
    /// The subject: `go`, `git`, `proxy`, `sumdb`, `github`, `gitlab`, `ssh`, `private`, `caches`, `disk`.
    pub check: &'static str,
    /// The severity.
    pub state: Health,
    /// A one-line message, without tokens.
    pub message: String,
    /// The remedy.
    pub remedy: Option<String>,
}

/// The severity of a [`Diagnosis`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// No problem.
    Ok,
    /// Some builds will fail or be slow.
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

    fn of_error(check: &'static str, error: &Error) -> Self {
        let first = error.diagnostics.first();
        let message = first.map_or_else(|| error.to_string(), |first| first.message.clone());
        let remedy = first.and_then(|first| first.help.first()).cloned();
        Self { check, state: Health::Error, message, remedy }
    }
}

struct DoctorContext<'a> {
    request: &'a BuildRequest,
    environment: &'a BuildEnvironment<'a>,
    /// `None` if the go command doesn't work.
    go: Option<&'a GoInstallation>,
    git: Option<&'a Path>,
}

impl DoctorContext<'_> {
    /// The value of a non-empty environment variable.
    fn variable(&self, name: &str) -> Option<&str> {
        self.request.environment.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }
}

/// Checks the prerequisites of a build of `request`, and reports each diagnosis early, in a fixed order.
///
/// # Errors
/// An interruption only: other failures are diagnoses.
pub async fn diagnose(
    request: &BuildRequest,
    reporter: Arc<dyn Reporter>,
    cancel: CancellationToken,
    mut report: impl FnMut(Diagnosis),
) -> Result<(), Error> {
    let environment = BuildEnvironment::open(request, &reporter, &cancel).await;
    let go = environment.go();
    let git = environment.git();
    report(match &go {
        Ok(go) => local::go(request, go),
        Err(error) => Diagnosis::of_error("go", error),
    });
    if let Some(error) = environment.network_error() {
        report(Diagnosis::of_error("network", error));
    }
    let context =
        DoctorContext { request, environment: &environment, go: go.as_ref().ok(), git: git.as_deref() };
    let mut checks: Vec<(&'static str, LocalBoxFuture<'_, Vec<Diagnosis>>)> =
        vec![("git", local::git(&context).boxed_local())];
    if !request.options.is_offline() {
        checks.push(("proxy", remote::proxies(&context).boxed_local()));
        checks.push(("sumdb", remote::sum_db(&context).boxed_local()));
        checks.push(("github", remote::github(&context).boxed_local()));
        checks.push(("gitlab", remote::gitlab(&context).boxed_local()));
        checks.push(("ssh", remote::ssh(&context).boxed_local()));
        checks.push(("private", remote::private_hosts(&context).boxed_local()));
    }
    checks.push(("caches", local::caches(&context).boxed_local()));
    checks.push(("disk", local::disks(&context).boxed_local()));
    let concurrency = checks.len();
    let with_timeout = checks.into_iter().map(async |(check, diagnoses)| {
        tokio::time::timeout(CHECK_TIMEOUT, diagnoses).await.unwrap_or_else(|_| {
            let message = format!("timed out after {} seconds", CHECK_TIMEOUT.as_secs());
            vec![Diagnosis::warning(check, message, "check the network and the disks")]
        })
    });
    let mut diagnoses = stream::iter(with_timeout).buffered(concurrency);
    loop {
        match until_cancelled(&cancel, diagnoses.next()).await? {
            Some(diagnoses) => diagnoses.into_iter().for_each(&mut report),
            None => return Ok(()),
        }
    }
}

struct CacheDirectory {
    name: &'static str,
    /// The environment variable that overrides the directory.
    variable: &'static str,
    path: PathBuf,
}

fn cache_directories(context: &DoctorContext<'_>) -> Vec<CacheDirectory> {
    let vx = cache_directory(&context.request.environment);
    let mut caches = vec![CacheDirectory { name: "vx cache", variable: "VX_CACHE_DIR", path: vx }];
    if let Some(go) = context.go {
        let (modules, builds) = (go.module_cache.clone(), go.compile_cache.clone());
        caches.splice(
            0..0,
            [
                CacheDirectory { name: "Go module cache", variable: "GOMODCACHE", path: modules },
                CacheDirectory { name: "Go build cache", variable: "GOCACHE", path: builds },
            ],
        );
    }
    caches
}
