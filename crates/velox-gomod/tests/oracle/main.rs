//! velox-gomod compared with `golang.org/x/mod` and `debug/buildinfo`.

#![allow(clippy::unwrap_used)]

mod buildinfo;
mod modules;
mod zips;
