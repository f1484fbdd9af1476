//! What was asked, and what is answered, without the wire.

use std::net::SocketAddr;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use data_encoding::HEXLOWER;
use futures::Stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Bytes, Frame};
use hyper::header::{HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::{HeaderMap, Method, Response, StatusCode};
use percent_encoding::percent_decode_str;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

pub(super) type ResponseBody = UnsyncBoxBody<Bytes, ConnectionCut>;

/// The end of a connection in the middle of an answer.
#[derive(Debug, thiserror::Error)]
#[error("the fault that the test asked for")]
pub(super) struct ConnectionCut;

pub(super) struct ForgeRequest {
    pub(super) method: Method,
    /// `http` or `https`.
    pub(super) scheme: &'static str,
    /// Without a port.
    pub(super) host: String,
    authority: String,
    pub(super) path: String,
    pub(super) query: String,
    pub(super) body: Bytes,
    headers: HeaderMap,
}

impl ForgeRequest {
    pub(super) fn new(parts: Parts, body: Bytes, name: Option<String>, address: SocketAddr) -> Self {
        let scheme = if name.is_some() { "https" } else { "http" };
        let authority = match &name {
            Some(name) => name.clone(),
            None => parts
                .headers
                .get("host")
                .and_then(|host| host.to_str().ok())
                .map_or_else(|| address.to_string(), str::to_owned),
        };
        let host = authority.rsplit_once(':').map_or(authority.as_str(), |(host, _)| host).to_owned();
        Self {
            method: parts.method,
            scheme,
            host,
            authority,
            path: parts.uri.path().to_owned(),
            query: parts.uri.query().unwrap_or_default().to_owned(),
            body,
            headers: parts.headers,
        }
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The first value of a query parameter, decoded.
    pub(super) fn parameter(&self, name: &str) -> Option<String> {
        self.parameters(name).into_iter().next()
    }

    pub(super) fn parameters(&self, name: &str) -> Vec<String> {
        self.query
            .split('&')
            .filter_map(|pair| {
                let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                (decode(key) == name).then(|| decode(&value.replace('+', " ")))
            })
            .collect()
    }

    pub(super) fn is_github_com(&self) -> bool {
        self.host == "github.com" || self.host.ends_with(".github.com")
    }

    /// Scheme and authority of the request.
    pub(super) fn origin(&self) -> String {
        format!("{}://{}", self.scheme, self.authority)
    }

    pub(super) fn authority(&self) -> &str {
        &self.authority
    }

    pub(super) fn had_token(&self) -> bool {
        ["authorization", "private-token", "job-token"].iter().any(|name| self.headers.contains_key(*name))
            || !self.parameters("private_token").is_empty()
    }

    /// The token in the `Authorization` header: `Bearer T`, `token T`, or Basic with the token as password (or, as
    /// `https://T@host` gives it, as the user's name).
    pub(super) fn authorization(&self) -> Option<String> {
        let (scheme, rest) = self.header("authorization")?.split_once(' ')?;
        match scheme.to_ascii_lowercase().as_str() {
            "bearer" | "token" => Some(rest.trim().to_owned()),
            "basic" => {
                let pair = String::from_utf8(BASE64_STANDARD.decode(rest.trim()).ok()?).ok()?;
                let (user, password) = pair.split_once(':')?;
                Some(
                    if password.is_empty() || password == "x-oauth-basic" { user } else { password }
                        .to_owned(),
                )
            }
            // An unknown scheme is a credential too, and a wrong one.
            _ => Some(String::new()),
        }
    }
}

pub(super) fn decode(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

/// A whole answer before it goes on the wire.
pub(super) struct ForgeResponse {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

impl ForgeResponse {
    pub(super) fn new(status: u16, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: Vec::new(), body: body.into() }.header("content-type", content_type)
    }

    pub(super) fn text(status: u16, body: &str) -> Self {
        Self::new(status, "text/plain; charset=utf-8", body)
    }

    pub(super) fn json(status: u16, body: &Value) -> Self {
        Self::new(status, "application/json; charset=utf-8", body.to_string())
    }

    pub(super) fn redirect(status: u16, location: &str) -> Self {
        Self::new(status, "text/html;charset=utf-8", "").header("location", location)
    }

    pub(super) fn header(mut self, name: &str, value: impl ToString) -> Self {
        self.headers.push((name.to_owned(), value.to_string()));
        self
    }

    pub(super) fn with_body(mut self, body: Vec<u8>) -> Self {
        self.body = body;
        self
    }

    /// Gives a good answer an `ETag`, or turns it into 304 where the client has it already.
    pub(super) fn tagged(mut self, asked: &ForgeRequest) -> Self {
        if self.status != 200 {
            return self;
        }
        let digest = HEXLOWER.encode(&Sha256::digest(&self.body));
        let tag = format!("W/\"{digest}\"");
        if asked.header("if-none-match").is_some_and(|known| known.split(',').any(|it| it.trim() == tag)) {
            self.status = 304;
            self.body.clear();
        }
        self.header("etag", tag)
    }

    pub(super) fn finish(self, method: &Method) -> Response<ResponseBody> {
        let body = if method == Method::HEAD { Vec::new() } else { self.body.clone() };
        let length = self.body.len();
        let mut response =
            self.finish_with(Full::new(Bytes::from(body)).map_err(|never| match never {}).boxed_unsync());
        if method == Method::HEAD {
            response.headers_mut().insert("content-length", HeaderValue::from(length));
        }
        response
    }

    pub(super) fn finish_streaming<S>(self, pieces: S) -> Response<ResponseBody>
    where
        S: Stream<Item = Result<Frame<Bytes>, ConnectionCut>> + Send + 'static,
    {
        self.finish_with(StreamBody::new(pieces).boxed_unsync())
    }

    fn finish_with(self, body: ResponseBody) -> Response<ResponseBody> {
        let mut response = Response::new(body);
        *response.status_mut() =
            StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        for (name, value) in &self.headers {
            if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
                response.headers_mut().append(name, value);
            }
        }
        response
    }
}
