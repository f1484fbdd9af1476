//! One file for each command: a function from settings to an exit code.

mod build;
mod cache;
mod check;
mod inspect;
mod list;
mod request;
mod search;
mod tree;
mod version;
mod why;

pub(crate) use build::{build, fetch, lock};
pub(crate) use cache::{cache, compile_cache};
pub(crate) use check::check;
pub(crate) use inspect::inspect;
pub(crate) use list::list;
pub(crate) use search::search;
pub(crate) use tree::tree;
pub(crate) use version::version;
pub(crate) use why::why;
