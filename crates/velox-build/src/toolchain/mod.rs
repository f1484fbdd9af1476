//! The Go toolchain: installed, or downloaded as a module.

mod go_command;
mod go_env;
mod policy;
mod select;

pub(crate) use self::{
    go_command::{ModuleMode, Toolchain},
    go_env::GoSettings,
    select::{InstalledGo, Toolchains},
};
