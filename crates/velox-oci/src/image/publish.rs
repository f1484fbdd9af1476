//! Pushing images and what refers to them.

use std::{collections::BTreeMap, path::Path};

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};

use super::{
    assemble::{ImageSet, json},
    source::{BlobOrigin, ImageContent},
};
use crate::{
    BlobContent, BlobDigest, BlobPush, Descriptor, Error, ImageManifest, RegistryRepository, media_type,
};

const MAX_CONCURRENT_BLOBS: usize = 4;

/// A document about an image: a bill of materials, an attestation.
#[derive(Debug, Clone)]
pub struct Referrer {
    /// The kind of the artifact.
    pub artifact_type: String,
    /// The media type of the document.
    pub media_type: String,
    /// The document.
    pub content: Vec<u8>,
    /// Annotations of the artifact.
    pub annotations: BTreeMap<String, String>,
}

/// Pushes the images to a repository under these tags. Layers of a base in the same registry are mounted; those from
/// elsewhere are downloaded to `directory` first. Tags are written when everything else is there. `on_blob` is called
/// for each finished blob.
///
/// # Errors
/// A registry fails or denies access, or a file can't be read or written.
pub async fn push_image(
    set: &ImageSet,
    repository: &RegistryRepository,
    tags: &[&str],
    directory: &Path,
    on_blob: &(dyn Fn(&Descriptor, BlobPush) + Sync),
) -> Result<(), Error> {
    stream::iter(set.blobs())
        .map(async |blob| {
            let push = push_content(blob, repository, directory).await?;
            on_blob(&blob.descriptor, push);
            Ok::<_, Error>(())
        })
        .buffer_unordered(MAX_CONCURRENT_BLOBS)
        .try_collect::<()>()
        .await?;
    if set.index.is_some() {
        for image in &set.images {
            repository.push_manifest(None, &image.descriptor.media_type, &image.manifest).await?;
        }
    }
    for tag in tags {
        repository.push_manifest(Some(tag), &set.descriptor.media_type, set.top()).await?;
    }
    Ok(())
}

async fn push_content(
    blob: &ImageContent,
    repository: &RegistryRepository,
    directory: &Path,
) -> Result<BlobPush, Error> {
    let descriptor = &blob.descriptor;
    let base = match &blob.origin {
        BlobOrigin::Content(content) => return repository.push_blob(descriptor, content, None).await,
        BlobOrigin::Registry(base) => Some(base),
        BlobOrigin::Part { .. } => None,
    };
    let mount_from =
        base.filter(|base| base.registry.host == repository.registry.host).map(|base| base.name.as_str());
    if let Some(push) = repository.push_without_content(descriptor, mount_from).await? {
        return Ok(push);
    }
    let file = directory.join(descriptor.digest.hex());
    blob.write(&file).await?;
    let push = repository.push_blob(descriptor, &BlobContent::File(file.clone()), None).await;
    let _ = std::fs::remove_file(file);
    push
}

/// Attaches a document to a manifest or an index of the repository. Returns the digest of its manifest.
///
/// # Errors
/// The registry fails or denies access.
pub async fn push_referrer(
    repository: &RegistryRepository,
    subject: &Descriptor,
    referrer: &Referrer,
) -> Result<BlobDigest, Error> {
    let content = Descriptor::of(&referrer.media_type, &referrer.content);
    let mut manifest = ImageManifest::artifact(&referrer.artifact_type, vec![content.clone()]);
    manifest.subject = Some(Descriptor::new(&subject.media_type, subject.digest.clone(), subject.size));
    manifest.annotations = referrer.annotations.clone();
    let bytes = BlobContent::Bytes(Bytes::copy_from_slice(&referrer.content));
    repository.push_blob(&content, &bytes, None).await?;
    let empty = BlobContent::Bytes(Bytes::from_static(ImageManifest::EMPTY_CONFIG));
    repository.push_blob(&manifest.config, &empty, None).await?;
    repository.push_manifest(None, media_type::MANIFEST, &json(&manifest)?).await
}
