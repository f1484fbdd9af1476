//! A PHP worker for the real RoadRunner's http plugin.

use std::{fs, io, path::Path};

use crate::RunningRoadRunner;

/// `worker.php`: answers every request with `hello from PHP` and the major version.
pub const WORKER: &str = include_str!("../worker/worker.php");

/// `.rr.yaml` for a server with the plugins http, server, rpc and logger, and [`WORKER`] beside it.
pub const CONFIGURATION: &str = include_str!("../worker/rr.yaml");

/// Starts the RoadRunner `binary` in `directory` with a PHP worker.
pub fn serve(binary: &Path, directory: &Path) -> io::Result<RunningRoadRunner> {
    fs::write(directory.join("worker.php"), WORKER)?;
    RunningRoadRunner::start(binary, directory, CONFIGURATION)
}
