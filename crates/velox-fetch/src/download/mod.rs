//! Downloading modules from module proxies into GOMODCACHE, as the go command leaves them
//! (<https://go.dev/ref/mod#goproxy-protocol>, <https://go.dev/ref/mod#module-cache>).

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
