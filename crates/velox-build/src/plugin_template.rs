//! The files of a new plugin.

use std::{fs, io, path::Path};

use velox_gomod::module;

use crate::error::Error;

/// A minimal plugin with passing tests.
///
/// ```text
/// plugin.go  config.go  rpc.go  plugin_test.go    the plugin
/// go.mod     go.sum                               its module
/// velox.toml .rr.yaml                             a configuration to try it with
/// README.md  .gitignore
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginTemplate {
    name: String,
    module: String,
}

macro_rules! files {
    ($($name:literal <- $template:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../skeleton/", $template, ".tmpl")))),*]
    };
}

const FILES: &[(&str, &str)] = files![
    "plugin.go" <- "plugin.go",
    "config.go" <- "config.go",
    "rpc.go" <- "rpc.go",
    "plugin_test.go" <- "plugin_test.go",
    "go.mod" <- "go.mod",
    "go.sum" <- "go.sum",
    "velox.toml" <- "velox.toml",
    ".rr.yaml" <- "rr.yaml",
    "README.md" <- "README.md",
    ".gitignore" <- "gitignore",
];

/// Go's keywords (<https://go.dev/ref/spec#Keywords>), special package names of the go command, and
/// configuration sections of RoadRunner and the template.
const RESERVED_NAMES: &[&str] = &[
    "break",
    "case",
    "chan",
    "const",
    "continue",
    "default",
    "defer",
    "else",
    "fallthrough",
    "for",
    "func",
    "go",
    "goto",
    "if",
    "import",
    "interface",
    "map",
    "package",
    "range",
    "return",
    "select",
    "struct",
    "switch",
    "type",
    "var",
    "main",
    "init",
    "internal",
    "vendor",
    "testdata",
    "test",
    "version",
    "logs",
    "logger",
    "rpc",
    "zap",
    "errors",
    "context",
    "strings",
    "config",
];

impl PluginTemplate {
    /// A plugin with this name and module path (default: `example.com/NAME`).
    ///
    /// # Errors
    /// An invalid name or module path.
    pub fn new(name: &str, module: Option<&str>) -> Result<Self, Error> {
        let wrong = |why: &str| Error::configuration(format!("invalid plugin name `{name}`: {why}"));
        let shape = "use lower-case letters, digits and dashes, such as `my-plugin`";
        let known = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if name.len() > 64 || !name.chars().all(known) || !name.starts_with(|c: char| c.is_ascii_lowercase())
        {
            return Err(wrong(shape).help("the module path can differ: --module github.com/Me/MyPlugin"));
        }
        if name.ends_with('-') || name.contains("--") {
            return Err(wrong("a dash must be between two words"));
        }
        let skeleton = Self { name: name.to_owned(), module: String::new() };
        if RESERVED_NAMES.contains(&name) || RESERVED_NAMES.contains(&skeleton.package().as_str()) {
            return Err(wrong("it is reserved by Go or RoadRunner"));
        }
        let module = module.map_or_else(|| format!("example.com/{name}"), str::to_owned);
        module::check_path(&module).map_err(|error| {
            Error::configuration(format!("--module: {error}"))
                .help("a module path names a repository, such as github.com/me/my-plugin")
        })?;
        Ok(Self { module, ..skeleton })
    }

    /// The module path.
    #[must_use]
    pub fn module(&self) -> &str {
        &self.module
    }

    /// Writes the files into a missing or empty `directory` (except for version control). Returns their names.
    ///
    /// # Errors
    /// The directory is not empty or can't be written.
    pub fn write(&self, directory: &Path) -> Result<Vec<&'static str>, Error> {
        let failed = |error: io::Error| Error::file("write", directory, &error);
        let existing = match fs::read_dir(directory) {
            Ok(entries) => Some(entries),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(failed(error)),
        };
        let has_files = |entries: fs::ReadDir| {
            entries
                .flatten()
                .any(|entry| ![".git", ".hg", ".svn"].iter().any(|name| entry.file_name() == *name))
        };
        let exists = existing.is_some();
        if existing.is_some_and(has_files) {
            let message = format!("{} already exists and is not empty", directory.display());
            return Err(
                Error::configuration(message).help("choose another name, or another directory with --dir")
            );
        }
        // An existing directory may be the working directory of a process: it is not replaced.
        let parent = if exists { directory } else { directory.parent().unwrap_or(Path::new(".")) };
        fs::create_dir_all(parent).map_err(failed)?;
        let temporary = tempfile::Builder::new().prefix(".vx-new-").tempdir_in(parent).map_err(failed)?;
        let staging = temporary.path().join("plugin");
        // Unlike a temporary directory, it gets its mode from the umask.
        fs::create_dir(&staging).map_err(failed)?;
        for (name, template) in FILES {
            fs::write(staging.join(name), self.render(template)).map_err(failed)?;
        }
        if exists {
            FILES.iter().try_for_each(|(name, _)| fs::rename(staging.join(name), directory.join(name)))
        } else {
            fs::rename(&staging, directory)
        }
        .map_err(failed)?;
        Ok(FILES.iter().map(|(name, _)| *name).collect())
    }

    fn render(&self, template: &str) -> String {
        template
            .replace("{{name}}", &self.name)
            .replace("{{package}}", &self.package())
            .replace("{{module}}", &self.module)
    }

    /// Package names have no dashes.
    fn package(&self) -> String {
        self.name.replace('-', "")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_go_can_not_compile_are_refused() {
        for name in
            ["", "My", "1st", "a_b", "a b", "a--b", "a-", "-a", "go", "main", "f-unc", "../x", "é", "rpc"]
        {
            assert!(PluginTemplate::new(name, None).is_err(), "{name}");
        }
        for module in ["", "http", "https://example.com/x", "example.com/a b", "example.com/../x"] {
            assert!(PluginTemplate::new("fine", Some(module)).is_err(), "{module}");
        }
        assert_eq!(PluginTemplate::new("my-plugin2", None).unwrap().module(), "example.com/my-plugin2");
    }

    #[test]
    fn nothing_of_the_template_is_left() {
        let skeleton = PluginTemplate::new("my-plugin", Some("github.com/Me/MyPlugin/v2")).unwrap();
        for (name, template) in FILES {
            let filled = skeleton.render(template);
            assert!(!filled.contains("{{") && filled.ends_with('\n'), "{name}");
        }
        assert!(skeleton.render("package {{package}}").ends_with(" myplugin"));
    }

    #[test]
    fn a_directory_with_files_stays_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let skeleton = PluginTemplate::new("fine", None).unwrap();
        fs::write(directory.path().join("mine"), "").unwrap();
        assert!(skeleton.write(directory.path()).is_err());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        fs::create_dir_all(directory.path().join("empty/.git")).unwrap();
        skeleton.write(&directory.path().join("empty")).unwrap();
        skeleton.write(&directory.path().join("deep/er")).unwrap();
        assert_eq!(fs::read_dir(directory.path().join("empty")).unwrap().count(), FILES.len() + 1);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 3, "nothing half made is left");
    }
}
