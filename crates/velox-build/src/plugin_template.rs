//! The files of a new plugin.

use std::{fs, io, path::Path};

use velox_gomod::module::{self, ModuleVersion, major_suffix, without_major};
use velox_manifest::catalogue;

use crate::error::Error;

/// A minimal plugin with passing tests, for the plugin interfaces of a RoadRunner release.
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
    roadrunner: String,
    logger: ModuleVersion,
    rpc: ModuleVersion,
}

macro_rules! files {
    ($folder:literal: $($own:literal),*) => {
        &[
            $(($own, include_str!(concat!("../skeleton/", $folder, "/", $own, ".tmpl"))),)*
            ("config.go", include_str!("../skeleton/config.go.tmpl")),
            ("velox.toml", include_str!("../skeleton/velox.toml.tmpl")),
            (".rr.yaml", include_str!("../skeleton/rr.yaml.tmpl")),
            ("README.md", include_str!("../skeleton/README.md.tmpl")),
            (".gitignore", include_str!("../skeleton/gitignore.tmpl")),
        ]
    };
}

type TemplateFiles = &'static [(&'static str, &'static str)];

/// For plugins of major version v5, which log with zap.
const V5_FILES: TemplateFiles = files!["v5": "plugin.go", "rpc.go", "plugin_test.go", "go.mod", "go.sum"];
/// For plugins of major version v6 and newer, which log with log/slog.
const V6_FILES: TemplateFiles = files!["v6": "plugin.go", "rpc.go", "plugin_test.go", "go.mod", "go.sum"];

const LOGGER: &str = "github.com/roadrunner-server/logger";
const RPC: &str = "github.com/roadrunner-server/rpc";

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
    "slog",
    "errors",
    "context",
    "strings",
    "config",
];

impl PluginTemplate {
    /// A plugin with this name and module path (default: `example.com/NAME`), for the newest RoadRunner release of
    /// the catalogue.
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
        if RESERVED_NAMES.contains(&name) || RESERVED_NAMES.contains(&name.replace('-', "").as_str()) {
            return Err(wrong("it is reserved by Go or RoadRunner"));
        }
        let module = module.map_or_else(|| format!("example.com/{name}"), str::to_owned);
        module::check_path(&module).map_err(|error| {
            Error::configuration(format!("--module: {error}"))
                .help("a module path names a repository, such as github.com/me/my-plugin")
        })?;
        let release = catalogue::known_releases()
            .first()
            .ok_or_else(|| Error::build("internal error: the catalogue has no RoadRunner release"))?;
        let plugins: Vec<ModuleVersion> =
            release.plugins().map(|(path, version)| ModuleVersion::new(path, version)).collect();
        let none = || ModuleVersion::new("", "");
        let template =
            Self { name: name.to_owned(), module, roadrunner: String::new(), logger: none(), rpc: none() };
        template.for_release(&release.version, &plugins)
    }

    /// The plugin for another RoadRunner: its ref, and the plugins that it contains.
    ///
    /// # Errors
    /// The RoadRunner is too old.
    pub fn for_release(self, roadrunner: &str, plugins: &[ModuleVersion]) -> Result<Self, Error> {
        let find = |base: &str| {
            let has_base = |plugin: &&ModuleVersion| without_major(&plugin.path) == base;
            plugins.iter().find(has_base).cloned().ok_or_else(|| {
                Error::configuration(format!("RoadRunner {roadrunner} has no plugin {base}"))
                    .help("select a release with --roadrunner")
            })
        };
        let template =
            Self { roadrunner: roadrunner.to_owned(), logger: find(LOGGER)?, rpc: find(RPC)?, ..self };
        match template.plugin_major() {
            5.. => Ok(template),
            major => Err(Error::configuration(format!(
                "no template for RoadRunner {roadrunner}, whose plugins have major version v{major}"
            ))
            .help("select RoadRunner v2024.2.0 or newer with --roadrunner")),
        }
    }

    /// The major version of RoadRunner's own plugins.
    fn plugin_major(&self) -> u64 {
        let suffix = major_suffix(&self.logger.path);
        suffix.trim_start_matches("/v").parse().unwrap_or(1)
    }

    fn files(&self) -> TemplateFiles {
        if self.plugin_major() < 6 { V5_FILES } else { V6_FILES }
    }

    /// The ref of the RoadRunner that the plugin is for.
    #[must_use]
    pub fn roadrunner(&self) -> &str {
        &self.roadrunner
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
        let files = self.files();
        for (name, template) in files {
            fs::write(staging.join(name), self.render(template)).map_err(failed)?;
        }
        if exists {
            files.iter().try_for_each(|(name, _)| fs::rename(staging.join(name), directory.join(name)))
        } else {
            fs::rename(&staging, directory)
        }
        .map_err(failed)?;
        Ok(files.iter().map(|(name, _)| *name).collect())
    }

    fn render(&self, template: &str) -> String {
        template
            .replace("{{name}}", &self.name)
            .replace("{{package}}", &self.package())
            .replace("{{module}}", &self.module)
            .replace("{{roadrunner}}", &self.roadrunner)
            .replace("{{logger_module}}", &self.logger.path)
            .replace("{{logger}}", &self.logger.version)
            .replace("{{rpc_module}}", &self.rpc.path)
            .replace("{{rpc}}", &self.rpc.version)
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
        for (name, template) in V5_FILES.iter().chain(V6_FILES) {
            let filled = skeleton.render(template);
            assert!(!filled.contains("{{") && filled.ends_with('\n'), "{name}");
        }
        assert!(skeleton.render("package {{package}}").ends_with(" myplugin"));
    }

    #[test]
    fn the_release_decides_about_the_template() {
        let plugins = |major: &str| {
            ["logger", "rpc"].map(|name| {
                let path = format!("github.com/roadrunner-server/{name}/{major}");
                ModuleVersion::new(path, format!("{major}.0.1"))
            })
        };
        let template = |major: &str| {
            let template = PluginTemplate::new("hello", None).unwrap();
            template.for_release("v0.0.1", &plugins(major))
        };
        assert!(template("v4").is_err());
        assert!(PluginTemplate::new("hello", None).unwrap().for_release("v3.0.0", &[]).is_err());
        for (major, logs) in [("v5", "zap"), ("v6", "slog"), ("v7", "slog")] {
            let template = template(major).unwrap();
            let file = |name: &str| {
                let (_, text) = template.files().iter().find(|(file, _)| *file == name).unwrap();
                template.render(text)
            };
            assert!(file("plugin.go").contains(&format!("*{logs}.Logger")), "{major}");
            assert_eq!(file("go.mod").contains("zap"), logs == "zap");
            let configuration = file("velox.toml");
            assert!(
                configuration.contains(&format!("/rpc/{major}\"\ntag = \"{major}.0.1\"")),
                "{configuration}"
            );
            assert!(configuration.contains("ref = \"v0.0.1\""), "{configuration}");
        }
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
        assert_eq!(fs::read_dir(directory.path().join("empty")).unwrap().count(), V5_FILES.len() + 1);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 3, "nothing half made is left");
    }
}
