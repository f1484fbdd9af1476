//! The module cache and build cache shared by all jobs; cleared when they exceed a size limit or the disk is
//! full.
//!
//! The go command does not detect missing files of a module, so a whole cache is renamed while no job runs,
//! and then removed. New jobs wait for the running ones to end.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::{RwLock, RwLockReadGuard};
use velox_gomod::modzip;

use super::{
    disk::{Disk, disk_usage},
    environment::{BUILD_CACHE, MODULE_CACHE},
    format_size,
};

/// The interval between measurements of the size, which read the metadata of every file.
const MEASURE_INTERVAL: Duration = Duration::from_secs(300);

/// The caches in the service's directory. Caches that the operator configured elsewhere are not cleared.
pub(super) struct JobCaches {
    directories: Vec<PathBuf>,
    limit: u64,
    disk: Disk,
    last_measured: Mutex<Option<Instant>>,
    /// Held by each job for reading.
    in_use: RwLock<()>,
    /// Held while the caches are measured and cleared.
    clearing: tokio::sync::Mutex<()>,
}

impl JobCaches {
    /// The caches in `data`, limited to `limit` bytes in total. Completes an interrupted removal.
    pub(super) fn new(data: &Path, is_configured: impl Fn(&str) -> bool, limit: u64, disk: Disk) -> Self {
        let own = [("GOMODCACHE", MODULE_CACHE), ("GOCACHE", BUILD_CACHE)];
        let own = own.into_iter().filter(|(variable, _)| !is_configured(variable));
        let directories: Vec<PathBuf> = own.map(|(_, path)| data.join(path)).collect();
        directories.iter().for_each(|directory| remove_retired(directory));
        Self {
            directories,
            limit,
            disk,
            last_measured: Mutex::default(),
            in_use: RwLock::default(),
            clearing: tokio::sync::Mutex::default(),
        }
    }

    /// Prevents clearing of the caches while the guard is held.
    pub(super) async fn acquire(&self) -> RwLockReadGuard<'_, ()> {
        self.in_use.read().await
    }

    /// Clears the caches if they exceed the limit, or if the disk is full and they occupy a part of it that
    /// matters.
    pub(super) async fn enforce_limit(&self) {
        if !self.is_due() && !self.disk.is_full() {
            return;
        }
        let _turn = self.clearing.lock().await;
        let directories = self.directories.clone();
        let sum = move || directories.iter().map(|it| disk_usage(it).unwrap_or_default()).sum();
        let total: u64 = tokio::task::spawn_blocking(sum).await.unwrap_or_default();
        let fills_disk = || self.disk.is_full() && total >= self.disk.reserve() / 2;
        if total <= self.limit && !fills_disk() {
            return;
        }
        {
            let _exclusive = self.in_use.write().await;
            tracing::info!(
                size = format_size(total),
                limit = format_size(self.limit),
                disk_is_full = self.disk.is_full(),
                "clearing the module cache and the build cache"
            );
            for directory in &self.directories {
                if let Err(error) = retire(directory) {
                    tracing::warn!(%error, cache = %directory.display(), "failed to clear a cache");
                }
            }
        }
        let directories = self.directories.clone();
        // Errors are logged.
        let _ =
            tokio::task::spawn_blocking(move || directories.iter().for_each(|it| remove_retired(it))).await;
    }

    fn is_due(&self) -> bool {
        let mut last = self.last_measured.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = last.is_none_or(|last| last.elapsed() >= MEASURE_INTERVAL);
        if is_due {
            *last = Some(Instant::now());
        }
        is_due
    }
}

fn retired(directory: &Path) -> PathBuf {
    directory.with_extension("old")
}

fn retire(directory: &Path) -> io::Result<()> {
    match fs::rename(directory, retired(directory)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

fn remove_retired(directory: &Path) {
    if let Err(error) = modzip::remove_all(&retired(directory)) {
        tracing::warn!(%error, "failed to remove a cleared cache");
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    /// Creates a directory with both caches, of 300 kB each.
    fn with_caches() -> tempfile::TempDir {
        let data = tempfile::tempdir().unwrap();
        for folder in ["go/pkg/mod/a@v1.0.0", "cache/go-build/00"] {
            let folder = data.path().join(folder);
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("file"), vec![1; 300_000]).unwrap();
            let mut read_only = fs::metadata(&folder).unwrap().permissions();
            read_only.set_readonly(true);
            fs::set_permissions(&folder, read_only).unwrap();
        }
        data
    }

    fn caches(data: &tempfile::TempDir, limit: u64) -> JobCaches {
        JobCaches::new(data.path(), |_| false, limit, Disk::with_reserve(data.path(), 0))
    }

    fn existing(data: &tempfile::TempDir) -> [bool; 4] {
        ["go/pkg", "cache/go-build", "go/pkg.old", "cache/go-build.old"]
            .map(|folder| data.path().join(folder).exists())
    }

    #[tokio::test]
    async fn large_caches_are_cleared_when_unused() {
        let data = with_caches();
        let caches = caches(&data, 500_000);
        let job = caches.acquire().await;
        let mut enforcing = std::pin::pin!(caches.enforce_limit());
        // Measures the size, then waits for the job.
        while caches.in_use.try_read().is_ok() {
            assert!(enforcing.as_mut().now_or_never().is_none());
            tokio::task::yield_now().await;
        }
        assert_eq!(existing(&data), [true, true, false, false]);
        drop(job);
        enforcing.await;
        assert_eq!(existing(&data), [false; 4]);
    }

    #[tokio::test]
    async fn small_caches_are_kept() {
        let data = with_caches();
        caches(&data, 1 << 20).enforce_limit().await;
        assert_eq!(existing(&data), [true, true, false, false]);
    }

    #[tokio::test]
    async fn full_disk_clears_caches_that_fill_it() {
        let data = with_caches();
        let small = Disk::with_reserve(data.path(), u64::MAX);
        JobCaches::new(data.path(), |_| false, 1 << 20, small).enforce_limit().await;
        assert_eq!(existing(&data), [true, true, false, false], "they are a small part of the reserve");
    }

    #[tokio::test]
    async fn caches_of_the_operator_are_kept() {
        let data = with_caches();
        let disk = Disk::with_reserve(data.path(), 0);
        JobCaches::new(data.path(), |variable| variable == "GOMODCACHE", 1000, disk).enforce_limit().await;
        assert_eq!(existing(&data), [true, false, false, false]);
    }

    #[test]
    fn interrupted_removals_are_finished() {
        let data = with_caches();
        retire(&data.path().join("go/pkg")).unwrap();
        caches(&data, 1 << 20);
        assert_eq!(existing(&data), [false, true, false, false]);
    }
}
