//! Runs a service: opens the stores, starts the listener and the worker, and shuts them down.

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc};

use axum::http::HeaderValue;
use futures::{FutureExt as _, future::OptionFuture};
use tokio_util::sync::CancellationToken;

use crate::{
    artifacts::SharedDirectory,
    auth::{TokenFileError, TokenStore},
    http::{
        AppState,
        access::AccessConfig,
        listener,
        tls::{Certificate, TlsError},
    },
    job::{JobUserError, ProcessRunner, RunnerError, disk::Disk, isolation_gaps},
    options::ServiceOptions,
    readiness::Readiness,
    releases::Releases,
    router::router,
    runner::JobRunner,
    service::Service,
    store::StoreError,
    stores::Stores,
    telemetry::{THROTTLE_INTERVAL, Telemetry},
    vulnerabilities::Vulnerabilities,
    worker::Worker,
};

/// An error that prevents a service from starting. `addresses` are those that were tried.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the fields are described once, above")]
pub enum ServeError {
    /// The token file is invalid.
    #[error(transparent)]
    Tokens(#[from] TokenFileError),
    /// The certificate or its key is invalid.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// An origin is invalid.
    #[error("invalid origin `{0}`; expected a URL such as https://example.org or http://localhost:3000")]
    Origin(String),
    /// The audit log can't be opened.
    #[error("failed to open the audit log: {0}")]
    Audit(io::Error),
    /// Builds can't run as the user that they need.
    #[error(transparent)]
    JobUser(#[from] JobUserError),
    /// A store can't be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The data directory or the shared directory can't be used.
    #[error("failed to set up the directory `{}`: {error}", directory.display())]
    Data { directory: PathBuf, error: io::Error },
    /// Listening on the address failed.
    #[error("failed to listen on {}: {error}", list(addresses))]
    Listen { addresses: Vec<SocketAddr>, error: io::Error },
    /// A bug in vx.
    #[error("internal error: {0} (please report this)")]
    Internal(String),
}

impl ServeError {
    /// Whether the error is caused by an invalid option.
    #[must_use]
    pub fn is_of_options(&self) -> bool {
        matches!(self, Self::Tokens(_) | Self::Tls(_) | Self::Origin(_) | Self::Audit(_) | Self::JobUser(_))
    }
}

fn list(addresses: &[SocketAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ")
}

/// Runs a service until `shutdown` is cancelled and its requests and builds have ended. Calls `ready` with
/// the listening address.
///
/// # Errors
/// The service can't be started.
pub async fn serve(
    options: ServiceOptions,
    shutdown: CancellationToken,
    ready: impl FnOnce(SocketAddr),
) -> Result<(), ServeError> {
    let tokens = TokenStore::open(options.tokens.as_deref())?;
    let telemetry = Telemetry::new(options.audit.as_deref()).map_err(ServeError::Audit)?;
    let certificate = options.tls.clone().map(Certificate::open).transpose()?;
    let tls = certificate.as_ref().map(Certificate::configuration).transpose();
    let tls = tls.map_err(|error| ServeError::Internal(error.to_string()))?;
    let access = AccessConfig {
        origins: options.origins.iter().map(|origin| parse_origin(origin)).collect::<Result<_, _>>()?,
        local_only: !tokens.is_token_required() && !options.anonymous,
        https_only: tls.is_some(),
    };
    let listening = |error| ServeError::Listen { addresses: options.listen.clone(), error };
    let listener = listener::bind(&options.listen).map_err(listening)?;
    let address = listener.local_addr().map_err(listening)?;
    let (draining, closing) = (shutdown, CancellationToken::new());
    let in_data = |error| ServeError::Data { directory: options.data.clone(), error };
    tokio::fs::create_dir_all(&options.data).await.map_err(in_data)?;
    let share = |directory: &PathBuf| {
        SharedDirectory::open(directory)
            .map_err(|error| ServeError::Data { directory: directory.clone(), error })
    };
    let shared = options.share_dir.as_ref().map(share).transpose()?;
    let stores = Stores::open(&options, shared, &draining).await?;
    let runner = if options.jobs > 0 { Some(runner(&options, &telemetry)?) } else { None };
    let state = Arc::new(AppState {
        service: Service {
            telemetry: Arc::clone(&telemetry),
            store: Arc::clone(&stores.builds),
            artifacts: Arc::clone(&stores.artifacts),
            policy: options.policy.clone(),
            // The other nodes of a cluster run what this one accepts.
            closed: if options.cluster.is_some() { CancellationToken::new() } else { draining.clone() },
        },
        readiness: Readiness::new(
            Arc::clone(&stores.builds),
            Arc::clone(&stores.artifacts),
            Disk::new(&options.data),
            draining.clone(),
        ),
        tokens,
        releases: Releases::new(options.environment.clone(), options.data.clone()),
        vulnerabilities: options
            .vulnerability_database
            .clone()
            .map(|database| Vulnerabilities::new(database, options.environment.clone())),
        draining: draining.clone(),
        closing: closing.clone(),
    });
    let app = router(&state, &access).map_err(|error| ServeError::Internal(error.to_string()))?;
    if let Some(certificate) = certificate {
        tokio::spawn(closing.clone().run_until_cancelled_owned(certificate.watch()));
    }
    tokio::spawn({
        let telemetry = Arc::clone(&telemetry);
        closing.clone().run_until_cancelled_owned(async move {
            loop {
                tokio::time::sleep(THROTTLE_INTERVAL).await;
                telemetry.log_counts();
            }
        })
    });
    tokio::spawn({
        let (draining, closing, drain) = (draining.clone(), closing.clone(), options.drain);
        async move {
            draining.cancelled().await;
            tokio::time::sleep(drain).await;
            closing.cancel();
        }
    });
    let worker = runner.map(|runner| Worker {
        store: stores.builds,
        artifacts: stores.artifacts,
        runner: Arc::new(runner) as Arc<dyn JobRunner>,
        jobs: options.jobs,
        name: format!("{address}"),
        log: options.limits.log,
        sign_key: options.sign_key.clone(),
        drain: options.drain,
        telemetry: Arc::clone(&telemetry),
    });
    let working = worker.map(|worker| tokio::spawn(worker.work(draining.clone())));
    ready(address);
    // A panic was logged already.
    let working = OptionFuture::from(working).map(drop).shared();
    listener::run(listener, tls, app, working.clone(), draining, closing.clone()).await;
    working.await;
    closing.cancel();
    telemetry.log_counts();
    Ok(())
}

/// Prepares the running of builds, and records what the system can't forbid them.
pub(crate) fn runner(options: &ServiceOptions, telemetry: &Telemetry) -> Result<ProcessRunner, ServeError> {
    let runner =
        ProcessRunner::with_counter(options, telemetry.metrics.downloaded.clone()).map_err(|error| {
            match error {
                RunnerError::Data(error) => ServeError::Data { directory: options.data.clone(), error },
                RunnerError::User(error) => ServeError::JobUser(error),
            }
        })?;
    for gap in isolation_gaps() {
        tracing::warn!("the isolation of builds is incomplete here: they can {}", gap.ability);
        telemetry.metrics.isolation_gap(gap.name);
    }
    Ok(runner)
}

/// Parses an origin into the form that browsers send (<https://www.rfc-editor.org/rfc/rfc6454#section-6.1>).
fn parse_origin(text: &str) -> Result<HeaderValue, ServeError> {
    let invalid = || ServeError::Origin(text.to_owned());
    let url: url::Url = text.parse().map_err(|_| invalid())?;
    if !matches!(url.scheme(), "http" | "https") || url.path() != "/" || url.query().is_some() {
        return Err(invalid());
    }
    HeaderValue::from_str(&url.origin().ascii_serialization()).map_err(|_| invalid())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins() {
        assert_eq!(
            parse_origin("https://Example.org/").ok(),
            Some(HeaderValue::from_static("https://example.org"))
        );
        assert_eq!(
            parse_origin("http://localhost:3000").ok(),
            Some(HeaderValue::from_static("http://localhost:3000"))
        );
        for invalid in ["*", "example.org", "https://example.org/page", "file:///x", ""] {
            assert!(parse_origin(invalid).is_err(), "{invalid}");
        }
    }
}
