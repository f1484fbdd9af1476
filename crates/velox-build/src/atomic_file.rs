//! Atomic file writes: a temporary file in the same directory is written and renamed.
//!
//! The path is the user's. A symbolic link is followed, and a pipe or a device is written to: a rename would
//! replace it. Sockets, block devices and directories are errors.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Seek as _, Write as _},
    path::{Path, PathBuf},
};

use tempfile::NamedTempFile;

const SUFFIX: &str = ".tmp";
/// As in Linux.
const MAX_LINKS: usize = 40;

/// The permissions of an [`AtomicFile`], before the umask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileMode {
    Data,
    Executable,
}

/// What an output path names.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum OutputKind {
    /// A regular file, or nothing yet. This is its path after all symbolic links.
    File(PathBuf),
    /// A pipe or a character device, such as `/dev/null`.
    Stream,
}

/// A temporary file that replaces another one when it is complete.
///
/// It is locked until it is renamed. The next writer removes unlocked ones, left by killed processes.
pub struct AtomicFile {
    content: Content,
    path: PathBuf,
}

enum Content {
    /// Renamed to the path.
    File(NamedTempFile, PathBuf),
    /// Copied to the path.
    Stream(File),
}

impl OutputKind {
    /// # Errors
    /// A file that can't be written to, or an unknown one.
    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        match fs::metadata(path) {
            Ok(data) if data.is_file() => follow(path).map(Self::File),
            Ok(data) if data.is_dir() => {
                Err(io::Error::new(io::ErrorKind::IsADirectory, "it is a directory"))
            }
            Ok(data) => match special_file(data.file_type()) {
                None => Ok(Self::Stream),
                Some(kind) => Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    format!("it is {kind}, not a regular file"),
                )),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => follow(path).map(Self::File),
            Err(error) => Err(error),
        }
    }
}

/// A file that can't be written like a file; `None`: a pipe or a character device.
#[cfg(unix)]
fn special_file(kind: fs::FileType) -> Option<&'static str> {
    use std::os::unix::fs::FileTypeExt as _;
    match kind {
        kind if kind.is_fifo() || kind.is_char_device() => None,
        kind if kind.is_socket() => Some("a socket"),
        kind if kind.is_block_device() => Some("a block device"),
        _ => Some("a special file"),
    }
}

#[cfg(not(unix))]
fn special_file(_: fs::FileType) -> Option<&'static str> {
    None
}

/// The file at the end of all symbolic links, which need not exist.
fn follow(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..MAX_LINKS {
        match fs::read_link(&path) {
            Ok(target) => path = directory_of(&path).join(target),
            Err(_) => return Ok(path),
        }
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, "too many levels of symbolic links"))
}

impl AtomicFile {
    /// Creates the file in the directory of `path`, with a temporary name that begins with `prefix`.
    pub(crate) fn create(path: &Path, prefix: &str, mode: FileMode) -> io::Result<Self> {
        let content = match OutputKind::of(path)? {
            OutputKind::File(file) => {
                let directory = directory_of(&file);
                fs::create_dir_all(directory)?;
                remove_stale(directory, prefix);
                Content::File(locked(directory, prefix, mode)?, file)
            }
            OutputKind::Stream => Content::Stream(tempfile::tempfile()?),
        };
        Ok(Self { content, path: path.to_owned() })
    }

    /// The open file.
    pub fn file(&mut self) -> &mut File {
        match &mut self.content {
            Content::File(file, _) => file.as_file_mut(),
            Content::Stream(file) => file,
        }
    }

    /// Syncs the file and renames it to its final path.
    ///
    /// # Errors
    /// A failed write or rename.
    pub fn persist(self) -> io::Result<PathBuf> {
        if let Content::File(file, _) = &self.content {
            file.as_file().sync_all()?;
        }
        #[cfg(unix)]
        let directory = match &self.content {
            Content::File(_, path) => File::open(directory_of(path)).ok(),
            Content::Stream(_) => None,
        };
        let path = self.rename()?;
        #[cfg(unix)]
        let _ = directory.map(|directory| directory.sync_all());
        Ok(path)
    }

    /// Renames the file to its final path without waiting for the disk: for what can be built again. After a power failure,
    /// the file may be empty.
    ///
    /// # Errors
    /// A failed write or rename.
    pub fn rename(self) -> io::Result<PathBuf> {
        match self.content {
            Content::File(file, path) => {
                file.persist(&path).map_err(|error| error.error)?;
            }
            Content::Stream(mut file) => {
                file.rewind()?;
                io::copy(&mut file, &mut OpenOptions::new().write(true).open(&self.path)?)?;
            }
        }
        Ok(self.path)
    }
}

/// Replaces a text file, keeping its permissions and symbolic links to it.
///
/// # Errors
/// The file or its directory can't be written.
pub fn write_text(path: &Path, text: &str) -> io::Result<()> {
    let mut new = AtomicFile::create(path, ".velox.", FileMode::Data)?;
    new.file().write_all(text.as_bytes())?;
    if let Content::File(file, path) = &new.content
        && let Ok(existing) = fs::metadata(path)
    {
        file.as_file().set_permissions(existing.permissions())?;
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

    #[cfg(unix)]
    #[test]
    fn links_are_followed_even_to_a_missing_file() {
        use std::os::unix::fs::symlink;
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::create_dir(path("below")).unwrap();
        symlink("below/second", path("first")).unwrap();
        symlink("../file", path("below/second")).unwrap();
        symlink("loop", path("loop")).unwrap();
        for text in ["new", "again"] {
            write_text(&path("first"), text).unwrap();
            assert_eq!(fs::read_to_string(path("file")).unwrap(), text);
        }
        assert!(path("first").is_symlink() && path("below/second").is_symlink());
        assert!(write_text(&path("loop"), "x").is_err() && path("loop").is_symlink());
    }

    #[cfg(unix)]
    #[test]
    fn what_is_no_file_is_written_to_or_refused_but_never_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        assert_eq!(OutputKind::of(Path::new("/dev/null")).unwrap(), OutputKind::Stream);
        write_text(Path::new("/dev/null"), "x").unwrap();
        assert!(!Path::new("/dev/null").is_file());

        std::process::Command::new("mkfifo").arg(path("pipe")).status().unwrap();
        let reader = std::thread::spawn({
            let pipe = path("pipe");
            move || fs::read_to_string(pipe).unwrap()
        });
        write_text(&path("pipe"), "through").unwrap();
        assert_eq!(reader.join().unwrap(), "through");

        let _socket = std::os::unix::net::UnixListener::bind(path("socket")).unwrap();
        let refused = write_text(&path("socket"), "x").unwrap_err().to_string();
        assert_eq!(refused, "it is a socket, not a regular file");
        assert!(write_text(directory.path(), "x").is_err());
        let left: Vec<_> = fs::read_dir(directory.path()).unwrap().collect();
        assert_eq!(left.len(), 2, "{left:?}");
    }
}
