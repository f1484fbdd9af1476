//! What a client knows: its settings, its connections, and each registry.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use reqwest::Client;
use secrecy::SecretString;
use tokio::sync::OnceCell;
use url::Url;
use velox_fetch::http::HttpOptions;

use crate::{
    BlobDigest,
    credentials::{CredentialError, DockerCredentials, RegistryLogin},
};

const MAX_RATE_LIMIT_WAIT: Duration = Duration::from_secs(300);

/// A callback for the progress of transfers. It is called from any thread.
pub type OnRegistryEvent = Arc<dyn Fn(RegistryEvent<'_>) + Send + Sync>;

/// What happens during a request.
#[derive(Debug, Clone, Copy)]
pub enum RegistryEvent<'a> {
    /// Bytes of a blob arrived.
    Downloaded {
        /// The blob.
        digest: &'a BlobDigest,
        /// New bytes, not the sum.
        bytes: u64,
    },
    /// Bytes of a blob were sent.
    Uploaded {
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

/// The settings of a [`RegistryClient`](crate::RegistryClient).
#[derive(Clone, Default)]
pub struct RegistryOptions {
    /// Proxies, certificates and timeouts. `max_wait` is the longest wait for a rate limit.
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

pub(crate) struct ClientState {
    pub(crate) options: RegistryOptions,
    pub(crate) download: Client,
    pub(crate) upload: Client,
    /// The same without proxies: proxies don't reach this machine's loopback addresses.
    pub(crate) local_download: Client,
    pub(crate) local_upload: Client,
    pub(crate) registries: Mutex<HashMap<String, Arc<Registry>>>,
}

/// What is known about a registry.
pub(crate) struct Registry {
    pub(crate) host: String,
    pub(crate) base: OnceCell<Url>,
    pub(crate) tokens: Tokens,
}

/// The authorizations that a registry has accepted, by their scopes.
#[derive(Default)]
pub(crate) struct Tokens(pub(crate) tokio::sync::Mutex<TokenState>);

#[derive(Default)]
pub(crate) struct TokenState {
    pub(crate) by_scopes: HashMap<Vec<String>, AuthorizationValue>,
    /// A password is for everything.
    pub(crate) basic: Option<AuthorizationValue>,
    /// Read once, when the registry first asks for it.
    pub(crate) login: Option<Option<RegistryLogin>>,
}

/// The value of an `Authorization` header.
pub(crate) type AuthorizationValue = Arc<SecretString>;

impl ClientState {
    pub(crate) fn http(&self, registry: &Registry, is_upload: bool) -> &Client {
        match (registry.is_loopback(), is_upload) {
            (false, false) => &self.download,
            (false, true) => &self.upload,
            (true, false) => &self.local_download,
            (true, true) => &self.local_upload,
        }
    }

    pub(crate) fn report(&self, event: RegistryEvent<'_>) {
        if let Some(on_event) = &self.options.on_event {
            on_event(event);
        }
    }
}

impl Registry {
    /// Whether the registry runs on this machine. Only then, plain HTTP is accepted.
    pub(crate) fn is_loopback(&self) -> bool {
        let Ok(url) = Url::parse(&format!("https://{}/", self.host)) else { return false };
        match url.host() {
            Some(url::Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
            Some(url::Host::Ipv4(address)) => IpAddr::V4(address).is_loopback(),
            Some(url::Host::Ipv6(address)) => IpAddr::V6(address).is_loopback(),
            None => false,
        }
    }
}

impl Tokens {
    pub(crate) async fn cached(&self, scopes: &[String]) -> Option<AuthorizationValue> {
        self.0.lock().await.find(scopes).cloned()
    }

    pub(crate) async fn has_login(&self) -> bool {
        matches!(self.0.lock().await.login, Some(Some(_)))
    }
}

impl TokenState {
    pub(crate) fn find(&self, scopes: &[String]) -> Option<&AuthorizationValue> {
        self.by_scopes.get(scopes).or(self.basic.as_ref())
    }
}
