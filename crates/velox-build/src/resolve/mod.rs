//! From a manifest to a [`crate::Lock`]: refs are resolved to exact modules and composed into a go.mod, from
//! which the go command selects versions.

mod compose;
mod constraint;
pub(crate) mod directives;
pub(crate) mod download;
mod fetch;
pub(crate) mod forge;
mod held_back;
pub(crate) mod majors;
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
