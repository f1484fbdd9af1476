//! Reading from a repository.

use std::path::Path;

use reqwest::{
    Method, StatusCode,
    header::{ACCEPT, CONTENT_TYPE, LINK, RANGE},
};
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncWrite, AsyncWriteExt as _};

use crate::{
    BlobDigest, Descriptor, Error, ImageIndex, RegistryAccess, RegistryEvent, RegistryRepository, media_type,
    transport::{Request, limited_body, reason},
};

/// The specification's [minimum](https://github.com/opencontainers/distribution-spec/blob/main/spec.md#pushing-manifests).
const MAX_MANIFEST_BYTES: usize = 4 << 20;
/// How often the download of a blob may be interrupted.
const MAX_INTERRUPTIONS: u32 = 5;
const MAX_REFERRER_PAGES: usize = 20;
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
    /// Whether this is an index of manifests, such as those of one image for several platforms.
    #[must_use]
    pub fn is_index(&self) -> bool {
        [media_type::INDEX, media_type::DOCKER_INDEX].contains(&self.descriptor.media_type.as_str())
    }

    /// Parses it as an [`ImageManifest`](crate::ImageManifest) or an [`ImageIndex`].
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
        let expected: Option<BlobDigest> = version.parse().ok();
        let mut request = Request::get(self.url(&format!("manifests/{version}")).await?);
        for accepted in MANIFEST_TYPES {
            request = request.header(ACCEPT, accepted);
        }
        let response = self.send(&request, RegistryAccess::Pull, None).await?;
        if !response.status().is_success() {
            return Err(self.failed(response, &what, RegistryAccess::Pull).await);
        }
        let header = |name: &str| response.headers().get(name)?.to_str().ok().map(str::to_owned);
        let content_type =
            header(CONTENT_TYPE.as_str()).and_then(|it| Some(it.split(';').next()?.trim().to_owned()));
        let expected = expected.or_else(|| header("docker-content-digest")?.parse().ok());
        let body = limited_body(response, MAX_MANIFEST_BYTES).await.map_err(|error| self.network(&error))?;
        let bytes = body.ok_or_else(|| self.too_large(&what, MAX_MANIFEST_BYTES as u64))?;
        let digest = BlobDigest::of(&bytes);
        if let Some(expected) = expected.filter(|expected| *expected != digest) {
            return Err(self.mismatch(what, expected, digest));
        }
        let declared = serde_json::from_slice::<serde_json::Value>(&bytes)
            .map_err(|error| self.invalid(format!("the manifest {what} is not JSON: {error}")))?;
        let declared = declared.get("mediaType").and_then(|it| it.as_str()).map(str::to_owned);
        let media_type = declared.or(content_type).unwrap_or_else(|| media_type::MANIFEST.to_owned());
        Ok(PulledManifest { descriptor: Descriptor::new(&media_type, digest, bytes.len() as u64), bytes })
    }

    /// Whether the repository has this blob.
    ///
    /// # Errors
    /// Access is denied or the registry is unreachable.
    pub async fn has_blob(&self, digest: &BlobDigest) -> Result<bool, Error> {
        self.exists(&format!("blobs/{digest}"), &self.what(digest.as_str()), RegistryAccess::Pull).await
    }

    pub(crate) async fn exists(&self, path: &str, what: &str, access: RegistryAccess) -> Result<bool, Error> {
        let request = Request::new(Method::HEAD, self.url(path).await?).header(ACCEPT, "*/*");
        let response = self.send(&request, access, None).await?;
        match response.status() {
            StatusCode::NOT_FOUND => Ok(false),
            status if status.is_success() => Ok(true),
            _ => Err(self.failed(response, what, access).await),
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
        let mut interruptions = 0;
        while received < blob.size || blob.size == 0 {
            let mut request = Request::get(self.url(&format!("blobs/{}", blob.digest)).await?);
            if received > 0 {
                request = request.header(RANGE, &format!("bytes={received}-"));
            }
            let mut response = self.send(&request, RegistryAccess::Pull, None).await?;
            if !response.status().is_success() {
                return Err(self.failed(response, &what, RegistryAccess::Pull).await);
            }
            // Registries need not support ranges.
            let mut skip = if response.status() == StatusCode::PARTIAL_CONTENT { 0 } else { received };
            let interruption = loop {
                match response.chunk().await {
                    Ok(Some(chunk)) => {
                        let skipped = skip.min(chunk.len() as u64);
                        skip -= skipped;
                        let chunk = chunk.slice(usize::try_from(skipped).unwrap_or(chunk.len())..);
                        received += chunk.len() as u64;
                        if received > blob.size {
                            return Err(self.too_large(&what, blob.size));
                        }
                        hash.update(&chunk);
                        sink.write_all(&chunk).await.map_err(failed)?;
                        let bytes = chunk.len() as u64;
                        self.client.state().report(RegistryEvent::Downloaded { digest: &blob.digest, bytes });
                    }
                    Ok(None) => break None,
                    Err(error) => break Some(error),
                }
            };
            if received == blob.size {
                break;
            }
            interruptions += 1;
            if interruptions > MAX_INTERRUPTIONS {
                return Err(match interruption {
                    Some(error) => self.network(&error),
                    None => self.invalid(format!("{what} has {received} bytes instead of {}", blob.size)),
                });
            }
        }
        sink.flush().await.map_err(failed)?;
        let actual = BlobDigest::of_hash(hash);
        if actual == blob.digest { Ok(()) } else { Err(self.mismatch(what, blob.digest.clone(), actual)) }
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

    /// Downloads a blob to a file, which appears when it is complete and verified.
    ///
    /// # Errors
    /// As for [`pull_blob`](Self::pull_blob), or the file can't be written.
    pub async fn download_blob(&self, blob: &Descriptor, path: &Path) -> Result<(), Error> {
        let failed = |error| Error::Io { path: path.to_owned(), error };
        let directory = path.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let temporary = tempfile::NamedTempFile::new_in(directory).map_err(failed)?;
        let mut file = tokio::fs::File::from_std(temporary.reopen().map_err(failed)?);
        self.pull_blob(blob, &mut file).await?;
        file.sync_all().await.map_err(failed)?;
        temporary.persist(path).map(drop).map_err(|error| failed(error.error))
    }

    /// The manifests that refer to `subject`: SBOMs, signatures, attestations. `artifact_type` filters them.
    ///
    /// A registry without the [referrers API](https://github.com/opencontainers/distribution-spec/blob/main/spec.md#listing-referrers)
    /// has them in an index with a tag of its own.
    ///
    /// # Errors
    /// As for [`pull_manifest`](Self::pull_manifest).
    pub async fn referrers(
        &self,
        subject: &BlobDigest,
        artifact_type: Option<&str>,
    ) -> Result<Vec<Descriptor>, Error> {
        let what = format!("the referrers of {}", self.what(subject.as_str()));
        let mut url = self.url(&format!("referrers/{subject}")).await?;
        if let Some(kind) = artifact_type {
            url.query_pairs_mut().append_pair("artifactType", kind);
        }
        let mut found = Vec::new();
        for page in 0..MAX_REFERRER_PAGES {
            let request = Request::get(url.clone()).header(ACCEPT, media_type::INDEX);
            let response = self.send(&request, RegistryAccess::Pull, None).await?;
            // Registries without this API know no such path.
            if page == 0 && matches!(response.status().as_u16(), 400 | 404 | 405) {
                found = self.tagged_referrers(subject).await?;
                break;
            }
            if !response.status().is_success() {
                return Err(self.failed(response, &what, RegistryAccess::Pull).await);
            }
            let next = response.headers().get(LINK).and_then(|link| next_page(link.to_str().ok()?));
            let body =
                limited_body(response, MAX_MANIFEST_BYTES).await.map_err(|error| self.network(&error))?;
            let body = body.ok_or_else(|| self.too_large(&what, MAX_MANIFEST_BYTES as u64))?;
            let index: ImageIndex = serde_json::from_slice(&body)
                .map_err(|error| self.invalid(format!("{what} are not an index: {error}")))?;
            found.extend(index.manifests);
            match next.and_then(|next| url.join(&next).ok()).filter(|next| next.origin() == url.origin()) {
                Some(next) => url = next,
                None => break,
            }
        }
        found.retain(|it| artifact_type.is_none_or(|kind| it.artifact_type.as_deref() == Some(kind)));
        Ok(found)
    }

    /// The index that stands in for the referrers API.
    pub(crate) async fn tagged_referrers(&self, subject: &BlobDigest) -> Result<Vec<Descriptor>, Error> {
        match self.pull_manifest(&referrers_tag(subject)).await {
            Ok(index) => match index.parse::<ImageIndex>() {
                Ok(index) => Ok(index.manifests),
                Err(error) => {
                    Err(self.invalid(format!("the referrers of {subject} are not an index: {error}")))
                }
            },
            Err(Error::NotFound { .. }) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// `HOST/REPOSITORY:TAG` or `HOST/REPOSITORY@DIGEST`.
    pub(crate) fn what(&self, version: &str) -> String {
        let separator = if version.contains(':') { '@' } else { ':' };
        format!("{}{separator}{version}", self.name())
    }

    pub(crate) fn network(&self, error: &reqwest::Error) -> Error {
        Error::Network { host: self.registry.host.clone(), reason: reason(error) }
    }

    fn too_large(&self, what: &str, limit: u64) -> Error {
        Error::TooLarge { host: self.registry.host.clone(), what: what.to_owned(), limit }
    }

    fn mismatch(&self, what: String, expected: BlobDigest, actual: BlobDigest) -> Error {
        Error::DigestMismatch { host: self.registry.host.clone(), what, expected, actual }
    }
}

/// <https://github.com/opencontainers/distribution-spec/blob/main/spec.md#referrers-tag-schema>
pub(crate) fn referrers_tag(subject: &BlobDigest) -> String {
    format!("sha256-{}", subject.hex())
}

fn next_page(link: &str) -> Option<String> {
    let link = link.split(',').find(|link| link.contains("rel=\"next\""))?;
    Some(link.split_once('<')?.1.split_once('>')?.0.to_owned())
}
