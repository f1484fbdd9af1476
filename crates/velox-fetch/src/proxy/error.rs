use std::{fmt, time::Duration};

use crate::modcache::ModCacheError;

/// A failed proxy request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ProxyError {
    /// The error kind.
    pub kind: ProxyErrorKind,
    /// The status and the response text, or the cause.
    pub message: String,
}

/// The kind of a [`ProxyError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProxyErrorKind {
    /// 404 or 410, or no such file in a `file://` proxy; the next proxy is tried.
    NotFound,
    /// 401 or 407.
    Unauthorized,
    /// 429.
    RateLimited {
        /// The Retry-After time.
        retry_after: Option<Duration>,
    },
    /// Any other error status.
    Status(u16),
    /// The proxy's certificate isn't trusted.
    Certificate,
    /// The connection failed or timed out.
    Unreachable,
    /// The response is too large or malformed.
    InvalidResponse,
    /// The configuration forbids the request: GOPROXY is `off`, or a password would be sent over plain HTTP.
    Disallowed,
}

impl ProxyError {
    /// Creates an error.
    pub fn new(kind: ProxyErrorKind, message: impl ToString) -> Self {
        Self { kind, message: message.to_string() }
    }
}

/// An error reading a file from a proxy.
#[derive(Debug)]
pub(crate) enum ReadError {
    Proxy(ProxyError),
    /// Writing to the module cache failed.
    Local(ModCacheError),
}

impl ReadError {
    /// The kind, for a proxy error.
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
