//! The files of a layer.

use std::{
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

/// An entry of a layer, with its path relative to the root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LayerEntry {
    pub(crate) path: String,
    pub(crate) kind: EntryKind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum EntryKind {
    Directory,
    File { source: PathBuf, is_executable: bool },
    Link { target: String },
}

/// Directories that bases have, often as symbolic links or with special permissions: no layer replaces them.
const STANDARD_DIRECTORIES: [&str; 26] = [
    "bin",
    "dev",
    "etc",
    "home",
    "lib",
    "lib64",
    "media",
    "mnt",
    "opt",
    "proc",
    "root",
    "run",
    "sbin",
    "srv",
    "sys",
    "tmp",
    "usr",
    "usr/bin",
    "usr/lib",
    "usr/local",
    "usr/local/bin",
    "usr/sbin",
    "usr/share",
    "var",
    "var/lib",
    "var/log",
];

/// Normalizes an absolute path in an image: `/usr/bin/rr`.
///
/// # Errors
/// What is wrong with the path.
pub fn image_path(path: &str) -> Result<String, String> {
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

impl ImageAddition {
    /// Parses `SRC:DST`, with `SRC` relative to `directory`.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse(text: &str, directory: &Path) -> Result<Self, String> {
        let (source, destination) =
            text.rsplit_once(':').ok_or_else(|| format!("expected SRC:DST, found `{text}`"))?;
        if source.is_empty() {
            return Err(format!("expected SRC:DST, found `{text}`"));
        }
        let is_directory = destination.ends_with('/');
        let path = image_path(destination)?;
        let destination = if is_directory && path != "/" { format!("{path}/") } else { path };
        Ok(Self { source: directory.join(source), destination })
    }

    /// The entries, sorted by path.
    pub(crate) fn entries(&self) -> Result<Vec<LayerEntry>, Error> {
        let failed = |error| Error::Io { path: self.source.clone(), error };
        let destination = self.destination.trim_matches('/');
        let data = fs::metadata(&self.source).map_err(failed)?;
        let mut entries = Vec::new();
        if data.is_dir() {
            if !destination.is_empty() {
                entries.push(LayerEntry { path: destination.to_owned(), kind: EntryKind::Directory });
            }
            collect(&self.source, destination, &mut entries)?;
        } else {
            let name = match self.destination.ends_with('/') {
                true => join(destination, &file_name(&self.source)?),
                false => destination.to_owned(),
            };
            if name.is_empty() {
                let reason = "the file has no name in the image".to_owned();
                return Err(Error::Addition { path: self.source.clone(), reason });
            }
            entries.push(LayerEntry { path: name, kind: file(&self.source, &data)? });
        }
        entries.sort_by(|one, other| one.path.cmp(&other.path));
        Ok(entries)
    }
}

/// The entries for the parents of `entries`, which come first. Those that every base has are left out, unless there is
/// no base.
pub(crate) fn with_parents(entries: Vec<LayerEntry>, has_base: bool) -> Vec<LayerEntry> {
    let mut all: Vec<LayerEntry> = Vec::new();
    let is_standard = |path: &str| STANDARD_DIRECTORIES.contains(&path);
    for entry in entries {
        let parents = entry.path.match_indices('/').filter_map(|(at, _)| entry.path.get(..at));
        for parent in parents {
            let is_there = all.iter().rev().any(|known| known.path == parent);
            let is_left_out = has_base && is_standard(parent);
            if !is_there && !is_left_out {
                all.push(LayerEntry { path: parent.to_owned(), kind: EntryKind::Directory });
            }
        }
        let is_left_out = entry.kind == EntryKind::Directory && has_base && is_standard(&entry.path);
        if !is_left_out
            && !all.iter().any(|known| known.kind == EntryKind::Directory && known.path == entry.path)
        {
            all.push(entry);
        }
    }
    all
}

/// The permissions that directories have everywhere.
pub(crate) fn directory_mode(path: &str) -> u32 {
    match path {
        "tmp" | "var/tmp" => 0o1777,
        "root" => 0o700,
        _ => 0o755,
    }
}

fn collect(directory: &Path, destination: &str, entries: &mut Vec<LayerEntry>) -> Result<(), Error> {
    let failed = |error| Error::Io { path: directory.to_owned(), error };
    for entry in fs::read_dir(directory).map_err(failed)? {
        let source = entry.map_err(failed)?.path();
        let path = join(destination, &file_name(&source)?);
        let data =
            fs::symlink_metadata(&source).map_err(|error| Error::Io { path: source.clone(), error })?;
        let kind = if data.is_dir() {
            collect(&source, &path, entries)?;
            EntryKind::Directory
        } else if data.is_symlink() {
            let target = fs::read_link(&source).map_err(|error| Error::Io { path: source.clone(), error })?;
            match target.to_str() {
                Some(target) => EntryKind::Link { target: target.to_owned() },
                None => return Err(not_unicode(&source)),
            }
        } else {
            file(&source, &data)?
        };
        entries.push(LayerEntry { path, kind });
    }
    Ok(())
}

fn file(source: &Path, data: &fs::Metadata) -> Result<EntryKind, Error> {
    if !data.is_file() {
        let reason = "it is neither a file nor a directory".to_owned();
        return Err(Error::Addition { path: source.to_owned(), reason });
    }
    // Unreadable files are found before anything is written.
    fs::File::open(source).map_err(|error: io::Error| Error::Io { path: source.to_owned(), error })?;
    Ok(EntryKind::File { source: source.to_owned(), is_executable: is_executable(data) })
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
    let name = path.file_name().map(|name| name.to_str().map(str::to_owned));
    match name {
        Some(Some(name)) if !name.contains('\\') => Ok(name),
        Some(Some(_)) => {
            Err(Error::Addition { path: path.to_owned(), reason: "its name contains a backslash".to_owned() })
        }
        Some(None) => Err(not_unicode(path)),
        None => Err(Error::Addition { path: path.to_owned(), reason: "it has no file name".to_owned() }),
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
        let file = |path: &str| LayerEntry {
            path: path.to_owned(),
            kind: EntryKind::File { source: "x".into(), is_executable: true },
        };
        let paths = |has_base| {
            let entries =
                with_parents(vec![file("usr/bin/rr"), file("srv/app/x"), file("srv/app/y")], has_base);
            entries.into_iter().map(|entry| entry.path).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(paths(true), "usr/bin/rr srv/app srv/app/x srv/app/y");
        assert_eq!(paths(false), "usr usr/bin usr/bin/rr srv srv/app srv/app/x srv/app/y");
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
        let addition = ImageAddition { source: directory.path().to_owned(), destination: "/app".to_owned() };
        let entries = addition.entries().unwrap();
        let paths: Vec<&str> = entries.iter().map(|entry| entry.path.as_str()).collect();
        assert_eq!(paths, ["app", "app/sub", "app/sub/a", "app/sub/link", "app/z.php"]);
        assert_eq!(entries[3].kind, EntryKind::Link { target: "../z.php".to_owned() });

        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        assert!(addition.entries().unwrap_err().to_string().contains("neither a file nor a directory"));
    }
}
