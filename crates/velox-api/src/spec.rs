//! What is asked for: one server for one target, whichever way it was said.

use std::{collections::BTreeSet, fmt::Write as _, ops::Range};

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use velox_gomod::semver;
use velox_manifest::{
    Dependencies, Diagnostic, GoTarget, Manifest, Origin, Replacement, SourceFile, catalogue,
    edit::{key, string},
};

/// The name under which messages know the text of [`BuildSpec::configuration`].
const NAME: &str = "velox.toml";

/// One server for one target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct BuildSpec {
    /// RoadRunner's tag, branch or commit (`v2025.1.15`).
    pub roadrunner: String,
    /// The plugins; at least one, none twice.
    pub plugins: Vec<PluginSpec>,
    /// Modules that take other modules' places.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replaces: Vec<ReplaceSpec>,
    /// Versions that are never to be used.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub excludes: Vec<ExcludeSpec>,
    /// What to compile for, `os/arch` in Go's names; the service's own platform where it is missing.
    #[serde(default = "host_target")]
    pub target: String,
    /// Build tags.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Keep debug information, without optimizations.
    #[serde(default)]
    pub debug: bool,
    /// Compile with the race detector, where the service allows a C compiler.
    #[serde(default)]
    pub race: bool,
    /// A plugin that minimal version selection raises is an error.
    #[serde(default)]
    pub strict: bool,
    /// `release` or `minimal`: which dependencies the build starts from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dependencies: Option<String>,
    /// The version that the binary says it is; the release's own where it is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stamp_version: Option<String>,
    /// The build time that the binary says; the release's own where it is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stamp_time: Option<String>,
}

/// A plugin of a [`BuildSpec`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct PluginSpec {
    /// The module's path (`github.com/roadrunner-server/http/v5`).
    pub module: String,
    /// A tag, a branch, a commit or `latest`.
    #[serde(rename = "ref")]
    pub reference: String,
}

/// A replace of a [`BuildSpec`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ReplaceSpec {
    /// `module` or `module@version`.
    pub old: String,
    /// `module@version`.
    pub new: String,
}

/// An exclude of a [`BuildSpec`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ExcludeSpec {
    /// The module's path.
    pub module: String,
    /// The version that is not to be used.
    pub version: String,
}

/// Something in a request that can't be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Violation {
    /// The field (`plugins[2].module`); empty: the request as a whole.
    pub field: String,
    /// What is wrong with it, and what to do.
    pub message: String,
}

impl Violation {
    /// A violation of this field.
    pub fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into() }
    }
}

/// This machine's own target, `os/arch`.
#[must_use]
pub fn host_target() -> String {
    GoTarget::host().to_string()
}

impl PluginSpec {
    /// The module at the tag, branch or commit.
    pub fn new(module: impl Into<String>, reference: impl Into<String>) -> Self {
        Self { module: module.into(), reference: reference.into() }
    }
}

impl BuildSpec {
    /// These plugins for this platform, and all else as where a request leaves it out.
    pub fn new(roadrunner: impl Into<String>, plugins: Vec<PluginSpec>) -> Self {
        Self {
            roadrunner: roadrunner.into(),
            plugins,
            replaces: Vec::new(),
            excludes: Vec::new(),
            target: host_target(),
            tags: Vec::new(),
            debug: false,
            race: false,
            strict: false,
            dependencies: None,
            stamp_version: None,
            stamp_time: None,
        }
    }

    /// The same in one order, so that equal requests are equal.
    ///
    /// # Errors
    /// All that can't be built from, whatever the service allows.
    pub fn checked(mut self) -> Result<Self, Vec<Violation>> {
        self.manifest()?;
        let unversioned = self.replaces.iter().enumerate().filter(|(_, replace)| !replace.new.contains('@'));
        let unversioned: Vec<Violation> = unversioned
            .map(|(at, replace)| {
                let why = format!(
                    "`{}` is no module at a version: a build service knows no directories",
                    replace.new
                );
                Violation::new(format!("replaces[{at}].new"), why)
            })
            .collect();
        if !unversioned.is_empty() {
            return Err(unversioned);
        }
        // https://pkg.go.dev/cmd/go#hdr-Build_constraints; in the manifest, a tag with a comma or a space is two.
        let is_tag = |tag: &String| {
            !tag.is_empty() && tag.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '.'))
        };
        if let Some(wrong) = self.tags.iter().find(|tag| !is_tag(tag)) {
            let why = format!("{wrong:?} is no build tag: letters, digits, `_` and `.` make one");
            return Err(vec![Violation::new("tags", why)]);
        }
        self.plugins.sort();
        self.replaces.sort();
        self.excludes.sort();
        self.excludes.dedup();
        self.tags.sort();
        self.tags.dedup();
        Ok(self)
    }

    /// What a `velox.toml` in any format asks for. A configuration for several targets has several.
    ///
    /// # Errors
    /// What is wrong with it, and what a service can't do: directories, tokens, other forges.
    pub fn of_configuration(text: &str, target: Option<&str>) -> Result<Vec<Self>, Vec<Violation>> {
        let source = SourceFile { name: NAME.to_owned(), text: text.to_owned() };
        let (manifest, _) = Manifest::parse(&source, &|_| None).map_err(|wrong| {
            let said = |wrong: Diagnostic| {
                let place = wrong.span.as_ref().map(|span| source.line_column(span.start));
                let place = place.map_or_else(String::new, |(line, column)| format!(":{line}:{column}"));
                Violation::new("configuration", format!("{NAME}{place}: {}", sentence(&wrong)))
            };
            wrong.into_iter().map(said).collect::<Vec<_>>()
        })?;
        Self::of_manifest(&manifest, target)
    }

    /// What a manifest asks for, one for each of its targets; `target` wins over them.
    ///
    /// # Errors
    /// What a service can't do: directories, other forges, plugins without a module path, flags of the compiler.
    pub fn of_manifest(manifest: &Manifest, target: Option<&str>) -> Result<Vec<Self>, Vec<Violation>> {
        let mut wrong = Vec::new();
        let mut refuse =
            |what: &str, why: &str| wrong.push(Violation::new("configuration", format!("{what}: {why}")));
        let mut replaces = Vec::new();
        let mut plugins = Vec::new();
        let elsewhere =
            "a build service has no such directory: publish the module, or build on your own machine";
        for plugin in &manifest.plugins {
            let name = &plugin.name.value;
            let Origin::Module(module) = &plugin.origin else {
                refuse(name, "a build service needs its module path: `vx migrate` writes it as module_name");
                continue;
            };
            match plugin.replace.as_ref().map(|replace| &replace.value) {
                None => {}
                Some(Replacement::Directory(_)) => refuse(name, elsewhere),
                Some(Replacement::Module { path, version }) => {
                    let version = version.as_ref().unwrap_or(&plugin.reference.value);
                    replaces
                        .push(ReplaceSpec { old: module.value.clone(), new: format!("{path}@{version}") });
                }
            }
            plugins.push(PluginSpec::new(&module.value, &plugin.reference.value));
        }
        for replace in &manifest.replaces {
            let (path, version) = &replace.old.value;
            let old = version.as_ref().map_or_else(|| path.clone(), |version| format!("{path}@{version}"));
            match &replace.new.value {
                Replacement::Module { path, version: Some(version) } => {
                    replaces.push(ReplaceSpec { old, new: format!("{path}@{version}") });
                }
                Replacement::Module { .. } => {
                    refuse(&old, "its replacement needs a version, as in `module@v1.2.3`")
                }
                Replacement::Directory(_) => refuse(&old, elsewhere),
            }
        }
        for (forge, name) in [(&manifest.github, "[github]"), (&manifest.gitlab, "[gitlab]")] {
            if forge.endpoint.is_some() {
                refuse(name, "a build service knows no forge but its own: build on your own machine");
            }
        }
        let arguments = &manifest.build_args;
        if !arguments.flags.is_empty() || !arguments.definitions.is_empty() || arguments.strip == Some(false)
        {
            refuse("build_args", "a build service takes tags, -race and the stamp, and no other flags");
        }
        let Some(roadrunner) =
            manifest.roadrunner.reference.as_ref().map(|reference| reference.value.clone())
        else {
            refuse("[roadrunner]", "a build service needs its ref, such as ref = \"v2025.1.15\"");
            return Err(wrong);
        };
        if !wrong.is_empty() {
            return Err(wrong);
        }
        let targets = match target {
            Some(target) => vec![target.to_owned()],
            None if manifest.targets.is_empty() => vec![host_target()],
            None => manifest.targets.iter().map(|target| target.value.to_string()).collect(),
        };
        let of_target = |target| Self {
            roadrunner: roadrunner.clone(),
            plugins: plugins.clone(),
            replaces: replaces.clone(),
            excludes: manifest
                .excludes
                .iter()
                .map(|exclude| ExcludeSpec {
                    module: exclude.module.value.clone(),
                    version: exclude.version.value.clone(),
                })
                .collect(),
            target,
            tags: arguments.tags.clone(),
            debug: manifest.debug,
            race: arguments.race,
            strict: manifest.strict,
            dependencies: manifest.roadrunner.dependencies.map(|which| match which {
                Dependencies::Release => "release".to_owned(),
                Dependencies::Minimal => "minimal".to_owned(),
            }),
            stamp_version: arguments.stamp_version.clone(),
            stamp_time: arguments.stamp_time.clone(),
        };
        targets.into_iter().map(|target| of_target(target).checked()).collect()
    }

    /// The SHA-256, in hexadecimal, of all that is asked for: the same for the same server.
    #[must_use]
    pub fn key(&self) -> String {
        // A structure of strings and lists can always be written.
        let text = serde_json::to_vec(self).unwrap_or_default();
        HEXLOWER.encode(&Sha256::digest(text))
    }

    /// Whether every ref names one version for good: then what was built once is never stale.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        let exact = |reference: &str| {
            // `v5` and `v5.1` may be branches.
            semver::canonical(reference).is_some_and(|whole| reference.starts_with(&whole))
                || (reference.len() == 40 && reference.bytes().all(|byte| byte.is_ascii_hexdigit()))
        };
        let of_replace =
            |replace: &ReplaceSpec| replace.new.split_once('@').is_some_and(|(_, version)| exact(version));
        exact(&self.roadrunner)
            && self.plugins.iter().all(|plugin| exact(&plugin.reference))
            && self.replaces.iter().all(of_replace)
    }

    /// The `velox.toml` that says it.
    #[must_use]
    pub fn configuration(&self) -> String {
        self.written().text
    }

    /// The manifest that says it, with the text that its places point into.
    ///
    /// # Errors
    /// What is wrong, by the fields of this.
    pub fn manifest(&self) -> Result<(Manifest, SourceFile), Vec<Violation>> {
        let Written { text, fields } = self.written();
        let source = SourceFile { name: NAME.to_owned(), text };
        match Manifest::parse(&source, &|_| None) {
            Ok((manifest, _)) => Ok((manifest, source)),
            Err(wrong) => {
                let field = |wrong: &Diagnostic| {
                    let start = wrong.span.as_ref()?.start;
                    fields.iter().find(|(range, _)| range.contains(&start)).map(|(_, field)| field.clone())
                };
                Err(wrong
                    .iter()
                    .map(|wrong| Violation::new(field(wrong).unwrap_or_default(), sentence(wrong)))
                    .collect())
            }
        }
    }

    fn written(&self) -> Written {
        let mut written = Written::default();
        written.line("[roadrunner]");
        written.field("ref", &self.roadrunner, "roadrunner");
        if let Some(dependencies) = &self.dependencies {
            written.field("dependencies", dependencies, "dependencies");
        }
        let names = self.names();
        for (at, (plugin, name)) in self.plugins.iter().zip(names).enumerate() {
            let start = written.text.len();
            written.line(&format!("\n[plugins.{}]", key(&name)));
            let name = start..written.text.len();
            written.field("module_name", &plugin.module, &format!("plugins[{at}].module"));
            written.field("tag", &plugin.reference, &format!("plugins[{at}].ref"));
            written.fields.push((name, format!("plugins[{at}].module")));
        }
        for (at, replace) in self.replaces.iter().enumerate() {
            written.line("\n[[replaces]]");
            written.field("old", &replace.old, &format!("replaces[{at}].old"));
            written.field("new", &replace.new, &format!("replaces[{at}].new"));
        }
        for (at, exclude) in self.excludes.iter().enumerate() {
            written.line("\n[[excludes]]");
            written.field("module", &exclude.module, &format!("excludes[{at}].module"));
            written.field("version", &exclude.version, &format!("excludes[{at}].version"));
        }
        written.line("\n[target_platform]");
        let (os, arch) = self.target.split_once('/').unwrap_or((&self.target, ""));
        written.field("os", os, "target");
        written.field("arch", arch, "target");
        if self.debug {
            written.line("\n[debug]\nenabled = true");
        }
        if !self.tags.is_empty() || self.race {
            let start = written.text.len();
            let tags =
                (!self.tags.is_empty()).then(|| string(&dollars(&format!("-tags={}", self.tags.join(",")))));
            let race = self.race.then(|| string("-race"));
            let arguments: Vec<String> = tags.into_iter().chain(race).collect();
            written.line(&format!("\n[velox]\nbuild_args = [{}]", arguments.join(", ")));
            written.fields.push((start..written.text.len(), "tags".to_owned()));
        }
        if self.strict {
            written.text.insert_str(0, "strict = true\n\n");
            for (range, _) in &mut written.fields {
                *range = range.start + 15..range.end + 15;
            }
        }
        written
    }

    /// What the plugins are called: as the catalogue has it, else by the end of their paths; none twice.
    fn names(&self) -> Vec<String> {
        let mut taken = BTreeSet::new();
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
        let unique = |plugin| {
            let name = name(plugin);
            let numbered = (2..).map(|number| format!("{name}-{number}"));
            let free = [name.clone()].into_iter().chain(numbered).find(|name| taken.insert(name.clone()));
            free.unwrap_or(name)
        };
        self.plugins.iter().map(unique).collect()
    }
}

/// The text of a configuration, and which field of the request stands where in it.
#[derive(Default)]
struct Written {
    text: String,
    fields: Vec<(Range<usize>, String)>,
}

impl Written {
    fn line(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }

    fn field(&mut self, name: &str, value: &str, field: &str) {
        let start = self.text.len();
        // A String can be written to.
        let _ = writeln!(self.text, "{name} = {}", string(&dollars(value)));
        self.fields.push((start..self.text.len(), field.to_owned()));
    }
}

/// A request has no variables.
fn dollars(value: &str) -> String {
    value.replace('$', "$$")
}

fn sentence(wrong: &Diagnostic) -> String {
    [&wrong.message].into_iter().chain(&wrong.help).map(String::as_str).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> BuildSpec {
        let plugins = vec![
            PluginSpec::new("github.com/roadrunner-server/rpc/v5", "v5.1.8"),
            PluginSpec::new("github.com/roadrunner-server/http/v5", "v5.2.7"),
        ];
        BuildSpec { target: "linux/arm64".to_owned(), ..BuildSpec::new("v2025.1.5", plugins) }
    }

    fn fields(spec: BuildSpec) -> Vec<String> {
        spec.checked().expect_err("it is wrong").into_iter().map(|wrong| wrong.field).collect()
    }

    #[test]
    fn the_order_of_the_lists_makes_no_difference() {
        let one = spec().checked().expect("it is right");
        let mut other = spec();
        other.plugins.reverse();
        let other = other.checked().expect("it is right");
        assert_eq!(one.key(), other.key());
        assert_ne!(one.key(), BuildSpec { debug: true, ..one.clone() }.key());
    }

    #[test]
    fn a_violation_names_its_field() {
        let mut wrong = spec();
        wrong.plugins[1].module = "http".to_owned();
        assert_eq!(fields(wrong), ["plugins[1].module"]);
        let mut wrong = spec();
        wrong.plugins[0].reference = String::new();
        assert_eq!(fields(wrong), ["plugins[0].ref"]);
        assert_eq!(fields(BuildSpec { target: "plan9/amd64".to_owned(), ..spec() }), ["target"]);
        assert_eq!(
            fields(BuildSpec { roadrunner: "a b".to_owned(), strict: true, ..spec() }),
            ["roadrunner"]
        );
        assert_eq!(fields(BuildSpec { dependencies: Some("no".to_owned()), ..spec() }), ["dependencies"]);
        assert_eq!(fields(BuildSpec { plugins: Vec::new(), ..spec() }), [""]);
        let old = "github.com/acme/a".to_owned();
        let exclude = ExcludeSpec { module: old.clone(), version: "1".to_owned() };
        assert_eq!(fields(BuildSpec { excludes: vec![exclude], ..spec() }), ["excludes[0].version"]);
    }

    #[test]
    fn a_configuration_says_what_the_spec_says() {
        let mut whole = spec();
        whole.replaces.push(ReplaceSpec {
            old: "github.com/acme/a".to_owned(),
            new: "github.com/acme/b@v1.2.3".to_owned(),
        });
        whole
            .excludes
            .push(ExcludeSpec { module: "github.com/acme/c".to_owned(), version: "v1.0.0".to_owned() });
        let whole = BuildSpec {
            tags: vec!["one".to_owned(), "two".to_owned()],
            debug: true,
            strict: true,
            dependencies: Some("minimal".to_owned()),
            ..whole
        };
        let whole = whole.checked().expect("it is right");
        let read = BuildSpec::of_configuration(&whole.configuration(), None).expect("it can be read");
        assert_eq!(read, [whole]);
    }

    #[test]
    fn flags_in_tags_are_no_tags() {
        for bad in ["", "a b", "a,b", "-toolexec=/bin/sh", "a\n", "a'", "a=b", "$HOME"] {
            let tagged = BuildSpec { tags: vec!["good".to_owned(), bad.to_owned()], ..spec() };
            assert_eq!(fields(tagged), ["tags"], "{bad:?}");
        }
        let tagged = BuildSpec { tags: vec!["go1.22".to_owned(), "debug_x".to_owned()], ..spec() };
        tagged.checked().expect("it is right");
    }

    #[test]
    fn no_name_is_given_twice() {
        let mut alike = spec();
        for module in ["example.com/a/x", "example.com/b/x", "example.com/c/x-2", "example.com/d/x"] {
            alike.plugins.push(PluginSpec::new(module, "v1.0.0"));
        }
        let names = alike.names();
        assert_eq!(names[2..], ["x", "x-2", "x-2-2", "x-3"]);
        alike.checked().expect("it is right");
    }

    #[test]
    fn a_replacement_is_a_module_at_a_version() {
        for new in ["github.com/acme/y", "./y", "/etc"] {
            let replaces = vec![ReplaceSpec { old: "github.com/acme/x".to_owned(), new: new.to_owned() }];
            let wrong = BuildSpec { replaces, ..spec() }.checked().expect_err(new);
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
    }
}
