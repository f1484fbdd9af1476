//! The directory that local clients read binaries from: `DIR/SHA256/rr`.
//!
//! Clients of Velox open the path in an answer as a file on their own disk. The files are copies, so that a
//! client that changes one does not change the artifact.

use std::{
    collections::{HashMap, HashSet},
    fs::{self, File},
    io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use super::{ObjectVersion, hash_file, is_sha256};

/// The prefix of directories that are being filled.
const TEMPORARY_PREFIX: &str = ".rr-";

/// The mode of directories and binaries.
const MODE: u32 = 0o755;

/// The directory for local clients.
#[derive(Debug)]
pub(crate) struct SharedDirectory {
    path: PathBuf,
    /// The files that this process has written or verified, by SHA-256.
    verified: Mutex<HashMap<String, ObjectVersion>>,
    /// Held while a file is written.
    pub(super) writing: tokio::sync::Mutex<()>,
}

impl SharedDirectory {
    /// Opens or creates the directory, and removes incomplete copies.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        if path.to_str().is_none() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the path is not valid UTF-8"));
        }
        fs::create_dir_all(path)?;
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(TEMPORARY_PREFIX) {
                fs::remove_dir_all(entry.path())?;
            }
        }
        // Checks that files can be written.
        temporary_directory(path)?.close()?;
        Ok(Self {
            path: std::path::absolute(path)?,
            verified: Mutex::default(),
            writing: tokio::sync::Mutex::default(),
        })
    }

    /// The path of the binary.
    pub(super) fn file(&self, sha256: &str, is_windows: bool) -> PathBuf {
        self.path.join(sha256).join(if is_windows { "rr.exe" } else { "rr" })
    }

    /// Whether the file exists and has this checksum. Its content is only read if the file has changed since
    /// the last call.
    pub(super) fn has(&self, sha256: &str, file: &Path) -> bool {
        let state = || ObjectVersion::of(&fs::symlink_metadata(file).ok()?);
        let Some(found) = state() else { return false };
        if self.known().get(sha256) == Some(&found) {
            return true;
        }
        let is_intact =
            File::open(file).and_then(hash_file).is_ok_and(|found| found == sha256) && is_executable(file);
        if is_intact && state().as_ref() == Some(&found) {
            self.known().insert(sha256.to_owned(), found);
            return true;
        }
        false
    }

    /// Creates a directory to write the binary to.
    pub(super) fn prepare(&self) -> io::Result<tempfile::TempDir> {
        temporary_directory(&self.path)
    }

    /// Puts a prepared directory with the binary in its place. The binary must be complete.
    pub(super) fn publish(&self, sha256: &str, prepared: tempfile::TempDir, file: &Path) -> io::Result<()> {
        let place = self.path.join(sha256);
        let written = prepared.path().join(file.file_name().unwrap_or_default());
        for path in [&written, prepared.path()] {
            fs::set_permissions(path, fs::Permissions::from_mode(MODE))?;
        }
        remove(&place)?;
        fs::rename(prepared.path(), &place)?;
        // Nothing is left to be removed.
        let _ = prepared.keep();
        if let Some(state) = ObjectVersion::of(&fs::symlink_metadata(file)?) {
            self.known().insert(sha256.to_owned(), state);
        }
        Ok(())
    }

    /// The checksums of the binaries in the directory.
    pub(super) fn list(&self) -> io::Result<HashSet<String>> {
        let names =
            fs::read_dir(&self.path)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        let names = names.collect::<io::Result<HashSet<String>>>()?;
        Ok(names.into_iter().filter(|name| is_sha256(name)).collect())
    }

    /// Removes a binary, if it exists.
    pub(super) fn remove(&self, sha256: &str) -> io::Result<()> {
        self.known().remove(sha256);
        remove(&self.path.join(sha256))
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashMap<String, ObjectVersion>> {
        self.verified.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn temporary_directory(path: &Path) -> io::Result<tempfile::TempDir> {
    tempfile::Builder::new().prefix(TEMPORARY_PREFIX).tempdir_in(path)
}

/// Removes a directory with its content, or whatever is in its place.
fn remove(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

fn is_executable(file: &Path) -> bool {
    fs::metadata(file).is_ok_and(|metadata| metadata.permissions().mode() & MODE == MODE)
}
