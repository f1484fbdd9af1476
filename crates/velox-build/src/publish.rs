//! Putting the binary where the user wants it: whole, or not at all.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use crate::{Binary, Error, Output};

/// The name of a file that isn't finished begins and ends so.
const UNFINISHED: (&str, &str) = (".rr.", ".tmp");

impl Output {
    /// The file that the binary will be.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        match self {
            Self::Directory(directory) => directory.join(name),
            Self::File(file) => file.clone(),
        }
    }

    /// Finds out before the compile what would fail after it.
    pub(crate) fn check(&self, name: &str) -> Result<(), Error> {
        let file = self.file(name);
        if file.is_dir() {
            return Err(Error::configuration(format!("{} is a directory", file.display()))
                .help("-o takes the directory that gets the binary, --output-file the file itself"));
        }
        let parent = directory_of(&file);
        match parent.ancestors().find(|ancestor| ancestor.exists()) {
            Some(existing) if !existing.is_dir() => {
                Err(Error::configuration(format!("{} is a file, not a directory", existing.display()))
                    .help("-o takes the directory that gets the binary, --output-file the file itself"))
            }
            _ => Ok(()),
        }
    }
}

/// Copies `binary` beside its place, syncs it, and renames it into its place.
pub(crate) fn publish(binary: &Path, output: &Output, name: &str) -> Result<Binary, Error> {
    let file = output.file(name);
    let directory = directory_of(&file);
    let failed = |error: io::Error| {
        Error::file("write", &file, &error)
            .help("check the directory's permissions and the space on its disk")
    };
    fs::create_dir_all(directory).map_err(failed)?;
    remove_unfinished(directory);
    let mut unfinished = unfinished_in(directory).map_err(failed)?;
    let (size, sha256) = copy(binary, unfinished.as_file_mut()).map_err(failed)?;
    make_executable(unfinished.as_file()).map_err(failed)?;
    unfinished.as_file().sync_all().map_err(failed)?;
    unfinished.persist(&file).map_err(|error| failed(error.error))?;
    #[cfg(unix)]
    let _ = File::open(directory).and_then(|directory| directory.sync_all());
    Ok(Binary { path: file, size, sha256 })
}

/// A new file that stays locked until it is renamed: that is how another build tells it from a dead one's.
fn unfinished_in(directory: &Path) -> io::Result<tempfile::NamedTempFile> {
    let (prefix, suffix) = UNFINISHED;
    loop {
        let file = tempfile::Builder::new().prefix(prefix).suffix(suffix).tempfile_in(directory)?;
        file.as_file().lock()?;
        // Another build may have taken it for a dead one's before the lock.
        if file.path().exists() {
            return Ok(file);
        }
    }
}

fn directory_of(file: &Path) -> &Path {
    file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn copy(from: &Path, to: &mut File) -> io::Result<(u64, String)> {
    let mut source = File::open(from)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    let mut size = 0;
    loop {
        let read = source.read(&mut buffer)?;
        let Some(chunk) = buffer.get(..read).filter(|chunk| !chunk.is_empty()) else { break };
        hash.update(chunk);
        to.write_all(chunk)?;
        size += read as u64;
    }
    Ok((size, hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()))
}

/// As `go build` leaves its binaries: for everyone whom the umask lets.
#[cfg(unix)]
fn make_executable(file: &File) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    // Setting the umask is the only way to read it; a file made with the wished-for mode tells it as well.
    let directory = tempfile::tempdir()?;
    let probe = directory.path().join("mode");
    let mode = {
        use std::os::unix::fs::OpenOptionsExt;
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o777)
            .open(probe)?
            .metadata()?
            .permissions()
            .mode()
    };
    file.set_permissions(fs::Permissions::from_mode(mode & 0o777))
}

#[cfg(not(unix))]
fn make_executable(_file: &File) -> io::Result<()> {
    Ok(())
}

/// What a killed build left. A file that is locked belongs to a build that still runs.
fn remove_unfinished(directory: &Path) {
    let (prefix, suffix) = UNFINISHED;
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with(prefix) && name.ends_with(suffix) {
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
    fn the_binary_is_executable_whole_and_alone() {
        let place = tempfile::tempdir().unwrap();
        let binary = place.path().join("built");
        fs::write(&binary, "#!").unwrap();
        let output = Output::Directory(place.path().join("a/b"));
        fs::create_dir_all(place.path().join("a/b")).unwrap();
        fs::write(place.path().join("a/b/.rr.dead.tmp"), "half").unwrap();

        let published = publish(&binary, &output, "rr").unwrap();
        assert_eq!((published.size, published.path.clone()), (2, place.path().join("a/b/rr")));
        assert_eq!(fs::read(&published.path).unwrap(), b"#!");
        assert_eq!(fs::read_dir(place.path().join("a/b")).unwrap().count(), 1);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_ne!(fs::metadata(&published.path).unwrap().permissions().mode() & 0o100, 0);
        }
    }

    #[test]
    fn another_builds_unfinished_file_is_left_alone() {
        let place = tempfile::tempdir().unwrap();
        let other = File::create(place.path().join(".rr.live.tmp")).unwrap();
        other.lock().unwrap();
        remove_unfinished(place.path());
        assert!(place.path().join(".rr.live.tmp").exists());
    }

    #[test]
    fn what_can_never_work_is_told_before_the_compile() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(Output::Directory(file.clone()).check("rr").is_err());
        assert!(Output::Directory(file.join("below")).check("rr").is_err());
        assert!(Output::File(place.path().to_owned()).check("rr").is_err());
        assert!(Output::Directory(place.path().join("new/folder")).check("rr").is_ok());
    }
}
