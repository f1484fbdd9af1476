//! Where Go modules come from: module proxies, the checksum database, GOMODCACHE, and the forges (GitHub, GitLab, git).
//!
//! [`download::Fetcher`] downloads verified modules into [`modcache::ModCache`]; [`forge::RemoteRepository`] answers for
//! repositories that no proxy serves. The HTTP clients of both come from [`http::HttpOptions`].

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
