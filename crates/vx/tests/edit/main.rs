//! The commands that create or change a velox.toml.

#![allow(clippy::unwrap_used)]

#[path = "../support"]
mod support {
    pub mod sandbox;
}

mod constraints;
mod editing;
mod generations;
mod init;
mod new_plugin;
mod upgrade;
mod velox_configurations;
