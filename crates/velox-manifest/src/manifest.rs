use std::{collections::BTreeMap, ops::Range, str::FromStr};

use secrecy::SecretString;
use url::Url;

/// A value with its place in the configuration text (`None`: it came from a flag or a request).
#[derive(Debug, Clone)]
pub struct Spanned<T> {
    /// The value.
    pub value: T,
    /// Its byte range in the configuration text.
    pub span: Option<Range<usize>>,
}

/// The generation of `velox.toml` that a text was written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ManifestFormat {
    /// Releases v1.x: as [`ManifestFormat::Manual`], with `[velox] build_args`.
    Ancestor,
    /// The manual's: `[github.plugins]`, `[gitlab.plugins]`; every release up to v2025.1.x.
    Manual,
    /// v2025.2 and v3: `[plugins.NAME] module_name, tag`; with `[velox] build_args` where a migrated file has them.
    Modules,
}

/// The contents of a velox.toml, independent of its format.
#[derive(Debug, Clone)]
pub struct Manifest {
    /// The format that it was read from.
    pub format: ManifestFormat,
    /// `[roadrunner]`.
    pub roadrunner: RoadRunnerConfig,
    /// `[debug] enabled`: keep debug symbols, for pprof and delve.
    pub debug: bool,
    /// `strict = true` at the top level: a plugin raised above its asked version is an error.
    pub strict: bool,
    /// The plugins, in the file's order.
    pub plugins: Vec<Plugin>,
    /// `[[replaces]]`, and nothing else: a plugin's own `replace` stays with the [`Plugin`].
    pub replaces: Vec<ReplaceDirective>,
    /// `[[excludes]]`.
    pub excludes: Vec<ExcludeDirective>,
    /// `[target_platform]` or `[[targets]]`, in the file's order, none twice; empty: the host's.
    pub targets: Vec<Spanned<GoTarget>>,
    /// `[cache]`.
    pub cache: CacheConfig,
    /// `[github]`: endpoint and token.
    pub github: Forge,
    /// `[gitlab]`: endpoint and token.
    pub gitlab: Forge,
    /// `[log]`.
    pub log: LogConfig,
    /// `[velox] build_args`, as far as they are safe.
    pub build_args: BuildArgs,
}

/// Which dependency versions a build starts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dependencies {
    /// All `// indirect` lines of RoadRunner's go.mod stay: the versions that the release was tested with.
    Release,
    /// None of them stay: what the plugins themselves demand, no more.
    Minimal,
}

impl Dependencies {
    /// As a configuration has it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Release => "release",
            Self::Minimal => "minimal",
        }
    }
}

impl FromStr for Dependencies {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        [Self::Release, Self::Minimal]
            .into_iter()
            .find(|choice| choice.word() == word)
            .ok_or_else(|| format!("expected `release` or `minimal`, found `{word}`"))
    }
}

/// `[roadrunner]`.
#[derive(Debug, Clone)]
pub struct RoadRunnerConfig {
    /// Tag, branch or commit; `None`: the default branch.
    pub reference: Option<Spanned<String>>,
    /// `dependencies = "release" | "minimal"`; `None`: the default rule (see velox-build's composition of go.mod).
    pub dependencies: Option<Dependencies>,
}

/// One plugin to compile in.
#[derive(Debug, Clone)]
pub struct Plugin {
    /// The key that the user chose for it.
    pub name: Spanned<String>,
    /// Where it comes from.
    pub origin: Origin,
    /// Tag, branch, full or short commit, or `latest`.
    pub reference: Spanned<String>,
    /// The plugin's own `replace`.
    pub replace: Option<Spanned<Replacement>>,
}

/// Where a plugin comes from.
#[derive(Debug, Clone)]
pub enum Origin {
    /// A Go module, by its path (`module_name`).
    Module(Spanned<String>),
    /// A repository of the configured GitHub.
    GitHub {
        /// User or organization.
        owner: Spanned<String>,
        /// Repository name.
        repository: Spanned<String>,
        /// Folder inside the repository that holds the plugin's go.mod, normalized (`a/b`).
        folder: Option<Spanned<String>>,
    },
    /// A project of the configured GitLab.
    GitLab {
        /// The project.
        project: Spanned<Project>,
        /// Folder inside the repository that holds the plugin's go.mod, normalized (`a/b`).
        folder: Option<Spanned<String>>,
    },
}

/// A GitLab project, the way GitLab's API names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Project {
    /// The numeric project id.
    Id(u64),
    /// The full path, `group/sub/project`.
    Path(String),
}

/// The right side of a replace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Replacement {
    /// A directory, relative to the configuration file or absolute.
    Directory(String),
    /// Another module; without a version, the plugin's own ref is resolved in it.
    Module {
        /// Module path (`github.com/owner2/repo2`).
        path: String,
        /// Version, where it was given (`path version` or `path@version`).
        version: Option<String>,
    },
}

/// `[[replaces]] old, new`.
#[derive(Debug, Clone)]
pub struct ReplaceDirective {
    /// Module path, optionally with a version.
    pub old: Spanned<(String, Option<String>)>,
    /// The replacement.
    pub new: Spanned<Replacement>,
}

/// `[[excludes]] module, version`.
#[derive(Debug, Clone)]
pub struct ExcludeDirective {
    /// Module path.
    pub module: Spanned<String>,
    /// The excluded version.
    pub version: Spanned<String>,
}

/// A target of the Go compiler.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GoTarget {
    /// GOOS, as Go spells it.
    pub os: String,
    /// GOARCH, as Go spells it.
    pub arch: Architecture,
}

/// GOARCH, as Go spells it.
pub type Architecture = String;

/// `[github]` or `[gitlab]`: how to reach the forge.
#[derive(Debug, Clone)]
pub struct Forge {
    /// Which software it runs.
    pub kind: ForgeKind,
    /// Base URL of a self-hosted instance (`base_url`, `[*.endpoint] endpoint`); `None`: the public one
    /// (an endpoint that names the public one is `None` too).
    pub endpoint: Option<Spanned<Url>>,
    /// The token; `None` where it is missing, empty, or its variable is not set.
    pub token: Option<SecretString>,
}

/// The software of a forge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum ForgeKind {
    GitHub,
    GitLab,
}

/// `[cache]`: the compile cache that a team shares.
#[derive(Debug, Clone, Default)]
pub struct CacheConfig {
    /// Its location: a directory, or an `s3://`, `gs://` or `az://` URL; `None`: no shared cache.
    pub remote: Option<Spanned<String>>,
    /// Whether this machine only reads from it.
    pub read_only: bool,
}

/// `[log]`.
#[derive(Debug, Clone, Copy, Default)]
pub struct LogConfig {
    /// `level`.
    pub level: Option<LogLevel>,
    /// `mode`.
    pub mode: Option<LogMode>,
}

/// `[log] level`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum LogLevel {
    Debug,
    Info,
    Warn,
    Error,
}

/// `[log] mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogMode {
    /// JSON lines where the output is not a terminal.
    Production,
    /// Lines for people.
    Development,
    /// As `development`, without time stamps: accepted for compatibility with Velox.
    Raw,
    /// No output.
    Off,
}

/// The parsed `[velox] build_args`.
#[derive(Debug, Clone, Default)]
pub struct BuildArgs {
    /// The version given literally for `internal/meta.version`.
    pub stamp_version: Option<String>,
    /// The time given literally for `internal/meta.buildTime`.
    pub stamp_time: Option<String>,
    /// Build tags (`-tags`).
    pub tags: Vec<String>,
    /// Flags passed to `go build` as they are (`-race` and `-trimpath` never are: they have fields and defaults of their own).
    pub flags: Vec<String>,
    /// `-X importpath.name=value`, other than the stamp.
    pub definitions: BTreeMap<String, String>,
    /// `-race`.
    pub race: bool,
    /// `-s` in `-ldflags`; `None`: not said.
    pub strip: Option<bool>,
}
