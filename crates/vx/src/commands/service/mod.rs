//! Commands of the build service.

pub(crate) mod job;
mod options;
pub(crate) mod server;
pub(crate) mod token;
pub(crate) mod worker;
