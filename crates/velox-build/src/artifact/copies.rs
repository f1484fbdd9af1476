//! Which files are copies of an artifact, without reading them again.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};

use crate::{artifact::store::StoredArtifact, cache_directory::is_owned};

/// More than the time resolution of any file system.
const TIME_RESOLUTION: Duration = Duration::from_secs(3);

impl StoredArtifact {
    /// Whether a file is a copy of the binary. `compare` reads it, unless an earlier call found that it is one and it was
    /// not changed since. `copies.json` of the artifact has these files.
    pub(crate) fn is_known_copy(&self, file: &Path, compare: impl FnOnce() -> io::Result<bool>) -> bool {
        self.is_known_copy_at(SystemTime::now(), file, compare)
    }

    fn is_known_copy_at(
        &self,
        now: SystemTime,
        file: &Path,
        compare: impl FnOnce() -> io::Result<bool>,
    ) -> bool {
        let Some(identity) = FileIdentity::of(file) else { return compare().unwrap_or(false) };
        let record = self.directory.join("copies.json");
        let text = is_owned(&record).then(|| fs::read(&record).ok()).flatten();
        let mut copies: BTreeMap<PathBuf, FileIdentity> =
            text.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
        if copies.get(file) == Some(&identity) {
            return true;
        }
        let is_copy = compare().unwrap_or(false);
        if is_copy && identity.is_settled(now) && FileIdentity::of(file) == Some(identity) {
            copies.retain(|other, _| other.exists());
            copies.insert(file.to_owned(), identity);
            // On failure, the file is read again next time.
            let text = serde_json::to_string(&copies).unwrap_or_default();
            let _ = crate::write_text(&record, &text);
        }
        is_copy
    }
}

/// Identifies the content of a file without reading it: a write or a rename changes one of these values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FileIdentity {
    device: u64,
    inode: u64,
    size: u64,
    /// Status change time, elsewhere than on Unix modification time: seconds since 1970, and nanoseconds.
    changed: (i64, i64),
}

impl FileIdentity {
    #[cfg(unix)]
    pub(super) fn of(file: &Path) -> Option<Self> {
        use std::os::unix::fs::MetadataExt;
        let data = fs::metadata(file).ok().filter(fs::Metadata::is_file)?;
        let changed = (data.ctime(), data.ctime_nsec());
        Some(Self { device: data.dev(), inode: data.ino(), size: data.len(), changed })
    }

    #[cfg(not(unix))]
    pub(super) fn of(file: &Path) -> Option<Self> {
        let data = fs::metadata(file).ok().filter(fs::Metadata::is_file)?;
        let modified = data.modified().ok()?.duration_since(SystemTime::UNIX_EPOCH).ok()?;
        let changed = (i64::try_from(modified.as_secs()).ok()?, modified.subsec_nanos().into());
        Some(Self { device: 0, inode: 0, size: data.len(), changed })
    }

    /// Whether a later change would have another status change time; false if that time is unknown.
    fn is_settled(&self, now: SystemTime) -> bool {
        let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let (seconds, nanos) = self.changed;
        let changed = u64::try_from(seconds).ok().zip(u32::try_from(nanos).ok());
        cfg!(unix)
            && changed.is_some_and(|(seconds, nanos)| Duration::new(seconds, nanos) + TIME_RESOLUTION < now)
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_read_again_when_it_changed_or_is_new() {
        let root = tempfile::tempdir().unwrap();
        let artifact =
            StoredArtifact { directory: root.path().to_owned(), size: 2, ..StoredArtifact::default() };
        let file = root.path().join("rr");
        fs::write(&file, "#!").unwrap();
        let reads = std::cell::Cell::new(0);
        let ask = |now: SystemTime| {
            let compare = || {
                reads.set(reads.get() + 1);
                Ok(fs::read(&file)? == b"#!")
            };
            (artifact.is_known_copy_at(now, &file, compare), reads.take())
        };
        let now = SystemTime::now();
        let later = now + 2 * TIME_RESOLUTION;
        // A change within the time resolution would not be noticed.
        assert_eq!([ask(now), ask(now)], [(true, 1), (true, 1)]);
        assert_eq!([ask(later), ask(later)], [(true, 1), (true, 0)]);
        fs::write(&file, "??").unwrap();
        assert_eq!([ask(later), ask(later)], [(false, 1), (false, 1)]);
    }
}
