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
mod doctor;
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
mod request;
mod resolve;
mod scratch;
mod settings;
mod skeleton;
mod stamp;
mod store;
mod toolchain;
mod tree;
mod verify;
mod workspace;

pub use cache::cache_directory;
pub use compile_cache::serve_compile_cache;
pub use doctor::{Finding, State, examine};
pub use error::{Error, ErrorKind};
pub use event::{Binary, CompileCache, Event, Note, Phase, PluginRow, Raised, Reporter, Summary};
pub use lock::{Lock, LockedPlugin, LockedReplacement, LockedRoadRunner, LockedTarget, Selected, Variant};
pub use pipeline::build;
pub use request::{Goal, Options, Output, Request};
pub use resolve::module_in;
pub use skeleton::Skeleton;
pub use stamp::Stamp;
pub use store::{Contents, DEFAULT_LIMIT, Store};
pub use workspace::Workspace;
