//! From a manifest to a [`crate::Lock`]: every ref becomes an exact module, and these become a go.mod that the go command
//! agrees with.

pub(crate) mod compose;
pub(crate) mod download;
mod fetch;
pub(crate) mod forge;
pub(crate) mod network;
pub(crate) mod packages;
mod pin;
mod plugin;
mod prefetch;
pub(crate) mod request;
mod resolver;
pub(crate) mod versions;

pub use self::plugin::module_in;
pub use self::resolver::RoadRunnerRelease;
pub(crate) use self::resolver::{Resolver, roadrunner_release};
