use std::{fmt, time::Duration};

use crate::modcache::ModCacheError;

/// Why a proxy didn't serve a file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ProxyError {
    /// The kind, for decisions.
    pub kind: ProxyErrorKind,
    /// The status and the proxy's own text, or the cause, for people.
    pub message: String,
}

/// The kinds of a [`ProxyError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProxyErrorKind {
    /// 404 or 410, or no such file in a `file://` proxy: the next proxy is asked.
    NotFound,
    /// 401 or 407.
    Unauthorized,
    /// 429.
    RateLimited {
        /// How long the proxy wants to be left alone.
        retry_after: Option<Duration>,
    },
    /// Any other status than 200.
    Status(u16),
    /// The proxy's certificate isn't trusted.
    Certificate,
    /// The connection failed or timed out.
    Unreachable,
    /// The response is too large, or not what a module proxy sends.
    InvalidResponse,
    /// GOPROXY doesn't allow the request: `off`, or a password for plain HTTP.
    Disallowed,
}

impl ProxyError {
    /// An error of this kind.
    pub fn new(kind: ProxyErrorKind, message: impl ToString) -> Self {
        Self { kind, message: message.to_string() }
    }
}

/// Why a file can't be read from a proxy.
#[derive(Debug)]
pub(crate) enum ReadError {
    Proxy(ProxyError),
    /// The file can't be written to the module cache.
    Local(ModCacheError),
}

impl ReadError {
    /// The kind of a proxy's error.
    pub(crate) fn kind(&self) -> Option<ProxyErrorKind> {
        match self {
            Self::Proxy(error) => Some(error.kind),
            Self::Local(_) => None,
        }
    }

    pub(crate) fn invalid(message: impl ToString) -> Self {
        ProxyError::new(ProxyErrorKind::InvalidResponse, message).into()
    }
}

impl From<ProxyError> for ReadError {
    fn from(error: ProxyError) -> Self {
        Self::Proxy(error)
    }
}

impl From<ModCacheError> for ReadError {
    fn from(error: ModCacheError) -> Self {
        Self::Local(error)
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Proxy(error) => error.fmt(f),
            Self::Local(error) => error.fmt(f),
        }
    }
}
