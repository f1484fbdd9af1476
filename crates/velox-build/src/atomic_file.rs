//! Atomic file writes: a temporary file in the same directory is written, synced and renamed.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use tempfile::NamedTempFile;

const SUFFIX: &str = ".tmp";

/// The permissions of an [`AtomicFile`], before the umask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileMode {
    Data,
    Executable,
}

/// A temporary file that replaces another one when it is complete.
///
/// It is locked until it is renamed. The next writer removes unlocked ones, left by killed processes.
pub struct AtomicFile {
    file: NamedTempFile,
    path: PathBuf,
}

impl AtomicFile {
    /// Creates the file in the directory of `path`, with a temporary name that begins with `prefix`.
    pub(crate) fn create(path: &Path, prefix: &str, mode: FileMode) -> io::Result<Self> {
        let directory = directory_of(path);
        fs::create_dir_all(directory)?;
        remove_stale(directory, prefix);
        Ok(Self { file: locked(directory, prefix, mode)?, path: path.to_owned() })
    }

    /// The open file.
    pub fn file(&mut self) -> &mut File {
        self.file.as_file_mut()
    }

    /// Syncs the file and renames it to its final path.
    ///
    /// # Errors
    /// A failed write or rename.
    pub fn persist(self) -> io::Result<PathBuf> {
        self.file.as_file().sync_all()?;
        self.file.persist(&self.path).map_err(|error| error.error)?;
        #[cfg(unix)]
        let _ = File::open(directory_of(&self.path)).and_then(|directory| directory.sync_all());
        Ok(self.path)
    }
}

/// Replaces a text file, keeping its permissions and symbolic links to it.
///
/// # Errors
/// The file or its directory can't be written.
pub fn write_text(path: &Path, text: &str) -> io::Result<()> {
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let mut new = AtomicFile::create(&path, ".velox.", FileMode::Data)?;
    new.file().write_all(text.as_bytes())?;
    if let Ok(existing) = fs::metadata(&path) {
        new.file().set_permissions(existing.permissions())?;
    }
    new.persist().map(drop)
}

/// Whether files can be created in this directory.
pub(crate) fn probe(directory: &Path, prefix: &str) -> io::Result<()> {
    locked(directory, prefix, FileMode::Data).map(drop)
}

pub(crate) fn directory_of(file: &Path) -> &Path {
    file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn locked(directory: &Path, prefix: &str, mode: FileMode) -> io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(prefix).suffix(SUFFIX);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        builder.permissions(fs::Permissions::from_mode(match mode {
            FileMode::Data => 0o666,
            FileMode::Executable => 0o777,
        }));
    }
    #[cfg(not(unix))]
    let _ = mode;
    loop {
        let file = builder.tempfile_in(directory)?;
        file.as_file().lock()?;
        // Another writer may have removed it as stale before it was locked.
        if file.path().exists() {
            return Ok(file);
        }
    }
}

/// Removes the files of killed processes. A locked file belongs to a running one.
fn remove_stale(directory: &Path, prefix: &str) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with(prefix) && name.ends_with(SUFFIX) {
            let Ok(file) = OpenOptions::new().write(true).open(entry.path()) else { continue };
            if file.try_lock().is_ok() {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stale_files_are_removed_and_locked_ones_are_kept() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let live = File::create(path(".rr.live.tmp")).unwrap();
        live.lock().unwrap();
        fs::write(path(".rr.dead.tmp"), "half").unwrap();
        AtomicFile::create(&path("rr"), ".rr.", FileMode::Data).unwrap().persist().unwrap();
        assert!(path(".rr.live.tmp").exists() && path("rr").exists() && !path(".rr.dead.tmp").exists());
    }
}
