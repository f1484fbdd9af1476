//! The worker's interface to jobs.

use std::path::PathBuf;

use async_trait::async_trait;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use velox_api::{BuildFailure, LogEntry};

use crate::build::{Build, BuildResult};

/// The outcome of a job.
#[derive(Debug)]
pub enum RunOutcome {
    /// A binary in the job's directory.
    Succeeded {
        /// The result.
        made: Box<BuildResult>,
        /// The path of the binary.
        file: PathBuf,
        /// The directory of the binary, removed on drop.
        directory: TempDir,
    },
    /// The build failed.
    Failed(BuildFailure),
    /// The job was cancelled.
    Cancelled,
}

/// Runs builds.
#[async_trait]
pub trait JobRunner: Send + Sync {
    /// Runs the build and sends its log. Once cancelled, returns after all its processes have exited.
    async fn run(&self, build: &Build, log: mpsc::Sender<LogEntry>, cancel: CancellationToken) -> RunOutcome;
}
