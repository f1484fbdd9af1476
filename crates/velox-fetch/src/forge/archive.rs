//! Downloading and unpacking source archives, with size limits.

use std::{
    fs,
    io::{self, Read},
    path::{Component, Path, PathBuf},
};

use flate2::read::GzDecoder;
use url::Url;

use super::{
    ForgeClient, ForgeError,
    client::{ForgeCredentials, host},
};

/// Go's size limit for a module's files (<https://go.dev/ref/mod#zip-path-size-constraints>).
const MAX_TREE_BYTES: u64 = 500 << 20;
const MAX_ENTRIES: u64 = 100_000;

/// Downloads a `.tar.gz` and unpacks it into `into`, without its top-level directory.
pub(crate) async fn fetch(
    http: &ForgeClient,
    url: &Url,
    credentials: &ForgeCredentials,
    what: &str,
    into: &Path,
) -> Result<(), ForgeError> {
    let failed = |error| ForgeError::Io { what: format!("failed to write `{}`", into.display()), error };
    let packed = tempfile::NamedTempFile::new().map_err(failed)?;
    http.download(url, credentials, what, MAX_TREE_BYTES, packed.path()).await?;
    let (host, into) = (host(url), into.to_owned());
    let unpacked = tokio::task::spawn_blocking(move || {
        let file = fs::File::open(packed.path()).map_err(ArchiveError::Io)?;
        unpack(GzDecoder::new(io::BufReader::new(file)), &into, 1)
    });
    match unpacked.await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(refused)) => Err(refused.at(host)),
        Err(error) => {
            Err(ForgeError::Io { what: "unpacking was cancelled".to_owned(), error: io::Error::other(error) })
        }
    }
}

#[derive(Debug)]
pub(crate) enum ArchiveError {
    Hostile(String),
    Io(io::Error),
}

impl ArchiveError {
    pub(crate) fn at(self, host: String) -> ForgeError {
        match self {
            Self::Hostile(why) => ForgeError::InvalidArchive { host, why },
            Self::Io(error) => ForgeError::Io { what: "failed to unpack the archive".to_owned(), error },
        }
    }
}

/// Unpacks a tar into a new directory, without the first `strip` path components; removes it after an error.
pub(crate) fn unpack(tar: impl Read, into: &Path, strip: usize) -> Result<(), ArchiveError> {
    fs::create_dir_all(into).map_err(ArchiveError::Io)?;
    let done = unpack_entries(tar, into, strip);
    if done.is_err() {
        let _ = fs::remove_dir_all(into);
    }
    done
}

fn unpack_entries(tar: impl Read, into: &Path, strip: usize) -> Result<(), ArchiveError> {
    let hostile = |why: &str, path: &Path| ArchiveError::Hostile(format!("{}: {why}", path.display()));
    let mut archive = tar::Archive::new(tar);
    let mut left = MAX_TREE_BYTES;
    for (count, entry) in (0..).zip(archive.entries().map_err(ArchiveError::Io)?) {
        let mut entry = entry.map_err(ArchiveError::Io)?;
        let path = entry.path().map_err(ArchiveError::Io)?.into_owned();
        if count >= MAX_ENTRIES {
            return Err(hostile("more than 100000 entries", &path));
        }
        if !entry.header().entry_type().is_file() && !entry.header().entry_type().is_dir() {
            // Links, devices, and pax headers such as the commit id.
            continue;
        }
        let mut relative = PathBuf::new();
        for part in path.components().filter(|part| *part != Component::CurDir).skip(strip) {
            match part {
                Component::Normal(name) => relative.push(name),
                _ => return Err(hostile("path leads out of the archive", &path)),
            }
        }
        if path.components().any(|part| !matches!(part, Component::Normal(_) | Component::CurDir)) {
            return Err(hostile("path leads out of the archive", &path));
        }
        if relative.as_os_str().is_empty() {
            continue;
        }
        let target = into.join(&relative);
        if entry.header().entry_type().is_dir() {
            fs::create_dir_all(&target).map_err(ArchiveError::Io)?;
            continue;
        }
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent).map_err(ArchiveError::Io)?;
        }
        let mut file = fs::File::create(&target).map_err(ArchiveError::Io)?;
        let written =
            io::copy(&mut (&mut entry).take(left.saturating_add(1)), &mut file).map_err(ArchiveError::Io)?;
        left = left.checked_sub(written).ok_or_else(|| hostile("larger than 500 MiB", &path))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tar(entries: &[(&str, tar::EntryType)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, kind) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(*kind);
            header.set_size(2);
            header.set_mode(0o644);
            // The builder rejects hostile paths.
            header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
            header.set_cksum();
            builder.append(&header, &b"hi"[..]).unwrap();
        }
        builder.into_inner().unwrap()
    }

    #[test]
    fn the_top_folder_goes_and_links_are_left_out() {
        let place = tempfile::tempdir().unwrap();
        let into = place.path().join("tree");
        let bytes = tar(&[("top/a/b.go", tar::EntryType::Regular), ("top/link", tar::EntryType::Symlink)]);
        unpack(bytes.as_slice(), &into, 1).unwrap();
        assert_eq!(fs::read(into.join("a/b.go")).unwrap(), b"hi");
        assert_eq!(fs::read_dir(&into).unwrap().count(), 1);
    }

    #[test]
    fn a_path_that_leaves_is_refused_and_nothing_stays() {
        for path in ["top/../../evil", "/etc/evil", "../evil"] {
            let place = tempfile::tempdir().unwrap();
            let into = place.path().join("tree");
            let refused = unpack(tar(&[(path, tar::EntryType::Regular)]).as_slice(), &into, 1);
            assert!(matches!(refused, Err(ArchiveError::Hostile(_))), "{path}");
            assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
        }
    }
}
