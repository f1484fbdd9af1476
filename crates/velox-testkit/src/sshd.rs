use std::{
    fs, io,
    net::TcpStream,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::{Repo, localhost::free_port};

/// git over ssh on localhost: OpenSSH's sshd with generated keys, and an ssh-agent with the user's key.
///
/// [`environment`](Self::environment) redirects ssh for every host to it, as a company's ssh configuration
/// could, so `ssh://git@github.com/OWNER/REPOSITORY` reaches it. It works for root and other users.
#[derive(Debug)]
pub struct Sshd {
    directory: TempDir,
    port: u16,
    user: String,
    server: Child,
    agent: Child,
}

/// Runs git's command for any host and user of the URL. `@...@` are replaced.
const SERVE: &str = r#"#!/bin/sh
# Only reading, only what was published here. Git writes: git-upload-pack '/owner/repository'
echo "$SSH_ORIGINAL_COMMAND" >>'@DIR@/requests'
case $SSH_ORIGINAL_COMMAND in
"git-upload-pack '"*"'") ;;
*)
    echo "this server only reads git repositories" >&2
    exit 1
    ;;
esac
name=${SSH_ORIGINAL_COMMAND#"git-upload-pack '"}
name=${name%"'"}
name=${name#/}
repository='@DIR@/repositories/'${name%.git}
if [ ! -d "$repository" ]; then
    echo "there is no repository $name" >&2
    exit 1
fi
export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1
exec git-upload-pack "$repository"
"#;

const SERVER_CONFIGURATION: &str = "\
ListenAddress 127.0.0.1
HostKey @DIR@/host
AuthorizedKeysFile @DIR@/authorized
ForceCommand @DIR@/serve
SetEnv PATH=@PATH@
AuthenticationMethods publickey
PermitRootLogin yes
StrictModes no
UsePAM no
PidFile none
";

const CLIENT_CONFIGURATION: &str = "\
Host *
    HostName 127.0.0.1
    Port @PORT@
    HostKeyAlias testkit
    UserKnownHostsFile @DIR@/known_hosts
    GlobalKnownHostsFile /dev/null
    StrictHostKeyChecking yes
    PreferredAuthentications publickey
    IdentityFile none
    BatchMode yes
";

impl Sshd {
    /// Starts sshd and ssh-agent. An error names what is missing, or has sshd's message.
    pub fn start() -> io::Result<Self> {
        let program = program("sshd").ok_or_else(|| {
            io::Error::new(io::ErrorKind::NotFound, "no sshd found (Debian: openssh-server)")
        })?;
        let user = stdout_of(Command::new("id").arg("-un"))?;
        if stdout_of(Command::new("id").arg("-u"))? == "0" {
            // sshd's privilege separation directory, which services create at boot.
            fs::create_dir_all("/run/sshd")?;
        }
        let directory = tempfile::Builder::new().prefix("testkit-sshd-").tempdir()?;
        let path = directory.path();
        let port = free_port()?;
        for key in ["host", "user"] {
            let file = path.join(key);
            stdout_of(
                Command::new("ssh-keygen")
                    .args(["-q", "-t", "ed25519", "-N", "", "-C", "testkit", "-f"])
                    .arg(file),
            )?;
        }
        fs::copy(path.join("user.pub"), path.join("authorized"))?;
        let host_key = fs::read_to_string(path.join("host.pub"))?;
        fs::write(path.join("known_hosts"), format!("testkit {host_key}"))?;
        fs::create_dir(path.join("repositories"))?;
        let fill = |text: &str| {
            text.replace("@DIR@", &path.to_string_lossy())
                .replace("@PORT@", &port.to_string())
                .replace("@PATH@", &std::env::var("PATH").unwrap_or_else(|_| "/usr/bin:/bin".to_owned()))
        };
        fs::write(path.join("serve"), fill(SERVE))?;
        fs::set_permissions(path.join("serve"), fs::Permissions::from_mode(0o755))?;
        fs::write(path.join("sshd_config"), fill(SERVER_CONFIGURATION))?;
        fs::write(path.join("ssh_config"), fill(CLIENT_CONFIGURATION))?;

        let agent = Command::new("ssh-agent")
            .arg("-D")
            .arg("-a")
            .arg(path.join("agent"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()?;
        let log = fs::File::create(path.join("log"))?;
        let server = Command::new(program)
            .args(["-D", "-e", "-p", &port.to_string(), "-f"])
            .arg(path.join("sshd_config"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        let server = match server {
            Ok(server) => server,
            Err(error) => {
                stop(agent);
                return Err(error);
            }
        };
        let mut sshd = Self { directory, port, user, server, agent };
        sshd.wait()?;
        let key = sshd.directory.path().join("user");
        stdout_of(Command::new("ssh-add").arg("-q").arg(&key).env("SSH_AUTH_SOCK", sshd.socket()))?;
        // Now only the agent has the key.
        fs::remove_file(key)?;
        Ok(sshd)
    }

    /// Serves a repository as `NAME` (`owner/repository`), with and without `.git`.
    pub fn repository(&self, name: &str, repo: &Repo) -> io::Result<&Self> {
        let link = self.directory.path().join("repositories").join(name);
        if let Some(owner) = link.parent() {
            fs::create_dir_all(owner)?;
        }
        symlink(repo.git_dir(), link)?;
        Ok(self)
    }

    /// The variables of a user whose agent is running: GIT_SSH_COMMAND and SSH_AUTH_SOCK.
    pub fn environment(&self) -> Vec<(String, String)> {
        // The URL's user is git; sshd knows only this machine's users.
        let command =
            format!("ssh -F {} -l {}", self.directory.path().join("ssh_config").display(), self.user);
        let socket = self.socket().to_string_lossy().into_owned();
        vec![("GIT_SSH_COMMAND".to_owned(), command), ("SSH_AUTH_SOCK".to_owned(), socket)]
    }

    /// The clients' commands, in order.
    pub fn requests(&self) -> Vec<String> {
        let text = fs::read_to_string(self.directory.path().join("requests")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("agent")
    }

    /// Waits until both accept connections.
    fn wait(&mut self) -> io::Result<()> {
        let since = Instant::now();
        loop {
            let ready = TcpStream::connect(("127.0.0.1", self.port)).is_ok();
            if ready && self.socket().exists() {
                return Ok(());
            }
            let ended = self.server.try_wait()?;
            if ended.is_some() || since.elapsed() > Duration::from_secs(20) {
                let log = fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
                return Err(io::Error::other(format!("sshd is not listening: {}", log.trim())));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        for child in [&mut self.server, &mut self.agent] {
            // The processes may have exited already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn stop(mut child: Child) {
    let _ = child.kill();
    let _ = child.wait();
}

/// A program on the PATH or in the system's sbin directories. sshd requires an absolute path.
fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let services = ["/usr/sbin", "/usr/local/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(services)
        .map(|folder: PathBuf| folder.join(name))
        .find(|file| is_file(file))
}

fn is_file(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.is_file())
}

/// The standard output of a program, trimmed.
fn stdout_of(command: &mut Command) -> io::Result<String> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| {
        io::Error::new(error.kind(), format!("{}: {error}", command.get_program().to_string_lossy()))
    })?;
    if !output.status.success() {
        return Err(io::Error::other(format!(
            "{command:?}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        )));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
