//! Downloading modules from proxies into GOMODCACHE (<https://go.dev/ref/mod#module-cache>).

mod error;
mod fetcher;
mod request;
mod verify;
mod versions;

pub use self::{
    error::{DownloadError, ProxyAttempt},
    fetcher::Fetcher,
    request::{DownloadOptions, DownloadRequest, DownloadedModule, Verification},
};
