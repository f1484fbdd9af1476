//! The go command's own module cache, GOMODCACHE (<https://go.dev/ref/mod#module-cache>).

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

use tempfile::NamedTempFile;

use velox_gomod::{
    dirhash,
    module::{self, ModuleVersion},
    modzip,
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
/// │   ├── v1.0.0.lock      held while one of these is made or unpacked
/// │   └── v1.0.0.partial   there while the folder below is being unpacked
/// └── github.com/!burnt!sushi/toml@v1.0.0
///     └── …                the content, read-only
/// ```
///
/// A `!` and a small letter stand for a capital (<https://go.dev/ref/mod#goproxy-protocol>), for file systems that do not
/// tell them apart.
#[derive(Debug, Clone)]
pub struct ModCache {
    root: PathBuf,
}

/// The sums of a module version, as go.sum has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModuleSums {
    /// The sum of its zip: the line `path version`.
    pub zip: String,
    /// The sum of its go.mod: the line `path version/go.mod`.
    pub go_mod: String,
}

/// One of a version's files below `cache/download`.
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

/// Why a module can't be kept in the cache.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModCacheError {
    /// The module path or version is malformed.
    #[error(transparent)]
    Module(#[from] module::ModuleError),
    /// The zip is not a valid zip of this module.
    #[error("{module} makes no module zip: {source}")]
    Zip {
        /// `path@version`.
        module: String,
        /// What is wrong with it.
        source: modzip::ModZipError,
    },
    /// No sum can be taken of a zip.
    #[error(transparent)]
    Sum(#[from] dirhash::DirHashError),
    /// The information is not a JSON object with this very version.
    #[error("the information on {module} is not JSON with that ModuleVersion: {info}")]
    Info {
        /// `path@version`.
        module: String,
        /// What was given.
        info: String,
    },
    /// The cache has this module already, with other content. One of the two is not what its author published.
    #[error(
        "the module cache has another {module}: its {file} has the sum {cached}, the new one {new}; \
         if the cached one is wrong, remove {}", path.display()
    )]
    Conflict {
        /// `path@version`.
        module: String,
        /// `zip` or `go.mod`.
        file: &'static str,
        /// The sum of what the cache has.
        cached: String,
        /// The sum of what was to be stored.
        new: String,
        /// The cached file.
        path: PathBuf,
    },
    /// A file or folder of the cache can't be read or written.
    #[error("can't use the module cache at {}: {source}", path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// The lock of one version; it is let go when dropped.
#[derive(Debug)]
pub struct ModCacheLock {
    _file: File,
}

impl ModCache {
    /// The cache at the folder that `go env GOMODCACHE` names. It need not exist yet.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The folder of the cache.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where one of a version's files is or would be.
    ///
    /// # Errors
    ///
    /// A malformed module path or version.
    pub fn path(&self, module: &ModuleVersion, part: CacheFile) -> Result<PathBuf, ModCacheError> {
        let version = module::escape_version(&module.version)?;
        Ok(self.versions(module)?.join(format!("{version}.{}", part.suffix())))
    }

    /// Where a version's content is or would be unpacked.
    ///
    /// # Errors
    ///
    /// A malformed module path or version.
    pub fn dir(&self, module: &ModuleVersion) -> Result<PathBuf, ModCacheError> {
        let path = module::escape_path(&module.path)?;
        let version = module::escape_version(&module.version)?;
        Ok(self.root.join(format!("{path}@{version}")))
    }

    /// Whether the cache has all of a version: information, go.mod, and a verified zip.
    #[must_use]
    pub fn contains(&self, module: &ModuleVersion) -> bool {
        [CacheFile::Info, CacheFile::Mod, CacheFile::Zip, CacheFile::ZipHash]
            .into_iter()
            .all(|part| self.path(module, part).is_ok_and(|path| path.is_file()))
    }

    /// Whether the cache has a version's go.mod.
    #[must_use]
    pub fn has_go_mod(&self, module: &ModuleVersion) -> bool {
        self.path(module, CacheFile::Mod).is_ok_and(|path| path.is_file())
    }

    /// Keeps a version's go.mod alone, which is what the go command does with a version that it only selects by. To verify
    /// its sum is the caller's task, before. One that is there already is left as it is.
    ///
    /// # Errors
    ///
    /// A malformed module path or version, and a folder that can't be written.
    pub fn store_go_mod(&self, module: &ModuleVersion, go_mod: &str) -> Result<(), ModCacheError> {
        let path = self.path(module, CacheFile::Mod)?;
        if path.is_file() {
            return Ok(());
        }
        let folder = self.versions(module)?;
        fs::create_dir_all(&folder).map_err(|source| file_error(&folder, source))?;
        self.write(&path, go_mod)
    }

    /// Whether the content of a version with this sum is there, wholly unpacked. Cheap: it believes the cache's `.ziphash`.
    #[must_use]
    pub fn is_unpacked(&self, module: &ModuleVersion, sum: &str) -> bool {
        let is = |part| self.path(module, part).is_ok_and(|path| path.is_file());
        let hash = self.path(module, CacheFile::ZipHash).ok().and_then(|path| fs::read_to_string(path).ok());
        hash.is_some_and(|hash| hash.trim() == sum)
            && is(CacheFile::Mod)
            && !is(CacheFile::Partial)
            && self.dir(module).is_ok_and(|dir| dir.is_dir())
    }

    /// Waits for the lock that the go command takes before it downloads or unpacks this version (on Linux, `flock`).
    ///
    /// # Errors
    ///
    /// A malformed module path or version, and a lock file that can't be made.
    pub fn lock(&self, module: &ModuleVersion) -> Result<ModCacheLock, ModCacheError> {
        let folder = self.versions(module)?;
        fs::create_dir_all(&folder).map_err(|source| file_error(&folder, source))?;
        let path = self.path(module, CacheFile::Lock)?;
        let unusable = |source| file_error(&path, source);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(unusable)?;
        file.lock().map_err(unusable)?;
        Ok(ModCacheLock { _file: file })
    }

    /// Keeps a module version: its information (`{"Version": …, "Time": …}`), its go.mod and its zip, and gives their
    /// sums. To verify the sums is the caller's task, before.
    ///
    /// The version appears whole or not at all: each file is written under another name and renamed, and the information,
    /// without which the go command does not see the version, comes last. An equal version that is there already is left
    /// as it is.
    ///
    /// # Errors
    ///
    /// [`ModCacheError::Conflict`] when the version is there with another sum; a zip that is not this module's; and a file that
    /// can't be read or written.
    pub fn store(
        &self,
        module: &ModuleVersion,
        info: &str,
        go_mod: &str,
        zip: &Path,
    ) -> Result<ModuleSums, ModCacheError> {
        let lock = self.lock(module)?;
        // The copy is what is checked: the original may change under our eyes.
        let mut copy = self.new_file(module, CacheFile::Zip)?;
        let mut original = File::open(zip).map_err(|source| file_error(zip, source))?;
        io::copy(&mut original, copy.as_file_mut()).map_err(|source| file_error(copy.path(), source))?;
        self.store_verified(&lock, module, Some(info), go_mod, copy, &mut |_| Ok::<(), ModCacheError>(()))
    }

    /// As [`ModCache::store`], with a zip that is in the cache's folder already ([`ModCache::new_file`]) and a say for
    /// the caller: nothing becomes visible unless `verify` likes the sums. The go command needs no information to build.
    ///
    /// # Errors
    ///
    /// As [`ModCache::store`], and `verify`'s own.
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
        let checked = checked_sum(module, &zip)?;
        let sums = ModuleSums { zip: checked, go_mod: dirhash::hash_go_mod(go_mod.as_bytes()) };
        verify(&sums)?;

        let mod_path = self.path(module, CacheFile::Mod)?;
        let cached_mod = if_there(&mod_path, fs::read(&mod_path))?;
        if let Some(content) = &cached_mod {
            agree(module, "go.mod", dirhash::hash_go_mod(content), &sums.go_mod, &mod_path)?;
        }
        self.put_zip(module, zip, &sums.zip)?;
        if cached_mod.is_none() {
            self.write(&mod_path, go_mod)?;
        }
        let info_path = self.path(module, CacheFile::Info)?;
        if let Some(info) = info.filter(|_| !info_path.is_file()) {
            self.write(&info_path, info)?;
        }
        Ok(sums)
    }

    /// Whether the cache has all of a version but its information: as after a build, for which the go command needs none.
    #[must_use]
    pub fn lacks_only_info(&self, module: &ModuleVersion) -> bool {
        let is = |part| self.path(module, part).is_ok_and(|path| path.is_file());
        [CacheFile::Mod, CacheFile::Zip, CacheFile::ZipHash].into_iter().all(is) && !is(CacheFile::Info)
    }

    /// Adds the information to what the cache has of a version.
    ///
    /// # Errors
    ///
    /// Information that isn't this version's, and a file that can't be written.
    pub fn store_info(
        &self,
        _lock: &ModCacheLock,
        module: &ModuleVersion,
        info: &str,
    ) -> Result<(), ModCacheError> {
        check_info(module, info)?;
        self.write(&self.path(module, CacheFile::Info)?, info)
    }

    /// Removes the unfinished zips that a stopped process left, of the go command's or our own: whoever writes one holds
    /// the lock.
    pub fn remove_partial_zips(&self, _lock: &ModCacheLock, module: &ModuleVersion) {
        let (Ok(folder), Ok(version)) = (self.versions(module), module::escape_version(&module.version))
        else {
            return;
        };
        let start = format!("{version}.zip");
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.starts_with(&start) && name.ends_with(".tmp") {
                // One that stays only takes room.
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    /// As [`ModCache::store_verified`], for a module of which the go command keeps the zip alone: a toolchain.
    ///
    /// # Errors
    ///
    /// As [`ModCache::store_verified`].
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

    /// Puts a verified zip and its sum into their places, unless the very same are there.
    fn put_zip(&self, module: &ModuleVersion, zip: NamedTempFile, sum: &str) -> Result<(), ModCacheError> {
        let (zip_path, hash_path) =
            (self.path(module, CacheFile::Zip)?, self.path(module, CacheFile::ZipHash)?);
        let cached_hash = if_there(&hash_path, fs::read_to_string(&hash_path))?;
        let has_zip = zip_path.is_file();
        if let Some(hash) = &cached_hash {
            agree(module, "zip", hash.trim().to_owned(), sum, &hash_path)?;
        } else if has_zip {
            // As the go command does: a zip without its hash was never verified, or has lost it.
            agree(module, "zip", dirhash::hash_zip(&zip_path)?, sum, &zip_path)?;
        }
        if !has_zip {
            self.rename(zip, &zip_path)?;
        }
        if cached_hash.is_none() {
            self.write(&hash_path, sum)?;
        }
        Ok(())
    }

    /// The sums of a version that the cache has: its zip's as it was when it was verified.
    ///
    /// # Errors
    ///
    /// A file that can't be read.
    pub fn sums(&self, module: &ModuleVersion) -> Result<ModuleSums, ModCacheError> {
        Ok(ModuleSums { zip: self.zip_sum(module)?, go_mod: self.go_mod_sum(module)? })
    }

    /// The recorded sum of a version's zip.
    ///
    /// # Errors
    /// A file that can't be read.
    pub fn zip_sum(&self, module: &ModuleVersion) -> Result<String, ModCacheError> {
        let path = self.path(module, CacheFile::ZipHash)?;
        let sum = fs::read_to_string(&path).map_err(|source| file_error(&path, source))?;
        Ok(sum.trim().to_owned())
    }

    /// The sum of a version's go.mod in the cache.
    ///
    /// # Errors
    ///
    /// A file that can't be read.
    pub fn go_mod_sum(&self, module: &ModuleVersion) -> Result<String, ModCacheError> {
        let path = self.path(module, CacheFile::Mod)?;
        let content = fs::read(&path).map_err(|source| file_error(&path, source))?;
        Ok(dirhash::hash_go_mod(&content))
    }

    /// Unpacks a version's zip, unless it is unpacked already: read-only, as the go command does without `-modcacherw`.
    ///
    /// # Errors
    ///
    /// A zip that can't be unpacked, a folder that can't be written.
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
        let bad = |source| unusable(module, source);
        // What a stopped process left.
        modzip::remove_all(&dir).map_err(bad)?;
        fs::write(&partial, "").map_err(|source| file_error(&partial, source))?;
        let zip = self.path(module, CacheFile::Zip)?;
        if let Err(error) = modzip::unzip(&dir, module, &zip) {
            let _ = modzip::remove_all(&dir).map(|()| fs::remove_file(&partial));
            return Err(bad(error));
        }
        fs::remove_file(&partial).map_err(|source| file_error(&partial, source))?;
        if !writable {
            make_read_only(&dir).map_err(|source| file_error(&dir, source))?;
        }
        Ok(dir)
    }

    /// A new file beside the place of one of a version's files, for [`ModCache::store_verified`].
    ///
    /// # Errors
    ///
    /// A malformed module path or version, and a folder that can't be written.
    pub fn new_file(&self, module: &ModuleVersion, part: CacheFile) -> Result<NamedTempFile, ModCacheError> {
        let folder = self.versions(module)?;
        fs::create_dir_all(&folder).map_err(|source| file_error(&folder, source))?;
        self.beside(&self.path(module, part)?)
    }

    /// The folder of a module's versions.
    fn versions(&self, module: &ModuleVersion) -> Result<PathBuf, ModCacheError> {
        Ok(self.root.join("cache/download").join(module::escape_path(&module.path)?).join("@v"))
    }

    /// A new file beside `path`, named so that the go command clears it away should we be stopped.
    fn beside(&self, path: &Path) -> Result<NamedTempFile, ModCacheError> {
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(file_error(path, io::ErrorKind::InvalidInput.into()));
        };
        let mut builder = tempfile::Builder::new();
        builder.prefix(name).suffix(".tmp");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            builder.permissions(fs::Permissions::from_mode(0o666));
        }
        builder.tempfile_in(folder).map_err(|source| file_error(folder, source))
    }

    fn write(&self, path: &Path, content: &str) -> Result<(), ModCacheError> {
        let mut file = self.beside(path)?;
        file.write_all(content.as_bytes()).map_err(|source| file_error(path, source))?;
        self.rename(file, path)
    }

    /// Whole or not at all. As the go command does it, without waiting for the disk: hundreds of modules would.
    fn rename(&self, file: NamedTempFile, path: &Path) -> Result<(), ModCacheError> {
        file.persist(path).map_err(|error| file_error(path, error.error))?;
        Ok(())
    }
}

/// Whether it is JSON with this very version.
pub(crate) fn check_info(module: &ModuleVersion, info: &str) -> Result<(), ModCacheError> {
    let is_its = serde_json::from_str::<serde_json::Value>(info)
        .is_ok_and(|info| info["Version"] == module.version.as_str());
    if is_its {
        return Ok(());
    }
    // An error page may be long.
    let info = info.chars().take(200).collect();
    Err(ModCacheError::Info { module: format!("{}@{}", module.path, module.version), info })
}

/// A zip that is at fault, or a file system that is.
fn unusable(module: &ModuleVersion, error: modzip::ModZipError) -> ModCacheError {
    match error {
        modzip::ModZipError::File { path, source, .. } => ModCacheError::File { path, source },
        source => ModCacheError::Zip { module: format!("{}@{}", module.path, module.version), source },
    }
}

/// The sum of a zip that is a valid zip of this module.
fn checked_sum(module: &ModuleVersion, zip: &NamedTempFile) -> Result<String, ModCacheError> {
    modzip::check_zip(module, zip.path())
        .and_then(modzip::CheckedFiles::into_result)
        .map_err(|source| unusable(module, source))?;
    Ok(dirhash::hash_zip(zip.path())?)
}

/// Whether what the cache has is what is to be stored.
fn agree(
    module: &ModuleVersion,
    file: &'static str,
    cached: String,
    new: &str,
    path: &Path,
) -> Result<(), ModCacheError> {
    if cached == new {
        return Ok(());
    }
    let module = format!("{}@{}", module.path, module.version);
    Err(ModCacheError::Conflict { module, file, cached, new: new.to_owned(), path: path.to_owned() })
}

/// Folders only: files are made so.
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

fn if_there<T>(path: &Path, read: io::Result<T>) -> Result<Option<T>, ModCacheError> {
    match read {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        read => read.map(Some).map_err(|source| file_error(path, source)),
    }
}

fn file_error(path: &Path, source: io::Error) -> ModCacheError {
    ModCacheError::File { path: path.to_owned(), source }
}
