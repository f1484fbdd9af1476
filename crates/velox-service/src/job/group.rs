//! A child with all that it starts.

use std::{
    io,
    process::ExitStatus,
    time::{Duration, Instant},
};

use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};

use crate::options::JobLimits;

/// How long the system may take to bury what was killed.
const BURIAL: Duration = Duration::from_secs(10);

/// A child that leads a process group. Dropped while it runs, the whole group is killed.
pub(super) struct Group {
    child: Child,
    #[cfg(unix)]
    id: Option<rustix::process::Pid>,
    ended: bool,
}

impl Group {
    pub(super) fn spawn(mut command: Command) -> io::Result<Self> {
        #[cfg(unix)]
        command.process_group(0);
        let child = command.kill_on_drop(true).spawn()?;
        Ok(Self {
            #[cfg(unix)]
            id: child.id().and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw),
            child,
            ended: false,
        })
    }

    pub(super) fn streams(&mut self) -> (Option<ChildStdin>, Option<ChildStdout>, Option<ChildStderr>) {
        (self.child.stdin.take(), self.child.stdout.take(), self.child.stderr.take())
    }

    /// Waits so long for the child, after a signal where it is to be asked, and returns when nothing is left of the group.
    pub(super) async fn end(&mut self, grace: Duration, ask: bool) -> Option<ExitStatus> {
        if ask {
            self.signal(false);
        }
        let mut status = tokio::time::timeout(grace, self.child.wait()).await.ok().and_then(Result::ok);
        self.signal(true);
        if status.is_none() {
            status = self.child.wait().await.ok();
        }
        self.gone().await;
        self.ended = true;
        status
    }

    /// The number of the child, as long as it wasn't waited for.
    pub(super) fn process(&self) -> Option<u32> {
        self.child.id()
    }

    /// Limits that hold for each process of the group, before it does anything.
    #[cfg(target_os = "linux")]
    pub(super) fn confine(&self, limits: &JobLimits) {
        use rustix::process::{Resource, Rlimit, getrlimit, prlimit, setpriority_pgrp};
        /// As many files as a linker with a thousand packages opens.
        const FILES: u64 = 16 << 10;
        /// The service itself has to answer meanwhile.
        const NICE: i32 = 10;
        for (resource, most) in [
            (Resource::Data, limits.memory),
            (Resource::Fsize, limits.disk),
            (Resource::Core, 0),
            (Resource::Nofile, FILES),
        ] {
            // What may be had at most stays so.
            let hard = getrlimit(resource).maximum.map_or(most, |hard| hard.min(most));
            let limit = Rlimit { current: Some(hard), maximum: Some(hard) };
            if let Err(error) = prlimit(self.id, resource, limit) {
                tracing::warn!(?resource, %error, "a job's limit can't be set");
            }
        }
        let _ = setpriority_pgrp(self.id, NICE);
    }

    #[cfg(not(target_os = "linux"))]
    pub(super) fn confine(&self, _: &JobLimits) {}

    #[cfg(unix)]
    fn signal(&mut self, kill: bool) {
        use rustix::process::{Signal, kill_process_group};
        if let Some(group) = self.id {
            let _ = kill_process_group(group, if kill { Signal::KILL } else { Signal::TERM });
        }
    }

    #[cfg(not(unix))]
    fn signal(&mut self, _kill: bool) {
        let _ = self.child.start_kill();
    }

    /// Until no process of the group is there any more.
    #[cfg(unix)]
    async fn gone(&self) {
        use rustix::process::{WaitOptions, test_kill_process_group, waitpgid};
        let Some(group) = self.id else { return };
        let since = Instant::now();
        while since.elapsed() < BURIAL {
            // Where this process is the first of its container, the orphans are its own to bury.
            while matches!(waitpgid(group, WaitOptions::NOHANG), Ok(Some(_))) {}
            if test_kill_process_group(group).is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        tracing::warn!("killed processes of a job are still there");
    }

    #[cfg(not(unix))]
    async fn gone(&self) {}
}

impl Drop for Group {
    fn drop(&mut self) {
        if !self.ended {
            self.signal(true);
        }
    }
}
