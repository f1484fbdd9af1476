//! The `h1:` sums of go.sum and of the checksum database.
//!
//! A sum is SHA-256 over a list of lines, one for each file, sorted by name: the hexadecimal SHA-256 of the content, two
//! spaces, the name, a newline (<https://pkg.go.dev/golang.org/x/mod/sumdb/dirhash#Hash1>). A zip and the directory that
//! it unpacks to therefore have the same sum, however the zip was packed.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

use crate::modzip::MAX_ZIP_BYTES;

/// Why a sum could not be taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DirHashError {
    /// A file or folder could not be read.
    #[error("can't read {}: {source}", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The zip is damaged, or holds the same name twice.
    #[error("can't read the zip {}: {reason}", path.display())]
    Zip {
        /// The zip.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A file name with a newline, which would let two trees have one sum.
    #[error("{name:?} has a newline in its name, which no sum allows")]
    Newline {
        /// The name.
        name: String,
    },
    /// The content is larger than a module may be.
    #[error("the content of {} is larger than {MAX_ZIP_BYTES} bytes, the most that a module may have", path.display())]
    TooLarge {
        /// The zip.
        path: PathBuf,
    },
}

/// The sum of a folder's files, each named `prefix/` and its path below `dir`, as `dirhash.HashDir` takes it.
///
/// For a module's folder, the prefix is `path@version`.
///
/// # Errors
///
/// A folder or file that can't be read, among them a link to a folder, and a name with a newline.
pub fn hash_dir(dir: &Path, prefix: &str) -> Result<String, DirHashError> {
    let mut names = Vec::new();
    walk(dir, prefix.as_bytes(), &mut names)?;
    let mut lines = Vec::with_capacity(names.len());
    for (name, path) in names {
        let unreadable = |source| DirHashError::Read { path: path.clone(), source };
        let mut file = File::open(&path).map_err(unreadable)?;
        let (content, _) = digest(&mut file, u64::MAX).map_err(unreadable)?;
        lines.push((name, content));
    }
    hash1(lines)
}

/// The sum of a zip's files, each under its name in the zip, as `dirhash.HashZip` takes it. This is the sum that go.sum
/// has for `path version`.
///
/// # Errors
///
/// A zip that can't be read, holds a name twice, or unpacks to more than [`MAX_ZIP_BYTES`] bytes.
pub fn hash_zip(path: &Path) -> Result<String, DirHashError> {
    let damaged = |reason: &dyn std::fmt::Display| DirHashError::Zip {
        path: path.to_owned(),
        reason: reason.to_string(),
    };
    let file = File::open(path).map_err(|source| DirHashError::Read { path: path.to_owned(), source })?;
    let mut archive = zip::ZipArchive::new(io::BufReader::new(file)).map_err(|error| damaged(&error))?;
    if archive.has_duplicate_names() {
        return Err(damaged(&"it holds the same file name twice"));
    }
    let mut left = MAX_ZIP_BYTES;
    let mut lines = Vec::with_capacity(archive.len());
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index).map_err(|error| damaged(&error))?;
        let name = entry.name_raw().to_vec();
        let (content, read) = digest(&mut entry, left).map_err(|error| damaged(&error))?;
        left = left.checked_sub(read).ok_or_else(|| DirHashError::TooLarge { path: path.to_owned() })?;
        lines.push((name, content));
    }
    hash1(lines)
}

/// The sum of a go.mod file's content: the one that go.sum has for `path version/go.mod`
/// (<https://go.dev/ref/mod#go-sum-files>).
#[must_use]
pub fn hash_go_mod(content: &[u8]) -> String {
    seal(format!("{}  go.mod\n", HEXLOWER.encode(&Sha256::digest(content))).as_bytes())
}

/// Appends the files below `dir`, links among them, with the names that the sum gives them.
fn walk(dir: &Path, prefix: &[u8], names: &mut Vec<(Vec<u8>, PathBuf)>) -> Result<(), DirHashError> {
    let unreadable = |source| DirHashError::Read { path: dir.to_owned(), source };
    for entry in fs::read_dir(dir).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let mut name = prefix.to_vec();
        if !name.is_empty() {
            name.push(b'/');
        }
        name.extend_from_slice(entry.file_name().as_encoded_bytes());
        let path = entry.path();
        if entry.file_type().map_err(unreadable)?.is_dir() {
            walk(&path, &name, names)?;
        } else {
            names.push((name, path));
        }
    }
    Ok(())
}

/// The SHA-256 of a reader's bytes and their number, stopping soon after `limit` is passed.
fn digest(reader: &mut impl Read, limit: u64) -> io::Result<([u8; 32], u64)> {
    let mut hash = Sha256::new();
    let mut total = 0_u64;
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = match reader.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => read?,
        };
        total = total.saturating_add(read as u64);
        if read == 0 || total > limit {
            return Ok((hash.finalize().into(), total));
        }
        hash.update(buffer.get(..read).unwrap_or_default());
    }
}

fn hash1(mut files: Vec<(Vec<u8>, [u8; 32])>) -> Result<String, DirHashError> {
    files.sort();
    let mut lines = Vec::new();
    for (name, content) in files {
        if name.contains(&b'\n') {
            return Err(DirHashError::Newline { name: String::from_utf8_lossy(&name).into_owned() });
        }
        lines.extend_from_slice(HEXLOWER.encode(&content).as_bytes());
        lines.extend_from_slice(b"  ");
        lines.extend_from_slice(&name);
        lines.push(b'\n');
    }
    Ok(seal(&lines))
}

fn seal(lines: &[u8]) -> String {
    format!("h1:{}", STANDARD.encode(Sha256::digest(lines)))
}

#[cfg(test)]
mod tests {
    use super::*;

    type Outcome = Result<(), Box<dyn std::error::Error>>;

    #[test]
    fn a_tree_has_the_sum_that_sha256sum_would_give() -> Outcome {
        let dir = tempfile::tempdir()?;
        fs::create_dir(dir.path().join("a"))?;
        fs::write(dir.path().join("a/b"), "")?;
        // sha256sum of "e3b0…b855  p@v1/a/b\n"
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let expected = format!("h1:{}", STANDARD.encode(Sha256::digest(format!("{empty}  p@v1/a/b\n"))));
        assert_eq!(hash_dir(dir.path(), "p@v1")?, expected);
        Ok(())
    }

    #[test]
    fn the_sum_of_a_published_go_mod() {
        // sum.golang.org's line for rsc.io/quote v1.5.2/go.mod
        let content = b"module \"rsc.io/quote\"\n\nrequire \"rsc.io/sampler\" v1.3.0\n";
        assert_eq!(hash_go_mod(content), "h1:LzX7hefJvL54yjefDEDHNONDjII0t9xZLPXsUe+TKr0=");
    }

    #[cfg(unix)]
    #[test]
    fn a_newline_in_a_name_is_refused() -> Outcome {
        let dir = tempfile::tempdir()?;
        fs::write(dir.path().join("a\nb"), "")?;
        assert!(matches!(hash_dir(dir.path(), "p"), Err(DirHashError::Newline { .. })));
        Ok(())
    }
}
