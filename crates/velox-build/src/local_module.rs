//! The directives of a local module's go.mod that only count in a main module
//! (<https://go.dev/ref/mod#go-mod-file-replace>). A directory is built as its author builds it, so they count here.

use std::{
    fs,
    path::{Path, PathBuf},
};

use velox_gomod::{
    modfile::{GoMod, Replace, Require},
    module::ModuleVersion,
};

#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct LocalDirectives {
    /// Directories are relative to where the path of the module starts.
    pub(crate) replaces: Vec<Replace>,
    pub(crate) excludes: Vec<ModuleVersion>,
    /// Not a directive of main modules only: what version selection starts from.
    pub(crate) requires: Vec<ModuleVersion>,
}

impl LocalDirectives {
    /// Those of the go.mod in a directory; none if it is invalid.
    pub(crate) fn read(directory: &Path) -> Self {
        let text = fs::read_to_string(directory.join("go.mod")).unwrap_or_default();
        let GoMod { mut replace, exclude, require, .. } = GoMod::parse(&text).unwrap_or_default();
        for replace in replace.iter_mut().filter(|replace| replace.new_version.is_none()) {
            replace.new_path = directory.join(&replace.new_path).to_string_lossy().into_owned();
        }
        Self { replaces: replace, excludes: exclude, requires: require.iter().map(Require::module).collect() }
    }
}

/// The directories that the go.mod of a local module replaces other modules with.
#[must_use]
pub fn module_replacements(directory: &Path) -> Vec<PathBuf> {
    let replaces = LocalDirectives::read(directory).replaces.into_iter();
    replaces.filter(|it| it.new_version.is_none()).map(|it| PathBuf::from(it.new_path)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_are_seen_from_the_module() {
        let directory = tempfile::tempdir().unwrap();
        let go_mod = "module a.b/c\nreplace a.b/d => ../d\nreplace a.b/e v1.0.0 => a.b/f v1.1.0\nexclude a.b/g v1.0.0\n";
        fs::write(directory.path().join("go.mod"), go_mod).unwrap();
        let LocalDirectives { replaces, excludes, .. } = LocalDirectives::read(directory.path());
        assert_eq!(replaces[0].new_path, directory.path().join("../d").to_string_lossy());
        assert_eq!((replaces[1].new_path.as_str(), excludes.len()), ("a.b/f", 1));
        assert_eq!(LocalDirectives::read(&directory.path().join("none")), LocalDirectives::default());
    }
}
