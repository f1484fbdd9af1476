use std::sync::{Arc, OnceLock};

use tokio_util::sync::CancellationToken;

/// A request to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signal {
    /// SIGINT, Ctrl-C.
    Interrupt,
    /// SIGTERM.
    Terminate,
}

impl Signal {
    /// What a shell reports for a program that it ended: 128 and the signal's number.
    pub(crate) const fn exit_code(self) -> u8 {
        match self {
            Self::Interrupt => 130,
            Self::Terminate => 143,
        }
    }
}

/// The first signal that came since [`watch`].
#[derive(Debug)]
pub(crate) struct Received {
    first: Arc<OnceLock<Signal>>,
    watcher: tokio::task::AbortHandle,
}

impl Received {
    pub(crate) fn signal(&self) -> Option<Signal> {
        self.first.get().copied()
    }

    /// Nothing follows from a signal any more: another program of the same terminal gets it too, and knows what to do.
    pub(crate) fn leave_to_others(&self) {
        self.watcher.abort();
    }
}

/// Cancels `cancel` on the first signal and calls `told`; the second signal ends the process at once, for those who
/// won't wait for the clean-up.
pub(crate) fn watch(
    cancel: CancellationToken,
    told: impl FnOnce(Signal) + Send + 'static,
) -> std::io::Result<Received> {
    let mut source = Source::listen()?;
    let first = Arc::new(OnceLock::new());
    let slot = Arc::clone(&first);
    let watcher = tokio::spawn(async move {
        let signal = source.next().await;
        let _ = slot.set(signal);
        cancel.cancel();
        told(signal);
        let again = source.next().await;
        std::process::exit(again.exit_code().into());
    });
    Ok(Received { first, watcher: watcher.abort_handle() })
}

#[cfg(unix)]
struct Source {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Source {
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
struct Source {
    interrupt: tokio::signal::windows::CtrlC,
}

#[cfg(windows)]
impl Source {
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
