//! Go toolchain modules: `golang.org/toolchain@v0.0.1-go1.26.4.linux-amd64` (<https://go.dev/doc/toolchain>).

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use velox_gomod::{goversion::GoVersion, module::ModuleVersion};

use crate::modcache::{CacheFile, ModCache, ModCacheError};

/// The module path of all Go toolchains.
pub const TOOLCHAIN_MODULE: &str = "golang.org/toolchain";
const VERSION_PREFIX: &str = "v0.0.1-";

/// The module version of a toolchain (`go1.26.4`) for a platform.
pub fn toolchain_module(toolchain: &str, os: &str, arch: &str) -> ModuleVersion {
    ModuleVersion {
        path: TOOLCHAIN_MODULE.to_owned(),
        version: format!("{VERSION_PREFIX}{toolchain}.{os}-{arch}"),
    }
}

/// Returns the newest release for a platform from a list of toolchain module versions, among those that `counts` accepts.
pub fn newest_release(
    versions: &[String],
    os: &str,
    arch: &str,
    counts: impl Fn(&GoVersion) -> bool,
) -> Option<String> {
    let suffix = format!(".{os}-{arch}");
    versions
        .iter()
        .filter_map(|version| version.strip_prefix(VERSION_PREFIX)?.strip_suffix(&suffix))
        .filter_map(|name| Some((GoVersion::from_toolchain_name(name)?, name)))
        .filter(|(version, _)| version.is_release() && counts(version))
        .max()
        .map(|(_, name)| name.to_owned())
}

/// An installed toolchain in the module cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstalledToolchain {
    /// The GOROOT directory.
    pub root: PathBuf,
    /// The `h1:` checksum of the zip.
    pub sum: String,
}

impl InstalledToolchain {
    /// The path of the go command.
    pub fn program(&self) -> PathBuf {
        self.root.join("bin").join(format!("go{}", std::env::consts::EXE_SUFFIX))
    }
}

/// Finds an installed toolchain in the cache.
pub fn find_installed(cache: &ModCache, toolchain: &ModuleVersion) -> Option<InstalledToolchain> {
    let root = cache.dir(toolchain).ok()?;
    let sum = fs::read_to_string(cache.path(toolchain, CacheFile::ZipHash).ok()?).ok()?.trim().to_owned();
    let partial = cache.path(toolchain, CacheFile::Partial).ok()?.exists();
    let ready = InstalledToolchain { root, sum };
    let whole = !partial && size(&ready.root.join("src/_go.mod")) == size(&ready.root.join("src/go.mod"));
    (whole && is_executable(&ready.program())).then_some(ready)
}

/// Makes an unpacked toolchain runnable, as the go command does: module zips carry no executable bits and no
/// nested go.mod files.
pub(crate) fn finish_install(root: &Path) -> Result<(), ModCacheError> {
    let failed = |path: &Path, source| ModCacheError::File { path: path.to_owned(), source };
    let within = |folder: &str, wanted: &dyn Fn(&str) -> bool| {
        let folder = root.join(folder);
        each_file(&folder, &mut |path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if wanted(&name) { make_executable(path) } else { Ok(()) }
        })
        .map_err(|source| failed(&folder, source))
    };
    // `bin` last: other processes check it to detect a complete installation.
    within("pkg/tool", &|_| true)?;
    within("lib", &|name| name.starts_with("go_") && name.ends_with("_exec"))?;
    let source = root.join("src");
    let last = source.join("_go.mod");
    each_file(&source, &mut |path| {
        if path.ends_with("_go.mod") && path != last { copy_go_mod(path) } else { Ok(()) }
    })
    .and_then(|()| if last.is_file() { copy_go_mod(&last) } else { Ok(()) })
    .map_err(|error| failed(&source, error))?;
    within("bin", &|name| name != "go")?;
    within("bin", &|name| name == "go")
}

fn each_file(folder: &Path, work: &mut dyn FnMut(&Path) -> io::Result<()>) -> io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            each_file(&entry.path(), work)?;
        } else {
            work(&entry.path())?;
        }
    }
    Ok(())
}

/// Copies `_go.mod` to `go.mod` in the same read-only directory.
fn copy_go_mod(path: &Path) -> io::Result<()> {
    let (Some(folder), target) = (path.parent(), path.with_file_name("go.mod")) else { return Ok(()) };
    if size(&target) == size(path) {
        return Ok(());
    }
    let (of_folder, of_file) = (fs::metadata(folder)?.permissions(), fs::metadata(path)?.permissions());
    make_writable(folder, &of_folder)?;
    let content = fs::read(path)?;
    // In place: another go command may be writing the same file.
    let written = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&target)
        .and_then(|mut file| file.write_all(&content));
    let closed = written.and_then(|()| fs::set_permissions(&target, of_file));
    fs::set_permissions(folder, of_folder)?;
    closed
}

fn size(path: &Path) -> Option<u64> {
    fs::metadata(path).ok().map(|metadata| metadata.len())
}

#[cfg(unix)]
fn make_writable(path: &Path, permissions: &fs::Permissions) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, fs::Permissions::from_mode(permissions.mode() | 0o200))
}

#[cfg(unix)]
fn make_executable(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = fs::metadata(path)?.permissions().mode();
    fs::set_permissions(path, fs::Permissions::from_mode((mode & 0o777) | 0o111))
}

#[cfg(unix)]
fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

#[cfg(not(unix))]
fn make_writable(_path: &Path, _permissions: &fs::Permissions) -> io::Result<()> {
    Ok(())
}

#[cfg(not(unix))]
fn make_executable(_path: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(not(unix))]
fn is_executable(path: &Path) -> bool {
    path.is_file()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_release_for_a_platform_is_found() {
        let list = [
            "v0.0.1-go1.9.9.linux-amd64",
            "v0.0.1-go1.26.10.linux-amd64",
            "v0.0.1-go1.26.9.linux-amd64",
            "v0.0.1-go1.27rc1.linux-amd64",
            "v0.0.1-go1.27.0.darwin-arm64",
            "v0.0.1-go1.28.0.linux-arm",
            "v0.0.2-go1.30.0.linux-amd64",
            "nonsense",
        ]
        .map(str::to_owned);
        let newest = |os: &str, minor: &str| {
            let minor: GoVersion = minor.parse().unwrap();
            newest_release(&list, os, "amd64", |version| version.is_same_minor(&minor))
        };
        assert_eq!(newest_release(&list, "linux", "amd64", |_| true).as_deref(), Some("go1.26.10"));
        assert_eq!(newest("linux", "1.26.3").as_deref(), Some("go1.26.10"));
        assert_eq!(newest("linux", "1.9").as_deref(), Some("go1.9.9"));
        assert_eq!((newest("linux", "1.27"), newest("plan9", "1.26")), (None, None));
        assert_eq!(toolchain_module("go1.26.4", "linux", "amd64").version, "v0.0.1-go1.26.4.linux-amd64");
    }
}
