//! Tunnels ([`CONNECT`](https://www.rfc-editor.org/rfc/rfc9110#section-9.3.6)) to the version control of modules that may
//! come from there.

use std::{io, sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
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
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};
use tokio_util::either::Either;
use url::Url;

use super::{Account, Body, Shared, address::public_addresses, refusal};

/// To a host: through a proxy, or at once.
type Stream = Either<TokioIo<Upgraded>, TcpStream>;

/// All that is tunnelled is HTTPS.
const PORT: u16 = 443;
/// How many of a job's vain attempts are told.
const REFUSALS: usize = 20;
/// How long a connection may take.
const PATIENCE: Duration = Duration::from_secs(15);

/// The hosts behind GOPRIVATE's patterns (`github.com/acme/*`): those of a forge's API are among them.
pub(super) fn hosts(patterns: &[String]) -> Vec<String> {
    let mut hosts = Vec::new();
    for pattern in patterns {
        let host = pattern.split('/').next().unwrap_or_default();
        if host.contains(['*', '?', '[', '\\']) || host.is_empty() {
            tracing::warn!(pattern, "direct modules need a host by its name");
            continue;
        }
        if host == "github.com" {
            hosts.extend(["api.github.com", "codeload.github.com"].map(str::to_owned));
        }
        hosts.push(host.to_owned());
    }
    hosts
}

pub(super) async fn open(shared: &Shared, mut request: Request<Incoming>) -> Response<Body> {
    let Some(account) = account(shared, &request) else {
        let mut response = refusal(StatusCode::PROXY_AUTHENTICATION_REQUIRED, "no build has this address");
        let basic = header::HeaderValue::from_static("Basic realm=\"build\"");
        response.headers_mut().insert(header::PROXY_AUTHENTICATE, basic);
        return response;
    };
    let to = request.uri().authority().map(|to| (to.host().to_ascii_lowercase(), to.port_u16()));
    let (host, port) = to.unwrap_or_default();
    if port != Some(PORT) || !shared.tunnels.contains(&host) {
        let port = port.map(|port| format!(":{port}")).unwrap_or_default();
        return forbidden(&account, &format!("{host}{port} is nothing that a build may reach here"));
    }
    let connected = async {
        match &shared.upstream.proxy {
            Some(proxy) => tokio::time::timeout(PATIENCE, by_proxy(proxy, &host)).await?.map(Stream::Left),
            None => {
                let addresses = public_addresses(&host, PORT).await?;
                tokio::time::timeout(PATIENCE, TcpStream::connect(&*addresses)).await?.map(Stream::Right)
            }
        }
    };
    match connected.await {
        Ok(server) => {
            tokio::spawn(carry(hyper::upgrade::on(&mut request), server, account));
            Response::new(Empty::<Bytes>::new().map_err(|never| match never {}).boxed_unsync())
        }
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            forbidden(&account, &error.to_string())
        }
        Err(error) => refusal(StatusCode::BAD_GATEWAY, &error.to_string()),
    }
}

/// Says no where people see it: git tells the status alone, and the go command the words behind it.
fn forbidden(account: &Account, why: &str) -> Response<Body> {
    let mut refused = account.refusals();
    if refused.len() < REFUSALS {
        refused.insert(why.to_owned());
    }
    let mut response = refusal(StatusCode::FORBIDDEN, why);
    if let Ok(words) = ReasonPhrase::try_from(why.as_bytes()) {
        response.extensions_mut().insert(words);
    }
    response
}

/// Through the operator's own proxy: what it may reach is for it to say.
async fn by_proxy(proxy: &Url, host: &str) -> io::Result<TokioIo<Upgraded>> {
    let (Some(name), Some(port)) = (proxy.host_str(), proxy.port_or_known_default()) else {
        return Err(io::Error::other("HTTPS_PROXY names no host"));
    };
    let stream = TcpStream::connect((name, port)).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    tokio::spawn(connection.with_upgrades());
    let to = format!("{host}:{PORT}");
    let mut request = Request::connect(&to).header(header::HOST, &to);
    if !proxy.username().is_empty() {
        let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let (name, password) = (decoded(proxy.username()), decoded(proxy.password().unwrap_or_default()));
        let login = format!("Basic {}", STANDARD.encode(format!("{name}:{password}")));
        request = request.header(header::PROXY_AUTHORIZATION, login);
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(io::Error::other)?;
    let response = sender.send_request(request).await.map_err(io::Error::other)?;
    if !response.status().is_success() {
        return Err(io::Error::other(format!("the service's own proxy says {}", response.status())));
    }
    hyper::upgrade::on(response).await.map(TokioIo::new).map_err(io::Error::other)
}

fn account(shared: &Shared, request: &Request<Incoming>) -> Option<Arc<Account>> {
    let login = request.headers().get(header::PROXY_AUTHORIZATION)?.to_str().ok()?;
    let login = STANDARD.decode(login.strip_prefix("Basic ")?).ok()?;
    let login = String::from_utf8(login).ok()?;
    shared.account(login.strip_prefix("job:")?)
}

/// Until one side has had enough, or the job has.
async fn carry(job: OnUpgrade, server: Stream, account: Arc<Account>) {
    let Ok(job) = job.await else { return };
    let (from_job, to_job) = tokio::io::split(TokioIo::new(job));
    let (from_server, to_server) = tokio::io::split(server);
    let free = |_| Ok(());
    tokio::select! {
        () = account.over.cancelled() => {}
        () = account.spent.cancelled() => {}
        _ = async { tokio::join!(copy(from_job, to_server, free), copy(from_server, to_job, |bytes| account.take(bytes))) } => {}
    }
}

async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    count: impl Fn(usize) -> io::Result<()>,
) -> io::Result<()> {
    let mut buffer = vec![0; 32 << 10];
    loop {
        let length = from.read(&mut buffer).await?;
        let Some(chunk @ [_, ..]) = buffer.get(..length) else { return to.shutdown().await };
        count(length)?;
        to.write_all(chunk).await?;
    }
}

#[cfg(test)]
mod tests {
    use super::hosts;

    #[test]
    fn a_pattern_opens_its_host_and_no_more() {
        let of = |patterns: &[&str]| {
            hosts(&patterns.iter().map(|pattern| (*pattern).to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(of(&["go.acme.dev", "gitlab.com/acme/*"]), ["go.acme.dev", "gitlab.com"]);
        assert_eq!(of(&["github.com/acme"]), ["api.github.com", "codeload.github.com", "github.com"]);
        assert_eq!(of(&["*.acme.dev", "*", ""]), [""; 0]);
    }
}
