//! The caches of modules and compiled packages, which all jobs share. Those that have grown too large begin anew.
//!
//! A module of which a part is missing would be taken for a whole one. So a cache goes all at once, by another name, while no
//! job runs: jobs that come meanwhile wait for those that are on their way.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::{RwLock, RwLockReadGuard};
use velox_gomod::modzip;

use super::{
    disk::taken,
    environment::{MODULES, PACKAGES},
    size,
};

/// How often it is looked how much they take: it means to look at every file.
const OFTEN_ENOUGH: Duration = Duration::from_secs(300);

/// The caches that are the service's own. An operator who names others looks after them.
pub(super) struct Caches {
    directories: Vec<PathBuf>,
    limit: u64,
    measured: Mutex<Option<Instant>>,
    /// Each job holds it to read.
    in_use: RwLock<()>,
}

impl Caches {
    /// Those in the service's directory `data`, which may take `limit` bytes together. What a service that was killed was
    /// about to remove is removed.
    pub(super) fn new(data: &Path, is_named: impl Fn(&str) -> bool, limit: u64) -> Self {
        let own = [("GOMODCACHE", MODULES), ("GOCACHE", PACKAGES)];
        let own = own.into_iter().filter(|(variable, _)| !is_named(variable));
        let directories: Vec<PathBuf> = own.map(|(_, path)| data.join(path)).collect();
        directories.iter().for_each(|directory| remove(directory));
        Self { directories, limit, measured: Mutex::default(), in_use: RwLock::default() }
    }

    /// As long as this is held, the caches stay.
    pub(super) async fn used(&self) -> RwLockReadGuard<'_, ()> {
        self.in_use.read().await
    }

    /// Lets them begin anew if they take too much.
    pub(super) async fn look_after(&self) {
        if !self.is_due() {
            return;
        }
        let directories = self.directories.clone();
        let all = move || directories.iter().map(|directory| taken(directory).unwrap_or_default()).sum();
        let all: u64 = tokio::task::spawn_blocking(all).await.unwrap_or_default();
        if all <= self.limit {
            return;
        }
        tracing::info!(
            "the caches of modules and packages take {}, and may take {}: they begin anew",
            size(all),
            size(self.limit)
        );
        {
            let _alone = self.in_use.write().await;
            for directory in &self.directories {
                if let Err(error) = put_away(directory) {
                    tracing::warn!(%error, cache = %directory.display(), "a cache stays, though it is too large");
                }
            }
        }
        let directories = self.directories.clone();
        // Whoever runs the jobs has to know nothing of how it ends.
        let _ = tokio::task::spawn_blocking(move || directories.iter().for_each(|it| remove(it))).await;
    }

    fn is_due(&self) -> bool {
        let mut measured = self.measured.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = measured.is_none_or(|measured| measured.elapsed() >= OFTEN_ENOUGH);
        if is_due {
            *measured = Some(Instant::now());
        }
        is_due
    }
}

fn old(directory: &Path) -> PathBuf {
    directory.with_extension("old")
}

fn put_away(directory: &Path) -> io::Result<()> {
    match fs::rename(directory, old(directory)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// Removes what was put away.
fn remove(directory: &Path) {
    if let Err(error) = modzip::remove_all(&old(directory)) {
        tracing::warn!(%error, "what was put away of a cache stays");
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    /// A directory with both caches, of 300 kB each.
    fn filled() -> tempfile::TempDir {
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

    fn are_there(data: &tempfile::TempDir) -> [bool; 4] {
        ["go/pkg", "cache/go-build", "go/pkg.old", "cache/go-build.old"]
            .map(|folder| data.path().join(folder).exists())
    }

    #[tokio::test]
    async fn what_takes_too_much_goes_once_nobody_uses_it() {
        let data = filled();
        let caches = Caches::new(data.path(), |_| false, 500_000);
        let used = caches.used().await;
        let mut looking = std::pin::pin!(caches.look_after());
        // It measures, and then it waits.
        while caches.in_use.try_read().is_ok() {
            assert!(looking.as_mut().now_or_never().is_none());
            tokio::task::yield_now().await;
        }
        assert_eq!(are_there(&data), [true, true, false, false]);
        drop(used);
        looking.await;
        assert_eq!(are_there(&data), [false; 4]);
    }

    #[tokio::test]
    async fn what_there_is_room_for_stays() {
        let data = filled();
        Caches::new(data.path(), |_| false, 1 << 20).look_after().await;
        assert_eq!(are_there(&data), [true, true, false, false]);
    }

    #[tokio::test]
    async fn what_the_operator_named_is_not_touched() {
        let data = filled();
        Caches::new(data.path(), |variable| variable == "GOMODCACHE", 1000).look_after().await;
        assert_eq!(are_there(&data), [true, false, false, false]);
    }

    #[test]
    fn what_a_killed_service_put_away_is_removed() {
        let data = filled();
        put_away(&data.path().join("go/pkg")).unwrap();
        Caches::new(data.path(), |_| false, 1 << 20);
        assert_eq!(are_there(&data), [false, true, false, false]);
    }
}
