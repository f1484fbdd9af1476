//! Listening on localhost, with threads of its own.

use std::{net::TcpListener, time::Duration};

use tokio::runtime::{Builder, Runtime};

/// A runtime with its own threads, and a listener of it on a free port.
pub(crate) fn listen() -> (Runtime, tokio::net::TcpListener) {
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("testkit")
        .enable_all()
        .build()
        .expect("threads for the test server");
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port on 127.0.0.1");
    listener.set_nonblocking(true).expect("a socket that doesn't block");
    let listener = {
        let _inside = runtime.enter();
        tokio::net::TcpListener::from_std(listener).expect("a listening socket")
    };
    (runtime, listener)
}

/// Ends a runtime and what runs on it, and waits for it: a test's process may end right after.
pub(crate) fn stop(runtime: Option<Runtime>) {
    if let Some(runtime) = runtime {
        // On a thread of its own, since the caller may be inside another runtime, which forbids waiting.
        let _ = std::thread::spawn(move || runtime.shutdown_timeout(Duration::from_secs(2))).join();
    }
}
