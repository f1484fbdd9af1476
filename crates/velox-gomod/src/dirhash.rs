//! The `h1:` checksums of go.sum and the checksum database.
//!
//! The SHA-256 of a list of lines, one per file, sorted by name: the hexadecimal SHA-256 of the content, two
//! spaces, the name, a newline (<https://pkg.go.dev/golang.org/x/mod/sumdb/dirhash#Hash1>).

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

use crate::modzip::MAX_ZIP_BYTES;

/// An error computing a checksum.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DirHashError {
    /// A file or directory can't be read.
    #[error("failed to read `{}`: {source}", path.display())]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The zip is damaged or has duplicate names.
    #[error("failed to read the zip `{}`: {reason}", path.display())]
    Zip {
        /// The zip.
        path: PathBuf,
        /// The cause.
        reason: String,
    },
    /// A file name contains a newline, which would make the checksum ambiguous.
    #[error("newline in the file name {name:?}")]
    Newline {
        /// The name.
        name: String,
    },
    /// The content exceeds the module size limit.
    #[error("the content of `{}` exceeds the limit of {MAX_ZIP_BYTES} bytes", path.display())]
    TooLarge {
        /// The zip.
        path: PathBuf,
    },
}

/// The checksum of a zip's files (`dirhash.HashZip`), which go.sum has for `path version`.
pub fn hash_zip(path: &Path) -> Result<String, DirHashError> {
    let damaged = |reason: &dyn std::fmt::Display| DirHashError::Zip {
        path: path.to_owned(),
        reason: reason.to_string(),
    };
    let file = File::open(path).map_err(|source| DirHashError::Read { path: path.to_owned(), source })?;
    let mut archive = zip::ZipArchive::new(io::BufReader::new(file)).map_err(|error| damaged(&error))?;
    if archive.has_duplicate_names() {
        return Err(damaged(&"duplicate file name"));
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

/// The checksum of a go.mod, which go.sum has for `path version/go.mod`.
pub fn hash_go_mod(content: &[u8]) -> String {
    seal(format!("{}  go.mod\n", HEXLOWER.encode(&Sha256::digest(content))).as_bytes())
}

/// The SHA-256 and the number of a reader's bytes; stops after exceeding `limit`.
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

    #[test]
    fn the_sum_of_a_published_go_mod() {
        // sum.golang.org's line for rsc.io/quote v1.5.2/go.mod
        let content = b"module \"rsc.io/quote\"\n\nrequire \"rsc.io/sampler\" v1.3.0\n";
        assert_eq!(hash_go_mod(content), "h1:LzX7hefJvL54yjefDEDHNONDjII0t9xZLPXsUe+TKr0=");
    }
}
