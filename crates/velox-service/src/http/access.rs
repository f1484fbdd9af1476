//! Access control: authentication, scopes and accepted host names.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

use axum::{
    extract::{ConnectInfo, FromRequestParts, Request, State},
    http::{HeaderMap, HeaderValue, Uri, header, request::Parts, uri::Authority},
    middleware::Next,
    response::{IntoResponse, Response},
};
use url::{Host, Position, Url};

use super::AppState;
use crate::{
    auth::{Identity, TokenEntry, TokenScope},
    error::{ApiError, ApiErrorKind},
};

/// The access rules of the service.
#[derive(Debug, Clone, Default)]
pub(crate) struct AccessConfig {
    /// The origins allowed by CORS.
    pub(crate) origins: Vec<HeaderValue>,
    /// Whether only the host names of this machine are accepted.
    pub(crate) local_only: bool,
    /// Whether the service is reachable over TLS only.
    pub(crate) https_only: bool,
}

/// Authenticates the caller; handlers check the scope.
pub(crate) async fn authenticate(
    State(state): State<Arc<AppState>>,
    mut request: Request,
    next: Next,
) -> Response {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
    let peer = peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.0.ip());
    let identity = Identity(state.tokens.authenticate(request.headers(), peer));
    request.extensions_mut().insert(identity.clone());
    let mut response = next.run(request).await;
    // For the audit log, the outermost layer.
    response.extensions_mut().insert(identity);
    response
}

/// Extracts a caller with the scope `build`.
pub(crate) struct Builder(pub(crate) TokenEntry);

/// Requires the scope `read`.
pub(crate) struct Reader;

/// Requires the scope `metrics`.
pub(crate) struct MetricsReader;

impl<S: Send + Sync> FromRequestParts<S> for Builder {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        Ok(Self(Identity::caller(&parts.extensions, TokenScope::Build)?))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Reader {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        Ok(Identity::caller(&parts.extensions, TokenScope::Read).map(|_| Self)?)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for MetricsReader {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        Ok(Identity::caller(&parts.extensions, TokenScope::Metrics).map(|_| Self)?)
    }
}

/// Rejects host names other than this machine's. Without a required token, a page whose host name resolves to
/// this machine (DNS rebinding) would otherwise have the same origin as the service.
pub(crate) async fn require_local_host(request: Request, next: Next) -> Response {
    if is_local_host(request.uri(), request.headers()) {
        return next.run(request).await;
    }
    let message = "only this machine's own host names are served; use localhost, or run `vx server` with --tokens or \
                   --allow-anonymous";
    ApiError::new(ApiErrorKind::MisdirectedRequest, message).into_response()
}

fn is_local_host(uri: &Uri, headers: &HeaderMap) -> bool {
    let header = headers.get(header::HOST).map(|host| host.to_str().unwrap_or("?"));
    // HTTP/1.0 has no Host header.
    let Some(authority) = uri.authority().map(Authority::as_str).or(header) else { return true };
    let Ok(authority) = authority.parse::<Authority>() else { return false };
    match Host::parse(authority.host()) {
        Ok(Host::Domain(name)) => {
            let name = name.trim_end_matches('.');
            name == "localhost" || name.ends_with(".localhost")
        }
        Ok(Host::Ipv4(address)) => address.is_loopback(),
        Ok(Host::Ipv6(address)) => address.is_loopback(),
        Err(_) => false,
    }
}

/// Rejects requests of pages of other sites (CSRF) by the headers of browsers (<https://www.w3.org/TR/fetch-metadata/>).
/// Other clients send neither header and are not vulnerable.
pub(crate) fn check_origin(headers: &HeaderMap, uri: &Uri) -> Result<(), ApiError> {
    let text = |name: header::HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let is_same_origin = if let Some(site) = text(header::HeaderName::from_static("sec-fetch-site")) {
        matches!(site, "same-origin" | "none")
    } else if let Some(origin) = text(header::ORIGIN) {
        let host = uri.authority().map(|authority| authority.as_str()).or_else(|| text(header::HOST));
        let origin = Url::parse(origin).ok();
        host.is_some_and(|host| {
            origin.is_some_and(|origin| &origin[Position::BeforeHost..Position::AfterPort] == host)
        })
    } else {
        true
    };
    if is_same_origin {
        return Ok(());
    }
    let message = "the request was sent by a page of another site; use this service's own page or its API";
    Err(ApiError::new(ApiErrorKind::Forbidden, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_host_names() {
        for (host, is_local) in [
            ("localhost", true),
            ("localhost:8080", true),
            ("LOCALHOST.:1", true),
            ("127.0.0.1:8080", true),
            ("[::1]:8080", true),
            ("vx.localhost", true),
            ("evil.example", false),
            ("evil.example:8080", false),
            ("localhost.evil.example", false),
            ("10.0.0.1", false),
            ("127.0.0.1.nip.io", false),
            ("", false),
        ] {
            let headers = HeaderMap::from_iter([(header::HOST, HeaderValue::from_static(host))]);
            assert_eq!(is_local_host(&Uri::from_static("/"), &headers), is_local, "{host}");
        }
        assert!(is_local_host(&Uri::from_static("/"), &HeaderMap::new()));
        assert!(!is_local_host(&Uri::from_static("http://evil.example/"), &HeaderMap::new()));
    }
}
