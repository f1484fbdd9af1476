//! OCI layouts: <https://github.com/opencontainers/image-spec/blob/main/image-layout.md>.

use std::{
    fs,
    io::{self, Write as _},
    path::Path,
};

use futures::{StreamExt as _, TryStreamExt as _, stream};

use super::{
    assemble::{ImageSet, json},
    base::{REF_NAME, parsed},
    source::{BlobOrigin, ImageContent, blob_path},
};
use crate::{BlobContent, BlobDigest, Descriptor, Error, ImageIndex, ImageReference};

pub(crate) const LAYOUT_FILE: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;
/// The full name of an image, for containerd.
const FULL_NAME: &str = "io.containerd.image.name";
const MAX_CONCURRENT_BLOBS: usize = 4;

/// Adds the images to an OCI layout, which is created if it is missing. Its other images stay; a tag that is there
/// already gets the new image. `on_blob` is called for each finished blob.
///
/// # Errors
/// The directory is something else, a file can't be written, or the base can't be read.
pub async fn write_layout(
    set: &ImageSet,
    directory: &Path,
    names: &[ImageReference],
    on_blob: &(dyn Fn(&Descriptor) + Sync),
) -> Result<(), Error> {
    check_layout(directory)?;
    let failed = |error| Error::Io { path: directory.to_owned(), error };
    fs::create_dir_all(directory.join("blobs/sha256")).map_err(failed)?;
    // First: what a failure leaves is an OCI layout without an index, which the next attempt continues.
    write_file(&directory.join("oci-layout"), LAYOUT_FILE)?;
    stream::iter(set.blobs())
        .map(async |blob| {
            let path = directory.join(blob_path(&blob.descriptor.digest));
            // A blob with this name and size was verified when it was written.
            if !fs::metadata(&path).is_ok_and(|data| data.is_file() && data.len() == blob.descriptor.size) {
                blob.write(&path).await?;
            }
            on_blob(&blob.descriptor);
            Ok::<_, Error>(())
        })
        .buffer_unordered(MAX_CONCURRENT_BLOBS)
        .try_collect::<()>()
        .await?;
    for image in &set.images {
        write_file(&directory.join(blob_path(&image.descriptor.digest)), &image.manifest)?;
    }
    if let Some(index) = &set.index {
        write_file(&directory.join(blob_path(&set.descriptor.digest)), index)?;
    }
    let path = directory.join("index.json");
    let mut index = match fs::read(&path) {
        Ok(text) => parsed(&directory.display().to_string(), &text)?,
        Err(_) => ImageIndex::new(Vec::new()),
    };
    for entry in entries(set, names) {
        index.manifests.retain(|known| known.annotations.get(REF_NAME) != entry.annotations.get(REF_NAME));
        index.manifests.push(entry);
    }
    write_file(&path, &json(&index)?)
}

/// Fails if [`write_layout`] can't use the directory: it has files, but is no OCI layout.
///
/// # Errors
/// [`Error::Io`] of the kind `AlreadyExists`, or the directory is unreadable.
pub fn check_layout(directory: &Path) -> Result<(), Error> {
    let failed = |error| Error::Io { path: directory.to_owned(), error };
    let is_empty = match fs::read_dir(directory) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => true,
        Err(error) => return Err(failed(error)),
    };
    if is_empty || directory.join("oci-layout").is_file() {
        return Ok(());
    }
    let reason = "the directory is not empty, and is not an OCI layout";
    Err(failed(io::Error::new(io::ErrorKind::AlreadyExists, reason)))
}

/// The entries of `index.json`: one for each tag.
pub(crate) fn entries(set: &ImageSet, names: &[ImageReference]) -> Vec<Descriptor> {
    let tagged = names.iter().map(|name| {
        let tag = name.tag().unwrap_or("latest");
        let mut entry = set.descriptor.clone();
        entry.annotations.insert(REF_NAME.to_owned(), tag.to_owned());
        entry
            .annotations
            .insert(FULL_NAME.to_owned(), format!("{}/{}:{tag}", name.registry(), name.repository()));
        entry
    });
    let all: Vec<Descriptor> = tagged.collect();
    if all.is_empty() { vec![set.descriptor.clone()] } else { all }
}

impl ImageContent {
    /// Writes the verified content to a file, which appears when it is complete.
    pub(crate) async fn write(&self, path: &Path) -> Result<(), Error> {
        let (offset, source) = match &self.origin {
            BlobOrigin::Registry(repository) => {
                return repository.download_blob(&self.descriptor, path).await;
            }
            BlobOrigin::Content(BlobContent::Bytes(bytes)) => return write_file(path, bytes),
            BlobOrigin::Content(BlobContent::File(source)) => (0, source.clone()),
            BlobOrigin::Part { path, offset } => (*offset, path.clone()),
        };
        let (path, descriptor) = (path.to_owned(), self.descriptor.clone());
        let failed = {
            let path = path.clone();
            move |error| Error::Io { path: path.clone(), error }
        };
        let copy = move || {
            use std::io::{Read as _, Seek as _, SeekFrom};
            let unreadable = |error| Error::Io { path: source.clone(), error };
            let mut file = fs::File::open(&source).map_err(unreadable)?;
            file.seek(SeekFrom::Start(offset)).map_err(unreadable)?;
            let directory = path.parent().unwrap_or(Path::new("."));
            let mut temporary = tempfile::NamedTempFile::new_in(directory).map_err(&failed)?;
            let mut out = super::layer::HashingWriter::new(temporary.as_file_mut());
            io::copy(&mut file.take(descriptor.size), &mut out).map_err(&failed)?;
            let (_, digest, _) = out.finish();
            verified(&source, &descriptor.digest, &digest)?;
            persist(temporary, &path)
        };
        let path = self.descriptor.digest.to_string();
        let work = tokio::task::spawn_blocking(copy);
        work.await.map_err(|error| Error::Io { path: path.into(), error: error.into() })?
    }
}

pub(crate) fn verified(source: &Path, expected: &BlobDigest, actual: &BlobDigest) -> Result<(), Error> {
    match expected == actual {
        true => Ok(()),
        false => Err(Error::InvalidImage {
            name: source.display().to_string(),
            reason: format!("the blob {expected} has another content"),
        }),
    }
}

/// Replaces a file by one with this content.
pub(crate) fn write_file(path: &Path, content: &[u8]) -> Result<(), Error> {
    let failed = |error| Error::Io { path: path.to_owned(), error };
    let directory = path.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(directory).map_err(failed)?;
    file.write_all(content).map_err(failed)?;
    persist(file, path)
}

/// Gives a complete file its name, readable for everyone.
pub(crate) fn persist(file: tempfile::NamedTempFile, path: &Path) -> Result<(), Error> {
    let failed = |error| Error::Io { path: path.to_owned(), error };
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        file.as_file().set_permissions(fs::Permissions::from_mode(0o644)).map_err(failed)?;
    }
    file.as_file().sync_all().map_err(failed)?;
    file.persist(path).map(drop).map_err(|error| failed(error.error))
}
