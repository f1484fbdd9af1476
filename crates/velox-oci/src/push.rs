//! Writing to a repository.

use std::time::Duration;

use bytes::Bytes;
use reqwest::{
    Method, Response, StatusCode,
    header::{CONTENT_RANGE, CONTENT_TYPE, LOCATION, RANGE},
};
use tokio::time::sleep;
use url::Url;

use crate::{
    BlobContent, BlobDigest, Descriptor, Error, PulledManifest, RegistryAccess, RegistryRepository,
    client::is_acceptable,
    media_type,
    transport::{Request, RequestBody},
};

/// How often the upload of a blob may be interrupted.
const MAX_INTERRUPTIONS: u32 = 5;
const FIRST_RETRY_DELAY: Duration = Duration::from_millis(200);
const MAX_TAG_UPDATES: usize = 10;
/// A tag that stays this long was not overwritten by a concurrent client.
const SETTLE_TIME: Duration = Duration::from_secs(1);

/// How a blob came into a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlobPush {
    /// The repository had it.
    Present,
    /// The registry took it from another repository.
    Mounted,
    /// It was sent.
    Uploaded,
}

impl RegistryRepository {
    /// Brings a blob into the repository, unless the repository has it. An interrupted upload is continued.
    ///
    /// # Errors
    /// Access is denied, the registry is unreachable or refuses the blob, or the content can't be read.
    pub async fn push_blob(&self, blob: &Descriptor, content: &BlobContent) -> Result<BlobPush, Error> {
        if let Some(push) = self.push_without_content(blob, None).await? {
            return Ok(push);
        }
        let session = self.start_upload().await?;
        self.upload(blob, content, session).await?;
        Ok(BlobPush::Uploaded)
    }

    /// Brings a blob into the repository without sending it: if the repository has it, or if the registry can take it
    /// from `mount_from`, another repository of the same registry. `None`: it has to be sent.
    ///
    /// # Errors
    /// As for [`push_blob`](Self::push_blob).
    pub async fn push_without_content(
        &self,
        blob: &Descriptor,
        mount_from: Option<&str>,
    ) -> Result<Option<BlobPush>, Error> {
        if self.has_blob(&blob.digest, RegistryAccess::Push).await? {
            return Ok(Some(BlobPush::Present));
        }
        let Some(from) = mount_from.filter(|from| *from != self.name) else { return Ok(None) };
        let mut url = self.url("blobs/uploads/").await?;
        url.query_pairs_mut().append_pair("mount", blob.digest.as_str()).append_pair("from", from);
        match self.send(&Request::new(Method::POST, url), RegistryAccess::Push, Some(from)).await {
            Ok(response) if response.status() == StatusCode::CREATED => Ok(Some(BlobPush::Mounted)),
            Ok(response) => {
                // The registry may have started an upload, since it can't mount the blob.
                self.cancel(&response).await;
                Ok(None)
            }
            // The credentials may allow to push, but not to pull from the other repository.
            Err(Error::Unauthorized { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Checks that the credentials allow to push, by starting an upload that is canceled.
    ///
    /// # Errors
    /// Access is denied, or the registry is unreachable.
    pub async fn check_push(&self) -> Result<(), Error> {
        let response = self.new_upload().await?;
        self.cancel(&response).await;
        Ok(())
    }

    async fn new_upload(&self) -> Result<Response, Error> {
        let request = Request::new(Method::POST, self.url("blobs/uploads/").await?);
        let response = self.send(&request, RegistryAccess::Push, None).await?;
        match response.status() {
            StatusCode::ACCEPTED => Ok(response),
            _ => Err(self.failed(response, &self.name(), RegistryAccess::Push).await),
        }
    }

    async fn start_upload(&self) -> Result<Url, Error> {
        self.location(&self.new_upload().await?)
    }

    /// Cancels an upload. If that fails, the registry forgets it after some time.
    async fn cancel(&self, started: &Response) {
        if let Ok(session) = self.location(started) {
            let _ = self.send(&Request::new(Method::DELETE, session), RegistryAccess::Push, None).await;
        }
    }

    /// Sends the whole content in one request, as Docker does, and what is missing after an interruption.
    async fn upload(&self, blob: &Descriptor, content: &BlobContent, mut session: Url) -> Result<(), Error> {
        let what = self.what(blob.digest.as_str());
        let mut start = 0;
        let mut interruptions = 0;
        while start < blob.size {
            let (digest, content, length) = (blob.digest.clone(), content.clone(), blob.size - start);
            let mut request = Request::new(Method::PATCH, session.clone())
                .header(CONTENT_TYPE, "application/octet-stream")
                .body(RequestBody::Blob { digest, content, start, length });
            if start > 0 {
                request = request.header(CONTENT_RANGE, &format!("{start}-{}", blob.size - 1));
            }
            let failure = match self.send(&request, RegistryAccess::Push, None).await {
                Ok(response) if response.status() == StatusCode::ACCEPTED => {
                    session = self.location(&response)?;
                    break;
                }
                Ok(response) => self.failed(response, &what, RegistryAccess::Push).await,
                Err(error) => error,
            };
            let is_temporary = matches!(
                &failure,
                Error::Network { .. } | Error::Status { status: 404 | 408 | 416 | 500.., .. }
            );
            if !is_temporary || interruptions == MAX_INTERRUPTIONS {
                return Err(failure);
            }
            sleep(FIRST_RETRY_DELAY * 2u32.pow(interruptions)).await;
            interruptions += 1;
            (session, start) = match self.upload_state(&session).await {
                Some((session, start)) if start <= blob.size => (session, start),
                _ => (self.start_upload().await?, 0),
            };
        }
        session.query_pairs_mut().append_pair("digest", blob.digest.as_str());
        let request = Request::new(Method::PUT, session).header(CONTENT_TYPE, "application/octet-stream");
        let response = self.send(&request, RegistryAccess::Push, None).await?;
        // After a repeated request the upload may be closed already.
        let is_stored = response.status().is_success()
            || (response.status() == StatusCode::NOT_FOUND
                && self.has_blob(&blob.digest, RegistryAccess::Push).await?);
        if is_stored { Ok(()) } else { Err(self.failed(response, &what, RegistryAccess::Push).await) }
    }

    /// Where an upload stands: its session, and how many bytes the registry has. `None` if the registry forgot it.
    async fn upload_state(&self, session: &Url) -> Option<(Url, u64)> {
        let response = self.send(&Request::get(session.clone()), RegistryAccess::Push, None).await.ok()?;
        if !response.status().is_success() {
            return None;
        }
        let session = self.location(&response).unwrap_or_else(|_| session.clone());
        let range = response.headers().get(RANGE)?.to_str().ok()?;
        let last: u64 = range.trim_start_matches("bytes=").split_once('-')?.1.trim().parse().ok()?;
        // `0-0` means nothing or one byte: https://github.com/opencontainers/distribution-spec/issues/580
        Some((session, if last == 0 { 0 } else { last.checked_add(1)? }))
    }

    fn location(&self, response: &Response) -> Result<Url, Error> {
        let header = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
        let url = header.and_then(|location| response.url().join(location).ok());
        let url = url.ok_or_else(|| self.invalid("it sent no address for the upload"))?;
        match is_acceptable(&url, response.url()) {
            true => Ok(url),
            false => Err(self.invalid("it sent an address without HTTPS for the upload")),
        }
    }

    /// Pushes a manifest or an index under a tag or its digest, whose blobs are in the repository already. Returns the
    /// digest.
    ///
    /// # Errors
    /// As for [`push_blob`](Self::push_blob).
    pub async fn push_manifest(
        &self,
        version: Option<&str>,
        media_type: &str,
        manifest: &[u8],
    ) -> Result<BlobDigest, Error> {
        self.put_manifest(version, media_type, manifest).await.map(|(digest, _)| digest)
    }

    /// Returns the digest, and whether the registry itself lists the referrers of the manifest's subject.
    pub(crate) async fn put_manifest(
        &self,
        version: Option<&str>,
        media_type: &str,
        manifest: &[u8],
    ) -> Result<(BlobDigest, bool), Error> {
        let digest = BlobDigest::of(manifest);
        let version = version.unwrap_or(digest.as_str());
        let request = Request::new(Method::PUT, self.url(&format!("manifests/{version}")).await?)
            .header(CONTENT_TYPE, media_type)
            .body(RequestBody::Bytes(Bytes::copy_from_slice(manifest)));
        let response = self.send(&request, RegistryAccess::Push, None).await?;
        if !response.status().is_success() {
            return Err(self.failed(response, &self.what(version), RegistryAccess::Push).await);
        }
        let header = |name: &str| response.headers().get(name)?.to_str().ok();
        if let Some(stored) = header("docker-content-digest").and_then(|value| value.parse().ok()) {
            self.verify(&self.what(version), &digest, stored)?;
        }
        Ok((digest, header("oci-subject").is_some()))
    }

    /// Writes what `change` makes of a tag's index. Registries have no conditional writes: the tag is read again
    /// after a while, and changed again if another client has overwritten it. Returns the digest of the index.
    ///
    /// # Errors
    /// That of `change`, a registry that fails, or [`Error::Contended`].
    pub async fn update_tag<E: From<Error>>(
        &self,
        tag: &str,
        mut change: impl AsyncFnMut(Option<&PulledManifest>) -> Result<Vec<u8>, E>,
    ) -> Result<BlobDigest, E> {
        let mut existing = self.find_manifest(tag).await?;
        for _ in 0..MAX_TAG_UPDATES {
            let index = change(existing.as_ref()).await?;
            let digest = BlobDigest::of(&index);
            let is_at =
                |it: &Option<PulledManifest>| it.as_ref().is_some_and(|it| it.descriptor.digest == digest);
            if is_at(&existing) {
                return Ok(digest);
            }
            let before = std::mem::replace(&mut existing, self.find_manifest(tag).await?);
            if existing != before {
                continue;
            }
            self.push_manifest(Some(tag), media_type::INDEX, &index).await?;
            sleep(SETTLE_TIME).await;
            existing = self.find_manifest(tag).await?;
            if is_at(&existing) {
                return Ok(digest);
            }
        }
        Err(Error::Contended { what: self.what(tag) }.into())
    }
}
