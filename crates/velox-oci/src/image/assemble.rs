//! Images from a base, a binary and added files.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use super::{
    base::PlatformBase,
    config::{ImageConfigFile, ImageSettings},
    files::{ImageAddition, LayerEntry, LayerFiles, with_parents},
    layer::{BuiltLayer, write_layer},
    source::{BlobOrigin, ImageContent},
};
use crate::{BlobContent, Descriptor, Error, ImageIndex, ImageManifest, Platform, media_type};

const BASE_NAME: &str = "org.opencontainers.image.base.name";
const BASE_DIGEST: &str = "org.opencontainers.image.base.digest";

/// What an image is made from.
#[derive(Debug)]
pub struct ImageInput<'a> {
    /// The platforms, each with its binary and its base.
    pub targets: Vec<(&'a Platform, PathBuf, Option<&'a PlatformBase>)>,
    /// The files of the further layers.
    pub additions: &'a [ImageAddition],
    /// The properties.
    pub settings: &'a ImageSettings,
    /// The directory for the new layers.
    pub directory: &'a Path,
}

/// An image for one platform.
#[derive(Debug)]
pub struct AssembledImage {
    /// The manifest, with its platform.
    pub descriptor: Descriptor,
    pub(crate) config: ImageContent,
    pub(crate) layers: Vec<ImageContent>,
}

/// The images of one tag.
#[derive(Debug)]
pub struct ImageSet {
    /// The manifest of the only image, or the index of all.
    pub descriptor: Descriptor,
    /// One image for each platform.
    pub images: Vec<AssembledImage>,
    /// The manifests of the images, and the index if there are several.
    pub(crate) manifests: Vec<(Descriptor, Vec<u8>)>,
}

impl ImageSet {
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
    /// A file can't be read or written, or a layer of the base is invalid.
    pub async fn assemble(&self) -> Result<ImageSet, Error> {
        // Added files are the same on every platform.
        let has_base = self.targets.iter().any(|(_, _, base)| base.is_some());
        let mut added = Vec::new();
        for addition in self.additions {
            added.push(self.layer(addition.files()?, has_base).await?);
        }
        let (mut images, mut manifests) = (Vec::new(), Vec::new());
        for (platform, binary, base) in &self.targets {
            let path = self.settings.binary_path.trim_start_matches('/').to_owned();
            let entry = LayerEntry::File { source: binary.clone(), is_executable: true };
            let mut layers = vec![self.layer(LayerFiles::from([(path, entry)]), has_base).await?];
            layers.extend(added.iter().cloned());
            let (image, manifest) = self.image(platform, *base, layers)?;
            manifests.push((image.descriptor.clone(), manifest));
            images.push(image);
        }
        if manifests.len() > 1 {
            let mut index = ImageIndex::new(manifests.iter().map(|(manifest, _)| manifest.clone()).collect());
            index.annotations = self.settings.labels.clone();
            let index = json(&index)?;
            manifests.push((Descriptor::of(media_type::INDEX, &index), index));
        }
        let top = manifests.last().map(|(descriptor, _)| descriptor.clone());
        let none =
            || Error::InvalidImage { name: "the image".to_owned(), reason: "it has no target".to_owned() };
        Ok(ImageSet { descriptor: top.ok_or_else(none)?, images, manifests })
    }

    async fn layer(&self, files: LayerFiles, has_base: bool) -> Result<BuiltLayer, Error> {
        let ImageSettings { file_time, compression, .. } = *self.settings;
        let (directory, files) = (self.directory.to_owned(), with_parents(files, has_base));
        blocking(self.directory, move || write_layer(&directory, &files, file_time, compression)).await
    }

    fn image(
        &self,
        platform: &Platform,
        base: Option<&PlatformBase>,
        layers: Vec<BuiltLayer>,
    ) -> Result<(AssembledImage, Vec<u8>), Error> {
        let mut settings = self.settings.clone();
        let (mut config, mut contents) = (ImageConfigFile::default(), Vec::new());
        if let Some(base) = base {
            config = base.config.clone();
            contents = base.layers(self.directory)?;
            let digest = base.digest.as_ref().map(ToString::to_string);
            for (label, value) in [(BASE_NAME, base.name.clone()), (BASE_DIGEST, digest)] {
                if let Some(value) = value {
                    settings.labels.entry(label.to_owned()).or_insert(value);
                }
            }
        }
        let added = self.additions.iter().map(|addition| &addition.destination);
        let commands = [&settings.binary_path].into_iter().chain(added).map(|path| format!("COPY {path}"));
        let made: Vec<_> = layers.iter().map(|layer| layer.diff_id.clone()).zip(commands).collect();
        contents.extend(layers.into_iter().map(|layer| layer.content));
        let config = json(&config.merged(&settings, platform, &made))?;
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
        Ok((AssembledImage { descriptor, config, layers: contents }, manifest))
    }
}

pub(crate) fn json(value: &impl serde::Serialize) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(value)
        .map_err(|error| Error::InvalidImage { name: "the image".to_owned(), reason: error.to_string() })
}

/// Runs work on files outside the async threads.
pub(crate) async fn blocking<T: Send + 'static>(
    path: &Path,
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let result = tokio::task::spawn_blocking(work).await;
    result.map_err(|error| Error::Io { path: path.to_owned(), error: error.into() })?
}
