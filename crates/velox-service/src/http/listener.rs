//! Accepts connections, with limits on their number and on slow clients.

use std::{
    collections::HashMap,
    convert::Infallible,
    io,
    net::{IpAddr, SocketAddr},
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{Router, body::Body, extract::ConnectInfo, http::Request, response::Response};
use futures::{
    FutureExt as _,
    future::{self, OptionFuture},
};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
};
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpSocket},
    sync::Notify,
};
use tokio_io_timeout::TimeoutStream;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::auth::{Identity, client_network};

/// The maximum number of concurrent connections; further ones take the places of idle ones, or wait.
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

/// Listens on the first of these addresses that is free. As many connections may wait to be accepted as may be open: the
/// default of 128 would make bursts of clients wait for a second, until they try again.
pub(crate) fn bind(addresses: &[SocketAddr]) -> io::Result<TcpListener> {
    let bind_one = |address: &SocketAddr| {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?;
        socket.bind(*address)?;
        socket.listen(u32::try_from(MAX_CONNECTIONS).unwrap_or(u32::MAX))
    };
    let mut failed = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in addresses {
        match bind_one(address) {
            Ok(listener) => return Ok(listener),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

/// Serves connections until `draining` is cancelled, then until the open ones and `work` have ended or `closing` is
/// cancelled. Meanwhile new connections serve one request each, such as readiness checks.
pub(crate) async fn run(
    listener: TcpListener,
    tls: Option<ServerConfig>,
    app: Router,
    work: impl Future<Output = ()> + Send,
    draining: CancellationToken,
    closing: CancellationToken,
) {
    run_with(ConnectionLimits::default(), listener, tls, app, work, draining, closing).await;
}

async fn run_with(
    limits: ConnectionLimits,
    listener: TcpListener,
    tls: Option<ServerConfig>,
    app: Router,
    work: impl Future<Output = ()> + Send,
    draining: CancellationToken,
    closing: CancellationToken,
) {
    let tls = tls.map(|tls| TlsAcceptor::from(Arc::new(tls)));
    let limits = Arc::new(limits);
    let mut open = GracefulShutdown::new();
    let mut http = Arc::new(http(true));
    let mut work = Some(work);
    let mut drained = future::pending().boxed();
    loop {
        let accepted = async {
            let (stream, peer) = listener.accept().await?;
            // On a socket for IPv6 and IPv4, IPv4 addresses are mapped ones.
            let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
            Ok::<_, io::Error>((stream, peer, limits.acquire(client_network(peer.ip())).await))
        };
        let accepted = tokio::select! {
            accepted = accepted => accepted,
            () = draining.cancelled(), if work.is_some() => {
                http = Arc::new(self::http(false));
                let open = std::mem::take(&mut open).shutdown();
                drained = future::join(open, OptionFuture::from(work.take())).map(drop).boxed();
                continue;
            }
            () = &mut drained => break,
            () = closing.cancelled() => break,
        };
        let (stream, peer, permit) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                wait_after_accept_error(&error).await;
                continue;
            }
        };
        let Some(permit) = permit else {
            tracing::debug!(%peer, "too many connections from one network");
            continue;
        };
        // Nagle's algorithm would only delay responses.
        let _ = stream.set_nodelay(true);
        let permit = Arc::new(permit);
        let connection =
            Connection { peer, app: app.clone(), http: Arc::clone(&http), permit: Arc::clone(&permit) };
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
                () = permit.evicted.cancelled() => tracing::debug!(%peer, "closed an idle connection"),
                () = closing.cancelled() => {}
            }
        });
    }
    drop(listener);
    tokio::select! {
        () = open.shutdown() => {}
        () = closing.cancelled() => {}
    }
}

/// The open connections and their limits.
struct ConnectionLimits {
    max: usize,
    max_per_network: usize,
    open: Mutex<HashMap<u64, OpenConnection>>,
    next: AtomicU64,
    closed: Notify,
}

struct OpenConnection {
    network: IpAddr,
    /// The number of requests whose responses aren't sent yet.
    requests: usize,
    /// Whether an authorized request was answered.
    is_authorized: bool,
    idle_since: Instant,
    /// Cancelled when the place is given to another connection.
    evicted: CancellationToken,
}

/// A counted connection; dropping it releases its place.
struct ConnectionPermit {
    limits: Arc<ConnectionLimits>,
    id: u64,
    evicted: CancellationToken,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            max: MAX_CONNECTIONS,
            max_per_network: MAX_CONNECTIONS_PER_NETWORK,
            open: Mutex::default(),
            next: AtomicU64::new(0),
            closed: Notify::new(),
        }
    }
}

impl ConnectionLimits {
    /// Waits for a place. `None` if all places of the network are in use.
    async fn acquire(self: &Arc<Self>, network: IpAddr) -> Option<ConnectionPermit> {
        loop {
            let mut closed = pin!(self.closed.notified());
            closed.as_mut().enable();
            match self.try_acquire(network) {
                Ok(permit) => return permit,
                Err(Full) => closed.await,
            }
        }
    }

    /// Counts a connection. If there is no place, closes the idle connection that is least likely to be missed:
    /// one without an answered authorized request before others, and then the one that is idle for longest.
    fn try_acquire(self: &Arc<Self>, network: IpAddr) -> Result<Option<ConnectionPermit>, Full> {
        let mut open = self.open();
        if open.values().filter(|it| it.network == network).count() >= self.max_per_network
            && !evict(&mut open, Some(network))
        {
            return Ok(None);
        }
        if open.len() >= self.max && !evict(&mut open, None) {
            return Err(Full);
        }
        let (id, evicted) = (self.next.fetch_add(1, Ordering::Relaxed), CancellationToken::new());
        let connection = OpenConnection {
            network,
            requests: 0,
            is_authorized: false,
            idle_since: Instant::now(),
            evicted: evicted.clone(),
        };
        open.insert(id, connection);
        Ok(Some(ConnectionPermit { limits: Arc::clone(self), id, evicted }))
    }

    fn open(&self) -> MutexGuard<'_, HashMap<u64, OpenConnection>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All places are taken by connections in use.
struct Full;

/// Closes an idle connection, of this network if given.
fn evict(open: &mut HashMap<u64, OpenConnection>, of: Option<IpAddr>) -> bool {
    // All connections of one network may be idle and authorized: those are not closed for each other.
    let may_close = |it: &OpenConnection| match of {
        Some(network) => it.network == network && it.requests == 0 && !it.is_authorized,
        None => it.requests == 0,
    };
    let idle = open.iter().filter(|(_, it)| may_close(it));
    let Some((.., id)) = idle.map(|(id, it)| (it.is_authorized, it.idle_since, *id)).min() else {
        return false;
    };
    if let Some(evicted) = open.remove(&id) {
        evicted.evicted.cancel();
    }
    true
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        // An evicted connection was removed already.
        if self.limits.open().remove(&self.id).is_some() {
            self.limits.closed.notify_one();
        }
    }
}

impl ConnectionPermit {
    fn start_request(&self) -> RunningRequest {
        if let Some(connection) = self.limits.open().get_mut(&self.id) {
            connection.requests += 1;
        }
        RunningRequest { limits: Arc::clone(&self.limits), id: self.id, is_authorized: false }
    }

    /// Whether the connection is idle for too long without an answered authorized request. An HTTP/2 client
    /// could keep it open for ever by answering pings.
    fn is_unused(&self) -> bool {
        self.limits.open().get(&self.id).is_some_and(|it| {
            it.requests == 0 && !it.is_authorized && it.idle_since.elapsed() >= HEADER_TIMEOUT
        })
    }
}

/// A request of a connection until its response is sent or dropped.
struct RunningRequest {
    limits: Arc<ConnectionLimits>,
    id: u64,
    is_authorized: bool,
}

impl Drop for RunningRequest {
    fn drop(&mut self) {
        if let Some(connection) = self.limits.open().get_mut(&self.id) {
            connection.requests -= 1;
            connection.is_authorized |= self.is_authorized;
            connection.idle_since = Instant::now();
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

fn http(keep_alive: bool) -> auto::Builder<TokioExecutor> {
    let mut http = auto::Builder::new(TokioExecutor::new());
    // hyper panics in years that the header can't have.
    let has_date = velox_api::now() < jiff::Timestamp::MAX;
    http.http1()
        .auto_date_header(has_date)
        .timer(TokioTimer::new())
        .keep_alive(keep_alive)
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(HTTP1_BUFFER_BYTES);
    http.http2()
        .auto_date_header(has_date)
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
    permit: Arc<ConnectionPermit>,
}

impl Connection {
    async fn serve<S>(self, stream: S, watcher: hyper_util::server::graceful::Watcher)
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        let Self { peer, app, http, permit } = self;
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(WRITE_TIMEOUT));
        let service = hyper::service::service_fn({
            let permit = Arc::clone(&permit);
            move |request: Request<Incoming>| respond(app.clone(), peer, permit.start_request(), request)
        });
        let connection = http.serve_connection(TokioIo::new(Box::pin(stream)), service).into_owned();
        let mut connection = pin!(watcher.watch(connection));
        let ended = loop {
            tokio::select! {
                ended = &mut connection => break ended,
                // hyper's own timeouts start after it has detected the HTTP version, and not for HTTP/2.
                () = tokio::time::sleep(HEADER_TIMEOUT) => {
                    if permit.is_unused() {
                        tracing::debug!(%peer, "no request received");
                        return;
                    }
                }
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
    mut running: RunningRequest,
    mut request: Request<Incoming>,
) -> Result<Response, Infallible> {
    request.extensions_mut().insert(ConnectInfo(peer));
    let response = app.oneshot(request.map(Body::new)).await?;
    running.is_authorized = response.extensions().get::<Identity>().is_some_and(|it| it.0.is_ok());
    // The request ends with the body.
    let hold = move |frame| {
        let _ = &running;
        frame
    };
    Ok(response.map(|body| Body::new(body.map_frame(hold))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(max: usize, max_per_network: usize) -> Arc<ConnectionLimits> {
        Arc::new(ConnectionLimits { max, max_per_network, ..ConnectionLimits::default() })
    }

    fn network(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    fn acquire(limits: &Arc<ConnectionLimits>, last: u8) -> Option<ConnectionPermit> {
        limits.try_acquire(network(last)).ok().flatten()
    }

    /// A connection with an answered authorized request.
    fn authorized(permit: ConnectionPermit) -> ConnectionPermit {
        permit.start_request().is_authorized = true;
        permit
    }

    #[test]
    fn connections_are_limited_by_network() {
        let limits = limits(10, 2);
        let [first, second] = [1, 1].map(|last| acquire(&limits, last).expect("a place"));
        let running = [&first, &second].map(ConnectionPermit::start_request);
        assert!(acquire(&limits, 1).is_none());
        assert!(acquire(&limits, 2).is_some());
        drop(first);
        assert!(acquire(&limits, 1).is_some());
        drop((second, running));
        assert!(limits.open().is_empty());
    }

    #[test]
    fn idle_connections_make_room() {
        let limits = limits(3, 2);
        let known = authorized(acquire(&limits, 1).expect("a place"));
        let idle = acquire(&limits, 2).expect("a place");
        let busy = acquire(&limits, 2).expect("a place");
        let request = busy.start_request();
        let new = acquire(&limits, 3).expect("the idle one's place");
        let is_closed = |permit: &ConnectionPermit| permit.evicted.is_cancelled();
        assert!(is_closed(&idle) && !is_closed(&known) && !is_closed(&busy));
        let newer = acquire(&limits, 2).expect("an idle one's place");
        assert!(is_closed(&new) && !is_closed(&known));
        let newest = acquire(&limits, 2).expect("the place of an idle one of its own network");
        assert!(is_closed(&newer) && !is_closed(&known));
        let running = newest.start_request();
        assert!(acquire(&limits, 2).is_none(), "its network has no place");
        let last = acquire(&limits, 4).expect("the place of an authorized one");
        assert!(is_closed(&known));
        let also = last.start_request();
        assert!(limits.try_acquire(network(5)).is_err(), "all are in use");
        drop((idle, request, running, also, busy));
        assert_eq!(limits.open().len(), 2);
    }

    #[tokio::test]
    async fn idle_connections_do_not_block_the_service() {
        use tokio::{
            io::{AsyncReadExt as _, AsyncWriteExt as _},
            net::TcpStream,
        };
        const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let app = Router::new().route("/", axum::routing::get(async || "served"));
        let limits = ConnectionLimits { max: 4, max_per_network: 4, ..ConnectionLimits::default() };
        let token = CancellationToken::new();
        let running = run_with(limits, listener, None, app, async {}, token.clone(), token.clone());
        let running = tokio::spawn(running);
        let mut idle = Vec::new();
        for _ in 0..20 {
            let mut stream = TcpStream::connect(address).await.expect("a connection");
            stream.write_all(PREFACE).await.expect("open");
            // The server's settings.
            stream.read_exact(&mut [0; 9]).await.expect("served");
            idle.push(stream);
        }
        let mut stream = TcpStream::connect(address).await.expect("a connection");
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.expect("open");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("an answer");
        assert!(answer.contains("200 OK") && answer.contains("content-length: 6"), "{answer}");
        let mut rest = Vec::new();
        let ended = idle[0].read_to_end(&mut rest).await;
        assert!(ended.is_ok() || rest.is_empty(), "it was closed");
        token.cancel();
        running.await.expect("it ends");
    }
}
