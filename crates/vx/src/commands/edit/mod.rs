//! Commands that create or edit a configuration or a plugin.

pub(crate) mod add;
pub(crate) mod init;
pub(crate) mod migrate;
mod migrate_to;
pub(crate) mod new;
mod prompt;
pub(crate) mod remove;
mod security;
mod select;
pub(crate) mod session;
pub(crate) mod update;
pub(crate) mod upgrade;
