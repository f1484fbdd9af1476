//! The files of a layer.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

use crate::Error;

/// A file or a directory that is copied into an image: `SRC:DST`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageAddition {
    /// The path on this machine.
    pub source: PathBuf,
    /// The absolute path in the image. A file is put into it if it ends with `/`; of a directory, the content is copied.
    pub destination: String,
}

/// The entries of a layer by their paths, relative to the root: a directory comes before its content.
pub(crate) type LayerFiles = BTreeMap<String, LayerEntry>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LayerEntry {
    Directory,
    File { source: PathBuf, is_executable: bool },
    Link { target: String },
}

/// Directories that bases have, often as symbolic links or with special permissions: no layer replaces them.
const STANDARD_DIRECTORIES: &str = "bin dev etc home lib lib64 media mnt opt proc root run sbin srv sys tmp usr \
    usr/bin usr/lib usr/local usr/local/bin usr/sbin usr/share var var/lib var/log";

fn is_standard(path: &str) -> bool {
    STANDARD_DIRECTORIES.split(' ').any(|directory| directory == path)
}

/// Normalizes the absolute path of a file in an image: `/usr/bin/rr`.
///
/// # Errors
/// What is wrong with the path.
pub fn image_path(path: &str) -> Result<String, String> {
    let normalized = normalized(path)?;
    if path.ends_with('/') {
        return Err(format!("expected the path of a file, found `{path}`"));
    }
    check_file(&normalized).map(|()| normalized)
}

fn normalized(path: &str) -> Result<String, String> {
    if !path.starts_with('/') {
        return Err(format!("expected an absolute path in the image, found `{path}`"));
    }
    let parts: Vec<&str> = path.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    if parts.contains(&"..") {
        return Err(format!("`..` is not allowed in the path `{path}`"));
    }
    if path.chars().any(char::is_control) {
        return Err("control characters are not allowed in a path".to_owned());
    }
    Ok(format!("/{}", parts.join("/")))
}

/// Fails for a file in place of a directory that images have.
fn check_file(path: &str) -> Result<(), String> {
    let relative = path.trim_start_matches('/');
    match relative.is_empty() || is_standard(relative) {
        true => Err(format!("`/{relative}` is a directory in the image; use the path of a file")),
        false => Ok(()),
    }
}

impl ImageAddition {
    /// Parses `SRC:DST`, with `SRC` relative to `directory`.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse(text: &str, directory: &Path) -> Result<Self, String> {
        let (source, destination) = text
            .rsplit_once(':')
            .filter(|(source, _)| !source.is_empty())
            .ok_or_else(|| format!("expected SRC:DST, found `{text}`"))?;
        let path = normalized(destination)?;
        let is_directory = destination.ends_with('/') && path != "/";
        let destination = if is_directory { format!("{path}/") } else { path };
        Ok(Self { source: directory.join(source), destination })
    }

    /// Fails if the files can't be read or added.
    ///
    /// # Errors
    /// The first of them, and what is wrong.
    pub fn check(&self) -> Result<(), Error> {
        self.files().map(drop)
    }

    pub(crate) fn files(&self) -> Result<LayerFiles, Error> {
        let destination = self.destination.trim_matches('/');
        let data = fs::metadata(&self.source).map_err(unreadable(&self.source))?;
        let mut files = LayerFiles::new();
        if data.is_dir() {
            if !destination.is_empty() {
                files.insert(destination.to_owned(), LayerEntry::Directory);
            }
            collect(&self.source, destination, &mut files)?;
        } else {
            let name = match self.destination.ends_with('/') {
                true => join(destination, &file_name(&self.source)?),
                false => destination.to_owned(),
            };
            check_file(&name).map_err(|reason| Error::Addition { path: self.source.clone(), reason })?;
            files.insert(name, file(&self.source, &data)?);
        }
        Ok(files)
    }
}

/// The files with their parent directories. Directories that every base has are left out, unless there is no base.
pub(crate) fn with_parents(mut files: LayerFiles, has_base: bool) -> LayerFiles {
    let parents_of =
        |path: &str| path.match_indices('/').map(|(at, _)| path.split_at(at).0.to_owned()).collect();
    let parents: BTreeSet<String> =
        files.keys().flat_map(|path| -> Vec<String> { parents_of(path) }).collect();
    for parent in parents {
        files.entry(parent).or_insert(LayerEntry::Directory);
    }
    if has_base {
        files.retain(|path, entry| *entry != LayerEntry::Directory || !is_standard(path));
    }
    files
}

/// The permissions that directories have everywhere.
pub(crate) fn directory_mode(path: &str) -> u32 {
    match path {
        "tmp" | "var/tmp" => 0o1777,
        "root" => 0o700,
        _ => 0o755,
    }
}

fn collect(directory: &Path, destination: &str, files: &mut LayerFiles) -> Result<(), Error> {
    for entry in fs::read_dir(directory).map_err(unreadable(directory))? {
        let source = entry.map_err(unreadable(directory))?.path();
        let path = join(destination, &file_name(&source)?);
        let data = fs::symlink_metadata(&source).map_err(unreadable(&source))?;
        let entry = if data.is_dir() {
            collect(&source, &path, files)?;
            LayerEntry::Directory
        } else if data.is_symlink() {
            let target = fs::read_link(&source).map_err(unreadable(&source))?;
            let target = target.into_os_string().into_string().map_err(|_| not_unicode(&source))?;
            LayerEntry::Link { target }
        } else {
            file(&source, &data)?
        };
        files.insert(path, entry);
    }
    Ok(())
}

fn file(source: &Path, data: &fs::Metadata) -> Result<LayerEntry, Error> {
    if !data.is_file() {
        let reason = "it is neither a file nor a directory".to_owned();
        return Err(Error::Addition { path: source.to_owned(), reason });
    }
    // Unreadable files are found before anything is written.
    fs::File::open(source).map_err(unreadable(source))?;
    Ok(LayerEntry::File { source: source.to_owned(), is_executable: is_executable(data) })
}

fn unreadable(path: &Path) -> impl Fn(io::Error) -> Error {
    |error| Error::Addition { path: path.to_owned(), reason: error.to_string() }
}

#[cfg(unix)]
fn is_executable(data: &fs::Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    data.permissions().mode() & 0o100 != 0
}

#[cfg(not(unix))]
fn is_executable(_: &fs::Metadata) -> bool {
    false
}

fn file_name(path: &Path) -> Result<String, Error> {
    let refused = |reason: &str| Err(Error::Addition { path: path.to_owned(), reason: reason.to_owned() });
    match path.file_name().map(|name| name.to_str()) {
        Some(Some(name)) if name.contains('\\') => refused("its name contains a backslash"),
        Some(Some(name)) => Ok(name.to_owned()),
        Some(None) => Err(not_unicode(path)),
        None => refused("it has no file name"),
    }
}

fn not_unicode(path: &Path) -> Error {
    Error::Addition { path: path.to_owned(), reason: "its name is not valid Unicode".to_owned() }
}

fn join(directory: &str, name: &str) -> String {
    if directory.is_empty() { name.to_owned() } else { format!("{directory}/{name}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn additions_are_source_and_destination() {
        let parse = |text| ImageAddition::parse(text, Path::new("/work"));
        let added = |source: &str, destination: &str| ImageAddition {
            source: source.into(),
            destination: destination.to_owned(),
        };
        assert_eq!(parse(".rr.yaml:/etc/rr.yaml"), Ok(added("/work/.rr.yaml", "/etc/rr.yaml")));
        assert_eq!(parse("/app:/srv//app/./"), Ok(added("/app", "/srv/app/")));
        assert_eq!(parse("C:\\app:/app"), Ok(added("/work/C:\\app", "/app")));
        for (text, reason) in [
            ("app", "expected SRC:DST"),
            (":/app", "expected SRC:DST"),
            ("app:etc", "expected an absolute path in the image, found `etc`"),
            ("app:/../etc", "`..` is not allowed"),
        ] {
            assert!(parse(text).unwrap_err().contains(reason), "{text}");
        }
    }

    #[test]
    fn standard_directories_belong_to_the_base() {
        let paths = |has_base| {
            let file = LayerEntry::File { source: "x".into(), is_executable: true };
            let files = ["usr/bin/rr", "srv/app/x", "srv/app/y"].map(|path| (path.to_owned(), file.clone()));
            let files = with_parents(files.into_iter().collect(), has_base);
            files.into_keys().collect::<Vec<_>>().join(" ")
        };
        assert_eq!(paths(true), "srv/app srv/app/x srv/app/y usr/bin/rr");
        assert_eq!(paths(false), "srv srv/app srv/app/x srv/app/y usr usr/bin usr/bin/rr");
        assert_eq!(image_path("/opt//rr").as_deref(), Ok("/opt/rr"));
        for path in ["/", "/usr/bin", "/usr/bin/", "/opt/"] {
            assert!(image_path(path).is_err(), "{path}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn directories_are_copied_in_order() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::create_dir(at("sub")).unwrap();
        fs::write(at("z.php"), "z").unwrap();
        fs::write(at("sub/a"), "a").unwrap();
        std::os::unix::fs::symlink("../z.php", at("sub/link")).unwrap();
        let add = |source: PathBuf, destination: &str| {
            ImageAddition { source, destination: destination.to_owned() }.files()
        };
        let files = add(at(""), "/app").unwrap();
        let paths: Vec<&String> = files.keys().collect();
        assert_eq!(paths, ["app", "app/sub", "app/sub/a", "app/sub/link", "app/z.php"]);
        assert_eq!(files["app/sub/link"], LayerEntry::Link { target: "../z.php".to_owned() });

        assert!(add(at("z.php"), "/etc/").unwrap().contains_key("etc/z.php"));
        let replaced = add(at("z.php"), "/etc").unwrap_err().to_string();
        assert!(
            replaced.ends_with("`/etc` is a directory in the image; use the path of a file"),
            "{replaced}"
        );
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        let refused = add(at(""), "/app").unwrap_err().to_string();
        assert!(refused.contains("neither a file nor a directory"), "{refused}");
    }
}
