//! The client and its repositories.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use reqwest::redirect::Policy;
use tokio::sync::OnceCell;
use url::Url;
use velox_fetch::http::{HttpOptions, ProxySettings};

use crate::{
    Error, ImageReference,
    registry::{ClientState, Registry, RegistryOptions, Tokens},
    transport::{Request, plain_send},
};

const MAX_REDIRECTS: usize = 10;
/// reqwest measures the read timeout of a request while its body is still being sent; uploads have their own timeout.
const NO_READ_TIMEOUT: Duration = Duration::from_secs(86400);
/// <https://github.com/distribution/reference/blob/main/normalize.go>
const DOCKER_HUB_HOST: &str = "registry-1.docker.io";

/// A client for container registries. Clones share connections and tokens.
#[derive(Clone)]
pub struct RegistryClient(Arc<ClientState>);

/// A repository of a registry: [`RegistryClient::repository`].
#[derive(Clone)]
pub struct RegistryRepository {
    pub(crate) client: RegistryClient,
    pub(crate) registry: Arc<Registry>,
    pub(crate) name: String,
}

impl RegistryClient {
    /// Creates a client. It connects when the first request is sent.
    ///
    /// # Errors
    /// Invalid proxies or certificates.
    pub fn new(options: RegistryOptions) -> Result<Self, Error> {
        let direct = HttpOptions { proxy: ProxySettings::default(), ..options.http.clone() };
        let download = |http: &HttpOptions| http.client(redirects());
        let upload = |http: &HttpOptions| {
            HttpOptions { read_timeout: NO_READ_TIMEOUT, ..http.clone() }.client(redirects())
        };
        Ok(Self(Arc::new(ClientState {
            download: download(&options.http)?,
            upload: upload(&options.http)?,
            local_download: download(&direct)?,
            local_upload: upload(&direct)?,
            options,
            registries: Mutex::default(),
        })))
    }

    /// The repository of a reference; its tag and digest don't matter.
    #[must_use]
    pub fn repository(&self, reference: &ImageReference) -> RegistryRepository {
        let host = reference.registry();
        let mut registries = self.0.registries.lock().unwrap_or_else(PoisonError::into_inner);
        let registry = registries.entry(host.to_owned()).or_insert_with(|| {
            Arc::new(Registry { host: host.to_owned(), base: OnceCell::new(), tokens: Tokens::default() })
        });
        RegistryRepository {
            client: self.clone(),
            registry: Arc::clone(registry),
            name: reference.repository().to_owned(),
        }
    }

    pub(crate) fn state(&self) -> &ClientState {
        &self.0
    }
}

impl Registry {
    /// The URL of the registry. One on this machine is asked whether it speaks TLS.
    pub(crate) async fn base(&self, client: &ClientState) -> Result<&Url, Error> {
        self.base
            .get_or_try_init(async || {
                let host = if self.host == "docker.io" { DOCKER_HUB_HOST } else { &self.host };
                let url = |scheme: &str| {
                    Url::parse(&format!("{scheme}://{host}/v2/")).map_err(|error| Error::InvalidResponse {
                        host: self.host.clone(),
                        reason: error.to_string(),
                    })
                };
                let secure = url("https")?;
                if !self.is_loopback() {
                    return Ok(secure);
                }
                let request = Request::get(secure.clone());
                match plain_send(self, client, &request, None).await {
                    Ok(_) => Ok(secure),
                    Err(failure) if failure.is_certificate => Err(failure.error),
                    Err(_) => url("http"),
                }
            })
            .await
    }
}

impl RegistryRepository {
    /// `HOST/REPOSITORY`
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry.host, self.name)
    }

    /// A URL below `/v2/REPOSITORY/`.
    pub(crate) async fn url(&self, path: &str) -> Result<Url, Error> {
        let base = self.registry.base(self.client.state()).await?;
        base.join(&format!("{}/{path}", self.name)).map_err(|error| self.invalid(error.to_string()))
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

impl std::fmt::Debug for RegistryClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RegistryClient").finish_non_exhaustive()
    }
}

/// Registries redirect to object stores. reqwest drops credentials when the host changes.
fn redirects() -> Policy {
    Policy::custom(|attempt| {
        let is_downgrade = attempt.url().scheme() != "https"
            && attempt.previous().last().is_some_and(|previous| previous.scheme() == "https");
        if is_downgrade {
            attempt.error("redirect from HTTPS to another scheme")
        } else if attempt.previous().len() > MAX_REDIRECTS {
            attempt.error("too many redirects")
        } else {
            attempt.follow()
        }
    })
}
