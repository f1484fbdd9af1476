//! Copying and hashing source trees.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

use crate::error::Error;

/// Copies a directory; the copy is writable, unlike the module cache.
///
/// Skips version control directories, and a velox.lock in the root, which would change the hash with every
/// build. Copies the target of a symbolic link to a file; skips links to directories, as the go command does.
pub(crate) fn copy(from: &Path, to: &Path) -> Result<(), Error> {
    let copy = || {
        fs::create_dir_all(to)?;
        walk(from, Path::new(""), &mut |entry| match entry {
            TreeEntry::Directory(path) => fs::create_dir_all(to.join(path)),
            TreeEntry::File(path) => {
                let mut source = fs::File::open(from.join(path))?;
                io::copy(&mut source, &mut fs::File::create(to.join(path))?).map(drop)
            }
        })
    };
    copy().map_err(|error| Error::file("copy", from, &error))
}

/// A digest of everything that [`copy`] copies.
pub(crate) fn digest(tree: &Path) -> Result<String, Error> {
    let mut hash = Sha256::new();
    walk(tree, Path::new(""), &mut |entry| {
        if let TreeEntry::File(path) = entry {
            let (size, sum) = crate::digest::of_file(&tree.join(path))?;
            hash.update(format!("{}\0{size}\0{sum}\n", path.to_string_lossy()));
        }
        Ok(())
    })
    .map_err(|error| Error::file("read", tree, &error))?;
    Ok(HEXLOWER.encode(&hash.finalize()))
}

enum TreeEntry<'a> {
    Directory(&'a Path),
    File(&'a Path),
}

fn walk(root: &Path, below: &Path, visit: &mut dyn FnMut(TreeEntry<'_>) -> io::Result<()>) -> io::Result<()> {
    let mut entries: Vec<fs::DirEntry> = fs::read_dir(root.join(below))?.collect::<io::Result<_>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let name = entry.file_name();
        if [".git", ".hg", ".svn", ".bzr"].iter().any(|folder| name == *folder) {
            continue;
        }
        if below.as_os_str().is_empty() && name == "velox.lock" {
            continue;
        }
        let path: PathBuf = below.join(&name);
        if entry.file_type()?.is_dir() {
            visit(TreeEntry::Directory(&path))?;
            walk(root, &path, visit)?;
        } else if fs::metadata(entry.path()).is_ok_and(|metadata| metadata.is_file()) {
            visit(TreeEntry::File(&path))?;
        }
    }
    Ok(())
}
