use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use anyhow::{Context, Result, bail};

use crate::proxy::BenchProxy;

/// Free disk space that a run needs, with a copy of its sandbox.
const MIN_FREE_BYTES: u64 = 10 << 30;
/// ext4's `RECENCY_DIRTY`.
const INODE_RECENCY: Duration = Duration::from_secs(300);

/// A user's machine: a home, caches, a working directory and an environment. Discarded when dropped.
pub(crate) struct Sandbox {
    directory: PathBuf,
    goproxy: String,
}

impl Sandbox {
    /// Creates an empty sandbox.
    pub(crate) fn fresh(directory: PathBuf, proxy: &BenchProxy) -> Result<Self> {
        let sandbox = Self { directory, goproxy: proxy.goproxy() };
        discard(&sandbox.directory)?;
        for name in ["home", "modules", "builds", "cache", "tmp", "work"] {
            let path = sandbox.directory.join(name);
            fs::create_dir_all(&path).with_context(|| format!("failed to create {}", path.display()))?;
        }
        Ok(sandbox)
    }

    /// The working directory.
    pub(crate) fn work(&self) -> PathBuf {
        self.directory.join("work")
    }

    /// GOCACHE.
    pub(crate) fn builds(&self) -> PathBuf {
        self.directory.join("builds")
    }

    /// VX_CACHE_DIR.
    pub(crate) fn cache(&self) -> PathBuf {
        self.directory.join("cache")
    }

    /// The output of the last command.
    pub(crate) fn log(&self) -> PathBuf {
        self.directory.join("log")
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.work().join(name);
        fs::write(&path, text).with_context(|| format!("failed to write {}", path.display()))
    }

    /// A command with this environment.
    pub(crate) fn command(&self, program: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(arguments).current_dir(self.work()).env_clear();
        command.envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
        for (name, part) in [
            ("HOME", "home"),
            ("GOMODCACHE", "modules"),
            ("GOCACHE", "builds"),
            ("VX_CACHE_DIR", "cache"),
            ("TMPDIR", "tmp"),
        ] {
            command.env(name, self.directory.join(part));
        }
        command.env("GOPROXY", &self.goproxy).env("GONOSUMDB", "*").env("GONOSUMCHECK", "1");
        // The machine's toolchain, and a module cache that can be removed.
        command.env("GOTOOLCHAIN", "local").env("GOFLAGS", "-modcacherw");
        // A service that is root would refuse to start; Velox builds as its own user, too.
        command.env("VX_SERVER_JOB_USER", "root");
        command
    }

    /// Saves the current state for [`restore`](Self::restore).
    pub(crate) fn keep(&self) -> Result<()> {
        discard(&self.kept())?;
        copy(&self.directory, &self.kept())
    }

    /// Restores the saved state, at the same paths, which caches refer to.
    pub(crate) fn restore(&self) -> Result<()> {
        discard(&self.directory)?;
        copy(&self.kept(), &self.directory)
    }

    fn kept(&self) -> PathBuf {
        self.directory.with_extension("kept")
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        // The next benchmark removes leftovers.
        let _ = discard(&self.directory);
        let _ = discard(&self.kept());
    }
}

/// Copies a tree with its modification times, by which the go command keys its index.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let status = Command::new("cp").arg("-a").arg(from).arg(to).status().context("failed to start cp")?;
    if !status.success() {
        bail!("cp -a {} {}: {status}", from.display(), to.display());
    }
    Ok(())
}

/// Renames a tree, to be removed with its parent directory when the benchmark ends: for [`INODE_RECENCY`] after the removal of
/// many files, ext4 searches for inodes that were not deleted recently whenever it creates one, which takes up to 20 s of a
/// build.
fn discard(directory: &Path) -> Result<()> {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let to = directory.with_file_name(format!("discarded-{}", NUMBER.fetch_add(1, Ordering::Relaxed)));
    missing(fs::rename(directory, &to))
        .with_context(|| format!("failed to rename {}", directory.display()))?;
    let disk = rustix::fs::statvfs(directory.parent().unwrap_or(directory))?;
    if disk.f_bavail * disk.f_frsize > MIN_FREE_BYTES {
        return Ok(());
    }
    eprintln!("the disk is nearly full: earlier runs are removed, and the benchmark waits for 5 minutes");
    for number in 0..NUMBER.load(Ordering::Relaxed) {
        remove(&directory.with_file_name(format!("discarded-{number}")))?;
    }
    std::thread::sleep(INODE_RECENCY);
    Ok(())
}

fn missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// Removes a tree, read-only directories included.
pub(crate) fn remove(directory: &Path) -> Result<()> {
    missing(fs::remove_dir_all(directory))
        .or_else(|_| writable(directory).and_then(|()| missing(fs::remove_dir_all(directory))))
        .with_context(|| format!("failed to remove {}", directory.display()))
}

fn writable(directory: &Path) -> io::Result<()> {
    fs::set_permissions(directory, fs::Permissions::from_mode(0o700))?;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            writable(&entry.path())?;
        }
    }
    Ok(())
}
