//! Commands that write or change a configuration.

pub(crate) mod add;
pub(crate) mod init;
pub(crate) mod migrate;
pub(crate) mod new;
mod prompt;
pub(crate) mod remove;
pub(crate) mod session;
pub(crate) mod update;
