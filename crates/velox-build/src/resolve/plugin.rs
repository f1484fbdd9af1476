//! The plugins of a manifest with their resolved modules.

use std::{
    collections::BTreeMap,
    fs,
    ops::Range,
    path::{Path, PathBuf},
};

use velox_gomod::{
    modfile::{self, GoMod, Require},
    module::{ModuleVersion, major_suffix, path_major_matches, without_major},
    pseudo, semver,
};
use velox_manifest::{Diagnostic, Manifest, Origin, Plugin, Project, Spanned, catalogue::ALWAYS_INCLUDED};

use super::resolved::ResolvedModule;
use crate::{
    error::{Error, ErrorKind},
    imports::{PLUGINS_GO, created_plugins, imports_of, module_of},
    lock::LockedReplacement,
};

/// A resolved plugin, before version selection.
#[derive(Default)]
pub(super) struct ResolvedPlugin {
    pub(super) name: String,
    pub(super) span: Option<Range<usize>>,
    pub(super) asked: String,
    pub(super) module: String,
    pub(super) version: String,
    pub(super) commit: Option<String>,
    /// Or that of its replacement; `None` for a plugin that RoadRunner requires at this version.
    pub(super) go_mod: Option<GoMod>,
    pub(super) replacement: Option<LockedReplacement>,
    pub(super) added: bool,
    /// Whether RoadRunner's own code registers it: only its version counts.
    pub(super) built_in: bool,
}

impl ResolvedPlugin {
    /// The lines of its go.mod.
    pub(super) fn requires(&self) -> impl Iterator<Item = &Require> {
        self.go_mod.iter().flat_map(|go_mod| &go_mod.require)
    }
}

pub(super) fn remote_plugin(
    plugin: &Plugin,
    manifest: &Manifest,
    resolved: &ResolvedModule,
) -> ResolvedPlugin {
    let go_mod = GoMod::parse_lax(&resolved.go_mod).ok();
    let declared = modfile::module_line(&resolved.go_mod).unwrap_or_else(|| resolved.module.path.clone());
    let asked = plugin.reference.value.clone();
    let is_fork = plugin.replace.is_none() && declared != resolved.module.path;
    let (module, version, replacement) = if plugin.replace.is_none() && !is_fork {
        (resolved.module.path.clone(), resolved.module.version.clone(), None)
    } else {
        let module = match is_fork {
            true => declared,
            false => replaced_module(plugin, manifest, &declared, &resolved.module.path),
        };
        let version = placeholder_version(&module, &asked);
        let ModuleVersion { path, version: new } = resolved.module.clone();
        (module, version, Some(LockedReplacement::Module { path, version: new }))
    };
    ResolvedPlugin {
        name: plugin.name.value.clone(),
        span: plugin.reference.span.clone(),
        asked,
        module,
        version,
        commit: resolved.commit.clone(),
        go_mod,
        replacement,
        ..ResolvedPlugin::default()
    }
}

/// The path of a replaced module, which is never downloaded. A fork usually keeps the module line of the
/// original; for one that declares its own path, it is the original repository with the fork's major.
fn replaced_module(plugin: &Plugin, manifest: &Manifest, declared: &str, replacement: &str) -> String {
    match &plugin.origin {
        Origin::Module(path) => return path.value.clone(),
        // The module path can't be derived from an id.
        Origin::GitLab { project: Spanned { value: Project::Id(_), .. }, .. } => {}
        _ if declared == replacement => {
            let suffix = major_suffix(declared);
            return format!("{}{suffix}", plugin.identity(manifest));
        }
        _ => {}
    }
    declared.to_owned()
}

/// The version of a replaced module in go.mod: the ref if it is a version of this major, else the zero
/// pseudo-version, which doesn't affect minimal version selection.
fn placeholder_version(module: &str, asked: &str) -> String {
    let suffix = major_suffix(module);
    if semver::canonical(asked).as_deref() == Some(asked) && path_major_matches(asked, suffix) {
        return asked.to_owned();
    }
    pseudo::zero_pseudo_version(suffix.trim_start_matches(['/', '.']))
}

pub(super) fn local_plugin(
    plugin: &Plugin,
    path: PathBuf,
    base: &Path,
) -> Result<ResolvedPlugin, Diagnostic> {
    let span = plugin.replace.as_ref().and_then(|replace| replace.span.clone());
    let directory = &base.join(&path);
    let (declared, go_mod) = local_go_mod(directory, &span)?;
    if !has_package(directory) {
        let message = format!("{} has a go.mod, but no Go package", directory.display());
        return Err(Diagnostic::error(message)
            .at(span)
            .label("relative to the configuration file")
            .help("the package of a plugin must be in the directory of its go.mod"));
    }
    if let Origin::Module(Spanned { value: module, .. }) = &plugin.origin
        && *module != declared
    {
        let message =
            format!("{} declares module {declared}, expected {module}", directory.join("go.mod").display());
        return Err(Diagnostic::error(message)
            .at(span)
            .label("a local replacement must declare the replaced module path")
            .help(format!("set module_name = \"{declared}\", or change the module line of that go.mod")));
    }
    Ok(ResolvedPlugin {
        name: plugin.name.value.clone(),
        span: plugin.reference.span.clone(),
        asked: plugin.reference.value.clone(),
        version: placeholder_version(&declared, &plugin.reference.value),
        module: declared,
        go_mod: Some(go_mod),
        replacement: Some(LockedReplacement::Directory { path }),
        ..ResolvedPlugin::default()
    })
}

/// The module path in the go.mod of a directory.
///
/// # Errors
/// The directory or a valid go.mod is missing.
pub fn module_in(directory: &Path) -> Result<String, Diagnostic> {
    local_go_mod(directory, &None).map(|(module, _)| module)
}

/// The module path and the go.mod of a local directory.
pub(super) fn local_go_mod(
    directory: &Path,
    span: &Option<Range<usize>>,
) -> Result<(String, GoMod), Diagnostic> {
    let path = directory.join("go.mod");
    let invalid = |message: String, help: &str| {
        let label = span.is_some().then(|| "relative to the configuration file".to_owned());
        Diagnostic { label, ..Diagnostic::error(message).at(span.clone()).help(help) }
    };
    if !directory.is_dir() {
        let help = match directory.to_string_lossy().rsplit_once('@') {
            Some((before, _)) if Path::new(before).is_dir() => {
                format!("a directory has no version: write only the path of {before}")
            }
            _ => "check the path".to_owned(),
        };
        return Err(invalid(format!("directory {} does not exist", directory.display()), &help));
    }
    let text = fs::read_to_string(&path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            let help = match modules_below(directory).as_slice() {
                [] => "run `go mod init MODULE` in that directory".to_owned(),
                names => format!("there is a Go module in {}: use that directory", names.join(", ")),
            };
            invalid(format!("{} has no go.mod", directory.display()), &help)
        }
        _ => invalid(format!("failed to read `{}`: {error}", path.display()), "check its permissions"),
    })?;
    let go_mod = GoMod::parse_lax(&text).map_err(|error| {
        invalid(
            format!("{}:{}:{}: {}", path.display(), error.line, error.column, error.message),
            "fix that go.mod",
        )
    })?;
    let module = modfile::module_line(&text).ok_or_else(|| {
        invalid(format!("{} has no module line", path.display()), "add a line `module PATH`")
    })?;
    Ok((module, go_mod))
}

/// Up to three subdirectories with a go.mod.
fn modules_below(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter(|entry| entry.path().join("go.mod").is_file())
        .map(|entry| entry.path().display().to_string())
        .collect();
    names.sort();
    names.truncate(3);
    names
}

/// Whether the directory has a Go file that is not a test.
fn has_package(directory: &Path) -> bool {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .any(|name| name.ends_with(".go") && !name.ends_with("_test.go") && !name.starts_with(['_', '.']))
}

/// The errors of plugins with the same module: only one version of it could be compiled.
pub(super) fn same_modules(plugins: &[ResolvedPlugin]) -> Vec<Diagnostic> {
    let mut seen: BTreeMap<&str, &ResolvedPlugin> = BTreeMap::new();
    let mut diagnostics = Vec::new();
    for plugin in plugins {
        if let Some(first) = seen.insert(&plugin.module, plugin) {
            let message =
                format!("{} and {} are the same module, {}", first.name, plugin.name, plugin.module);
            let second = Diagnostic::error(message).at(plugin.span.clone()).label("the second one");
            diagnostics.push(second.help("remove one of them"));
        }
    }
    diagnostics
}

/// Adds the plugins that every binary has and the user didn't list, at RoadRunner's version. Those that the
/// user listed only choose the version; the notes say so.
pub(super) fn add_built_in(
    plugins: &mut Vec<ResolvedPlugin>,
    tree: &Path,
    release: &GoMod,
    roadrunner: &ModuleVersion,
) -> Result<Vec<String>, Error> {
    let (mut notes, mut errors) = (Vec::new(), Vec::new());
    for (require, in_code) in built_in(tree, release)? {
        let base = without_major(&require.path);
        let name = base.rsplit('/').next().unwrap_or_default();
        match plugins.iter_mut().find(|plugin| without_major(&plugin.module) == base) {
            Some(listed) if listed.module == require.path => {
                listed.built_in = in_code;
                notes.push(format!(
                    "plugin {}: every binary has {name}; its entry only sets the version",
                    listed.name
                ));
            }
            Some(listed) => {
                let message = format!(
                    "plugin {} is {}, but {roadrunner} uses {}",
                    listed.name, listed.module, require.path
                );
                let diagnostic =
                    Diagnostic::error(message).at(listed.span.clone()).label("another major version");
                errors.push(diagnostic.help(format!(
                    "remove this plugin: every binary has {name}, here at {}",
                    require.version
                )));
            }
            None if in_code => {}
            None => plugins.push(ResolvedPlugin {
                name: name.to_owned(),
                asked: require.version.clone(),
                module: require.path.clone(),
                version: require.version.clone(),
                added: true,
                ..ResolvedPlugin::default()
            }),
        }
    }
    if errors.is_empty() { Ok(notes) } else { Err(Error::many(ErrorKind::Configuration, errors)) }
}

/// The plugins of [`ALWAYS_INCLUDED`] in `container/plugins.go`, and those that other code of RoadRunner registers
/// (config), with whether code does. Their import paths decide the major: go.mod may name several.
fn built_in<'a>(tree: &Path, release: &'a GoMod) -> Result<Vec<(&'a Require, bool)>, Error> {
    let failed = |error| Error::file("read", tree, &error);
    let listed = imports_of(tree, &|path| path == PLUGINS_GO).map_err(failed)?;
    let in_code = created_plugins(tree, &|path| path != PLUGINS_GO).map_err(failed)?;
    let require = |import: &String| {
        let module = module_of(import, release.require.iter().map(|line| line.path.as_str()))?;
        release.require.iter().find(|line| line.path == module)
    };
    let added =
        listed.iter().filter_map(require).filter(|line| ALWAYS_INCLUDED.contains(&without_major(&line.path)));
    let in_code = in_code.iter().filter_map(require).map(|require| (require, true));
    Ok(added.map(|require| (require, false)).chain(in_code).collect())
}
