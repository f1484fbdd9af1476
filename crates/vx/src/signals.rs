use std::sync::{Arc, OnceLock};

use tokio_util::sync::CancellationToken;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signal {
    Interrupt,
    Terminate,
}

impl Signal {
    /// The exit code that shells use: 128 plus the signal number.
    pub(crate) const fn exit_code(self) -> u8 {
        match self {
            Self::Interrupt => 130,
            Self::Terminate => 143,
        }
    }
}

/// The signal handler of a command, with the first signal received. Dropped, it ignores further ones.
#[derive(Debug)]
#[must_use = "signals are ignored once it is dropped"]
pub(crate) struct SignalWatch {
    first: Arc<OnceLock<Signal>>,
    watcher: tokio::task::AbortHandle,
}

impl SignalWatch {
    pub(crate) fn received(&self) -> Option<Signal> {
        self.first.get().copied()
    }

    /// Ignores further signals. They also reach the child process, which handles them.
    pub(crate) fn stop(&self) {
        self.watcher.abort();
    }
}

/// Cancels `cancel` and calls `on_signal` on the first signal; exits immediately on the second one.
pub(crate) fn watch(
    cancel: CancellationToken,
    on_signal: impl FnOnce(Signal) + Send + 'static,
) -> std::io::Result<SignalWatch> {
    let mut source = SignalSource::listen()?;
    let first = Arc::new(OnceLock::new());
    let slot = Arc::clone(&first);
    let watcher = tokio::spawn(async move {
        let signal = source.next().await;
        let _ = slot.set(signal);
        cancel.cancel();
        on_signal(signal);
        let again = source.next().await;
        std::process::exit(again.exit_code().into());
    });
    Ok(SignalWatch { first, watcher: watcher.abort_handle() })
}

impl Drop for SignalWatch {
    fn drop(&mut self) {
        self.stop();
    }
}

#[cfg(unix)]
struct SignalSource {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl SignalSource {
    fn listen() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn next(&mut self) -> Signal {
        tokio::select! {
            Some(()) = self.interrupt.recv() => Signal::Interrupt,
            Some(()) = self.terminate.recv() => Signal::Terminate,
            else => std::future::pending().await,
        }
    }
}

#[cfg(windows)]
struct SignalSource {
    interrupt: tokio::signal::windows::CtrlC,
}

#[cfg(windows)]
impl SignalSource {
    fn listen() -> std::io::Result<Self> {
        Ok(Self { interrupt: tokio::signal::windows::ctrl_c()? })
    }

    async fn next(&mut self) -> Signal {
        match self.interrupt.recv().await {
            Some(()) => Signal::Interrupt,
            None => std::future::pending().await,
        }
    }
}
