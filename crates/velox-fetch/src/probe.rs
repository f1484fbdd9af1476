//! Whether the sources of modules can be reached, without fetching anything.

use reqwest::Client;

use crate::{
    proxy::{Netrc, ProxyClient, ProxyError, ProxyList, ProxySource, proxy_host},
    sumdb::SumDbConfig,
};

/// How one entry of GOPROXY answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyProbe {
    /// The proxy's host, or its folder.
    pub name: String,
    /// Why it can't be asked for modules.
    pub trouble: Option<String>,
    /// Whether the go command goes on to the next entry after such a failure (`|`).
    pub passed_over: bool,
}

/// Asks every proxy of GOPROXY for the versions of `module`; that it doesn't know that one is an answer too.
pub async fn probe_proxies(
    client: &Client,
    list: &ProxyList,
    netrc: &Netrc,
    module: &str,
) -> Vec<ProxyProbe> {
    let proxies = ProxyClient::new(client, list, netrc);
    let mut probes = Vec::new();
    for entry in &list.0 {
        let ProxySource::Proxy(proxy) = &entry.source else { continue };
        let missing = proxy.scheme() == "file" && !proxy.to_file_path().is_ok_and(|folder| folder.is_dir());
        let trouble = if missing {
            Some("there is no such directory".to_owned())
        } else {
            match proxies.read(proxy, &format!("{module}/@v/list")).await {
                Ok(_) | Err(ProxyError::NotFound(_)) => None,
                Err(failure) => Some(failure.to_string()),
            }
        };
        probes.push(ProxyProbe { name: proxy_host(proxy), trouble, passed_over: entry.after_any_error });
    }
    probes
}

/// Asks the checksum database for its newest tree, by the way that the go command would take: the host that answered.
///
/// # Errors
/// The host that was asked, and why it doesn't answer.
pub async fn probe_sum_db(
    client: &Client,
    list: &ProxyList,
    netrc: &Netrc,
    database: &SumDbConfig,
) -> Result<String, (String, String)> {
    let proxies = ProxyClient::new(client, list, netrc);
    let base = database.base(&proxies).await.map_err(|why| (database.name().to_owned(), why))?;
    match proxies.read(&base, "latest").await {
        Ok(_) => Ok(proxy_host(&base)),
        Err(failure) => Err((proxy_host(&base), failure.to_string())),
    }
}
