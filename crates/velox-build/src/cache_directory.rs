//! The cache directory of vx.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use crate::error::Error;

/// VX_CACHE_DIR, else `velox` in the user's cache directory, else in the temporary directory.
#[must_use]
pub fn cache_directory(environment: &BTreeMap<String, String>) -> PathBuf {
    let variable = |name: &str| environment.get(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let absolute = |path: PathBuf| path.is_absolute().then_some(path);
    variable("VX_CACHE_DIR")
        .and_then(absolute)
        .or_else(|| variable("XDG_CACHE_HOME").and_then(absolute).map(|path| path.join("velox")))
        .or_else(|| variable("LOCALAPPDATA").and_then(absolute).map(|path| path.join("velox")))
        .or_else(|| {
            let home = variable("HOME").or_else(|| variable("USERPROFILE")).and_then(absolute)?;
            let caches = if cfg!(target_os = "macos") { "Library/Caches" } else { ".cache" };
            Some(home.join(caches).join("velox"))
        })
        .unwrap_or_else(|| std::env::temp_dir().join("velox"))
}

/// Creates the cache directory for this user alone, and fails if another user could write to it: what is in it
/// is compiled, published and run.
pub(crate) fn secure(directory: &Path) -> Result<(), Error> {
    check_trusted("VX_CACHE_DIR", directory)?;
    if fs::metadata(directory).is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
        // Later steps report errors with their own help.
        let _ = create_private(directory);
    }
    Ok(())
}

/// Fails if another user could write to the directory that this variable sets: GOMODCACHE has the sources that are
/// compiled, GOCACHE the compiled packages, and Go verifies neither when it uses them.
///
/// Root may use Go's caches of another user: in a container, they are often the host's, mounted.
pub(crate) fn check_go_cache(variable: &str, directory: &Path) -> Result<(), Error> {
    let is_mounted = is_root() && fs::metadata(directory).is_ok_and(|data| !is_writable_by_all(&data));
    if is_mounted { Ok(()) } else { check_trusted(variable, directory) }
}

fn check_trusted(variable: &str, directory: &Path) -> Result<(), Error> {
    // A missing directory is created by this user.
    match fs::metadata(directory).ok().as_ref().and_then(untrusted) {
        None => Ok(()),
        Some(reason) => Err(Error::configuration(format!(
            "the cache directory {} ({variable}) {reason}, who could change what is built",
            directory.display()
        ))
        .help(format!(
            "set {variable} to a directory of your own, or change the owner and the mode of this one"
        ))),
    }
}

#[cfg(unix)]
fn create_private(directory: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    directory.parent().map_or(Ok(()), fs::create_dir_all)?;
    fs::DirBuilder::new().mode(0o700).create(directory)
}

#[cfg(not(unix))]
fn create_private(directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)
}

/// Whether a file or directory belongs to this user or to root.
#[cfg(unix)]
pub(crate) fn is_owned(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    fs::symlink_metadata(path).is_ok_and(|data| is_trusted_user(data.uid()))
}

#[cfg(not(unix))]
pub(crate) fn is_owned(_: &Path) -> bool {
    true
}

#[cfg(unix)]
fn is_trusted_user(user: u32) -> bool {
    user == 0 || user == rustix::process::geteuid().as_raw()
}

/// Why a directory can't be trusted, if so.
#[cfg(unix)]
fn untrusted(data: &fs::Metadata) -> Option<String> {
    use std::os::unix::fs::MetadataExt as _;
    if !is_trusted_user(data.uid()) {
        return Some(format!("belongs to user {}", data.uid()));
    }
    is_writable_by_all(data).then(|| "is writable by every user".to_owned())
}

/// In a directory with the sticky bit, nobody can replace the files of others.
#[cfg(unix)]
fn is_writable_by_all(data: &fs::Metadata) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    data.mode() & 0o1002 == 0o002
}

#[cfg(not(unix))]
fn is_writable_by_all(_: &fs::Metadata) -> bool {
    false
}

#[cfg(unix)]
fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[cfg(not(unix))]
fn is_root() -> bool {
    false
}

#[cfg(not(unix))]
fn untrusted(_: &fs::Metadata) -> Option<String> {
    None
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_directory_that_others_can_write_to_is_refused() {
        let place = tempfile::tempdir().unwrap();
        let cache = place.path().join("a/cache");
        secure(&cache).unwrap();
        let mode = |mode: u32| fs::set_permissions(&cache, fs::Permissions::from_mode(mode)).unwrap();
        assert_eq!(fs::metadata(&cache).unwrap().permissions().mode() & 0o777, 0o700);
        for (bits, is_secure) in
            [(0o777, false), (0o1777, true), (0o755, true), (0o775, true), (0o702, false)]
        {
            mode(bits);
            assert_eq!(secure(&cache).is_ok(), is_secure, "{bits:o}");
        }
        assert!(is_owned(&cache) && !is_owned(&cache.join("missing")));
        assert!(check_trusted("GOCACHE", &cache.join("missing")).is_ok());
    }

    #[test]
    fn directories_of_other_users_are_refused() {
        let place = tempfile::tempdir().unwrap();
        let chown = |user| std::os::unix::fs::chown(place.path(), Some(user), None);
        if chown(1234).is_err() {
            println!("skipped: only root can change the owner of a directory");
            return;
        }
        let error = secure(place.path()).unwrap_err().diagnostics[0].message.clone();
        assert!(error.contains("VX_CACHE_DIR") && error.contains("belongs to user 1234"), "{error}");
        // Root's containers mount Go's caches of the host's user.
        check_go_cache("GOMODCACHE", place.path()).unwrap();
        fs::set_permissions(place.path(), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(check_go_cache("GOMODCACHE", place.path()).is_err());
        chown(0).unwrap();
        fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).unwrap();
        secure(place.path()).unwrap();
    }
}
