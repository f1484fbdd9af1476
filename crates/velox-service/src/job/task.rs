//! What the service and a job say to each other, a line of JSON each.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use velox_api::{BuildFailure, BuildSpec, LogEntry};

use crate::build::BuildResult;

/// What a job is to do.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Task {
    pub(super) spec: BuildSpec,
    /// Compile anew.
    pub(super) force: bool,
    /// The job's own directory.
    pub(super) directory: PathBuf,
    /// What its processes may use, in bytes: for its words when they did.
    pub(super) memory: u64,
    /// The port on the loopback device that is the job's way out.
    pub(super) port: u16,
}

/// What a job says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Said {
    /// What goes on.
    Entry(LogEntry),
    /// It is done.
    Made {
        made: Box<BuildResult>,
        /// Where the binary is.
        file: PathBuf,
    },
    /// It is over.
    Failed(BuildFailure),
}
