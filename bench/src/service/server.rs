//! A build service under measurement: one process in a sandbox, on its own port.

use std::{
    fs::{self, File},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::sandbox::Sandbox;

/// Timeout until a service listens.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// A running service, killed when dropped.
pub(crate) struct ServiceProcess {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl ServiceProcess {
    /// Starts the command that `command` returns for an address, and waits until it listens.
    pub(crate) fn start(
        sandbox: &Sandbox,
        address: SocketAddr,
        command: impl FnOnce(&str) -> Command,
    ) -> Result<Self> {
        let mut command = command(&address.to_string());
        let log = File::options()
            .create(true)
            .append(true)
            .open(sandbox.log())
            .context("failed to create the log")?;
        let child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn();
        let mut server = Self { child: child.context("failed to start the service")?, address };
        let until = Instant::now() + START_TIMEOUT;
        while TcpStream::connect(address).is_err() {
            if let Some(status) = server.child.try_wait()? {
                let said = fs::read_to_string(sandbox.log()).unwrap_or_default();
                bail!("the service exited: {status}\n{said}");
            }
            if Instant::now() > until {
                bail!("the service doesn't listen after {} s", START_TIMEOUT.as_secs());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(server)
    }

    /// Current resident memory of the service's own process, in bytes.
    pub(crate) fn memory(&self) -> u64 {
        resident(self.child.id()).unwrap_or(0)
    }

    /// Sends SIGKILL, like a power failure.
    pub(crate) fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for ServiceProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An address without a listener.
pub(crate) fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?)
}

fn resident(process: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kib| kib << 10)
}

/// A `go` wrapper that counts builds of RoadRunner.
pub(crate) struct CountingGo {
    directory: PathBuf,
    /// In GOCACHE, since a job of vx can't write elsewhere.
    count: PathBuf,
}

impl CountingGo {
    pub(crate) fn new(directory: PathBuf, sandbox: &Sandbox) -> Result<Self> {
        fs::create_dir_all(&directory)?;
        let real = std::env::var_os("PATH")
            .and_then(|path| std::env::split_paths(&path).map(|part| part.join("go")).find(|go| go.is_file()))
            .context("no go on the PATH")?;
        let count = sandbox.builds().join("counted");
        File::create(&count)?;
        let script = format!(
            "#!/bin/sh\nfor word in \"$@\"; do case $1:$word in build:./cmd/rr|build:cmd/rr/main.go) echo x >>'{}' ;; esac; done\n\
             exec '{}' \"$@\"\n",
            count.display(),
            real.display()
        );
        let go = directory.join("go");
        fs::write(&go, script)?;
        fs::set_permissions(&go, fs::Permissions::from_mode(0o755))?;
        Ok(Self { directory, count })
    }

    /// The number of builds since the last call.
    pub(crate) fn take(&self) -> Result<usize> {
        let builds = fs::read_to_string(&self.count)?.lines().count();
        File::create(&self.count)?;
        Ok(builds)
    }

    /// The PATH with this wrapper first.
    pub(crate) fn path(&self) -> Result<std::ffi::OsString> {
        let before = std::env::var_os("PATH").unwrap_or_default();
        let parts = [self.directory.clone()].into_iter().chain(std::env::split_paths(&before));
        Ok(std::env::join_paths(parts.filter(|part| part.is_dir() || part == Path::new("")))?)
    }
}
