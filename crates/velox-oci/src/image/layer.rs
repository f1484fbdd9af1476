//! Layers: gzip-compressed tar archives with fixed times, owners and order.

use std::{
    fs::File,
    io::{self, BufReader, BufWriter, Read, Write},
    path::{Path, PathBuf},
};

use flate2::{Compression, GzBuilder, write::GzEncoder};
use sha2::{Digest as _, Sha256};
use tar::{EntryType, Header};

use super::files::{EntryKind, LayerEntry, directory_mode};
use crate::{BlobDigest, Descriptor, Error, media_type};

/// `unknown` in RFC 1952: the same on every system.
const GZIP_OS: u8 = 255;
const BUFFER_BYTES: usize = 256 << 10;

/// A layer in a file.
#[derive(Debug, Clone)]
pub(crate) struct BuiltLayer {
    pub(crate) descriptor: Descriptor,
    /// The digest of the uncompressed archive.
    pub(crate) diff_id: BlobDigest,
    pub(crate) path: PathBuf,
}

/// Writes a layer with these entries, in their order, to a new file in `directory`. `time`: seconds since 1970.
pub(crate) fn write_layer(directory: &Path, entries: &[LayerEntry], time: u64) -> Result<BuiltLayer, Error> {
    compress(directory, &mut |out| {
        let mut tar = tar::Builder::new(out);
        for entry in entries {
            append(&mut tar, entry, time).map_err(|(path, error)| Error::Io { path, error })?;
        }
        tar.finish().map_err(|error| Error::Io { path: directory.to_owned(), error })
    })
}

/// Compresses an existing uncompressed layer.
pub(crate) fn compress_layer(directory: &Path, layer: &mut dyn Read) -> Result<BuiltLayer, Error> {
    compress(directory, &mut |out| {
        io::copy(layer, out).map(drop).map_err(|error| Error::Io { path: directory.to_owned(), error })
    })
}

fn compress(
    directory: &Path,
    write: &mut dyn FnMut(&mut dyn Write) -> Result<(), Error>,
) -> Result<BuiltLayer, Error> {
    let failed = |error| Error::Io { path: directory.to_owned(), error };
    let file = tempfile::NamedTempFile::new_in(directory).map_err(failed)?;
    let (file, path) = file.keep().map_err(|error| failed(error.error))?;
    let compressed = HashingWriter::new(BufWriter::new(file));
    let gzip: GzEncoder<_> =
        GzBuilder::new().mtime(0).operating_system(GZIP_OS).write(compressed, Compression::default());
    let mut plain = HashingWriter::new(FixedChunks { inner: gzip, buffer: Vec::with_capacity(BUFFER_BYTES) });
    write(&mut plain)?;
    let (mut chunks, diff_id, _) = plain.finish();
    chunks.flush().map_err(failed)?;
    let gzip = chunks.inner;
    let (mut file, digest, size) = gzip.finish().map_err(failed)?.finish();
    file.flush().map_err(failed)?;
    Ok(BuiltLayer { descriptor: Descriptor::new(media_type::LAYER_GZIP, digest, size), diff_id, path })
}

/// On failure, the path that can't be read, or the path in the image.
fn append(
    tar: &mut tar::Builder<&mut dyn Write>,
    entry: &LayerEntry,
    time: u64,
) -> Result<(), (PathBuf, io::Error)> {
    let mut header = Header::new_gnu();
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(time);
    header.set_size(0);
    let in_image = |error| (PathBuf::from(&entry.path), error);
    match &entry.kind {
        EntryKind::Directory => {
            header.set_entry_type(EntryType::Directory);
            header.set_mode(directory_mode(&entry.path));
            tar.append_data(&mut header, format!("{}/", entry.path), io::empty()).map_err(in_image)
        }
        EntryKind::Link { target } => {
            header.set_entry_type(EntryType::Symlink);
            header.set_mode(0o777);
            tar.append_link(&mut header, &entry.path, target).map_err(in_image)
        }
        EntryKind::File { source, is_executable } => {
            let failed = |error| (source.clone(), error);
            let file = File::open(source).map_err(failed)?;
            let size = file.metadata().map_err(failed)?.len();
            header.set_entry_type(EntryType::Regular);
            header.set_mode(if *is_executable { 0o755 } else { 0o644 });
            header.set_size(size);
            let mut content =
                CountingReader { inner: BufReader::with_capacity(BUFFER_BYTES, file), count: 0 };
            tar.append_data(&mut header, &entry.path, (&mut content).take(size)).map_err(failed)?;
            match content.count == size {
                true => Ok(()),
                false => Err(failed(io::Error::other("the file changed while it was read"))),
            }
        }
    }
}

/// Hashes and counts what is written.
pub(crate) struct HashingWriter<W> {
    inner: W,
    hash: Sha256,
    size: u64,
}

impl<W> HashingWriter<W> {
    pub(crate) fn new(inner: W) -> Self {
        Self { inner, hash: Sha256::new(), size: 0 }
    }

    pub(crate) fn finish(self) -> (W, BlobDigest, u64) {
        (self.inner, BlobDigest::of_hash(self.hash), self.size)
    }
}

impl<W: Write> Write for HashingWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hash.update(bytes.get(..written).unwrap_or_default());
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Writes in chunks of one size, whatever the sizes of the writes: the compressor's output depends on them.
struct FixedChunks<W> {
    inner: W,
    buffer: Vec<u8>,
}

impl<W: Write> Write for FixedChunks<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let (taken, _) = bytes.split_at(bytes.len().min(BUFFER_BYTES - self.buffer.len()));
        self.buffer.extend_from_slice(taken);
        if self.buffer.len() == BUFFER_BYTES {
            self.inner.write_all(&self.buffer)?;
            self.buffer.clear();
        }
        Ok(taken.len())
    }

    /// Writes the last chunk; the compressor itself isn't flushed.
    fn flush(&mut self) -> io::Result<()> {
        self.inner.write_all(&self.buffer)?;
        self.buffer.clear();
        Ok(())
    }
}

struct CountingReader<R> {
    inner: R,
    count: u64,
}

impl<R: Read> Read for CountingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.count += read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives at most so many bytes at once.
    struct ShortReads<'a>(&'a [u8], usize);

    impl Read for ShortReads<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let limit = buffer.len().min(self.1);
            self.0.read(buffer.get_mut(..limit).unwrap_or_default())
        }
    }

    #[test]
    fn a_layer_depends_on_its_content_alone() {
        let directory = tempfile::tempdir().unwrap();
        let content: Vec<u8> =
            (0..300_000u32).flat_map(|number| (number.wrapping_mul(number) >> 7).to_le_bytes()).collect();
        let layers = [usize::MAX, 100_000, 4093]
            .map(|size| compress_layer(directory.path(), &mut ShortReads(&content, size)).unwrap());
        for layer in &layers {
            assert_eq!(layer.diff_id, BlobDigest::of(&content));
            assert_eq!(layer.descriptor, layers[0].descriptor);
            let file = std::fs::read(&layer.path).unwrap();
            assert_eq!(Descriptor::of(media_type::LAYER_GZIP, &file), layer.descriptor);
        }
    }
}
