//! The resource limits of a job's processes.

use velox_build::ProcessGroup;

use crate::options::JobLimits;

/// Enough for a linker that opens a thousand packages.
#[cfg(target_os = "linux")]
const MAX_OPEN_FILES: u64 = 16 << 10;
/// A lower priority than the service, so that it stays responsive.
#[cfg(target_os = "linux")]
const JOB_NICENESS: i32 = 10;

/// Sets the limits that apply to each process of the group.
#[cfg(target_os = "linux")]
pub(super) fn apply(group: &ProcessGroup, limits: &JobLimits) {
    use rustix::process::{Resource, Rlimit, getrlimit, prlimit, setpriority_pgrp};
    for (resource, max) in [
        (Resource::Data, limits.memory),
        (Resource::Fsize, limits.disk),
        (Resource::Core, 0),
        (Resource::Nofile, MAX_OPEN_FILES),
    ] {
        let hard = getrlimit(resource).maximum.map_or(max, |hard| hard.min(max));
        let limit = Rlimit { current: Some(hard), maximum: Some(hard) };
        if let Err(error) = prlimit(group.id(), resource, limit) {
            tracing::warn!(?resource, %error, "failed to set a resource limit of a job");
        }
    }
    let _ = setpriority_pgrp(group.id(), JOB_NICENESS);
}

#[cfg(not(target_os = "linux"))]
pub(super) fn apply(_: &ProcessGroup, _: &JobLimits) {}
