//! One file for each command: a function from settings to an exit code.

mod build;
mod cache;
mod doctor;
mod new;
mod run;
mod shell;
mod version;

pub(crate) use build::{build, fetch, lock};
pub(crate) use cache::{cache, compile_cache};
pub(crate) use doctor::doctor;
pub(crate) use new::new;
pub(crate) use run::run;
pub(crate) use shell::{completions, man, schema};
pub(crate) use version::version;
