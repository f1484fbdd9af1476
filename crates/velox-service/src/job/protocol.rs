//! The messages between the service and a job, a line of JSON each.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use velox_api::{BuildFailure, BuildSpec, LogEntry};

use crate::build::BuildResult;

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct JobTask {
    pub(super) spec: BuildSpec,
    /// Whether to compile even if the binary is cached.
    pub(super) force: bool,
    /// The job's own directory.
    pub(super) directory: PathBuf,
    /// The memory limit in bytes.
    pub(super) memory: u64,
    /// The disk limit in bytes.
    pub(super) disk: u64,
    /// The port of the egress proxy.
    pub(super) port: u16,
}

/// A message of a job.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum JobMessage {
    Entry(LogEntry),
    Made {
        made: Box<BuildResult>,
        /// The path of the binary.
        file: PathBuf,
    },
    Failed(BuildFailure),
}
