//! GOCACHE in the go command's format (`cmd/go/internal/cache`, unchanged since Go 1.10).
//!
//! ```text
//! GOCACHE
//! ├── 3f/3f9a…-a    an action: "v1 ACTION OUTPUT SIZE TIME\n", both numbers 20 characters wide
//! └── c1/c1d0…-d    an output, whose name is the SHA-256 of its content
//! ```

use std::{
    fs::{self, File},
    io::{self, Read, Write as _},
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;

use crate::{CacheId, hex, unhex};

const ENTRY_BYTES: usize = 2 + 1 + 64 + 1 + 64 + 1 + 20 + 1 + 20 + 1;

/// Modification times are updated only when older, as in the go command.
const MTIME_UPDATE_INTERVAL: Duration = Duration::from_secs(60 * 60);

/// An action's output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ActionEntry {
    pub(crate) output: CacheId,
    pub(crate) size: u64,
    /// The creation time in Unix nanoseconds.
    pub(crate) time: u64,
}

#[derive(Debug, Clone)]
pub(crate) struct LocalCache {
    root: PathBuf,
}

impl LocalCache {
    /// Opens GOCACHE and creates its directories like the go command.
    pub(crate) fn open(root: &Path) -> io::Result<Self> {
        for byte in 0..=255u8 {
            fs::create_dir_all(root.join(format!("{byte:02x}")))?;
        }
        Ok(Self { root: root.to_owned() })
    }

    fn path(&self, id: &CacheId, kind: char) -> PathBuf {
        let name = hex(id);
        self.root.join(name.get(..2).unwrap_or_default()).join(format!("{name}-{kind}"))
    }

    pub(crate) fn output_path(&self, output: &CacheId) -> PathBuf {
        self.path(output, 'd')
    }

    /// The output of an action, if it exists with the recorded size.
    pub(crate) fn get(&self, action: &CacheId) -> Option<ActionEntry> {
        let path = self.path(action, 'a');
        let entry = parse(&fs::read(&path).ok()?, action)?;
        let output = self.output_path(&entry.output);
        let metadata = fs::metadata(&output).ok().filter(|metadata| metadata.is_file())?;
        if metadata.len() != entry.size {
            return None;
        }
        mark_used(&path);
        mark_used(&output);
        Some(entry)
    }

    /// A temporary file for an output.
    pub(crate) fn new_output(&self, output: &CacheId) -> io::Result<NewOutput> {
        let path = self.output_path(output);
        let folder = path.parent().unwrap_or(&self.root);
        let mut builder = tempfile::Builder::new();
        builder.prefix("vx-").suffix("-tmp");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            builder.permissions(fs::Permissions::from_mode(0o666));
        }
        Ok(NewOutput {
            file: builder.tempfile_in(folder)?,
            hash: Sha256::new(),
            size: 0,
            path,
            output: *output,
        })
    }

    /// Records an existing output as the result of an action.
    pub(crate) fn put(&self, action: &CacheId, output: &CacheId, size: u64) -> io::Result<u64> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let time = u64::try_from(now).unwrap_or(u64::MAX);
        let path = self.path(action, 'a');
        let folder = path.parent().unwrap_or(&self.root);
        let mut file = tempfile::Builder::new().prefix("vx-").suffix("-tmp").tempfile_in(folder)?;
        writeln!(file, "v1 {} {} {size:>20} {time:>20}", hex(action), hex(output))?;
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            file.as_file().set_permissions(fs::Permissions::from_mode(0o644))?;
        }
        file.persist(&path).map_err(|error| error.error)?;
        Ok(time)
    }

    /// Whether an output of this size exists.
    pub(crate) fn has_output(&self, output: &CacheId, size: u64) -> bool {
        fs::metadata(self.output_path(output))
            .is_ok_and(|metadata| metadata.is_file() && metadata.len() == size)
    }

    /// Reads an output, if it matches its digest.
    pub(crate) fn read_output(&self, output: &CacheId) -> Option<Vec<u8>> {
        let mut content = Vec::new();
        File::open(self.output_path(output)).ok()?.read_to_end(&mut content).ok()?;
        (Sha256::digest(&content).as_slice() == output).then_some(content)
    }
}

/// A partially written output, removed on drop.
pub(crate) struct NewOutput {
    file: NamedTempFile,
    hash: Sha256,
    size: u64,
    path: PathBuf,
    output: CacheId,
}

impl NewOutput {
    pub(crate) fn write(&mut self, chunk: &[u8]) -> io::Result<()> {
        self.hash.update(chunk);
        self.size += chunk.len() as u64;
        self.file.write_all(chunk)
    }

    /// Moves the output into place, if it matches its digest.
    pub(crate) fn finish(self, size: u64) -> io::Result<PathBuf> {
        if self.size != size || self.hash.finalize().as_slice() != self.output {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the output does not match its digest"));
        }
        self.file.persist(&self.path).map_err(|error| error.error)?;
        Ok(self.path)
    }
}

fn parse(text: &[u8], action: &CacheId) -> Option<ActionEntry> {
    let text = std::str::from_utf8(text).ok().filter(|text| text.len() == ENTRY_BYTES)?;
    let mut fields = text.strip_suffix('\n')?.split_ascii_whitespace();
    let (version, id, output) = (fields.next()?, fields.next()?, fields.next()?);
    let (size, time) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    (version == "v1" && unhex(id)? == *action && fields.next().is_none()).then_some(ActionEntry {
        output: unhex(output)?,
        size,
        time,
    })
}

fn mark_used(path: &Path) {
    let modified = fs::metadata(path).and_then(|metadata| metadata.modified());
    let recent = modified.is_ok_and(|time| time.elapsed().is_ok_and(|age| age < MTIME_UPDATE_INTERVAL));
    if !recent && let Ok(file) = File::options().append(true).open(path) {
        let _ = file.set_modified(SystemTime::now());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(content: &[u8]) -> CacheId {
        Sha256::digest(content).into()
    }

    #[test]
    fn what_is_put_is_found_and_a_cut_output_is_not() {
        let place = tempfile::tempdir().unwrap();
        let disk = LocalCache::open(place.path()).unwrap();
        let (action, output) = (id(b"action"), id(b"content"));
        let mut new = disk.new_output(&output).unwrap();
        new.write(b"con").unwrap();
        new.write(b"tent").unwrap();
        new.finish(7).unwrap();
        disk.put(&action, &output, 7).unwrap();
        let entry = disk.get(&action).unwrap();
        assert_eq!((entry.output, entry.size), (output, 7));
        assert_eq!(fs::read(disk.path(&action, 'a')).unwrap().len(), ENTRY_BYTES);
        assert_eq!(disk.read_output(&output).unwrap(), b"content");

        fs::write(disk.output_path(&output), "conten").unwrap();
        assert!(disk.get(&action).is_none() && disk.read_output(&output).is_none());
    }

    #[test]
    fn another_content_than_its_name_says_is_refused() {
        let place = tempfile::tempdir().unwrap();
        let disk = LocalCache::open(place.path()).unwrap();
        let mut new = disk.new_output(&id(b"content")).unwrap();
        new.write(b"another").unwrap();
        assert!(new.finish(7).is_err());
        let new = disk.new_output(&id(b"content")).unwrap();
        assert!(new.finish(0).is_err());
        assert!(!disk.has_output(&id(b"content"), 7));
    }

    proptest! {
        #[test]
        fn no_entry_makes_it_panic(text in prop::collection::vec(any::<u8>(), 0..200)) {
            parse(&text, &[0; 32]);
        }
    }
}
