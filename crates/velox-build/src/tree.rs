//! Copying source trees into a workspace.

use std::{fs, io, path::Path};

use crate::Error;

/// Copies a directory; the copy can be written, whatever the original (the module cache is read-only).
///
/// Version control folders stay behind. A symbolic link to a file is copied as that file, one to a directory is left
/// out, as the go command does with packages.
pub(crate) fn copy(from: &Path, to: &Path) -> Result<(), Error> {
    copy_below(from, to).map_err(|error| Error::file("copy", from, &error))
}

fn copy_below(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let name = entry.file_name();
        if [".git", ".hg", ".svn", ".bzr"].iter().any(|folder| name == *folder) {
            continue;
        }
        let target = to.join(&name);
        if entry.file_type()?.is_dir() {
            copy_below(&entry.path(), &target)?;
        } else if fs::metadata(entry.path()).is_ok_and(|metadata| metadata.is_file()) {
            let mut source = fs::File::open(entry.path())?;
            io::copy(&mut source, &mut fs::File::create(target)?)?;
        }
    }
    Ok(())
}
