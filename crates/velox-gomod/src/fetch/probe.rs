//! Whether the sources of modules can be reached, without fetching anything.

use reqwest::Client;

use super::{Failure, Netrc, Proxies, ProxyList, SumDb, goproxy::Source, host};

/// How one entry of GOPROXY answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// The proxy's host, or its folder.
    pub name: String,
    /// Why it can't be asked for modules.
    pub trouble: Option<String>,
    /// Whether the go command goes on to the next entry after such a failure (`|`).
    pub passed_over: bool,
}

/// Asks every proxy of GOPROXY for the versions of `module`; that it doesn't know that one is an answer too.
pub async fn probe_proxies(client: &Client, list: &ProxyList, netrc: &Netrc, module: &str) -> Vec<Probe> {
    let proxies = Proxies::new(client, list, netrc);
    let mut probes = Vec::new();
    for entry in &list.0 {
        let Source::Proxy(proxy) = &entry.source else { continue };
        let missing = proxy.scheme() == "file" && !proxy.to_file_path().is_ok_and(|folder| folder.is_dir());
        let trouble = if missing {
            Some("there is no such directory".to_owned())
        } else {
            match proxies.read(proxy, &format!("{module}/@v/list")).await {
                Ok(_) | Err(Failure::NotFound(_)) => None,
                Err(failure) => Some(failure.to_string()),
            }
        };
        probes.push(Probe { name: host(proxy), trouble, passed_over: entry.after_any_error });
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
    database: &SumDb,
) -> Result<String, (String, String)> {
    let proxies = Proxies::new(client, list, netrc);
    let base = database.base(&proxies).await.map_err(|why| (database.name().to_owned(), why))?;
    match proxies.read(&base, "latest").await {
        Ok(_) => Ok(host(&base)),
        Err(failure) => Err((host(&base), failure.to_string())),
    }
}
