//! The pipeline from a manifest to a RoadRunner binary.
//!
//! ```text
//! Manifest ──resolve──► Lock ──prepare──► Workspace ──compile──► Artifact ──publish──► DIR/rr
//! ```
//!
//! [`build`] runs all stages and reports progress to a [`Reporter`]. This crate never prints, exits or reads
//! the process environment: a [`BuildRequest`] has all inputs.

mod artifact;
mod atomic_file;
mod cache_directory;
mod cached_modules;
mod compile;
mod context;
mod digest;
mod download_failure;
mod environment;
mod error;
mod event;
mod forges;
mod go_memory;
mod go_program;
mod go_tool;
mod go_variables;
mod imports;
mod keys;
mod licenses;
mod link_reader;
mod local_module;
mod lock;
mod module_request;
mod network;
mod package_reader;
mod pipeline;
mod plugin_template;
mod process;
mod provenance;
mod publish_cache;
mod rebase_replaces;
mod rebuild;
mod remote;
pub mod render;
mod request;
mod resolve;
mod sbom;
mod sbom_format;
mod session;
mod settings;
mod shared_artifacts;
mod shared_caches;
mod stamp;
mod targets;
mod toolchain;
mod workspace;

pub use artifact::installed::{InstalledBinary, StagedBinary};
pub use artifact::record::BuildRecord;
pub use artifact::store::{ArtifactStore, DEFAULT_STORE_LIMIT_BYTES, StoreContents};
pub use atomic_file::{AtomicFile, write_text};
pub use cache_directory::cache_directory;
pub use cached_modules::CachedModules;
pub use compile::compile_cache::serve_compile_cache;
pub use digest::of_file as file_digest;
pub use environment::{BuildEnvironment, GoInstallation};
pub use error::{Blame, Error, ErrorKind, until_cancelled};
pub use event::{
    BuildSummary, BuiltBinary, BuiltImage, CompileCacheStats, Event, LoweredModule, Note, Phase, PluginRow,
    RaisedPlugin, Reporter, SilentReporter,
};
pub use go_memory::{available_memory, garbage_collector_variables};
pub use go_tool::{GoTool, GoToolOutput};
pub use go_variables::{GoVariable, InstructionSet, target_of_environment};
pub use imports::module_of;
pub use keys::signing::{KeyPassword, SigningKey};
pub use keys::verifying::VerifyingKey;
pub use licenses::{LicenseFile, ModuleLicense};
pub use link_reader::{LinkReader, LinkedBinary};
pub use local_module::module_replacements;
pub use lock::{
    Lock, LockedPlugin, LockedReplacement, LockedRoadRunner, LockedTarget, LockedVersions, SelectedModule,
    TargetVariant, carry_over_lock, locked_go_version, locked_versions,
};
pub use network::http_client;
pub use package_reader::{PackageCheck, PackageReader, PackagesRead};
pub use pipeline::{build, build_checked, report_findings};
pub use plugin_template::PluginTemplate;
pub use process::{
    ProgramOutput,
    group::{EndSignal, ProcessGroup},
};
pub use provenance::attestation::{Attestation, AttestedBuild};
pub use provenance::{AttestedFile, attest};
pub use publish_cache::{CachePublisher, PublishedCache};
pub use rebase_replaces::rebase_replaces;
pub use rebuild::{RebuiltBinary, rebuild};
pub use remote::{LockUpdate, LockedRefs, RemoteBuild, RemoteBuildSettings};
pub use request::{
    AttestationOutput, BuildOptions, BuildRequest, CacheOptions, CompileOptions, Goal, NetworkAccess, Output,
    PublicCaches, SbomOutput, StampOptions, Upgrade, VersionOptions, WorkspaceOptions,
};
pub use resolve::{
    RoadRunnerRelease,
    majors::compare_roadrunner,
    module_in,
    versions::{MajorVersions, Versions},
};
pub use sbom::{Sbom, SbomModule, hex_of_sum, package_url};
pub use sbom_format::SbomFormat;
pub use session::{LockStatus, QuerySession, ResolvedModules, VersionSubject};
pub use stamp::{Stamp, StampSource};
pub use workspace::scratch::ScratchDirectory;
