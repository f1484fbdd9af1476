//! Building: from a velox.toml to a binary, including failures.

#![allow(clippy::unwrap_used)]

#[path = "../support"]
mod support {
    pub mod book;
    pub mod buildah;
    pub mod release;
    pub mod sandbox;
    pub mod small_disk;
    pub mod validators;
    pub mod vulnerabilities;
}

mod action;
mod bisect;
mod built_in_plugins;
mod compile_cache;
mod compile_failures;
mod dependencies;
mod disks;
mod dockerfile;
mod environment;
mod image;
mod install;
mod interrupted;
mod killed;
mod lock;
mod manual;
mod named_modules;
mod outputs;
mod provenance;
mod proxies;
mod public_cache;
mod real_roadrunner;
mod run;
mod sbom;
mod security_update;
mod shared_binaries;
mod static_binary;
mod toolchain;
mod velox_clients;
mod verify;
mod watch;
mod with;
mod wrong_configurations;
