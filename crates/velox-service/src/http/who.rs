//! Who asks, and whether the request may come this way at all.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

use axum::{
    extract::{ConnectInfo, FromRequestParts, Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, Uri, header, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};

use crate::{
    auth::{CHALLENGES, Denied, Identity},
    caller::{Caller, TokenScope},
    http::{Site, problem::Wrong},
};

/// Finds out who asks; what they may is up to the handlers.
pub(crate) async fn identify(State(site): State<Arc<Site>>, mut request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
    let peer = peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.0.ip());
    let caller = site.tokens.caller(request.headers(), peer);
    let identity = Identity(caller);
    request.extensions_mut().insert(identity.clone());
    let mut response = next.run(request).await;
    // For the audit log, which is outside of everything else.
    response.extensions_mut().insert(identity);
    response
}

/// A caller who may ask for builds.
pub(crate) struct Builder(pub(crate) Caller);

/// A caller who may see builds, logs and artifacts.
pub(crate) struct Reader;

/// A caller who may see the metrics.
pub(crate) struct Observer;

impl<S: Send + Sync> FromRequestParts<S> for Builder {
    type Rejection = Wrong;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Wrong> {
        Ok(Self(Identity::caller(&parts.extensions, TokenScope::Build)?))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Reader {
    type Rejection = Wrong;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Wrong> {
        Identity::caller(&parts.extensions, TokenScope::Read)?;
        Ok(Self)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Observer {
    type Rejection = Wrong;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Wrong> {
        Identity::caller(&parts.extensions, TokenScope::Metrics)?;
        Ok(Self)
    }
}

impl From<Denied> for Wrong {
    fn from(denied: Denied) -> Self {
        let status = StatusCode::from_u16(denied.status()).unwrap_or(StatusCode::FORBIDDEN);
        let wrong = Self::new(status, denied.word(), "The request isn't allowed", denied);
        match (status, denied.retry_after()) {
            (_, Some(seconds)) => wrong.header(header::RETRY_AFTER, seconds),
            (StatusCode::UNAUTHORIZED, None) => {
                let challenge = |wrong: Self, challenge| {
                    wrong.header(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge))
                };
                CHALLENGES.into_iter().fold(wrong, challenge)
            }
            _ => wrong,
        }
    }
}

/// Serves only this machine's own names where nobody needs a token: a page whose name its owner made to point here would
/// be of the same origin as this service for a browser (DNS rebinding).
pub(crate) async fn own_names(request: Request, next: Next) -> Response {
    if is_own(request.uri(), request.headers()) {
        return next.run(request).await;
    }
    Wrong::new(
        StatusCode::MISDIRECTED_REQUEST,
        "misdirected_request",
        "This service doesn't go by that name",
        "it is for this machine alone: use localhost, or run `vx server` with --tokens or --allow-anonymous",
    )
    .into_response()
}

fn is_own(uri: &Uri, headers: &HeaderMap) -> bool {
    let header = headers.get(header::HOST).map(|host| host.to_str().unwrap_or("?"));
    // HTTP/1.0 needs no name.
    let Some(authority) = uri.authority().map(|authority| authority.as_str()).or(header) else { return true };
    let Ok(authority) = authority.parse::<axum::http::uri::Authority>() else { return false };
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let name = host.trim_end_matches('.').to_ascii_lowercase();
    name == "localhost"
        || name.ends_with(".localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_this_machine() {
        let is_own = |host: &'static str| {
            let headers = HeaderMap::from_iter([(header::HOST, HeaderValue::from_static(host))]);
            is_own(&Uri::from_static("/"), &headers)
        };
        for own in
            ["localhost", "localhost:8080", "LOCALHOST.:1", "127.0.0.1:8080", "[::1]:8080", "vx.localhost"]
        {
            assert!(is_own(own), "{own}");
        }
        for other in [
            "evil.example",
            "evil.example:8080",
            "localhost.evil.example",
            "10.0.0.1",
            "127.0.0.1.nip.io",
            "",
        ] {
            assert!(!is_own(other), "{other}");
        }
        assert!(super::is_own(&Uri::from_static("/"), &HeaderMap::new()));
        assert!(!super::is_own(&Uri::from_static("http://evil.example/"), &HeaderMap::new()));
    }
}
