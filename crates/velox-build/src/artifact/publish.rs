//! Copying a binary into the output directory.

use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
};

use crate::{
    artifact::store::StoredArtifact,
    atomic_file::{AtomicFile, FileMode, OutputKind, directory_of, probe},
    error::Error,
    request::{Output, SbomOutput},
    settings::BuildSettings,
};

pub(crate) const TEMPORARY_PREFIX: &str = ".rr.";

impl Output {
    /// Fails before the compile if the output paths can't be used.
    pub(crate) fn check(&self, settings: &BuildSettings) -> Result<(), Error> {
        if matches!(self, Self::File(_)) && settings.targets.len() > 1 {
            return Err(Error::configuration("--output-file names one file, but there are several targets")
                .help("use -o DIRECTORY: it contains rr-OS-ARCH for each target"));
        }
        settings.targets.iter().try_for_each(|target| self.check_file(&settings.binary_name(target)))
    }

    /// Fails if the bills of materials of several binaries have the same path, or the binary has no directory for it.
    pub(crate) fn check_sboms(&self, sboms: &[SbomOutput], settings: &BuildSettings) -> Result<(), Error> {
        for SbomOutput { format, file } in sboms {
            let name = format.name();
            match (file, self) {
                (Some(file), _) if settings.targets.len() > 1 => {
                    return Err(Error::configuration(format!(
                        "--sbom {name}={} names one file, but there are several targets",
                        file.display()
                    ))
                    .help(format!("use --sbom {name}: it writes a file beside each binary")));
                }
                (None, output) if output.is_stream() => {
                    return Err(Error::configuration(format!(
                        "--sbom {name} requires a directory for the bill of materials"
                    ))
                    .help(format!("use --sbom {name}=FILE, or -o DIRECTORY")));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Fails if release archives have no directory beside the binary.
    pub(crate) fn check_archive(&self) -> Result<(), Error> {
        if self.is_stream() {
            return Err(Error::configuration("--archive requires a directory for the archive")
                .help("use -o DIRECTORY"));
        }
        Ok(())
    }

    fn is_stream(&self) -> bool {
        matches!(self, Self::File(file) if matches!(OutputKind::of(file), Ok(OutputKind::Stream)))
    }

    /// The path of the binary.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        match self {
            Self::Directory(directory) => directory.join(name),
            Self::File(file) | Self::Store(file) => file.clone(),
        }
    }

    /// Fails before the compile if the output directory can't be written.
    pub(crate) fn probe(&self, settings: &BuildSettings) -> Result<(), Error> {
        settings.targets.iter().try_for_each(|target| {
            let Ok(OutputKind::File(file)) = OutputKind::of(&self.file(&settings.binary_name(target))) else {
                return Ok(());
            };
            let existing = directory_of(&file).ancestors().find(|ancestor| ancestor.exists());
            let probe = existing.map_or(Ok(()), |directory| probe(directory, TEMPORARY_PREFIX));
            probe.map_err(|error| unwritable(&file, &error))
        })
    }

    fn check_file(&self, name: &str) -> Result<(), Error> {
        let file = self.file(name);
        let kind = OutputKind::of(&file);
        // As for `go build -o`: a mistyped name must not overwrite a text file.
        if matches!((self, &kind), (Self::File(_), Ok(OutputKind::File(_)))) && is_something_else(&file) {
            return Err(Error::configuration(format!(
                "{} already exists and is not an executable",
                file.display()
            ))
            .help("choose another file, or remove this one"));
        }
        match (self, kind) {
            (Self::Directory(_), Err(error)) if error.kind() == io::ErrorKind::IsADirectory => {
                return Err(Error::configuration(format!(
                    "a directory is in the way of the binary: {}",
                    file.display()
                ))
                .help("move or remove it, or name another file with --output-file FILE"));
            }
            (_, Err(error)) if error.kind() == io::ErrorKind::IsADirectory => {
                return Err(Error::configuration(format!("{} is a directory", file.display()))
                    .help("-o takes the directory that gets the binary, --output-file the file itself"));
            }
            // The others are found below and by the probe.
            (_, Err(error))
                if !matches!(
                    error.kind(),
                    io::ErrorKind::NotADirectory | io::ErrorKind::PermissionDenied
                ) =>
            {
                return Err(Error::configuration(format!("failed to write `{}`: {error}", file.display()))
                    .help("choose another file for the binary"));
            }
            _ => {}
        }
        let parent = directory_of(&file);
        match parent.ancestors().find(|ancestor| ancestor.exists()) {
            Some(existing) if !existing.is_dir() => {
                Err(Error::configuration(format!("{} is not a directory", existing.display()))
                    .help("-o takes the directory that gets the binary, --output-file the file itself"))
            }
            _ => Ok(()),
        }
    }
}

/// Copies the artifact to its output path unless an identical file is there.
pub(crate) fn publish(artifact: &StoredArtifact, file: &Path) -> Result<(), Error> {
    if is_published(artifact, file) {
        return Ok(());
    }
    let source = artifact.binary();
    write_whole(file, FileMode::Executable, &mut |new| io::copy(&mut File::open(&source)?, new).map(drop))
}

/// Writes a file unless it has this content.
pub(crate) fn write_changed(file: &Path, content: &[u8]) -> Result<(), Error> {
    let is_same = fs::metadata(file).is_ok_and(|data| data.is_file() && data.len() == content.len() as u64)
        && fs::read(file).is_ok_and(|old| old == content);
    if is_same { Ok(()) } else { write_whole(file, FileMode::Data, &mut |out| out.write_all(content)) }
}

pub(crate) fn write_whole(
    file: &Path,
    mode: FileMode,
    write: &mut dyn FnMut(&mut File) -> io::Result<()>,
) -> Result<(), Error> {
    let mut work = || {
        let mut new = AtomicFile::create(file, TEMPORARY_PREFIX, mode)?;
        write(new.file())?;
        new.rename()
    };
    work().map(drop).map_err(|error| unwritable(file, &error))
}

pub(crate) fn unwritable(file: &Path, error: &io::Error) -> Error {
    Error::file("write", file, error).help("check the directory's permissions and its free space")
}

/// Whether this is a non-empty file that isn't an executable of any platform.
fn is_something_else(file: &Path) -> bool {
    let mut start = Vec::new();
    let read = File::open(file).and_then(|file| file.take(4).read_to_end(&mut start));
    let programs: [&[u8]; 8] = [
        b"\x7fELF",
        b"MZ",
        b"\xfe\xed\xfa\xce",
        b"\xfe\xed\xfa\xcf",
        b"\xce\xfa\xed\xfe",
        b"\xcf\xfa\xed\xfe",
        b"\x00asm",
        b"\x01\xdf",
    ];
    read.is_ok_and(|size| size > 0) && !programs.iter().any(|program| start.starts_with(program))
}

/// Whether the file is a copy of the artifact.
fn is_published(artifact: &StoredArtifact, file: &Path) -> bool {
    let is_candidate = fs::metadata(file).is_ok_and(|data| data.is_file() && data.len() == artifact.size);
    is_candidate
        && is_executable(file)
        && artifact.is_known_copy(file, || have_same_content(&artifact.binary(), file))
}

/// Compares two files up to the first difference.
fn have_same_content(one: &Path, other: &Path) -> io::Result<bool> {
    const CHUNK_BYTES: usize = 1 << 18;
    let (mut one, mut other) = (File::open(one)?, File::open(other)?);
    let (mut first, mut second) = (Vec::new(), Vec::new());
    loop {
        for (file, chunk) in [(&mut one, &mut first), (&mut other, &mut second)] {
            chunk.clear();
            file.take(CHUNK_BYTES as u64).read_to_end(chunk)?;
        }
        if first != second || first.is_empty() {
            return Ok(first == second);
        }
    }
}

#[cfg(unix)]
pub(crate) fn is_executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(file).is_ok_and(|metadata| metadata.permissions().mode() & 0o100 != 0)
}

#[cfg(not(unix))]
pub(crate) fn is_executable(_file: &Path) -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest;

    fn artifact(directory: &Path) -> StoredArtifact {
        fs::write(directory.join("rr"), "#!").unwrap();
        let (size, sha256) = digest::of_file(&directory.join("rr")).unwrap();
        StoredArtifact { directory: directory.to_owned(), size, sha256, ..StoredArtifact::default() }
    }

    #[test]
    fn the_binary_is_executable_whole_and_alone() {
        let place = tempfile::tempdir().unwrap();
        let artifact = artifact(place.path());
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
    fn an_equal_file_is_left_alone() {
        let place = tempfile::tempdir().unwrap();
        let artifact = artifact(place.path());
        let file = place.path().join("out");
        publish(&artifact, &file).unwrap();
        let made = fs::metadata(&file).unwrap().modified().unwrap();
        publish(&artifact, &file).unwrap();
        assert_eq!(fs::metadata(&file).unwrap().modified().unwrap(), made);
        fs::write(&file, "??").unwrap();
        publish(&artifact, &file).unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"#!");
    }

    #[test]
    fn what_can_never_work_is_told_before_the_compile() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(Output::Directory(file.clone()).check_file("rr").is_err());
        assert!(Output::Directory(file.join("below")).check_file("rr").is_err());
        assert!(Output::File(place.path().to_owned()).check_file("rr").is_err());
        assert!(Output::Directory(place.path().join("new/folder")).check_file("rr").is_ok());
    }
}
