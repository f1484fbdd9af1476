//! Tunnels ([`CONNECT`](https://www.rfc-editor.org/rfc/rfc9110#section-9.3.6)) to the version control hosts
//! of modules that may be fetched directly.

use std::{io, sync::Arc, time::Duration};

use bytes::Bytes;
use data_encoding::BASE64;
use http_body_util::{BodyExt, Empty};
use hyper::{
    Request, Response, StatusCode,
    body::Incoming,
    ext::ReasonPhrase,
    header,
    upgrade::{OnUpgrade, Upgraded},
};
use hyper_util::rt::TokioIo;
use percent_encoding::percent_decode_str;
use tokio::{io::copy_bidirectional_with_sizes, net::TcpStream};
use tokio_util::{either::Either, io::InspectReader};
use url::{Host, Url};

use super::{
    Body, JobTraffic, ProxyState,
    address::{resolve, resolve_public},
    text_response,
};

/// A connection to the target host, through the operator's proxy or direct.
type TunnelStream = Either<TokioIo<Upgraded>, TcpStream>;

const HTTPS_PORT: u16 = 443;
/// The maximum number of denied connections reported for a job.
const MAX_RECORDED_DENIALS: usize = 20;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
const BUFFER_BYTES: usize = 32 << 10;

/// The hosts of GOPRIVATE-style patterns (`github.com/acme/*`), including GitHub's API hosts.
pub(super) fn allowed_hosts(patterns: &[String]) -> Vec<String> {
    let mut hosts = Vec::new();
    for pattern in patterns {
        let host = pattern.split('/').next().unwrap_or_default();
        if host.contains(['*', '?', '[', '\\']) || host.is_empty() {
            tracing::warn!(pattern, "ignoring a pattern of direct modules without a literal host name");
            continue;
        }
        if host == "github.com" {
            hosts.extend(["api.github.com", "codeload.github.com"].map(str::to_owned));
        }
        hosts.push(host.to_owned());
    }
    hosts
}

pub(super) async fn open(state: &ProxyState, mut request: Request<Incoming>) -> Response<Body> {
    let Some(traffic) = authenticate(state, &request) else {
        let mut response = text_response(StatusCode::PROXY_AUTHENTICATION_REQUIRED, "unknown job token");
        let basic = header::HeaderValue::from_static("Basic realm=\"build\"");
        response.headers_mut().insert(header::PROXY_AUTHENTICATE, basic);
        return response;
    };
    let target = request.uri().authority().and_then(|it| Some((Host::parse(it.host()).ok()?, it.port_u16())));
    let Some((host, port)) = target else {
        return text_response(StatusCode::BAD_REQUEST, "invalid CONNECT target");
    };
    if port != Some(HTTPS_PORT) || !state.tunnel_hosts.contains(&host.to_string()) {
        let port = port.map(|port| format!(":{port}")).unwrap_or_default();
        return deny(&traffic, &format!("{host}{port} is not an allowed host"));
    }
    let connected = async {
        match state.upstream.tunnel_proxy(&host) {
            Some(proxy) => tokio::time::timeout(CONNECT_TIMEOUT, connect_by_proxy(proxy, &host))
                .await?
                .map(TunnelStream::Left),
            None => {
                let addresses = resolve_public(&host, HTTPS_PORT).await?;
                let stream = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(&*addresses)).await?;
                stream.map(TunnelStream::Right)
            }
        }
    };
    match connected.await {
        Ok(upstream) => {
            tokio::spawn(forward(hyper::upgrade::on(&mut request), upstream, traffic));
            Response::new(Empty::<Bytes>::new().map_err(|never| match never {}).boxed_unsync())
        }
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => deny(&traffic, &error.to_string()),
        Err(error) => text_response(StatusCode::BAD_GATEWAY, &error.to_string()),
    }
}

/// Records the denial for the build's log. git shows only the status, the go command also the reason phrase.
fn deny(traffic: &JobTraffic, reason: &str) -> Response<Body> {
    let mut denials = traffic.denials();
    if denials.len() < MAX_RECORDED_DENIALS {
        denials.insert(reason.to_owned());
    }
    let mut response = text_response(StatusCode::FORBIDDEN, reason);
    if let Ok(phrase) = ReasonPhrase::try_from(reason.as_bytes()) {
        response.extensions_mut().insert(phrase);
    }
    response
}

/// Connects through the operator's proxy, which enforces its own access rules.
async fn connect_by_proxy(proxy: &Url, host: &Host) -> io::Result<TokioIo<Upgraded>> {
    let (Some(proxy_host), Some(port)) = (proxy.host(), proxy.port_or_known_default()) else {
        return Err(io::Error::other("HTTPS_PROXY has no host"));
    };
    let stream = TcpStream::connect(&*resolve(&proxy_host.to_owned(), port).await?).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    tokio::spawn(connection.with_upgrades());
    let target = format!("{host}:{HTTPS_PORT}");
    let mut request = Request::connect(&target).header(header::HOST, &target);
    if !proxy.username().is_empty() {
        let decode = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let (user, password) = (decode(proxy.username()), decode(proxy.password().unwrap_or_default()));
        let credentials = format!("Basic {}", BASE64.encode(format!("{user}:{password}").as_bytes()));
        request = request.header(header::PROXY_AUTHORIZATION, credentials);
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(io::Error::other)?;
    let response = sender.send_request(request).await.map_err(io::Error::other)?;
    if !response.status().is_success() {
        return Err(io::Error::other(format!("the service's own proxy answered {}", response.status())));
    }
    hyper::upgrade::on(response).await.map(TokioIo::new).map_err(io::Error::other)
}

fn authenticate(state: &ProxyState, request: &Request<Incoming>) -> Option<Arc<JobTraffic>> {
    let credentials = request.headers().get(header::PROXY_AUTHORIZATION)?.to_str().ok()?;
    let credentials = BASE64.decode(credentials.strip_prefix("Basic ")?.as_bytes()).ok()?;
    state.job(str::from_utf8(&credentials).ok()?.strip_prefix("job:")?)
}

/// Forwards bytes until one side closes, the job ends or its limit is exceeded.
async fn forward(job: OnUpgrade, upstream: TunnelStream, traffic: Arc<JobTraffic>) {
    let Ok(job) = job.await else { return };
    let mut job = TokioIo::new(job);
    // Beyond its limit the count ends the tunnel.
    let mut upstream = InspectReader::new(upstream, |bytes| _ = traffic.count(bytes.len()));
    tokio::select! {
        biased;
        () = traffic.job_ended.cancelled() => {}
        () = traffic.limit_exceeded.cancelled() => {}
        _ = copy_bidirectional_with_sizes(&mut job, &mut upstream, BUFFER_BYTES, BUFFER_BYTES) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::allowed_hosts;

    #[test]
    fn patterns_allow_their_own_hosts_only() {
        let of = |patterns: &[&str]| {
            allowed_hosts(&patterns.iter().map(|pattern| (*pattern).to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(of(&["go.acme.dev", "gitlab.com/acme/*"]), ["go.acme.dev", "gitlab.com"]);
        assert_eq!(of(&["github.com/acme"]), ["api.github.com", "codeload.github.com", "github.com"]);
        assert_eq!(of(&["*.acme.dev", "*", ""]), [""; 0]);
    }
}
