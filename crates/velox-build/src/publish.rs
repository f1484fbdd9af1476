//! Putting the binary where the user wants it: whole, or not at all.

use std::{
    fs::{self, File, OpenOptions},
    io,
    path::{Path, PathBuf},
};

use crate::{Error, Output, digest, settings::Settings, store::Artifact};

/// The name of a file that isn't finished begins and ends so.
const UNFINISHED: (&str, &str) = (".rr.", ".tmp");

impl Output {
    /// Finds out before the compile what would fail after it.
    pub(crate) fn check_for(&self, settings: &Settings) -> Result<(), Error> {
        if matches!(self, Self::File(_)) && settings.targets.len() > 1 {
            return Err(Error::configuration("--output-file names one file, and there are several targets")
                .help("name a directory with -o: it gets rr-OS-ARCH for each target"));
        }
        settings.targets.iter().try_for_each(|target| self.check(&settings.binary_name(target)))
    }

    /// The file that the binary will be.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        match self {
            Self::Directory(directory) => directory.join(name),
            Self::File(file) | Self::Store(file) => file.clone(),
        }
    }

    fn check(&self, name: &str) -> Result<(), Error> {
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

/// Copies `artifact` beside its place, syncs it, and renames it into its place; a file that is the same already stays.
pub(crate) fn publish(artifact: &Artifact, file: &Path) -> Result<(), Error> {
    let unchanged = fs::metadata(file).is_ok_and(|metadata| metadata.len() == artifact.size)
        && is_executable(file)
        && digest::of_file(file).is_ok_and(|(_, sha256)| sha256 == artifact.sha256);
    if unchanged {
        return Ok(());
    }
    let source = artifact.binary();
    let (_, sha256) = digest::of_file(&source).map_err(|error| Error::file("read", &source, &error))?;
    if sha256 != artifact.sha256 {
        let _ = fs::remove_dir_all(&artifact.directory);
        return Err(Error::build(format!("{} had been changed since it was made", source.display()))
            .help("it is removed now: build again"));
    }
    write_whole(file, &mut |unfinished| {
        io::copy(&mut File::open(&source)?, unfinished)?;
        make_executable(unfinished)
    })
}

/// Writes a file beside its place, syncs it, and renames it into its place.
pub(crate) fn write_whole(
    file: &Path,
    write: &mut dyn FnMut(&mut File) -> io::Result<()>,
) -> Result<(), Error> {
    let directory = directory_of(file);
    let failed = |error: io::Error| {
        Error::file("write", file, &error).help("check the directory's permissions and the space on its disk")
    };
    fs::create_dir_all(directory).map_err(failed)?;
    remove_unfinished(directory);
    let mut unfinished = unfinished_in(directory).map_err(failed)?;
    write(unfinished.as_file_mut()).map_err(failed)?;
    unfinished.as_file().sync_all().map_err(failed)?;
    unfinished.persist(file).map_err(|error| failed(error.error))?;
    #[cfg(unix)]
    let _ = File::open(directory).and_then(|directory| directory.sync_all());
    Ok(())
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

#[cfg(unix)]
fn is_executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(file).is_ok_and(|metadata| metadata.permissions().mode() & 0o100 != 0)
}

#[cfg(not(unix))]
fn is_executable(_file: &Path) -> bool {
    true
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
        fs::write(place.path().join("rr"), "#!").unwrap();
        let (size, sha256) = digest::of_file(&place.path().join("rr")).unwrap();
        let artifact = Artifact { directory: place.path().to_owned(), size, sha256, about: String::new() };
        let file = place.path().join("a/b/rr");
        fs::create_dir_all(place.path().join("a/b")).unwrap();
        fs::write(place.path().join("a/b/.rr.dead.tmp"), "half").unwrap();

        publish(&artifact, &file).unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"#!");
        assert_eq!(fs::read_dir(place.path().join("a/b")).unwrap().count(), 1);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_ne!(fs::metadata(&file).unwrap().permissions().mode() & 0o100, 0);
        }
    }

    #[test]
    fn a_changed_artifact_is_not_published_and_an_equal_file_is_left_alone() {
        let place = tempfile::tempdir().unwrap();
        let directory = place.path().join("kept");
        fs::create_dir(&directory).unwrap();
        fs::write(directory.join("rr"), "#!").unwrap();
        let (size, sha256) = digest::of_file(&directory.join("rr")).unwrap();
        let artifact = Artifact { directory: directory.clone(), size, sha256, about: String::new() };
        let file = place.path().join("out");
        publish(&artifact, &file).unwrap();
        let made = fs::metadata(&file).unwrap().modified().unwrap();
        fs::write(directory.join("rr"), "x!").unwrap();
        publish(&artifact, &file).unwrap();
        assert_eq!(fs::metadata(&file).unwrap().modified().unwrap(), made);
        fs::write(&file, "??").unwrap();
        assert!(publish(&artifact, &file).is_err());
        assert_eq!(fs::read(&file).unwrap(), b"??");
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
