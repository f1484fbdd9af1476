//! Archives for `docker load`, which are OCI layouts, too.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::Path,
};

use serde_json::json;
use tar::{EntryType, Header};

use super::{
    assemble::{AssembledImage, ImageSet, json as to_json},
    layout::{LAYOUT_FILE, entries, persist},
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
        return Err(Error::InvalidImage {
            name: archive.display().to_string(),
            reason: "`docker load` takes the image of one platform".to_owned(),
        });
    };
    let layout =
        tempfile::tempdir_in(directory).map_err(|error| Error::Io { path: directory.to_owned(), error })?;
    super::layout::write_layout(set, layout.path(), names, on_blob).await?;
    let (image, names, archive) = (image.clone(), names.to_vec(), archive.to_owned());
    let index = ImageIndex::new(entries(set, &names));
    let shown = archive.clone();
    let work = tokio::task::spawn_blocking(move || write(&image, &index, &names, layout.path(), &archive));
    work.await.map_err(|error| Error::Io { path: shown, error: error.into() })?
}

fn write(
    image: &AssembledImage,
    index: &ImageIndex,
    names: &[ImageReference],
    layout: &Path,
    archive: &Path,
) -> Result<(), Error> {
    let failed = |error| Error::Io { path: archive.to_owned(), error };
    let directory = archive.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(directory).map_err(failed)?;
    let mut file = tempfile::NamedTempFile::new_in(directory).map_err(failed)?;
    let mut tar = tar::Builder::new(io::BufWriter::new(file.as_file_mut()));
    let mut digests: Vec<_> =
        image.layers.iter().chain([&image.config]).map(|it| &it.descriptor.digest).collect();
    digests.push(&image.descriptor.digest);
    digests.sort();
    digests.dedup();
    for digest in digests {
        let path = blob_path(digest);
        let source = File::open(layout.join(&path)).map_err(failed)?;
        let size = source.metadata().map_err(failed)?.len();
        tar.append_data(&mut header(size), &path, source).map_err(failed)?;
    }
    // docker's full names: without them, it loads the image without a name.
    let tags: Vec<String> = names
        .iter()
        .map(|name| {
            let registry =
                if name.registry() == "docker.io" { String::new() } else { format!("{}/", name.registry()) };
            let repository = name.repository();
            let repository = match registry.as_str() {
                "" => repository.strip_prefix("library/").unwrap_or(repository),
                _ => repository,
            };
            format!("{registry}{repository}:{}", name.tag().unwrap_or("latest"))
        })
        .collect();
    let manifest = json!([{
        "Config": blob_path(&image.config.descriptor.digest),
        "RepoTags": tags,
        "Layers": image.layers.iter().map(|it| blob_path(&it.descriptor.digest)).collect::<Vec<_>>(),
    }]);
    for (name, content) in [
        ("index.json", to_json(index)?),
        ("manifest.json", to_json(&manifest)?),
        ("oci-layout", LAYOUT_FILE.to_vec()),
    ] {
        tar.append_data(&mut header(content.len() as u64), name, content.as_slice()).map_err(failed)?;
    }
    let mut out = tar.into_inner().map_err(failed)?;
    out.flush().map_err(failed)?;
    drop(out);
    persist(file, archive)
}

fn header(size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::Regular);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    header
}
