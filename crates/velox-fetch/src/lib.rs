//! Sources of Go modules: module proxies, the checksum database, GOMODCACHE and forges (GitHub, GitLab, git).
//!
//! [`download::Fetcher`] downloads verified modules into [`modcache::ModCache`], [`forge::RemoteRepository`]
//! reads from repositories directly. [`http::HttpOptions`] configures the HTTP clients of both.

pub mod download;
pub mod forge;
pub mod goenv;
pub mod http;
pub mod modcache;
pub mod probe;
pub mod proxy;
mod redact;
pub mod sumdb;
pub mod toolchain;

pub use redact::Redactor;
