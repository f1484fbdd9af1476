//! Connections: how many, how slow they may be, and how they end.

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

use crate::auth::network;

/// How many connections there may be at once; more wait until others end.
const CONNECTIONS: usize = 4096;

/// How many of them may come from one network: nobody takes the place of all others.
const OF_ONE: usize = CONNECTIONS / 4 * 3;
/// How many requests there may be at once on a connection of HTTP/2.
const STREAMS: u32 = 128;

/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// How long the head of a request may take, and how long a connection may idle.
const HEAD: Duration = Duration::from_secs(30);

/// How long a client may take nothing of what it is sent.
const STALLED: Duration = Duration::from_secs(60);

/// How often a connection of HTTP/2 is asked whether somebody is still there.
const PING: Duration = Duration::from_secs(30);

/// What is kept ready to be sent on a connection of HTTP/1, in bytes, beside one piece of a body: what a client costs that
/// takes nothing of it. It is the longest head of a request, too.
const AHEAD: usize = 16 << 10;

/// The same on one stream of HTTP/2, whose frames are as long as the above.
const STREAM_AHEAD: usize = 64 << 10;

/// How long to wait where the system has no more descriptors.
const BREATH: Duration = Duration::from_millis(50);

/// Accepts connections until `draining`, then waits until those that are open end, or `closing`.
pub(crate) async fn run(
    listener: TcpListener,
    tls: Option<ServerConfig>,
    app: Router,
    draining: CancellationToken,
    closing: CancellationToken,
) {
    let tls = tls.map(|tls| TlsAcceptor::from(Arc::new(tls)));
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let guests = Arc::new(Guests::default());
    let open = GracefulShutdown::new();
    let http = Arc::new(http());
    loop {
        let accepted = async {
            // It is never closed.
            let place = Arc::clone(&room).acquire_owned().await.ok();
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            accepted = accepted => accepted,
            () = draining.cancelled() => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                pause(&error).await;
                continue;
            }
        };
        let Some(guest) = guests.enter(network(peer.ip()), OF_ONE) else {
            tracing::debug!(%peer, "it has too many connections");
            continue;
        };
        // Answers are written whole: waiting for more only delays them.
        let _ = stream.set_nodelay(true);
        let connection = Connection { peer, app: app.clone(), http: Arc::clone(&http) };
        let (tls, watcher, closing) = (tls.clone(), open.watcher(), closing.clone());
        tokio::spawn(async move {
            let served = async {
                match tls {
                    None => connection.serve(stream, watcher).await,
                    Some(tls) => match tokio::time::timeout(HANDSHAKE, tls.accept(stream)).await {
                        Ok(Ok(stream)) => connection.serve(stream, watcher).await,
                        Ok(Err(error)) => tracing::debug!(%peer, %error, "no TLS connection came about"),
                        Err(_) => tracing::debug!(%peer, "the TLS handshake took too long"),
                    },
                }
            };
            tokio::select! {
                () = served => {}
                () = closing.cancelled() => {}
            }
            drop((place, guest));
        });
    }
    drop(listener);
    tokio::select! {
        () = open.shutdown() => {}
        () = closing.cancelled() => {}
    }
}

/// How many connections there are from where.
#[derive(Default)]
struct Guests(Mutex<HashMap<IpAddr, usize>>);

/// One of them; dropped with its connection.
struct Guest {
    guests: Arc<Guests>,
    from: IpAddr,
}

impl Guests {
    /// One more from there, unless there are `most` already.
    fn enter(self: &Arc<Self>, from: IpAddr, most: usize) -> Option<Guest> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(from).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(Guest { guests: Arc::clone(self), from })
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut counts = self.guests.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut count) = counts.entry(self.from) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

/// A connection that was over before it was accepted is its client's concern; anything else may pass.
async fn pause(error: &io::Error) {
    if !matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) {
        tracing::warn!(%error, "can't accept connections");
        tokio::time::sleep(BREATH).await;
    }
}

fn http() -> auto::Builder<TokioExecutor> {
    let mut http = auto::Builder::new(TokioExecutor::new());
    http.http1().timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(AHEAD);
    http.http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_send_buf_size(STREAM_AHEAD)
        .keep_alive_interval(PING)
        .keep_alive_timeout(HEAD);
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
        stream.set_write_timeout(Some(STALLED));
        let asked = Arc::new(AtomicBool::new(false));
        let service = hyper::service::service_fn({
            let asked = Arc::clone(&asked);
            move |request: Request<Incoming>| {
                asked.store(true, Ordering::Relaxed);
                answer(app.clone(), peer, request)
            }
        });
        let connection = http.serve_connection(TokioIo::new(Box::pin(stream)), service).into_owned();
        let mut connection = pin!(watcher.watch(connection));
        let ended = tokio::select! {
            ended = &mut connection => ended,
            // hyper waits for a head with a time limit once it knows the version; before that, for ever.
            () = tokio::time::sleep(HEAD) => {
                if !asked.load(Ordering::Relaxed) {
                    tracing::debug!(%peer, "no request came");
                    return;
                }
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%peer, %error, "a connection broke");
        }
    }
}

async fn answer(
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
    fn nobody_has_all_places() {
        let guests = Arc::new(Guests::default());
        let from = |last| IpAddr::from([10, 0, 0, last]);
        let first = guests.enter(from(1), 2);
        let second = guests.enter(from(1), 2);
        assert!(first.is_some() && second.is_some() && guests.enter(from(1), 2).is_none());
        assert!(guests.enter(from(2), 2).is_some(), "another's places are another's");
        drop(first);
        assert!(guests.enter(from(1), 2).is_some());
        drop(second);
        assert!(guests.0.lock().expect("nobody panicked").is_empty());
    }
}
