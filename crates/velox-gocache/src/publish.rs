//! Publishing the packages of a directory in a container registry.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    fs, io,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use data_encoding::BASE64;
use futures::{StreamExt, TryStreamExt, stream};
use velox_fetch::http::HttpOptions;
use velox_oci::{
    BlobContent, BlobDigest, BlobPush, Descriptor, Error, ImageIndex, ImageManifest, ImageReference,
    Platform, PulledManifest, RegistryRepository, media_type,
};

use crate::{
    SignatureVerifier,
    location::RemoteFailure,
    pack::{IndexFile, PackFile},
    registry::{
        ARTIFACT_TYPE, INDEX_TYPE, NAMESPACE, PACK_TYPE, RegistryCache, SIGNATURE, SIGNATURE_TYPE,
        SignedPayload, registry_client, signature_tag,
    },
};

const MAX_CONCURRENT_UPLOADS: usize = 4;

/// Signs a message; an error has the cause.
pub type SignMessage = dyn Fn(&[u8]) -> Result<Vec<u8>, String> + Send + Sync;

/// The key of a publisher.
pub struct CacheSigner {
    /// Signs with it.
    pub sign: Box<SignMessage>,
    /// Verifies its signatures.
    pub verifier: SignatureVerifier,
}

/// Where a cache is published, and what happens to the one that the tag has.
pub struct CachePublication {
    repository: RegistryRepository,
    tag: ImageReference,
    annotations: BTreeMap<String, String>,
    signer: Option<CacheSigner>,
    replace: bool,
}

/// A published cache.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PublishedCache {
    /// Its location, with its digest.
    pub location: String,
    /// The namespaces of the directory: `go1.26.8-linux-amd64`.
    pub namespaces: Vec<String>,
    /// Other namespaces, which the tag had before.
    pub kept: Vec<String>,
    /// The number of packs in [`Self::namespaces`].
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
    /// The tag has something that nothing can be added to.
    #[error("the tag exists, and nothing is added to it: {0}")]
    Occupied(String),
    /// Signing failed.
    #[error("{0}")]
    Signature(String),
}

impl CachePublication {
    /// A publication at a tag. Packages are added to a cache that the same key signed. Anything else at the tag is only
    /// overwritten with `replace`: whoever trusts the key, or pins the digest, would trust it, too.
    ///
    /// # Errors
    /// Invalid credentials or settings of the registry.
    pub fn new(
        tag: ImageReference,
        annotations: BTreeMap<String, String>,
        environment: &BTreeMap<String, String>,
        signer: Option<CacheSigner>,
        replace: bool,
    ) -> Result<Self, PublishError> {
        let client = registry_client(environment, HttpOptions::from_environment(environment))?;
        Ok(Self { repository: client.repository(&tag), tag, annotations, signer, replace })
    }

    /// Fails if the tag has something that is neither added to nor replaced.
    ///
    /// # Errors
    /// [`PublishError::Occupied`], or a registry that fails.
    pub async fn check(&self) -> Result<(), PublishError> {
        if let Some(existing) = self.repository.find_manifest(self.tag.version()).await? {
            self.manifests(&existing).await?;
        }
        Ok(())
    }

    /// Publishes the packages of a directory cache ([`crate::parse_remote`]). The tag appears last: readers see the previous
    /// cache or the new one, which is complete and signed.
    ///
    /// # Errors
    /// A registry that refuses a part, a damaged directory, a tag with something else.
    pub async fn publish(&self, directory: &Path) -> Result<PublishedCache, PublishError> {
        let root = directory.join("v1");
        let namespaces = namespaces(&root)?;
        if namespaces.is_empty() {
            return Err(PublishError::Empty);
        }
        let mut uploaded = 0;
        let mut published = PublishedCache::default();
        let push = async |existing: Option<&PulledManifest>| {
            let mut manifests = match existing {
                Some(existing) => self.manifests(existing).await?,
                None => BTreeMap::new(),
            };
            published = PublishedCache::default();
            published.kept = manifests.keys().filter(|it| !namespaces.contains_key(*it)).cloned().collect();
            for (namespace, packs) in &namespaces {
                let older = match manifests.get(namespace) {
                    Some(manifest) => self.older_packs(namespace, manifest, packs).await?,
                    None => Vec::new(),
                };
                let manifest = self.push_namespace(&root, namespace, packs, older, &mut published).await?;
                manifests.insert(namespace.clone(), manifest);
                published.namespaces.push(namespace.clone());
            }
            uploaded += published.uploaded;
            let mut index = ImageIndex::new(manifests.into_values().collect());
            index.annotations = self.annotations.clone();
            let index = json(&index)?;
            let digest = self.repository.push_manifest(None, media_type::INDEX, &index).await?;
            if let Some(signer) = &self.signer
                && (self.replace || existing.is_none_or(|existing| existing.descriptor.digest != digest))
            {
                push_signature(&self.repository, &digest, &signer.sign).await?;
            }
            Ok::<_, PublishError>(index)
        };
        let tag = self.tag.version();
        let digest = self.repository.update_tag(tag, push).await?;
        Ok(PublishedCache { location: format!("oci://{}@{digest}", self.tag), uploaded, ..published })
    }

    /// The manifests that stay of what the tag has.
    async fn manifests(
        &self,
        existing: &PulledManifest,
    ) -> Result<BTreeMap<String, Descriptor>, PublishError> {
        if self.replace {
            return Ok(BTreeMap::new());
        }
        let cache = self.cache().ok_or_else(|| PublishError::Occupied("there is no key".to_owned()))?;
        cache.verify(&existing.descriptor.digest).await.map_err(occupied)?;
        cache.manifests(existing).map_err(occupied)
    }

    /// The cache at the tag, verified by the publisher's own key.
    fn cache(&self) -> Option<RegistryCache> {
        let verifier = self.signer.as_ref()?.verifier.clone();
        Some(RegistryCache::new(self.repository.clone(), self.tag.clone(), Some(verifier)))
    }

    /// The packs of an existing manifest with packages that these packs lack.
    async fn older_packs(
        &self,
        namespace: &str,
        manifest: &Descriptor,
        packs: &[PackFile],
    ) -> Result<Vec<(PackFile, Descriptor)>, PublishError> {
        let Some(cache) = self.cache() else { return Ok(Vec::new()) };
        let actions = |pack: &PackFile| -> HashSet<String> {
            pack.outputs.iter().flat_map(|output| output.actions.clone()).collect()
        };
        let known: HashSet<String> = packs.iter().flat_map(actions).collect();
        let (mut older, _) = cache.packs(namespace, manifest).await.map_err(occupied)?;
        older.retain(|(pack, _)| !known.is_superset(&actions(pack)));
        Ok(older)
    }

    /// Pushes the packs and the index of a namespace. Returns the descriptor of their manifest.
    async fn push_namespace(
        &self,
        root: &Path,
        namespace: &str,
        packs: &[PackFile],
        older: Vec<(PackFile, Descriptor)>,
        published: &mut PublishedCache,
    ) -> Result<Descriptor, PublishError> {
        let mut uploads = Vec::new();
        for PackFile { name, .. } in packs {
            let path = root.join("packs").join(name.get(..2).unwrap_or_default()).join(name);
            let size =
                fs::metadata(&path).map_err(|error| PublishError::Io { path: path.clone(), error })?.len();
            let digest: BlobDigest = format!("sha256:{name}").parse().map_err(Error::from)?;
            uploads.push((Descriptor::new(PACK_TYPE, digest, size), BlobContent::File { path, offset: 0 }));
        }
        let (older, older_layers): (Vec<_>, Vec<_>) = older.into_iter().unzip();
        let mut layers: Vec<Descriptor> = uploads.iter().map(|(layer, _)| layer.clone()).collect();
        layers.extend(older_layers);
        published.packs += layers.len();
        published.bytes += layers.iter().map(|layer| layer.size).sum::<u64>();
        let failed = |error| PublishError::Io { path: root.to_owned(), error };
        let index = Bytes::from(IndexFile::write(namespace, [packs, &older].concat()).map_err(failed)?);
        let descriptor = Descriptor::of(INDEX_TYPE, &index);
        layers.insert(0, descriptor.clone());
        uploads.push((descriptor, BlobContent::Bytes(index)));
        let config = Bytes::from_static(ImageManifest::EMPTY_CONFIG);
        uploads.push((Descriptor::of(media_type::EMPTY, &config), BlobContent::Bytes(config)));

        let pushed: Vec<u64> = stream::iter(&uploads)
            .map(async |(blob, content)| {
                let push = self.repository.push_blob(blob, content).await?;
                Ok::<_, Error>(if push == BlobPush::Uploaded { blob.size } else { 0 })
            })
            .buffer_unordered(MAX_CONCURRENT_UPLOADS)
            .try_collect()
            .await?;
        published.uploaded += pushed.iter().sum::<u64>();
        let manifest = json(&ImageManifest::artifact(ARTIFACT_TYPE, layers))?;
        self.repository.push_manifest(None, media_type::MANIFEST, &manifest).await?;
        let mut descriptor = Descriptor::of(media_type::MANIFEST, &manifest);
        descriptor.artifact_type = Some(ARTIFACT_TYPE.to_owned());
        descriptor.annotations.insert(NAMESPACE.to_owned(), namespace.to_owned());
        if let [arch, os, ..] = namespace.rsplit('-').collect::<Vec<_>>()[..] {
            descriptor.platform = Some(Platform::of_go(os, arch, None));
        }
        Ok(descriptor)
    }
}

fn occupied(failure: RemoteFailure) -> PublishError {
    PublishError::Occupied(match failure {
        RemoteFailure::Failed(reason) => reason,
        RemoteFailure::NotFound => "it is not a cache".to_owned(),
    })
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
        let mut packs: BTreeMap<String, PackFile> = BTreeMap::new();
        for file in entries(&directory.join("index"))? {
            let content = fs::read(&file).map_err(|error| failed(&file, error))?;
            let damaged = || failed(&file, io::ErrorKind::InvalidData.into());
            let named = IndexFile::read(&content, namespace).ok_or_else(damaged)?;
            packs.extend(named.into_iter().map(|pack| (pack.name.clone(), pack)));
        }
        if !packs.is_empty() {
            found.insert(namespace.to_owned(), packs.into_values().collect());
        }
    }
    Ok(found)
}

async fn push_signature(
    repository: &RegistryRepository,
    digest: &BlobDigest,
    sign: &SignMessage,
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use sha2::{Digest, Sha256};
    use tempfile::TempDir;
    use velox_testkit::TestRegistry;

    use super::*;
    use crate::{
        disk::{ActionEntry, LocalCache},
        hex,
        pack::packed,
    };

    /// A directory cache with a pack of these actions.
    fn directory(namespace: &str, actions: &[&str]) -> TempDir {
        let place = tempfile::tempdir().unwrap();
        let disk = LocalCache::open(&place.path().join("gocache")).unwrap();
        let put = |action: &&str| {
            let (id, size) = (Sha256::digest(action).into(), action.len() as u64);
            let mut new = disk.new_output(&id).unwrap();
            new.write(action.as_bytes()).unwrap();
            new.finish(size).unwrap();
            (id, ActionEntry { output: id, size, time: 0 })
        };
        let (outputs, content) = packed(&disk, actions.iter().map(put).collect());
        let name = hex(&Sha256::digest(&content).into());
        let root = place.path().join("v1");
        let (packs, index) = (root.join("packs").join(&name[..2]), root.join(namespace).join("index"));
        fs::create_dir_all(&packs).unwrap();
        fs::create_dir_all(&index).unwrap();
        fs::write(packs.join(&name), content).unwrap();
        fs::write(index.join("x"), IndexFile::write(namespace, vec![PackFile { name, outputs }]).unwrap())
            .unwrap();
        place
    }

    fn signature(key: &str, message: &[u8]) -> Vec<u8> {
        Sha256::digest([key.as_bytes(), message].concat()).to_vec()
    }

    fn publication(tag: &ImageReference, key: Option<&'static str>, replace: bool) -> CachePublication {
        let signer = key.map(|key| CacheSigner {
            sign: Box::new(move |message| Ok(signature(key, message))),
            verifier: SignatureVerifier(Arc::new(move |message, it| it == signature(key, message))),
        });
        CachePublication::new(tag.clone(), BTreeMap::new(), &BTreeMap::new(), signer, replace).unwrap()
    }

    #[tokio::test]
    async fn publishers_of_one_key_add_to_a_tag_and_nobody_else_does() {
        let registry = TestRegistry::start();
        let tag: ImageReference = format!("{}/acme/cache:v1", registry.host()).parse().unwrap();
        let ours = publication(&tag, Some("ours"), false);
        let (amd64, arm64) = ("go1.26.8-linux-amd64", "go1.26.8-linux-arm64");
        let (one, other) = (directory(amd64, &["a"]), directory(arm64, &["a"]));
        let (first, second) = tokio::join!(ours.publish(one.path()), ours.publish(other.path()));
        assert_eq!([first.unwrap().namespaces, second.unwrap().namespaces], [[amd64], [arm64]]);
        let packs = async |namespace: &str| -> usize {
            let cache = publication(&tag, Some("ours"), false).cache().unwrap();
            cache.index(namespace).await.map_or(0, |(packs, _)| packs.len())
        };
        assert_eq!((packs(amd64).await, packs(arm64).await), (1, 1));

        // A pack whose packages are all in newer ones is left out.
        for (actions, expected) in [(&["a", "b"][..], 1), (&["c"], 2), (&["a", "b", "c"], 1)] {
            let published = ours.publish(directory(amd64, actions).path()).await.unwrap();
            assert_eq!((published.packs, packs(amd64).await), (expected, expected));
            assert_eq!(published.kept, [arm64]);
        }

        for key in [None, Some("theirs")] {
            let theirs = publication(&tag, key, false);
            assert!(matches!(theirs.check().await, Err(PublishError::Occupied(_))));
            assert!(matches!(theirs.publish(one.path()).await, Err(PublishError::Occupied(_))));
        }
        assert_eq!(packs(arm64).await, 1);
        publication(&tag, Some("ours"), true).publish(one.path()).await.unwrap();
        assert_eq!((packs(amd64).await, packs(arm64).await), (1, 0));
    }
}
