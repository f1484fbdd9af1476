//! The list of module proxies in GOPROXY (<https://go.dev/ref/mod#environment-variables>).

use url::Url;

/// A GOPROXY list: proxies, each asked when the ones before can't serve a module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyList(pub(super) Vec<Entry>);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) source: Source,
    /// Followed by `|`: the next one is asked after any error, not only after "not found".
    pub(super) after_any_error: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    /// `https://`, `http://` or `file://`.
    Proxy(Url),
    /// `direct`: the version control of the module, which only the go command can ask.
    Direct,
    /// `off`: nothing may be downloaded.
    Off,
}

/// A GOPROXY that is no list of proxies.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProxyListError {
    /// No entry at all.
    #[error("GOPROXY has no entries")]
    Empty,
    /// An entry is no URL of a proxy. It isn't shown: it may hold a password.
    #[error("entry {number} of GOPROXY is no https, http or file URL, nor `direct` or `off`")]
    Entry {
        /// Which one, from 1.
        number: usize,
    },
}

impl ProxyList {
    /// Reads the value that `go env GOPROXY` gives.
    ///
    /// # Errors
    /// An entry that is no proxy, or no entry at all.
    pub fn parse(text: &str) -> Result<Self, ProxyListError> {
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
                "direct" => Source::Direct,
                "off" => Source::Off,
                // "noproxy" is what the go command itself makes of GONOPROXY.
                entry => Url::parse(entry)
                    .ok()
                    .filter(|url| matches!(url.scheme(), "https" | "http" | "file"))
                    .map(Source::Proxy)
                    .ok_or(ProxyListError::Entry { number })?,
            };
            let last = matches!(source, Source::Direct | Source::Off);
            entries.push(Entry { source, after_any_error });
            if last {
                // Nothing behind these is ever asked.
                break;
            }
        }
        if entries.is_empty() { Err(ProxyListError::Empty) } else { Ok(Self(entries)) }
    }

    /// Whether it is one `file://` proxy and nothing else: the files of this machine need no one to vouch for them.
    pub(super) fn is_one_directory(&self) -> bool {
        matches!(self.0.as_slice(), [Entry { source: Source::Proxy(url), .. }] if url.scheme() == "file")
    }

    /// The proxies in their order; with each comes whether the next one is asked after any error, and not only after
    /// "not found".
    pub fn proxies(&self) -> impl Iterator<Item = (&Url, bool)> {
        self.0.iter().filter_map(|entry| match &entry.source {
            Source::Proxy(url) => Some((url, entry.after_any_error)),
            Source::Direct | Source::Off => None,
        })
    }

    /// Whether a proxy is asked at all.
    #[must_use]
    pub fn has_proxy(&self) -> bool {
        self.0.iter().any(|entry| matches!(entry.source, Source::Proxy(_)))
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
        assert_eq!(list.0[2].source, Source::Direct);
        assert!(list.has_proxy() && !ProxyList::parse("off").unwrap().has_proxy());
    }

    #[test]
    fn what_is_no_proxy_is_told_without_showing_it() {
        assert_eq!(ProxyList::parse(""), Err(ProxyListError::Empty));
        assert_eq!(ProxyList::parse(",,"), Err(ProxyListError::Empty));
        let wrong = ProxyList::parse("https://a.example,ftp://user:secret@b").unwrap_err();
        assert_eq!(wrong, ProxyListError::Entry { number: 2 });
        assert!(!wrong.to_string().contains("secret"));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in ".{0,100}") {
            let _ = ProxyList::parse(&text);
        }
    }
}
