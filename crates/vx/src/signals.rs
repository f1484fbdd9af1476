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

/// The first signal that came since [`watch`].
#[derive(Debug, Clone, Default)]
pub(crate) struct Received(Arc<OnceLock<Signal>>);

impl Received {
    pub(crate) fn signal(&self) -> Option<Signal> {
        self.0.get().copied()
    }
}

/// Cancels `cancel` on the first signal and calls `told`; the second signal ends the process at once, for those who
/// won't wait for the clean-up.
pub(crate) fn watch(
    cancel: CancellationToken,
    told: impl FnOnce(Signal) + Send + 'static,
) -> std::io::Result<Received> {
    let mut source = Source::listen()?;
    let received = Received::default();
    let slot = received.clone();
    tokio::spawn(async move {
        let signal = source.next().await;
        let _ = slot.0.set(signal);
        cancel.cancel();
        told(signal);
        let again = source.next().await;
        std::process::exit(crate::exit::Ending::Interrupted(again).number().into());
    });
    Ok(received)
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
