//! OCI layouts: <https://github.com/opencontainers/image-spec/blob/main/image-layout.md>.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    path::Path,
};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::Value;
use tempfile::NamedTempFile;

use super::{
    assemble::{ImageSet, blocking, json},
    base::{REF_NAME, parsed},
    layer::HashingWriter,
    source::{BlobOrigin, FilePart, FileSet, ImageContent, blob_path},
};
use crate::{BlobContent, Descriptor, Error, ImageIndex, ImageReference, pull::MAX_MANIFEST_BYTES};

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
    drop(lock(directory).map_err(failed)?);
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
    for (descriptor, manifest) in &set.manifests {
        write_file(&directory.join(blob_path(&descriptor.digest)), manifest)?;
    }
    let _lock = lock(directory).map_err(failed)?;
    let name = directory.display().to_string();
    let mut index = match FileSet::directory(directory)?.read("index.json", MAX_MANIFEST_BYTES as u64)? {
        Some(text) => parsed::<Value>(&name, &text)?,
        None => serde_json::json!(ImageIndex::new(Vec::new())),
    };
    let Some(manifests) = index.get_mut("manifests").and_then(Value::as_array_mut) else {
        return Err(Error::InvalidImage { name, reason: "its index.json has no manifests".to_owned() });
    };
    for entry in entries(set, names) {
        let tag = |entry: &Value| entry.get("annotations").and_then(|it| it.get(REF_NAME)).cloned();
        let entry = serde_json::json!(entry);
        manifests.retain(|known| match tag(&entry) {
            None => tag(known).is_some() || known.get("digest") != entry.get("digest"),
            replaced => tag(known) != replaced,
        });
        manifests.push(entry);
    }
    write_file(&directory.join("index.json"), &json(&index)?)
}

/// Other builds wait until the file is closed; the first writes its content.
fn lock(layout: &Path) -> io::Result<File> {
    let path = layout.join("oci-layout");
    let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
    file.lock()?;
    if file.metadata()?.len() == 0 {
        file.write_all(LAYOUT_FILE)?;
    }
    Ok(file)
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
    if names.is_empty() {
        return vec![set.descriptor.clone()];
    }
    let tagged = names.iter().map(|name| {
        let tag = name.tag().unwrap_or("latest");
        let mut entry = set.descriptor.clone();
        let full = format!("{}/{}:{tag}", name.registry(), name.repository());
        entry.annotations.extend([(REF_NAME.to_owned(), tag.to_owned()), (FULL_NAME.to_owned(), full)]);
        entry
    });
    tagged.collect()
}

impl ImageContent {
    /// Writes the verified content to a file, which appears when it is complete.
    pub(crate) async fn write(&self, path: &Path) -> Result<(), Error> {
        let failed = |error| Error::Io { path: path.to_owned(), error };
        let new = temporary(path)?;
        let mut out = new.reopen().map_err(failed)?;
        match &self.origin {
            BlobOrigin::Registry(repository) => {
                repository.pull_blob(&self.descriptor, &mut tokio::fs::File::from_std(out)).await?;
            }
            BlobOrigin::Content(BlobContent::Bytes(bytes)) => out.write_all(bytes).map_err(failed)?,
            BlobOrigin::Content(BlobContent::File { path: source, offset }) => {
                let Descriptor { digest, size, .. } = self.descriptor.clone();
                let part = FilePart { path: source.clone(), offset: *offset, size };
                let copy = move || {
                    let mut out = HashingWriter::new(out);
                    let copied = io::copy(&mut part.open()?, &mut out);
                    copied.map_err(|error| Error::Io { path: part.path.clone(), error })?;
                    let (_, actual, _) = out.finish();
                    let (name, reason) =
                        (part.path.display().to_string(), format!("the blob {digest} has another content"));
                    if actual == digest { Ok(()) } else { Err(Error::InvalidImage { name, reason }) }
                };
                blocking(path, copy).await?;
            }
        }
        persist(new, path)
    }
}

/// Replaces a file by one with this content.
fn write_file(path: &Path, content: &[u8]) -> Result<(), Error> {
    let mut file = temporary(path)?;
    file.write_all(content).map_err(|error| Error::Io { path: path.to_owned(), error })?;
    persist(file, path)
}

/// A file that becomes `path` when it is complete.
pub(crate) fn temporary(path: &Path) -> Result<NamedTempFile, Error> {
    let directory = path.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
    NamedTempFile::new_in(directory).map_err(|error| Error::Io { path: path.to_owned(), error })
}

/// Gives a complete file its name, readable for everyone.
pub(crate) fn persist(file: NamedTempFile, path: &Path) -> Result<(), Error> {
    let failed = |error| Error::Io { path: path.to_owned(), error };
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        file.as_file().set_permissions(fs::Permissions::from_mode(0o644)).map_err(failed)?;
    }
    file.as_file().sync_all().map_err(failed)?;
    file.persist(path).map(drop).map_err(|error| failed(error.error))
}
