//! Go module formats: versions, go.mod, go.sum, `h1:` checksums, module zips, build information of binaries.
//!
//! The crate has no network access. The tests compare its results with `golang.org/x/mod`.

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
