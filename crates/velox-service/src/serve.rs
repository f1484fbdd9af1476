//! The service as a whole: stores, workers and the listener, from their start to their end.

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc};

use axum::http::HeaderValue;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    auth::{TokenFileError, Tokens},
    http::{
        self, Entrance, Site, listener,
        tls::{Certificate, TlsError},
    },
    job::Jobs,
    options::ServiceOptions,
    releases::Releases,
    runner::JobRunner,
    service::Service,
    store::StoreError,
    stores::Stores,
    telemetry::Telemetry,
    worker::Worker,
};

/// Why a service can't go on.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The file with the tokens isn't right.
    #[error(transparent)]
    Tokens(#[from] TokenFileError),
    /// The certificate or its key isn't right.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// An origin isn't one.
    #[error("`{0}` is no origin: write it as https://example.org, or http://localhost:3000")]
    Origin(String),
    /// The audit log can't be written.
    #[error("can't open the audit log: {0}")]
    Audit(io::Error),
    /// A store can't be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Its directory can't be used.
    #[error("can't use the directory {}: {error}", directory.display())]
    Data {
        /// The directory.
        directory: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The address can't be listened on.
    #[error("can't listen on {address}: {error}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        error: io::Error,
    },
    /// vx was put together wrongly.
    #[error("this vx has a defect: {0}")]
    Defect(String),
}

impl ServeError {
    /// Whether it is the options that are wrong, not the machine.
    #[must_use]
    pub fn is_of_options(&self) -> bool {
        matches!(self, Self::Tokens(_) | Self::Tls(_) | Self::Origin(_) | Self::Audit(_))
    }
}

/// Runs a service until `shutdown` is cancelled and what was on its way came to an end; `ready` is told where it listens.
///
/// # Errors
/// It can't be started.
pub async fn serve(
    options: ServiceOptions,
    shutdown: CancellationToken,
    ready: impl FnOnce(SocketAddr),
) -> Result<(), ServeError> {
    let tokens = Tokens::open(options.tokens.as_deref())?;
    let telemetry = Telemetry::new(options.audit.as_deref()).map_err(ServeError::Audit)?;
    let certificate = options.tls.clone().map(Certificate::open).transpose()?;
    let tls = certificate.as_ref().map(Certificate::configuration).transpose();
    let tls = tls.map_err(|error| ServeError::Defect(error.to_string()))?;
    let entrance = Entrance {
        origins: options.origins.iter().map(|origin| origin_of(origin)).collect::<Result<_, _>>()?,
        own_names: !tokens.are_needed() && !options.anonymous,
        secure: tls.is_some(),
    };
    let listening = |error| ServeError::Listen { address: options.listen, error };
    let listener = TcpListener::bind(options.listen).await.map_err(listening)?;
    let address = listener.local_addr().map_err(listening)?;
    let (draining, closing) = (shutdown, CancellationToken::new());
    let in_data = |error| ServeError::Data { directory: options.data.clone(), error };
    tokio::fs::create_dir_all(&options.data).await.map_err(in_data)?;
    let stores = Stores::open(&options, &draining).await?;
    let runner = if options.jobs > 0 {
        Some(Jobs::counted(&options, telemetry.downloaded()).map_err(in_data)?)
    } else {
        None
    };
    let site = Arc::new(Site {
        telemetry: Arc::clone(&telemetry),
        service: Service {
            telemetry: Arc::clone(&telemetry),
            store: Arc::clone(&stores.builds),
            artifacts: Arc::clone(&stores.artifacts),
            policy: options.policy.clone(),
            rates: Arc::default(),
        },
        tokens,
        releases: Releases::new(options.environment.clone(), options.data.clone()),
        draining: draining.clone(),
        closing: closing.clone(),
    });
    let app = http::router(&site, &entrance).map_err(|error| ServeError::Defect(error.to_string()))?;
    if let Some(certificate) = certificate {
        tokio::spawn(closing.clone().run_until_cancelled_owned(certificate.follow()));
    }
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
        drain: options.drain,
        telemetry,
    });
    let working = worker.map(|worker| tokio::spawn(worker.work(draining.clone())));
    ready(address);
    listener::run(listener, tls, app, draining, closing.clone()).await;
    if let Some(working) = working {
        // What it has is done, or given back to the queue: a panic of its own is told by then.
        let _ = working.await;
    }
    closing.cancel();
    Ok(())
}

/// An origin as browsers write it (<https://www.rfc-editor.org/rfc/rfc6454#section-6.1>).
fn origin_of(text: &str) -> Result<HeaderValue, ServeError> {
    let wrong = || ServeError::Origin(text.to_owned());
    let url: url::Url = text.parse().map_err(|_| wrong())?;
    if !matches!(url.scheme(), "http" | "https") || url.path() != "/" || url.query().is_some() {
        return Err(wrong());
    }
    HeaderValue::from_str(&url.origin().ascii_serialization()).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins() {
        assert_eq!(
            origin_of("https://Example.org/").ok(),
            Some(HeaderValue::from_static("https://example.org"))
        );
        assert_eq!(
            origin_of("http://localhost:3000").ok(),
            Some(HeaderValue::from_static("http://localhost:3000"))
        );
        for wrong in ["*", "example.org", "https://example.org/page", "file:///x", ""] {
            assert!(origin_of(wrong).is_err(), "{wrong}");
        }
    }
}
