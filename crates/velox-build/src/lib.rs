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
mod check;
mod compile;
mod compile_cache;
mod compose;
mod container;
mod digest;
mod doctor;
mod elsewhere;
mod error;
mod event;
mod imports;
mod inquiry;
mod inspect;
mod key;
mod list;
mod lock;
mod network;
mod osv;
mod pipeline;
mod precompile;
mod process;
mod publish;
mod record;
pub mod render;
mod request;
mod resolve;
mod scratch;
mod settings;
mod skeleton;
mod stamp;
mod store;
mod study;
mod text_file;
mod toolchain;
mod tree;
mod verify;
mod versions;
mod workspace;

pub use cache::cache_directory;
pub use check::{Checked, Finding, LookedUp, Rule, check};
pub use compile_cache::serve_compile_cache;
pub use doctor::{Observation, State, examine};
pub use elsewhere::{Elsewhere, Exact, LockFate, Receiving, Settled};
pub use error::{Error, ErrorKind, Fault};
pub use event::{Binary, CompileCache, Event, Note, Phase, PluginRow, Raised, Reporter, Summary};
pub use inquiry::{Inquiry, RoadRunnerRelease, Subject};
pub use inspect::{InsideModule, Inspection, inspect};
pub use list::{ListedPlugin, PluginList, list};
pub use lock::{
    Lock, Locked, LockedPlugin, LockedReplacement, LockedRoadRunner, LockedTarget, Selected, Variant,
    carried_over, locked,
};
pub use network::http_client;
pub use osv::Vulnerability;
pub use pipeline::build;
pub use request::{Goal, Options, Output, Request};
pub use resolve::module_in;
pub use skeleton::Skeleton;
pub use stamp::Stamp;
pub use store::{Contents, DEFAULT_LIMIT, Store};
pub use study::{Demanded, Demander, StudiedModule, Study, Why, study};
pub use text_file::write_text;
pub use versions::{Major, Versions};
pub use workspace::Workspace;
