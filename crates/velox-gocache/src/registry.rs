//! Caches in a container registry, which anybody can read.
//!
//! ```text
//! REGISTRY/NAME:TAG               an image index: a manifest for each namespace, which its annotation names
//! └── an artifact, whose layers are
//!     ├── an index                as REMOTE/v1/NAMESPACE/index/…
//!     └── packs                   as REMOTE/v1/packs/…: the name of a pack is its digest
//! REGISTRY/NAME:sha256-….sig      the signature of the image index
//! ```
//!
//! The signature has cosign's format (<https://github.com/sigstore/cosign/blob/main/specs/SIGNATURE_SPEC.md>).

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use bytes::Bytes;
use data_encoding::BASE64;
use serde::{Deserialize, Serialize};
use tokio::sync::OnceCell;
use url::Url;
use velox_fetch::http::HttpOptions;
use velox_oci::{
    BlobDigest, Descriptor, DockerCredentials, Error, ImageIndex, ImageManifest, ImageReference,
    PulledManifest, RegistryClient, RegistryOptions, RegistryRepository,
};

use crate::{
    GoCacheError, GoCacheOptions, SignatureVerifier,
    location::{RemoteFailure, registry_reference},
    pack::{IndexFile, MAX_OBJECT_BYTES, PackFile},
};

pub(crate) const ARTIFACT_TYPE: &str = "application/vnd.roadrunner.velox.cache.v1";
pub(crate) const INDEX_TYPE: &str = "application/vnd.roadrunner.velox.cache.index.v1.json+zstd";
pub(crate) const PACK_TYPE: &str = "application/vnd.roadrunner.velox.cache.pack.v1";
/// The annotation of a manifest with the namespace of its actions: `go1.26.8-linux-amd64`.
pub(crate) const NAMESPACE: &str = "dev.roadrunner.velox.namespace";
pub(crate) const SIGNATURE_TYPE: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
pub(crate) const SIGNATURE: &str = "dev.cosignproject.cosign/signature";
const SIGNATURE_KIND: &str = "cosign container image signature";
const MAX_SIGNATURE_BYTES: u64 = 64 << 10;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Compiling is faster than waiting longer for a rate limit.
const MAX_RATE_LIMIT_WAIT: Duration = Duration::from_secs(5);

/// What a signature says, in cosign's format.
#[derive(Serialize, Deserialize)]
pub(crate) struct SignedPayload {
    critical: CriticalPayload,
    #[serde(default)]
    optional: Option<serde_json::Value>,
}

#[derive(Serialize, Deserialize)]
struct CriticalPayload {
    identity: PayloadIdentity,
    image: PayloadImage,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Serialize, Deserialize)]
struct PayloadIdentity {
    #[serde(rename = "docker-reference")]
    docker_reference: String,
}

#[derive(Serialize, Deserialize)]
struct PayloadImage {
    #[serde(rename = "docker-manifest-digest")]
    docker_manifest_digest: String,
}

impl SignedPayload {
    pub(crate) fn new(repository: &str, digest: &BlobDigest) -> Self {
        Self {
            critical: CriticalPayload {
                identity: PayloadIdentity { docker_reference: repository.to_owned() },
                image: PayloadImage { docker_manifest_digest: digest.to_string() },
                kind: SIGNATURE_KIND.to_owned(),
            },
            optional: None,
        }
    }

    fn is_of(&self, digest: &BlobDigest) -> bool {
        self.critical.kind == SIGNATURE_KIND && self.critical.image.docker_manifest_digest == digest.as_str()
    }
}

/// The tag of the signature of a manifest.
pub(crate) fn signature_tag(digest: &BlobDigest) -> String {
    format!("sha256-{}.sig", digest.hex())
}

/// A client with the settings and credentials of an environment.
pub(crate) fn registry_client(
    environment: &BTreeMap<String, String>,
    http: HttpOptions,
) -> Result<RegistryClient, Error> {
    let credentials = DockerCredentials::from_environment(environment)?;
    RegistryClient::new(RegistryOptions { http, credentials, on_event: None })
}

pub(crate) struct RegistryCache {
    repository: RegistryRepository,
    reference: ImageReference,
    trusted_key: Option<SignatureVerifier>,
    /// The packs by name.
    packs: OnceCell<HashMap<String, Descriptor>>,
}

impl From<Error> for RemoteFailure {
    fn from(error: Error) -> Self {
        // Its text has no secrets.
        Self::Failed(error.to_string())
    }
}

fn invalid(reason: impl Into<String>) -> RemoteFailure {
    RemoteFailure::Failed(reason.into())
}

impl RegistryCache {
    pub(crate) fn open(url: &Url, options: &GoCacheOptions) -> Result<Self, GoCacheError> {
        let failed = |why: String| GoCacheError::Remote { text: url.to_string(), why };
        let reference = registry_reference(url).map_err(failed)?;
        let http = HttpOptions {
            connect_timeout: CONNECT_TIMEOUT,
            read_timeout: options.timeout,
            max_wait: MAX_RATE_LIMIT_WAIT,
            ..HttpOptions::from_environment(&options.environment)
        };
        let client =
            registry_client(&options.environment, http).map_err(|error| failed(error.to_string()))?;
        Ok(Self::new(client.repository(&reference), reference, options.trusted_key.clone()))
    }

    pub(crate) fn new(
        repository: RegistryRepository,
        reference: ImageReference,
        trusted_key: Option<SignatureVerifier>,
    ) -> Self {
        Self { repository, reference, trusted_key, packs: OnceCell::new() }
    }

    /// The packs of a namespace, and how many bytes were downloaded.
    pub(crate) async fn index(&self, namespace: &str) -> Result<(Vec<PackFile>, u64), RemoteFailure> {
        let reference = &self.reference;
        let pulled = self.repository.pull_manifest(reference.version()).await?;
        if reference.digest().is_none() {
            self.verify(&pulled.descriptor.digest).await?;
        }
        let manifests = self.manifests(&pulled)?;
        let Some(found) = manifests.get(namespace) else {
            let others: Vec<&str> = manifests.keys().map(String::as_str).collect();
            return Err(invalid(format!(
                "{reference} has packages of {}, not of {namespace}",
                others.join(", ")
            )));
        };
        let (packs, size) = self.packs(namespace, found).await?;
        let (named, packs): (Vec<_>, Vec<_>) = packs.into_iter().unzip();
        let _ = self.packs.set(packs.into_iter().map(|pack| (pack.digest.hex().to_owned(), pack)).collect());
        Ok((named, size))
    }

    /// The manifests in an image index, by namespace.
    pub(crate) fn manifests(
        &self,
        pulled: &PulledManifest,
    ) -> Result<BTreeMap<String, Descriptor>, RemoteFailure> {
        let index = pulled.parse().unwrap_or_else(|_| ImageIndex::new(Vec::new()));
        let named = |it: Descriptor| Some((it.annotations.get(NAMESPACE)?.clone(), it));
        let manifests: BTreeMap<_, _> = index.manifests.into_iter().filter_map(named).collect();
        if manifests.is_empty() {
            return Err(invalid(format!("{} is not a cache", self.reference)));
        }
        Ok(manifests)
    }

    /// The packs in the manifest of a namespace, and the size of its index in bytes.
    pub(crate) async fn packs(
        &self,
        namespace: &str,
        manifest: &Descriptor,
    ) -> Result<(Vec<(PackFile, Descriptor)>, u64), RemoteFailure> {
        let reference = &self.reference;
        let pulled = self.repository.pull_manifest(manifest.digest.as_str()).await?;
        let manifest: ImageManifest =
            pulled.parse().map_err(|error| invalid(format!("invalid manifest of {reference}: {error}")))?;
        let [file, layers @ ..] = manifest.layers.as_slice() else {
            return Err(invalid(format!("{reference} has no index of {namespace}")));
        };
        let content = self.repository.read_blob(file, MAX_OBJECT_BYTES).await?;
        let named = IndexFile::read(&content, namespace)
            .filter(|_| file.media_type == INDEX_TYPE)
            .ok_or_else(|| invalid(format!("{reference} has an invalid index of {namespace}")))?;
        let layers: HashMap<&str, &Descriptor> =
            layers.iter().map(|layer| (layer.digest.hex(), layer)).collect();
        let with_layer = |pack: PackFile| match layers.get(pack.name.as_str()) {
            Some(layer) => Ok((pack, (*layer).clone())),
            None => {
                Err(invalid(format!("the index of {reference} names the pack {}, which it lacks", pack.name)))
            }
        };
        let packs = named.into_iter().map(with_layer).collect::<Result<_, _>>()?;
        Ok((packs, content.len() as u64))
    }

    /// The content of a pack, whose digest is verified.
    pub(crate) async fn pack(&self, name: &str) -> Result<Bytes, RemoteFailure> {
        let pack = self.packs.get().and_then(|packs| packs.get(name)).ok_or(RemoteFailure::NotFound)?;
        match self.repository.read_blob(pack, MAX_OBJECT_BYTES).await {
            Ok(content) => Ok(content.into()),
            Err(Error::NotFound { .. }) => Err(RemoteFailure::NotFound),
            Err(error) => Err(error.into()),
        }
    }

    /// Fails unless the trusted key signed this digest.
    pub(crate) async fn verify(&self, digest: &BlobDigest) -> Result<(), RemoteFailure> {
        let reference = &self.reference;
        let Some(SignatureVerifier(verifies)) = &self.trusted_key else {
            return Err(invalid(format!("{reference} has no digest, and there is no trusted key")));
        };
        let unsigned =
            || invalid(format!("verification failed: {reference} has no signature of the trusted key"));
        let signatures = match self.repository.pull_manifest(&signature_tag(digest)).await {
            Ok(pulled) => pulled.parse::<ImageManifest>().map_err(|_| unsigned())?,
            Err(Error::NotFound { .. }) => return Err(unsigned()),
            Err(error) => return Err(error.into()),
        };
        for layer in &signatures.layers {
            let signature = layer.annotations.get(SIGNATURE).and_then(|it| BASE64.decode(it.as_bytes()).ok());
            let Some(signature) = signature.filter(|_| layer.media_type == SIGNATURE_TYPE) else { continue };
            let payload = self.repository.read_blob(layer, MAX_SIGNATURE_BYTES).await?;
            let says = serde_json::from_slice::<SignedPayload>(&payload);
            if verifies(&payload, &signature) && says.is_ok_and(|says| says.is_of(digest)) {
                return Ok(());
            }
        }
        Err(unsigned())
    }
}
