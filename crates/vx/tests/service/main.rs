//! The build service and its clients.

#![allow(clippy::unwrap_used)]

#[path = "../support"]
mod support {
    pub mod book;
    pub mod browser;
    pub mod collector;
    pub mod sandbox;
    pub mod service;
    pub mod small_disk;
    pub mod vulnerabilities;
}

mod cluster;
mod documents;
mod migrating_from_velox;
mod page;
mod remote;
mod server;
mod server_crash;
mod server_safety;
mod velox_clients;
