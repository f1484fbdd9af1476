//! Go modules as formats, of use on its own: versions, go.mod, go.sum, `h1:` sums, zips, and the build information in a
//! binary. No network, and nothing about RoadRunner.
//!
//! The go command is the reference: the tests compare every answer with `golang.org/x/mod`.

pub mod buildinfo;
pub mod dirhash;
mod gostring;
pub mod gosum;
pub mod goversion;
pub mod graph;
pub mod modfile;
pub mod module;
pub mod modzip;
pub mod pseudo;
pub mod semver;
