//! Images from a base, a binary and added files.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use super::{
    base::{OpenedBase, PlatformBase},
    config::{HistoryLayer, ImageSettings},
    files::{EntryKind, ImageAddition, LayerEntry, with_parents},
    layer::{BuiltLayer, write_layer},
    source::{BlobOrigin, ImageContent},
};
use crate::{BlobContent, Descriptor, Error, ImageIndex, ImageManifest, Platform, media_type};

const BASE_NAME: &str = "org.opencontainers.image.base.name";
const BASE_DIGEST: &str = "org.opencontainers.image.base.digest";

/// What an image is made from.
#[derive(Debug)]
pub struct ImageInput<'a> {
    /// The base.
    pub base: &'a OpenedBase,
    /// The binary of each platform.
    pub binaries: Vec<(Platform, PathBuf)>,
    /// The files of the further layers.
    pub additions: &'a [ImageAddition],
    /// The properties.
    pub settings: &'a ImageSettings,
    /// The directory for the new layers.
    pub directory: &'a Path,
}

/// An image for one platform.
#[derive(Debug, Clone)]
pub struct AssembledImage {
    /// The manifest, with its platform.
    pub descriptor: Descriptor,
    pub(crate) manifest: Vec<u8>,
    pub(crate) config: ImageContent,
    pub(crate) layers: Vec<ImageContent>,
}

/// The images of one tag.
#[derive(Debug, Clone)]
pub struct ImageSet {
    /// The manifest of the only image, or the index of all.
    pub descriptor: Descriptor,
    /// One image for each platform.
    pub images: Vec<AssembledImage>,
    pub(crate) index: Option<Vec<u8>>,
}

impl ImageSet {
    /// The bytes of the manifest or the index that [`descriptor`](Self::descriptor) describes.
    pub(crate) fn top(&self) -> &[u8] {
        match (&self.index, self.images.first()) {
            (Some(index), _) => index,
            (None, Some(image)) => &image.manifest,
            (None, None) => &[],
        }
    }

    /// All blobs, each once.
    pub(crate) fn blobs(&self) -> Vec<&ImageContent> {
        let all = self.images.iter().flat_map(|image| image.layers.iter().chain([&image.config]));
        let by_digest: BTreeMap<_, _> = all.map(|blob| (&blob.descriptor.digest, blob)).collect();
        by_digest.into_values().collect()
    }

    /// The sum of all blobs in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.blobs().iter().map(|blob| blob.descriptor.size).sum()
    }

    /// The number of blobs.
    #[must_use]
    pub fn blob_count(&self) -> u64 {
        self.blobs().len() as u64
    }
}

impl ImageInput<'_> {
    /// Makes the layers and the manifests.
    ///
    /// # Errors
    /// The base is invalid or for another platform, or a file can't be read or written.
    pub async fn assemble(&self) -> Result<ImageSet, Error> {
        let mut shared: BTreeMap<bool, Vec<BuiltLayer>> = BTreeMap::new();
        let mut images = Vec::new();
        for (platform, binary) in &self.binaries {
            let base = self.base.for_platform(platform, self.directory).await?;
            let has_base = base.is_some();
            let binary = LayerEntry {
                path: self.settings.binary_path.trim_start_matches('/').to_owned(),
                kind: EntryKind::File { source: binary.clone(), is_executable: true },
            };
            let mut layers = vec![self.layer(vec![binary], has_base).await?];
            // Added files are the same on every platform.
            if let Some(layers_of_files) = shared.get(&has_base) {
                layers.extend(layers_of_files.iter().cloned());
            } else {
                let mut added = Vec::new();
                for addition in self.additions {
                    added.push(self.layer(addition.entries()?, has_base).await?);
                }
                layers.extend(added.iter().cloned());
                shared.insert(has_base, added);
            }
            images.push(self.image(platform, base, layers)?);
        }
        let (descriptor, index) = match images.as_slice() {
            [one] => (one.descriptor.clone(), None),
            all => {
                let mut index = ImageIndex::new(all.iter().map(|image| image.descriptor.clone()).collect());
                index.annotations = self.settings.labels.clone();
                let index = json(&index)?;
                (Descriptor::of(media_type::INDEX, &index), Some(index))
            }
        };
        Ok(ImageSet { descriptor, images, index })
    }

    async fn layer(&self, entries: Vec<LayerEntry>, has_base: bool) -> Result<BuiltLayer, Error> {
        let (directory, time) = (self.directory.to_owned(), self.settings.file_time);
        let entries = with_parents(entries, has_base);
        let work = tokio::task::spawn_blocking(move || write_layer(&directory, &entries, time));
        work.await.map_err(|error| Error::Io { path: self.directory.to_owned(), error: error.into() })?
    }

    fn image(
        &self,
        platform: &Platform,
        base: Option<PlatformBase>,
        layers: Vec<BuiltLayer>,
    ) -> Result<AssembledImage, Error> {
        let mut settings = self.settings.clone();
        let base_config = base.as_ref().map(|base| base.config.clone());
        let mut contents = Vec::new();
        if let Some(base) = base {
            contents = base.layers;
            if let Some((name, digest)) = base.origin {
                settings.labels.entry(BASE_NAME.to_owned()).or_insert(name);
                settings.labels.entry(BASE_DIGEST.to_owned()).or_insert(digest.to_string());
            }
        }
        let added = self.additions.iter().map(|addition| format!("COPY {}", addition.destination));
        let commands = std::iter::once(format!("COPY {}", self.settings.binary_path)).chain(added);
        let history: Vec<HistoryLayer> = layers
            .iter()
            .zip(commands)
            .map(|(layer, created_by)| HistoryLayer { diff_id: layer.diff_id.clone(), created_by })
            .collect();
        contents.extend(layers.into_iter().map(|layer| ImageContent {
            descriptor: layer.descriptor,
            origin: BlobOrigin::Content(BlobContent::File(layer.path)),
        }));
        let config = settings.merged(base_config.as_ref(), platform, &history)?;
        let config = ImageContent {
            descriptor: Descriptor::of(media_type::CONFIG, &config),
            origin: BlobOrigin::Content(BlobContent::Bytes(config.into())),
        };
        let mut manifest = ImageManifest::new(
            config.descriptor.clone(),
            contents.iter().map(|content| content.descriptor.clone()).collect(),
        );
        manifest.annotations = settings.labels;
        let manifest = json(&manifest)?;
        let mut descriptor = Descriptor::of(media_type::MANIFEST, &manifest);
        descriptor.platform = Some(platform.clone());
        Ok(AssembledImage { descriptor, manifest, config, layers: contents })
    }
}

pub(crate) fn json(value: &impl serde::Serialize) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(value)
        .map_err(|error| Error::InvalidImage { name: "the image".to_owned(), reason: error.to_string() })
}
