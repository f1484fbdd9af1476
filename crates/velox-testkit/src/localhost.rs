//! Localhost servers with their own threads.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    net::TcpStream,
    runtime::{Builder, Runtime},
};

/// A bound listener that isn't accepting connections yet.
pub(crate) struct Bound {
    listener: TcpListener,
    pub(crate) address: SocketAddr,
}

/// A server on 127.0.0.1 with its own runtime, stopped when dropped.
#[derive(Debug)]
pub(crate) struct LocalServer {
    pub(crate) address: SocketAddr,
    runtime: Option<Runtime>,
}

/// Binds a free port of 127.0.0.1.
pub(crate) fn bind() -> Bound {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port on 127.0.0.1");
    listener.set_nonblocking(true).expect("a non-blocking socket");
    let address = listener.local_addr().expect("a bound socket has an address");
    Bound { listener, address }
}

impl Bound {
    /// Runs `connection` in a task per connection.
    pub(crate) fn serve<F: Future<Output = ()> + Send + 'static>(
        self,
        connection: impl Fn(TcpStream) -> F + Send + 'static,
    ) -> LocalServer {
        let runtime = Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("testkit")
            .enable_all()
            .build()
            .expect("threads for the test server");
        let Self { listener, address } = self;
        runtime.spawn(async move {
            let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
            while let Ok((stream, _)) = listener.accept().await {
                let _ = stream.set_nodelay(true);
                tokio::spawn(connection(stream));
            }
        });
        LocalServer { address, runtime: Some(runtime) }
    }
}

impl Drop for LocalServer {
    /// Waits for the runtime, since the test process may exit right after.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // On a separate thread, since the caller may be inside another runtime, which forbids waiting.
            let _ = std::thread::spawn(move || runtime.shutdown_timeout(Duration::from_secs(2))).join();
        }
    }
}

/// A port of 127.0.0.1 that was free on return.
pub(crate) fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
