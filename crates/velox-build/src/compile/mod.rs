//! From a workspace to a verified binary.

pub(crate) mod c_compiler;
pub(crate) mod compile_cache;
pub(crate) mod go_build;
pub(crate) mod key;
pub(crate) mod precompile;
pub(crate) mod progress;
mod source_lines;
pub(crate) mod suggestion;
pub(crate) mod verify;

/// RoadRunner's main package in the workspace.
pub(crate) const MAIN_PACKAGE: &str = "./cmd/rr";
