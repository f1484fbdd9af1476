//! The module cache, GOMODCACHE (<https://go.dev/ref/mod#module-cache>).

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

use tempfile::NamedTempFile;
use velox_gomod::{
    dirhash::{self, DirHashError},
    module::{self, ModuleError, ModuleVersion},
    modzip::{self, CheckedFiles, ModZipError},
};

/// A module cache in Go's layout, shared with every go command on the machine:
///
/// ```text
/// GOMODCACHE
/// ├── cache/download/github.com/!burnt!sushi/toml/@v
/// │   ├── v1.0.0.info      version and time, as JSON
/// │   ├── v1.0.0.mod       its go.mod
/// │   ├── v1.0.0.zip       its content
/// │   ├── v1.0.0.ziphash   the zip's h1 sum, once it is verified
/// │   ├── v1.0.0.lock      held while one of these is written or unpacked
/// │   └── v1.0.0.partial   exists while the directory below is being unpacked
/// └── github.com/!burnt!sushi/toml@v1.0.0
///     └── …                the content, read-only
/// ```
///
/// `!` with a lowercase letter encodes an uppercase one (<https://go.dev/ref/mod#goproxy-protocol>).
#[derive(Debug, Clone)]
pub struct ModCache {
    root: PathBuf,
}

/// The checksums of a module version, as in go.sum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModuleSums {
    /// The checksum of the zip: the line `path version`.
    pub zip: String,
    /// The checksum of the go.mod: the line `path version/go.mod`.
    pub go_mod: String,
}

/// A kind of file of a version in `cache/download`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheFile {
    /// `.info`
    Info,
    /// `.mod`
    Mod,
    /// `.zip`
    Zip,
    /// `.ziphash`
    ZipHash,
    /// `.lock`
    Lock,
    /// `.partial`
    Partial,
}

impl CacheFile {
    fn suffix(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Mod => "mod",
            Self::Zip => "zip",
            Self::ZipHash => "ziphash",
            Self::Lock => "lock",
            Self::Partial => "partial",
        }
    }
}

/// An error reading from or writing to the module cache.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModCacheError {
    /// The module path or version is malformed.
    #[error(transparent)]
    Module(#[from] ModuleError),
    /// The zip isn't a valid zip of this module.
    #[error("invalid zip for module {module}: {source}")]
    Zip {
        /// `path@version`
        module: String,
        /// The cause.
        source: ModZipError,
    },
    /// Computing the zip's checksum failed.
    #[error(transparent)]
    Sum(#[from] DirHashError),
    /// The `.info` file isn't a JSON object with this version.
    #[error("invalid information for module {module}: expected JSON with this Version, found {info}")]
    Info {
        /// `path@version`
        module: String,
        /// The content.
        info: String,
    },
    /// The cache contains different content for this module version.
    #[error(
        "checksum mismatch for the {file} of {module}: the module cache has {cached}, the new one is {new}; \
         if the cached one is wrong, remove `{}`", path.display()
    )]
    Conflict {
        /// `path@version`
        module: String,
        /// `zip` or `go.mod`
        file: &'static str,
        /// The checksum of the cached file.
        cached: String,
        /// The checksum of the new file.
        new: String,
        /// The cached file.
        path: PathBuf,
    },
    /// A file or directory of the cache can't be read or written.
    #[error("failed to use the module cache at `{}`: {source}", path.display())]
    File {
        /// The file or directory.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

/// The lock of a version, released on drop.
#[derive(Debug)]
pub struct ModCacheLock {
    _file: File,
}

impl ModCache {
    /// Creates a cache at the directory of `go env GOMODCACHE`, which need not exist yet.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The directory of the cache.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The path of a version's file.
    pub fn path(&self, module: &ModuleVersion, file: CacheFile) -> Result<PathBuf, ModCacheError> {
        let version = module::escape_version(&module.version)?;
        Ok(self.versions(module)?.join(format!("{version}.{}", file.suffix())))
    }

    /// The directory of a version's unpacked content.
    pub fn dir(&self, module: &ModuleVersion) -> Result<PathBuf, ModCacheError> {
        let path = module::escape_path(&module.path)?;
        let version = module::escape_version(&module.version)?;
        Ok(self.root.join(format!("{path}@{version}")))
    }

    /// The versions of a module that the cache knows, unsorted: those with a go.mod, and those that the go command listed.
    pub fn known_versions(&self, path: &str) -> Vec<String> {
        let module = ModuleVersion { path: path.to_owned(), version: String::new() };
        let Ok(directory) = self.versions(&module) else { return Vec::new() };
        let listed = fs::read_to_string(directory.join("list")).unwrap_or_default();
        let files = fs::read_dir(directory).into_iter().flatten().flatten();
        let versions = files.filter_map(|file| {
            module::unescape_version(file.file_name().to_str()?.strip_suffix(".mod")?).ok()
        });
        listed.lines().map(str::to_owned).chain(versions).collect()
    }

    fn has(&self, module: &ModuleVersion, file: CacheFile) -> bool {
        self.path(module, file).is_ok_and(|path| path.is_file())
    }

    /// Whether the cache has the info file, the go.mod and a verified zip of a version.
    pub fn contains(&self, module: &ModuleVersion) -> bool {
        [CacheFile::Info, CacheFile::Mod, CacheFile::Zip, CacheFile::ZipHash]
            .into_iter()
            .all(|file| self.has(module, file))
    }

    /// Whether only the info file of a version is missing, which the go command doesn't need for a build.
    pub fn lacks_only_info(&self, module: &ModuleVersion) -> bool {
        [CacheFile::Mod, CacheFile::Zip, CacheFile::ZipHash].into_iter().all(|file| self.has(module, file))
            && !self.has(module, CacheFile::Info)
    }

    /// Whether the cache has a version's go.mod.
    pub fn has_go_mod(&self, module: &ModuleVersion) -> bool {
        self.has(module, CacheFile::Mod)
    }

    /// Whether a version with this checksum is completely unpacked, trusting its `.ziphash`.
    pub fn is_unpacked(&self, module: &ModuleVersion, sum: &str) -> bool {
        self.zip_sum(module).is_ok_and(|recorded| recorded == sum)
            && self.has(module, CacheFile::Mod)
            && !self.has(module, CacheFile::Partial)
            && self.dir(module).is_ok_and(|dir| dir.is_dir())
    }

    /// The recorded checksum of a version's zip.
    pub fn zip_sum(&self, module: &ModuleVersion) -> Result<String, ModCacheError> {
        let path = self.path(module, CacheFile::ZipHash)?;
        Ok(fs::read_to_string(&path).map_err(file_error(&path))?.trim().to_owned())
    }

    /// The checksum of a version's go.mod.
    pub fn go_mod_sum(&self, module: &ModuleVersion) -> Result<String, ModCacheError> {
        let path = self.path(module, CacheFile::Mod)?;
        Ok(dirhash::hash_go_mod(&fs::read(&path).map_err(file_error(&path))?))
    }

    /// The recorded checksum of a version's zip and the checksum of its go.mod.
    pub fn sums(&self, module: &ModuleVersion) -> Result<ModuleSums, ModCacheError> {
        Ok(ModuleSums { zip: self.zip_sum(module)?, go_mod: self.go_mod_sum(module)? })
    }

    /// Waits for the version's lock, which the go command also takes (on Linux, `flock`).
    pub fn lock(&self, module: &ModuleVersion) -> Result<ModCacheLock, ModCacheError> {
        self.create_versions(module)?;
        let path = self.path(module, CacheFile::Lock)?;
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).open(&path);
        let file = file.map_err(file_error(&path))?;
        file.lock().map_err(file_error(&path))?;
        Ok(ModCacheLock { _file: file })
    }

    /// Stores the info (`{"Version": …, "Time": …}`), the go.mod and the zip of a verified version.
    ///
    /// Atomic: files are renamed into place, the info file last because the go command requires it. An
    /// identical existing version is kept; a different one is a [`ModCacheError::Conflict`].
    pub fn store(
        &self,
        module: &ModuleVersion,
        info: &str,
        go_mod: &str,
        zip: &Path,
    ) -> Result<ModuleSums, ModCacheError> {
        let lock = self.lock(module)?;
        // A copy, because the original may change after the check.
        let mut copy = self.new_file(module, CacheFile::Zip)?;
        let mut original = File::open(zip).map_err(file_error(zip))?;
        io::copy(&mut original, copy.as_file_mut()).map_err(file_error(copy.path()))?;
        self.store_verified(&lock, module, Some(info), go_mod, copy, &mut |_| Ok::<(), ModCacheError>(()))
    }

    /// Like [`ModCache::store`] with a zip from [`ModCache::new_file`], if `verify` accepts the checksums.
    pub fn store_verified<E: From<ModCacheError>>(
        &self,
        _lock: &ModCacheLock,
        module: &ModuleVersion,
        info: Option<&str>,
        go_mod: &str,
        zip: NamedTempFile,
        verify: &mut dyn FnMut(&ModuleSums) -> Result<(), E>,
    ) -> Result<ModuleSums, E> {
        if let Some(info) = info {
            check_info(module, info)?;
        }
        let sums =
            ModuleSums { zip: checked_sum(module, &zip)?, go_mod: dirhash::hash_go_mod(go_mod.as_bytes()) };
        verify(&sums)?;

        let mod_path = self.path(module, CacheFile::Mod)?;
        let cached_mod = if_exists(&mod_path, fs::read(&mod_path))?;
        if let Some(content) = &cached_mod {
            compare(module, "go.mod", dirhash::hash_go_mod(content), &sums.go_mod, &mod_path)?;
        }
        self.put_zip(module, zip, &sums.zip)?;
        if cached_mod.is_none() {
            self.write(&mod_path, go_mod)?;
        }
        if let Some(info) = info.filter(|_| !self.has(module, CacheFile::Info)) {
            self.write(&self.path(module, CacheFile::Info)?, info)?;
        }
        Ok(sums)
    }

    /// Like [`ModCache::store_verified`] for a toolchain: the go command stores only its zip.
    pub fn store_zip<E: From<ModCacheError>>(
        &self,
        _lock: &ModCacheLock,
        module: &ModuleVersion,
        zip: NamedTempFile,
        verify: &mut dyn FnMut(&str) -> Result<(), E>,
    ) -> Result<String, E> {
        let sum = checked_sum(module, &zip)?;
        verify(&sum)?;
        self.put_zip(module, zip, &sum)?;
        Ok(sum)
    }

    /// Stores only a verified go.mod, for version selection, unless it exists.
    pub fn store_go_mod(&self, module: &ModuleVersion, go_mod: &str) -> Result<(), ModCacheError> {
        if self.has_go_mod(module) {
            return Ok(());
        }
        self.create_versions(module)?;
        self.write(&self.path(module, CacheFile::Mod)?, go_mod)
    }

    /// Stores the info file of a version that lacks it.
    pub fn store_info(
        &self,
        _lock: &ModCacheLock,
        module: &ModuleVersion,
        info: &str,
    ) -> Result<(), ModCacheError> {
        check_info(module, info)?;
        self.write(&self.path(module, CacheFile::Info)?, info)
    }

    /// Removes partial zips of killed processes; the lock excludes active writers.
    pub fn remove_partial_zips(&self, _lock: &ModCacheLock, module: &ModuleVersion) {
        let (Ok(versions), Ok(version)) = (self.versions(module), module::escape_version(&module.version))
        else {
            return;
        };
        let prefix = format!("{version}.zip");
        for entry in fs::read_dir(versions).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.starts_with(&prefix) && name.ends_with(".tmp") {
                // A leftover file only takes space.
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    /// Moves a verified zip into place and records its checksum, unless both exist.
    fn put_zip(&self, module: &ModuleVersion, zip: NamedTempFile, sum: &str) -> Result<(), ModCacheError> {
        let (zip_path, hash_path) =
            (self.path(module, CacheFile::Zip)?, self.path(module, CacheFile::ZipHash)?);
        let cached_hash = if_exists(&hash_path, fs::read_to_string(&hash_path))?;
        let has_zip = zip_path.is_file();
        if let Some(hash) = &cached_hash {
            compare(module, "zip", hash.trim().to_owned(), sum, &hash_path)?;
        } else if has_zip {
            // As in the go command, a zip without a recorded checksum is unverified.
            compare(module, "zip", dirhash::hash_zip(&zip_path)?, sum, &zip_path)?;
        }
        if !has_zip {
            rename(zip, &zip_path)?;
        }
        if cached_hash.is_none() {
            self.write(&hash_path, sum)?;
        }
        Ok(())
    }

    /// Unpacks a version's zip if necessary, read-only like the go command without `-modcacherw`.
    pub fn unpack(
        &self,
        _lock: &ModCacheLock,
        module: &ModuleVersion,
        writable: bool,
    ) -> Result<PathBuf, ModCacheError> {
        let (dir, partial) = (self.dir(module)?, self.path(module, CacheFile::Partial)?);
        if dir.is_dir() && !partial.exists() {
            return Ok(dir);
        }
        let failed = |error| zip_error(module, error);
        // Left by a killed process.
        modzip::remove_all(&dir).map_err(failed)?;
        fs::write(&partial, "").map_err(file_error(&partial))?;
        let zip = self.path(module, CacheFile::Zip)?;
        if let Err(error) = modzip::unzip(&dir, module, &zip) {
            let _ = modzip::remove_all(&dir).map(|()| fs::remove_file(&partial));
            return Err(failed(error));
        }
        fs::remove_file(&partial).map_err(file_error(&partial))?;
        if !writable {
            make_read_only(&dir).map_err(file_error(&dir))?;
        }
        Ok(dir)
    }

    /// Creates a temporary file for [`ModCache::store_verified`].
    pub fn new_file(&self, module: &ModuleVersion, file: CacheFile) -> Result<NamedTempFile, ModCacheError> {
        self.create_versions(module)?;
        temporary_file(&self.path(module, file)?)
    }

    /// The directory of a module's versions.
    fn versions(&self, module: &ModuleVersion) -> Result<PathBuf, ModCacheError> {
        Ok(self.root.join("cache/download").join(module::escape_path(&module.path)?).join("@v"))
    }

    fn create_versions(&self, module: &ModuleVersion) -> Result<(), ModCacheError> {
        let versions = self.versions(module)?;
        fs::create_dir_all(&versions).map_err(file_error(&versions))
    }

    fn write(&self, path: &Path, content: &str) -> Result<(), ModCacheError> {
        let mut file = temporary_file(path)?;
        file.write_all(content.as_bytes()).map_err(file_error(path))?;
        rename(file, path)
    }
}

/// A temporary file in the directory of `path`, named so that the go command removes it if we are killed.
fn temporary_file(path: &Path) -> Result<NamedTempFile, ModCacheError> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(file_error(path)(io::ErrorKind::InvalidInput.into()));
    };
    let mut builder = tempfile::Builder::new();
    builder.prefix(name).suffix(".tmp");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        builder.permissions(fs::Permissions::from_mode(0o666));
    }
    builder.tempfile_in(directory).map_err(file_error(directory))
}

/// Renames a file into place, without fsync like the go command: it is slow with hundreds of modules.
fn rename(file: NamedTempFile, path: &Path) -> Result<(), ModCacheError> {
    file.persist(path).map(drop).map_err(|error| file_error(path)(error.error))
}

/// Checks that the info file is JSON with this version.
pub(crate) fn check_info(module: &ModuleVersion, info: &str) -> Result<(), ModCacheError> {
    let is_valid = serde_json::from_str::<serde_json::Value>(info)
        .is_ok_and(|info| info["Version"] == module.version.as_str());
    if is_valid {
        return Ok(());
    }
    // Truncated, as it may be a long error page.
    Err(ModCacheError::Info { module: module.to_string(), info: info.chars().take(200).collect() })
}

/// Distinguishes an invalid zip from a file system error.
fn zip_error(module: &ModuleVersion, error: ModZipError) -> ModCacheError {
    match error {
        ModZipError::File { path, source, .. } => ModCacheError::File { path, source },
        source => ModCacheError::Zip { module: module.to_string(), source },
    }
}

/// Validates a module zip and returns its checksum.
fn checked_sum(module: &ModuleVersion, zip: &NamedTempFile) -> Result<String, ModCacheError> {
    modzip::check_zip(module, zip.path())
        .and_then(CheckedFiles::into_result)
        .map_err(|error| zip_error(module, error))?;
    Ok(dirhash::hash_zip(zip.path())?)
}

fn compare(
    module: &ModuleVersion,
    file: &'static str,
    cached: String,
    new: &str,
    path: &Path,
) -> Result<(), ModCacheError> {
    if cached == new {
        return Ok(());
    }
    let module = module.to_string();
    Err(ModCacheError::Conflict { module, file, cached, new: new.to_owned(), path: path.to_owned() })
}

/// Makes directories read-only; files already are.
fn make_read_only(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            make_read_only(&entry.path())?;
        }
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = fs::metadata(dir)?.permissions().mode();
        fs::set_permissions(dir, fs::Permissions::from_mode(mode & !0o222))?;
    }
    Ok(())
}

fn if_exists<T>(path: &Path, read: io::Result<T>) -> Result<Option<T>, ModCacheError> {
    match read {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        read => read.map(Some).map_err(file_error(path)),
    }
}

fn file_error(path: &Path) -> impl Fn(io::Error) -> ModCacheError + '_ {
    |source| ModCacheError::File { path: path.to_owned(), source }
}
