//! Reachability checks for module proxies and the checksum database.

use reqwest::Client;

use crate::{
    proxy::{
        NO_DIRECTORY, Netrc, ProxyClient, ProxyError, ProxyErrorKind, ProxyList, ProxySource, ReadError,
        proxy_host,
    },
    sumdb::SumDbConfig,
};

/// The result of probing one proxy of GOPROXY.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyProbe {
    /// The proxy's host, or the directory of a `file://` proxy.
    pub host: String,
    /// The error, if it can't serve modules.
    pub error: Option<ProxyError>,
    /// Whether the go command tries the next proxy after this error (`|`).
    pub falls_through: bool,
}

/// Requests the version list of `module` from every proxy of GOPROXY; "not found" counts as reachable.
pub async fn probe_proxies(
    client: &Client,
    list: &ProxyList,
    netrc: &Netrc,
    module: &str,
) -> Vec<ProxyProbe> {
    let proxies = ProxyClient::new(client, list, netrc);
    let mut probes = Vec::new();
    for entry in list.entries() {
        let ProxySource::Proxy(proxy) = &entry.source else { continue };
        let is_failure =
            |error: &ProxyError| error.kind != ProxyErrorKind::NotFound || error.message == NO_DIRECTORY;
        let error = match proxies.read(proxy, &format!("{module}/@v/list")).await {
            Err(ReadError::Proxy(error)) => Some(error).filter(is_failure),
            Ok(_) | Err(_) => None,
        };
        probes.push(ProxyProbe { host: proxy_host(proxy), error, falls_through: entry.after_any_error });
    }
    probes
}

/// Requests the latest tree of the checksum database, through a proxy if one supports it; returns the host.
pub async fn probe_sum_db(
    client: &Client,
    list: &ProxyList,
    netrc: &Netrc,
    config: &SumDbConfig,
) -> Result<String, (String, String)> {
    let proxies = ProxyClient::new(client, list, netrc);
    let base = config.base_url(&proxies).await.map_err(|reason| (config.name().to_owned(), reason))?;
    match proxies.read(&base, "latest").await {
        Ok(_) => Ok(proxy_host(&base)),
        Err(error) => Err((proxy_host(&base), error.to_string())),
    }
}
