//! The image that a new one is based on.

use std::path::{Path, PathBuf};

use serde::{Deserialize, de::DeserializeOwned};

use super::{
    config::ImageConfigFile,
    layer::recompress_layer,
    source::{FileSet, ImageContent, ImageSource},
};
use crate::{
    BlobDigest, Descriptor, Error, ImageIndex, ImageManifest, ImageReference, InvalidReference, Platform,
    RegistryClient, media_type, pull::MAX_MANIFEST_BYTES,
};

const MAX_CONFIG_BYTES: u64 = 8 << 20;
/// The annotation of a tag in an OCI layout.
pub(crate) const REF_NAME: &str = "org.opencontainers.image.ref.name";

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

/// The base of an image for one platform: [`BaseImage::open`].
#[derive(Debug)]
pub struct PlatformBase {
    pub(crate) config: ImageConfigFile,
    layers: BaseLayers,
    /// The name in a registry, and the digest of the base for all platforms.
    pub(crate) name: Option<String>,
    pub(crate) digest: Option<BlobDigest>,
}

#[derive(Debug)]
enum BaseLayers {
    Blobs(Vec<ImageContent>),
    /// The layers of an archive of `docker save` without an OCI layout; they have no digests of their own.
    Saved(FileSet, Vec<String>),
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

    /// Reads the manifests and the configurations for these platforms. `None` for each of them: there is no base.
    ///
    /// # Errors
    /// The base is missing or invalid, lacks a platform ([`Error::NoPlatform`]), or the registry fails.
    pub async fn open(
        &self,
        client: &RegistryClient,
        platforms: &[Platform],
    ) -> Result<Vec<Option<PlatformBase>>, Error> {
        let (mut name, mut tag) = (None, None);
        let mut top = None;
        let source = match self {
            Self::Scratch => return Ok(platforms.iter().map(|_| None).collect()),
            Self::Registry(reference) => {
                let repository = client.repository(reference);
                top = Some(repository.pull_manifest(reference.version()).await?.descriptor);
                name = Some(reference.to_string());
                ImageSource::Registry(repository)
            }
            Self::Layout(directory, selected) => {
                tag = selected.as_deref();
                ImageSource::Files(FileSet::directory(directory)?)
            }
            Self::Archive(path) => ImageSource::Files(FileSet::archive(path)?),
        };
        if let ImageSource::Files(files) = &source {
            let index = files.read("index.json", MAX_MANIFEST_BYTES as u64)?;
            top = index.map(|index| selected(&source.name(), &index, tag)).transpose()?;
        }
        let opened = OpenedImage { name: name.clone().unwrap_or_else(|| source.name()), source };
        let Some(top) = top else { return platforms.iter().map(|it| opened.saved(it).map(Some)).collect() };
        let index: Option<ImageIndex> = match top.is_index() {
            true => Some(opened.parsed(&top, MAX_MANIFEST_BYTES as u64).await?),
            false => None,
        };
        let mut bases = Vec::new();
        for platform in platforms {
            let manifest = match &index {
                Some(index) => opened.manifest_for(index, platform)?,
                None => &top,
            };
            let (config, layers) = opened.image(manifest, platform).await?;
            let (name, digest) = (name.clone(), Some(top.digest.clone()));
            bases.push(Some(PlatformBase { config, layers, name, digest }));
        }
        Ok(bases)
    }
}

struct OpenedImage {
    name: String,
    source: ImageSource,
}

impl OpenedImage {
    async fn parsed<T: DeserializeOwned>(&self, blob: &Descriptor, limit: u64) -> Result<T, Error> {
        parsed(&self.name, &self.source.read(blob, limit).await?)
    }

    fn manifest_for<'a>(&self, index: &'a ImageIndex, wanted: &Platform) -> Result<&'a Descriptor, Error> {
        let platforms = || index.manifests.iter().filter_map(|it| Some((it.platform.as_ref()?, it)));
        let fitting: Vec<_> = platforms()
            .filter(|(it, _)| it.os == wanted.os && it.architecture == wanted.architecture)
            .collect();
        // `v8` of arm64 is its only one, and often left out.
        let exact = fitting.iter().find(|(it, _)| it.variant == wanted.variant);
        let found = exact.or_else(|| match wanted.architecture.as_str() {
            "arm" => {
                let older = fitting.iter().filter(|(it, _)| it.variant <= wanted.variant);
                older.max_by_key(|(it, _)| &it.variant)
            }
            _ => fitting.first(),
        });
        found.map(|(_, manifest)| *manifest).ok_or_else(|| Error::NoPlatform {
            name: self.name.clone(),
            platform: wanted.to_string(),
            // Those of attestations are unknown.
            available: platforms()
                .filter(|(it, _)| it.os != "unknown")
                .map(|(it, _)| it.to_string())
                .collect(),
        })
    }

    async fn image(
        &self,
        manifest: &Descriptor,
        platform: &Platform,
    ) -> Result<(ImageConfigFile, BaseLayers), Error> {
        let manifest: ImageManifest = self.parsed(manifest, MAX_MANIFEST_BYTES as u64).await?;
        let config = self.parsed(&manifest.config, MAX_CONFIG_BYTES).await?;
        self.check(&config, platform, manifest.layers.len())?;
        let layers = manifest.layers.into_iter().map(|layer| {
            let origin = self.source.layer(&layer)?;
            Ok(ImageContent { descriptor: with_oci_type(layer), origin })
        });
        Ok((config, BaseLayers::Blobs(layers.collect::<Result<_, Error>>()?)))
    }

    /// Checks that the configuration is for this platform, and describes these layers.
    fn check(&self, config: &ImageConfigFile, platform: &Platform, layers: usize) -> Result<(), Error> {
        let ImageConfigFile { os, architecture, rootfs, .. } = config;
        let is = |text: &str, wanted: &str| text == wanted || text.is_empty();
        if !is(os, &platform.os) || !is(architecture, &platform.architecture) {
            let available = vec![format!("{os}/{architecture}")];
            return Err(Error::NoPlatform {
                name: self.name.clone(),
                platform: platform.to_string(),
                available,
            });
        }
        match rootfs.diff_ids.len() {
            described if described == layers => Ok(()),
            described => {
                let reason = format!("it has {layers} layers, but its configuration describes {described}");
                Err(Error::InvalidImage { name: self.name.clone(), reason })
            }
        }
    }

    /// An archive of `docker save` without an index.
    fn saved(&self, platform: &Platform) -> Result<PlatformBase, Error> {
        let invalid = |reason: String| Error::InvalidImage { name: self.name.clone(), reason };
        let ImageSource::Files(files) = &self.source else {
            return Err(invalid("it has no image".to_owned()));
        };
        let text = files.read("manifest.json", MAX_MANIFEST_BYTES as u64)?;
        let text = text.ok_or_else(|| invalid("it has neither index.json nor manifest.json".to_owned()))?;
        let saved: Vec<SavedImage> = parsed(&self.name, &text)?;
        let [image] = <[SavedImage; 1]>::try_from(saved)
            .map_err(|all| invalid(format!("expected one image, found {}", all.len())))?;
        let config = files.read(&image.config, MAX_CONFIG_BYTES)?;
        let config = config.ok_or_else(|| invalid(format!("it lacks `{}`", image.config)))?;
        let config = parsed(&self.name, &config)?;
        self.check(&config, platform, image.layers.len())?;
        Ok(PlatformBase {
            config,
            layers: BaseLayers::Saved(files.clone(), image.layers),
            name: None,
            digest: None,
        })
    }
}

impl PlatformBase {
    /// The layers. Those of `docker save` are compressed into `directory`, and compared with the configuration.
    pub(crate) fn layers(&self, directory: &Path) -> Result<Vec<ImageContent>, Error> {
        let (files, names) = match &self.layers {
            BaseLayers::Blobs(layers) => return Ok(layers.clone()),
            BaseLayers::Saved(files, names) => (files, names),
        };
        let mut layers = Vec::new();
        for (name, diff_id) in names.iter().zip(&self.config.rootfs.diff_ids) {
            let part = files.find(name)?.ok_or_else(|| files.invalid(format!("it lacks `{name}`")))?;
            let layer = recompress_layer(directory, &part)?;
            if layer.diff_id != *diff_id {
                return Err(files.invalid(format!("`{name}` has another content than {diff_id}")));
            }
            layers.push(layer.content);
        }
        Ok(layers)
    }
}

/// The image of an OCI layout: the tagged one, else the only one.
fn selected(name: &str, index: &[u8], tag: Option<&str>) -> Result<Descriptor, Error> {
    let manifests = parsed::<ImageIndex>(name, index)?.manifests;
    let tag_of = |it: &Descriptor| it.annotations.get(REF_NAME).cloned();
    let tags = manifests.iter().filter_map(tag_of).collect::<Vec<_>>().join(", ");
    let reason = match (tag, manifests.as_slice()) {
        (Some(tag), _) => match manifests.iter().find(|it| tag_of(it).as_deref() == Some(tag)) {
            Some(found) => return Ok(found.clone()),
            None => format!("it has no tag `{tag}`; its tags are: {tags}"),
        },
        (None, []) => "it has no image".to_owned(),
        (None, [first, rest @ ..]) if rest.iter().all(|it| it.digest == first.digest) => {
            return Ok(first.clone());
        }
        (None, _) => format!("it has several images; select one with oci:DIRECTORY:TAG: {tags}"),
    };
    Err(Error::InvalidImage { name: name.to_owned(), reason })
}

/// The same layer in an OCI manifest.
fn with_oci_type(mut layer: Descriptor) -> Descriptor {
    let oci = match layer.media_type.strip_prefix("application/vnd.docker.image.rootfs.diff.tar") {
        Some("") => media_type::LAYER_TAR,
        Some(".gzip") => media_type::LAYER_GZIP,
        Some(".zstd") => media_type::LAYER_ZSTD,
        _ => return layer,
    };
    oci.clone_into(&mut layer.media_type);
    layer
}

pub(crate) fn parsed<T: DeserializeOwned>(name: &str, text: &[u8]) -> Result<T, Error> {
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
