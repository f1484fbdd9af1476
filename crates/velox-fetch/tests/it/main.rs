//! Proxies, the checksum database, GOMODCACHE and forges, as the testkit serves them.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod download;
mod forges;
mod goenv;
mod modcache;
mod sumdb;
