//! What builds: the worker's view of a job.

use std::path::PathBuf;

use async_trait::async_trait;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{Build, Entry, Failure, Made};

/// What came of a run.
#[derive(Debug)]
pub enum Ran {
    /// A binary, still in the job's own directory.
    Made {
        /// What it is.
        made: Box<Made>,
        /// Where it is.
        file: PathBuf,
        /// What it is in, and goes with.
        directory: TempDir,
    },
    /// No binary, and another try wouldn't make one.
    Failed(Failure),
    /// It was cancelled.
    Cancelled,
}

/// Builds.
#[async_trait]
pub trait Runner: Send + Sync {
    /// Does what the build asks for, and says what goes on. Cancelling ends all its processes before it returns.
    async fn run(&self, build: &Build, log: mpsc::Sender<Entry>, cancel: CancellationToken) -> Ran;
}
