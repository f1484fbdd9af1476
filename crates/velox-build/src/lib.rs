//! The pipeline from a manifest to a RoadRunner binary.
//!
//! ```text
//! Manifest ──resolve──► Lock ──prepare──► Workspace ──compile──► Artifact ──publish──► DIR/rr
//! ```
//!
//! [`build`] runs it all, [`examine`] looks at what it needs; progress comes through a [`Reporter`]. Nothing here prints, exits or reads the process
//! environment: a [`Request`] brings everything, and what happened comes back as a [`Summary`] or an [`Error`].

mod archive;
mod cache;
mod compile;
mod compile_cache;
mod compose;
mod container;
mod digest;
mod elsewhere;
mod environment;
mod error;
mod event;
mod imports;
mod key;
mod lock;
mod network;
mod pipeline;
mod precompile;
mod process;
mod publish;
mod record;
pub mod render;
mod request;
mod resolve;
mod scratch;
mod session;
mod settings;
mod skeleton;
mod stamp;
mod store;
mod text_file;
mod toolchain;
mod tree;
mod verify;
mod workspace;

pub use cache::cache_directory;
pub use compile_cache::serve_compile_cache;
pub use elsewhere::{Elsewhere, Exact, LockFate, Receiving, Settled};
pub use environment::{BuildEnvironment, GoInstallation, ProgramOutput};
pub use error::{Error, ErrorKind, Fault};
pub use event::{Binary, CompileCache, Event, Note, Phase, PluginRow, Raised, Reporter, Summary};
pub use lock::{
    Lock, Locked, LockedPlugin, LockedReplacement, LockedRoadRunner, LockedTarget, Selected, Variant,
    carried_over, locked, locked_go_version,
};
pub use network::http_client;
pub use pipeline::build;
pub use record::Record;
pub use request::{Goal, Options, Output, Request};
pub use resolve::{
    RoadRunnerRelease, module_in,
    versions::{MajorVersions, Versions},
};
pub use session::{LockStatus, QuerySession, ResolvedModules, VersionSubject};
pub use skeleton::Skeleton;
pub use stamp::Stamp;
pub use store::{Contents, DEFAULT_LIMIT, Store};
pub use text_file::write_text;
pub use workspace::Workspace;
