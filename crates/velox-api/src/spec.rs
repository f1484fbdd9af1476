//! The request for one binary, and its conversions from and to a manifest.

use std::{
    collections::{HashMap, HashSet},
    fmt::{self, Write as _},
    ops::Range,
};

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use velox_gomod::semver;
use velox_manifest::{
    BuildArgs, DebugConfig, Dependencies, Diagnostic, DiagnosticKind, GoSelection, GoTarget, Manifest,
    ModuleDirective, Origin, Plugin, ReplaceDirective, Replacement, RoadRunnerConfig, SourceFile, Spanned,
    catalogue,
    check::{self, InvalidValue},
    edit::{key, string},
};

/// The file name in messages about a request's configuration.
const FILE_NAME: &str = "velox.toml";

/// The longest list in a request.
const MAX_LIST_LENGTH: usize = 500;
/// The longest path, ref or other text in a request, in bytes.
const MAX_TEXT_BYTES: usize = 1024;
/// The maximum number of targets of a configuration, more than Go has.
const MAX_TARGETS: usize = 100;
/// The maximum number of reported errors of a configuration.
const MAX_ERRORS: usize = 50;

/// One binary for one target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct BuildSpec {
    /// RoadRunner's tag, branch, commit or version constraint (`v2025.1.15`).
    pub roadrunner: String,
    /// The plugins: at least one, no duplicates.
    pub plugins: Vec<PluginSpec>,
    /// Module replacements.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replaces: Vec<ReplaceSpec>,
    /// Module versions that must not be used.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub excludes: Vec<ModuleVersionSpec>,
    /// The lowest versions of modules that are no plugins.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub requires: Vec<ModuleVersionSpec>,
    /// The Go toolchain: a minor version (`1.26`), an exact one (`1.26.4`), or `release` for the one that RoadRunner's go.mod
    /// names; default: the service's own, if it is new enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub go: Option<String>,
    /// The target, `os/arch` in Go's names; default: the service's own platform.
    #[serde(default = "GoTarget::host", with = "target")]
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub target: GoTarget,
    /// Build tags.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Keep debug information and disable optimizations.
    #[serde(default)]
    pub debug: bool,
    /// Compile with the race detector, where the service allows a C compiler.
    #[serde(default)]
    pub race: bool,
    /// Fail if minimal version selection raises a plugin's version.
    #[serde(default)]
    pub strict: bool,
    /// `release` or `minimal`: the dependency versions that the build starts from.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "dependencies")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>))]
    pub dependencies: Option<Dependencies>,
    /// The version stamped into the binary; default: the release's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stamp_version: Option<String>,
    /// The build time stamped into the binary; default: the release's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stamp_time: Option<String>,
}

/// A plugin of a [`BuildSpec`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct PluginSpec {
    /// The module path (`github.com/roadrunner-server/http/v5`).
    pub module: String,
    /// A tag, a branch, a commit, `latest` or a version constraint (`^5.1`).
    #[serde(rename = "ref")]
    pub reference: String,
}

/// A replacement of a [`BuildSpec`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ReplaceSpec {
    /// `module` or `module@version`.
    pub old: String,
    /// `module@version`.
    pub new: String,
}

/// A version of a module in a [`BuildSpec`]: an excluded one, or the lowest one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ModuleVersionSpec {
    /// The module path.
    pub module: String,
    /// The version.
    pub version: String,
}

/// A validation error of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Violation {
    /// The field (`plugins[2].module`); empty: the request as a whole.
    pub field: String,
    /// The error and help.
    pub message: String,
}

impl Violation {
    /// A violation of this field.
    pub fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.field.as_str() {
            "" => f.write_str(&self.message),
            field => write!(f, "{field}: {}", self.message),
        }
    }
}

impl PluginSpec {
    /// The module at the tag, branch or commit.
    pub fn new(module: impl Into<String>, reference: impl Into<String>) -> Self {
        Self { module: module.into(), reference: reference.into() }
    }
}

impl ReplaceSpec {
    /// The replacement of `old` by `new`.
    pub fn new(old: impl Into<String>, new: impl Into<String>) -> Self {
        Self { old: old.into(), new: new.into() }
    }
}

impl ModuleVersionSpec {
    /// The module at the version.
    pub fn new(module: impl Into<String>, version: impl Into<String>) -> Self {
        Self { module: module.into(), version: version.into() }
    }
}

impl BuildSpec {
    /// A request with these plugins and defaults for everything else.
    pub fn new(roadrunner: impl Into<String>, plugins: Vec<PluginSpec>) -> Self {
        Self {
            roadrunner: roadrunner.into(),
            plugins,
            replaces: Vec::new(),
            excludes: Vec::new(),
            requires: Vec::new(),
            go: None,
            target: GoTarget::host(),
            tags: Vec::new(),
            debug: false,
            race: false,
            strict: false,
            dependencies: None,
            stamp_version: None,
            stamp_time: None,
        }
    }

    /// Rejects long lists and texts, which would take long to validate and to report.
    ///
    /// # Errors
    /// The lists and texts that are too long.
    pub fn check_size(&self) -> Result<(), Vec<Violation>> {
        let lists: [(&str, Vec<[&str; 2]>); 5] = [
            ("plugins", self.plugins.iter().map(|it| [&*it.module, &*it.reference]).collect()),
            ("replaces", self.replaces.iter().map(|it| [&*it.old, &*it.new]).collect()),
            ("excludes", self.excludes.iter().map(|it| [&*it.module, &*it.version]).collect()),
            ("requires", self.requires.iter().map(|it| [&*it.module, &*it.version]).collect()),
            ("tags", self.tags.iter().map(|tag| [&**tag, ""]).collect()),
        ];
        let long = lists.iter().filter(|(_, items)| items.len() > MAX_LIST_LENGTH).map(|(list, items)| {
            let message = format!("expected at most {MAX_LIST_LENGTH} items, found {}", items.len());
            Violation::new(*list, message)
        });
        let mut violations: Vec<Violation> = long.collect();
        if violations.is_empty() {
            let single = [
                ("roadrunner", Some(&self.roadrunner)),
                ("go", self.go.as_ref()),
                ("stamp_version", self.stamp_version.as_ref()),
                ("stamp_time", self.stamp_time.as_ref()),
            ];
            let single =
                single.into_iter().filter_map(|(field, text)| Some((field.to_owned(), [&**text?, ""])));
            let items = lists.iter().flat_map(|(list, items)| {
                items.iter().enumerate().map(move |(at, texts)| (format!("{list}[{at}]"), *texts))
            });
            violations.extend(single.chain(items).filter_map(|(field, texts)| {
                let length = texts.iter().map(|text| text.len()).find(|length| *length > MAX_TEXT_BYTES)?;
                let message = format!("expected at most {MAX_TEXT_BYTES} bytes, found {length}");
                Some(Violation::new(field, message))
            }));
        }
        if violations.is_empty() { Ok(()) } else { Err(violations) }
    }

    /// Validates the request and sorts its lists, so that equal requests have equal keys.
    ///
    /// # Errors
    /// Everything that no service can build.
    pub fn normalized(mut self) -> Result<Self, Vec<Violation>> {
        self.check_size()?;
        Manifest::try_from(&self)?;
        self.plugins.sort();
        self.replaces.sort();
        self.excludes.sort();
        self.excludes.dedup();
        self.requires.sort();
        self.tags.sort();
        self.tags.dedup();
        Ok(self)
    }

    /// The requests of a `velox.toml` in any format, one for each of its targets or for `target` alone, and the warnings
    /// about the text.
    ///
    /// # Errors
    /// The configuration is invalid, or has what a service can't build: directories, tokens, other forges.
    pub fn from_configuration(
        text: &str,
        target: Option<&GoTarget>,
    ) -> Result<(Vec<Self>, Vec<String>), Vec<Violation>> {
        let source = SourceFile { name: FILE_NAME.to_owned(), text: text.to_owned() };
        let shown = |diagnostic: &Diagnostic| {
            let place = diagnostic.span.as_ref().map(|span| source.line_column(span.start));
            let place = place.map_or_else(String::new, |(line, column)| format!(":{line}:{column}"));
            let message = [&diagnostic.message].into_iter().chain(&diagnostic.help);
            let message = message.map(String::as_str).collect::<Vec<_>>().join("; ");
            format!("{FILE_NAME}{place}: {message}")
        };
        let rejected = |errors: &[&Diagnostic]| -> Vec<Violation> {
            // Finding the place of each takes time proportional to the text.
            let errors = errors.iter().take(MAX_ERRORS);
            errors.map(|error| Violation::new("configuration", shown(error))).collect()
        };
        let (manifest, warnings) = Manifest::parse(&source, &|_| None)
            .map_err(|errors| rejected(&errors.iter().collect::<Vec<_>>()))?;
        let unknown = warnings.iter().filter(|warning| warning.kind == DiagnosticKind::UnknownKey);
        let unknown: Vec<&Diagnostic> = unknown.filter(|_| manifest.strict).collect();
        if !unknown.is_empty() {
            return Err(rejected(&unknown));
        }
        Ok((Self::from_manifest(&manifest, target)?, warnings.iter().take(MAX_ERRORS).map(shown).collect()))
    }

    /// The requests of a manifest, one for each of its targets or for `target` alone.
    ///
    /// # Errors
    /// What a service can't build: directories, other forges, plugins without a module path, compiler flags.
    pub fn from_manifest(
        manifest: &Manifest,
        target: Option<&GoTarget>,
    ) -> Result<Vec<Self>, Vec<Violation>> {
        const DIRECTORY: &str =
            "a build service can't read local directories; publish the module or build locally";
        let mut violations = Vec::new();
        let mut reject = |what: &str, why: &str| {
            violations.push(Violation::new("configuration", format!("{what}: {why}")))
        };
        if manifest.targets.len() > MAX_TARGETS {
            reject("targets", "expected at most 100 targets");
            return Err(violations);
        }
        let mut replaces = Vec::new();
        let mut plugins = Vec::new();
        for plugin in &manifest.plugins {
            let name = &plugin.name.value;
            let Origin::Module(module) = &plugin.origin else {
                reject(name, "a build service needs its module path; `vx migrate` writes it as module_name");
                continue;
            };
            match plugin.replace.as_ref().map(|replace| &replace.value) {
                None => {}
                Some(Replacement::Directory(_)) => reject(name, DIRECTORY),
                Some(Replacement::Module { path, version }) => {
                    let version = version.as_ref().unwrap_or(&plugin.reference.value);
                    replaces.push(ReplaceSpec::new(&module.value, format!("{path}@{version}")));
                }
            }
            plugins.push(PluginSpec::new(&module.value, &plugin.reference.value));
        }
        for replace in &manifest.replaces {
            let (path, version) = &replace.old.value;
            let old = version.as_ref().map_or_else(|| path.clone(), |version| format!("{path}@{version}"));
            match &replace.new.value {
                Replacement::Module { path, version: Some(version) } => {
                    replaces.push(ReplaceSpec::new(old, format!("{path}@{version}")));
                }
                Replacement::Module { .. } => {
                    reject(&old, "its replacement needs a version, as in `module@v1.2.3`");
                }
                Replacement::Directory(_) => reject(&old, DIRECTORY),
            }
        }
        for (forge, name) in [(&manifest.github, "[github]"), (&manifest.gitlab, "[gitlab]")] {
            if forge.endpoint.is_some() {
                reject(name, "a build service uses its own forges only; build locally");
            }
        }
        let arguments = &manifest.build_args;
        if !arguments.flags.is_empty() || !arguments.definitions.is_empty() || arguments.strip == Some(false)
        {
            reject("build_args", "a build service accepts tags, -race and the stamp, and no other flags");
        }
        let Some(roadrunner) = &manifest.roadrunner.reference else {
            reject("[roadrunner]", "a build service needs its ref, such as ref = \"v2025.1.15\"");
            return Err(violations);
        };
        if !violations.is_empty() {
            return Err(violations);
        }
        let at = |module: &Spanned<String>, version: &Spanned<String>| {
            ModuleVersionSpec::new(&module.value, &version.value)
        };
        let spec = Self {
            roadrunner: roadrunner.value.clone(),
            plugins,
            replaces,
            excludes: manifest.excludes.iter().map(|it| at(&it.module, &it.version)).collect(),
            requires: manifest.requires.iter().map(|it| at(&it.module, &it.version)).collect(),
            go: manifest.go.as_ref().map(|go| go.value.to_string()),
            target: GoTarget::host(),
            tags: arguments.tags.clone(),
            debug: manifest.debug.enabled,
            race: arguments.race || manifest.debug.race,
            strict: manifest.strict,
            dependencies: manifest.roadrunner.dependencies,
            stamp_version: arguments.stamp_version.clone(),
            stamp_time: arguments.stamp_time.clone(),
        }
        .normalized()?;
        let targets = match target {
            Some(target) => vec![target.clone()],
            None if manifest.targets.is_empty() => vec![GoTarget::host()],
            None => manifest.targets.iter().map(|target| target.value.clone()).collect(),
        };
        Ok(targets.into_iter().map(|target| Self { target, ..spec.clone() }).collect())
    }

    /// The SHA-256 of the [normalized](Self::normalized) request as JSON, in hexadecimal, which identifies
    /// the build.
    ///
    /// # Errors
    /// The request can't be serialized.
    pub fn key(&self) -> Result<String, serde_json::Error> {
        Ok(HEXLOWER.encode(&Sha256::digest(serde_json::to_vec(self)?)))
    }

    /// Whether every ref always means the same version, so that a finished build is never stale.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        let exact = |reference: &str| {
            // `v5` and `v5.1` may be branches.
            semver::canonical(reference).is_some_and(|whole| reference.starts_with(&whole))
                || (reference.len() == 40 && reference.bytes().all(|byte| byte.is_ascii_hexdigit()))
        };
        let exact_replace =
            |replace: &ReplaceSpec| replace.new.split_once('@').is_some_and(|(_, version)| exact(version));
        let is_minor = |go: &String| matches!(check::go_selection(go), Ok(GoSelection::Minor(_)));
        exact(&self.roadrunner)
            && !self.go.as_ref().is_some_and(is_minor)
            && self.plugins.iter().all(|plugin| exact(&plugin.reference))
            && self.replaces.iter().all(exact_replace)
    }

    /// The request as a `velox.toml`, for download.
    #[must_use]
    pub fn configuration(&self) -> String {
        self.print().text
    }

    /// The manifest of the request, its values with their positions in [`configuration`](Self::configuration),
    /// which is returned too.
    ///
    /// # Errors
    /// The request is invalid.
    pub fn manifest_and_source(&self) -> Result<(Manifest, SourceFile), Vec<Violation>> {
        let mut manifest = Manifest::try_from(self)?;
        let ConfigurationText { text, spans } = self.print();
        let mut spans = spans.into_iter();
        let mut next = || spans.next();
        if let Some(reference) = &mut manifest.roadrunner.reference {
            reference.span = next();
        }
        for plugin in &mut manifest.plugins {
            plugin.name.span = next();
            if let Origin::Module(module) = &mut plugin.origin {
                module.span = next();
            }
            plugin.reference.span = next();
        }
        for replace in &mut manifest.replaces {
            (replace.old.span, replace.new.span) = (next(), next());
        }
        for exclude in &mut manifest.excludes {
            (exclude.module.span, exclude.version.span) = (next(), next());
        }
        for require in &mut manifest.requires {
            (require.module.span, require.version.span) = (next(), next());
        }
        if let Some(go) = &mut manifest.go {
            go.span = next();
        }
        for target in &mut manifest.targets {
            target.span = next();
        }
        Ok((manifest, SourceFile { name: FILE_NAME.to_owned(), text }))
    }

    fn print(&self) -> ConfigurationText {
        let mut file = ConfigurationText::default();
        if self.strict {
            file.text.push_str("strict = true\n\n");
        }
        file.text.push_str("[roadrunner]\n");
        file.pair("ref", &self.roadrunner);
        if let Some(dependencies) = self.dependencies {
            file.line(&format!("dependencies = {}", string(dependencies.word())));
        }
        for (plugin, name) in self.plugins.iter().zip(self.plugin_names()) {
            file.text.push_str("\n[plugins.");
            file.located(&key(&name));
            file.text.push_str("]\n");
            file.pair("module_name", &plugin.module);
            file.pair("tag", &plugin.reference);
        }
        for replace in &self.replaces {
            file.text.push_str("\n[[replaces]]\n");
            file.pair("old", &replace.old);
            file.pair("new", &replace.new);
        }
        for (list, versions) in [("excludes", &self.excludes), ("requires", &self.requires)] {
            for ModuleVersionSpec { module, version } in versions {
                file.line(&format!("\n[[{list}]]"));
                file.pair("module", module);
                file.pair("version", version);
            }
        }
        if let Some(go) = &self.go {
            file.text.push_str("\n[go]\n");
            file.pair("version", go);
        }
        file.text.push_str("\n[target_platform]\n");
        file.pair("os", &self.target.os);
        file.pair("arch", &self.target.arch);
        if self.debug {
            file.line("\n[debug]\nenabled = true");
        }
        if !self.tags.is_empty() || self.race {
            let tags = (!self.tags.is_empty()).then(|| string(&format!("-tags={}", self.tags.join(","))));
            let race = self.race.then(|| string("-race"));
            let arguments: Vec<String> = tags.into_iter().chain(race).collect();
            file.line(&format!("\n[velox]\nbuild_args = [{}]", arguments.join(", ")));
        }
        file
    }

    /// The plugins' unique names in a configuration: the catalogue's, else the last part of the path.
    #[must_use]
    pub fn plugin_names(&self) -> Vec<String> {
        let name = |plugin: &PluginSpec| {
            let known = catalogue::find(&plugin.module).map(|known| known.name.clone());
            known.unwrap_or_else(|| {
                let is_major = |part: &&str| {
                    part.strip_prefix('v')
                        .is_some_and(|major| major.bytes().all(|byte| byte.is_ascii_digit()))
                };
                let last = plugin.module.rsplit('/').find(|part| !is_major(part));
                last.unwrap_or(&plugin.module).to_owned()
            })
        };
        let mut taken = HashSet::new();
        // The next number to try for a name, so that equal names take linear time.
        let mut numbers: HashMap<String, usize> = HashMap::new();
        let unique = |plugin| {
            let name = name(plugin);
            let next = numbers.entry(name.clone()).or_insert(1);
            loop {
                let candidate = if *next == 1 { name.clone() } else { format!("{name}-{next}") };
                *next += 1;
                if taken.insert(candidate.clone()) {
                    return candidate;
                }
            }
        };
        self.plugins.iter().map(unique).collect()
    }
}

impl TryFrom<&BuildSpec> for Manifest {
    type Error = Vec<Violation>;

    /// The manifest of the request, without the stamps, which are options of a build.
    fn try_from(spec: &BuildSpec) -> Result<Self, Self::Error> {
        let mut fields = FieldChecks::default();
        fields.check("roadrunner", "ref", &spec.roadrunner, check::requested);
        if spec.plugins.is_empty() {
            fields.violation("", "no plugins: a binary needs at least one".to_owned());
        }
        let mut plugins = Vec::new();
        let mut firsts = HashMap::new();
        for (at, (plugin, name)) in spec.plugins.iter().zip(spec.plugin_names()).enumerate() {
            let field = format!("plugins[{at}].module");
            let first = *firsts.entry(plugin.module.as_str()).or_insert(at);
            if first != at {
                fields
                    .violation(&field, format!("the same module as plugins[{first}]; remove one of the two"));
            }
            let module = fields.check(&field, "module path", &plugin.module, check::module_path);
            fields.check(&format!("plugins[{at}].ref"), "ref", &plugin.reference, |reference| {
                check::requested(reference)?;
                module.map_or(Ok(()), |()| check::majors_agree(&plugin.module, reference))
            });
            plugins.push(Plugin {
                name: name.into(),
                origin: Origin::Module(plugin.module.clone().into()),
                reference: plugin.reference.clone().into(),
                replace: None,
            });
        }
        let mut replaces: Vec<ReplaceDirective> = Vec::new();
        let mut replaced = HashSet::new();
        for (at, replace) in spec.replaces.iter().enumerate() {
            let field = format!("replaces[{at}].old");
            let old = fields.check(&field, "module", &replace.old, check::replaced);
            if let Some(old) = &old
                && !replaced.insert(old.clone())
            {
                fields
                    .violation(&field, format!("`{}` is replaced twice; remove one of the two", replace.old));
            }
            let new = fields.check(&format!("replaces[{at}].new"), "replacement", &replace.new, |new| {
                match check::replacement(new)? {
                    new @ Replacement::Module { version: Some(_), .. } => Ok(new),
                    _ => Err(InvalidValue::new("expected `module@version`")),
                }
            });
            if let (Some(old), Some(new)) = (old, new) {
                replaces.push(ReplaceDirective { old: old.into(), new: new.into() });
            }
        }
        let mut excludes = Vec::new();
        for (at, ModuleVersionSpec { module, version }) in spec.excludes.iter().enumerate() {
            let (module, version) = fields.module_version(&format!("excludes[{at}]"), module, version);
            excludes.push(ModuleDirective { module, version });
        }
        let mut requires = Vec::new();
        let mut required = HashSet::new();
        for (at, ModuleVersionSpec { module, version }) in spec.requires.iter().enumerate() {
            if !required.insert(module) {
                let message = format!("`{module}` is required twice; remove the lower version");
                fields.violation(&format!("requires[{at}].module"), message);
            }
            let (module, version) = fields.module_version(&format!("requires[{at}]"), module, version);
            requires.push(ModuleDirective { module, version });
        }
        let go = spec.go.as_ref().and_then(|go| fields.check("go", "Go version", go, check::go_selection));
        for tag in &spec.tags {
            // https://pkg.go.dev/cmd/go#hdr-Build_constraints
            fields.check("tags", "build tag", tag, |tag| {
                let is_tag = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.');
                match !tag.is_empty() && tag.chars().all(is_tag) {
                    true => Ok(()),
                    false => Err(InvalidValue::new("expected letters, digits, `_` and `.`")),
                }
            });
        }
        if !fields.violations.is_empty() {
            return Err(fields.violations);
        }
        Ok(Self {
            roadrunner: RoadRunnerConfig {
                reference: Some(spec.roadrunner.clone().into()),
                dependencies: spec.dependencies,
            },
            debug: DebugConfig { enabled: spec.debug, race: spec.race },
            strict: spec.strict,
            plugins,
            replaces,
            excludes,
            requires,
            go: go.map(Into::into),
            targets: vec![spec.target.clone().into()],
            build_args: BuildArgs { tags: spec.tags.clone(), ..BuildArgs::default() },
            ..Self::without_a_file()
        })
    }
}

/// Collects the violations of a request.
#[derive(Default)]
struct FieldChecks {
    violations: Vec<Violation>,
}

impl FieldChecks {
    fn violation(&mut self, field: &str, message: String) {
        self.violations.push(Violation::new(field, message));
    }

    /// Checks the `module` and the `version` of a list's item.
    fn module_version(
        &mut self,
        item: &str,
        module: &str,
        version: &str,
    ) -> (Spanned<String>, Spanned<String>) {
        let is_module = self.check(&format!("{item}.module"), "module path", module, check::module_path);
        self.check(&format!("{item}.version"), "version", version, |version| {
            check::full_version(version)?;
            is_module.map_or(Ok(()), |()| check::majors_agree(module, version))
        });
        (module.to_owned().into(), version.to_owned().into())
    }

    fn check<T>(
        &mut self,
        field: &str,
        noun: &str,
        text: &str,
        check: impl FnOnce(&str) -> Result<T, InvalidValue>,
    ) -> Option<T> {
        match check(text) {
            Ok(value) => Some(value),
            Err(error) => {
                self.violation(field, format!("invalid {noun} {text:?}: {error}"));
                None
            }
        }
    }
}

/// A configuration, and the positions of the values that a manifest locates, in the order of the text.
#[derive(Default)]
struct ConfigurationText {
    text: String,
    spans: Vec<Range<usize>>,
}

impl ConfigurationText {
    fn line(&mut self, text: &str) {
        self.text.push_str(text);
        self.text.push('\n');
    }

    fn located(&mut self, text: &str) {
        let start = self.text.len();
        self.text.push_str(text);
        self.spans.push(start..self.text.len());
    }

    /// Adds `name = "value"`. A request has no variables, so `$` is escaped.
    fn pair(&mut self, name: &str, value: &str) {
        // Writing to a String can't fail.
        let _ = write!(self.text, "{name} = ");
        self.located(&string(&value.replace('$', "$$")));
        self.text.push('\n');
    }
}

/// A target as `os/arch`.
mod target {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};
    use velox_manifest::{GoTarget, parse_target};

    pub(super) fn serialize<S: Serializer>(target: &GoTarget, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(target)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<GoTarget, D::Error> {
        parse_target(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// The choice of dependencies as `release` or `minimal`.
mod dependencies {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
    use velox_manifest::Dependencies;

    pub(super) fn serialize<S: Serializer>(
        choice: &Option<Dependencies>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        choice.map(Dependencies::word).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Dependencies>, D::Error> {
        let word = Option::<String>::deserialize(deserializer)?;
        word.map(|word| word.parse().map_err(D::Error::custom)).transpose()
    }
}

#[cfg(test)]
mod tests {
    use velox_manifest::parse_target;

    use super::*;

    fn spec() -> BuildSpec {
        let plugins = vec![
            PluginSpec::new("github.com/roadrunner-server/rpc/v5", "v5.1.8"),
            PluginSpec::new("github.com/roadrunner-server/http/v5", "v5.2.7"),
        ];
        BuildSpec {
            target: parse_target("linux/arm64").expect("a target"),
            ..BuildSpec::new("v2025.1.5", plugins)
        }
    }

    fn fields(spec: BuildSpec) -> Vec<String> {
        spec.normalized().expect_err("it is wrong").into_iter().map(|wrong| wrong.field).collect()
    }

    #[test]
    fn a_version_constraint_is_a_ref() {
        let plugin = |reference: &str| PluginSpec::new("github.com/roadrunner-server/http/v5", reference);
        let constrained =
            BuildSpec::new("^2025.1", vec![plugin(">=5.1, <6")]).normalized().expect("it is right");
        assert!(!constrained.is_exact(), "a newer version may be released");
        let (read, _) =
            BuildSpec::from_configuration(&constrained.configuration(), None).expect("it is right");
        assert_eq!(read, [constrained]);
        assert_eq!(fields(BuildSpec::new("^v2025", vec![plugin("^6")])), ["roadrunner", "plugins[0].ref"]);
    }

    #[test]
    fn the_order_of_the_lists_makes_no_difference() {
        let one = spec().normalized().expect("it is right");
        let mut other = spec();
        other.plugins.reverse();
        let other = other.normalized().expect("it is right");
        let key = |spec: &BuildSpec| spec.key().expect("a key");
        assert_eq!(key(&one), key(&other));
        assert_ne!(key(&one), key(&BuildSpec { debug: true, ..one.clone() }));
    }

    #[test]
    fn a_violation_names_its_field() {
        let mut wrong = spec();
        wrong.plugins[1].module = "http".to_owned();
        assert_eq!(fields(wrong), ["plugins[1].module"]);
        let mut wrong = spec();
        wrong.plugins[0].reference = String::new();
        assert_eq!(fields(wrong), ["plugins[0].ref"]);
        assert_eq!(
            fields(BuildSpec { roadrunner: "a b".to_owned(), strict: true, ..spec() }),
            ["roadrunner"]
        );
        assert_eq!(fields(BuildSpec { plugins: Vec::new(), ..spec() }), [""]);
        let old = "github.com/acme/a";
        let exclude = ModuleVersionSpec::new(old, "1");
        assert_eq!(fields(BuildSpec { excludes: vec![exclude], ..spec() }), ["excludes[0].version"]);
        let twice = vec![ModuleVersionSpec::new(old, "v1.0.0"), ModuleVersionSpec::new(old, "v2.0.0")];
        assert_eq!(
            fields(BuildSpec { requires: twice, ..spec() }),
            ["requires[1].module", "requires[1].version"]
        );
        assert_eq!(fields(BuildSpec { go: Some("go1.26".to_owned()), ..spec() }), ["go"]);
    }

    #[test]
    fn unknown_targets_and_dependencies_are_rejected() {
        let read = |field: &str, value: &str| {
            let mut json = serde_json::to_value(spec()).expect("JSON");
            json[field] = value.into();
            serde_json::from_value::<BuildSpec>(json)
        };
        for (field, value) in [
            ("target", "plan9/amd64"),
            ("target", "linux/amd64 -toolexec=/bin/sh"),
            ("target", "linux"),
            ("dependencies", "no"),
            ("dependencies", "-toolexec=/bin/sh"),
        ] {
            assert!(read(field, value).is_err(), "{field} = {value}");
        }
        assert_eq!(
            read("dependencies", "minimal").expect("a spec").dependencies,
            Some(Dependencies::Minimal)
        );
    }

    #[test]
    fn a_configuration_says_what_the_spec_says_and_a_manifest_has_its_positions() {
        let mut whole = spec();
        whole.plugins.push(PluginSpec::new("example.com/acme/x", "a$b"));
        whole.replaces = vec![ReplaceSpec::new("github.com/acme/a", "github.com/acme/b@v1.2.3")];
        whole.excludes = vec![ModuleVersionSpec::new("github.com/acme/c", "v1.0.0")];
        whole.requires = vec![ModuleVersionSpec::new("github.com/acme/d", "v1.2.0")];
        whole.go = Some("release".to_owned());
        let whole = BuildSpec {
            tags: vec!["one".to_owned(), "two".to_owned()],
            debug: true,
            race: true,
            dependencies: Some(Dependencies::Minimal),
            strict: true,
            ..whole
        };
        let (manifest, source) = whole.manifest_and_source().expect("valid");
        assert_eq!(source.text, whole.configuration());
        let (read, warnings) = BuildSpec::from_configuration(&source.text, None).expect("valid");
        assert_eq!((read, warnings), (vec![whole.normalized().expect("valid")], Vec::new()));
        let at = |span: &Option<Range<usize>>| source.text[span.clone().expect("a position")].to_owned();
        let mut found = vec![at(&manifest.roadrunner.reference.as_ref().expect("a ref").span)];
        for plugin in &manifest.plugins {
            let Origin::Module(module) = &plugin.origin else { panic!("{plugin:?}") };
            found.extend([&plugin.name.span, &module.span, &plugin.reference.span].map(at));
        }
        found.extend([&manifest.replaces[0].old.span, &manifest.replaces[0].new.span].map(at));
        found.extend([&manifest.excludes[0].module.span, &manifest.excludes[0].version.span].map(at));
        found.extend([&manifest.requires[0].module.span, &manifest.requires[0].version.span].map(at));
        found.push(at(&manifest.go.as_ref().expect("a Go").span));
        let expected = [
            "\"v2025.1.5\"",
            "rpc",
            "\"github.com/roadrunner-server/rpc/v5\"",
            "\"v5.1.8\"",
            "http",
            "\"github.com/roadrunner-server/http/v5\"",
            "\"v5.2.7\"",
            "x",
            "\"example.com/acme/x\"",
            "\"a$$b\"",
            "\"github.com/acme/a\"",
            "\"github.com/acme/b@v1.2.3\"",
            "\"github.com/acme/c\"",
            "\"v1.0.0\"",
            "\"github.com/acme/d\"",
            "\"v1.2.0\"",
            "\"release\"",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn long_requests_are_rejected_before_their_values_are_checked() {
        let mut long = spec();
        long.plugins = vec![PluginSpec::new("", ""); 100_000];
        assert_eq!(fields(long), ["plugins"]);
        let text = "x ".repeat(1000);
        let mut long = BuildSpec {
            roadrunner: text.clone(),
            replaces: vec![ReplaceSpec::new("github.com/acme/x", &text)],
            tags: vec!["good".to_owned(), text.clone()],
            stamp_version: Some(text.clone()),
            ..spec()
        };
        long.plugins[1].reference = text;
        let expected = ["roadrunner", "stamp_version", "plugins[1]", "replaces[0]", "tags[1]"];
        assert_eq!(fields(long), expected);
    }

    #[test]
    fn names_of_equal_plugins_take_linear_time() {
        let mut alike = spec();
        alike.plugins = (0..20_000).map(|at| PluginSpec::new(format!("example.com/{at}/x"), "v1")).collect();
        let names: HashSet<String> = alike.plugin_names().into_iter().collect();
        assert!(names.len() == 20_000 && names.contains("x-20000"));
    }

    #[test]
    fn flags_in_tags_are_no_tags() {
        for bad in ["", "a b", "a,b", "-toolexec=/bin/sh", "a\n", "a'", "a=b", "$HOME"] {
            let tagged = BuildSpec { tags: vec!["good".to_owned(), bad.to_owned()], ..spec() };
            assert_eq!(fields(tagged), ["tags"], "{bad:?}");
        }
        let tagged = BuildSpec { tags: vec!["go1.22".to_owned(), "debug_x".to_owned()], ..spec() };
        tagged.normalized().expect("it is right");
    }

    #[test]
    fn no_name_is_given_twice() {
        let mut alike = spec();
        for module in ["example.com/a/x", "example.com/b/x", "example.com/c/x-2", "example.com/d/x"] {
            alike.plugins.push(PluginSpec::new(module, "v1.0.0"));
        }
        let names = alike.plugin_names();
        assert_eq!(names[2..], ["x", "x-2", "x-2-2", "x-3"]);
        alike.normalized().expect("it is right");
    }

    #[test]
    fn unknown_keys_of_a_configuration_are_warnings() {
        let text = "[roadrunner]\nref = 'v2025.1.15'\n[plugins.a]\nmodule_name = 'a.b/c'\ntag = 'v1.0.0'\ndocs_url = 'x'\n";
        let (specs, warnings) = BuildSpec::from_configuration(text, None).expect("it can be read");
        assert_eq!(specs.len(), 1);
        assert_eq!(warnings, ["velox.toml:6:1: unknown key `docs_url` in `[plugins.a]`"]);
        let strict = format!("strict = true\n{text}");
        let wrong = BuildSpec::from_configuration(&strict, None).expect_err("it is strict");
        assert_eq!(wrong[0].message, "velox.toml:7:1: unknown key `docs_url` in `[plugins.a]`");
    }

    #[test]
    fn a_replacement_is_a_module_at_a_version() {
        for new in ["github.com/acme/y", "./y", "/etc"] {
            let replaces = vec![ReplaceSpec::new("github.com/acme/x", new)];
            let wrong = BuildSpec { replaces, ..spec() }.normalized().expect_err(new);
            assert_eq!(wrong[0].field, "replaces[0].new", "{new}");
        }
    }

    #[test]
    fn branches_are_not_exact() {
        assert!(spec().is_exact());
        let mut branch = spec();
        branch.plugins[0].reference = "master".to_owned();
        assert!(!branch.is_exact());
        assert!(!BuildSpec { roadrunner: "v2025.1".to_owned(), ..spec() }.is_exact());
        let with_go = |go: &str| BuildSpec { go: Some(go.to_owned()), ..spec() };
        assert!(with_go("1.26.4").is_exact() && with_go("release").is_exact() && !with_go("1.26").is_exact());
    }
}
