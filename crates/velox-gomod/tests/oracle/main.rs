//! The answers of velox-gomod compared with those of `golang.org/x/mod` and `debug/buildinfo`.

#![allow(clippy::unwrap_used)]

mod buildinfo;
mod modules;
mod zips;
