//! One file for each command: a function from settings to an exit code.

mod add;
mod build;
mod cache;
mod check;
mod editing;
mod init;
mod inspect;
mod list;
mod migrate;
mod outdated;
mod prompt;
mod remove;
mod request;
mod search;
mod tree;
mod update;
mod version;
mod why;

pub(crate) use add::add;
pub(crate) use build::{build, fetch, lock};
pub(crate) use cache::{cache, compile_cache};
pub(crate) use check::check;
pub(crate) use init::init;
pub(crate) use inspect::inspect;
pub(crate) use list::list;
pub(crate) use migrate::migrate;
pub(crate) use outdated::outdated;
pub(crate) use remove::remove;
pub(crate) use search::search;
pub(crate) use tree::tree;
pub(crate) use update::update;
pub(crate) use version::version;
pub(crate) use why::why;
