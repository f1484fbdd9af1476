//! Command-line overrides of a manifest: `--with`, `--without`, `--roadrunner`.

use std::path::{Path, PathBuf};

use velox_gomod::module::without_major;

use crate::{
    BuildArgs, CacheConfig, DebugConfig, Diagnostic, Forge, ForgeKind, ImageConfig, LogConfig, Manifest,
    ManifestFormat, Origin, Plugin, Replacement, RoadRunnerConfig, catalogue, check,
    invalid_value::InvalidValue, manual::shown, reader::unknown_plugin,
};

const DEFAULT_REFERENCE: &str = "latest";

/// The overrides of one build.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ManifestOverrides {
    /// `--roadrunner REF`.
    pub roadrunner: Option<String>,
    /// `--with`, in command-line order.
    pub with: Vec<PluginOverride>,
    /// `--without NAME`.
    pub without: Vec<String>,
}

/// One `--with MODULE[@REF][=REPLACEMENT]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginOverride {
    /// The module path.
    pub module: String,
    /// Tag, branch, commit or `latest`; `None`: the ref in the file, else the newest release.
    pub reference: Option<String>,
    /// The replacement.
    pub replacement: Option<Replacement>,
}

impl ManifestOverrides {
    /// Parses the flags. `directories` returns the module path in a directory's go.mod, or an error message.
    pub fn read(
        roadrunner: Option<&str>,
        with: &[String],
        without: &[String],
        directories: impl Fn(&Path) -> Result<String, Diagnostic>,
    ) -> Result<Self, Vec<Diagnostic>> {
        let mut errors = Vec::new();
        if let Some(reference) = roadrunner
            && let Err(why) = check::requested(reference)
        {
            errors.push(unusable("--roadrunner", reference, "ref", why));
        }
        let mut flags =
            Self { roadrunner: roadrunner.map(str::to_owned), with: Vec::new(), without: without.to_vec() };
        for text in with {
            match PluginOverride::read(text, &directories) {
                Ok(with) if flags.with.iter().any(|known| same_module(&known.module, &with.module)) => {
                    errors.push(
                        Diagnostic::error(format!("duplicate --with for {}", with.module))
                            .help("a binary has one version of a plugin: remove one of them"),
                    );
                }
                Ok(with) => flags.with.push(with),
                Err(diagnostic) => errors.push(diagnostic),
            }
        }
        if errors.is_empty() { Ok(flags) } else { Err(errors) }
    }

    /// Whether there are no overrides.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Resolves directories against `directory`, the working directory.
    #[must_use]
    pub fn below(mut self, directory: &Path) -> Self {
        for with in &mut self.with {
            if let Some(Replacement::Directory(path)) = &mut with.replacement {
                let resolved: PathBuf = directory.join(&*path).components().collect();
                *path = resolved.to_string_lossy().into_owned();
            }
        }
        self
    }
}

impl PluginOverride {
    fn read(
        text: &str,
        directories: impl Fn(&Path) -> Result<String, Diagnostic>,
    ) -> Result<Self, Diagnostic> {
        if check::is_directory(text) {
            let replacement =
                check::replacement(text).map_err(|invalid| unusable("--with", text, "directory", invalid))?;
            let module = directories(Path::new(text))?;
            check::module_path(&module)
                .map_err(|invalid| unusable("the go.mod of --with", &module, "module path", invalid))?;
            return Ok(Self { module, reference: None, replacement: Some(replacement) });
        }
        // The `@` after the user information of a URL doesn't start a ref.
        let (plugin, replacement) = match replacement_start(text).and_then(|at| text.split_at_checked(at)) {
            Some((plugin, replacement)) => (plugin, replacement.strip_prefix('=')),
            None => (text, None),
        };
        let (module, reference) = match plugin.split_once('@') {
            Some((module, reference)) if !plugin.contains("://") => (module, Some(reference)),
            _ => (plugin, None),
        };
        check::module_path(module).map_err(|invalid| {
            let invalid = match module.contains('/') || module.is_empty() {
                true => invalid,
                false => invalid.help(match catalogue::nearest(module).first() {
                    Some(near) => format!(
                        "did you mean `{}`? A module path (\"github.com/acme/{module}\") and a directory (\"./{module}\") are possible too",
                        near.name
                    ),
                    None => format!("write a module path (\"github.com/acme/{module}\"), or a directory (\"./{module}\")"),
                }),
            };
            unusable("--with", module, "module path", invalid)
        })?;
        if let Some(reference) = reference {
            check::requested(reference)
                .and_then(|()| check::majors_agree(module, reference))
                .map_err(|invalid| unusable("--with", plugin, "plugin", invalid))?;
        }
        let replacement = replacement
            .map(|text| {
                check::replacement(text).map_err(|invalid| unusable("--with", text, "replacement", invalid))
            })
            .transpose()?;
        Ok(Self { module: module.to_owned(), reference: reference.map(str::to_owned), replacement })
    }
}

/// The position of the `=` before the replacement; the others are operators of a version constraint.
fn replacement_start(text: &str) -> Option<usize> {
    let is_operator = |at: usize| text.get(..at).unwrap_or_default().ends_with(['<', '>', '@', ',', ' ']);
    text.match_indices('=').map(|(at, _)| at).find(|at| !is_operator(*at))
}

fn unusable(flag: &str, given: &str, what: &str, invalid: InvalidValue) -> Diagnostic {
    let diagnostic = Diagnostic::error(match given {
        "" => format!("{flag} is empty"),
        given => format!("{flag}: invalid {what} `{}`: {}", shown(given), invalid.why),
    });
    match invalid.help {
        Some(help) => diagnostic.help(help),
        None => diagnostic,
    }
}

impl Manifest {
    /// The base manifest without a configuration file: the newest RoadRunner, no plugins.
    #[must_use]
    pub fn without_a_file() -> Self {
        Self {
            format: ManifestFormat::Modules,
            roadrunner: RoadRunnerConfig {
                reference: Some(DEFAULT_REFERENCE.to_owned().into()),
                dependencies: None,
            },
            debug: DebugConfig::default(),
            strict: false,
            plugins: Vec::new(),
            replaces: Vec::new(),
            excludes: Vec::new(),
            requires: Vec::new(),
            go: None,
            targets: Vec::new(),
            cache: CacheConfig::default(),
            image: ImageConfig::default(),
            github: Forge::public(ForgeKind::GitHub),
            gitlab: Forge::public(ForgeKind::GitLab),
            log: LogConfig::default(),
            build_args: BuildArgs::default(),
        }
    }

    /// Applies overrides: first `--without`, then `--with`, so that one plugin can take the place of another.
    ///
    /// `--with` updates an existing plugin of the same module at any major version. A ref without a
    /// replacement removes the replacement in the file.
    pub fn changed_by(mut self, flags: &ManifestOverrides) -> Result<Self, Vec<Diagnostic>> {
        let mut errors = Vec::new();
        if let Some(reference) = &flags.roadrunner {
            self.roadrunner.reference = Some(reference.clone().into());
        }
        for name in &flags.without {
            if let Err(diagnostic) = self.remove(name) {
                errors.push(diagnostic);
            }
        }
        for with in &flags.with {
            self.apply(with);
        }
        if self.plugins.is_empty() && errors.is_empty() {
            errors.push(
                Diagnostic::error("no plugins to build")
                    .help("add at least one: --with github.com/roadrunner-server/http/v5@v5.3.0"),
            );
        }
        if errors.is_empty() { Ok(self) } else { Err(errors) }
    }

    fn remove(&mut self, name: &str) -> Result<(), Diagnostic> {
        let named = self.plugin_named(name).map(|plugin| plugin.name.value.clone());
        let is_it = |plugin: &Plugin| named.as_ref() == Some(&plugin.name.value);
        let Some(index) = self.plugins.iter().position(is_it) else {
            let names: Vec<&str> = self.plugins.iter().map(|plugin| plugin.name.value.as_str()).collect();
            return Err(unknown_plugin(&shown(name), &names));
        };
        self.plugins.remove(index);
        Ok(())
    }

    fn apply(&mut self, with: &PluginOverride) {
        let known = self.plugins.iter().position(|plugin| plugin.is_module(&with.module, self));
        let changes = with.reference.is_some() || with.replacement.is_some();
        if changes {
            self.replaces.retain(|replace| replace.old.value != (with.module.clone(), None));
        }
        let Some(plugin) = known.and_then(|index| self.plugins.get_mut(index)) else {
            let plugin = Plugin {
                name: self.free_name(&with.module).into(),
                origin: Origin::Module(with.module.clone().into()),
                reference: with.reference.clone().unwrap_or_else(|| DEFAULT_REFERENCE.to_owned()).into(),
                replace: with.replacement.clone().map(Into::into),
            };
            self.plugins.push(plugin);
            return;
        };
        if let Origin::Module(path) = &mut plugin.origin
            && path.value != with.module
        {
            *path = with.module.clone().into();
        }
        if let Some(reference) = &with.reference {
            plugin.reference = reference.clone().into();
        }
        if changes {
            plugin.replace = with.replacement.clone().map(Into::into);
        }
    }

    /// A unique name for a `--with` plugin: the last path element, with preceding ones if it is taken.
    fn free_name(&self, module: &str) -> String {
        let base = without_major(module);
        let parts: Vec<&str> = base.split('/').collect();
        (1..parts.len())
            .filter_map(|count| Some(parts.get(parts.len() - count..)?.join("-")))
            .find(|name| self.plugins.iter().all(|plugin| plugin.name.value != *name))
            .unwrap_or_else(|| module.to_owned())
    }
}

/// Whether two paths are the same module at any major version; like forges, ignores case.
fn same_module(one: &str, other: &str) -> bool {
    without_major(one).eq_ignore_ascii_case(without_major(other))
}
