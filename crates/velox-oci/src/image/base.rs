//! The image that a new one is based on.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::Deserialize;
use serde_json::Value;

use super::{
    layer::compress_layer,
    source::{BlobOrigin, ImageContent, ImageSource, TarIndex},
};
use crate::{
    BlobContent, BlobDigest, Descriptor, Error, ImageIndex, ImageManifest, ImageReference, InvalidReference,
    Platform, RegistryClient, media_type,
};

const MAX_MANIFEST_BYTES: u64 = 4 << 20;
const MAX_CONFIG_BYTES: u64 = 8 << 20;
/// The annotation of a tag in an OCI layout.
pub(crate) const REF_NAME: &str = "org.opencontainers.image.ref.name";
const GZIP_MAGIC: &[u8] = &[0x1f, 0x8b];
const ZSTD_MAGIC: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];

/// Where a base is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BaseImage {
    /// No base.
    Scratch,
    /// A registry.
    Registry(ImageReference),
    /// An OCI layout directory; the tag selects one of its images.
    Layout(PathBuf, Option<String>),
    /// A tar archive of `docker save`, or of an OCI layout.
    Archive(PathBuf),
}

/// A base whose manifest or index was read: [`BaseImage::open`].
#[derive(Debug)]
pub struct OpenedBase(Option<OpenedImage>);

#[derive(Debug)]
struct OpenedImage {
    name: String,
    source: ImageSource,
    /// The index or the manifest; `None`: the archive has neither.
    top: Option<Descriptor>,
    /// The images for the platforms; one without a platform if there is no index.
    manifests: Vec<Descriptor>,
}

/// A base for one platform.
#[derive(Debug)]
pub(crate) struct PlatformBase {
    pub(crate) config: Value,
    pub(crate) layers: Vec<ImageContent>,
    /// The name and the digest of the whole base.
    pub(crate) origin: Option<(String, BlobDigest)>,
}

/// `manifest.json` of `docker save`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SavedImage {
    config: String,
    layers: Vec<String>,
}

impl BaseImage {
    /// Parses `scratch`, `oci:DIRECTORY[:TAG]`, `docker-archive:FILE`, a path that begins with `.` or `/`, or an image
    /// reference. Paths are relative to `directory`.
    ///
    /// # Errors
    /// An invalid reference.
    pub fn parse(text: &str, directory: &Path) -> Result<Self, InvalidReference> {
        let is_path = text.starts_with(['.', '/']) || Path::new(text).is_absolute();
        if text == "scratch" {
            Ok(Self::Scratch)
        } else if let Some(layout) = text.strip_prefix("oci:") {
            Ok(match layout.rsplit_once(':').filter(|(_, tag)| !tag.contains(['/', '\\'])) {
                Some((path, tag)) => Self::Layout(directory.join(path), Some(tag.to_owned())),
                None => Self::Layout(directory.join(layout), None),
            })
        } else if let Some(archive) = text.strip_prefix("docker-archive:") {
            Ok(Self::Archive(directory.join(archive)))
        } else if is_path {
            let path = directory.join(text);
            Ok(if path.is_dir() { Self::Layout(path, None) } else { Self::Archive(path) })
        } else {
            text.parse().map(Self::Registry)
        }
    }

    /// Reads the manifest or the index.
    ///
    /// # Errors
    /// The base is missing or invalid, or the registry fails.
    pub async fn open(&self, client: &RegistryClient) -> Result<OpenedBase, Error> {
        let (source, top) = match self {
            Self::Scratch => return Ok(OpenedBase(None)),
            Self::Registry(reference) => {
                let repository = client.repository(reference);
                let manifest = repository.pull_manifest(reference.version()).await?;
                (ImageSource::Registry(repository), Some(manifest.descriptor))
            }
            Self::Layout(directory, tag) => {
                let index = directory.join("index.json");
                let text = fs::read(&index).map_err(|error| Error::Io { path: index, error })?;
                let name = directory.display().to_string();
                (ImageSource::Layout(directory.clone()), Some(selected(&name, &text, tag.as_deref())?))
            }
            Self::Archive(path) => {
                let index = TarIndex::open(path)?;
                let name = path.display().to_string();
                let layout = index.read("index.json", MAX_MANIFEST_BYTES)?;
                let top = layout.map(|text| selected(&name, &text, None)).transpose()?;
                (ImageSource::Archive(Arc::new(index)), top)
            }
        };
        let name = match self {
            Self::Registry(reference) => reference.to_string(),
            _ => source.name(),
        };
        let manifests = match &top {
            Some(top) if is_index(top) => {
                let text = source.read(top, MAX_MANIFEST_BYTES).await?;
                parsed::<ImageIndex>(&name, &text)?.manifests
            }
            Some(top) => vec![top.clone()],
            None => Vec::new(),
        };
        Ok(OpenedBase(Some(OpenedImage { name, source, top, manifests })))
    }
}

impl OpenedBase {
    /// The base for a platform. Layers that aren't compressed yet are compressed into `directory`.
    pub(crate) async fn for_platform(
        &self,
        platform: &Platform,
        directory: &Path,
    ) -> Result<Option<PlatformBase>, Error> {
        let Some(image) = &self.0 else { return Ok(None) };
        let Some(descriptor) = image.manifest_for(platform)? else {
            return image.saved(platform, directory).map(Some);
        };
        let text = image.source.read(&descriptor, MAX_MANIFEST_BYTES).await?;
        let manifest: ImageManifest = parsed(&image.name, &text)?;
        let config = image.source.read(&manifest.config, MAX_CONFIG_BYTES).await?;
        let config = image.checked(parsed(&image.name, &config)?, platform, manifest.layers.len())?;
        let layers = manifest.layers.into_iter().map(|layer| {
            let origin = image.source.layer(&layer)?;
            Ok(ImageContent { descriptor: with_oci_type(layer), origin })
        });
        let origin = image.top.clone().map(|top| (image.name.clone(), top.digest));
        Ok(Some(PlatformBase { config, layers: layers.collect::<Result<_, Error>>()?, origin }))
    }

    /// Fails if the base is not for this platform.
    ///
    /// # Errors
    /// [`Error::NoPlatform`] or [`Error::OtherPlatform`], or the configuration of the base is unreadable.
    pub async fn check(&self, platform: &Platform) -> Result<(), Error> {
        let Some(image) = &self.0 else { return Ok(()) };
        let config = match image.manifest_for(platform)? {
            Some(descriptor) => {
                let text = image.source.read(&descriptor, MAX_MANIFEST_BYTES).await?;
                let manifest: ImageManifest = parsed(&image.name, &text)?;
                image.source.read(&manifest.config, MAX_CONFIG_BYTES).await?
            }
            None => image.saved_config()?.2,
        };
        image.checked_platform(&parsed(&image.name, &config)?, platform)
    }
}

impl OpenedImage {
    /// The manifest for a platform; `None`: the archive has no manifests.
    fn manifest_for(&self, platform: &Platform) -> Result<Option<Descriptor>, Error> {
        let Some(top) = &self.top else { return Ok(None) };
        if !is_index(top) {
            return Ok(Some(top.clone()));
        }
        let fits = |it: &&Descriptor| {
            it.platform
                .as_ref()
                .is_some_and(|it| it.os == platform.os && it.architecture == platform.architecture)
        };
        let fitting: Vec<&Descriptor> = self.manifests.iter().filter(fits).collect();
        let variant = |it: &Descriptor| it.platform.as_ref().and_then(|it| it.variant.clone());
        // `v8` of arm64 is its only one, and often left out.
        let exact = fitting.iter().find(|it| variant(it) == platform.variant);
        let found = exact.copied().or_else(|| match platform.architecture.as_str() {
            "arm" => fitting.iter().find(|it| variant(it) <= platform.variant).copied(),
            _ => fitting.first().copied(),
        });
        found.cloned().map(Some).ok_or_else(|| Error::NoPlatform {
            name: self.name.clone(),
            platform: platform.to_string(),
            available: self
                .manifests
                .iter()
                .filter_map(|it| it.platform.as_ref())
                .filter(|it| it.os != "unknown")
                .map(ToString::to_string)
                .collect(),
        })
    }

    /// Checks that the configuration is for this platform, and describes these layers.
    fn checked(&self, config: Value, platform: &Platform, layers: usize) -> Result<Value, Error> {
        self.checked_platform(&config, platform)?;
        let diff_ids = config.pointer("/rootfs/diff_ids").and_then(Value::as_array).map_or(0, Vec::len);
        match diff_ids == layers {
            true => Ok(config),
            false => Err(Error::InvalidImage {
                name: self.name.clone(),
                reason: format!("it has {layers} layers, but its configuration describes {diff_ids}"),
            }),
        }
    }

    fn checked_platform(&self, config: &Value, platform: &Platform) -> Result<(), Error> {
        let text = |key: &str| config.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (os, architecture) = (text("os"), text("architecture"));
        let is_same = (os == platform.os || os.is_empty())
            && (architecture == platform.architecture || architecture.is_empty());
        match is_same {
            true => Ok(()),
            false => Err(Error::OtherPlatform {
                name: self.name.clone(),
                platform: platform.to_string(),
                actual: format!("{os}/{architecture}"),
            }),
        }
    }

    /// The archive of `docker save`, the names of its layers, and the configuration.
    fn saved_config(&self) -> Result<(&TarIndex, Vec<String>, Vec<u8>), Error> {
        let invalid = |reason: String| Error::InvalidImage { name: self.name.clone(), reason };
        let ImageSource::Archive(index) = &self.source else {
            return Err(invalid("it has no image".to_owned()));
        };
        let text = index.read("manifest.json", MAX_MANIFEST_BYTES)?;
        let text = text.ok_or_else(|| invalid("it has neither index.json nor manifest.json".to_owned()))?;
        let saved: Vec<SavedImage> = parsed(&self.name, &text)?;
        let [image] = <[SavedImage; 1]>::try_from(saved)
            .map_err(|all| invalid(format!("expected one image, found {}", all.len())))?;
        let config = index.read(&image.config, MAX_CONFIG_BYTES)?;
        let config = config.ok_or_else(|| invalid(format!("it lacks `{}`", image.config)))?;
        Ok((index, image.layers, config))
    }

    /// Reads an archive of `docker save` without an index.
    fn saved(&self, platform: &Platform, directory: &Path) -> Result<PlatformBase, Error> {
        let (index, names, config) = self.saved_config()?;
        let config = self.checked(parsed(&self.name, &config)?, platform, names.len())?;
        let mut layers = Vec::new();
        for name in &names {
            layers.push(self.saved_layer(index, name, directory)?);
        }
        Ok(PlatformBase { config, layers, origin: None })
    }

    fn saved_layer(&self, index: &TarIndex, name: &str, directory: &Path) -> Result<ImageContent, Error> {
        use std::io::{Read as _, Seek as _, SeekFrom};
        let failed = |error| Error::Io { path: index.path.clone(), error };
        let (offset, size) = index.find(name).ok_or_else(|| Error::InvalidImage {
            name: self.name.clone(),
            reason: format!("it lacks `{name}`"),
        })?;
        let mut file = fs::File::open(&index.path).map_err(failed)?;
        file.seek(SeekFrom::Start(offset)).map_err(failed)?;
        let mut start = Vec::new();
        (&mut file).take(4).read_to_end(&mut start).map_err(failed)?;
        file.seek(SeekFrom::Start(offset)).map_err(failed)?;
        let media_type = match start.as_slice() {
            start if start.starts_with(GZIP_MAGIC) => media_type::LAYER_GZIP,
            start if start.starts_with(ZSTD_MAGIC) => media_type::LAYER_ZSTD,
            _ => {
                let layer = compress_layer(directory, &mut file.take(size))?;
                let origin = BlobOrigin::Content(BlobContent::File(layer.path));
                return Ok(ImageContent { descriptor: layer.descriptor, origin });
            }
        };
        let mut hash = super::layer::HashingWriter::new(std::io::sink());
        std::io::copy(&mut file.take(size), &mut hash).map_err(failed)?;
        let (_, digest, size) = hash.finish();
        let origin = BlobOrigin::Part { path: index.path.clone(), offset };
        Ok(ImageContent { descriptor: Descriptor::new(media_type, digest, size), origin })
    }
}

fn is_index(descriptor: &Descriptor) -> bool {
    [media_type::INDEX, media_type::DOCKER_INDEX].contains(&descriptor.media_type.as_str())
}

/// The image of an OCI layout: the tagged one, else the only one.
fn selected(name: &str, index: &[u8], tag: Option<&str>) -> Result<Descriptor, Error> {
    let invalid = |reason: String| Error::InvalidImage { name: name.to_owned(), reason };
    let manifests = parsed::<ImageIndex>(name, index)?.manifests;
    let tag_of = |it: &Descriptor| it.annotations.get(REF_NAME).cloned();
    let tags: Vec<String> = manifests.iter().filter_map(tag_of).collect();
    match (tag, manifests.as_slice()) {
        (Some(tag), _) => {
            let found = manifests.iter().find(|it| tag_of(it).as_deref() == Some(tag));
            found
                .cloned()
                .ok_or_else(|| invalid(format!("it has no tag `{tag}`; its tags are: {}", tags.join(", "))))
        }
        (None, [one]) => Ok(one.clone()),
        (None, []) => Err(invalid("it has no image".to_owned())),
        (None, [first, rest @ ..]) if rest.iter().all(|it| it.digest == first.digest) => Ok(first.clone()),
        (None, _) => Err(invalid(format!(
            "it has several images; select one with oci:DIRECTORY:TAG: {}",
            tags.join(", ")
        ))),
    }
}

/// The same layer in an OCI manifest.
fn with_oci_type(layer: Descriptor) -> Descriptor {
    match layer.media_type.as_str() {
        media_type::DOCKER_LAYER_GZIP => {
            Descriptor { media_type: media_type::LAYER_GZIP.to_owned(), ..layer }
        }
        "application/vnd.docker.image.rootfs.diff.tar" => {
            Descriptor { media_type: media_type::LAYER_TAR.to_owned(), ..layer }
        }
        "application/vnd.docker.image.rootfs.diff.tar.zstd" => {
            Descriptor { media_type: media_type::LAYER_ZSTD.to_owned(), ..layer }
        }
        _ => layer,
    }
}

pub(crate) fn parsed<T: serde::de::DeserializeOwned>(name: &str, text: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(text)
        .map_err(|error| Error::InvalidImage { name: name.to_owned(), reason: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bases_are_references_or_paths() {
        let parse = |text: &str| BaseImage::parse(text, Path::new("/work")).unwrap();
        assert_eq!(parse("scratch"), BaseImage::Scratch);
        assert_eq!(parse("php:8.4-cli"), BaseImage::Registry("php:8.4-cli".parse().unwrap()));
        assert_eq!(parse("oci:base"), BaseImage::Layout("/work/base".into(), None));
        assert_eq!(parse("oci:/base:8.4"), BaseImage::Layout("/base".into(), Some("8.4".to_owned())));
        assert_eq!(parse("docker-archive:base.tar"), BaseImage::Archive("/work/base.tar".into()));
        assert_eq!(parse("./base.tar"), BaseImage::Archive("/work/./base.tar".into()));
        assert_eq!(parse("/tmp"), BaseImage::Layout("/tmp".into(), None));
        assert!(BaseImage::parse("PHP", Path::new("/")).is_err());
    }
}
