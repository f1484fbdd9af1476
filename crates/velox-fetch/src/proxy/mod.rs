//! Module proxies (<https://go.dev/ref/mod#module-proxy>): the GOPROXY list, credentials, and the client.

mod client;
mod error;
mod list;
mod netrc;

pub use self::{
    client::redirect_policy,
    error::{ProxyError, ProxyErrorKind},
    list::{ParseProxyListError, ProxyList},
    netrc::Netrc,
};
pub(crate) use self::{
    client::{NO_DIRECTORY, ProxyClient, module_file, proxy_host},
    error::ReadError,
    list::ProxySource,
};
