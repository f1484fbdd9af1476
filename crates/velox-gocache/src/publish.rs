//! Publishing the packages of a directory in a container registry.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use data_encoding::BASE64;
use futures::{StreamExt, TryStreamExt, stream};
use velox_fetch::http::HttpOptions;
use velox_oci::{
    BlobContent, BlobDigest, BlobPush, Descriptor, Error, ImageIndex, ImageManifest, ImageReference,
    Platform, RegistryRepository, media_type,
};

use crate::{
    pack::{IndexFile, PackFile},
    registry::{
        ARTIFACT_TYPE, INDEX_TYPE, NAMESPACE, PACK_TYPE, SIGNATURE, SIGNATURE_TYPE, SignedPayload,
        registry_client, signature_tag,
    },
    unhex,
};

const MAX_CONCURRENT_UPLOADS: usize = 4;

/// Signs a message.
pub type SignMessage<'a> = &'a (dyn Fn(&[u8]) -> Result<Vec<u8>, String> + Sync);

/// A published cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishedCache {
    /// Its location, with its digest.
    pub location: String,
    /// The namespaces of its actions: `go1.26.8-linux-amd64`.
    pub namespaces: Vec<String>,
    /// The number of packs.
    pub packs: usize,
    /// Their size in bytes.
    pub bytes: u64,
    /// How many bytes the registry lacked.
    pub uploaded: u64,
}

/// Why a cache was not published.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The registry failed, or the location is invalid.
    #[error(transparent)]
    Registry(#[from] Error),
    /// The directory can't be read.
    #[error("failed to read `{}`: {error}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The cause.
        error: io::Error,
    },
    /// The directory has no packages.
    #[error("there are no compiled packages to publish")]
    Empty,
    /// Signing failed.
    #[error("{0}")]
    Signature(String),
}

/// Publishes the packages that a directory cache has ([`crate::parse_remote`]) under a tag. The tag appears last: readers see
/// the previous cache or the new one, which is complete and signed.
///
/// # Errors
/// A location with a digest, a registry that refuses a part, a damaged directory.
pub async fn publish_cache(
    directory: &Path,
    to: &ImageReference,
    annotations: BTreeMap<String, String>,
    environment: &BTreeMap<String, String>,
    sign: Option<SignMessage<'_>>,
) -> Result<PublishedCache, PublishError> {
    let client = registry_client(environment, HttpOptions::from_environment(environment))?;
    let repository = client.repository(to);
    let root = directory.join("v1");
    let mut published =
        PublishedCache { location: String::new(), namespaces: Vec::new(), packs: 0, bytes: 0, uploaded: 0 };
    let mut manifests = Vec::new();
    for (namespace, packs) in namespaces(&root)? {
        manifests.push(push_namespace(&repository, &root, &namespace, packs, &mut published).await?);
        published.namespaces.push(namespace);
    }
    if manifests.is_empty() {
        return Err(PublishError::Empty);
    }
    let mut index = ImageIndex::new(manifests);
    index.annotations = annotations;
    let index = json(&index)?;
    let digest = repository.push_manifest(None, media_type::INDEX, &index).await?;
    if let Some(sign) = sign {
        push_signature(&repository, &digest, sign).await?;
    }
    repository.push_manifest(Some(to.version()), media_type::INDEX, &index).await?;
    published.location = format!("oci://{to}@{digest}");
    Ok(published)
}

fn json(value: &impl serde::Serialize) -> Result<Vec<u8>, PublishError> {
    serde_json::to_vec(value).map_err(|error| PublishError::Signature(format!("internal error: {error}")))
}

/// The packs of each namespace.
fn namespaces(root: &Path) -> Result<BTreeMap<String, Vec<PackFile>>, PublishError> {
    let failed = |path: &Path, error| PublishError::Io { path: path.to_owned(), error };
    let entries = |directory: &Path| -> Result<BTreeSet<PathBuf>, PublishError> {
        let entries = match fs::read_dir(directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
            entries => entries.map_err(|error| failed(directory, error))?,
        };
        entries.map(|entry| entry.map(|it| it.path()).map_err(|error| failed(directory, error))).collect()
    };
    let mut found = BTreeMap::new();
    for directory in entries(root)? {
        let Some(namespace) = directory.file_name().and_then(|name| name.to_str()) else { continue };
        let mut packs: Vec<PackFile> = Vec::new();
        for file in entries(&directory.join("index"))? {
            let content = fs::read(&file).map_err(|error| failed(&file, error))?;
            let damaged = || failed(&file, io::ErrorKind::InvalidData.into());
            packs.extend(IndexFile::read(&content, namespace).ok_or_else(damaged)?);
        }
        packs.sort_by(|one, other| one.name.cmp(&other.name));
        packs.dedup_by(|one, other| one.name == other.name);
        packs.retain(|pack| unhex(&pack.name).is_some());
        if !packs.is_empty() {
            found.insert(namespace.to_owned(), packs);
        }
    }
    Ok(found)
}

/// Pushes the packs and the index of a namespace. Returns the descriptor of their manifest.
async fn push_namespace(
    repository: &RegistryRepository,
    root: &Path,
    namespace: &str,
    packs: Vec<PackFile>,
    published: &mut PublishedCache,
) -> Result<Descriptor, PublishError> {
    let mut layers = Vec::new();
    let mut uploads = Vec::new();
    for pack in &packs {
        let path = root.join("packs").join(pack.name.get(..2).unwrap_or_default()).join(&pack.name);
        let size = fs::metadata(&path).map_err(|error| PublishError::Io { path: path.clone(), error })?.len();
        let digest: BlobDigest = format!("sha256:{}", pack.name).parse().map_err(Error::from)?;
        let layer = Descriptor::new(PACK_TYPE, digest, size);
        layers.push(layer.clone());
        uploads.push((layer, BlobContent::File { path, offset: 0 }));
    }
    (published.packs, published.bytes) =
        (published.packs + packs.len(), published.bytes + layers.iter().map(|layer| layer.size).sum::<u64>());
    let failed = |error| PublishError::Io { path: root.to_owned(), error };
    let index = Bytes::from(IndexFile::write(namespace, packs).map_err(failed)?);
    let descriptor = Descriptor::of(INDEX_TYPE, &index);
    layers.insert(0, descriptor.clone());
    uploads.push((descriptor, BlobContent::Bytes(index)));
    let config = Bytes::from_static(ImageManifest::EMPTY_CONFIG);
    uploads.push((Descriptor::of(media_type::EMPTY, &config), BlobContent::Bytes(config)));

    let pushed: Vec<u64> = stream::iter(&uploads)
        .map(async |(blob, content)| {
            let push = repository.push_blob(blob, content).await?;
            Ok::<_, Error>(if push == BlobPush::Uploaded { blob.size } else { 0 })
        })
        .buffer_unordered(MAX_CONCURRENT_UPLOADS)
        .try_collect()
        .await?;
    published.uploaded += pushed.iter().sum::<u64>();
    let manifest = json(&ImageManifest::artifact(ARTIFACT_TYPE, layers))?;
    repository.push_manifest(None, media_type::MANIFEST, &manifest).await?;
    let mut descriptor = Descriptor::of(media_type::MANIFEST, &manifest);
    descriptor.artifact_type = Some(ARTIFACT_TYPE.to_owned());
    descriptor.annotations.insert(NAMESPACE.to_owned(), namespace.to_owned());
    if let [arch, os, ..] = namespace.rsplit('-').collect::<Vec<_>>()[..] {
        descriptor.platform =
            Some(Platform { architecture: arch.to_owned(), os: os.to_owned(), variant: None });
    }
    Ok(descriptor)
}

async fn push_signature(
    repository: &RegistryRepository,
    digest: &BlobDigest,
    sign: SignMessage<'_>,
) -> Result<(), PublishError> {
    let payload = json(&SignedPayload::new(&repository.name(), digest))?;
    let signature = sign(&payload).map_err(PublishError::Signature)?;
    let mut layer = Descriptor::of(SIGNATURE_TYPE, &payload);
    layer.annotations.insert(SIGNATURE.to_owned(), BASE64.encode(&signature));
    // cosign writes an image configuration, too.
    let config: &[u8] =
        b"{\"architecture\":\"\",\"os\":\"\",\"config\":{},\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[]}}";
    let config = Bytes::from_static(config);
    let descriptor = Descriptor::of(media_type::CONFIG, &config);
    repository.push_blob(&descriptor, &BlobContent::Bytes(config)).await?;
    repository.push_blob(&layer, &BlobContent::Bytes(payload.into())).await?;
    let manifest = json(&ImageManifest::new(descriptor, vec![layer]))?;
    repository.push_manifest(Some(&signature_tag(digest)), media_type::MANIFEST, &manifest).await?;
    Ok(())
}
