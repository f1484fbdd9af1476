//! What builds: the worker's view of a job.

use std::path::PathBuf;

use async_trait::async_trait;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use velox_api::{BuildFailure, LogEntry};

use crate::build::{Build, BuildResult};

/// What came of a run.
#[derive(Debug)]
pub enum RunOutcome {
    /// A binary, still in the job's own directory.
    Succeeded {
        /// What it is.
        made: Box<BuildResult>,
        /// Where it is.
        file: PathBuf,
        /// What it is in, and goes with.
        directory: TempDir,
    },
    /// No binary, and another try wouldn't make one.
    Failed(BuildFailure),
    /// It was cancelled.
    Cancelled,
}

/// Builds.
#[async_trait]
pub trait JobRunner: Send + Sync {
    /// Does what the build asks for, and says what goes on. Cancelling ends all its processes before it returns.
    async fn run(&self, build: &Build, log: mpsc::Sender<LogEntry>, cancel: CancellationToken) -> RunOutcome;
}
