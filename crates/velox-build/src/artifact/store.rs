//! The artifact store: compiled and verified binaries, by their keys.

use std::{
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};
use tempfile::TempDir;
use velox_manifest::GoTarget;

use crate::{cache_directory::is_owned, digest, error::Error, lock::Lock, sbom_format::SbomFormat};

/// The default size limit of the store, in bytes: about thirty binaries.
pub const DEFAULT_STORE_LIMIT_BYTES: u64 = 4 << 30;

/// Older temporary directories are leftovers.
const STALE_AFTER: Duration = Duration::from_secs(60 * 60);

/// The artifact store below vx's cache directory. Processes may use it concurrently.
///
/// ```text
/// CACHE/artifacts-v1/
///   3f/3f9a…/             the key, in hexadecimal
///     rr                  the binary
///     LICENSE             RoadRunner's, for release archives
///     rr.cdx.json         its bill of materials, see [`crate::SbomFormat`]
///     rr.spdx.json
///     artifact.json       its size and SHA-256; its modification time is the time of the last use
///     copies.json         the files that are known to have this SHA-256, see [`StoredArtifact::is_known_copy`]
///   .building-3f9a…       locked by the process that compiles this artifact
///   .new-…/  .old-…/      artifacts that are being added or removed
///   .lock                 locked by writers
/// ```
#[derive(Debug, Clone)]
pub struct ArtifactStore {
    root: PathBuf,
}

/// A stored binary.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct StoredArtifact {
    #[serde(skip)]
    pub(crate) directory: PathBuf,
    pub(crate) size: u64,
    pub(crate) sha256: String,
    /// A description for people.
    pub(crate) about: String,
    /// Its key in the store; empty outside of one.
    #[serde(default)]
    pub(crate) key: String,
}

/// The names and contents of the files beside a binary with this SHA-256.
pub(crate) type Companions<'a> = dyn Fn(&str) -> Vec<(String, Vec<u8>)> + 'a;

/// The size of a store.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct StoreContents {
    /// The number of artifacts.
    pub artifacts: u64,
    /// Their total size in bytes.
    pub bytes: u64,
}

/// The exclusive right to build an artifact.
#[derive(Debug)]
pub(crate) struct BuildLock {
    path: PathBuf,
    _file: File,
}

impl Drop for BuildLock {
    fn drop(&mut self) {
        // While it is locked: see `is_same_file`. A leftover is empty and does no harm.
        if cfg!(unix) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(unix)]
fn is_same_file(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let identity = |data: fs::Metadata| (data.dev(), data.ino());
    file.metadata().map(identity).ok() == fs::metadata(path).map(identity).ok()
}

/// Lock files are only removed on Unix.
#[cfg(not(unix))]
fn is_same_file(_: &File, _: &Path) -> bool {
    true
}

impl StoredArtifact {
    /// The files beside a binary.
    pub(crate) const COMPANIONS: [&str; 3] = ["LICENSE", "rr.cdx.json", "rr.spdx.json"];

    /// The description of a binary.
    pub(crate) fn description(lock: &Lock, target: &GoTarget) -> String {
        let (version, plugins) = (&lock.roadrunner.version, lock.plugins.len());
        format!("RoadRunner {version} with {plugins} plugins for {target}")
    }

    /// An artifact outside of any store, for a binary without a key.
    pub(crate) fn outside(
        binary: &Path,
        (size, sha256): (u64, String),
        companions: &Companions<'_>,
        about: String,
    ) -> Result<Self, Error> {
        let directory = binary.with_extension("artifact");
        let failed = |error: io::Error| Error::file("write", &directory, &error);
        fs::create_dir_all(&directory).map_err(failed)?;
        fs::rename(binary, directory.join("rr")).map_err(failed)?;
        for (name, content) in companions(&sha256) {
            fs::write(directory.join(name), content).map_err(failed)?;
        }
        Ok(Self { directory, size, sha256, about, key: String::new() })
    }

    pub(crate) fn binary(&self) -> PathBuf {
        self.directory.join("rr")
    }

    /// Its bill of materials.
    pub(crate) fn sbom(&self, format: SbomFormat) -> Result<Vec<u8>, Error> {
        let path = self.directory.join(format.file_name("rr"));
        fs::read(&path).map_err(|error| Error::file("read", &path, &error))
    }

    pub(crate) fn license(&self) -> Option<Vec<u8>> {
        fs::read(self.directory.join("LICENSE")).ok()
    }
}

impl ArtifactStore {
    /// The store below `cache` (see [`crate::cache_directory`]), which need not exist yet.
    #[must_use]
    pub fn new(cache: &Path) -> Self {
        Self { root: cache.join("artifacts-v1") }
    }

    /// The artifact with this key, if nobody else put it there and its content is the recorded one. Updates the
    /// time of its last use.
    pub(crate) fn get(&self, key: &str) -> Option<StoredArtifact> {
        let shard = self.root.join(key.get(..2)?);
        let artifact = self.read(&shard.join(key))?;
        let (record, binary) = (artifact.directory.join("artifact.json"), artifact.binary());
        let is_ours =
            [&self.root, &shard, &artifact.directory, &record, &binary].iter().all(|path| is_owned(path));
        let is_regular = fs::symlink_metadata(&binary).is_ok_and(|data| data.is_file());
        let is_recorded =
            || artifact.is_known_copy(&binary, || Ok(digest::of_file(&binary)?.1 == artifact.sha256));
        if artifact.key != key || !is_ours || !is_regular || !is_recorded() {
            self.discard(&artifact.directory);
            return None;
        }
        // A failure only affects the order of eviction.
        let _ = File::options()
            .append(true)
            .open(artifact.directory.join("artifact.json"))
            .and_then(|file| file.set_modified(SystemTime::now()));
        Some(artifact)
    }

    fn read(&self, directory: &Path) -> Option<StoredArtifact> {
        let text = fs::read_to_string(directory.join("artifact.json")).ok()?;
        let artifact: StoredArtifact = serde_json::from_str(&text).ok()?;
        let size = fs::metadata(directory.join("rr")).ok()?.len();
        (size == artifact.size).then(|| StoredArtifact { directory: directory.to_owned(), ..artifact })
    }

    /// Adds a verified binary, which is moved if the file systems allow it.
    pub(crate) fn put(
        &self,
        key: &str,
        binary: &Path,
        (size, sha256): (u64, String),
        companions: &Companions<'_>,
        about: String,
    ) -> Result<StoredArtifact, Error> {
        let failed = |error: io::Error| {
            Error::file("write to the artifact store", &self.root, &error)
                .help("check the free space of its disk, or set VX_CACHE_DIR to another directory")
        };
        let directory = self.root.join(key.get(..2).unwrap_or("00")).join(key);
        fs::create_dir_all(directory.parent().unwrap_or(&self.root)).map_err(failed)?;
        let new = self.temporary().map_err(failed)?;
        let kept = new.path().join("rr");
        if fs::rename(binary, &kept).is_err() {
            fs::copy(binary, &kept).map_err(failed)?;
        }
        let artifact =
            StoredArtifact { directory: directory.clone(), size, sha256, about, key: key.to_owned() };
        for (name, content) in companions(&artifact.sha256) {
            fs::write(new.path().join(name), content).map_err(failed)?;
        }
        let text = serde_json::to_string_pretty(&artifact).unwrap_or_default();
        fs::write(new.path().join("artifact.json"), text).map_err(failed)?;
        // No sync: readers verify the checksum.
        let _lock = self.lock_writers().map_err(failed)?;
        // Another build may have added the same binary.
        if self.get(key).is_none() {
            self.discard(&directory);
            fs::rename(new.keep(), &directory).map_err(failed)?;
        }
        self.read(&directory).ok_or_else(|| failed(io::ErrorKind::NotFound.into()))
    }

    /// A temporary directory below the store, for files that become an artifact.
    pub(crate) fn temporary(&self) -> io::Result<TempDir> {
        fs::create_dir_all(&self.root)?;
        tempfile::Builder::new().prefix(".new-").tempdir_in(&self.root)
    }

    /// Takes the lock for building the artifact with this key; `None` while another process, or another target of this
    /// one, has it. It is released when the value is dropped.
    pub(crate) fn lock_build(&self, key: &str) -> io::Result<Option<BuildLock>> {
        fs::create_dir_all(&self.root)?;
        let path = self.root.join(format!(".building-{key}"));
        let file = File::options().create(true).truncate(false).write(true).open(&path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        // Its previous owner may have removed the file in the meantime.
        let is_same = is_same_file(&file, &path);
        Ok(is_same.then_some(BuildLock { path, _file: file }))
    }

    /// The bill of materials of a binary, if the store has the same one.
    ///
    /// # Errors
    /// A file that can't be read.
    pub fn sbom(&self, binary: &Path, format: SbomFormat) -> Result<Option<Vec<u8>>, Error> {
        let (_, sha256) = digest::of_file(binary).map_err(|error| Error::file("read", binary, &error))?;
        let found = self.artifacts().into_iter().find(|(_, artifact)| artifact.sha256 == sha256);
        found.map(|(_, artifact)| artifact.sbom(format)).transpose()
    }

    /// Takes the lock of writers.
    fn lock_writers(&self) -> io::Result<File> {
        fs::create_dir_all(&self.root)?;
        let file = File::options().create(true).truncate(false).write(true).open(self.root.join(".lock"))?;
        file.lock()?;
        Ok(file)
    }

    /// The number and size of the artifacts.
    #[must_use]
    pub fn contents(&self) -> StoreContents {
        self.artifacts().iter().fold(StoreContents::default(), |sum, (_, artifact)| StoreContents {
            artifacts: sum.artifacts + 1,
            bytes: sum.bytes + artifact.size,
        })
    }

    /// Removes the least recently used artifacts down to `limit` bytes. Returns what was removed.
    pub fn prune(&self, limit: u64) -> StoreContents {
        self.keep_within(limit, &[])
    }

    /// As [`ArtifactStore::prune`], but keeps the artifacts with these keys.
    pub(crate) fn keep_within(&self, limit: u64, keys: &[&str]) -> StoreContents {
        let _lock = self.root.exists().then(|| self.lock_writers());
        self.remove_unfinished();
        let mut artifacts = self.artifacts();
        artifacts.sort_by_key(|(used, _)| *used);
        let mut total: u64 = artifacts.iter().map(|(_, artifact)| artifact.size).sum();
        let mut removed = StoreContents::default();
        for (_, artifact) in artifacts {
            if total <= limit {
                break;
            }
            if keys.iter().any(|key| artifact.directory.ends_with(key)) {
                continue;
            }
            self.discard(&artifact.directory);
            total -= artifact.size;
            removed.artifacts += 1;
            removed.bytes += artifact.size;
        }
        removed
    }

    /// Removes temporary directories of killed processes.
    fn remove_unfinished(&self) {
        for entry in fs::read_dir(&self.root).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let is = |start: &str| name.to_string_lossy().starts_with(start);
            let age = || entry.metadata().and_then(|data| data.modified()).ok()?.elapsed().ok();
            // Another process may be using it.
            if is(".old-") || (is(".new-") && age().is_some_and(|age| age > STALE_AFTER)) {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }

    /// Removes the artifacts whose checksum differs from the recorded one. Returns their descriptions.
    ///
    /// # Errors
    /// A binary that can't be read.
    pub fn verify(&self) -> Result<Vec<String>, Error> {
        let mut damaged = Vec::new();
        for (_, artifact) in self.artifacts() {
            let (_, sha256) = digest::of_file(&artifact.binary())
                .map_err(|error| Error::file("read", &artifact.binary(), &error))?;
            if sha256 != artifact.sha256 {
                self.discard(&artifact.directory);
                damaged.push(artifact.about);
            }
        }
        Ok(damaged)
    }

    /// Renames first: other processes see the whole artifact or none, and open files stay readable.
    fn discard(&self, directory: &Path) {
        let Ok(old) = tempfile::Builder::new().prefix(".old-").tempdir_in(&self.root) else { return };
        let _ = fs::rename(directory, old.path().join("artifact"));
    }

    fn artifacts(&self) -> Vec<(SystemTime, StoredArtifact)> {
        let entries = |directory: &Path| fs::read_dir(directory).into_iter().flatten().flatten();
        entries(&self.root)
            .filter(|entry| !entry.file_name().to_string_lossy().starts_with('.'))
            .flat_map(|entry| entries(&entry.path()))
            .filter_map(|entry| {
                let artifact = self.read(&entry.path())?;
                let used = fs::metadata(artifact.directory.join("artifact.json")).ok()?.modified().ok()?;
                Some((used, artifact))
            })
            .collect()
    }

    /// Removes all artifacts. Returns what was removed.
    ///
    /// # Errors
    /// A file that can't be removed.
    pub fn clear(&self) -> Result<StoreContents, Error> {
        let contents = self.contents();
        match fs::remove_dir_all(&self.root) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::file("remove", &self.root, &error))
            }
            _ => Ok(contents),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(store: &ArtifactStore, root: &Path, key: &str, content: &str) -> StoredArtifact {
        let binary = root.join("built");
        fs::write(&binary, content).unwrap();
        store.put(key, &binary, digest::of_file(&binary).unwrap(), &|_| Vec::new(), key.to_owned()).unwrap()
    }

    #[test]
    fn what_was_put_is_found_until_it_is_the_longest_unused_over_the_limit() {
        let root = tempfile::tempdir().unwrap();
        let store = ArtifactStore::new(root.path());
        let artifact = put(&store, root.path(), "aa11", "12345678");
        assert_eq!(fs::read(artifact.binary()).unwrap(), b"12345678");
        put(&store, root.path(), "bb22", "12345678");
        let old = SystemTime::now() - std::time::Duration::from_secs(60);
        for key in ["aa/aa11", "bb/bb22"] {
            let file = store.root.join(key).join("artifact.json");
            File::options().append(true).open(file).unwrap().set_modified(old).unwrap();
        }
        assert!(store.get("aa11").is_some());
        put(&store, root.path(), "cc33", "12345678");
        for left in [".old-x", ".new-x", ".new-y"] {
            fs::create_dir(store.root.join(left)).unwrap();
        }
        let long_ago = SystemTime::now() - 2 * STALE_AFTER;
        File::open(store.root.join(".new-x")).unwrap().set_modified(long_ago).unwrap();
        assert_eq!(store.keep_within(16, &["cc33"]).artifacts, 1);
        let left = |name: &str| store.root.join(name).exists();
        assert!(!left(".old-x") && !left(".new-x") && left(".new-y"));
        assert!(store.get("bb22").is_none() && store.get("aa11").is_some() && store.get("cc33").is_some());
        assert_eq!(store.contents(), StoreContents { artifacts: 2, bytes: 16 });
        assert_eq!(store.prune(0).artifacts, 2);
        assert_eq!(store.clear().unwrap(), StoreContents::default());
    }

    #[test]
    fn a_cut_artifact_is_none_and_a_changed_one_is_found_by_verify() {
        let root = tempfile::tempdir().unwrap();
        let store = ArtifactStore::new(root.path());
        let artifact = put(&store, root.path(), "aa11", "12345678");
        fs::write(artifact.binary(), "1234567x").unwrap();
        assert_eq!(store.verify().unwrap(), ["aa11"]);
        assert!(store.get("aa11").is_none());
        let artifact = put(&store, root.path(), "aa11", "12345678");
        fs::write(artifact.binary(), "123").unwrap();
        assert!(store.get("aa11").is_none());
        put(&store, root.path(), "aa11", "12345678");
        assert!(store.get("aa11").is_some() && store.verify().unwrap().is_empty());
    }

    #[test]
    fn a_modified_or_moved_artifact_is_none() {
        let root = tempfile::tempdir().unwrap();
        let store = ArtifactStore::new(root.path());
        let artifact = put(&store, root.path(), "aa11", "12345678");
        fs::write(artifact.binary(), "1234567x").unwrap();
        assert!(store.get("aa11").is_none() && !artifact.directory.exists());

        let artifact = put(&store, root.path(), "aa11", "12345678");
        put(&store, root.path(), "aa22", "87654321");
        fs::remove_dir_all(&artifact.directory).unwrap();
        fs::rename(store.root.join("aa/aa22"), &artifact.directory).unwrap();
        assert!(store.get("aa11").is_none(), "the artifact of another key");

        #[cfg(unix)]
        {
            let artifact = put(&store, root.path(), "aa11", "12345678");
            fs::rename(artifact.binary(), root.path().join("elsewhere")).unwrap();
            std::os::unix::fs::symlink(root.path().join("elsewhere"), artifact.binary()).unwrap();
            assert!(store.get("aa11").is_none(), "a link");
        }
        #[cfg(unix)]
        {
            let artifact = put(&store, root.path(), "aa11", "12345678");
            // Only root can give a file to another user.
            if std::os::unix::fs::chown(artifact.binary(), Some(65534), None).is_ok() {
                assert!(store.get("aa11").is_none(), "a file of another user");
            }
        }
    }

    #[test]
    fn many_put_the_same_at_once() {
        let root = tempfile::tempdir().unwrap();
        let store = ArtifactStore::new(root.path());
        std::thread::scope(|scope| {
            for number in 0..8 {
                let (store, root) = (&store, root.path().join(number.to_string()));
                scope.spawn(move || {
                    fs::create_dir(&root).unwrap();
                    put(store, &root, "aa11", "12345678");
                    store.get("aa11").unwrap();
                });
            }
        });
        assert_eq!(store.contents(), StoreContents { artifacts: 1, bytes: 8 });
    }
}
