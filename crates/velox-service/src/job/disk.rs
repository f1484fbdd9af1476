//! How much of the disk a job takes.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use super::size;

/// How often it is looked at.
const OFTEN_ENOUGH: Duration = Duration::from_millis(500);
/// What has to stay free for the service itself, in bytes.
const RESERVE: u64 = 256 << 20;

/// Watches a job's directory.
pub(super) struct Disk {
    directory: PathBuf,
    data: PathBuf,
    limit: u64,
}

impl Disk {
    pub(super) fn new(directory: &Path, data: &Path, limit: u64) -> Self {
        Self { directory: directory.to_owned(), data: data.to_owned(), limit }
    }

    /// Ends when the job takes too much, with a sentence on it.
    pub(super) async fn watch(&self) -> String {
        loop {
            tokio::time::sleep(OFTEN_ENOUGH).await;
            let directory = self.directory.clone();
            // What can't be counted now, is next time.
            let taken = tokio::task::spawn_blocking(move || taken(&directory).unwrap_or_default()).await;
            if taken.unwrap_or_default() > self.limit {
                return format!(
                    "it took more than the {} of disk that a build may take here",
                    size(self.limit)
                );
            }
            if free(&self.data).is_some_and(|free| free < RESERVE) {
                return "the service's disk is full: try again later".to_owned();
            }
        }
    }
}

/// The space that the files below a directory take, in bytes. What goes away meanwhile takes none.
pub(super) fn taken(directory: &Path) -> io::Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(directory)?.flatten() {
        let Ok(data) = entry.metadata() else { continue };
        sum += if data.is_dir() { taken(&entry.path()).unwrap_or_default() } else { occupied(&data) };
    }
    Ok(sum)
}

#[cfg(unix)]
fn occupied(data: &fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::blocks(data) * 512
}

#[cfg(not(unix))]
fn occupied(data: &fs::Metadata) -> u64 {
    data.len()
}

#[cfg(unix)]
fn free(path: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(path).ok()?;
    Some(disk.f_bavail * disk.f_frsize)
}

#[cfg(not(unix))]
fn free(_: &Path) -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_a_job_writes_is_counted_in_all_its_folders() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("a/b");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("c"), vec![1; 300_000]).unwrap();
        assert!(taken(place.path()).unwrap() >= 300_000);
        let said = Disk::new(place.path(), place.path(), 200 << 10).watch().await;
        assert!(said.contains("200 KiB of disk"), "{said}");
    }
}
