//! From a manifest to a [`crate::Lock`]: refs are resolved to exact modules and composed into a go.mod, from
//! which the go command selects versions.

mod compose;
mod constraint;
mod directives;
pub(crate) mod download;
mod fetch;
mod forge;
mod held_back;
pub(crate) mod majors;
pub(crate) mod packages;
mod pin;
mod plugin;
mod prefetch;
mod resolution;
mod resolved;
mod resolver;
pub(crate) mod versions;

pub use self::plugin::module_in;
pub use self::resolution::RoadRunnerRelease;
pub(crate) use self::resolver::Resolver;
