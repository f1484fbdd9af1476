//! Pushing images and what refers to them.

use std::{collections::BTreeMap, path::Path};

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};

use super::{
    assemble::{ImageSet, json},
    source::{BlobOrigin, ImageContent},
};
use crate::{
    BlobContent, BlobDigest, Descriptor, Error, ImageIndex, ImageManifest, PulledManifest,
    RegistryRepository, media_type,
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
    on_blob: &(dyn Fn(&Descriptor) + Sync),
) -> Result<(), Error> {
    stream::iter(set.blobs())
        .map(async |blob| {
            push_content(blob, repository, directory).await?;
            on_blob(&blob.descriptor);
            Ok::<_, Error>(())
        })
        .buffer_unordered(MAX_CONCURRENT_BLOBS)
        .try_collect::<()>()
        .await?;
    let Some(((top, content), parts)) = set.manifests.split_last() else { return Ok(()) };
    for (descriptor, manifest) in parts {
        repository.push_manifest(None, &descriptor.media_type, manifest).await?;
    }
    for tag in tags {
        repository.push_manifest(Some(tag), &top.media_type, content).await?;
    }
    Ok(())
}

async fn push_content(
    blob: &ImageContent,
    repository: &RegistryRepository,
    directory: &Path,
) -> Result<(), Error> {
    let descriptor = &blob.descriptor;
    let base = match &blob.origin {
        BlobOrigin::Content(content) => return repository.push_blob(descriptor, content).await.map(drop),
        BlobOrigin::Registry(base) => base,
    };
    let mount_from = (base.registry.host == repository.registry.host).then_some(base.name.as_str());
    if repository.push_without_content(descriptor, mount_from).await?.is_some() {
        return Ok(());
    }
    let path = directory.join(descriptor.digest.hex());
    blob.write(&path).await?;
    let push = repository.push_blob(descriptor, &BlobContent::File { path: path.clone(), offset: 0 }).await;
    let _ = std::fs::remove_file(path);
    push.map(drop)
}

/// Attaches documents to a manifest or an index of the repository. Returns the digests of their manifests.
///
/// # Errors
/// The registry fails or denies access.
pub async fn push_referrers(
    repository: &RegistryRepository,
    subject: &Descriptor,
    referrers: &[Referrer],
) -> Result<Vec<BlobDigest>, Error> {
    let (mut digests, mut unlisted) = (Vec::new(), Vec::new());
    for referrer in referrers {
        let content = Descriptor::of(&referrer.media_type, &referrer.content);
        let mut manifest = ImageManifest::artifact(&referrer.artifact_type, vec![content.clone()]);
        manifest.subject = Some(Descriptor::new(&subject.media_type, subject.digest.clone(), subject.size));
        manifest.annotations = referrer.annotations.clone();
        let bytes = BlobContent::Bytes(Bytes::copy_from_slice(&referrer.content));
        repository.push_blob(&content, &bytes).await?;
        let empty = BlobContent::Bytes(Bytes::from_static(ImageManifest::EMPTY_CONFIG));
        repository.push_blob(&manifest.config, &empty).await?;
        let manifest_bytes = json(&manifest)?;
        let (digest, is_listed) =
            repository.put_manifest(None, media_type::MANIFEST, &manifest_bytes).await?;
        if !is_listed {
            let mut descriptor = Descriptor::of(media_type::MANIFEST, &manifest_bytes);
            descriptor.artifact_type = Some(referrer.artifact_type.clone());
            descriptor.annotations = manifest.annotations;
            unlisted.push(descriptor);
        }
        digests.push(digest);
    }
    if !unlisted.is_empty() {
        tag_referrers(repository, &subject.digest, &unlisted).await?;
    }
    Ok(digests)
}

/// Adds referrers to the index that stands in for the
/// [referrers API](https://github.com/opencontainers/distribution-spec/blob/main/spec.md#referrers-tag-schema).
async fn tag_referrers(
    repository: &RegistryRepository,
    subject: &BlobDigest,
    referrers: &[Descriptor],
) -> Result<(), Error> {
    let add = async |existing: Option<&PulledManifest>| {
        let Some(existing) = existing else { return json(&ImageIndex::new(referrers.to_vec())) };
        let mut index: ImageIndex = existing.parse().map_err(|error| {
            repository.invalid(format!("the referrers of {subject} are not an index: {error}"))
        })?;
        let is_new = |it: &&Descriptor| !index.manifests.iter().any(|known| known.digest == it.digest);
        let new: Vec<_> = referrers.iter().filter(is_new).cloned().collect();
        if new.is_empty() {
            return Ok(existing.bytes.clone());
        }
        index.manifests.extend(new);
        json(&index)
    };
    repository.update_tag(&subject.as_str().replace(':', "-"), add).await.map(drop)
}
