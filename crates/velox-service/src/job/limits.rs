//! The resource limits of a job's processes.

use super::protocol::JobTask;

/// Enough for a linker that opens a thousand packages.
#[cfg(target_os = "linux")]
const MAX_OPEN_FILES: u64 = 16 << 10;
/// A lower priority than the service, so that it stays responsive.
#[cfg(target_os = "linux")]
const JOB_NICENESS: i32 = 10;

/// Sets the limits of this process, which its child processes inherit: a service may not limit the processes of
/// another user, not even as root of a container.
#[cfg(target_os = "linux")]
pub(super) fn apply(task: &JobTask) -> Result<(), String> {
    use rustix::process::{Resource, Rlimit, getrlimit, setpriority_process, setrlimit};
    for (resource, max) in [
        (Resource::Data, task.memory),
        (Resource::Fsize, task.disk),
        (Resource::Core, 0),
        (Resource::Nofile, MAX_OPEN_FILES),
    ] {
        let hard = getrlimit(resource).maximum.map_or(max, |hard| hard.min(max));
        let limit = Rlimit { current: Some(hard), maximum: Some(hard) };
        setrlimit(resource, limit)
            .map_err(|error| format!("failed to set the resource limit {resource:?}: {error}"))?;
    }
    let _ = setpriority_process(None, JOB_NICENESS);
    Ok(())
}

#[cfg(not(target_os = "linux"))]
pub(super) fn apply(_: &JobTask) -> Result<(), String> {
    Ok(())
}
