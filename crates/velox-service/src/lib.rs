//! The build service: RoadRunner servers on demand.
//!
//! ```text
//!   REST, Connect, gRPC, page          velox.toml of a client
//!              │                               │
//!              ▼                               ▼
//!   Service ── Spec (what is asked, and its key) ── Policy (what may be asked)
//!      │
//!      ├── Records    builds and their logs      SQLite      or  NATS key-value and a stream
//!      ├── Queue      who is built next          SQLite      or  NATS JetStream
//!      └── Artifacts  the binaries               a directory or  an object store
//!      │
//!   Worker ── a job: a process of its own, with limits, which runs velox_build::build and says what happens
//! ```
//!
//! Identical requests share one build. Everything that was accepted is on disk before it is answered: a node or a worker
//! that dies loses nothing.

pub mod api;
mod artifacts;
pub mod auth;
mod build;
mod caller;
mod catalogue;
pub mod client;
mod egress;
#[doc(hidden)]
pub mod fuzzing;
mod http;
pub mod job;
mod lately;
mod options;
mod page;
mod policy;
pub mod rate;
mod releases;
mod retention;
mod runner;
mod serve;
mod service;
mod spec;
mod store;
mod stores;
pub mod telemetry;
mod vitals;
mod work;
mod worker;

pub use artifacts::{Artifacts, Clears, Filed, Folder, Objects, Stored};
pub use build::{
    ArtifactInfo, Build, BuildId, Entry, Failure, FailureKind, Level, Made, NewBuild, Outcome, State, Tenant,
};
pub use caller::{Caller, Scope};
pub use catalogue::{Catalogue, CatalogueGroup, CataloguePlugin};
pub use http::tls::TlsError;
pub use lately::Lately;
pub use options::{Cluster, Limits, Options, Tls};
pub use policy::{Policy, Refusal};
pub use releases::Releases;
pub use retention::Retention;
pub use runner::{Ran, Runner};
pub use serve::{ServeError, serve};
pub use service::{Service, ServiceError, Told};
pub use spec::{Exclude, Plugin, Replace, Spec, Violation};
pub use store::{
    Depth, Forgets, JetStream, JetStreamOptions, Lease, Position, Queue, Records, Sqlite, SqliteOptions,
    Standing, StoreError, Submitted,
};
pub use work::work;
pub use worker::Worker;

/// The messages and the service of the protobuf files.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::unwrap_used)]
mod proto {
    connectrpc::include_generated!();
}
