//! The disk limit of a job, and the free space of the service's disk.

use std::{
    collections::HashMap,
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    time::Duration,
};

use super::{JobEnd, format_size};
use crate::egress::ProxyAccess;

const POLL_INTERVAL: Duration = Duration::from_millis(200);
/// The prefix of files that only check whether a directory is writable.
const PROBE_PREFIX: &str = ".put-";

/// Watches the disk usage of a job: its own directory, and the modules that it unpacks in the shared cache.
pub(super) struct DiskLimit<'a> {
    pub(super) directory: &'a Path,
    pub(super) access: &'a ProxyAccess,
    /// GOMODCACHE.
    pub(super) module_cache: PathBuf,
    pub(super) limit: u64,
    pub(super) disk: &'a Disk,
}

impl DiskLimit<'_> {
    /// Waits until the limit is exceeded or the disk is full.
    pub(super) async fn exceeded(&self) -> JobEnd {
        // The sizes of modules, and whether they were unchanged at the last poll: those are unpacked.
        let mut modules: HashMap<PathBuf, (u64, bool)> = HashMap::new();
        loop {
            tokio::time::sleep(POLL_INTERVAL).await;
            for place in self.access.modules() {
                modules.entry(self.module_cache.join(place)).or_default();
            }
            let directory = self.directory.to_owned();
            let measure = move || {
                for (path, (size, is_settled)) in &mut modules {
                    if !*is_settled {
                        let now = disk_usage(path).unwrap_or_default();
                        *is_settled = now == *size && now > 0;
                        *size = now;
                    }
                }
                let unpacked: u64 = modules.values().map(|(size, _)| size).sum();
                (unpacked + disk_usage(&directory).unwrap_or_default(), modules)
            };
            // Errors are ignored: the next poll tries again.
            let Ok((used, measured)) = tokio::task::spawn_blocking(measure).await else {
                modules = HashMap::new();
                continue;
            };
            modules = measured;
            if used > self.limit {
                let limit = format_size(self.limit);
                return JobEnd::Limit(format!("the build exceeded the disk limit of {limit}"));
            }
            if self.disk.is_full() {
                return JobEnd::DiskFull;
            }
        }
    }
}

/// The disk of the service's data directory.
#[derive(Debug, Clone)]
pub(crate) struct Disk {
    data: PathBuf,
    /// The free space that is kept for the service itself.
    reserve: u64,
}

impl Disk {
    /// The maximum reserve. A small disk has a smaller one.
    const MAX_RESERVE_BYTES: u64 = 512 << 20;

    pub(crate) fn new(data: &Path) -> Self {
        let size = sizes(data).map_or(u64::MAX, |(size, _)| size);
        Self { data: data.to_owned(), reserve: Self::MAX_RESERVE_BYTES.min(size / 20) }
    }

    pub(crate) fn reserve(&self) -> u64 {
        self.reserve
    }

    /// Whether the free space is below the reserve.
    pub(crate) fn is_full(&self) -> bool {
        sizes(&self.data).is_some_and(|(_, free)| free < self.reserve)
    }

    /// Writes a file and reads it back.
    pub(crate) async fn probe(&self) -> io::Result<()> {
        let data = self.data.clone();
        tokio::task::spawn_blocking(move || probe(&data)).await.map_err(io::Error::other)?
    }

    #[cfg(test)]
    pub(crate) fn with_reserve(data: &Path, reserve: u64) -> Self {
        Self { data: data.to_owned(), reserve }
    }
}

/// Writes a file to a directory, and reads it back.
pub(crate) fn probe(directory: &Path) -> io::Result<()> {
    let mut file = tempfile::Builder::new().prefix(PROBE_PREFIX).tempfile_in(directory)?;
    let text = file.path().to_string_lossy().repeat(20);
    file.write_all(text.as_bytes())?;
    file.as_file().sync_all()?;
    if fs::read(file.path())? == text.as_bytes() {
        Ok(())
    } else {
        Err(io::Error::other("read other bytes than were written"))
    }
}

/// The disk usage of a file or a directory in bytes, ignoring files that are removed concurrently.
pub(super) fn disk_usage(path: &Path) -> io::Result<u64> {
    let data = fs::symlink_metadata(path)?;
    if !data.is_dir() {
        return Ok(allocated(&data));
    }
    let mut sum = 0;
    for entry in fs::read_dir(path)?.flatten() {
        let Ok(data) = entry.metadata() else { continue };
        sum += if data.is_dir() { disk_usage(&entry.path()).unwrap_or_default() } else { allocated(&data) };
    }
    Ok(sum)
}

fn allocated(data: &fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::blocks(data) * 512
}

/// The size and the free space of a file system.
fn sizes(path: &Path) -> Option<(u64, u64)> {
    let disk = rustix::fs::statvfs(path).ok()?;
    Some((disk.f_blocks * disk.f_frsize, disk.f_bavail * disk.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disk_usage_is_recursive() {
        let directory = tempfile::tempdir().unwrap();
        let folder = directory.path().join("a/b");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("c"), vec![1; 300_000]).unwrap();
        assert!(disk_usage(directory.path()).unwrap() >= 300_000);
        assert!(disk_usage(&folder.join("c")).unwrap() >= 300_000);
        assert!(!Disk::with_reserve(directory.path(), 0).is_full());
        assert!(Disk::with_reserve(directory.path(), u64::MAX).is_full());
    }
}
