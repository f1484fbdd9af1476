//! Replacing an installed binary, which may be running, by a new one.

use std::{
    ffi::OsString,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use super::{
    copies::FileIdentity,
    publish::{TEMPORARY_PREFIX, is_executable},
};
use crate::{
    atomic_file::{AtomicFile, FileMode, directory_of},
    error::Error,
};

/// What is added to the name of the binary that was replaced.
const PREVIOUS_SUFFIX: &str = ".previous";

/// Linux keeps the capabilities of a program in this attribute (`setcap cap_net_bind_service=+ep rr`).
#[cfg(target_os = "linux")]
const CAPABILITIES: &str = "security.capability";
#[cfg(target_os = "linux")]
const MAX_CAPABILITIES_BYTES: usize = 256;

/// A binary that is in use at its path.
#[derive(Debug, Clone)]
pub struct InstalledBinary {
    /// The file at the end of all symbolic links.
    path: PathBuf,
    /// The file when it was found; `None`: there was none.
    identity: Option<FileIdentity>,
}

/// A new binary beside the installed one, with its owner and its mode.
pub struct StagedBinary {
    new: AtomicFile,
    installed: InstalledBinary,
}

impl InstalledBinary {
    /// Finds the binary at a path.
    ///
    /// # Errors
    /// There is none.
    pub fn at(path: &Path) -> Result<Self, Error> {
        let failed = |cause: &dyn std::fmt::Display| {
            Error::configuration(format!("failed to read `{}`: {cause}", path.display()))
                .help("name an installed RoadRunner binary; `vx build` makes a new one")
        };
        let real = path.canonicalize().map_err(|error| failed(&error))?;
        match real.is_file() {
            true if is_executable(&real) => Ok(Self { identity: FileIdentity::of(&real), path: real }),
            true => Err(failed(&"it is not executable")),
            false => Err(failed(&"it is not a file")),
        }
    }

    /// Finds the binary at a path, which may be missing or broken, to [roll it back](Self::roll_back).
    ///
    /// # Errors
    /// Its directory can't be read.
    pub fn to_roll_back(path: &Path) -> Result<Self, Error> {
        let path = resolved(path).map_err(|error| Error::file("read", path, &error))?;
        Ok(Self { identity: FileIdentity::of(&path), path })
    }

    /// The file at the end of all symbolic links.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the binary is kept that was replaced last: `rr.previous`.
    #[must_use]
    pub fn previous(&self) -> PathBuf {
        let mut name: OsString = self.path.file_name().unwrap_or_default().to_owned();
        name.push(PREVIOUS_SUFFIX);
        self.path.with_file_name(name)
    }

    /// Fails if the binary can't be replaced, with its owner and mode.
    ///
    /// # Errors
    /// Missing permissions, or a read-only file system.
    pub fn check(&self) -> Result<(), Error> {
        // Only the empty file is written, and removed.
        self.stage_from(&mut io::empty()).map(drop)
    }

    /// Writes a new binary beside the installed one.
    ///
    /// # Errors
    /// It can't be written, or can't get the owner or the mode.
    pub fn stage(&self, source: &Path) -> Result<StagedBinary, Error> {
        let mut file = File::open(source).map_err(|error| Error::file("read", source, &error))?;
        self.stage_from(&mut file)
    }

    fn stage_from(&self, source: &mut dyn io::Read) -> Result<StagedBinary, Error> {
        let new = self.copy_to(&self.path, source).map_err(|error| self.failed("replace", &error))?;
        Ok(StagedBinary { new, installed: self.clone() })
    }

    /// A file for a path, with the owner, the mode and the capabilities of the binary.
    fn copy_to(&self, path: &Path, source: &mut dyn io::Read) -> io::Result<AtomicFile> {
        let existing = fs::metadata(&self.path)?;
        let mut new = AtomicFile::create(path, TEMPORARY_PREFIX, FileMode::Executable)?;
        io::copy(source, new.file())?;
        #[cfg(unix)]
        {
            use std::os::unix::fs::{MetadataExt as _, fchown};
            let data = new.file().metadata()?;
            if (data.uid(), data.gid()) != (existing.uid(), existing.gid()) {
                fchown(&*new.file(), Some(existing.uid()), Some(existing.gid()))?;
            }
        }
        // After the owner, whose change removes setuid bits.
        new.file().set_permissions(existing.permissions())?;
        #[cfg(target_os = "linux")]
        {
            use rustix::fs::{XattrFlags, fsetxattr, getxattr};
            let mut value = [0; MAX_CAPABILITIES_BYTES];
            if let Ok(length) = getxattr(&self.path, CAPABILITIES, &mut value) {
                let value = value.get(..length).unwrap_or_default();
                fsetxattr(&*new.file(), CAPABILITIES, value, XattrFlags::empty())?;
            }
        }
        Ok(new)
    }

    /// Keeps the binary as the previous one, too.
    fn keep(&self) -> io::Result<()> {
        let link = self.temporary();
        let _ = fs::remove_file(&link);
        // Some file systems have no hard links, and the kernel can forbid those to files of others.
        match fs::hard_link(&self.path, &link) {
            Ok(()) => fs::rename(&link, self.previous()),
            Err(_) => self.copy_to(&self.previous(), &mut File::open(&self.path)?)?.persist().map(drop),
        }
    }

    /// Puts the previous binary back. The binary becomes the previous one, so that this can be undone; returns whether
    /// there was one.
    ///
    /// # Errors
    /// There is no previous binary, or it can't be renamed.
    pub fn roll_back(&self) -> Result<bool, Error> {
        let previous = self.previous();
        if !previous.is_file() {
            let message =
                format!("there is no {}: `vx upgrade` has replaced nothing here", previous.display());
            return Err(Error::configuration(message));
        }
        let failed = |error: io::Error| self.failed("replace", &error);
        match fs::symlink_metadata(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return fs::rename(&previous, &self.path).map(|()| false).map_err(failed);
            }
            Ok(data) if !data.is_file() => return Err(failed(io::ErrorKind::IsADirectory.into())),
            _ => {}
        }
        let swap = || {
            // Both names always have a whole binary, where the file system can do this.
            #[cfg(any(target_os = "linux", target_os = "macos"))]
            {
                use rustix::fs::{CWD, RenameFlags, renameat_with};
                if renameat_with(CWD, &previous, CWD, &self.path, RenameFlags::EXCHANGE).is_ok() {
                    return Ok(());
                }
            }
            let kept = self.temporary();
            let _ = fs::remove_file(&kept);
            fs::hard_link(&self.path, &kept).or_else(|_| fs::copy(&self.path, &kept).map(drop))?;
            fs::rename(&previous, &self.path)?;
            fs::rename(&kept, &previous)
        };
        swap().map(|()| true).map_err(failed)
    }

    fn temporary(&self) -> PathBuf {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        directory_of(&self.path).join(format!("{TEMPORARY_PREFIX}{name}.kept.tmp"))
    }

    fn failed(&self, what: &str, error: &io::Error) -> Error {
        let error = Error::file(what, &self.path, error);
        error.help("run as a user who may write to its directory, and give files to its owner")
    }
}

impl StagedBinary {
    /// Replaces the installed binary, and keeps that as the previous one. A process that runs it is not affected.
    ///
    /// # Errors
    /// One of the files can't be renamed. Then the binary is as it was.
    pub fn replace(self) -> Result<(), Error> {
        let Self { new, installed } = self;
        // Otherwise the previous binary of a concurrent upgrade would be lost.
        if FileIdentity::of(&installed.path) != installed.identity {
            let message = format!("{} was changed by another program meanwhile", installed.path.display());
            return Err(Error::build(message).help("run the command again"));
        }
        let replace = || {
            installed.keep()?;
            // A running program can be renamed, but not replaced.
            #[cfg(windows)]
            fs::rename(&installed.path, installed.previous())?;
            new.persist()
        };
        replace().map(drop).map_err(|error| installed.failed("replace", &error))
    }
}

/// The path at the end of all symbolic links, whose file may be missing.
fn resolved(path: &Path) -> io::Result<PathBuf> {
    match (path.canonicalize(), path.file_name()) {
        (Err(error), Some(name)) if error.kind() == io::ErrorKind::NotFound => match fs::read_link(path) {
            Ok(target) => resolved(&directory_of(path).join(target)),
            Err(_) => Ok(directory_of(path).canonicalize()?.join(name)),
        },
        (resolved, _) => resolved,
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn the_target_of_a_link_is_replaced_and_comes_back_with_its_mode() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let write = |name: &str, text: &str, mode: u32| {
            fs::write(path(name), text).unwrap();
            fs::set_permissions(path(name), fs::Permissions::from_mode(mode)).unwrap();
        };
        write("rr-1", "old", 0o750);
        write("new", "new", 0o700);
        symlink("rr-1", path("rr")).unwrap();
        let installed = InstalledBinary::at(&path("rr")).unwrap();
        assert!(installed.roll_back().is_err());
        installed.check().unwrap();
        let inode = fs::metadata(path("rr-1")).unwrap().ino();
        let stage = || installed.stage(&path("new")).unwrap();
        let concurrent = stage();
        stage().replace().unwrap();
        let error = concurrent.replace().unwrap_err().to_string();
        assert!(error.contains("was changed by another program meanwhile"), "{error}");
        let text = |name: &str| fs::read_to_string(path(name)).unwrap();
        let mode = |name: &str| fs::metadata(path(name)).unwrap().permissions().mode() & 0o777;
        assert!(path("rr").is_symlink());
        assert_eq!((text("rr"), text("rr-1.previous")), ("new".to_owned(), "old".to_owned()));
        assert_eq!((mode("rr-1"), mode("rr-1.previous")), (0o750, 0o750));
        // The running program keeps its file.
        assert_eq!(fs::metadata(path("rr-1.previous")).unwrap().ino(), inode);
        for expected in ["old", "new"] {
            assert!(installed.roll_back().unwrap());
            assert_eq!(text("rr"), expected);
        }
        let mut left: Vec<_> =
            fs::read_dir(directory.path()).unwrap().map(|it| it.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["new", "rr", "rr-1", "rr-1.previous"]);
        write("text", "x", 0o644);
        assert!(InstalledBinary::at(&path("text")).is_err() && InstalledBinary::at(&path("none")).is_err());
    }
}
