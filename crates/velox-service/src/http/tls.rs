//! TLS, with a certificate that may be renewed while the service runs.

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

/// How often the files are looked at.
const GLANCE: Duration = Duration::from_secs(10);

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file can't be read.
    #[error("can't read {}: {error}", file.display())]
    File {
        /// Which one.
        file: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A file isn't what it should be.
    #[error("{} has no {what}: it has to be PEM, with `-----BEGIN …-----` lines", file.display())]
    Pem {
        /// Which one.
        file: PathBuf,
        /// What it should have.
        what: &'static str,
    },
    /// The certificate and the key don't go together, or are of a kind that TLS can't use.
    #[error("the certificate {} can't be used with the key {}: {error}", certificate.display(), key.display())]
    Pair {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// Why.
        error: rustls::Error,
    },
}

/// The certificate as the files have it by now.
#[derive(Debug)]
pub(crate) struct Certificate {
    files: TlsOptions,
    provider: CryptoProvider,
    current: RwLock<Arc<CertifiedKey>>,
}

impl Certificate {
    /// Reads the files.
    ///
    /// # Errors
    /// They can't be read, or used.
    pub(crate) fn open(files: TlsOptions) -> Result<Arc<Self>, TlsError> {
        let provider = ring::default_provider();
        let current = RwLock::new(Arc::new(load(&files, &provider)?));
        Ok(Arc::new(Self { files, provider, current }))
    }

    /// What a listener needs.
    ///
    /// # Errors
    /// The library has no protocol version for it.
    pub(crate) fn configuration(self: &Arc<Self>) -> Result<ServerConfig, rustls::Error> {
        let resolver = Arc::clone(self) as Arc<dyn ResolvesServerCert>;
        let mut configuration = ServerConfig::builder_with_provider(Arc::new(self.provider.clone()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(resolver);
        configuration.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(configuration)
    }

    /// Reads the files again whenever they change. New ones that can't be used change nothing.
    pub(crate) async fn follow(self: Arc<Self>) {
        let mut known = self.changed();
        loop {
            tokio::time::sleep(GLANCE).await;
            let now = self.changed();
            if now != known {
                known = now;
                self.reload();
            }
        }
    }

    fn reload(&self) {
        match load(&self.files, &self.provider) {
            Ok(pair) => {
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(pair);
                tracing::info!("the certificate was read again");
            }
            Err(error) => tracing::error!("{error}; the one that was read before stays"),
        }
    }

    fn changed(&self) -> [Option<SystemTime>; 2] {
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
