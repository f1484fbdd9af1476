use std::{collections::BTreeMap, path::PathBuf};

use velox_manifest::{Dependencies, GoTarget, Manifest, SourceFile};

/// All that a build is made from.
#[derive(Debug, Clone)]
pub struct BuildRequest {
    /// What the user asked for.
    pub manifest: Manifest,
    /// The text that `manifest` was read from, for errors that point into it.
    pub source: Option<SourceFile>,
    /// The directory that relative replacements start from: the configuration file's.
    pub base: PathBuf,
    /// The environment that the build sees, and its children inherit (the process's own, in the program).
    pub environment: BTreeMap<String, String>,
    /// What flags say; they win over the manifest.
    pub options: BuildOptions,
    /// What is to be done.
    pub goal: Goal,
    /// The lock beside the configuration; `None`: there is no place for one (a configuration from a pipe, or none at all).
    pub lock: Option<PathBuf>,
    /// Whether the lock may be written: not where flags changed the manifest, whose other versions still come from it.
    pub updates_lock: bool,
}

/// How far a build goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Goal {
    /// To the exact versions, and no further; nothing is written.
    Plan,
    /// The same, and whether a build into this output would be refused (`vx build --dry-run`).
    DryRun(Output),
    /// To the lock (`vx lock`).
    Lock,
    /// To a lock that says what the configuration asks for, which is not changed (`vx lock --check`).
    CheckLock,
    /// To all the files in the caches that a build needs (`vx fetch`).
    Fetch,
    /// To the binary.
    Build(Output),
}

/// Where the binary goes.
///
/// Several targets make several files in one directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// A directory, made when missing, that gets `rr` (`rr.exe` for Windows).
    Directory(PathBuf),
    /// The file itself.
    File(PathBuf),
    /// Nowhere: the binary is run from the artifact store; one that can't be kept there is this file.
    Store(PathBuf),
}

/// What flags say; `None`, `false` and empty leave the choice to the manifest.
#[derive(Debug, Clone, Default)]
pub struct BuildOptions {
    /// What is compiled, and for which targets.
    pub compile: CompileOptions,
    /// The version and build time of the binary.
    pub stamp: StampOptions,
    /// Which versions are resolved, and what the lock has to do with it.
    pub versions: VersionOptions,
    /// What may be downloaded, and from where.
    pub network: NetworkAccess,
    /// The artifact store and the shared compile cache.
    pub cache: CacheOptions,
    /// The source tree of the build.
    pub workspace: WorkspaceOptions,
    /// `--go PATH`: the go command, instead of the one on the PATH.
    pub go: Option<PathBuf>,
    /// `--archive`: a release archive for each binary.
    pub archive: bool,
    /// Child processes stay in the process group of this process.
    pub share_process_group: bool,
}

/// Options of the compile.
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
    /// `--locked`: the lock has to exist and to match the manifest.
    pub locked: bool,
    /// `vx lock --upgrade`.
    pub upgrade: Upgrade,
}

/// Which versions of an existing lock are resolved anew.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Upgrade {
    /// None.
    #[default]
    Nothing,
    /// All of them.
    Everything,
    /// Those of these plugins (`roadrunner` is RoadRunner itself).
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
    /// `--no-cache`: compile even where the artifact store has the binary.
    pub recompile: bool,
    /// The size limit of the artifact store; `None`: [`crate::DEFAULT_STORE_LIMIT_BYTES`].
    pub store_limit_bytes: Option<u64>,
    /// `--remote-cache URL`: the shared compile cache, instead of `[cache] remote`.
    pub remote: Option<String>,
    /// The program that runs [`crate::serve_compile_cache`]; `None`: there is no shared compile cache.
    pub program: Option<PathBuf>,
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
