use std::{
    fs::{self, File, OpenOptions},
    io,
    path::{Path, PathBuf},
};

use crate::error::Error;

/// A temporary directory of one build. The next build removes the directories of killed ones.
///
/// ```text
/// CACHE/workspaces-v0/
///   build-AbC123/         the directory
///   build-AbC123.lock     locked as long as its build runs
///   kept-AbC123/          of a build with --keep-workspace; never removed
/// ```
pub struct ScratchDirectory {
    path: PathBuf,
    lock_path: PathBuf,
    _lock: File,
    keep: bool,
}

impl ScratchDirectory {
    /// Creates a directory in the cache directory `cache`. With `keep`, it stays.
    ///
    /// # Errors
    /// The cache directory isn't writable.
    pub fn create(cache: &Path, keep: bool) -> Result<Self, Error> {
        let parent = cache.join("workspaces-v0");
        let failed = |error: io::Error| {
            Error::file("create a workspace in", &parent, &error)
                .help("set XDG_CACHE_HOME or VX_CACHE_DIR to a writable directory")
        };
        fs::create_dir_all(&parent).map_err(failed)?;
        remove_stale(&parent);
        let prefix = if keep { "kept-" } else { "build-" };
        // The lock file comes first: a directory without one is stale.
        let lock =
            tempfile::Builder::new().prefix(prefix).suffix(".lock").tempfile_in(&parent).map_err(failed)?;
        lock.as_file().lock().map_err(failed)?;
        let (lock, lock_path) = lock.keep().map_err(|error| failed(error.error))?;
        let path = lock_path.with_extension("");
        fs::create_dir(&path).map_err(failed)?;
        Ok(Self { path, lock_path, _lock: lock, keep })
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for ScratchDirectory {
    fn drop(&mut self) {
        if !self.keep {
            let _ = fs::remove_dir_all(&self.path);
        }
        let _ = fs::remove_file(&self.lock_path);
    }
}

/// Removes directories of builds that are not running: those with a free lock, and those without a lock,
/// which an orphaned go command may have created. Errors are ignored.
fn remove_stale(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let path = entry.path();
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if !name.starts_with("build-") {
            continue;
        }
        if !name.ends_with(".lock") {
            if !path.with_extension("lock").exists() {
                let _ = fs::remove_dir_all(&path);
            }
            continue;
        }
        let Ok(lock) = OpenOptions::new().write(true).open(&path) else { continue };
        if lock.try_lock().is_ok() {
            let _ = fs::remove_dir_all(path.with_extension(""));
            let _ = fs::remove_file(&path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workspace_goes_with_its_build_and_the_next_build_removes_a_killed_ones() {
        let cache = tempfile::tempdir().unwrap();
        let parent = cache.path().join("workspaces-v0");
        let live = ScratchDirectory::create(cache.path(), false).unwrap();
        // The directories of killed builds.
        fs::create_dir(parent.join("build-dead")).unwrap();
        fs::write(parent.join("build-dead.lock"), "").unwrap();
        fs::create_dir(parent.join("build-orphan")).unwrap();

        let next = ScratchDirectory::create(cache.path(), false).unwrap();
        assert!(live.path().is_dir() && next.path().is_dir());
        assert!(!parent.join("build-dead").exists() && !parent.join("build-orphan").exists());

        drop((live, next));
        assert_eq!(fs::read_dir(parent).unwrap().count(), 0);
    }

    #[test]
    fn a_kept_workspace_stays() {
        let cache = tempfile::tempdir().unwrap();
        let kept = ScratchDirectory::create(cache.path(), true).unwrap();
        let path = kept.path().to_owned();
        drop(kept);
        drop(ScratchDirectory::create(cache.path(), false).unwrap());
        assert!(path.is_dir());
    }
}
