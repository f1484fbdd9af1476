//! Module zips: listing, packing and unpacking a module's content (<https://go.dev/ref/mod#zip-files>,
//! <https://pkg.go.dev/golang.org/x/mod/zip>).
//!
//! All file names begin with `path@version/` and are unique ignoring case. go.mod is allowed only at the
//! root; irregular files, such as symbolic links, aren't allowed. The zip and its content are each limited to
//! 500 MiB, go.mod and LICENSE to 16 MiB each.

use std::{
    collections::{HashMap, HashSet},
    ffi::OsString,
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, BufReader, BufWriter, Read, Write},
    path::{Path, PathBuf},
};

use regex_syntax::hir::{ClassUnicode, ClassUnicodeRange};
use zip::{CompressionMethod, DateTime, ZipArchive, ZipWriter, write::SimpleFileOptions};

use crate::module::{self, ModuleVersion};

/// The size limit of a module zip, and of its content.
pub const MAX_ZIP_BYTES: u64 = 500 << 20;
/// The size limit of a go.mod.
pub const MAX_GO_MOD_BYTES: u64 = 16 << 20;
/// The size limit of a LICENSE.
pub const MAX_LICENSE_BYTES: u64 = 16 << 20;

/// An error creating, checking or unpacking a module zip.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModZipError {
    /// The module path or version is malformed, or they don't match.
    #[error(transparent)]
    Module(#[from] module::ModuleError),
    /// The version isn't canonical.
    #[error("version {0:?} is not canonical: expected vX.Y.Z")]
    NotCanonical(String),
    /// Files that are invalid in a module zip.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Files(Vec<RejectedFile>),
    /// A size limit is exceeded.
    #[error("{0}")]
    Size(RejectReason),
    /// A file or directory can't be read or written.
    #[error("failed to {action} `{}`: {source}", path.display())]
    File {
        /// `read` or `write`.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The zip is damaged.
    #[error("damaged zip `{}`: {reason}", path.display())]
    Damaged {
        /// The zip.
        path: PathBuf,
        /// The cause.
        reason: String,
    },
    /// The target directory isn't empty.
    #[error("failed to unpack into `{}`: directory is not empty", .0.display())]
    NotEmpty(PathBuf),
    /// A file is larger than its declared size.
    #[error("{0} is larger than its declared size")]
    Grew(String),
}

/// A file that is omitted, or that makes the zip invalid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RejectedFile {
    /// The path in the module, or in the zip if a zip was checked.
    pub path: String,
    /// The reason.
    pub reason: RejectReason,
}

impl fmt::Display for RejectedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.reason)
    }
}

/// Why a file is omitted from a module zip, or makes it invalid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RejectReason {
    /// Omitted: a directory of a version control system.
    #[error("directory is a version control repository")]
    VersionControl,
    /// Omitted: a vendored package.
    #[error("file is in vendor directory")]
    Vendored,
    /// Omitted: it belongs to a nested module.
    #[error("file is in another module")]
    OtherModule,
    /// Omitted: added by `hg archive`.
    #[error("file is inserted by 'hg archive' and is always omitted")]
    HgArchival,
    /// Omitted from a directory's zip; invalid in a zip.
    #[error("file is a symbolic link")]
    Symlink,
    /// Omitted: neither a file nor a directory.
    #[error("file is not a regular file")]
    NotRegular,
    /// Invalid: `a//b`, `a/./b`, `a/../b`.
    #[error("file path is not clean")]
    NotClean,
    /// Invalid: an absolute path.
    #[error("file path is not relative")]
    NotRelative,
    /// Invalid: a name that isn't portable.
    #[error("{0}")]
    Name(String),
    /// Invalid: `GO.MOD`.
    #[error("go.mod files must have lowercase names")]
    GoModCase,
    /// Invalid: a go.mod below the root of a zip.
    #[error("go.mod file not in module root directory")]
    GoModNotAtRoot,
    /// Invalid: a name without the module's prefix.
    #[error("path does not have prefix {0:?}")]
    Prefix(String),
    /// Invalid: names that are equal on case-insensitive file systems.
    #[error("case-insensitive file name collision: {0:?} and {1:?}")]
    Collision(String, String),
    /// Invalid: a name of both a file and a directory.
    #[error("entry {0:?} is both a file and a directory")]
    FileAndFolder(String),
    /// Invalid: duplicate file names.
    #[error("multiple entries for file {0:?}")]
    Twice(String),
    /// Too large: go.mod.
    #[error("go.mod file too large (max size is {MAX_GO_MOD_BYTES} bytes)")]
    GoModSize,
    /// Too large: LICENSE.
    #[error("LICENSE file too large (max size is {MAX_LICENSE_BYTES} bytes)")]
    LicenseSize,
    /// Too large: the content.
    #[error("the module's content is too large (max size is {MAX_ZIP_BYTES} bytes)")]
    ContentSize,
    /// Too large: the zip.
    #[error("module zip file is too large ({0} bytes; max size is {MAX_ZIP_BYTES} bytes)")]
    ZipSize(u64),
}

/// The result of a check.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CheckedFiles {
    /// The files of the module.
    pub valid: Vec<String>,
    /// The omitted files and directories.
    pub omitted: Vec<RejectedFile>,
    /// The files that make the module invalid.
    pub invalid: Vec<RejectedFile>,
    /// The exceeded size limit, if any.
    pub size_error: Option<RejectReason>,
}

impl CheckedFiles {
    /// Converts to an error if anything is invalid or too large.
    pub fn into_result(self) -> Result<Self, ModZipError> {
        match self.size_error {
            Some(reason) => Err(ModZipError::Size(reason)),
            None if !self.invalid.is_empty() => Err(ModZipError::Files(self.invalid)),
            None => Ok(self),
        }
    }
}

/// A file to check with [`check_files`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileCandidate {
    /// The slash-separated path relative to the module root.
    pub path: String,
    /// The kind.
    pub kind: FileKind,
    /// The size in bytes.
    pub size: u64,
}

/// The kind of a directory entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Folder,
    /// A symbolic link.
    Symlink,
    /// A device, pipe or socket.
    Other,
}

/// Checks a list of files (`zip.CheckFiles`). `go_mod` is the content of the root go.mod: since Go 1.24, its
/// go version affects which files are vendored.
pub fn check_files(files: &[FileCandidate], go_mod: Option<&str>) -> CheckedFiles {
    let vendoring = VendorRule::of(go_mod);
    let mut found = ZipCheck::default();
    let modules: HashSet<&str> = files
        .iter()
        .filter(|file| file.kind == FileKind::File)
        .filter_map(|file| file.path.rsplit_once('/'))
        .filter(|(_, name)| name.eq_ignore_ascii_case("go.mod"))
        .map(|(folder, _)| folder)
        .collect();

    let mut tree = Collisions::default();
    let mut left = MAX_ZIP_BYTES;
    for file in files {
        let path = file.path.as_str();
        if !is_clean(path) {
            found.invalid(path, RejectReason::NotClean);
        } else if path.starts_with('/') {
            found.invalid(path, RejectReason::NotRelative);
        } else if vendoring.covers(path) {
            found.omitted(path, RejectReason::Vendored);
        } else if path
            .match_indices('/')
            .any(|(end, _)| path.get(..end).is_some_and(|dir| modules.contains(dir)))
        {
            found.omitted(path, RejectReason::OtherModule);
        } else if path == ".hg_archival.txt" {
            found.omitted(path, RejectReason::HgArchival);
        } else if let Err(error) = module::check_file_path(path) {
            found.invalid(path, RejectReason::Name(error.to_string()));
        } else if path.to_lowercase() == "go.mod" && path != "go.mod" {
            found.invalid(path, RejectReason::GoModCase);
        } else if let Err(reason) = tree.add(path, file.kind == FileKind::Folder) {
            found.invalid(path, reason);
        } else if file.kind == FileKind::Symlink {
            found.omitted(path, RejectReason::Symlink);
        } else if file.kind != FileKind::File {
            found.omitted(path, RejectReason::NotRegular);
        } else {
            match left.checked_sub(file.size) {
                Some(rest) => left = rest,
                None => found.files.size_error = Some(RejectReason::ContentSize),
            }
            match size_reason(path, file.size) {
                Some(reason) => found.invalid(path, reason),
                None => found.files.valid.push(path.to_owned()),
            }
        }
    }
    found.files
}

/// Creates a reproducible module zip from a directory (`zip.CreateFromDir`), without version control
/// directories, nested modules, vendored packages, links and irregular files.
pub fn create_from_dir(dir: &Path, module: &ModuleVersion, zip: &Path) -> Result<CheckedFiles, ModZipError> {
    check_version(module)?;
    let (candidates, names, omitted) = list(dir)?;
    let mut checked = check_files(&candidates, root_go_mod(dir).as_deref()).into_result()?;
    checked.omitted.extend(omitted);
    let valid: HashSet<&str> = checked.valid.iter().map(String::as_str).collect();
    let files = candidates.iter().zip(&names).filter(|(file, _)| valid.contains(file.path.as_str()));

    let made = write_zip(files, module, zip);
    if made.is_err() {
        let _ = fs::remove_file(zip);
    }
    made.map(|()| checked)
}

/// Checks the names and declared sizes of a module zip (`zip.CheckZip`). Unlike Go, rejects symbolic links,
/// which Go would unpack as files.
pub fn check_zip(module: &ModuleVersion, zip: &Path) -> Result<CheckedFiles, ModZipError> {
    open(module, zip).map(|(_, checked)| checked)
}

/// Unpacks a module zip into a new or empty directory (`zip.Unzip`), with read-only files. As in Go, the
/// directories stay writable: the module cache decides about them (`-modcacherw`).
pub fn unzip(dir: &Path, module: &ModuleVersion, zip: &Path) -> Result<(), ModZipError> {
    if fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(ModZipError::NotEmpty(dir.to_owned()));
    }
    let (archive, checked) = open(module, zip)?;
    checked.into_result()?;
    let Some(mut archive) = archive else {
        return Err(damaged(zip, "it is too large"));
    };
    let prefix = format!("{}@{}/", module.path, module.version);
    fs::create_dir_all(dir).map_err(|source| file_error("write", dir, source))?;
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index).map_err(|error| damaged(zip, error))?;
        let name = String::from_utf8_lossy(entry.name_raw()).into_owned();
        let Some(path) = name.strip_prefix(&prefix).filter(|path| !path.is_empty() && !path.ends_with('/'))
        else {
            continue;
        };
        // The check has rejected all names that could escape the directory.
        let target = path.split('/').fold(dir.to_owned(), |folder, part| folder.join(part));
        if let Some(folder) = target.parent() {
            fs::create_dir_all(folder).map_err(|source| file_error("write", folder, source))?;
        }
        let unwritable = |source| file_error("write", &target, source);
        let declared = entry.size();
        let mut file = OpenOptions::new().write(true).create_new(true).open(&target).map_err(unwritable)?;
        if copy(&mut entry, &mut file, declared, zip, &target)? > declared {
            return Err(ModZipError::Grew(name));
        }
        make_read_only(&target).map_err(unwritable)?;
    }
    Ok(())
}

/// Removes a directory of the module cache, if it exists, even if it is read-only.
pub fn remove_all(dir: &Path) -> Result<(), ModZipError> {
    let unremovable = |source| file_error("remove", dir, source);
    let metadata = match fs::symlink_metadata(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        metadata => metadata.map_err(unremovable)?,
    };
    if metadata.is_dir() {
        make_writable(dir, metadata.permissions()).map_err(unremovable)?;
        for entry in fs::read_dir(dir).map_err(unremovable)? {
            remove_all(&entry.map_err(unremovable)?.path())?;
        }
        fs::remove_dir(dir).map_err(unremovable)
    } else {
        if cfg!(windows) {
            make_writable(dir, metadata.permissions()).map_err(unremovable)?;
        }
        fs::remove_file(dir).map_err(unremovable)
    }
}

fn check_version(module: &ModuleVersion) -> Result<(), ModZipError> {
    if module::canonical_version(&module.version) != module.version {
        return Err(ModZipError::NotCanonical(module.version.clone()));
    }
    module::check(&module.path, &module.version)?;
    Ok(())
}

type Archive = ZipArchive<BufReader<File>>;

/// Opens and checks a zip; no archive is returned if the zip is too large to open.
fn open(module: &ModuleVersion, zip: &Path) -> Result<(Option<Archive>, CheckedFiles), ModZipError> {
    check_version(module)?;
    let unreadable = |source| file_error("read", zip, source);
    let file = File::open(zip).map_err(unreadable)?;
    let size = file.metadata().map_err(unreadable)?.len();
    let mut found = ZipCheck::default();
    if size > MAX_ZIP_BYTES {
        found.files.size_error = Some(RejectReason::ZipSize(size));
        return Ok((None, found.files));
    }
    let mut archive = ZipArchive::new(BufReader::new(file)).map_err(|error| damaged(zip, error))?;
    if archive.has_duplicate_names() {
        return Err(damaged(zip, "it holds the same file name twice"));
    }
    let prefix = format!("{}@{}/", module.path, module.version);
    let mut tree = Collisions::default();
    let mut left = MAX_ZIP_BYTES;
    for index in 0..archive.len() {
        let entry = archive.by_index_raw(index).map_err(|error| damaged(zip, error))?;
        let full = match std::str::from_utf8(entry.name_raw()) {
            Ok(name) => name,
            Err(_) => {
                let name = String::from_utf8_lossy(entry.name_raw()).into_owned();
                found.invalid(&name, RejectReason::Name("file name is not valid UTF-8".to_owned()));
                continue;
            }
        };
        let Some(name) = full.strip_prefix(&prefix) else {
            found.invalid(full, RejectReason::Prefix(prefix.clone()));
            continue;
        };
        if name.is_empty() {
            continue;
        }
        let (name, is_folder) = name.strip_suffix('/').map_or((name, false), |name| (name, true));
        let base = name.rsplit('/').next().unwrap_or(name);
        if !is_clean(name) {
            found.invalid(full, RejectReason::NotClean);
        } else if let Err(error) = module::check_file_path(name) {
            found.invalid(full, RejectReason::Name(error.to_string()));
        } else if let Err(reason) = tree.add(name, is_folder) {
            found.invalid(full, reason);
        } else if is_folder {
            // Empty directories aren't part of a module.
        } else if entry.is_symlink() {
            found.invalid(full, RejectReason::Symlink);
        } else if base.eq_ignore_ascii_case("go.mod") && base != name {
            found.invalid(full, RejectReason::GoModNotAtRoot);
        } else if base.eq_ignore_ascii_case("go.mod") && name != "go.mod" {
            found.invalid(full, RejectReason::GoModCase);
        } else {
            match left.checked_sub(entry.size()) {
                Some(rest) => left = rest,
                None => found.files.size_error = Some(RejectReason::ContentSize),
            }
            match size_reason(name, entry.size()) {
                Some(reason) => found.invalid(full, reason),
                None => found.files.valid.push(full.to_owned()),
            }
        }
    }
    Ok((Some(archive), found.files))
}

/// The state of a check. Each path is reported once, with the first problem found.
#[derive(Default)]
struct ZipCheck {
    files: CheckedFiles,
    named: HashSet<String>,
}

impl ZipCheck {
    fn omitted(&mut self, path: &str, reason: RejectReason) {
        if self.named.insert(path.to_owned()) {
            self.files.omitted.push(RejectedFile { path: path.to_owned(), reason });
        }
    }

    fn invalid(&mut self, path: &str, reason: RejectReason) {
        if self.named.insert(path.to_owned()) {
            self.files.invalid.push(RejectedFile { path: path.to_owned(), reason });
        }
    }
}

fn size_reason(path: &str, size: u64) -> Option<RejectReason> {
    match path {
        "go.mod" if size > MAX_GO_MOD_BYTES => Some(RejectReason::GoModSize),
        "LICENSE" if size > MAX_LICENSE_BYTES => Some(RejectReason::LicenseSize),
        _ => None,
    }
}

/// Whether Go's `path.Clean` would leave a path unchanged.
fn is_clean(path: &str) -> bool {
    let (rooted, rest) = path.strip_prefix('/').map_or((false, path), |rest| (true, rest));
    if rest.is_empty() || rest == "." {
        return rooted == rest.is_empty();
    }
    let mut inside = rooted;
    rest.split('/').all(|part| match part {
        "" | "." => false,
        ".." => !inside,
        _ => {
            inside = true;
            true
        }
    })
}

/// The rule for vendored files. Go 1.24 fixed two bugs, only for modules with that go version, to keep
/// existing checksums (<https://go.dev/issue/37397>).
#[derive(Clone, Copy, PartialEq)]
enum VendorRule {
    Old,
    Since124,
}

impl VendorRule {
    fn of(go_mod: Option<&str>) -> Self {
        match go_mod.and_then(language) {
            Some(version) if version >= (1, 24) => Self::Since124,
            _ => Self::Old,
        }
    }

    fn covers(self, path: &str) -> bool {
        if self == Self::Since124 && path == "vendor/modules.txt" {
            return true;
        }
        let below = if let Some(below) = path.strip_prefix("vendor/") {
            below
        } else if let Some((_, below)) = path.split_once("/vendor/") {
            match self {
                Self::Since124 => below,
                // The old bug: the length of `/vendor/` is skipped from the start of the path.
                Self::Old => return path.bytes().skip("/vendor/".len()).any(|b| b == b'/'),
            }
        } else {
            return false;
        };
        below.contains('/')
    }
}

/// The language version in a go.mod (<https://go.dev/ref/mod#go-mod-file-go>).
fn language(go_mod: &str) -> Option<(u32, u32)> {
    let version = go_mod.lines().find_map(|line| {
        let mut words = line.split("//").next().unwrap_or_default().split_whitespace();
        (words.next() == Some("go")).then(|| words.next()).flatten()
    })?;
    let (major, rest) = version.split_once('.')?;
    let minor = rest.split(|c: char| !c.is_ascii_digit()).next()?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// The entries of a zip so far, to detect case-insensitive collisions.
#[derive(Default)]
struct Collisions {
    /// The entry number by directory number (0 is the root) and case-folded name.
    numbers: HashMap<(usize, String), usize>,
    /// The original name, and whether it is a directory.
    entries: Vec<(String, bool)>,
}

impl Collisions {
    fn add(&mut self, path: &str, is_folder: bool) -> Result<(), RejectReason> {
        let mut folder = 0;
        let mut start = 0;
        for part in path.split('/') {
            let end = start + part.len();
            let here = || path.get(..end).unwrap_or(path).to_owned();
            let is_last = end == path.len();
            let part_is_folder = !is_last || is_folder;
            let next = self.entries.len() + 1;
            let number = *self.numbers.entry((folder, fold(part))).or_insert(next);
            if number == next {
                self.entries.push((part.to_owned(), part_is_folder));
            } else if let Some((name, was_folder)) = self.entries.get(number - 1) {
                if name != part {
                    let other = format!("{}{name}", path.get(..start).unwrap_or_default());
                    return Err(RejectReason::Collision(other, here()));
                }
                if *was_folder != part_is_folder {
                    return Err(RejectReason::FileAndFolder(here()));
                }
                if !part_is_folder {
                    return Err(RejectReason::Twice(here()));
                }
            }
            folder = number;
            start = end + 1;
        }
        Ok(())
    }
}

/// Case-folds a name, consistent with Go's `strings.EqualFold`.
fn fold(name: &str) -> String {
    if name.is_ascii() {
        return name.to_ascii_lowercase();
    }
    name.chars()
        .map(|c| {
            if c.is_ascii() {
                return c.to_ascii_lowercase();
            }
            let mut class = ClassUnicode::new([ClassUnicodeRange::new(c, c)]);
            let folded = class.try_case_fold_simple().is_ok();
            let least = class.ranges().first().filter(|_| folded).map_or(c, ClassUnicodeRange::start);
            least.to_ascii_lowercase()
        })
        .collect()
}

type DirListing = (Vec<FileCandidate>, Vec<PathBuf>, Vec<RejectedFile>);

/// Lists the files of a directory by name, with omitted files and directories.
fn list(dir: &Path) -> Result<DirListing, ModZipError> {
    let mut listed = DirListing::default();
    list_into(dir, "", VendorRule::of(root_go_mod(dir).as_deref()), &mut listed)?;
    Ok(listed)
}

fn list_into(
    dir: &Path,
    prefix: &str,
    vendoring: VendorRule,
    listed: &mut DirListing,
) -> Result<(), ModZipError> {
    let unreadable = |source| file_error("read", dir, source);
    let mut names: Vec<OsString> = fs::read_dir(dir)
        .map_err(unreadable)?
        .map(|entry| entry.map(|entry| entry.file_name()))
        .collect::<Result<_, _>>()
        .map_err(unreadable)?;
    names.sort();
    for name in names {
        let file = dir.join(&name);
        let metadata = fs::symlink_metadata(&file).map_err(|source| file_error("read", &file, source))?;
        let Some(name) = name.to_str() else {
            return Err(ModZipError::Files(vec![RejectedFile {
                path: format!("{prefix}{}", name.display()),
                reason: RejectReason::Name("file name is not valid UTF-8".to_owned()),
            }]));
        };
        let path = format!("{prefix}{name}");
        let mut omit = |reason| listed.2.push(RejectedFile { path: path.clone(), reason });
        if vendoring.covers(&path) {
            // Everything below a vendored directory is vendored.
            omit(RejectReason::Vendored);
        } else if metadata.is_dir() {
            if [".bzr", ".git", ".hg", ".svn"].contains(&name) {
                omit(RejectReason::VersionControl);
            } else if fs::symlink_metadata(file.join("go.mod")).is_ok_and(|metadata| !metadata.is_dir()) {
                omit(RejectReason::OtherModule);
            } else {
                list_into(&file, &format!("{path}/"), vendoring, listed)?;
            }
        } else if metadata.is_file() {
            listed.0.push(FileCandidate { path, kind: FileKind::File, size: metadata.len() });
            listed.1.push(file);
        } else {
            omit(if metadata.is_symlink() { RejectReason::Symlink } else { RejectReason::NotRegular });
        }
    }
    Ok(())
}

/// The root go.mod, for its go version only; ignored if unreadable.
fn root_go_mod(dir: &Path) -> Option<String> {
    let mut content = String::new();
    File::open(dir.join("go.mod")).ok()?.take(MAX_GO_MOD_BYTES).read_to_string(&mut content).ok()?;
    Some(content)
}

fn write_zip<'a>(
    files: impl Iterator<Item = (&'a FileCandidate, &'a PathBuf)>,
    module: &ModuleVersion,
    zip: &Path,
) -> Result<(), ModZipError> {
    let unwritable = |source: io::Error| file_error("write", zip, source);
    // Times and permissions aren't part of a module.
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Deflated)
        .compression_level(Some(6))
        .last_modified_time(DateTime::default())
        .unix_permissions(0o644);
    let mut writer = ZipWriter::new(BufWriter::new(File::create(zip).map_err(unwritable)?));
    for (file, source) in files {
        let name = format!("{}@{}/{}", module.path, module.version, file.path);
        writer.start_file(name, options).map_err(|error| unwritable(error.into()))?;
        let mut content = File::open(source).map_err(|error| file_error("read", source, error))?;
        if copy(&mut content, &mut writer, file.size, source, zip)? > file.size {
            return Err(ModZipError::Grew(file.path.clone()));
        }
    }
    let writer = writer.finish().map_err(|error| unwritable(error.into()))?;
    writer.into_inner().map_err(|error| unwritable(error.into_error()))?.sync_all().map_err(unwritable)
}

/// Copies at most `limit` + 1 bytes; returns the number of bytes.
fn copy(
    from: &mut impl Read,
    to: &mut impl Write,
    limit: u64,
    source: &Path,
    target: &Path,
) -> Result<u64, ModZipError> {
    let mut from = from.take(limit.saturating_add(1));
    let mut buffer = vec![0; 64 << 10];
    let mut total = 0;
    loop {
        let read = match from.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => read.map_err(|error| file_error("read", source, error))?,
        };
        if read == 0 {
            return Ok(total);
        }
        total += read as u64;
        to.write_all(buffer.get(..read).unwrap_or_default())
            .map_err(|error| file_error("write", target, error))?;
    }
}

fn make_read_only(path: &Path) -> io::Result<()> {
    let mut permissions = fs::metadata(path)?.permissions();
    permissions.set_readonly(true);
    fs::set_permissions(path, permissions)
}

#[cfg(unix)]
fn make_writable(path: &Path, mut permissions: fs::Permissions) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    permissions.set_mode(permissions.mode() | 0o700);
    fs::set_permissions(path, permissions)
}

#[cfg(not(unix))]
fn make_writable(path: &Path, mut permissions: fs::Permissions) -> io::Result<()> {
    #[allow(clippy::permissions_set_readonly_false, reason = "off unix this is one file's own attribute")]
    permissions.set_readonly(false);
    fs::set_permissions(path, permissions)
}

fn file_error(action: &'static str, path: &Path, source: io::Error) -> ModZipError {
    ModZipError::File { action, path: path.to_owned(), source }
}

fn damaged(zip: &Path, reason: impl fmt::Display) -> ModZipError {
    ModZipError::Damaged { path: zip.to_owned(), reason: reason.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_fold_to_one_collide() {
        for (first, second) in [("a/k", "A/x"), ("K", "\u{212a}"), ("s", "\u{17f}"), ("É", "é"), ("ẞ", "ß")]
        {
            let mut tree = Collisions::default();
            assert_eq!(tree.add(first, false), Ok(()));
            assert!(matches!(tree.add(second, false), Err(RejectReason::Collision(..))), "{first} {second}");
        }
        // Only simple case folding applies: Go treats these as distinct.
        for (first, second) in [("ß", "ss"), ("İ", "i"), ("a/b", "a/c")] {
            let mut tree = Collisions::default();
            assert_eq!(
                (tree.add(first, false), tree.add(second, false)),
                (Ok(()), Ok(())),
                "{first} {second}"
            );
        }
    }

    #[test]
    fn a_name_is_a_file_or_a_folder_and_only_once() {
        let mut tree = Collisions::default();
        assert_eq!(tree.add("a/b", false), Ok(()));
        assert_eq!(tree.add("a", true), Ok(()));
        assert_eq!(tree.add("a", false), Err(RejectReason::FileAndFolder("a".to_owned())));
        assert_eq!(tree.add("a/b/c", false), Err(RejectReason::FileAndFolder("a/b".to_owned())));
        assert_eq!(tree.add("a/b", false), Err(RejectReason::Twice("a/b".to_owned())));
    }

    #[test]
    fn clean_paths() {
        for path in ["a", "a/b", "/", "/a", ".", "..", "../..", "../a", "..."] {
            assert!(is_clean(path), "{path}");
        }
        for path in ["", "a/", "a//b", "./a", "a/.", "a/..", "a/../b", "../a/..", "/..", "/.", "//"] {
            assert!(!is_clean(path), "{path}");
        }
    }

    #[test]
    fn the_error_in_vendoring_stays_for_older_modules() {
        assert!(!VendorRule::Old.covers("vendor/modules.txt"));
        assert!(VendorRule::Since124.covers("vendor/modules.txt"));
        assert!(VendorRule::Old.covers("long/path/vendor/x.go"));
        assert!(!VendorRule::Since124.covers("long/path/vendor/x.go"));
        assert!(VendorRule::Since124.covers("long/path/vendor/y/x.go"));
    }
}
