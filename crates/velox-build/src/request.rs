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
    /// Whether the manifest is what the configuration says and nothing else. Where flags changed it, the lock's versions
    /// count for what they left alone, and the lock stays as it is.
    pub unchanged: bool,
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

/// What flags say; `None` and `false` leave it to the manifest.
#[derive(Debug, Clone, Default)]
pub struct BuildOptions {
    /// `--target os/arch`, as often as it was given.
    pub targets: Vec<GoTarget>,
    /// `--debug`.
    pub debug: bool,
    /// `--race`.
    pub race: bool,
    /// `--strict`.
    pub strict: bool,
    /// `--stamp-version`.
    pub stamp_version: Option<String>,
    /// `--stamp-time`.
    pub stamp_time: Option<String>,
    /// `--dependencies release|minimal`.
    pub dependencies: Option<Dependencies>,
    /// `--keep-workspace`.
    pub keep_workspace: bool,
    /// `--no-smoke-test`.
    pub no_smoke_test: bool,
    /// `--locked`: the lock has to be there and to fit.
    pub locked: bool,
    /// `--offline`: no network at all.
    pub offline: bool,
    /// Only module proxies are asked, save for what GONOPROXY covers: no forge, and no version control.
    pub proxies_only: bool,
    /// The directory that workspaces are made in; `None`: the cache directory has a place for them.
    pub workspaces: Option<PathBuf>,
    /// The children stay in this process's group: whoever ends that as a whole ends them too.
    pub one_group: bool,
    /// `vx lock --upgrade`: nothing of the old lock's versions stays.
    pub upgrade: bool,
    /// `vx lock --upgrade NAME`: these plugins' versions don't stay.
    pub upgrade_only: Vec<String>,
    /// `--no-cache`: the binary is compiled even where it was before.
    pub no_cache: bool,
    /// `--archive`: a release archive for each binary.
    pub archive: bool,
    /// `--go PATH`: the go command, instead of the one on the PATH.
    pub go: Option<PathBuf>,
    /// `--remote-cache URL`: the compile cache that a team shares, instead of `[cache] remote`.
    pub remote_cache: Option<String>,
    /// The program that speaks Go's GOCACHEPROG protocol with this crate's compile cache; `None`: none is used.
    pub cache_program: Option<PathBuf>,
    /// The size that the artifact store is kept below, in bytes; `None`: [`crate::DEFAULT_STORE_LIMIT_BYTES`].
    pub cache_limit: Option<u64>,
}
