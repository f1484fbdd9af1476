//! The source tree that `go build` compiles.

pub(crate) mod plugins_go;
pub(crate) mod scratch;
pub(crate) mod tree;

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{error::Error, lock::Lock};

/// RoadRunner's source tree with the `container/plugins.go`, go.mod and go.sum of this binary.
///
/// ```text
/// WORKSPACE/
///   go.mod go.sum           composed
///   container/plugins.go    generated
///   replace/NAME/           copies of local replacements: their path goes into the binary
///   …                       RoadRunner's own
/// ```
#[derive(Debug)]
pub(crate) struct Workspace {
    directory: PathBuf,
}

impl Workspace {
    pub(crate) fn create(roadrunner: &Path, directory: PathBuf) -> Result<Self, Error> {
        tree::copy(roadrunner, &directory)?;
        // Both would override go.mod.
        for other in ["go.work", "go.work.sum"] {
            let _ = fs::remove_file(directory.join(other));
        }
        let _ = fs::remove_dir_all(directory.join("vendor"));
        Ok(Self { directory })
    }

    /// An empty directory, for queries about modules.
    pub(crate) fn empty(directory: PathBuf) -> Result<Self, Error> {
        fs::create_dir_all(&directory).map_err(|error| Error::file("make", &directory, &error))?;
        Ok(Self { directory })
    }

    /// Writes go.mod, go.sum and the list of plugins.
    pub(crate) fn prepare(&self, lock: &Lock) -> Result<(), Error> {
        let registered = lock.plugins.iter().filter(|plugin| !plugin.built_in);
        let modules: Vec<&str> = registered.map(|plugin| plugin.module.as_str()).collect();
        self.write("go.mod", lock.go_mod.text())?;
        self.write("go.sum", &lock.go_sum.to_string())?;
        self.write("container/plugins.go", &plugins_go::plugins_go(&modules))
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Copies a local replacement. Returns its path for go.mod.
    pub(crate) fn add_replacement(&self, module: &str, source: &Path) -> Result<String, Error> {
        let mut name: String = module
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '-' | '.') { c } else { '_' })
            .collect();
        while self.directory.join("replace").join(&name).exists() {
            name.push('_');
        }
        tree::copy(source, &self.directory.join("replace").join(&name))?;
        Ok(format!("./replace/{name}"))
    }

    pub(crate) fn write(&self, relative: &str, content: &str) -> Result<(), Error> {
        let path = self.directory.join(relative);
        path.parent()
            .map_or(Ok(()), fs::create_dir_all)
            .and_then(|()| fs::write(&path, content))
            .map_err(|error| Error::file("write", &path, &error))
    }

    pub(crate) fn read(&self, relative: &str) -> Result<String, Error> {
        let path = self.directory.join(relative);
        fs::read_to_string(&path).map_err(|error| Error::file("read", &path, &error))
    }
}
