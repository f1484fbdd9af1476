//! Commands that build binaries or manage caches.

pub(crate) mod bisect;
#[allow(clippy::module_inception)]
pub(crate) mod build;
pub(crate) mod cache;
pub(crate) mod compile_cache;
pub(crate) mod fetch;
mod image;
pub(crate) mod lock;
mod public_caches;
mod publish_cache;
mod remote;
pub(crate) mod run;
pub(super) mod sign_key;
pub(crate) mod verify;
pub(crate) mod watch;
