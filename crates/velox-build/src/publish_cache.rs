//! Publishing compiled packages in a container registry.

use std::{collections::BTreeMap, path::Path};

use tokio_util::sync::CancellationToken;
pub use velox_gocache::PublishedCache;
use velox_gocache::{PublishError, is_registry, registry_reference};
use velox_oci::ImageReference;

use crate::{error::Error, keys::signing::SigningKey};

/// Publishes the packages of a shared directory (`--remote-cache DIRECTORY`) at `oci://REGISTRY/NAME:TAG`, and signs them.
///
/// # Errors
/// An invalid location, a directory without packages, a registry that fails, or a cancelled upload.
pub async fn publish_cache(
    directory: &Path,
    location: &str,
    version: &str,
    environment: &BTreeMap<String, String>,
    key: Option<&SigningKey>,
    cancel: &CancellationToken,
) -> Result<PublishedCache, Error> {
    let url =
        velox_gocache::parse_cache(location).map_err(|error| Error::configuration(error.to_string()))?;
    let reference = registry_reference(&url).map_err(Error::configuration)?;
    let annotations = BTreeMap::from([
        ("org.opencontainers.image.title".to_owned(), format!("Compiled packages of RoadRunner {version}")),
        ("org.opencontainers.image.version".to_owned(), version.to_owned()),
    ]);
    let sign = |message: &[u8]| {
        let first = |error: Error| error.diagnostics.first().map(|it| it.message.clone()).unwrap_or_default();
        key.map_or_else(|| Err("there is no key".to_owned()), |key| key.sign(message).map_err(first))
    };
    let sign: Option<velox_gocache::SignMessage<'_>> = if key.is_some() { Some(&sign) } else { None };
    let publishing = velox_gocache::publish_cache(directory, &reference, annotations, environment, sign);
    let published = tokio::select! {
        published = publishing => published,
        () = cancel.cancelled() => return Err(Error::interrupted()),
    };
    published.map_err(|error| {
        let failed = Error::build(format!("failed to publish the cache: {error}"));
        match error {
            PublishError::Registry(velox_oci::Error::Unauthorized { .. }) => {
                failed.help("log in with `docker login`, `podman login` or `skopeo login`")
            }
            _ => failed,
        }
    })
}

/// Fails early if a cache can't be published there.
///
/// # Errors
/// The location is not that of a tag in a registry.
pub fn check_cache_location(location: &str) -> Result<(), Error> {
    reference(location).map(drop)
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
