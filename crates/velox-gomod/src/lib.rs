//! Go modules in Rust, of use on its own: versions, go.mod, go.sum, checksums, module zips, the module cache and the
//! build information inside a binary. Knows nothing of RoadRunner.
//!
//! What is right here is what the go command does; the tests ask `golang.org/x/mod` itself.

pub mod buildinfo;
pub mod dirhash;
pub mod fetch;
pub mod goenv;
pub mod gosum;
pub mod goversion;
pub mod graph;
pub mod modcache;
pub mod modfile;
pub mod module;
pub mod modzip;
pub mod pseudo;
pub mod semver;
pub mod sumdb;
pub mod toolchain;
