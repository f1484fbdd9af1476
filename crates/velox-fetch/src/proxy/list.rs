//! The list of module proxies in GOPROXY (<https://go.dev/ref/mod#environment-variables>).

use url::Url;

/// A parsed GOPROXY.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyList(Vec<ProxyEntry>);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProxyEntry {
    pub(crate) source: ProxySource,
    /// Followed by `|`: any error falls through to the next entry, not only 404 and 410.
    pub(crate) after_any_error: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ProxySource {
    /// `https://`, `http://` or `file://`.
    Proxy(Url),
    /// `direct`: the version control system, which only the go command accesses.
    Direct,
    /// `off`: no downloads.
    Off,
}

/// An invalid GOPROXY.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseProxyListError {
    /// No entries.
    #[error("invalid GOPROXY: no entries")]
    Empty,
    /// An entry isn't a proxy URL. It isn't shown because it may contain a password.
    #[error("invalid GOPROXY: entry {number} is neither an https, http or file URL nor `direct` or `off`")]
    Entry {
        /// The entry's number, from 1.
        number: usize,
    },
}

impl ProxyList {
    /// Parses the value of `go env GOPROXY`.
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
                entry => Url::parse(entry)
                    .ok()
                    .filter(|url| matches!(url.scheme(), "https" | "http" | "file"))
                    .map(ProxySource::Proxy)
                    .ok_or(ParseProxyListError::Entry { number })?,
            };
            let last = matches!(source, ProxySource::Direct | ProxySource::Off);
            entries.push(ProxyEntry { source, after_any_error });
            if last {
                // Entries after `direct` and `off` are never used.
                break;
            }
        }
        if entries.is_empty() { Err(ParseProxyListError::Empty) } else { Ok(Self(entries)) }
    }

    pub(crate) fn entries(&self) -> &[ProxyEntry] {
        &self.0
    }

    /// Whether it is a single `file://` proxy, which needs no checksum database.
    pub(crate) fn is_local_directory(&self) -> bool {
        matches!(self.0.as_slice(), [ProxyEntry { source: ProxySource::Proxy(url), .. }] if url.scheme() == "file")
    }

    /// The proxies, each with whether any error falls through to the next one, not only 404 and 410.
    pub fn proxies(&self) -> impl Iterator<Item = (&Url, bool)> {
        self.0.iter().filter_map(|entry| match &entry.source {
            ProxySource::Proxy(url) => Some((url, entry.after_any_error)),
            ProxySource::Direct | ProxySource::Off => None,
        })
    }

    /// Whether there is at least one proxy.
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
    fn an_invalid_entry_is_not_shown() {
        assert_eq!(ProxyList::parse(""), Err(ParseProxyListError::Empty));
        assert_eq!(ProxyList::parse(",,"), Err(ParseProxyListError::Empty));
        let wrong = ProxyList::parse("https://a.example,ftp://user:secret@b").unwrap_err();
        assert_eq!(wrong, ParseProxyListError::Entry { number: 2 });
        assert!(!wrong.to_string().contains("secret"));
    }

    proptest! {
        #[test]
        fn no_input_panics(text in ".{0,100}") {
            let _ = ProxyList::parse(&text);
        }
    }
}
