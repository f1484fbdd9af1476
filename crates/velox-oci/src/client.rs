//! The client, and what it knows about each registry.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use reqwest::{Client, redirect::Policy};
use secrecy::SecretString;
use tokio::sync::OnceCell;
use url::{Host, Url};
use velox_fetch::http::HttpOptions;

use crate::{
    BlobDigest, CredentialError, DockerCredentials, Error, ImageReference, credentials::RegistryLogin,
};

const MAX_RATE_LIMIT_WAIT: Duration = Duration::from_secs(300);
const MAX_REDIRECTS: usize = 10;
/// reqwest measures the read timeout of a request while its body is still being sent: `transport.rs` has its own.
const NO_READ_TIMEOUT: Duration = Duration::from_secs(86400);
/// Proxies don't reach this machine's loopback addresses.
const LOOPBACK: &str = "localhost,127.0.0.0/8,::1";

/// A callback for the progress of transfers. It is called from any thread.
pub type OnRegistryEvent = Arc<dyn Fn(RegistryEvent<'_>) + Send + Sync>;

/// What happens during a request.
#[derive(Debug, Clone, Copy)]
pub enum RegistryEvent<'a> {
    /// Bytes of a blob arrived or were sent.
    Transferred {
        /// The blob.
        digest: &'a BlobDigest,
        /// New bytes, not the sum.
        bytes: u64,
    },
    /// The registry limits requests; this one is repeated after the time that it asked for.
    RateLimited {
        /// The registry.
        host: &'a str,
        /// The wait in seconds.
        seconds: u64,
    },
}

/// The settings of a [`RegistryClient`].
#[derive(Clone, Default)]
pub struct RegistryOptions {
    /// Proxies, certificates and timeouts. `max_wait` is the longest wait of a request for rate limits.
    pub http: HttpOptions,
    /// The logins.
    pub credentials: DockerCredentials,
    /// Called for progress.
    pub on_event: Option<OnRegistryEvent>,
}

impl RegistryOptions {
    /// The options of an environment: proxies, SSL_CERT_FILE, and the credentials of
    /// [`DockerCredentials::from_environment`].
    ///
    /// # Errors
    /// A credential file is unreadable.
    pub fn from_environment(environment: &BTreeMap<String, String>) -> Result<Self, CredentialError> {
        let http =
            HttpOptions { max_wait: MAX_RATE_LIMIT_WAIT, ..HttpOptions::from_environment(environment) };
        Ok(Self { http, credentials: DockerCredentials::from_environment(environment)?, on_event: None })
    }
}

/// A client for container registries. Clones share connections and tokens.
#[derive(Clone)]
pub struct RegistryClient(Arc<ClientState>);

struct ClientState {
    options: RegistryOptions,
    http: Client,
    registries: Mutex<HashMap<String, Arc<Registry>>>,
}

pub(crate) struct Registry {
    pub(crate) host: String,
    pub(crate) base: OnceCell<Url>,
    pub(crate) authorizations: tokio::sync::Mutex<Authorizations>,
}

/// The value of an `Authorization` header.
pub(crate) type AuthorizationValue = Arc<SecretString>;

/// The authorizations that a registry has accepted, by their scopes.
#[derive(Default)]
pub(crate) struct Authorizations {
    pub(crate) by_scopes: HashMap<Vec<String>, AuthorizationValue>,
    /// That of the whole registry. Read once, when the registry first asks for it.
    pub(crate) login: Option<Option<RegistryLogin>>,
}

/// A repository of a registry: [`RegistryClient::repository`].
#[derive(Clone)]
pub struct RegistryRepository {
    client: RegistryClient,
    pub(crate) registry: Arc<Registry>,
    pub(crate) name: String,
}

impl RegistryClient {
    /// Creates a client. It connects when the first request is sent.
    ///
    /// # Errors
    /// Invalid proxies or certificates.
    pub fn new(options: RegistryOptions) -> Result<Self, Error> {
        let mut http = HttpOptions { read_timeout: NO_READ_TIMEOUT, ..options.http.clone() };
        let no_proxy = http.proxy.no_proxy.iter().map(String::as_str).chain([LOOPBACK]);
        http.proxy.no_proxy = Some(no_proxy.collect::<Vec<_>>().join(","));
        let http = http.client(redirects())?;
        Ok(Self(Arc::new(ClientState { options, http, registries: Mutex::default() })))
    }

    /// The repository of a reference; its tag and digest don't matter.
    #[must_use]
    pub fn repository(&self, reference: &ImageReference) -> RegistryRepository {
        let host = reference.registry();
        let mut registries = self.0.registries.lock().unwrap_or_else(PoisonError::into_inner);
        let registry = registries.entry(host.to_owned()).or_insert_with(|| {
            let (base, authorizations) = Default::default();
            Arc::new(Registry { host: host.to_owned(), base, authorizations })
        });
        RegistryRepository {
            client: self.clone(),
            registry: Arc::clone(registry),
            name: reference.repository().to_owned(),
        }
    }
}

impl RegistryRepository {
    /// `HOST/REPOSITORY`
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry.host, self.name)
    }

    /// `HOST/REPOSITORY:TAG` or `HOST/REPOSITORY@DIGEST`.
    pub(crate) fn what(&self, version: &str) -> String {
        let separator = if version.contains(':') { '@' } else { ':' };
        format!("{}{separator}{version}", self.name())
    }

    pub(crate) fn options(&self) -> &RegistryOptions {
        &self.client.0.options
    }

    pub(crate) fn http(&self) -> &Client {
        &self.client.0.http
    }

    pub(crate) fn report(&self, event: RegistryEvent<'_>) {
        if let Some(on_event) = &self.options().on_event {
            on_event(event);
        }
    }

    pub(crate) fn invalid(&self, reason: impl Into<String>) -> Error {
        Error::InvalidResponse { host: self.registry.host.clone(), reason: reason.into() }
    }
}

impl std::fmt::Debug for RegistryRepository {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("RegistryRepository").field(&self.name()).finish()
    }
}

/// Whether a URL that another one led to is acceptable: HTTPS, or HTTP from this machine to itself.
pub(crate) fn is_acceptable(url: &Url, from: &Url) -> bool {
    url.scheme() == "https" || (url.scheme() == "http" && from.scheme() == "http" && is_loopback(url))
}

pub(crate) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// Registries redirect to object stores. reqwest drops credentials when the host changes.
fn redirects() -> Policy {
    Policy::custom(|attempt| {
        if attempt.previous().last().is_some_and(|from| !is_acceptable(attempt.url(), from)) {
            attempt.error("redirect to an address without HTTPS")
        } else if attempt.previous().len() > MAX_REDIRECTS {
            attempt.error("too many redirects")
        } else {
            attempt.follow()
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_stays_on_this_machine() {
        let url = |text: &str| Url::parse(text).unwrap();
        for (from, to, expected) in [
            ("https://ghcr.io/v2/", "https://storage.test/x", true),
            ("https://ghcr.io/v2/", "http://ghcr.io/x", false),
            ("https://ghcr.io/v2/", "http://127.0.0.1/x", false),
            ("http://localhost:5000/v2/", "http://[::1]:5001/token", true),
            ("http://localhost:5000/v2/", "http://auth.test/token", false),
            ("http://127.0.0.1/v2/", "file:///etc/passwd", false),
        ] {
            assert_eq!(is_acceptable(&url(to), &url(from)), expected, "{from} {to}");
        }
    }
}
