use std::{
    fs,
    io::{self, BufRead, BufReader},
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use nkeys::KeyPair;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::localhost::free_port;

/// A NATS server with JetStream on localhost; its files are removed when it is dropped.
#[derive(Debug)]
pub struct NatsServer {
    directory: TempDir,
    port: u16,
    configuration: String,
    server: Child,
}

impl NatsServer {
    /// Starts a server. An error names what is missing, or has the server's log.
    pub fn start() -> io::Result<Self> {
        Self::start_with("")
    }

    /// Starts a server with additional NATS configuration, in which `@DIR@` is its directory.
    pub fn start_with(configuration: &str) -> io::Result<Self> {
        let directory = tempfile::Builder::new().prefix("testkit-nats-").tempdir()?;
        let configuration = configuration.replace("@DIR@", &directory.path().to_string_lossy());
        // Another process may take the port first.
        for left in (0..5).rev() {
            let port = free_port()?;
            let mut server = run(&directory, port, &configuration)?;
            match wait(&mut server, &directory, port) {
                Ok(()) => return Ok(Self { directory, port, configuration, server }),
                Err(error) if left == 0 => return Err(error),
                Err(_) => end(&mut server)?,
            }
        }
        Err(io::Error::other("nats-server didn't start"))
    }

    /// Starts a cluster of `size` servers.
    pub fn cluster(size: usize) -> io::Result<Vec<Self>> {
        let free = || TcpListener::bind(("127.0.0.1", 0));
        let listeners: Vec<TcpListener> = (0..size).map(|_| free()).collect::<io::Result<_>>()?;
        let ports: Vec<u16> =
            listeners.iter().map(|listener| Ok(listener.local_addr()?.port())).collect::<io::Result<_>>()?;
        drop(listeners);
        let routes: Vec<String> = ports.iter().map(|port| format!("nats://127.0.0.1:{port}")).collect();
        let start = |(number, port): (usize, &u16)| {
            Self::start_with(&format!(
                "server_name: testkit-{number}\ncluster {{ name: testkit, listen: \"127.0.0.1:{port}\", routes: [{}] }}",
                routes.join(", ")
            ))
        };
        ports.iter().enumerate().map(start).collect()
    }

    /// Starts a server in operator mode; also returns the text of a credentials file, as `nsc` creates it:
    /// <https://docs.nats.io/running-a-nats-service/configuration/securing_nats/auth_intro/jwt>
    pub fn start_with_operator() -> io::Result<(Self, String)> {
        let (operator, system, account, user) =
            (KeyPair::new_operator(), KeyPair::new_account(), KeyPair::new_account(), KeyPair::new_user());
        let limits = json!({
            "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1,
            "leaf": -1, "mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1,
        });
        let of_operator = jwt(&operator, &operator, &json!({ "type": "operator", "version": 2 }))?;
        let of_system = jwt(&operator, &system, &json!({ "type": "account", "version": 2 }))?;
        let of_account =
            jwt(&operator, &account, &json!({ "type": "account", "version": 2, "limits": limits }))?;
        let server = Self::start_with(&format!(
            "operator: {of_operator}\nsystem_account: {system}\nresolver: MEMORY\n\
             resolver_preload: {{ {system}: {of_system}, {account}: {of_account} }}",
            system = system.public_key(),
            account = account.public_key(),
        ))?;
        let claims = json!({ "type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1 });
        let credentials = format!(
            "-----BEGIN NATS USER JWT-----\n{}\n------END NATS USER JWT------\n\n\
             -----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n",
            jwt(&account, &user, &claims)?,
            user.seed().map_err(io::Error::other)?,
        );
        Ok((server, credentials))
    }

    /// The directory of the server's files.
    pub fn directory(&self) -> &std::path::Path {
        self.directory.path()
    }

    /// The URL: `nats://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Sends SIGKILL.
    pub fn kill(&mut self) -> io::Result<()> {
        end(&mut self.server)
    }

    /// Restarts the server after [`Self::kill`], on the same port with the same files.
    pub fn restart(&mut self) -> io::Result<()> {
        self.server = run(&self.directory, self.port, &self.configuration)?;
        wait(&mut self.server, &self.directory, self.port)
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

fn run(directory: &TempDir, port: u16, configuration: &str) -> io::Result<Child> {
    let path = directory.path();
    let file = path.join("nats.conf");
    let store = path.join("store");
    let text = format!(
        "host: 127.0.0.1\nport: {port}\njetstream {{ store_dir: \"{}\" }}\n{configuration}\n",
        store.to_string_lossy()
    );
    fs::write(&file, text)?;
    let log = fs::File::create(path.join("log"))?;
    let started = Command::new("nats-server")
        .arg("-c")
        .arg(file)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn();
    started.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => io::Error::new(error.kind(), "no nats-server found (Debian: nats-server)"),
        _ => error,
    })
}

/// A JWT about `subject`, signed by `issuer`.
fn jwt(issuer: &KeyPair, subject: &KeyPair, claims: &Value) -> io::Result<String> {
    let claims = json!({
        "jti": subject.public_key(), "iat": 1_700_000_000, "iss": issuer.public_key(), "name": "testkit",
        "sub": subject.public_key(), "nats": claims,
    });
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(&json!({ "typ": "JWT", "alg": "ed25519-nkey" })), part(&claims));
    let signature = issuer.sign(signed.as_bytes()).map_err(io::Error::other)?;
    Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
}

/// Waits for the server's greeting.
fn wait(server: &mut Child, directory: &TempDir, port: u16) -> io::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(status) = server.try_wait()? {
            let log = fs::read_to_string(directory.path().join("log")).unwrap_or_default();
            return Err(io::Error::other(format!("nats-server exited with {status}: {log}")));
        }
        if greets(port).unwrap_or(false) {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "nats-server sends no greeting"));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn end(server: &mut Child) -> io::Result<()> {
    server.kill()?;
    server.wait().map(drop)
}

/// Whether the server sends its INFO line:
/// <https://docs.nats.io/reference/reference-protocols/nats-protocol#info>
fn greets(port: u16) -> io::Result<bool> {
    let connection = TcpStream::connect(("127.0.0.1", port))?;
    connection.set_read_timeout(Some(Duration::from_secs(2)))?;
    let mut line = String::new();
    BufReader::new(connection).read_line(&mut line)?;
    Ok(line.starts_with("INFO "))
}
