use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use velox_manifest::{Dependencies, GoTarget, Manifest, SourceFile};

use crate::{keys::signing::SigningKey, sbom_format::SbomFormat};

/// The input of a build.
#[derive(Debug, Clone)]
pub struct BuildRequest {
    /// The manifest.
    pub manifest: Manifest,
    /// The text of the manifest, for diagnostics.
    pub source: Option<SourceFile>,
    /// The base of relative paths: the directory of the configuration file.
    pub base: PathBuf,
    /// The environment of the build and its child processes.
    pub environment: BTreeMap<String, String>,
    /// The options, which override the manifest.
    pub options: BuildOptions,
    /// How far the build goes.
    pub goal: Goal,
    /// The path of the lock file; `None` for a configuration from a pipe or without a file.
    pub lock: Option<PathBuf>,
    /// Whether the lock may be written: not if flags changed the manifest.
    pub updates_lock: bool,
}

/// How far a build goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Goal {
    /// Resolve the versions, and write nothing.
    Plan,
    /// As `Plan`, and check the output (`vx build --dry-run`).
    DryRun(Output),
    /// Write the lock (`vx lock`).
    Lock,
    /// Check that the lock matches the configuration (`vx lock --check`).
    CheckLock,
    /// Download everything that a build needs (`vx fetch`).
    Fetch,
    /// Build the binaries.
    Build(Output),
}

/// The output path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// A directory for `rr` (`rr.exe` for Windows), or for one file for each target.
    Directory(PathBuf),
    /// The file.
    File(PathBuf),
    /// The artifact store; this file if the binary can't be stored.
    Store(PathBuf),
}

/// Options that override the manifest; `None`, `false` and empty ones don't.
#[derive(Debug, Clone, Default)]
pub struct BuildOptions {
    /// Compile options.
    pub compile: CompileOptions,
    /// The version stamp.
    pub stamp: StampOptions,
    /// Version resolution.
    pub versions: VersionOptions,
    /// Network access.
    pub network: NetworkAccess,
    /// The artifact store and the shared compile cache.
    pub cache: CacheOptions,
    /// The source tree.
    pub workspace: WorkspaceOptions,
    /// `--go PATH`: the go command, instead of the one on the PATH.
    pub go: Option<PathBuf>,
    /// `--archive`: a release archive for each binary.
    pub archive: bool,
    /// `--attestation`: the signed provenance of the binaries.
    pub attestation: Option<AttestationOutput>,
    /// `--sbom`: the bills of materials of each binary.
    pub sboms: Vec<SbomOutput>,
    /// Child processes stay in the process group of this process.
    pub share_process_group: bool,
}

/// `--attestation`: the signed provenance of the binaries of a build.
#[derive(Debug, Clone)]
pub struct AttestationOutput {
    /// The file to write.
    pub file: PathBuf,
    /// The key that signs it.
    pub key: SigningKey,
}

/// A bill of materials to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SbomOutput {
    /// Its format.
    pub format: SbomFormat,
    /// Its path; `None`: beside the binary.
    pub file: Option<PathBuf>,
}

impl SbomOutput {
    /// The path of the document for this binary.
    pub(crate) fn path(&self, binary: &Path) -> PathBuf {
        let beside = || {
            let name = binary.file_name().unwrap_or_default().to_string_lossy();
            binary.with_file_name(self.format.file_name(name.trim_end_matches(".exe")))
        };
        self.file.clone().unwrap_or_else(beside)
    }
}

/// Compile options.
#[derive(Debug, Clone, Default)]
pub struct CompileOptions {
    /// `--target os/arch`, as often as it was given.
    pub targets: Vec<GoTarget>,
    /// `--debug`.
    pub debug: bool,
    /// `--race`.
    pub race: bool,
    /// `--no-smoke-test`.
    pub skip_smoke_test: bool,
}

/// The version stamp.
#[derive(Debug, Clone, Default)]
pub struct StampOptions {
    /// `--stamp-version`.
    pub version: Option<String>,
    /// `--stamp-time`.
    pub time: Option<String>,
}

/// Options of version resolution.
#[derive(Debug, Clone, Default)]
pub struct VersionOptions {
    /// `--strict`.
    pub strict: bool,
    /// `--dependencies release|minimal`.
    pub dependencies: Option<Dependencies>,
    /// `--locked`: a matching lock must exist.
    pub locked: bool,
    /// `vx lock --upgrade`.
    pub upgrade: Upgrade,
    /// The lowest Go version that is taken from the lock, if `[go]` names a minor version (`1.26.9`).
    pub lowest_go: Option<String>,
}

/// Which locked versions are resolved again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Upgrade {
    /// None.
    #[default]
    Nothing,
    /// All of them.
    Everything,
    /// The versions of these plugins (`roadrunner` is RoadRunner itself).
    Only(Vec<String>),
}

impl Upgrade {
    /// Whether the version of this plugin is resolved anew.
    pub(crate) fn includes(&self, plugin: &str) -> bool {
        match self {
            Self::Nothing => false,
            Self::Everything => true,
            Self::Only(names) => names.iter().any(|name| name == plugin),
        }
    }
}

/// What a build may download.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum NetworkAccess {
    /// From module proxies, forges and version control.
    #[default]
    Full,
    /// From module proxies alone, except for what GONOPROXY covers.
    ProxiesOnly,
    /// `--offline`: nothing.
    Offline,
}

/// Options of the caches.
#[derive(Debug, Clone, Default)]
pub struct CacheOptions {
    /// `--no-cache`: compile even if the artifact store has the binary.
    pub recompile: bool,
    /// The size limit of the artifact store; `None`: [`crate::DEFAULT_STORE_LIMIT_BYTES`].
    pub store_limit_bytes: Option<u64>,
    /// `--remote-cache URL`: the shared cache, instead of those in `[cache]`.
    pub remote: Option<String>,
    /// The caches that a build suggests, and whose signatures it trusts; `None`: none are published.
    pub public_caches: Option<PublicCaches>,
    /// The program that runs [`crate::serve_compile_cache`]; `None`: there is no shared cache.
    pub program: Option<PathBuf>,
}

/// Caches in a registry with the packages of RoadRunner releases, which anybody can read. Their tags are the releases.
#[derive(Debug, Clone)]
pub struct PublicCaches {
    /// `HOST/REPOSITORY`.
    pub repository: String,
    /// The public key that verifies them, in PEM.
    pub trusted_key: String,
    /// The releases that have one.
    pub releases: Vec<String>,
}

/// Options of the workspace.
#[derive(Debug, Clone, Default)]
pub struct WorkspaceOptions {
    /// The parent directory of workspaces; `None`: a directory below the cache directory.
    pub parent: Option<PathBuf>,
    /// `--keep-workspace`.
    pub keep: bool,
}

impl BuildOptions {
    /// Whether nothing may be downloaded.
    #[must_use]
    pub fn is_offline(&self) -> bool {
        self.network == NetworkAccess::Offline
    }
}
