use std::{
    io,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use http_body_util::{BodyExt, Empty};
use hyper::{Request, StatusCode, body::Bytes, client::conn::http1, header::HOST};
use hyper_util::rt::TokioIo;
use rustix::process::{Pid, Signal, kill_process};

use crate::localhost::free_port;

/// Timeout for the first reply, and for the process to exit.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(30);

/// A running RoadRunner (`rr serve`); killed when dropped.
#[derive(Debug)]
pub struct RunningRoadRunner {
    child: Child,
    port: u16,
    rpc_port: u16,
    binary: PathBuf,
    directory: PathBuf,
}

impl RunningRoadRunner {
    /// Starts `binary serve -c .rr.yaml` in `directory` after writing `configuration` there. In it,
    /// `${RR_HTTP_PORT}` and `${RR_RPC_PORT}` (RoadRunner's variable syntax) are free ports of 127.0.0.1.
    pub fn start(binary: &Path, directory: &Path, configuration: &str) -> io::Result<Self> {
        std::fs::write(directory.join(".rr.yaml"), configuration)?;
        let (http, rpc) = (free_port()?, free_port()?);
        let child = Command::new(binary)
            .args(["serve", "-c", ".rr.yaml"])
            .current_dir(directory)
            .env("RR_HTTP_PORT", http.to_string())
            .env("RR_RPC_PORT", rpc.to_string())
            .stdin(Stdio::null())
            .spawn()
            .map_err(|error| {
                io::Error::new(error.kind(), format!("{} can't be started: {error}", binary.display()))
            })?;
        let (binary, directory) = (binary.to_owned(), directory.to_owned());
        Ok(Self { child, port: http, rpc_port: rpc, binary, directory })
    }

    /// Runs another command of the binary, which talks to this server over RPC (`workers`, `reset`). Returns
    /// both output streams.
    pub fn command(&self, name: &str) -> io::Result<String> {
        let output = Command::new(&self.binary)
            .args([name, "-c", ".rr.yaml"])
            .current_dir(&self.directory)
            .env("RR_HTTP_PORT", self.port.to_string())
            .env("RR_RPC_PORT", self.rpc_port.to_string())
            .stdin(Stdio::null())
            .output()?;
        let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        if output.status.success() {
            Ok(text.concat())
        } else {
            Err(io::Error::other(format!("rr {name}: {}: {}", output.status, text.concat())))
        }
    }

    /// The URL of `path` on this server.
    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// The body of the reply to `GET path`. Waits until the server listens; a status other than 200 and an
    /// exited server are errors.
    pub fn get(&mut self, path: &str) -> io::Result<String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let since = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Err(io::Error::other(format!("the server exited: {status}")));
            }
            match runtime
                .block_on(async { tokio::time::timeout(RESPONSE_TIMEOUT, get(self.port, path)).await? })
            {
                Err(error)
                    if error.kind() == io::ErrorKind::ConnectionRefused
                        && since.elapsed() < RESPONSE_TIMEOUT =>
                {
                    std::thread::sleep(Duration::from_millis(50));
                }
                answer => return answer,
            }
        }
    }

    /// Sends SIGTERM and waits for the exit.
    pub fn stop(mut self) -> io::Result<ExitStatus> {
        kill_process(Pid::from_child(&self.child), Signal::TERM)?;
        let since = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if since.elapsed() > RESPONSE_TIMEOUT {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "the server doesn't exit"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for RunningRoadRunner {
    fn drop(&mut self) {
        // The process may have exited already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn get(port: u16, path: &str) -> io::Result<String> {
    let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    tokio::spawn(connection);
    let request = Request::get(path)
        .header(HOST, format!("127.0.0.1:{port}"))
        .body(Empty::<Bytes>::new())
        .map_err(io::Error::other)?;
    let answer = sender.send_request(request).await.map_err(io::Error::other)?;
    let status = answer.status();
    let body = answer.into_body().collect().await.map_err(io::Error::other)?.to_bytes();
    let body = String::from_utf8_lossy(&body).into_owned();
    if status == StatusCode::OK {
        Ok(body)
    } else {
        Err(io::Error::other(format!("GET {path}: {status}: {body}")))
    }
}
