//! The list of module proxies in GOPROXY (<https://go.dev/ref/mod#environment-variables>).

use url::Url;

/// A GOPROXY list: proxies, each asked when the ones before can't serve a module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyList(pub(crate) Vec<ProxyEntry>);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProxyEntry {
    pub(crate) source: ProxySource,
    /// Followed by `|`: the next one is asked after any error, not only after "not found".
    pub(crate) after_any_error: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ProxySource {
    /// `https://`, `http://` or `file://`.
    Proxy(Url),
    /// `direct`: the version control of the module, which only the go command can ask.
    Direct,
    /// `off`: nothing may be downloaded.
    Off,
}

/// A GOPROXY that is no list of proxies.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseProxyListError {
    /// No entry at all.
    #[error("GOPROXY has no entries")]
    Empty,
    /// An entry is no URL of a proxy. It isn't shown: it may hold a password.
    #[error("entry {number} of GOPROXY is no https, http or file URL, nor `direct` or `off`")]
    ProxyEntry {
        /// Which one, from 1.
        number: usize,
    },
}

impl ProxyList {
    /// Reads the value that `go env GOPROXY` gives.
    ///
    /// # Errors
    /// An entry that is no proxy, or no entry at all.
    pub fn parse(text: &str) -> Result<Self, ParseProxyListError> {
        let mut entries = Vec::new();
        let mut rest = text;
        let mut number = 0;
        while !rest.is_empty() {
            let end = rest.find([',', '|']).unwrap_or(rest.len());
            let (entry, after) = rest.split_at(end);
            number += 1;
            let after_any_error = after.starts_with('|');
            rest = after.get(1..).unwrap_or_default();
            let source = match entry.trim() {
                "" => continue,
                "direct" => ProxySource::Direct,
                "off" => ProxySource::Off,
                // "noproxy" is what the go command itself makes of GONOPROXY.
                entry => Url::parse(entry)
                    .ok()
                    .filter(|url| matches!(url.scheme(), "https" | "http" | "file"))
                    .map(ProxySource::Proxy)
                    .ok_or(ParseProxyListError::Entry { number })?,
            };
            let last = matches!(source, ProxySource::Direct | ProxySource::Off);
            entries.push(ProxyEntry { source, after_any_error });
            if last {
                // Nothing behind these is ever asked.
                break;
            }
        }
        if entries.is_empty() { Err(ParseProxyListError::Empty) } else { Ok(Self(entries)) }
    }

    /// Whether it is one `file://` proxy and nothing else: the files of this machine need no one to vouch for them.
    pub(crate) fn is_one_directory(&self) -> bool {
        matches!(self.0.as_slice(), [ProxyEntry { source: ProxySource::Proxy(url), .. }] if url.scheme() == "file")
    }

    /// The proxies in their order; with each comes whether the next one is asked after any error, and not only after
    /// "not found".
    pub fn proxies(&self) -> impl Iterator<Item = (&Url, bool)> {
        self.0.iter().filter_map(|entry| match &entry.source {
            ProxySource::Proxy(url) => Some((url, entry.after_any_error)),
            ProxySource::Direct | ProxySource::Off => None,
        })
    }

    /// Whether a proxy is asked at all.
    #[must_use]
    pub fn has_proxy(&self) -> bool {
        self.0.iter().any(|entry| matches!(entry.source, ProxySource::Proxy(_)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_list_ends_with_direct_or_off() {
        let list = ProxyList::parse("https://a.example,file:///b|direct,https://never.example").unwrap();
        assert_eq!(list.0.len(), 3);
        assert!(!list.0[0].after_any_error && list.0[1].after_any_error);
        assert_eq!(list.0[2].source, ProxySource::Direct);
        assert!(list.has_proxy() && !ProxyList::parse("off").unwrap().has_proxy());
    }

    #[test]
    fn what_is_no_proxy_is_told_without_showing_it() {
        assert_eq!(ProxyList::parse(""), Err(ParseProxyListError::Empty));
        assert_eq!(ProxyList::parse(",,"), Err(ParseProxyListError::Empty));
        let wrong = ProxyList::parse("https://a.example,ftp://user:secret@b").unwrap_err();
        assert_eq!(wrong, ParseProxyListError::Entry { number: 2 });
        assert!(!wrong.to_string().contains("secret"));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in ".{0,100}") {
            let _ = ProxyList::parse(&text);
        }
    }
}
