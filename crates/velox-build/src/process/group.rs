//! A child process with all processes that it starts.

use std::{
    io,
    process::ExitStatus,
    time::{Duration, Instant},
};

use tokio::process::{Child, Command};

/// The maximum time to wait for killed processes to end.
const REAP_TIMEOUT: Duration = Duration::from_secs(10);
const REAP_POLL_INTERVAL: Duration = Duration::from_millis(5);

/// The signal that asks a process to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndSignal {
    /// SIGINT.
    Interrupt,
    /// SIGTERM.
    Terminate,
}

/// A child process that leads a process group. Dropped while it runs, the whole group is killed.
pub struct ProcessGroup {
    child: Child,
    #[cfg(unix)]
    id: Option<rustix::process::Pid>,
    /// Whether the group is the child's own; else only the child is signalled.
    #[cfg(unix)]
    leads: bool,
    ended: bool,
}

impl ProcessGroup {
    /// Starts the command; with `leads` as the leader of a new group, else in the group of this process.
    ///
    /// # Errors
    /// The command can't be started.
    #[cfg_attr(not(unix), expect(unused_variables, reason = "there are no groups"))]
    pub fn spawn(mut command: Command, leads: bool) -> io::Result<Self> {
        #[cfg(unix)]
        if leads {
            command.process_group(0);
        }
        let child = command.kill_on_drop(true).spawn()?;
        Ok(Self {
            #[cfg(unix)]
            id: child.id().and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw),
            #[cfg(unix)]
            leads,
            child,
            ended: false,
        })
    }

    /// The child, for its streams and its process id.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Waits for the child.
    ///
    /// # Errors
    /// As [`Child::wait`].
    pub async fn wait(&mut self) -> io::Result<ExitStatus> {
        let status = self.child.wait().await?;
        self.ended = true;
        Ok(status)
    }

    /// Sends `signal`, waits up to `grace` for the child, then kills the group and waits for its end.
    pub async fn end(&mut self, signal: Option<EndSignal>, grace: Duration) -> Option<ExitStatus> {
        if let Some(signal) = signal {
            self.signal(Some(signal));
        }
        let mut status = tokio::time::timeout(grace, self.child.wait()).await.ok().and_then(Result::ok);
        self.signal(None);
        if status.is_none() {
            status = self.child.wait().await.ok();
        }
        self.reap().await;
        self.ended = true;
        status
    }

    /// `None` kills.
    #[cfg(unix)]
    fn signal(&mut self, signal: Option<EndSignal>) {
        use rustix::process::{Signal, kill_process, kill_process_group};
        let signal = match signal {
            Some(EndSignal::Interrupt) => Signal::INT,
            Some(EndSignal::Terminate) => Signal::TERM,
            None => Signal::KILL,
        };
        match self.id {
            Some(group) if self.leads => {
                let _ = kill_process_group(group, signal);
            }
            // After the wait, another process may have this id.
            Some(child) if self.child.id().is_some() => {
                let _ = kill_process(child, signal);
            }
            _ => {}
        }
    }

    #[cfg(not(unix))]
    fn signal(&mut self, _signal: Option<EndSignal>) {
        let _ = self.child.start_kill();
    }

    /// Waits until the group has no process.
    #[cfg(unix)]
    async fn reap(&self) {
        use rustix::process::{WaitOptions, test_kill_process_group, waitpgid};
        let Some(group) = self.id.filter(|_| self.leads) else { return };
        let since = Instant::now();
        while since.elapsed() < REAP_TIMEOUT {
            // As the first process of a container, this one is the parent of orphans.
            while matches!(waitpgid(group, WaitOptions::NOHANG), Ok(Some(_))) {}
            if test_kill_process_group(group).is_err() {
                return;
            }
            tokio::time::sleep(REAP_POLL_INTERVAL).await;
        }
        tracing::warn!("killed processes are still running");
    }

    #[cfg(not(unix))]
    async fn reap(&self) {}
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        if !self.ended {
            self.signal(None);
        }
    }
}
