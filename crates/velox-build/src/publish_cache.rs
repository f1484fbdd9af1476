//! Publishing compiled packages in a container registry.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use tokio_util::sync::CancellationToken;
pub use velox_gocache::PublishedCache;
use velox_gocache::{
    CachePublication, CacheSigner, PublishError, SignatureVerifier, is_registry, registry_reference,
};
use velox_oci::ImageReference;

use crate::{
    error::{Error, until_cancelled},
    keys::signing::SigningKey,
};

/// A publisher of the packages of a RoadRunner release at `oci://REGISTRY/NAME:TAG`.
pub struct CachePublisher {
    publication: CachePublication,
}

impl CachePublisher {
    /// A publisher who signs with `key`, adds to a cache of the same key, and overwrites anything else only with `replace`.
    ///
    /// # Errors
    /// The location is not that of a tag in a registry; invalid credentials.
    pub fn new(
        location: &str,
        version: &str,
        environment: &BTreeMap<String, String>,
        key: Option<&SigningKey>,
        replace: bool,
    ) -> Result<Self, Error> {
        let annotations = BTreeMap::from([
            (
                "org.opencontainers.image.title".to_owned(),
                format!("Compiled packages of RoadRunner {version}"),
            ),
            ("org.opencontainers.image.version".to_owned(), version.to_owned()),
        ]);
        let signer = key.cloned().map(|key| {
            let public = key.verifying_key();
            let first =
                |error: Error| error.diagnostics.first().map(|it| it.message.clone()).unwrap_or_default();
            CacheSigner {
                sign: Box::new(move |message| key.sign(message).map_err(first)),
                verifier: SignatureVerifier(Arc::new(move |message, signature| {
                    public.verifies(message, signature)
                })),
            }
        });
        let publication =
            CachePublication::new(reference(location)?, annotations, environment, signer, replace);
        Ok(Self { publication: publication.map_err(failed)? })
    }

    /// Fails early if nothing can be published at the tag.
    ///
    /// # Errors
    /// The tag has something else, the registry fails, or the request is cancelled.
    pub async fn check(&self, cancel: &CancellationToken) -> Result<(), Error> {
        until(cancel, self.publication.check()).await
    }

    /// Publishes the packages of a shared directory (`--remote-cache DIRECTORY`).
    ///
    /// # Errors
    /// As for [`Self::check`]; a directory without packages.
    pub async fn publish(
        &self,
        directory: &Path,
        cancel: &CancellationToken,
    ) -> Result<PublishedCache, Error> {
        until(cancel, self.publication.publish(directory)).await
    }
}

async fn until<T>(
    cancel: &CancellationToken,
    work: impl Future<Output = Result<T, PublishError>>,
) -> Result<T, Error> {
    until_cancelled(cancel, work).await?.map_err(failed)
}

fn failed(error: PublishError) -> Error {
    let failed = Error::build(format!("failed to publish the cache: {error}"));
    match error {
        PublishError::Registry(velox_oci::Error::Unauthorized { .. }) => {
            failed.help("log in with `docker login`, `podman login` or `skopeo login`")
        }
        PublishError::Occupied(_) => failed
            .help("`--replace` overwrites it; another tag keeps it")
            .help("with the `--sign-key` that signed the cache, packages are added to it"),
        PublishError::Registry(velox_oci::Error::Contended { .. }) => {
            failed.help("run the command again, or publish all targets with one command")
        }
        _ => failed,
    }
}

fn reference(location: &str) -> Result<ImageReference, Error> {
    let help = "use a tag in a registry: oci://ghcr.io/acme/velox-cache:v3.0.0";
    let failed = |message: String| Error::configuration(message).help(help);
    let url = velox_gocache::parse_cache(location).map_err(|error| failed(error.to_string()))?;
    if !is_registry(&url) {
        return Err(failed(format!("{location} is not in a registry")));
    }
    let reference = registry_reference(&url).map_err(failed)?;
    match reference.digest() {
        Some(_) => Err(failed(format!("{location} has a digest, which the content decides"))),
        None => Ok(reference),
    }
}
