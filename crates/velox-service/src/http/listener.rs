//! Accepts connections, with limits on their number and on slow clients.

use std::{
    collections::{HashMap, hash_map::Entry},
    convert::Infallible,
    io,
    net::{IpAddr, SocketAddr},
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
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
        let activity = Arc::clone(&permit.activity);
        let connection =
            Connection { peer, app: app.clone(), http: Arc::clone(&http), activity: Arc::clone(&activity) };
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
                () = activity.evicted.cancelled() => tracing::debug!(%peer, "closed an idle connection"),
                () = closing.cancelled() => {}
            }
            drop(permit);
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
    open: Mutex<OpenConnections>,
    closed: Notify,
}

#[derive(Default)]
struct OpenConnections {
    next: u64,
    connections: HashMap<u64, OpenConnection>,
    by_network: HashMap<IpAddr, usize>,
}

struct OpenConnection {
    network: IpAddr,
    activity: Arc<ConnectionActivity>,
}

/// A counted connection; dropping it releases its place.
struct ConnectionPermit {
    limits: Arc<ConnectionLimits>,
    id: u64,
    activity: Arc<ConnectionActivity>,
}

/// What a connection is used for.
struct ConnectionActivity {
    state: Mutex<ActivityState>,
    /// Cancelled when the place is given to another connection.
    evicted: CancellationToken,
}

struct ActivityState {
    /// The number of requests whose responses aren't sent yet.
    requests: usize,
    /// Whether an authorized request was answered.
    is_authorized: bool,
    idle_since: Instant,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            max: MAX_CONNECTIONS,
            max_per_network: MAX_CONNECTIONS_PER_NETWORK,
            open: Mutex::default(),
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
        if open.by_network.get(&network).is_some_and(|count| *count >= self.max_per_network)
            && !open.evict(Some(network))
        {
            return Ok(None);
        }
        if open.connections.len() >= self.max && !open.evict(None) {
            return Err(Full);
        }
        let id = open.next;
        open.next += 1;
        let activity = Arc::new(ConnectionActivity::new());
        open.connections.insert(id, OpenConnection { network, activity: Arc::clone(&activity) });
        *open.by_network.entry(network).or_default() += 1;
        Ok(Some(ConnectionPermit { limits: Arc::clone(self), id, activity }))
    }

    fn open(&self) -> MutexGuard<'_, OpenConnections> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All places are taken by connections in use.
struct Full;

impl OpenConnections {
    /// Closes an idle connection, of this network if given.
    fn evict(&mut self, of: Option<IpAddr>) -> bool {
        let idle = self.connections.iter().filter(|(_, it)| of.is_none_or(|network| it.network == network));
        let idle = idle.filter_map(|(id, it)| {
            let state = it.activity.state();
            // All connections of one network may be idle and authorized: those are not closed for each other.
            let may_close = state.requests == 0 && (of.is_none() || !state.is_authorized);
            may_close.then_some((state.is_authorized, state.idle_since, *id))
        });
        let Some((.., id)) = idle.min() else { return false };
        if let Some(evicted) = self.remove(id) {
            evicted.activity.evicted.cancel();
        }
        true
    }

    fn remove(&mut self, id: u64) -> Option<OpenConnection> {
        let removed = self.connections.remove(&id)?;
        if let Entry::Occupied(mut count) = self.by_network.entry(removed.network) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
        Some(removed)
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        // An evicted connection was removed already.
        if self.limits.open().remove(self.id).is_some() {
            self.limits.closed.notify_one();
        }
    }
}

impl ConnectionActivity {
    fn new() -> Self {
        let state = ActivityState { requests: 0, is_authorized: false, idle_since: Instant::now() };
        Self { state: Mutex::new(state), evicted: CancellationToken::new() }
    }

    fn state(&self) -> MutexGuard<'_, ActivityState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start_request(self: &Arc<Self>) -> RunningRequest {
        self.state().requests += 1;
        RunningRequest { activity: Arc::clone(self), is_authorized: false }
    }

    /// Whether the connection is idle for too long without an answered authorized request. An HTTP/2 client
    /// could keep it open for ever by answering pings.
    fn is_unused(&self) -> bool {
        let state = self.state();
        state.requests == 0 && !state.is_authorized && state.idle_since.elapsed() >= HEADER_TIMEOUT
    }
}

/// A request of a connection until its response is sent or dropped.
struct RunningRequest {
    activity: Arc<ConnectionActivity>,
    is_authorized: bool,
}

impl Drop for RunningRequest {
    fn drop(&mut self) {
        let mut state = self.activity.state();
        state.requests = state.requests.saturating_sub(1);
        state.is_authorized |= self.is_authorized;
        state.idle_since = Instant::now();
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
    activity: Arc<ConnectionActivity>,
}

impl Connection {
    async fn serve<S>(self, stream: S, watcher: hyper_util::server::graceful::Watcher)
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        let Self { peer, app, http, activity } = self;
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(WRITE_TIMEOUT));
        let service = hyper::service::service_fn({
            let activity = Arc::clone(&activity);
            move |request: Request<Incoming>| respond(app.clone(), peer, activity.start_request(), request)
        });
        let connection = http.serve_connection(TokioIo::new(Box::pin(stream)), service).into_owned();
        let mut connection = pin!(watcher.watch(connection));
        let ended = loop {
            tokio::select! {
                ended = &mut connection => break ended,
                // hyper's own timeouts start after it has detected the HTTP version, and not for HTTP/2.
                () = tokio::time::sleep(HEADER_TIMEOUT) => {
                    if activity.is_unused() {
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
        permit.activity.start_request().is_authorized = true;
        permit
    }

    #[test]
    fn connections_are_limited_by_network() {
        let limits = limits(10, 2);
        let [first, second] = [1, 1].map(|last| acquire(&limits, last).expect("a place"));
        let running = [&first, &second].map(|it| it.activity.start_request());
        assert!(acquire(&limits, 1).is_none());
        assert!(acquire(&limits, 2).is_some());
        drop(first);
        assert!(acquire(&limits, 1).is_some());
        drop((second, running));
        assert!(limits.open().by_network.is_empty() && limits.open().connections.is_empty());
    }

    #[test]
    fn idle_connections_make_room() {
        let limits = limits(3, 2);
        let known = authorized(acquire(&limits, 1).expect("a place"));
        let idle = acquire(&limits, 2).expect("a place");
        let busy = acquire(&limits, 2).expect("a place");
        let request = busy.activity.start_request();
        let new = acquire(&limits, 3).expect("the idle one's place");
        let is_closed = |permit: &ConnectionPermit| permit.activity.evicted.is_cancelled();
        assert!(is_closed(&idle) && !is_closed(&known) && !is_closed(&busy));
        let newer = acquire(&limits, 2).expect("an idle one's place");
        assert!(is_closed(&new) && !is_closed(&known));
        let newest = acquire(&limits, 2).expect("the place of an idle one of its own network");
        assert!(is_closed(&newer) && !is_closed(&known));
        let running = newest.activity.start_request();
        assert!(acquire(&limits, 2).is_none(), "its network has no place");
        let last = acquire(&limits, 4).expect("the place of an authorized one");
        assert!(is_closed(&known));
        let also = last.activity.start_request();
        assert!(limits.try_acquire(network(5)).is_err(), "all are in use");
        drop((idle, request, running, also, busy));
        assert_eq!(limits.open().connections.len(), 2);
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
