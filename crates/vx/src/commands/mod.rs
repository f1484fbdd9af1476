//! The commands: async functions from settings and arguments to an exit status, one file each.

pub(crate) mod build;
pub(crate) mod edit;
pub(crate) mod query;
mod rr_config;
#[cfg(feature = "service")]
pub(crate) mod service;
#[cfg(not(feature = "service"))]
pub(crate) mod service_disabled;
mod session;
pub(crate) mod shell;
pub(crate) mod version;
