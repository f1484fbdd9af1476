//! Archives for `docker load`, which are OCI layouts, too.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{BufWriter, Write as _},
    path::Path,
};

use serde_json::json;

use super::{
    assemble::{ImageSet, blocking, json as to_json},
    layer::header,
    layout::{LAYOUT_FILE, entries, persist, temporary, write_layout},
    source::blob_path,
};
use crate::{Descriptor, Error, ImageIndex, ImageReference};

/// Writes an image to a tar archive with a file `manifest.json` for `docker load`, and an OCI layout. Blobs of a base
/// that is elsewhere are collected in `directory` first. `on_blob` is called for each finished blob.
///
/// # Errors
/// There are images for several platforms, a file can't be read or written, or the base can't be read.
pub async fn write_archive(
    set: &ImageSet,
    archive: &Path,
    names: &[ImageReference],
    directory: &Path,
    on_blob: &(dyn Fn(&Descriptor) + Sync),
) -> Result<(), Error> {
    let [image] = set.images.as_slice() else {
        let (name, reason) =
            (archive.display().to_string(), "`docker load` takes the image of one platform".to_owned());
        return Err(Error::InvalidImage { name, reason });
    };
    let layout =
        tempfile::tempdir_in(directory).map_err(|error| Error::Io { path: directory.to_owned(), error })?;
    write_layout(set, layout.path(), names, on_blob).await?;
    let manifest = json!([{
        "Config": blob_path(&image.config.descriptor.digest),
        "RepoTags": names.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "Layers": image.layers.iter().map(|it| blob_path(&it.descriptor.digest)).collect::<Vec<_>>(),
    }]);
    let files = [
        ("index.json", to_json(&ImageIndex::new(entries(set, names)))?),
        ("manifest.json", to_json(&manifest)?),
        ("oci-layout", LAYOUT_FILE.to_vec()),
    ];
    let blobs: BTreeSet<String> = set
        .blobs()
        .into_iter()
        .map(|blob| &blob.descriptor)
        .chain([&image.descriptor])
        .map(|blob| blob_path(&blob.digest))
        .collect();
    let path = archive.to_owned();
    let write = move || {
        let failed = |error| Error::Io { path: path.clone(), error };
        path.parent().map_or(Ok(()), fs::create_dir_all).map_err(failed)?;
        let mut file = temporary(&path)?;
        let mut tar = tar::Builder::new(BufWriter::new(file.as_file_mut()));
        for blob in &blobs {
            let source = File::open(layout.path().join(blob)).map_err(failed)?;
            let size = source.metadata().map_err(failed)?.len();
            tar.append_data(&mut header(size, 0), blob, source).map_err(failed)?;
        }
        for (name, content) in &files {
            let header = &mut header(content.len() as u64, 0);
            tar.append_data(header, name, content.as_slice()).map_err(failed)?;
        }
        tar.into_inner().and_then(|mut out| out.flush()).map_err(failed)?;
        persist(file, &path)
    };
    blocking(archive, write).await
}
