//! Commands that build, and those of the caches.

#[allow(clippy::module_inception)]
pub(crate) mod build;
pub(crate) mod cache;
mod remote;
pub(crate) mod run;
