//! `vx server`, `vx worker`, and an HTTP client for them.

// Each test binary uses only a part.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::{
    fmt,
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    process::{Child, ChildStdout, Command, Output, Stdio},
    sync::{Arc, Mutex},
};

use serde_json::Value;

use super::sandbox::{HANG_TIMEOUT, wait_until};

/// A running `vx server` or `vx worker`, killed when dropped.
pub struct RunningService {
    child: Child,
    stdout: BufReader<ChildStdout>,
    /// Empty for a worker without a metrics address.
    pub url: String,
    message: Arc<Mutex<String>>,
}

impl RunningService {
    /// Starts this command; a server on a free port of the loopback address unless it has an address.
    pub fn start(command: &mut Command) -> Self {
        if !command.get_args().any(|argument| argument == "-a" || argument == "worker") {
            command.args(["--address", "127.0.0.1:0"]);
        }
        command.args(["--format", "json"]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let message = Arc::new(Mutex::new(String::new()));
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let listening = std::thread::spawn({
            let message = Arc::clone(&message);
            move || {
                let mut line = String::new();
                while stderr.read_line(&mut line).is_ok_and(|length| length > 0) {
                    message.lock().unwrap().push_str(&line);
                    line.clear();
                }
            }
        });
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let mut service = Self { child, stdout, url: String::new(), message };
        loop {
            let mut line = String::new();
            if service.stdout.read_line(&mut line).unwrap() == 0 {
                listening.join().unwrap();
                panic!("the service didn't start: {}", service.stderr());
            }
            let event: Value = serde_json::from_str(&line).unwrap();
            if event["event"] == "serving" || event["event"] == "working" {
                event["url"].as_str().unwrap_or_default().clone_into(&mut service.url);
                return service;
            }
        }
    }

    /// `127.0.0.1:4321`
    pub fn address(&self) -> SocketAddr {
        self.url.rsplit('/').next().unwrap().parse().unwrap()
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Resident memory in bytes.
    pub fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() << 10
    }

    pub fn stderr(&self) -> String {
        self.message.lock().unwrap().clone()
    }

    /// Sends SIGKILL.
    pub fn kill(self) {
        drop(self);
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        let status = Command::new("kill").args(["-TERM", &self.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// Waits for the exit.
    pub fn ended(mut self) -> Output {
        wait_until("the service ends", || self.child.try_wait().unwrap().is_some());
        let status = self.child.wait().unwrap();
        let mut stdout = Vec::new();
        self.stdout.read_to_end(&mut stdout).unwrap();
        Output { status, stdout, stderr: self.stderr().into_bytes() }
    }

    /// Opens a connection with a read timeout.
    pub fn connect(&self) -> TcpStream {
        connect(self.address()).unwrap()
    }

    pub fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[], b"")
    }

    pub fn delete(&self, path: &str) -> Answer {
        self.ask("DELETE", path, &[], b"")
    }

    pub fn post(&self, path: &str, body: &Value) -> Answer {
        self.ask("POST", path, &[("Content-Type", "application/json")], body.to_string().as_bytes())
    }

    /// Sends one request on its own connection.
    pub fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        request(self.address(), method, path, headers, body).unwrap()
    }

    /// Waits until a build ends; returns its view.
    pub fn built(&self, id: &str) -> Value {
        loop {
            let build = self.get(&format!("/v1/builds/{id}?wait=20")).json();
            if !["queued", "running"].contains(&build["state"].as_str().unwrap_or_default()) {
                return build;
            }
        }
    }
}

impl Drop for RunningService {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(HANG_TIMEOUT))?;
    Ok(stream)
}

/// Sends an HTTP/1.1 request on its own connection. Errors and truncated responses mean that it is down.
pub fn request(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> io::Result<Answer> {
    let mut stream = connect(address)?;
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n");
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    if !body.is_empty() || method == "POST" {
        head += &format!("Content-Length: {}\r\n", body.len());
    }
    stream.write_all((head + "\r\n").as_bytes())?;
    // A server that rejects a body may close the connection early.
    let _ = stream.write_all(body);
    Ok(Answer::read(&mut stream, method == "HEAD"))
}

/// A response, possibly truncated.
#[derive(Clone)]
pub struct Answer {
    pub status: u16,
    headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text: String = self.text().chars().take(2000).collect();
        write!(f, "{} {text}", self.status)
    }
}

impl Answer {
    /// Reads a response to its end.
    pub fn read(stream: &mut impl Read, is_of_head: bool) -> Self {
        let mut reader = BufReader::new(stream);
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            let length = reader.read_line(&mut line).unwrap_or_default();
            if length == 0 || line == "\r\n" {
                break;
            }
            lines.push(line.trim_end().to_owned());
        }
        let status = lines.first().and_then(|line| line.split(' ').nth(1)?.parse().ok()).unwrap_or_default();
        let header = |line: &String| {
            let (name, value) = line.split_once(':')?;
            Some((name.to_ascii_lowercase(), value.trim().to_owned()))
        };
        let headers: Vec<(String, String)> = lines.iter().skip(1).filter_map(header).collect();
        let mut answer = Self { status, headers, body: Vec::new() };
        if is_of_head {
            return answer;
        }
        if answer.header("transfer-encoding") == "chunked" {
            loop {
                let mut size = String::new();
                let _ = reader.read_line(&mut size);
                let Ok(size) = usize::from_str_radix(size.trim(), 16) else { break };
                let mut chunk = vec![0; size + 2];
                if reader.read_exact(&mut chunk).is_err() || size == 0 {
                    break;
                }
                answer.body.extend_from_slice(&chunk[..size]);
            }
        } else if let Ok(length) = answer.header("content-length").parse::<usize>() {
            let _ = reader.take(length as u64).read_to_end(&mut answer.body);
        } else {
            let _ = reader.read_to_end(&mut answer.body);
        }
        answer
    }

    /// A header's value; empty if missing.
    pub fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The id of the submitted build.
    pub fn id(&self) -> String {
        self.json()["id"].as_str().unwrap_or_else(|| panic!("{self:?}")).to_owned()
    }
}
