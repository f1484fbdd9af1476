//! Tests against the testkit's proxies, checksum database and forges.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod download;
mod forges;
mod goenv;
mod modcache;
mod sumdb;
