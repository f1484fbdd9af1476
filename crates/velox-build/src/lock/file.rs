//! The lock file beside a configuration.

use std::{fs, io, path::PathBuf};

use super::{model::Lock, requested::RequestedVersions};
use crate::{atomic_file::write_text, error::Error, request::BuildRequest};

#[derive(Debug, Default)]
pub(crate) struct LockFile {
    path: Option<PathBuf>,
    text: Option<String>,
    pub(crate) lock: Option<Lock>,
}

impl LockFile {
    /// Reads the lock file; a missing one is not an error.
    pub(crate) fn read(request: &BuildRequest) -> Result<Self, Error> {
        let Some(path) = request.lock.clone() else { return Ok(Self::default()) };
        // A pipe would wait for ever; a device has no lock.
        let is_special = |data: fs::Metadata| !data.is_file() && !data.is_dir();
        if fs::metadata(&path).is_ok_and(is_special) {
            return Ok(Self { path: Some(path), text: None, lock: None });
        }
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Self { path: Some(path), text: None, lock: None });
            }
            Err(error) => {
                return Err(Error::configuration(format!("failed to read `{}`: {error}", path.display())));
            }
        };
        let name = path.file_name().map_or_else(|| path.to_string_lossy(), |name| name.to_string_lossy());
        let lock = match Lock::parse(&name, &text) {
            Ok(lock) => Some(lock),
            // `vx lock` replaces an invalid lock.
            Err(_) if request.goal == crate::Goal::Lock => None,
            Err(error) => return Err(error),
        };
        Ok(Self { path: Some(path), text: Some(text), lock })
    }

    /// Its name in messages.
    pub(crate) fn name(&self) -> String {
        self.path.as_ref().map_or_else(|| "velox.lock".to_owned(), |path| path.display().to_string())
    }

    /// The lock, or its differences from the requested versions.
    pub(crate) fn matching(&self, requested: &RequestedVersions) -> Result<&Lock, Vec<String>> {
        let Some(lock) = &self.lock else { return Err(vec![format!("there is no {}", self.name())]) };
        let differences = requested.differences(lock);
        if differences.is_empty() { Ok(lock) } else { Err(differences) }
    }

    /// Drops a lock that somebody edited. Returns what they changed.
    pub(crate) fn drop_edited(&mut self, requested: &RequestedVersions) -> Vec<String> {
        let edits = self.lock.as_ref().map(|lock| requested.edits(lock)).unwrap_or_default();
        if !edits.is_empty() {
            self.lock = None;
        }
        edits
    }

    /// The error of a lock that must match the manifest but doesn't.
    pub(crate) fn mismatch(&self, differences: &[String]) -> Error {
        let help = "update it with `vx lock` and commit the change";
        match self.lock {
            Some(_) => Error::configuration(format!("{} does not match the configuration", self.name()))
                .help(help)
                .output(differences.to_vec()),
            None => {
                Error::configuration(format!("{} does not exist, but is required", self.name())).help(help)
            }
        }
    }

    /// Adds the place of the Go version to an error about it.
    pub(crate) fn at_go_version(&self, error: Error) -> Error {
        let line = format!("version = \"{}\"", self.lock.as_ref().map_or("", |lock| &lock.go_version));
        match self.text.iter().flat_map(|text| text.lines()).position(|it| it == line) {
            Some(index) => error.help(format!("{}:{} requires this Go version", self.name(), index + 1)),
            None => error,
        }
    }

    /// Writes the lock if it changed. The error is a message: a build can go on without it.
    pub(crate) fn write(&self, lock: &Lock) -> Result<(), String> {
        let Some(path) = &self.path else { return Ok(()) };
        let text = lock.to_string();
        if self.text.as_ref() == Some(&text) {
            return Ok(());
        }
        write_text(path, &text).map_err(|error| format!("failed to write `{}`: {error}", path.display()))
    }
}
