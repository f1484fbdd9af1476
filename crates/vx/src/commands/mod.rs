//! One file for each command: a function from settings to an exit code.

mod add;
mod build;
mod cache;
mod editing;
mod migrate;
mod outdated;
mod remove;
mod request;
mod update;
mod version;

pub(crate) use add::add;
pub(crate) use build::{build, fetch, lock};
pub(crate) use cache::{cache, compile_cache};
pub(crate) use migrate::migrate;
pub(crate) use outdated::outdated;
pub(crate) use remove::remove;
pub(crate) use update::update;
pub(crate) use version::version;
