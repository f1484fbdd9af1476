//! Reading from a repository.

use reqwest::{
    Method, Response, StatusCode,
    header::{ACCEPT, CONTENT_TYPE, RANGE},
};
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncWrite, AsyncWriteExt as _};

use crate::{
    BlobDigest, Descriptor, Error, RegistryAccess, RegistryEvent, RegistryRepository, media_type,
    transport::Request,
};

/// The specification's [minimum](https://github.com/opencontainers/distribution-spec/blob/main/spec.md#pushing-manifests).
pub(crate) const MAX_MANIFEST_BYTES: usize = 4 << 20;
/// How often the download of a blob may be interrupted.
const MAX_INTERRUPTIONS: u32 = 5;
const MANIFEST_TYPES: [&str; 4] =
    [media_type::INDEX, media_type::MANIFEST, media_type::DOCKER_INDEX, media_type::DOCKER_MANIFEST];

/// A manifest or an index with its exact bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PulledManifest {
    /// Its media type, digest and size.
    pub descriptor: Descriptor,
    /// The bytes that have this digest.
    pub bytes: Vec<u8>,
}

impl PulledManifest {
    /// Parses it as an [`ImageManifest`](crate::ImageManifest) or an [`ImageIndex`](crate::ImageIndex).
    ///
    /// # Errors
    /// The syntax error.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_slice(&self.bytes)
    }
}

impl RegistryRepository {
    /// Pulls the manifest of a tag or a digest, at most 4 MiB. The content of a digest is verified.
    ///
    /// # Errors
    /// It isn't there, access is denied, the registry is unreachable, or its answer is invalid.
    pub async fn pull_manifest(&self, version: &str) -> Result<PulledManifest, Error> {
        let what = self.what(version);
        let mut request = Request::get(self.url(&format!("manifests/{version}")).await?);
        for accepted in MANIFEST_TYPES {
            request = request.header(ACCEPT, accepted);
        }
        let response = self.pull(&request, &what).await?;
        let header = |name: &str| response.headers().get(name)?.to_str().ok().map(str::to_owned);
        let content_type =
            header(CONTENT_TYPE.as_str()).and_then(|it| Some(it.split(';').next()?.trim().to_owned()));
        let expected: Option<BlobDigest> =
            version.parse().ok().or_else(|| header("docker-content-digest")?.parse().ok());
        let bytes = self.body(response, &what, MAX_MANIFEST_BYTES).await?;
        let digest = BlobDigest::of(&bytes);
        if let Some(expected) = expected {
            self.verify(&what, &expected, digest.clone())?;
        }
        let declared = serde_json::from_slice::<serde_json::Value>(&bytes)
            .map_err(|error| self.invalid(format!("the manifest {what} is not JSON: {error}")))?;
        let declared = declared.get("mediaType").and_then(|it| it.as_str()).map(str::to_owned);
        let media_type = declared.or(content_type).unwrap_or_else(|| media_type::MANIFEST.to_owned());
        Ok(PulledManifest { descriptor: Descriptor::new(&media_type, digest, bytes.len() as u64), bytes })
    }

    /// The manifest of a tag or a digest, if it is there.
    ///
    /// # Errors
    /// As for [`pull_manifest`](Self::pull_manifest).
    pub async fn find_manifest(&self, version: &str) -> Result<Option<PulledManifest>, Error> {
        match self.pull_manifest(version).await {
            Ok(pulled) => Ok(Some(pulled)),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn pull(&self, request: &Request, what: &str) -> Result<Response, Error> {
        let response = self.send(request, RegistryAccess::Pull, None).await?;
        match response.status().is_success() {
            true => Ok(response),
            false => Err(self.failed(response, what, RegistryAccess::Pull).await),
        }
    }

    /// Whether the repository has a blob.
    pub(crate) async fn has_blob(&self, digest: &BlobDigest, access: RegistryAccess) -> Result<bool, Error> {
        let request = Request::new(Method::HEAD, self.url(&format!("blobs/{digest}")).await?);
        let response = self.send(&request, access, None).await?;
        match response.status() {
            StatusCode::NOT_FOUND => Ok(false),
            status if status.is_success() => Ok(true),
            _ => Err(self.failed(response, &self.what(digest.as_str()), access).await),
        }
    }

    /// Writes a blob to `sink`, which gets at most `size` bytes of the descriptor. An interrupted download is
    /// continued. The content is verified at the end: after an error, what `sink` got must not be used.
    ///
    /// # Errors
    /// As for [`pull_manifest`](Self::pull_manifest), or `sink` fails.
    pub async fn pull_blob(
        &self,
        blob: &Descriptor,
        sink: &mut (impl AsyncWrite + Unpin),
    ) -> Result<(), Error> {
        let what = self.what(blob.digest.as_str());
        let failed = |error| Error::Io { path: what.clone().into(), error };
        let mut hash = Sha256::new();
        let mut received = 0;
        for interruptions in 0.. {
            let mut request = Request::get(self.url(&format!("blobs/{}", blob.digest)).await?);
            if received > 0 {
                request = request.header(RANGE, &format!("bytes={received}-"));
            }
            let mut response = self.pull(&request, &what).await?;
            // Registries need not support ranges.
            let mut skip = if response.status() == StatusCode::PARTIAL_CONTENT { 0 } else { received };
            let end = loop {
                let chunk = match self.chunk(&mut response).await {
                    Ok(Some(chunk)) => chunk,
                    Ok(None) => {
                        break self.invalid(format!("{what} has {received} bytes instead of {}", blob.size));
                    }
                    Err(error) => break error,
                };
                let skipped = skip.min(chunk.len() as u64);
                skip -= skipped;
                let chunk = chunk.slice(usize::try_from(skipped).unwrap_or(chunk.len())..);
                let bytes = chunk.len() as u64;
                received += bytes;
                if received > blob.size {
                    return Err(self.too_large(&what, blob.size));
                }
                hash.update(&chunk);
                sink.write_all(&chunk).await.map_err(failed)?;
                self.report(RegistryEvent::Transferred { digest: &blob.digest, bytes });
            };
            if received == blob.size {
                break;
            }
            if interruptions == MAX_INTERRUPTIONS {
                return Err(end);
            }
        }
        sink.flush().await.map_err(failed)?;
        self.verify(&what, &blob.digest, BlobDigest::of_hash(hash))
    }

    /// The content of a blob of at most `limit` bytes.
    ///
    /// # Errors
    /// As for [`pull_blob`](Self::pull_blob), or the blob is larger.
    pub async fn read_blob(&self, blob: &Descriptor, limit: u64) -> Result<Vec<u8>, Error> {
        if blob.size > limit {
            return Err(self.too_large(&self.what(blob.digest.as_str()), limit));
        }
        let mut bytes = Vec::new();
        self.pull_blob(blob, &mut bytes).await?;
        Ok(bytes)
    }

    pub(crate) fn verify(&self, what: &str, expected: &BlobDigest, actual: BlobDigest) -> Result<(), Error> {
        if *expected == actual {
            return Ok(());
        }
        let (host, what, expected) = (self.registry.host.clone(), what.to_owned(), expected.clone());
        Err(Error::DigestMismatch { host, what, expected, actual })
    }
}
