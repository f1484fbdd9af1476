//! Layers: compressed tar archives with fixed times, owners and order.

use std::{
    fs::File,
    io::{self, BufReader, BufWriter, Read, Write},
    path::{Path, PathBuf},
};

use flate2::{Compression, GzBuilder, read::MultiGzDecoder};
use sha2::{Digest as _, Sha256};
use tar::{EntryType, Header};

use super::{
    config::LayerCompression,
    files::{LayerEntry, LayerFiles, directory_mode},
    source::{BlobOrigin, FilePart, ImageContent},
};
use crate::{BlobContent, BlobDigest, Descriptor, Error, media_type};

/// `unknown` in RFC 1952: the same on every system.
const GZIP_OS: u8 = 255;
const GZIP_MAGIC: &[u8] = &[0x1f, 0x8b];
const ZSTD_MAGIC: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
const ZSTD_LEVEL: i32 = 9;
const BUFFER_BYTES: usize = 256 << 10;

/// A layer in a file.
#[derive(Debug, Clone)]
pub(crate) struct BuiltLayer {
    pub(crate) content: ImageContent,
    /// The digest of the uncompressed archive.
    pub(crate) diff_id: BlobDigest,
}

/// Writes a layer with these files to a new file in `directory`. `time`: seconds since 1970.
pub(crate) fn write_layer(
    directory: &Path,
    files: &LayerFiles,
    time: u64,
    compression: LayerCompression,
) -> Result<BuiltLayer, Error> {
    compress(directory, compression, &mut |out| {
        let mut tar = tar::Builder::new(out);
        for (path, entry) in files {
            append(&mut tar, path, entry, time)?;
        }
        tar.finish().map_err(|error| Error::Io { path: directory.to_owned(), error })
    })
}

/// Compresses an existing layer with gzip.
pub(crate) fn recompress_layer(directory: &Path, layer: &FilePart) -> Result<BuiltLayer, Error> {
    let failed = |error| Error::Io { path: layer.path.clone(), error };
    let mut start = Vec::new();
    layer.open()?.take(4).read_to_end(&mut start).map_err(failed)?;
    let content = layer.open()?;
    let mut content: Box<dyn Read> = match start.as_slice() {
        start if start.starts_with(GZIP_MAGIC) => Box::new(MultiGzDecoder::new(content)),
        start if start.starts_with(ZSTD_MAGIC) => Box::new(zstd::Decoder::new(content).map_err(failed)?),
        _ => Box::new(content),
    };
    compress(directory, LayerCompression::Gzip, &mut |out| {
        io::copy(&mut content, out).map(drop).map_err(failed)
    })
}

fn compress(
    directory: &Path,
    compression: LayerCompression,
    write: &mut dyn FnMut(&mut dyn Write) -> Result<(), Error>,
) -> Result<BuiltLayer, Error> {
    let failed = |error| Error::Io { path: directory.to_owned(), error };
    let file = tempfile::NamedTempFile::new_in(directory).map_err(failed)?;
    let (file, path) = file.keep().map_err(|error| failed(error.error))?;
    let out = HashingWriter::new(BufWriter::new(file));
    let mut fill = |compressor: &mut dyn Write| {
        let buffer = Vec::with_capacity(BUFFER_BYTES);
        let mut plain = HashingWriter::new(FixedChunks { inner: compressor, buffer });
        write(&mut plain)?;
        plain.flush().map_err(failed)?;
        Ok::<_, Error>(plain.finish().1)
    };
    let (media_type, diff_id, out) = match compression {
        LayerCompression::Gzip => {
            let gzip = GzBuilder::new().mtime(0).operating_system(GZIP_OS);
            let mut gzip = gzip.write(out, Compression::default());
            (media_type::LAYER_GZIP, fill(&mut gzip)?, gzip.finish())
        }
        LayerCompression::Zstd => {
            let mut zstd = zstd::Encoder::new(out, ZSTD_LEVEL).map_err(failed)?;
            (media_type::LAYER_ZSTD, fill(&mut zstd)?, zstd.finish())
        }
    };
    let (mut file, digest, size) = out.map_err(failed)?.finish();
    file.flush().map_err(failed)?;
    let origin = BlobOrigin::Content(BlobContent::File { path, offset: 0 });
    let content = ImageContent { descriptor: Descriptor::new(media_type, digest, size), origin };
    Ok(BuiltLayer { content, diff_id })
}

fn append(
    tar: &mut tar::Builder<&mut dyn Write>,
    path: &str,
    entry: &LayerEntry,
    time: u64,
) -> Result<(), Error> {
    let mut header = header(0, time);
    let in_image = |error| Error::Io { path: PathBuf::from(path), error };
    match entry {
        LayerEntry::Directory => {
            header.set_entry_type(EntryType::Directory);
            header.set_mode(directory_mode(path));
            tar.append_data(&mut header, format!("{path}/"), io::empty()).map_err(in_image)
        }
        LayerEntry::Link { target } => {
            header.set_entry_type(EntryType::Symlink);
            header.set_mode(0o777);
            tar.append_link(&mut header, path, target).map_err(in_image)
        }
        LayerEntry::File { source, is_executable } => {
            let failed = |error| Error::Io { path: source.clone(), error };
            let file = File::open(source).map_err(failed)?;
            let size = file.metadata().map_err(failed)?.len();
            header.set_mode(if *is_executable { 0o755 } else { 0o644 });
            header.set_size(size);
            let mut content = BufReader::with_capacity(BUFFER_BYTES, file).take(size);
            tar.append_data(&mut header, path, &mut content).map_err(failed)?;
            match content.limit() {
                0 => Ok(()),
                _ => Err(failed(io::Error::other("the file changed while it was read"))),
            }
        }
    }
}

/// The header of a file that belongs to root and is readable for everyone.
pub(crate) fn header(size: u64, time: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::Regular);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(time);
    header.set_size(size);
    header
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
            self.flush()?;
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
        for (compression, kind) in [
            (LayerCompression::Gzip, media_type::LAYER_GZIP),
            (LayerCompression::Zstd, media_type::LAYER_ZSTD),
        ] {
            let layers = [usize::MAX, 100_000, 4093].map(|size| {
                let mut reader = ShortReads(&content, size);
                let mut copy = |out: &mut dyn Write| {
                    io::copy(&mut reader, out).unwrap();
                    Ok(())
                };
                compress(directory.path(), compression, &mut copy).unwrap()
            });
            for layer in layers {
                let BlobOrigin::Content(BlobContent::File { path, .. }) = layer.content.origin else {
                    panic!()
                };
                let size = layer.content.descriptor.size;
                assert_eq!(Descriptor::of(kind, &std::fs::read(&path).unwrap()), layer.content.descriptor);
                let part = FilePart { path, offset: 0, size };
                let again = recompress_layer(directory.path(), &part).unwrap();
                assert_eq!((&layer.diff_id, &again.diff_id), (&BlobDigest::of(&content), &layer.diff_id));
                let is_same = again.content.descriptor == layer.content.descriptor;
                assert_eq!(is_same, compression == LayerCompression::Gzip);
            }
        }
    }
}
