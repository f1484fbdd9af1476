//! SHA-256 of files and texts, in hexadecimal.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

/// The size and the SHA-256 of a file.
///
/// # Errors
/// The file can't be read.
pub fn of_file(path: &Path) -> io::Result<(u64, String)> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 18];
    let mut size = 0;
    loop {
        let read = file.read(&mut buffer)?;
        let Some(chunk) = buffer.get(..read).filter(|chunk| !chunk.is_empty()) else { break };
        hash.update(chunk);
        size += read as u64;
    }
    Ok((size, HEXLOWER.encode(&hash.finalize())))
}

/// The SHA-256 of texts, each with its length, which separates them.
pub(crate) fn of_texts<T: AsRef<str>>(texts: impl IntoIterator<Item = T>) -> String {
    let mut hash = Sha256::new();
    for text in texts {
        let text = text.as_ref();
        hash.update(text.len().to_le_bytes());
        hash.update(text);
    }
    HEXLOWER.encode(&hash.finalize())
}
