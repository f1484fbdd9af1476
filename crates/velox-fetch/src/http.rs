//! HTTP clients with configured proxies and certificates.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, LazyLock},
    time::Duration,
};

use reqwest::{Client, ClientBuilder, NoProxy, Proxy, redirect::Policy};
use rustls::RootCertStore;

/// The settings of an HTTP client.
#[derive(Debug, Clone)]
pub struct HttpOptions {
    /// The `User-Agent` header.
    pub user_agent: String,
    /// A PEM file of trusted certificates that replaces the system's (SSL_CERT_FILE of OpenSSL and Go).
    pub ca_bundle: Option<PathBuf>,
    /// The proxy settings.
    pub proxy: ProxySettings,
    /// The connect timeout.
    pub connect_timeout: Duration,
    /// The timeout between two reads.
    pub read_timeout: Duration,
    /// The maximum wait for a rate limit reset.
    pub max_wait: Duration,
}

/// The proxy environment variables.
#[derive(Debug, Clone, Default)]
pub struct ProxySettings {
    /// HTTPS_PROXY.
    pub https: Option<String>,
    /// HTTP_PROXY.
    pub http: Option<String>,
    /// NO_PROXY.
    pub no_proxy: Option<String>,
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self {
            user_agent: concat!("vx/", env!("CARGO_PKG_VERSION")).to_owned(),
            ca_bundle: None,
            proxy: ProxySettings::default(),
            connect_timeout: Duration::from_secs(15),
            read_timeout: Duration::from_secs(60),
            max_wait: Duration::from_secs(60),
        }
    }
}

impl HttpOptions {
    /// The options of an environment: SSL_CERT_FILE, and the proxy variables in lower or upper case.
    #[must_use]
    pub fn from_environment(environment: &BTreeMap<String, String>) -> Self {
        let variable = |name: &str| environment.get(name).filter(|value| !value.is_empty()).cloned();
        let either = |lower: &str, upper: &str| variable(lower).or_else(|| variable(upper));
        Self {
            ca_bundle: variable("SSL_CERT_FILE").map(PathBuf::from),
            proxy: ProxySettings {
                https: either("https_proxy", "HTTPS_PROXY"),
                http: either("http_proxy", "HTTP_PROXY"),
                no_proxy: either("no_proxy", "NO_PROXY"),
            },
            ..Self::default()
        }
    }

    /// Creates a client with these settings.
    pub fn client(&self, redirect: Policy) -> Result<Client, HttpClientError> {
        self.builder(redirect)?.build().map_err(|error| HttpClientError::Tls(root_cause(&error)))
    }

    /// Creates a client builder with these settings.
    pub fn builder(&self, redirect: Policy) -> Result<ClientBuilder, HttpClientError> {
        let proxy = |scheme: &str, url: &Option<String>| -> Result<Option<Proxy>, HttpClientError> {
            let Some(url) = url else { return Ok(None) };
            let url = if url.contains("://") { url.clone() } else { format!("http://{url}") };
            let proxy = if scheme == "https" { Proxy::https(url) } else { Proxy::http(url) };
            let none = self.proxy.no_proxy.as_deref().and_then(NoProxy::from_string);
            proxy.map(|proxy| Some(proxy.no_proxy(none))).map_err(|_| HttpClientError::ProxyUrl {
                variable: format!("{}_PROXY", scheme.to_ascii_uppercase()),
            })
        };
        let mut builder = Client::builder()
            .user_agent(self.user_agent.clone())
            .connect_timeout(self.connect_timeout)
            .read_timeout(self.read_timeout)
            .redirect(redirect)
            .no_proxy()
            .tls_backend_preconfigured(tls(self.ca_bundle.as_deref())?);
        for proxy in
            [proxy("https", &self.proxy.https)?, proxy("http", &self.proxy.http)?].into_iter().flatten()
        {
            builder = builder.proxy(proxy);
        }
        Ok(builder)
    }
}

/// An error creating an HTTP client.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HttpClientError {
    /// The certificate file is unreadable.
    #[error("failed to read the certificates in `{}`: {reason}", path.display())]
    CertificateFile {
        /// The file.
        path: PathBuf,
        /// The cause.
        reason: String,
    },
    /// A proxy variable isn't a URL. Its value isn't shown because it may contain a password.
    #[error("invalid URL in `{variable}`")]
    ProxyUrl {
        /// `HTTPS_PROXY` or `HTTP_PROXY`.
        variable: String,
    },
    /// TLS setup failed.
    #[error("failed to set up TLS: {0}")]
    Tls(String),
}

/// The certificates of the system, which take milliseconds to read.
static SYSTEM_ROOTS: LazyLock<Arc<RootCertStore>> = LazyLock::new(|| {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    Arc::new(roots)
});

/// The TLS configuration with ring and the certificates of `ca_bundle`, or the system's.
fn tls(ca_bundle: Option<&Path>) -> Result<rustls::ClientConfig, HttpClientError> {
    use rustls::pki_types::{
        CertificateDer,
        pem::{self, PemObject as _},
    };
    let roots = match ca_bundle {
        Some(file) => {
            let mut roots = RootCertStore::empty();
            let unreadable = |error: pem::Error| HttpClientError::CertificateFile {
                path: file.to_owned(),
                reason: error.to_string(),
            };
            for certificate in CertificateDer::pem_file_iter(file).map_err(unreadable)? {
                let certificate = certificate.map_err(unreadable)?;
                // Certificates that rustls doesn't support are skipped.
                let _ = roots.add(certificate);
            }
            Arc::new(roots)
        }
        None => Arc::clone(&SYSTEM_ROOTS),
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| HttpClientError::Tls(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(config)
}

/// The innermost cause of an error. Outer ones of reqwest contain the URL, which may have credentials.
pub fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

/// Whether a request failed because the server's certificate isn't trusted.
pub fn is_certificate_error(error: &(dyn std::error::Error + 'static)) -> bool {
    if let Some(rustls::Error::InvalidCertificate(_)) = error.downcast_ref() {
        return true;
    }
    // The source of an `io::Error` is the source of the error in it.
    let wrapped = error.downcast_ref::<std::io::Error>().and_then(|error| error.get_ref());
    match wrapped {
        Some(wrapped) => is_certificate_error(wrapped),
        None => error.source().is_some_and(is_certificate_error),
    }
}
