//! The build service's API: the requests, the responses and a client.
//!
//! ```text
//!   BuildSpec        what to build: RoadRunner, plugins, target, options; its key
//!   SubmitRequest    the body of `POST /v1/builds`
//!   BuildView        a build in responses, with its links
//!   LogEntry         a line of a build's log
//!   Problem          an error, as `application/problem+json`
//!   ServiceClient    submits, follows, cancels, downloads
//! ```

mod build;
pub mod client;
mod clock;
mod manifest;
mod spec;
mod view;

pub use build::{
    ArtifactInfo, BuildFailure, BuildId, BuildState, FailureKind, LogEntry, QueuePosition, Severity,
};
pub use clock::now;
pub use manifest::{unsupported_sources, with_module_paths};
pub use spec::{BuildSpec, ModuleVersionSpec, PluginSpec, ReplaceSpec, Violation};
pub use view::{ArtifactView, BuildLinks, BuildView, Problem, SubmitRequest, artifact_path};
