use std::{
    fmt,
    path::PathBuf,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use velox_manifest::{Diagnostic, GoTarget};

use crate::{error::Error, go_variables::GoVariable, stamp::StampSource};

/// The phases of a build, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Resolving refs to versions.
    Resolve,
    /// Downloading and verifying modules.
    Fetch,
    /// Writing the source tree.
    Prepare,
    /// Reading packages, which compiles those that the build cache lacks.
    Read,
    /// `go build` without the link.
    Compile,
    /// The linker.
    Link,
    /// Checking the build information; the smoke test.
    Verify,
    /// Writing to the output directory.
    Publish,
    /// Making the container image.
    Image,
    /// Pushing the container image.
    Push,
}

impl Phase {
    /// The name in events and logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Resolve => "resolve",
            Self::Fetch => "fetch",
            Self::Prepare => "prepare",
            Self::Read => "read",
            Self::Compile => "compile",
            Self::Link => "link",
            Self::Verify => "verify",
            Self::Publish => "publish",
            Self::Image => "image",
            Self::Push => "push",
        }
    }
}

/// A plugin in reports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PluginRow {
    /// The user's name for it (`informer` and `resetter` for added plugins).
    pub name: String,
    /// Module path.
    pub module: String,
    /// The requested ref.
    pub asked: String,
    /// The exact version; `None` for a local directory.
    pub version: Option<String>,
    /// The full commit id, if known.
    pub commit: Option<String>,
    /// The replacement: a module with its version, or a directory.
    pub replacement: Option<String>,
    /// Whether vx added it (every binary has informer and resetter).
    pub added: bool,
}

/// A plugin that minimal version selection raised above the requested version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RaisedPlugin {
    /// The user's name for it.
    pub name: String,
    /// Module path.
    pub module: String,
    /// The requested version.
    pub asked: String,
    /// The compiled version.
    pub selected: String,
    /// The modules (`path@version`) that require it.
    pub demanded_by: Vec<String>,
}

impl fmt::Display for RaisedPlugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, selected, asked, demanded_by, .. } = self;
        write!(f, "`{name}` was requested at {asked}, but {selected} is compiled")?;
        match demanded_by.as_slice() {
            [] => Ok(()),
            modules => write!(f, ": required by {}", modules.join(", ")),
        }
    }
}

/// A module below RoadRunner's own version of it, since an older plugin doesn't compile with that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoweredModule {
    /// The user's name for the plugin.
    pub plugin: String,
    /// Module path.
    pub module: String,
    /// RoadRunner's version.
    pub from: String,
    /// The compiled version.
    pub to: String,
}

/// A message below the level of a warning.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Note {
    /// The rate limit of a forge is exceeded; vx waits.
    RateLimitWait {
        /// The forge's host.
        host: String,
        /// Seconds to wait.
        seconds: u64,
    },
    /// A module from a forge, which no checksum database can verify.
    TrustedOnFirstUse {
        /// `path@version`.
        module: String,
        /// Its `h1:` sum.
        sum: String,
    },
    /// The workspace was kept (`--keep-workspace`).
    WorkspaceKept {
        /// Its directory.
        path: PathBuf,
    },
    /// Any other message.
    Text {
        /// The message.
        text: String,
    },
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RateLimitWait { host, seconds } => {
                write!(f, "rate limit exceeded for {host}; waiting {seconds}s")
            }
            Self::TrustedOnFirstUse { module, sum } => {
                write!(f, "{module} trusted on first use: no checksum database has it ({sum})")
            }
            Self::WorkspaceKept { path } => write!(f, "workspace kept in {}", path.display()),
            Self::Text { text } => f.write_str(text),
        }
    }
}

/// An event of a build.
#[derive(Debug, Clone)]
pub enum Event {
    /// A phase started.
    Started(Phase),
    /// A phase succeeded.
    Finished(Phase, Duration),
    /// Progress within a phase.
    Progress {
        /// The phase.
        phase: Phase,
        /// The number of finished items.
        done: u64,
        /// The total number, if known.
        total: Option<u64>,
        /// The latest item: a plugin, a module or a package.
        item: String,
        /// Bytes downloaded in this phase so far, if known.
        bytes: Option<u64>,
    },
    /// All versions are resolved.
    Resolved {
        /// RoadRunner's module path.
        roadrunner: String,
        /// Its version.
        version: String,
        /// The plugins, sorted by name.
        plugins: Vec<PluginRow>,
    },
    /// A plugin was raised (with `--strict` an error instead).
    Raised(RaisedPlugin),
    /// A warning about the configuration.
    Warning(Diagnostic),
    /// A message.
    Note(Note),
    /// A line of a child process (go, git), without secrets.
    Output {
        /// The program's name.
        program: &'static str,
        /// The line.
        line: String,
    },
}

impl Event {
    /// A message.
    #[must_use]
    pub fn note(text: String) -> Self {
        Self::Note(Note::Text { text })
    }

    pub(crate) fn progress(phase: Phase, done: u64, total: Option<u64>, item: String) -> Self {
        Self::Progress { phase, done, total, item, bytes: None }
    }
}

/// Receives the events of a build, from any thread. Must not block for long.
pub trait Reporter: Send + Sync {
    /// Receives an event.
    fn report(&self, event: Event);
}

/// Discards all events.
pub struct SilentReporter;

impl Reporter for SilentReporter {
    fn report(&self, _: Event) {}
}

/// The result of a build.
#[derive(Debug, Clone, Serialize)]
pub struct BuildSummary {
    /// RoadRunner's module path.
    pub roadrunner: String,
    /// RoadRunner's exact version.
    pub version: String,
    /// RoadRunner's full commit id, if it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// The plugins, sorted by name.
    pub plugins: Vec<PluginRow>,
    /// The raised plugins.
    pub raised: Vec<RaisedPlugin>,
    /// The lowered modules.
    pub lowered: Vec<LoweredModule>,
    /// The targets.
    #[serde(serialize_with = "as_os_arch")]
    pub targets: Vec<GoTarget>,
    /// The Go variables that decided about the binaries.
    pub variables: Vec<GoVariable>,
    /// The Go version (`go1.26.8`).
    pub go_version: String,
    /// `internal/meta.version` in the binary.
    pub stamp_version: String,
    /// Where it is from.
    pub stamp_version_source: StampSource,
    /// `internal/meta.buildTime` in the binary.
    pub stamp_time: String,
    /// Where it is from.
    pub stamp_time_source: StampSource,
    /// The composed go.mod.
    pub go_mod: String,
    /// The lock file; `None`: there is none.
    pub lock: Option<PathBuf>,
    /// The binaries; empty unless the goal is a build.
    pub binaries: Vec<BuiltBinary>,
    /// Their signed provenance (`--attestation`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attestation: Option<PathBuf>,
    /// The use of the shared caches.
    pub compile_cache: Option<CompileCacheStats>,
    /// The container image of the binaries (`--image`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<BuiltImage>,
}

/// A container image.
#[derive(Debug, Clone, Serialize)]
pub struct BuiltImage {
    /// The digest of the manifest, or of the index of several targets: `sha256:…`.
    pub digest: String,
    /// Its platforms, such as `linux/arm64`.
    pub platforms: Vec<String>,
    /// Size of all layers and configurations in bytes.
    pub size: u64,
    /// Its names, `REGISTRY/REPOSITORY:TAG`.
    pub names: Vec<String>,
    /// Whether it was pushed to these names.
    pub pushed: bool,
    /// Digests of the manifests that refer to it in the registry: bills of materials, the provenance.
    pub referrers: Vec<String>,
    /// The OCI layout or the archive (`--image-output`).
    pub output: Option<PathBuf>,
}

/// A published binary.
#[derive(Debug, Clone, Serialize)]
pub struct BuiltBinary {
    /// Its target, `os/arch`.
    pub target: String,
    /// Its path.
    pub path: PathBuf,
    /// Size in bytes.
    pub size: u64,
    /// SHA-256, in hexadecimal.
    pub sha256: String,
    /// Whether the artifact store had it.
    pub reused: bool,
    /// The release archive around it (`--archive`).
    pub archive: Option<PathBuf>,
    /// Its bills of materials (`--sbom`).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sboms: Vec<PathBuf>,
}

/// Statistics of the shared caches.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct CompileCacheStats {
    /// Finished binaries from a remote cache.
    pub binaries: u64,
    /// Hits in the local GOCACHE.
    pub local_hits: u64,
    /// Hits in the remote caches.
    pub remote_hits: u64,
    /// Packages that were compiled.
    pub misses: u64,
    /// Bytes downloaded from the remote caches.
    pub bytes_down: u64,
    /// Bytes uploaded to the first one.
    pub bytes_up: u64,
    /// Why a remote cache was not used, or only in part.
    pub trouble: Option<String>,
}

fn as_os_arch<S: serde::Serializer>(targets: &[GoTarget], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(targets.iter().map(GoTarget::to_string))
}

/// Reports the start and the end of `phase` around `work`.
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
