//! The query commands, the command line and the documentation.

#![allow(clippy::unwrap_used)]

#[path = "../support"]
mod support {
    pub mod book;
    pub mod sandbox;
    pub mod validators;
    pub mod vulnerabilities;
}

mod audit;
mod command_line;
mod diff;
mod docs;
mod doctor;
mod plugin_graph;
mod queries;
mod renovate;
mod rr_config;
mod shell;
mod size;
