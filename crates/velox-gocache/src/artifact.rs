//! Finished binaries in a remote cache.
//!
//! ```text
//! REMOTE/v1/artifacts/3f/3f9a…/c1d0…    one artifact: a header (a line of JSON), and its files, each
//!                                       compressed separately (zstd)
//! ```
//!
//! The first name is the key of the artifact, the second one a digest of the configuration that requested it. An
//! object is written once, whole; concurrent writers of a key write the same content.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read as _, Write as _},
    path::Path,
    time::Duration,
};

use bytes::Bytes;
use data_encoding::HEXLOWER;
use object_store::{GetResult, ObjectStore, ObjectStoreExt, PutPayload, path::Path as ObjectPath};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use url::Url;

use crate::{
    GoCacheError,
    location::{open_remote, within},
    pack::ZSTD_LEVEL,
    remote::MIN_BYTES_PER_SECOND,
};

const FORMAT: u32 = 1;
/// The size limit of an artifact, compressed.
const MAX_ARTIFACT_BYTES: u64 = 1 << 30;
const MAX_HEADER_BYTES: usize = 64 << 10;
/// The timeout for finding out whether the remote has an artifact, which the build waits for.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// The timeout of a whole request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(600);

/// The name of an artifact: two digests in hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ArtifactName {
    /// The digest of everything that affects the bytes of the binary.
    pub key: String,
    /// The digest of the requested configuration.
    pub configuration: String,
}

/// The artifacts of a remote cache.
#[derive(Debug)]
pub struct RemoteArtifacts {
    store: Box<dyn ObjectStore>,
    root: ObjectPath,
}

/// An artifact that the remote has.
#[derive(Debug)]
pub struct RemoteArtifact {
    name: ArtifactName,
    answer: GetResult,
}

/// Why an artifact could not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RemoteArtifactError {
    /// The remote failed, without secrets.
    #[error("{0}")]
    Remote(String),
    /// The artifact is damaged, truncated or of another key.
    #[error("damaged binary in the remote cache: {0}")]
    Damaged(String),
    /// A local file.
    #[error(transparent)]
    Io(#[from] io::Error),
}

#[derive(Serialize, Deserialize)]
struct Header {
    format: u32,
    #[serde(flatten)]
    name: ArtifactName,
    files: Vec<ArtifactFile>,
}

/// A file of an artifact.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ArtifactFile {
    /// Its name, without a directory.
    pub name: String,
    /// Its size in bytes.
    pub size: u64,
    /// The compressed size.
    length: u64,
    /// The SHA-256 of its content, in hexadecimal.
    pub sha256: String,
}

impl RemoteArtifacts {
    /// Opens the remote of [`crate::parse_remote`].
    ///
    /// # Errors
    /// Invalid settings of the remote.
    pub fn open(remote: &Url, environment: &BTreeMap<String, String>) -> Result<Self, GoCacheError> {
        let (store, root) = open_remote(remote, environment, REQUEST_TIMEOUT)?;
        Ok(Self { store, root: root.join("v1").join("artifacts") })
    }

    fn path(&self, name: &ArtifactName) -> ObjectPath {
        let shard = name.key.get(..2).unwrap_or_default();
        self.root.clone().join(shard).join(name.key.as_str()).join(name.configuration.as_str())
    }

    /// Asks for an artifact; `None`: the remote doesn't have it.
    ///
    /// # Errors
    /// The remote failed, or didn't answer in time.
    pub async fn find(&self, name: &ArtifactName) -> Result<Option<RemoteArtifact>, RemoteArtifactError> {
        let get = async { Ok(self.store.get(&self.path(name)).await?) };
        let answer = within(ANSWER_TIMEOUT, "looking for a binary", get).await;
        let found = |answer| RemoteArtifact { name: name.clone(), answer };
        answer.map(|answer| answer.map(found)).map_err(RemoteArtifactError::Remote)
    }

    /// Writes an artifact with these files of a directory, unless the remote has it and `replace` is false. Returns
    /// the number of uploaded bytes.
    ///
    /// # Errors
    /// A file that can't be read; a failed remote.
    pub async fn put(
        &self,
        name: &ArtifactName,
        directory: &Path,
        files: &[String],
        replace: bool,
        limit: Duration,
    ) -> Result<u64, RemoteArtifactError> {
        let path = self.path(name);
        if !replace {
            let head = async { Ok(self.store.head(&path).await?) };
            let found = within(ANSWER_TIMEOUT, "looking for a binary", head).await;
            if found.map_err(RemoteArtifactError::Remote)?.is_some() {
                return Ok(0);
            }
        }
        let (name, directory, files) = (name.clone(), directory.to_owned(), files.to_vec());
        let content = blocking(move || packed(name, &directory, &files)).await?;
        let size = content.len() as u64;
        let put = async { Ok(self.store.put(&path, PutPayload::from(content)).await?) };
        within(limit, "sending a binary", put).await.map_err(RemoteArtifactError::Remote)?;
        Ok(size)
    }
}

impl RemoteArtifact {
    /// The size of the download in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.answer.meta.size
    }

    /// Downloads the artifact, and writes its files to a directory. Returns what was written.
    ///
    /// # Errors
    /// A failed or slow remote; an artifact that is damaged or of another key. The directory may have some files then.
    pub async fn unpack(self, directory: &Path) -> Result<Vec<ArtifactFile>, RemoteArtifactError> {
        let size = self.size();
        if size > MAX_ARTIFACT_BYTES {
            return Err(RemoteArtifactError::Damaged(format!("it has {size} bytes")));
        }
        let limit = ANSWER_TIMEOUT + Duration::from_secs_f64(size as f64 / MIN_BYTES_PER_SECOND);
        let read = async { Ok(self.answer.bytes().await?) };
        let content = within(limit, "reading a binary", read).await.map_err(RemoteArtifactError::Remote)?;
        let content = content.ok_or_else(|| damaged("it was deleted"))?;
        let (name, directory) = (self.name, directory.to_owned());
        blocking(move || unpack(&name, &content, &directory)).await
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RemoteArtifactError> + Send + 'static,
) -> Result<T, RemoteArtifactError> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

fn damaged(why: impl Into<String>) -> RemoteArtifactError {
    RemoteArtifactError::Damaged(why.into())
}

fn packed(name: ArtifactName, directory: &Path, names: &[String]) -> Result<Vec<u8>, RemoteArtifactError> {
    let (mut files, mut packed) = (Vec::new(), Vec::new());
    for file in names {
        let content = fs::read(directory.join(file))?;
        let compressed = zstd::encode_all(content.as_slice(), ZSTD_LEVEL)?;
        files.push(ArtifactFile {
            name: file.clone(),
            size: content.len() as u64,
            length: compressed.len() as u64,
            sha256: HEXLOWER.encode(&Sha256::digest(&content)),
        });
        packed.push(compressed);
    }
    let mut object = serde_json::to_vec(&Header { format: FORMAT, name, files }).map_err(io::Error::other)?;
    object.push(b'\n');
    object.extend(packed.concat());
    Ok(object)
}

fn unpack(
    name: &ArtifactName,
    content: &Bytes,
    directory: &Path,
) -> Result<Vec<ArtifactFile>, RemoteArtifactError> {
    let line = content.iter().take(MAX_HEADER_BYTES).position(|byte| *byte == b'\n');
    let line = line.ok_or_else(|| damaged("invalid header"))?;
    let header: Header = serde_json::from_slice(&content[..line]).map_err(|_| damaged("invalid header"))?;
    if header.format != FORMAT {
        return Err(damaged(format!("unknown format {}", header.format)));
    }
    if header.name != *name {
        return Err(damaged("it has another key"));
    }
    let mut rest = &content[line + 1..];
    for file in &header.files {
        if !is_plain(&file.name) {
            return Err(damaged("invalid file name"));
        }
        let (compressed, following) = usize::try_from(file.length)
            .ok()
            .and_then(|length| rest.split_at_checked(length))
            .ok_or_else(|| damaged("truncated"))?;
        rest = following;
        unpack_file(file, compressed, &directory.join(&file.name))?;
    }
    if rest.is_empty() { Ok(header.files) } else { Err(damaged("unexpected data at its end")) }
}

fn unpack_file(file: &ArtifactFile, compressed: &[u8], path: &Path) -> Result<(), RemoteArtifactError> {
    let mismatch = || damaged(format!("checksum mismatch in {}", file.name));
    // One extra byte detects oversized content.
    let mut content =
        zstd::Decoder::with_buffer(compressed).map_err(|_| mismatch())?.take(file.size.saturating_add(1));
    let (mut out, mut hash, mut size) = (File::create_new(path)?, Sha256::new(), 0);
    let mut buffer = vec![0; 256 << 10];
    loop {
        let read = content.read(&mut buffer).map_err(|_| mismatch())?;
        let Some(chunk) = buffer.get(..read).filter(|chunk| !chunk.is_empty()) else { break };
        hash.update(chunk);
        size += read as u64;
        out.write_all(chunk)?;
    }
    let is_intact = size == file.size && HEXLOWER.encode(&hash.finalize()) == file.sha256;
    if is_intact { Ok(()) } else { Err(mismatch()) }
}

/// Whether a name is that of a file in the directory itself.
fn is_plain(name: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    !name.is_empty() && name.len() <= 200 && !name.starts_with('.') && name.bytes().all(is_allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(key: &str) -> ArtifactName {
        ArtifactName { key: key.to_owned(), configuration: "c1d0".to_owned() }
    }

    /// A packed artifact with two files.
    fn object() -> Vec<u8> {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("rr"), "the binary").unwrap();
        fs::write(directory.path().join("LICENSE"), "the license").unwrap();
        packed(name("3f9a"), directory.path(), &["rr".to_owned(), "LICENSE".to_owned()]).unwrap()
    }

    fn unpacked(object: Vec<u8>, key: &str) -> Result<String, String> {
        let directory = tempfile::tempdir().unwrap();
        let result = unpack(&name(key), &Bytes::from(object), directory.path());
        result
            .map(|_| fs::read_to_string(directory.path().join("rr")).unwrap())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_damaged_artifact_is_refused() {
        let good = object();
        assert_eq!(unpacked(good.clone(), "3f9a").unwrap(), "the binary");
        assert!(unpacked(good.clone(), "aaaa").unwrap_err().contains("another key"));
        for length in 0..good.len() {
            let why = unpacked(good[..length].to_vec(), "3f9a").unwrap_err();
            assert!(why.contains("header") || why.contains("truncated"), "{length}: {why}");
        }
        assert!(unpacked([good.as_slice(), b"more"].concat(), "3f9a").unwrap_err().contains("at its end"));
        let text = |from: &str, to: &str| {
            let at = good.windows(from.len()).position(|part| part == from.as_bytes()).unwrap();
            [&good[..at], to.as_bytes(), &good[at + from.len()..]].concat()
        };
        assert!(unpacked(text("\"format\":1", "\"format\":2"), "3f9a").unwrap_err().contains("format 2"));
        assert!(
            unpacked(text("\"size\":10", "\"size\":11"), "3f9a")
                .unwrap_err()
                .contains("checksum mismatch in rr")
        );
        assert!(
            unpacked(text("\"size\":10", "\"size\":9"), "3f9a")
                .unwrap_err()
                .contains("checksum mismatch in rr")
        );
        for foreign in ["../rr", ".rr", "a/rr", "/rr", ""] {
            let object = text("\"name\":\"rr\"", &format!("\"name\":\"{foreign}\""));
            assert!(unpacked(object, "3f9a").unwrap_err().contains("invalid file name"), "{foreign}");
        }
        let header = good.iter().position(|byte| *byte == b'\n').unwrap();
        for at in header + 1..good.len() {
            let mut object = good.clone();
            object[at] ^= 0x55;
            // A few bits of a frame have no meaning, but they never change the content.
            if let Ok(content) = unpacked(object, "3f9a") {
                assert_eq!(content, "the binary", "{at}");
            }
        }
    }
}
