//! The compiler's positions, as the user knows the files: a path of theirs, or a module with a link to its forge.

use std::path::{Path, PathBuf};

use velox_gomod::{
    module::{ModuleVersion, escape_path, escape_version, without_major},
    pseudo,
};
use velox_manifest::{Manifest, Origin, Plugin, Project, Replacement};

use crate::{
    context::BuildContext,
    lock::{Lock, LockedReplacement, LockedTarget, source_of},
};

/// The places of source files in the compiler's messages.
pub(super) struct SourceLines {
    /// `replace/NAME/`, and the directory as the configuration names it.
    directories: Vec<(String, PathBuf)>,
    /// The path in the module cache, and `path@version/`.
    modules: Vec<(String, ModuleVersion)>,
}

impl SourceLines {
    pub(super) fn new(context: &BuildContext<'_>, lock: &Lock, locked: &LockedTarget) -> Self {
        let replaces = &lock.go_mod.replace;
        let base = context.request.source.as_ref().and_then(|source| Path::new(&source.name).parent());
        let directory_of = |module: &str| {
            let plugin = lock.plugins.iter().find(|plugin| plugin.module == module);
            let directory = match plugin.and_then(|plugin| plugin.replacement.as_ref()) {
                Some(LockedReplacement::Directory { path }) => path.clone(),
                _ => context.manifest.replaces.iter().find_map(|replace| match &replace.new.value {
                    Replacement::Directory(path) if replace.old.value.0 == module => Some(path.into()),
                    _ => None,
                })?,
            };
            // Relative to the working directory, as the configuration file is.
            let path = base.map_or_else(|| directory.clone(), |base| base.join(&directory));
            Some(path.components().collect::<PathBuf>())
        };
        let directories = replaces
            .iter()
            .filter(|replace| replace.new_version.is_none())
            .filter_map(|replace| {
                let copy = replace.new_path.trim_start_matches("./");
                Some((format!("{copy}/"), directory_of(&replace.old_path)?))
            })
            .collect();
        let modules = locked
            .modules
            .iter()
            .filter_map(|module| source_of(replaces, module))
            .filter_map(|module| {
                let (path, version) =
                    (escape_path(&module.path).ok()?, escape_version(&module.version).ok()?);
                Some((format!("{path}@{version}/"), module))
            })
            .collect();
        Self { directories, modules }
    }

    /// A line with the user's path, or with `path@version/` in place of a path in the module cache.
    pub(super) fn shown(&self, line: &str) -> String {
        for (copy, directory) in &self.directories {
            if let Some(rest) = line.strip_prefix("./").unwrap_or(line).strip_prefix(copy.as_str()) {
                return directory.join(rest).to_string_lossy().into_owned();
            }
        }
        match self.module(line) {
            Some((module, file)) => format!("{module}/{file}"),
            None => line.to_owned(),
        }
    }

    /// The page of the first line of a module on its forge.
    pub(super) fn page(&self, lines: &str, manifest: &Manifest, lock: &Lock) -> Option<String> {
        lines.lines().find_map(|line| {
            let (module, rest) = self.module(line)?;
            let mut parts = rest.splitn(3, ':');
            let (file, number) = (parts.next()?, parts.next()?.parse::<u32>().ok()?);
            let name = lock.plugins.iter().find(|plugin| plugin.module == module.path);
            let plugin = name
                .and_then(|locked| manifest.plugins.iter().find(|plugin| plugin.name.value == locked.name));
            page(module, file, number, plugin, manifest)
        })
    }

    /// The module of a line's file, and the rest of the line.
    fn module<'a>(&'a self, line: &'a str) -> Option<(&'a ModuleVersion, &'a str)> {
        let path = line.split_once(".go:").map_or(line, |(path, _)| path);
        self.modules.iter().find_map(|(place, module)| {
            let at = path.find(place.as_str())?;
            let is_whole = line.get(..at).is_some_and(|before| before.is_empty() || before.ends_with('/'));
            Some((module, line.get(at + place.len()..).filter(|_| is_whole)?))
        })
    }
}

/// The page of a line on GitHub or GitLab, if the module path or the configuration tells the repository.
fn page(
    module: &ModuleVersion,
    file: &str,
    line: u32,
    plugin: Option<&Plugin>,
    manifest: &Manifest,
) -> Option<String> {
    let base = without_major(&module.path);
    let configured = plugin.and_then(|plugin| match &plugin.origin {
        Origin::GitHub { owner, repository, folder } => {
            let path = format!("{}/{}", owner.value, repository.value);
            Some((&manifest.github, path, folder.as_ref(), "blob"))
        }
        Origin::GitLab { project, folder } => match &project.value {
            Project::Path(path) => Some((&manifest.gitlab, path.clone(), folder.as_ref(), "-/blob")),
            Project::Id(_) => None,
        },
        Origin::Module(_) => None,
    });
    let (root, folder, blob) = match configured {
        Some((forge, path, folder, blob)) => {
            let host = forge.endpoint.as_ref().map(|endpoint| endpoint.value.origin().ascii_serialization());
            let host = host.unwrap_or_else(|| format!("https://{}", forge.host()));
            (format!("{host}/{path}"), folder.map(|folder| folder.value.clone()).unwrap_or_default(), blob)
        }
        None => {
            let mut parts = base.splitn(4, '/');
            let (host, owner, repository) = (parts.next()?, parts.next()?, parts.next()?);
            let folder = parts.next().unwrap_or_default().to_owned();
            let blob = match host {
                "github.com" => "blob",
                // A longer path may be a group in a group.
                "gitlab.com" if folder.is_empty() => "-/blob",
                _ => return None,
            };
            (format!("https://{host}/{owner}/{repository}"), folder, blob)
        }
    };
    let folder = if folder.is_empty() { folder } else { format!("{folder}/") };
    let version = module.version.trim_end_matches("+incompatible");
    let reference = match pseudo::is_pseudo_version(&module.version) {
        true => pseudo::revision(&module.version)?.to_owned(),
        false => format!("{folder}{version}"),
    };
    Some(format!("{root}/{blob}/{reference}/{folder}{file}#L{line}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines() -> SourceLines {
        let module = |path: &str, version: &str| ModuleVersion::new(path, version);
        SourceLines {
            directories: vec![("replace/github.com_acme_broken/".into(), "../broken".into())],
            modules: vec![
                ("github.com/!acme/x/v2@v2.1.0/".into(), module("github.com/Acme/x/v2", "v2.1.0")),
                (
                    "github.com/acme/mono/sub@v0.0.0-20260102030405-0123456789ab/".into(),
                    module("github.com/acme/mono/sub", "v0.0.0-20260102030405-0123456789ab"),
                ),
                ("gitlab.com/acme/y@v1.0.0/".into(), module("gitlab.com/acme/y", "v1.0.0")),
                ("example.com/z@v1.0.0/".into(), module("example.com/z", "v1.0.0")),
            ],
        }
    }

    #[test]
    fn paths_are_those_that_the_user_knows() {
        for (line, expected) in [
            ("replace/github.com_acme_broken/plugin.go:3:1: x", "../broken/plugin.go:3:1: x"),
            ("./replace/github.com_acme_broken/a/b.go:3:1: x", "../broken/a/b.go:3:1: x"),
            (
                "/go/pkg/mod/github.com/!acme/x/v2@v2.1.0/p.go:9:1: y",
                "github.com/Acme/x/v2@v2.1.0/p.go:9:1: y",
            ),
            ("../../mod/github.com/!acme/x/v2@v2.1.0/p.go:9:1: y", "github.com/Acme/x/v2@v2.1.0/p.go:9:1: y"),
            ("container/plugins.go:9:1: y", "container/plugins.go:9:1: y"),
            ("\thave (int) example.com/z@v1.0.0/p.go", "\thave (int) example.com/z@v1.0.0/p.go"),
        ] {
            assert_eq!(lines().shown(line), expected);
        }
    }

    #[test]
    fn a_line_has_a_page_where_the_path_tells_the_repository() {
        let page = |line: &str| {
            let (module, _) =
                lines().module(line).map(|(module, rest)| (module.clone(), rest.to_owned())).unwrap();
            page(&module, "p.go", 9, None, &Manifest::without_a_file())
        };
        assert_eq!(
            page("/m/github.com/!acme/x/v2@v2.1.0/p.go:9:1: y").unwrap(),
            "https://github.com/Acme/x/blob/v2.1.0/p.go#L9"
        );
        assert_eq!(
            page("/m/github.com/acme/mono/sub@v0.0.0-20260102030405-0123456789ab/p.go:9:1: y").unwrap(),
            "https://github.com/acme/mono/blob/0123456789ab/sub/p.go#L9"
        );
        assert_eq!(
            page("/m/gitlab.com/acme/y@v1.0.0/p.go:9:1: y").unwrap(),
            "https://gitlab.com/acme/y/-/blob/v1.0.0/p.go#L9"
        );
        assert_eq!(page("/m/example.com/z@v1.0.0/p.go:9:1: y"), None);
    }
}
