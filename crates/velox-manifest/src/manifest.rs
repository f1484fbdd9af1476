use std::{collections::BTreeMap, fmt, ops::Range, str::FromStr};

use secrecy::SecretString;
use url::Url;
use velox_gomod::module::ModuleVersion;

/// A value with its position in the configuration text.
#[derive(Debug, Clone)]
pub struct Spanned<T> {
    /// The value.
    pub value: T,
    /// The byte range in the text; `None` for a value of a flag or a request.
    pub span: Option<Range<usize>>,
}

/// A value of a flag or a request.
impl<T> From<T> for Spanned<T> {
    fn from(value: T) -> Self {
        Self { value, span: None }
    }
}

/// The format version of a `velox.toml`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ManifestFormat {
    /// Alpha releases: `[github_token]`, and repositories in `[plugins]`.
    First,
    /// Releases v1.x: like [`ManifestFormat::Manual`], with `[velox] build_args`.
    Ancestor,
    /// Releases up to v2025.1.x, and the manual: `[github.plugins]`, `[gitlab.plugins]`.
    Manual,
    /// v2025.2 and v3: `[plugins.NAME] module_name, tag`, optionally with `[velox] build_args`.
    Modules,
}

/// The contents of a velox.toml in any format.
#[derive(Debug, Clone)]
pub struct Manifest {
    /// The format of the text.
    pub format: ManifestFormat,
    /// `[roadrunner]`.
    pub roadrunner: RoadRunnerConfig,
    /// `[debug]`.
    pub debug: DebugConfig,
    /// Top-level `strict = true`: a plugin raised above its requested version is an error.
    pub strict: bool,
    /// The plugins, in file order.
    pub plugins: Vec<Plugin>,
    /// `[[replaces]]`, without the `replace` of each [`Plugin`].
    pub replaces: Vec<ReplaceDirective>,
    /// `[[excludes]]`.
    pub excludes: Vec<ModuleDirective>,
    /// `[[requires]]`.
    pub requires: Vec<ModuleDirective>,
    /// `[go] version`.
    pub go: Option<Spanned<GoSelection>>,
    /// `[target_platform]` or `[[targets]]`, in file order without duplicates; empty for the host.
    pub targets: Vec<Spanned<GoTarget>>,
    /// `[cache]`.
    pub cache: CacheConfig,
    /// `[image]`.
    pub image: ImageConfig,
    /// `[github]`: endpoint and token.
    pub github: Forge,
    /// `[gitlab]`: endpoint and token.
    pub gitlab: Forge,
    /// `[log]`.
    pub log: LogConfig,
    /// The supported `[velox] build_args`.
    pub build_args: BuildArgs,
}

/// `[debug]`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DebugConfig {
    /// `enabled`: keep debug symbols, for pprof and delve.
    pub enabled: bool,
    /// `race`: compile with the race detector, as `-race` does.
    pub race: bool,
}

/// The dependency versions that version selection starts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dependencies {
    /// Keep all `// indirect` lines of RoadRunner's go.mod: the versions that the release was tested with.
    Release,
    /// Drop them: the minimum versions that the plugins require.
    Minimal,
}

impl Dependencies {
    /// The configuration value.
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
    /// Tag, branch or commit; `None`: the default branch. A configuration without a ref has `master`.
    pub reference: Option<Spanned<String>>,
    /// `dependencies = "release" | "minimal"`; `None`: the default (see go.mod composition in velox-build).
    pub dependencies: Option<Dependencies>,
}

/// A plugin of the binary.
#[derive(Debug, Clone)]
pub struct Plugin {
    /// The key in the configuration.
    pub name: Spanned<String>,
    /// The origin.
    pub origin: Origin,
    /// Tag, branch, full or short commit, or `latest`.
    pub reference: Spanned<String>,
    /// `replace`.
    pub replace: Option<Spanned<Replacement>>,
}

/// The origin of a plugin.
#[derive(Debug, Clone)]
pub enum Origin {
    /// A Go module path (`module_name`).
    Module(Spanned<String>),
    /// A repository on the configured GitHub instance.
    GitHub {
        /// User or organization.
        owner: Spanned<String>,
        /// Repository name.
        repository: Spanned<String>,
        /// Folder inside the repository that holds the plugin's go.mod, normalized (`a/b`).
        folder: Option<Spanned<String>>,
    },
    /// A project on the configured GitLab instance.
    GitLab {
        /// The project.
        project: Spanned<Project>,
        /// Folder inside the repository that holds the plugin's go.mod, normalized (`a/b`).
        folder: Option<Spanned<String>>,
    },
}

/// A GitLab project, as identified by the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Project {
    /// The numeric project id.
    Id(u64),
    /// The full path, `group/sub/project`.
    Path(String),
}

/// The right-hand side of a replace directive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Replacement {
    /// A directory, relative to the configuration file or absolute.
    Directory(String),
    /// Another module; without a version, at the plugin's ref.
    Module {
        /// Module path (`github.com/owner2/repo2`).
        path: String,
        /// The version, if given (`path version` or `path@version`).
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

/// `[[excludes]] module, version`; or `[[requires]] module, version`, the lowest version of a module that is no plugin.
#[derive(Debug, Clone)]
pub struct ModuleDirective {
    /// Module path.
    pub module: Spanned<String>,
    /// The excluded or the lowest version.
    pub version: Spanned<String>,
}

impl ModuleDirective {
    /// The module at this version.
    #[must_use]
    pub fn module_version(&self) -> ModuleVersion {
        ModuleVersion::new(&self.module.value, &self.version.value)
    }

    /// Whether it names this version of this module.
    #[must_use]
    pub fn is(&self, module: &ModuleVersion) -> bool {
        self.module.value == module.path && self.version.value == module.version
    }
}

/// `[go] version`: the Go toolchain of a build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GoSelection {
    /// The newest patch release of a minor version (`1.26`).
    Minor(String),
    /// A release or a prerelease (`1.26.4`, `1.27rc1`).
    Exact(String),
    /// The one that RoadRunner's go.mod names.
    Release,
}

impl fmt::Display for GoSelection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Minor(version) | Self::Exact(version) => version,
            Self::Release => "release",
        })
    }
}

/// A target platform of the Go compiler.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GoTarget {
    /// GOOS, as Go spells it.
    pub os: String,
    /// GOARCH, as Go spells it.
    pub arch: Architecture,
}

/// GOARCH, as Go spells it.
pub type Architecture = String;

/// `[github]` or `[gitlab]`: the connection to a forge.
#[derive(Debug, Clone)]
pub struct Forge {
    /// The software.
    pub kind: ForgeKind,
    /// Base URL of a self-hosted instance (`base_url`, `[*.endpoint] endpoint`); `None` for the public one.
    pub endpoint: Option<Spanned<Url>>,
    /// The token; `None` if it is missing or empty, or its variable is not set.
    pub token: Option<SecretString>,
}

/// The software of a forge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum ForgeKind {
    GitHub,
    GitLab,
}

/// `[cache]`: the shared caches.
#[derive(Debug, Clone)]
pub struct CacheConfig {
    /// The locations, each a directory, or an `s3://`, `gs://`, `az://` or `oci://` URL, in the order in which they are asked. Only the
    /// first one is written to.
    pub remotes: Vec<Spanned<String>>,
    /// Whether the first one is read-only, too, for this machine.
    pub read_only: bool,
    /// Whether they keep finished binaries, beside compiled packages.
    pub artifacts: bool,
    /// The public key that verifies caches in registries: a file, or the key in PEM.
    pub trusted_key: Option<Spanned<String>>,
}

impl Default for CacheConfig {
    fn default() -> Self {
        Self { remotes: Vec::new(), read_only: false, artifacts: true, trusted_key: None }
    }
}

/// `[image]`.
#[derive(Debug, Clone, Default)]
pub struct ImageConfig {
    /// The base: an image reference, a path, or `scratch`.
    pub base: Option<Spanned<String>>,
    /// The repository of the image, without a tag.
    pub repository: Option<Spanned<String>>,
    /// The tags in the repository.
    pub tags: Vec<Spanned<String>>,
    /// The command of a container; empty: that of the base.
    pub entrypoint: Option<Vec<String>>,
    /// The user of a container.
    pub user: Option<String>,
    /// Labels of the image.
    pub labels: BTreeMap<String, String>,
    /// Added files and directories, `SRC:DST`.
    pub add: Vec<Spanned<String>>,
    /// The compression of the new layers.
    pub compression: Option<ImageCompression>,
}

/// `[image] compression`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum ImageCompression {
    Gzip,
    Zstd,
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
    /// JSON log lines on stderr.
    Production,
    /// Human-readable lines.
    Development,
    /// Messages as plain text.
    Raw,
    /// No output.
    Off,
}

/// The parsed `[velox] build_args`.
#[derive(Debug, Clone, Default)]
pub struct BuildArgs {
    /// The literal value of `internal/meta.version`.
    pub stamp_version: Option<String>,
    /// The literal value of `internal/meta.buildTime`.
    pub stamp_time: Option<String>,
    /// Build tags (`-tags`).
    pub tags: Vec<String>,
    /// Flags passed to `go build` unchanged, without `-race` and `-trimpath`.
    pub flags: Vec<String>,
    /// `-X importpath.name=value`, except the version stamp.
    pub definitions: BTreeMap<String, String>,
    /// `-race`.
    pub race: bool,
    /// `-s` in `-ldflags`; `None` if not specified.
    pub strip: Option<bool>,
}
