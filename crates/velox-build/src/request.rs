use std::{collections::BTreeMap, path::PathBuf};

use velox_manifest::{Dependencies, GoTarget, Manifest, Source};

/// All that a build is made from.
#[derive(Debug, Clone)]
pub struct Request {
    /// What the user asked for.
    pub manifest: Manifest,
    /// The text that `manifest` was read from, for errors that point into it.
    pub source: Option<Source>,
    /// The directory that relative replacements start from: the configuration file's.
    pub base: PathBuf,
    /// The environment that the build sees, and its children inherit (the process's own, in the program).
    pub environment: BTreeMap<String, String>,
    /// What flags say; they win over the manifest.
    pub options: Options,
    /// Where the binary goes; `None`: a dry run, that ends before the compile.
    pub output: Option<Output>,
}

/// Where the binary goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// A directory, made when missing, that gets `rr` (`rr.exe` for Windows).
    Directory(PathBuf),
    /// The file itself.
    File(PathBuf),
}

/// What flags say; `None` and `false` leave it to the manifest.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// `--target os/arch`.
    pub target: Option<GoTarget>,
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
}
