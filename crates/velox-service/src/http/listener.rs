//! Accepts connections, with limits on their number and on slow clients.

use std::{
    collections::{HashMap, hash_map::Entry},
    convert::Infallible,
    io,
    net::{IpAddr, SocketAddr},
    pin::pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{Router, body::Body, extract::ConnectInfo, http::Request, response::Response};
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
};
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::Semaphore,
};
use tokio_io_timeout::TimeoutStream;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::auth::client_network;

/// The maximum number of concurrent connections; further ones wait.
const MAX_CONNECTIONS: usize = 4096;

/// The maximum number of concurrent connections of one client network.
const MAX_CONNECTIONS_PER_NETWORK: usize = MAX_CONNECTIONS / 4 * 3;
/// The maximum number of concurrent requests of an HTTP/2 connection.
const MAX_HTTP2_STREAMS: u32 = 128;

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// The timeout for request headers and for idle connections.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);

/// The timeout for a client that stops reading a response.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);

const HTTP2_PING_INTERVAL: Duration = Duration::from_secs(30);

/// The buffer of an HTTP/1 connection: limits the memory for a slow client and the size of request headers.
const HTTP1_BUFFER_BYTES: usize = 16 << 10;

/// The send buffer of an HTTP/2 stream.
const HTTP2_SEND_BUFFER_BYTES: usize = 64 << 10;

/// The delay before accepting again after an error, such as too many open files.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(50);

/// Accepts connections until `draining` is cancelled, then waits for open ones until `closing` is.
pub(crate) async fn run(
    listener: TcpListener,
    tls: Option<ServerConfig>,
    app: Router,
    draining: CancellationToken,
    closing: CancellationToken,
) {
    let tls = tls.map(|tls| TlsAcceptor::from(Arc::new(tls)));
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let limits = Arc::new(ConnectionLimits::default());
    let open = GracefulShutdown::new();
    let http = Arc::new(http());
    loop {
        let accepted = async {
            // The semaphore is never closed.
            let slot = Arc::clone(&slots).acquire_owned().await.ok();
            (slot, listener.accept().await)
        };
        let (slot, accepted) = tokio::select! {
            accepted = accepted => accepted,
            () = draining.cancelled() => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                wait_after_accept_error(&error).await;
                continue;
            }
        };
        // On a socket for IPv6 and IPv4, IPv4 addresses are mapped ones.
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        let Some(permit) = limits.acquire(client_network(peer.ip()), MAX_CONNECTIONS_PER_NETWORK) else {
            tracing::debug!(%peer, "too many connections from one network");
            continue;
        };
        // Nagle's algorithm would only delay responses.
        let _ = stream.set_nodelay(true);
        let connection = Connection { peer, app: app.clone(), http: Arc::clone(&http) };
        let (tls, watcher, closing) = (tls.clone(), open.watcher(), closing.clone());
        tokio::spawn(async move {
            let serve = async {
                match tls {
                    None => connection.serve(stream, watcher).await,
                    Some(tls) => match tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)).await {
                        Ok(Ok(stream)) => connection.serve(stream, watcher).await,
                        Ok(Err(error)) => tracing::debug!(%peer, %error, "TLS handshake failed"),
                        Err(_) => tracing::debug!(%peer, "TLS handshake timed out"),
                    },
                }
            };
            tokio::select! {
                () = serve => {}
                () = closing.cancelled() => {}
            }
            drop((slot, permit));
        });
    }
    drop(listener);
    tokio::select! {
        () = open.shutdown() => {}
        () = closing.cancelled() => {}
    }
}

/// The number of connections by client network.
#[derive(Default)]
struct ConnectionLimits(Mutex<HashMap<IpAddr, usize>>);

/// A counted connection; dropping it releases its slot.
struct ConnectionPermit {
    limits: Arc<ConnectionLimits>,
    network: IpAddr,
}

impl ConnectionLimits {
    /// Counts a connection; `None` if its network has `max` already.
    fn acquire(self: &Arc<Self>, network: IpAddr, max: usize) -> Option<ConnectionPermit> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(network).or_default();
        if *count >= max {
            return None;
        }
        *count += 1;
        Some(ConnectionPermit { limits: Arc::clone(self), network })
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut counts = self.limits.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut count) = counts.entry(self.network) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

/// Waits before the next attempt, unless the client closed the connection before it was accepted.
async fn wait_after_accept_error(error: &io::Error) {
    if !matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) {
        tracing::warn!(%error, "failed to accept a connection");
        tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
    }
}

fn http() -> auto::Builder<TokioExecutor> {
    let mut http = auto::Builder::new(TokioExecutor::new());
    http.http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(HTTP1_BUFFER_BYTES);
    http.http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_HTTP2_STREAMS)
        .max_send_buf_size(HTTP2_SEND_BUFFER_BYTES)
        .keep_alive_interval(HTTP2_PING_INTERVAL)
        .keep_alive_timeout(HEADER_TIMEOUT);
    http
}

struct Connection {
    peer: SocketAddr,
    app: Router,
    http: Arc<auto::Builder<TokioExecutor>>,
}

impl Connection {
    async fn serve<S>(self, stream: S, watcher: hyper_util::server::graceful::Watcher)
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        let Self { peer, app, http } = self;
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(WRITE_TIMEOUT));
        let has_request = Arc::new(AtomicBool::new(false));
        let service = hyper::service::service_fn({
            let has_request = Arc::clone(&has_request);
            move |request: Request<Incoming>| {
                has_request.store(true, Ordering::Relaxed);
                respond(app.clone(), peer, request)
            }
        });
        let connection = http.serve_connection(TokioIo::new(Box::pin(stream)), service).into_owned();
        let mut connection = pin!(watcher.watch(connection));
        let ended = tokio::select! {
            ended = &mut connection => ended,
            // hyper's own timeout starts only after it has detected the HTTP version.
            () = tokio::time::sleep(HEADER_TIMEOUT) => {
                if !has_request.load(Ordering::Relaxed) {
                    tracing::debug!(%peer, "no request received");
                    return;
                }
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%peer, %error, "connection failed");
        }
    }
}

async fn respond(
    app: Router,
    peer: SocketAddr,
    mut request: Request<Incoming>,
) -> Result<Response, Infallible> {
    request.extensions_mut().insert(ConnectInfo(peer));
    app.oneshot(request.map(Body::new)).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_limited_by_network() {
        let limits = Arc::new(ConnectionLimits::default());
        let network = |last| IpAddr::from([10, 0, 0, last]);
        let first = limits.acquire(network(1), 2);
        let second = limits.acquire(network(1), 2);
        assert!(first.is_some() && second.is_some() && limits.acquire(network(1), 2).is_none());
        assert!(limits.acquire(network(2), 2).is_some());
        drop(first);
        assert!(limits.acquire(network(1), 2).is_some());
        drop(second);
        assert!(limits.0.lock().expect("nobody panicked").is_empty());
    }
}
