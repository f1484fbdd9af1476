//! One file for each command: a function from settings to an exit code.

pub(crate) mod build;
pub(crate) mod edit;
pub(crate) mod query;
pub(crate) mod service;
mod session;
pub(crate) mod shell;
pub(crate) mod version;
