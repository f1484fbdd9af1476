//! HTTP for all fixtures: complete requests and replies, and how a reply is delivered.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use futures::StreamExt as _;
use http_body_util::{BodyExt as _, Full, Limited, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    HeaderMap, Method, Response, StatusCode,
    body::{Bytes, Frame, Incoming},
    header::{CONTENT_LENGTH, HeaderName, HeaderValue},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto::Builder,
};
use percent_encoding::percent_decode_str;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::localhost::{self, LocalServer};

const MAX_REQUEST_BYTES: usize = 512 << 20;

/// A request with its whole body.
pub(crate) struct HttpRequest {
    pub(crate) method: Method,
    scheme: &'static str,
    /// The host without a port.
    pub(crate) host: String,
    pub(crate) authority: String,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) body: Bytes,
    headers: HeaderMap,
}

impl HttpRequest {
    fn new(
        parts: hyper::http::request::Parts,
        body: Bytes,
        name: Option<String>,
        address: SocketAddr,
    ) -> Self {
        let scheme = if name.is_some() { "https" } else { "http" };
        let sent = || parts.headers.get("host").and_then(|host| host.to_str().ok()).map(str::to_owned);
        let authority = name.or_else(sent).unwrap_or_else(|| address.to_string());
        Self {
            method: parts.method,
            scheme,
            host: authority.rsplit_once(':').map_or(authority.as_str(), |(host, _)| host).to_owned(),
            authority,
            path: parts.uri.path().to_owned(),
            query: parts.uri.query().unwrap_or_default().to_owned(),
            body,
            headers: parts.headers,
        }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The first value of a query parameter, decoded.
    pub(crate) fn parameter(&self, name: &str) -> Option<String> {
        self.parameters(name).next()
    }

    pub(crate) fn parameters(&self, name: &str) -> impl Iterator<Item = String> {
        self.query.split('&').filter_map(move |pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(key) == name).then(|| decode(&value.replace('+', " ")))
        })
    }

    /// Scheme and authority.
    pub(crate) fn origin(&self) -> String {
        format!("{}://{}", self.scheme, self.authority)
    }

    pub(crate) fn had_token(&self) -> bool {
        ["authorization", "private-token", "job-token"].iter().any(|name| self.headers.contains_key(*name))
            || self.parameter("private_token").is_some()
    }

    /// The token in the `Authorization` header: `Bearer T`, `token T`, or Basic with the token as password
    /// (or as user name, as in `https://T@host`).
    pub(crate) fn authorization(&self) -> Option<String> {
        let (scheme, rest) = self.header("authorization")?.split_once(' ')?;
        match scheme.to_ascii_lowercase().as_str() {
            "bearer" | "token" => Some(rest.trim().to_owned()),
            "basic" => {
                let pair = String::from_utf8(BASE64_STANDARD.decode(rest.trim()).ok()?).ok()?;
                let (user, password) = pair.split_once(':')?;
                let token = if matches!(password, "" | "x-oauth-basic") { user } else { password };
                Some(token.to_owned())
            }
            // An unknown scheme is a wrong credential.
            _ => Some(String::new()),
        }
    }
}

pub(crate) fn decode(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

/// A complete reply before it is sent.
pub(crate) struct HttpReply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    pub(crate) delivery: Delivery,
}

/// How a reply is sent.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delivery {
    Whole,
    /// Half of the body, then the connection ends.
    Cut,
    /// Half of the body, and the rest after this time.
    Stalled(Duration),
    /// The whole reply after this time.
    Delayed(Duration),
    /// The connection ends before any reply.
    HangUp,
}

impl HttpReply {
    pub(crate) fn new(status: u16, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: Vec::new(), body: body.into(), delivery: Delivery::Whole }
            .header("content-type", content_type)
    }

    pub(crate) fn text(status: u16, body: &str) -> Self {
        Self::new(status, "text/plain; charset=utf-8", body)
    }

    pub(crate) fn json(status: u16, body: &Value) -> Self {
        Self::new(status, "application/json; charset=utf-8", body.to_string())
    }

    pub(crate) fn html(body: impl Into<Vec<u8>>) -> Self {
        Self::new(200, "text/html; charset=utf-8", body)
    }

    pub(crate) fn redirect(location: &str) -> Self {
        Self::new(302, "text/html; charset=utf-8", "").header("location", location)
    }

    pub(crate) fn header(mut self, name: &str, value: impl ToString) -> Self {
        self.headers.push((name.to_owned(), value.to_string()));
        self
    }

    async fn into_response(self, method: &Method) -> std::io::Result<Response<HttpBody>> {
        if let Delivery::Delayed(time) = self.delivery {
            tokio::time::sleep(time).await;
        }
        let length = self.body.len();
        let mut first = Bytes::from(self.body);
        let body = match self.delivery {
            Delivery::HangUp => return Err(std::io::ErrorKind::ConnectionReset.into()),
            _ if method == Method::HEAD => Full::default().map_err(|never| match never {}).boxed_unsync(),
            Delivery::Whole | Delivery::Delayed(_) => {
                Full::new(first).map_err(|never| match never {}).boxed_unsync()
            }
            Delivery::Cut | Delivery::Stalled(_) => {
                let rest = first.split_off(length / 2);
                let end = async move {
                    match self.delivery {
                        Delivery::Stalled(time) => {
                            tokio::time::sleep(time).await;
                            Ok(Frame::data(rest))
                        }
                        _ => {
                            // The first half must be sent before the connection ends.
                            tokio::time::sleep(Duration::from_millis(50)).await;
                            Err(std::io::ErrorKind::ConnectionReset.into())
                        }
                    }
                };
                let start = futures::stream::once(async { Ok(Frame::data(first)) });
                StreamBody::new(start.chain(futures::stream::once(end))).boxed_unsync()
            }
        };
        let mut response = Response::new(body);
        *response.status_mut() =
            StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        for (name, value) in &self.headers {
            if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
                response.headers_mut().append(name, value);
            }
        }
        response.headers_mut().insert(CONTENT_LENGTH, length.into());
        Ok(response)
    }
}

type HttpBody = UnsyncBoxBody<Bytes, std::io::Error>;

/// Starts a server on a free port of 127.0.0.1; the handler may block.
pub(crate) fn start(handler: impl Fn(&HttpRequest) -> HttpReply + Send + Sync + 'static) -> LocalServer {
    let (handler, bound) = (Arc::new(handler), localhost::bind());
    let address = bound.address;
    bound.serve(move |stream| serve(stream, None, address, Arc::clone(&handler)))
}

/// As [`start`], over HTTPS. Also returns the certificate of the server's authority, in PEM.
#[cfg(feature = "tls")]
pub(crate) fn start_tls(
    handler: impl Fn(&HttpRequest) -> HttpReply + Send + Sync + 'static,
) -> (LocalServer, String) {
    let authority = crate::authority::TestAuthority::new().expect("a certificate authority");
    let config = authority.server("127.0.0.1").expect("a certificate");
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let (handler, bound) = (Arc::new(handler), localhost::bind());
    let address = bound.address;
    let server = bound.serve(move |stream| {
        let (handler, acceptor) = (Arc::clone(&handler), acceptor.clone());
        async move {
            if let Ok(stream) = acceptor.accept(stream).await {
                serve(stream, None, address, handler).await;
            }
        }
    });
    (server, authority.pem)
}

/// Serves a connection; the handler may block. `name` is the host name of the client's TLS connection.
pub(crate) async fn serve<S>(
    stream: S,
    name: Option<String>,
    address: SocketAddr,
    handler: Arc<impl Fn(&HttpRequest) -> HttpReply + Send + Sync + 'static>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let (handler, name) = (Arc::clone(&handler), name.clone());
        async move {
            let (parts, body) = request.into_parts();
            let method = parts.method.clone();
            let Ok(body) = Limited::new(body, MAX_REQUEST_BYTES).collect().await else {
                return HttpReply::text(413, "request too large").into_response(&method).await;
            };
            let request = HttpRequest::new(parts, body.to_bytes(), name, address);
            let reply = tokio::task::spawn_blocking(move || handler(&request)).await;
            reply
                .unwrap_or_else(|error| HttpReply::text(500, &format!("the fixture failed: {error}")))
                .into_response(&method)
                .await
        }
    });
    // A disconnected client is not an error.
    let _ = Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
}
