//! Module proxies (<https://go.dev/ref/mod#module-proxy>): the GOPROXY list, credentials, and the client.

mod client;
mod list;
mod netrc;

pub use self::{
    client::redirect_policy,
    list::{ParseProxyListError, ProxyList},
    netrc::Netrc,
};
pub(crate) use self::{
    client::{ProxyClient, ProxyError, module_file, proxy_host, text},
    list::ProxySource,
};
