//! Where an image is read from: a registry, an OCI layout, or a tar archive.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
};

use tar::EntryType;

use crate::{BlobContent, BlobDigest, Descriptor, Error, RegistryRepository};

/// An image that can be read.
#[derive(Debug)]
pub(crate) enum ImageSource {
    Registry(RegistryRepository),
    Files(FileSet),
}

/// The files of a directory, or of an uncompressed tar archive.
#[derive(Debug, Clone)]
pub(crate) struct FileSet {
    path: PathBuf,
    /// The position and the size of each file of an archive.
    archived: Option<BTreeMap<String, (u64, u64)>>,
}

/// A part of a file.
pub(crate) struct FilePart {
    pub(crate) path: PathBuf,
    pub(crate) offset: u64,
    pub(crate) size: u64,
}

/// A blob of an image, and where its content is.
#[derive(Debug, Clone)]
pub(crate) struct ImageContent {
    pub(crate) descriptor: Descriptor,
    pub(crate) origin: BlobOrigin,
}

#[derive(Debug, Clone)]
pub(crate) enum BlobOrigin {
    Registry(RegistryRepository),
    Content(BlobContent),
}

impl FilePart {
    pub(crate) fn open(&self) -> Result<io::Take<File>, Error> {
        let failed = |error| Error::Io { path: self.path.clone(), error };
        let mut file = File::open(&self.path).map_err(failed)?;
        file.seek(SeekFrom::Start(self.offset)).map_err(failed)?;
        Ok(file.take(self.size))
    }
}

impl FileSet {
    pub(crate) fn directory(path: &Path) -> Result<Self, Error> {
        fs::read_dir(path).map_err(|error| Error::Io { path: path.to_owned(), error })?;
        Ok(Self { path: path.to_owned(), archived: None })
    }

    pub(crate) fn archive(path: &Path) -> Result<Self, Error> {
        let failed = |error| Error::Io { path: path.to_owned(), error };
        let mut files = BTreeMap::new();
        // A link is a second name: `docker save` wrote layers so.
        let mut links = Vec::new();
        let file = File::open(path).map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len();
        let mut archive = tar::Archive::new(io::BufReader::new(file));
        let invalid = |error: io::Error| Error::InvalidImage {
            name: path.display().to_string(),
            reason: format!("it is not an uncompressed tar archive: {error}"),
        };
        for entry in archive.entries_with_seek().map_err(failed)? {
            let entry = entry.map_err(invalid)?;
            let Some(name) = entry.path().map_err(invalid)?.to_str().map(|name| resolved("", name)) else {
                continue;
            };
            let target = entry.link_name().map_err(invalid)?;
            let target = target.as_ref().and_then(|target| target.to_str());
            match (entry.header().entry_type(), target) {
                (EntryType::Regular | EntryType::Continuous, _) => {
                    let (offset, size) = (entry.raw_file_position(), entry.size());
                    if offset.checked_add(size).is_none_or(|end| end > length) {
                        return Err(invalid(io::ErrorKind::UnexpectedEof.into()));
                    }
                    files.insert(name, (offset, size));
                }
                (EntryType::Link, Some(target)) => links.push((name, resolved("", target))),
                (EntryType::Symlink, Some(target)) => {
                    let directory = name.rsplit_once('/').map_or("", |(directory, _)| directory);
                    let target = resolved(directory, target);
                    links.push((name, target));
                }
                _ => {}
            }
        }
        for (name, target) in links {
            if let Some(&place) = files.get(&target) {
                files.insert(name, place);
            }
        }
        Ok(Self { path: path.to_owned(), archived: Some(files) })
    }

    pub(crate) fn find(&self, name: &str) -> Result<Option<FilePart>, Error> {
        let Some(files) = &self.archived else {
            let path = self.path.join(resolved("", name));
            return match fs::metadata(&path) {
                Ok(data) if data.is_file() => Ok(Some(FilePart { path, offset: 0, size: data.len() })),
                Ok(_) => Ok(None),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(Error::Io { path, error }),
            };
        };
        let found = files.get(&resolved("", name));
        Ok(found.map(|&(offset, size)| FilePart { path: self.path.clone(), offset, size }))
    }

    /// The content of a file of at most `limit` bytes; `None`: it isn't there.
    pub(crate) fn read(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>, Error> {
        let Some(part) = self.find(name)? else { return Ok(None) };
        if part.size > limit {
            return Err(self.invalid(format!("`{name}` has more than {limit} bytes")));
        }
        let mut bytes = Vec::new();
        let read = part.open()?.read_to_end(&mut bytes);
        read.map_err(|error| Error::Io { path: part.path, error })?;
        Ok(Some(bytes))
    }

    pub(crate) fn invalid(&self, reason: String) -> Error {
        Error::InvalidImage { name: self.path.display().to_string(), reason }
    }
}

/// A path in an archive, relative to its root: `./blobs/x` is `blobs/x`.
fn resolved(directory: &str, path: &str) -> String {
    let mut parts: Vec<&str> = directory.split('/').filter(|part| !part.is_empty()).collect();
    for part in path.split('/') {
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

impl ImageSource {
    /// A name for messages.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Registry(repository) => repository.name(),
            Self::Files(files) => files.path.display().to_string(),
        }
    }

    /// The verified content of a manifest or a configuration of at most `limit` bytes.
    pub(crate) async fn read(&self, blob: &Descriptor, limit: u64) -> Result<Vec<u8>, Error> {
        let is_manifest = blob.media_type.contains("manifest") || blob.media_type.contains("index");
        let files = match self {
            Self::Registry(repository) if is_manifest => {
                return Ok(repository.pull_manifest(blob.digest.as_str()).await?.bytes);
            }
            Self::Registry(repository) => return repository.read_blob(blob, limit).await,
            Self::Files(files) => files,
        };
        let missing = || files.invalid(format!("it lacks the blob {}", blob.digest));
        let bytes = files.read(&blob_path(&blob.digest), limit)?.ok_or_else(missing)?;
        match BlobDigest::of(&bytes) == blob.digest {
            true => Ok(bytes),
            false => Err(files.invalid(format!("the blob {} has another content", blob.digest))),
        }
    }

    /// Where the content of a layer is.
    pub(crate) fn layer(&self, blob: &Descriptor) -> Result<BlobOrigin, Error> {
        let files = match self {
            Self::Registry(repository) => return Ok(BlobOrigin::Registry(repository.clone())),
            Self::Files(files) => files,
        };
        match files.find(&blob_path(&blob.digest))? {
            Some(FilePart { path, offset, size }) if size == blob.size => {
                Ok(BlobOrigin::Content(BlobContent::File { path, offset }))
            }
            _ => Err(files.invalid(format!("it lacks the layer {}", blob.digest))),
        }
    }
}
