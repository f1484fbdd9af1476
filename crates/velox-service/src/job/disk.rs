//! The disk limit of a job.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use super::format_size;

const POLL_INTERVAL: Duration = Duration::from_millis(500);
/// The free space reserved for the service itself.
const RESERVED_BYTES: u64 = 256 << 20;

pub(super) struct DiskLimit {
    directory: PathBuf,
    data: PathBuf,
    limit: u64,
}

impl DiskLimit {
    pub(super) fn new(directory: &Path, data: &Path, limit: u64) -> Self {
        Self { directory: directory.to_owned(), data: data.to_owned(), limit }
    }

    /// Waits until the limit is exceeded and returns the error message.
    pub(super) async fn exceeded(&self) -> String {
        loop {
            tokio::time::sleep(POLL_INTERVAL).await;
            let directory = self.directory.clone();
            // Errors are ignored: the next poll tries again.
            let used = tokio::task::spawn_blocking(move || disk_usage(&directory).unwrap_or_default()).await;
            if used.unwrap_or_default() > self.limit {
                return format!("the build exceeded the disk limit of {}", format_size(self.limit));
            }
            if free_space(&self.data).is_some_and(|free| free < RESERVED_BYTES) {
                return "the disk of the service is full; try again later".to_owned();
            }
        }
    }
}

/// The disk usage of a directory in bytes, ignoring files that are removed concurrently.
pub(super) fn disk_usage(directory: &Path) -> io::Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(directory)?.flatten() {
        let Ok(data) = entry.metadata() else { continue };
        sum += if data.is_dir() { disk_usage(&entry.path()).unwrap_or_default() } else { allocated(&data) };
    }
    Ok(sum)
}

#[cfg(unix)]
fn allocated(data: &fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::blocks(data) * 512
}

#[cfg(not(unix))]
fn allocated(data: &fs::Metadata) -> u64 {
    data.len()
}

#[cfg(unix)]
fn free_space(path: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(path).ok()?;
    Some(disk.f_bavail * disk.f_frsize)
}

#[cfg(not(unix))]
fn free_space(_: &Path) -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn disk_usage_is_recursive() {
        let directory = tempfile::tempdir().unwrap();
        let folder = directory.path().join("a/b");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("c"), vec![1; 300_000]).unwrap();
        assert!(disk_usage(directory.path()).unwrap() >= 300_000);
        let message = DiskLimit::new(directory.path(), directory.path(), 200 << 10).exceeded().await;
        assert!(message.contains("disk limit of 200 KiB"), "{message}");
    }
}
