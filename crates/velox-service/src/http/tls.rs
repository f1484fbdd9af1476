//! TLS with automatic reloading of the certificate.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, SystemTime},
};

use rustls::{
    ServerConfig,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use crate::options::TlsOptions;

/// The interval between checks of the files for changes.
const RELOAD_INTERVAL: Duration = Duration::from_secs(10);

/// An error with the certificate or its key. `file` is the one that is wrong, `what` its expected content.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the fields are described once, above")]
pub enum TlsError {
    /// A file can't be read.
    #[error("failed to read `{}`: {error}", file.display())]
    File { file: PathBuf, error: io::Error },
    /// A file has no PEM block of the expected kind.
    #[error("no {what} found in `{}`; expected PEM with `-----BEGIN …-----` lines", file.display())]
    Pem { file: PathBuf, what: &'static str },
    /// The certificate does not match the key, or TLS does not support it.
    #[error("cannot use the certificate `{}` with the key `{}`: {error}", certificate.display(), key.display())]
    Pair { certificate: PathBuf, key: PathBuf, error: rustls::Error },
}

/// The current certificate and its files.
#[derive(Debug)]
pub(crate) struct Certificate {
    files: TlsOptions,
    provider: CryptoProvider,
    current: RwLock<Arc<CertifiedKey>>,
}

impl Certificate {
    /// Reads the files.
    pub(crate) fn open(files: TlsOptions) -> Result<Arc<Self>, TlsError> {
        let provider = ring::default_provider();
        let current = RwLock::new(Arc::new(load(&files, &provider)?));
        Ok(Arc::new(Self { files, provider, current }))
    }

    /// The configuration for a listener.
    pub(crate) fn configuration(self: &Arc<Self>) -> Result<ServerConfig, rustls::Error> {
        let resolver = Arc::clone(self) as Arc<dyn ResolvesServerCert>;
        let mut configuration = ServerConfig::builder_with_provider(Arc::new(self.provider.clone()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(resolver);
        configuration.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(configuration)
    }

    /// Reloads the files whenever they change; invalid ones are ignored.
    pub(crate) async fn watch(self: Arc<Self>) {
        let mut modified = self.modified();
        loop {
            tokio::time::sleep(RELOAD_INTERVAL).await;
            let now = self.modified();
            if now != modified {
                modified = now;
                self.reload();
            }
        }
    }

    fn reload(&self) {
        match load(&self.files, &self.provider) {
            Ok(pair) => {
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(pair);
                tracing::info!("reloaded the certificate");
            }
            Err(error) => tracing::error!("{error}; keeping the previous certificate"),
        }
    }

    fn modified(&self) -> [Option<SystemTime>; 2] {
        [&self.files.certificate, &self.files.key].map(|file| fs::metadata(file).ok()?.modified().ok())
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

fn load(files: &TlsOptions, provider: &CryptoProvider) -> Result<CertifiedKey, TlsError> {
    let read = |file: &Path| fs::read(file).map_err(|error| TlsError::File { file: file.to_owned(), error });
    let pem = |file: &Path, what| TlsError::Pem { file: file.to_owned(), what };
    let certificates: Result<Vec<_>, pem::Error> =
        CertificateDer::pem_slice_iter(&read(&files.certificate)?).collect();
    let chain = certificates.ok().filter(|chain| !chain.is_empty());
    let chain = chain.ok_or_else(|| pem(&files.certificate, "certificate"))?;
    let key = PrivateKeyDer::from_pem_slice(&read(&files.key)?);
    let key = key.map_err(|_| pem(&files.key, "private key"))?;
    CertifiedKey::from_der(chain, key, provider).map_err(|error| TlsError::Pair {
        certificate: files.certificate.clone(),
        key: files.key.clone(),
        error,
    })
}
