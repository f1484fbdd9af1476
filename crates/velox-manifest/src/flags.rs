//! What flags change about a configuration, or say without one: `--with`, `--without`, `--roadrunner`.

use std::path::{Path, PathBuf};

use crate::{
    BuildArgs, CacheConfig, Diagnostic, Forge, ForgeKind, LogConfig, Manifest, ManifestFormat, Origin,
    Plugin, Replacement, RoadRunnerConfig, Spanned,
    manual::shown,
    reader::nearest,
    refs::{self, InvalidValue},
};

/// What a version is where a flag names none and no file does.
const NEWEST: &str = "latest";

/// The changes that flags make for one build.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ManifestOverrides {
    /// `--roadrunner REF`.
    pub roadrunner: Option<String>,
    /// `--with`, in the order of the command line.
    pub with: Vec<PluginOverride>,
    /// `--without NAME`.
    pub without: Vec<String>,
}

/// One `--with MODULE[@REF][=REPLACEMENT]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginOverride {
    /// The module path.
    pub module: String,
    /// Tag, branch, commit or `latest`; `None`: the file's own, else the newest release.
    pub reference: Option<String>,
    /// What takes its place.
    pub replacement: Option<Replacement>,
}

impl ManifestOverrides {
    /// Reads what the command line has. `directories` is how a directory alone (`--with ./mine`) gets its module path:
    /// the `module` line of the go.mod there, or why there is none.
    ///
    /// # Errors
    /// All that can't be read.
    pub fn read(
        roadrunner: Option<&str>,
        with: &[String],
        without: &[String],
        directories: impl Fn(&Path) -> Result<String, Diagnostic>,
    ) -> Result<Self, Vec<Diagnostic>> {
        let mut wrong = Vec::new();
        if let Some(reference) = roadrunner
            && let Err(why) = refs::reference(reference)
        {
            wrong.push(unusable("--roadrunner", reference, "a ref", why));
        }
        let mut flags =
            Self { roadrunner: roadrunner.map(str::to_owned), with: Vec::new(), without: without.to_vec() };
        for text in with {
            match PluginOverride::read(text, &directories) {
                Ok(with) if flags.with.iter().any(|known| same_module(&known.module, &with.module)) => {
                    wrong.push(
                        Diagnostic::error(format!("--with names {} twice", with.module))
                            .help("a server has one version of a plugin: leave one of the two out"),
                    );
                }
                Ok(with) => flags.with.push(with),
                Err(diagnostic) => wrong.push(diagnostic),
            }
        }
        if wrong.is_empty() { Ok(flags) } else { Err(wrong) }
    }

    /// Whether nothing is changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The same with its directories below `directory`, which the command line's are relative to.
    #[must_use]
    pub fn below(mut self, directory: &Path) -> Self {
        for with in &mut self.with {
            if let Some(Replacement::Directory(path)) = &mut with.replacement {
                let whole: PathBuf = directory.join(&*path).components().collect();
                *path = whole.to_string_lossy().into_owned();
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
        if refs::is_directory(text) {
            let replacement = refs::replacement(text)
                .map_err(|wrong| unusable("--with", text, "a directory with a plugin", wrong))?;
            let module = directories(Path::new(text))?;
            refs::module_path(&module)
                .map_err(|wrong| unusable("the go.mod of --with", &module, "a module path", wrong))?;
            return Ok(Self { module, reference: None, replacement: Some(replacement) });
        }
        // A URL has its user information before an `@`, which is no ref.
        let (plugin, replacement) = match text.split_once('=') {
            Some((plugin, replacement)) => (plugin, Some(replacement)),
            None => (text, None),
        };
        let (module, reference) = match plugin.split_once('@') {
            Some((module, reference)) if !plugin.contains("://") => (module, Some(reference)),
            _ => (plugin, None),
        };
        refs::module_path(module).map_err(|wrong| {
            let wrong = match module.contains('/') || module.is_empty() {
                true => wrong,
                false => wrong.help(format!(
                    "write the whole path (\"github.com/roadrunner-server/{module}/v5\"), or a directory (\"./{module}\")"
                )),
            };
            unusable("--with", module, "a module path", wrong)
        })?;
        if let Some(reference) = reference {
            refs::reference(reference)
                .and_then(|()| refs::majors_agree(module, reference))
                .map_err(|wrong| unusable("--with", plugin, "a plugin", wrong))?;
        }
        let replacement = replacement
            .map(|text| {
                refs::replacement(text).map_err(|wrong| unusable("--with", text, "a replacement", wrong))
            })
            .transpose()?;
        Ok(Self { module: module.to_owned(), reference: reference.map(str::to_owned), replacement })
    }
}

fn unusable(flag: &str, given: &str, what: &str, wrong: InvalidValue) -> Diagnostic {
    let diagnostic = Diagnostic::error(match given {
        "" => format!("{flag} is empty"),
        given => format!("{flag}: `{}` can't be {what} ({})", shown(given), wrong.why),
    });
    match wrong.help {
        Some(help) => diagnostic.help(help),
        None => diagnostic,
    }
}

impl Manifest {
    /// One that names nothing but RoadRunner's newest release: what flags start from where there is no file.
    #[must_use]
    pub fn without_a_file() -> Self {
        Self {
            format: ManifestFormat::Modules,
            roadrunner: RoadRunnerConfig { reference: Some(unplaced(NEWEST)), dependencies: None },
            debug: false,
            strict: false,
            plugins: Vec::new(),
            replaces: Vec::new(),
            excludes: Vec::new(),
            targets: Vec::new(),
            cache: CacheConfig::default(),
            github: Forge::public(ForgeKind::GitHub),
            gitlab: Forge::public(ForgeKind::GitLab),
            log: LogConfig::default(),
            build_args: BuildArgs::default(),
        }
    }

    /// This manifest as `flags` change it: first `--without`, then `--with`, so that a plugin can be taken out and
    /// another be put in its place.
    ///
    /// A `--with` whose module the manifest has already changes that plugin, whichever way the file names it, and
    /// whatever major it had. A ref without a replacement ends the file's own replacement of that plugin.
    ///
    /// # Errors
    /// A `--without` that takes nothing out, and a server without plugins.
    pub fn changed_by(mut self, flags: &ManifestOverrides) -> Result<Self, Vec<Diagnostic>> {
        let mut wrong = Vec::new();
        if let Some(reference) = &flags.roadrunner {
            self.roadrunner.reference = Some(unplaced(reference));
        }
        for name in &flags.without {
            if let Err(diagnostic) = self.take_out(name) {
                wrong.push(diagnostic);
            }
        }
        for with in &flags.with {
            self.put_in(with);
        }
        if self.plugins.is_empty() && wrong.is_empty() {
            wrong.push(
                Diagnostic::error("there are no plugins to build a server from")
                    .help("name at least one: --with github.com/roadrunner-server/http/v5@v5.3.0"),
            );
        }
        if wrong.is_empty() { Ok(self) } else { Err(wrong) }
    }

    fn take_out(&mut self, name: &str) -> Result<(), Diagnostic> {
        let named = |plugin: &Plugin| plugin.name.value == name || plugin.is_module(name, self);
        let Some(index) = self.plugins.iter().position(named) else {
            let names: Vec<&str> = self.plugins.iter().map(|plugin| plugin.name.value.as_str()).collect();
            let diagnostic = Diagnostic::error(format!("--without: there is no plugin `{}`", shown(name)));
            return Err(match nearest(name, names.iter().copied()) {
                Some(near) => diagnostic.help(format!("did you mean `{near}`?")),
                None if names.is_empty() => diagnostic.help("there are none at all"),
                None => diagnostic.help(format!("there are: {}", names.join(", "))),
            });
        };
        self.plugins.remove(index);
        Ok(())
    }

    fn put_in(&mut self, with: &PluginOverride) {
        let known = self.plugins.iter().position(|plugin| plugin.is_module(&with.module, self));
        let changes = with.reference.is_some() || with.replacement.is_some();
        if changes {
            self.replaces.retain(|replace| replace.old.value != (with.module.clone(), None));
        }
        let Some(plugin) = known.and_then(|index| self.plugins.get_mut(index)) else {
            let plugin = Plugin {
                name: unplaced(&self.free_name(&with.module)),
                origin: Origin::Module(unplaced(&with.module)),
                reference: unplaced(with.reference.as_deref().unwrap_or(NEWEST)),
                replace: with.replacement.clone().map(|value| Spanned { value, span: None }),
            };
            self.plugins.push(plugin);
            return;
        };
        if let Origin::Module(path) = &mut plugin.origin
            && path.value != with.module
        {
            *path = unplaced(&with.module);
        }
        if let Some(reference) = &with.reference {
            plugin.reference = unplaced(reference);
        }
        if changes {
            plugin.replace = with.replacement.clone().map(|value| Spanned { value, span: None });
        }
    }

    /// What a plugin is called whose name nobody chose: the end of its path, or more of it where that is taken.
    fn free_name(&self, module: &str) -> String {
        let base = refs::without_major(module);
        let parts: Vec<&str> = base.split('/').collect();
        (1..parts.len())
            .filter_map(|count| Some(parts.get(parts.len() - count..)?.join("-")))
            .find(|name| self.plugins.iter().all(|plugin| plugin.name.value != *name))
            .unwrap_or_else(|| module.to_owned())
    }
}

/// Whether two paths are one module, at whichever major. Forges don't tell upper case from lower.
fn same_module(one: &str, other: &str) -> bool {
    refs::without_major(one).eq_ignore_ascii_case(refs::without_major(other))
}

fn unplaced(text: &str) -> Spanned<String> {
    Spanned { value: text.to_owned(), span: None }
}
