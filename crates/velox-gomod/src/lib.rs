//! Go modules in Rust, of use on its own: versions, go.mod, go.sum, checksums, module zips, the module cache and the
//! build information inside a binary. Knows nothing of RoadRunner.
//!
//! What is right here is what the go command does; `tests/oracle.rs` asks `golang.org/x/mod` itself.

pub mod buildinfo;
