use url::Url;

use super::note::Verifier;
use crate::proxy::{ProxyClient, ProxyErrorKind, ProxySource, proxy_host};

/// The key of sum.golang.org, which is built into the go command.
const PUBLIC_KEY: &str = "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8";

/// A parsed GOSUMDB (<https://go.dev/ref/mod#environment-variables>).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SumDbConfig {
    key: String,
    name: String,
    /// The optional URL, which bypasses the proxies.
    url: Option<Url>,
}

/// An invalid GOSUMDB.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid GOSUMDB: {0}; expected `off`, or a database's name or key, with or without a URL")]
pub struct ParseSumDbError(String);

impl SumDbConfig {
    /// Parses the value of `go env GOSUMDB`; `None` for `off`.
    pub fn parse(text: &str) -> Result<Option<Self>, ParseSumDbError> {
        if text == "off" {
            return Ok(None);
        }
        let invalid = |reason: &str| ParseSumDbError(reason.to_owned());
        let fields: Vec<_> = text.split_ascii_whitespace().collect();
        let (key, url) = match fields[..] {
            [] => return Err(invalid("empty value")),
            ["sum.golang.org", ref rest @ ..] => (PUBLIC_KEY, rest.first().copied()),
            // The mirror of the public database for mainland China.
            ["sum.golang.google.cn"] => (PUBLIC_KEY, Some("https://sum.golang.google.cn")),
            [key, ref rest @ ..] => (key, rest.first().copied()),
        };
        if fields.len() > 2 {
            return Err(invalid("more than two fields"));
        }
        let name =
            Verifier::parse(key).map_err(|error| ParseSumDbError(error.to_string()))?.name().to_owned();
        let url = url.map(Url::parse).transpose().map_err(|_| invalid("the second field is not a URL"))?;
        if Url::parse(&format!("https://{name}")).is_err() || name.ends_with('/') {
            return Err(invalid("the name is not a host"));
        }
        Ok(Some(Self { key: key.to_owned(), name, url }))
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn key(&self) -> &str {
        &self.key
    }

    /// The URL for queries: the first proxy that supports the database, or the database itself
    /// (<https://go.dev/design/25530-sumdb#proxying-a-checksum-database>).
    pub(crate) async fn base_url(&self, proxies: &ProxyClient) -> Result<Url, String> {
        if let Some(url) = &self.url {
            return Ok(url.clone());
        }
        let name = &self.name;
        let mut base = format!("https://{name}");
        for entry in proxies.list.entries() {
            let ProxySource::Proxy(proxy) = &entry.source else { break };
            match proxies.read(proxy, &format!("sumdb/{name}/supported")).await {
                Ok(_) => {
                    base = format!("{}/sumdb/{name}", proxy.as_str().trim_end_matches('/'));
                    break;
                }
                Err(error) if error.kind() == Some(ProxyErrorKind::NotFound) || entry.after_any_error => {}
                Err(error) => return Err(format!("{}: {error}", proxy_host(proxy))),
            }
        }
        Url::parse(&base).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_is_named_by_its_key_or_a_known_name() {
        assert_eq!(SumDbConfig::parse("off"), Ok(None));
        let public = SumDbConfig::parse("sum.golang.org").unwrap().unwrap();
        assert_eq!((public.name.as_str(), public.url), ("sum.golang.org", None));
        let china = SumDbConfig::parse("sum.golang.google.cn").unwrap().unwrap();
        assert_eq!(china.name, "sum.golang.org");
        assert_eq!(china.url.unwrap().host_str(), Some("sum.golang.google.cn"));
        for wrong in ["", "nonsense", "sum.golang.org https://a b", "sum.golang.org ::"] {
            assert!(SumDbConfig::parse(wrong).is_err(), "{wrong}");
        }
    }
}
