use std::{
    fmt,
    path::PathBuf,
    time::{Duration, Instant},
};

use serde::Serialize;
use velox_manifest::{Diagnostic, GoTarget};

use crate::error::Error;

/// The stages of a build, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Refs become versions.
    Resolve,
    /// Modules are downloaded and verified.
    Fetch,
    /// The source tree is written.
    Prepare,
    /// `go build`, without the link.
    Compile,
    /// The linker runs.
    Link,
    /// Build information read back, smoke test.
    Verify,
    /// The binary is put where the user wants it.
    Publish,
}

impl Phase {
    /// Its name in events, and in a service's log.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Resolve => "resolve",
            Self::Fetch => "fetch",
            Self::Prepare => "prepare",
            Self::Compile => "compile",
            Self::Link => "link",
            Self::Verify => "verify",
            Self::Publish => "publish",
        }
    }
}

/// One line of the resolved table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PluginRow {
    /// The user's name for it (`informer` and `resetter` where vx added them).
    pub name: String,
    /// Module path.
    pub module: String,
    /// What the configuration asked for.
    pub asked: String,
    /// The exact version that is compiled in; `None` for a local directory.
    pub version: Option<String>,
    /// The full commit id, where it is known.
    pub commit: Option<String>,
    /// What replaces it: a module with its version, or a directory.
    pub replacement: Option<String>,
    /// Whether vx added it (every server needs informer and resetter).
    pub added: bool,
}

/// A plugin that Go's minimal version selection raised above the version asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RaisedPlugin {
    /// The user's name for it.
    pub name: String,
    /// Module path.
    pub module: String,
    /// The version that the configuration names.
    pub asked: String,
    /// The version that is compiled in.
    pub selected: String,
    /// The modules (`path@version`) whose go.mod demands it.
    pub demanded_by: Vec<String>,
}

impl fmt::Display for RaisedPlugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, selected, asked, demanded_by, .. } = self;
        write!(f, "`{name}` is compiled at {selected}, not {asked} as asked")?;
        match demanded_by.as_slice() {
            [] => Ok(()),
            modules => write!(f, ": demanded by {}", modules.join(", ")),
        }
    }
}

/// Something worth a line, but no warning.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Note {
    /// The forge's rate limit is used up; vx waits for it.
    RateLimitWait {
        /// The forge's host.
        host: String,
        /// How long, in whole seconds.
        seconds: u64,
    },
    /// A module's tree came from a forge: no checksum database can confirm it, its first use is trusted.
    TrustedOnFirstUse {
        /// `path@version`.
        module: String,
        /// Its `h1:` sum.
        sum: String,
    },
    /// The workspace was kept (`--keep-workspace`).
    WorkspaceKept {
        /// Where it is.
        path: PathBuf,
    },
    /// Anything else, as a sentence.
    Text {
        /// The sentence.
        text: String,
    },
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RateLimitWait { host, seconds } => {
                write!(f, "waiting {seconds}s: the rate limit of {host} is used up")
            }
            Self::TrustedOnFirstUse { module, sum } => {
                write!(f, "no checksum database knows {module}; its first use is trusted ({sum})")
            }
            Self::WorkspaceKept { path } => write!(f, "the workspace is kept in {}", path.display()),
            Self::Text { text } => f.write_str(text),
        }
    }
}

/// What a [`Reporter`] is told.
#[derive(Debug, Clone)]
pub enum Event {
    /// A phase began.
    Started(Phase),
    /// A phase ended well.
    Finished(Phase, Duration),
    /// Something within a phase went on: `done` of `total` (`None`: not known yet), and the thing itself
    /// (a plugin's name, a module, a package).
    Progress {
        /// The phase it belongs to.
        phase: Phase,
        /// How many are done.
        done: u64,
        /// Of how many.
        total: Option<u64>,
        /// The latest one.
        item: String,
        /// How many bytes came over the network for it, in this phase so far; `None`: that isn't known here.
        bytes: Option<u64>,
    },
    /// Everything has a version now.
    Resolved {
        /// RoadRunner's module path.
        roadrunner: String,
        /// Its version.
        version: String,
        /// The plugins, sorted by name.
        plugins: Vec<PluginRow>,
    },
    /// A plugin was raised (a warning; with `--strict` an error instead).
    Raised(RaisedPlugin),
    /// A warning with a place in the configuration.
    Warning(Diagnostic),
    /// Something worth a line.
    Note(Note),
    /// A line that a child command (go, git) printed; for `-v`. Secrets are already redacted.
    Output {
        /// The program's name.
        program: &'static str,
        /// The line.
        line: String,
    },
}

/// Watches a build. Called from any thread; must not block for long.
pub trait Reporter: Send + Sync {
    /// Something happened.
    fn report(&self, event: Event);
}

/// What a finished build made.
#[derive(Debug, Clone, Serialize)]
pub struct BuildSummary {
    /// RoadRunner's module path.
    pub roadrunner: String,
    /// RoadRunner's exact version.
    pub version: String,
    /// The plugins, sorted by name.
    pub plugins: Vec<PluginRow>,
    /// What was raised.
    pub raised: Vec<RaisedPlugin>,
    /// The targets.
    #[serde(serialize_with = "as_os_arch")]
    pub targets: Vec<GoTarget>,
    /// The Go version that compiled it (`go1.26.8`).
    pub go_version: String,
    /// `internal/meta.version` in the binary.
    pub stamp_version: String,
    /// `internal/meta.buildTime` in the binary.
    pub stamp_time: String,
    /// The composed go.mod.
    pub go_mod: String,
    /// The lock that says all this; `None`: there is no place for one.
    pub lock: Option<PathBuf>,
    /// What was made, for each target; nothing where the goal comes before.
    pub binaries: Vec<BuiltBinary>,
    /// What the compile cache did, where one took part.
    pub compile_cache: Option<CompileCacheStats>,
}

/// A binary that a build left.
#[derive(Debug, Clone, Serialize)]
pub struct BuiltBinary {
    /// What it was compiled for, `os/arch`.
    pub target: String,
    /// Where it is.
    pub path: PathBuf,
    /// Its size in bytes.
    pub size: u64,
    /// Its SHA-256, in hexadecimal.
    pub sha256: String,
    /// Whether it was there already, made from the very same input.
    pub reused: bool,
    /// The release archive around it (`--archive`).
    pub archive: Option<PathBuf>,
}

/// What the compile cache that a team shares did for a build.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct CompileCacheStats {
    /// Answers from this machine's own GOCACHE.
    pub local_hits: u64,
    /// Answers from the remote.
    pub remote_hits: u64,
    /// What had to be compiled.
    pub misses: u64,
    /// Bytes that came from the remote, as they were sent.
    pub bytes_down: u64,
    /// Bytes that went there.
    pub bytes_up: u64,
    /// Why the remote was given up or not used; `None`: it worked.
    pub trouble: Option<String>,
}

fn as_os_arch<S: serde::Serializer>(targets: &[GoTarget], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(targets.iter().map(GoTarget::to_string))
}

/// Reports the start of `phase`, runs `work`, and reports its end with the time that it took.
pub(crate) async fn phase<T>(
    reporter: &dyn Reporter,
    phase: Phase,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    reporter.report(Event::Started(phase));
    let since = Instant::now();
    let done = work.await?;
    reporter.report(Event::Finished(phase, since.elapsed()));
    Ok(done)
}
