//! The commands that change a velox.toml or begin one.

#![allow(clippy::unwrap_used)]

#[path = "../support"]
mod support {
    pub mod sandbox;
}

mod editing;
mod init;
mod new_plugin;
