//! Where an image is read from: a registry, an OCI layout, or a tar archive of one.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{BlobContent, BlobDigest, Descriptor, Error, RegistryRepository};

/// An image that can be read.
#[derive(Debug, Clone)]
pub(crate) enum ImageSource {
    Registry(RegistryRepository),
    /// A directory: <https://github.com/opencontainers/image-spec/blob/main/image-layout.md>.
    Layout(PathBuf),
    Archive(Arc<TarIndex>),
}

/// The files of an uncompressed tar archive.
#[derive(Debug)]
pub(crate) struct TarIndex {
    pub(crate) path: PathBuf,
    /// The position and the size of each file.
    files: BTreeMap<String, (u64, u64)>,
}

/// Where the content of a blob is.
#[derive(Debug, Clone)]
pub(crate) enum BlobOrigin {
    Registry(RegistryRepository),
    Content(BlobContent),
    /// A part of a file.
    Part {
        path: PathBuf,
        offset: u64,
    },
}

/// A blob of an image, and where its content is.
#[derive(Debug, Clone)]
pub struct ImageContent {
    /// The blob.
    pub descriptor: Descriptor,
    pub(crate) origin: BlobOrigin,
}

impl TarIndex {
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let failed = |error| Error::Io { path: path.to_owned(), error };
        let mut files = BTreeMap::new();
        // A symbolic link is a second name: `docker save` wrote layers so.
        let mut links = Vec::new();
        let mut archive = tar::Archive::new(io::BufReader::new(File::open(path).map_err(failed)?));
        for entry in archive.entries_with_seek().map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let Some(name) = entry.path().map_err(failed)?.to_str().map(normalized) else { continue };
            if entry.header().entry_type().is_file() {
                files.insert(name, (entry.raw_file_position(), entry.size()));
            } else if let Some(target) = entry.link_name().map_err(failed)?
                && let Some(target) = target.to_str()
            {
                let directory = name.rsplit_once('/').map_or("", |(directory, _)| directory);
                links.push((name.clone(), resolved(directory, target)));
            }
        }
        for (name, target) in links {
            if let Some(&place) = files.get(&target) {
                files.insert(name, place);
            }
        }
        Ok(Self { path: path.to_owned(), files })
    }

    pub(crate) fn find(&self, name: &str) -> Option<(u64, u64)> {
        self.files.get(&normalized(name)).copied()
    }

    /// The content of a file of at most `limit` bytes; `None`: it isn't there.
    pub(crate) fn read(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>, Error> {
        let Some((offset, size)) = self.find(name) else { return Ok(None) };
        if size > limit {
            let reason = format!("`{name}` has more than {limit} bytes");
            return Err(Error::InvalidImage { name: self.path.display().to_string(), reason });
        }
        read_part(&self.path, offset, size).map(Some)
    }
}

/// `./blobs/x` is `blobs/x`.
fn normalized(name: &str) -> String {
    name.split('/').filter(|part| !matches!(*part, "" | ".")).collect::<Vec<_>>().join("/")
}

fn resolved(directory: &str, target: &str) -> String {
    let mut parts: Vec<&str> = directory.split('/').filter(|part| !part.is_empty()).collect();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

pub(crate) fn blob_path(digest: &BlobDigest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

fn read_part(path: &Path, offset: u64, size: u64) -> Result<Vec<u8>, Error> {
    let failed = |error| Error::Io { path: path.to_owned(), error };
    let mut file = File::open(path).map_err(failed)?;
    file.seek(SeekFrom::Start(offset)).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(size).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

impl ImageSource {
    /// A name for messages.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Registry(repository) => repository.name(),
            Self::Layout(path) => path.display().to_string(),
            Self::Archive(index) => index.path.display().to_string(),
        }
    }

    /// The verified content of a manifest or a configuration.
    pub(crate) async fn read(&self, blob: &Descriptor, limit: u64) -> Result<Vec<u8>, Error> {
        let is_manifest = blob.media_type.contains("manifest") || blob.media_type.contains("index");
        let invalid = |reason: String| Error::InvalidImage { name: self.name(), reason };
        let missing = || invalid(format!("it lacks the blob {}", blob.digest));
        if blob.size > limit {
            return Err(invalid(format!("the blob {} has more than {limit} bytes", blob.digest)));
        }
        let bytes = match self {
            Self::Registry(repository) if is_manifest => {
                return Ok(repository.pull_manifest(blob.digest.as_str()).await?.bytes);
            }
            Self::Registry(repository) => return repository.read_blob(blob, limit).await,
            Self::Layout(directory) => match fs::read(directory.join(blob_path(&blob.digest))) {
                Ok(bytes) => bytes,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(missing()),
                Err(error) => return Err(Error::Io { path: directory.join(blob_path(&blob.digest)), error }),
            },
            Self::Archive(index) => index.read(&blob_path(&blob.digest), limit)?.ok_or_else(missing)?,
        };
        match BlobDigest::of(&bytes) == blob.digest {
            true => Ok(bytes),
            false => Err(invalid(format!("the blob {} has another content", blob.digest))),
        }
    }

    /// Where the content of a layer is.
    pub(crate) fn layer(&self, blob: &Descriptor) -> Result<BlobOrigin, Error> {
        let missing = || Error::InvalidImage {
            name: self.name(),
            reason: format!("it lacks the layer {}", blob.digest),
        };
        match self {
            Self::Registry(repository) => Ok(BlobOrigin::Registry(repository.clone())),
            Self::Layout(directory) => {
                let path = directory.join(blob_path(&blob.digest));
                match path.is_file() {
                    true => Ok(BlobOrigin::Content(BlobContent::File(path))),
                    false => Err(missing()),
                }
            }
            Self::Archive(index) => {
                let (offset, _) = index.find(&blob_path(&blob.digest)).ok_or_else(missing)?;
                Ok(BlobOrigin::Part { path: index.path.clone(), offset })
            }
        }
    }
}
