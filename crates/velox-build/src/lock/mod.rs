//! `velox.lock`: the exact versions that a binary is compiled from.

mod carry_over;
mod file;
mod format;
mod model;
mod release;
mod requested;
mod required;
mod unrequested;
mod unused;

pub use self::{
    carry_over::{LockedVersions, carry_over_lock, locked_go_version, locked_versions},
    model::{
        Lock, LockedPlugin, LockedReplacement, LockedRoadRunner, LockedTarget, SelectedModule, TargetVariant,
    },
};
pub(crate) use self::{
    file::LockFile,
    model::{is_commit, replacement_of, source_of},
    release::ReleaseModules,
    requested::{RequestedVersions, go_setting},
    unused::unused_directives,
};
