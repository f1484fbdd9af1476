//! One file for each command: a function from settings to an exit code.

mod build;
mod version;

pub(crate) use build::build;
pub(crate) use version::version;
