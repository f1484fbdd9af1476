//! The build service: RoadRunner binaries on demand.
//!
//! ```text
//!   REST, Connect, gRPC, web page
//!              │
//!              ▼
//!   Service ── BuildSpec (the request, and its key) ── BuildPolicy (what requests may contain)
//!      │
//!      ├── BuildStore       builds, logs and the queue   SQLite, or NATS JetStream
//!      └── ArtifactBucket   the binaries                 a directory, or an object store
//!      │
//!   Worker ── a job: a child process with limits that runs velox_build::build
//! ```
//!
//! Identical requests share one build. An accepted request is stored before the response is sent, so that it
//! survives the failure of a node or worker.

mod artifacts;
pub mod auth;
mod build;
mod catalogue;
mod documents;
mod egress;
mod error;
#[doc(hidden)]
pub mod fuzzing;
mod http;
pub mod job;
mod options;
mod page;
mod policy;
mod rate;
mod readiness;
mod releases;
mod retention;
mod router;
mod runner;
mod serve;
mod service;
mod store;
mod stores;
pub mod telemetry;
mod vulnerabilities;
mod work;
mod worker;
mod worker_status;

pub use artifacts::ArtifactBucket;
pub use auth::TokenScope;
pub use build::{Build, BuildDocuments, BuildOutcome, BuildResult, NewBuild, Tenant};
pub use http::tls::TlsError;
pub use options::{BuildPolicy, ClusterOptions, JobLimits, Retention, ServiceOptions, TlsOptions};
pub use runner::{JobRunner, RunOutcome};
pub use serve::{ServeError, serve};
pub use store::StoreError;
pub use work::work;

#[cfg(test)]
mod tests;

/// The code generated from the protobuf files.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::unwrap_used)]
mod proto {
    connectrpc::include_generated!();
}
