//! A start of a binary with a real configuration, beside a server that runs with it: all listening addresses are replaced.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt::Write as _,
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::Path,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use serde::Serialize;
use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt as _, BufReader, Lines},
    net::TcpStream,
    process::Command,
    sync::mpsc,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use velox_build::{EndSignal, Error, ProcessGroup};
use velox_manifest::{ConfigNode, ConfigValue};

use super::{RrConfig, text};

/// The time until the server says that it started: its workers boot before that.
const START_TIMEOUT: Duration = Duration::from_secs(120);
/// The time until it accepts connections after that; a server that fails then ends in this time, too.
const LISTEN_TIMEOUT: Duration = Duration::from_secs(10);
const CONNECT_INTERVAL: Duration = Duration::from_millis(50);
/// More than RoadRunner's own grace period by default.
const STOP_TIMEOUT: Duration = Duration::from_secs(40);
/// The last lines of a failed start that are shown.
const MAX_LINES: usize = 40;

/// What RoadRunner prints when all plugins serve.
const STARTED: &str = "RoadRunner server started";

/// The settings with an address to listen on, with `*` for names; whether it has a `tcp://`; and whether it accepts TCP
/// connections as soon as the server runs.
const LISTENERS: [(&str, bool, bool); 13] = [
    ("http.address", false, true),
    ("http.ssl.address", false, true),
    // QUIC, over UDP.
    ("http.http3.address", false, false),
    ("http.fcgi.address", true, true),
    ("rpc.listen", true, true),
    ("grpc.listen", true, true),
    ("metrics.address", false, true),
    ("status.address", false, true),
    ("fileserver.address", false, true),
    ("tcp.servers.*.addr", false, true),
    ("centrifuge.proxy_address", true, true),
    ("temporal.metrics.prometheus.address", false, false),
    ("server.relay", true, false),
];

/// The settings without which a section listens on a fixed port: RoadRunner shares ports (SO_REUSEPORT), so the new binary
/// would get requests of the running server.
const WITH_DEFAULTS: [&str; 4] =
    ["http.ssl.address", "rpc.listen", "metrics.address", "centrifuge.proxy_address"];

/// Sections that do work of their own when the server starts.
const LEFT_OUT: [&str; 3] = ["service", "include", "envfile"];

/// A start that worked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DryStart {
    /// The time until the server ran, in milliseconds.
    pub milliseconds: u64,
    /// The settings whose addresses accepted connections.
    pub listening: Vec<String>,
    /// The settings whose addresses did not, although the server runs.
    pub silent: Vec<String>,
    /// The sections that were left out: what they do is not for a test.
    pub left_out: Vec<String>,
}

/// A configuration for a dry start.
struct DryConfig {
    text: String,
    /// The settings and their addresses that are tried.
    listeners: Vec<(String, SocketAddr)>,
    left_out: Vec<String>,
    /// Keeps the ports until the start.
    ports: Vec<TcpListener>,
}

impl RrConfig {
    /// Starts a binary with this configuration, waits until it runs, and stops it. All listening addresses are free ports
    /// of the loopback interface or sockets in a temporary directory; queues are not consumed, and the commands of `service`
    /// not run. Everything else is as in the configuration.
    ///
    /// # Errors
    /// The configuration is invalid; the server fails, or doesn't start in time; an interruption.
    pub async fn dry_start(
        &self,
        binary: &Path,
        environment: &BTreeMap<String, String>,
        cancel: &CancellationToken,
    ) -> Result<DryStart, Error> {
        let name = self.files.first().map(|file| file.source.name.as_str()).unwrap_or_default();
        if let Some(invalid) = self.files.iter().find(|file| super::is_null(&file.root)) {
            let findings = invalid.findings.iter().map(|finding| finding.message.clone());
            return Err(Error::configuration(format!("failed to read `{}`", invalid.source.name))
                .output(findings.collect()));
        }
        let failed = |error: io::Error| Error::build(format!("failed to prepare a dry start: {error}"));
        // Only this user may read what the configuration's variables contain.
        let directory = tempfile::tempdir().map_err(failed)?;
        let config = self.for_dry_start(directory.path()).map_err(failed)?;
        let file = directory.path().join(".rr.yaml");
        std::fs::write(&file, &config.text).map_err(failed)?;
        let working = if self.directory.as_os_str().is_empty() { Path::new(".") } else { &self.directory };
        let mut command = Command::new(binary);
        command
            .args(["serve".as_ref(), "-c".as_ref(), file.as_os_str(), "-w".as_ref(), working.as_os_str()])
            .current_dir(working)
            .env_clear()
            .envs(environment)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        drop(config.ports);
        let start = Instant::now();
        let mut group = ProcessGroup::spawn(command, true).map_err(failed)?;
        let mut output = ServerOutput::of(&mut group);
        let run = async {
            let started = tokio::select! {
                status = group.wait() => return Err(ended(status)),
                started = timeout(START_TIMEOUT, output.until_started()) => started,
            };
            match started {
                Ok(true) => {}
                // It closed its output.
                Ok(false) => return Err(ended(group.wait().await)),
                Err(_) => return Err(format!("did not start within {} seconds", START_TIMEOUT.as_secs())),
            }
            let milliseconds = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
            tokio::select! {
                status = group.wait() => Err(ended(status)),
                (listening, silent) = connect(&config.listeners) => Ok((milliseconds, listening, silent)),
            }
        };
        let result = tokio::select! {
            result = run => result,
            () = cancel.cancelled() => {
                group.end(Some(EndSignal::Terminate), STOP_TIMEOUT).await;
                return Err(Error::interrupted());
            }
        };
        group.end(Some(EndSignal::Terminate), STOP_TIMEOUT).await;
        match result {
            Ok((milliseconds, listening, silent)) => {
                Ok(DryStart { milliseconds, listening, silent, left_out: config.left_out })
            }
            Err(why) => Err(Error::build(format!("the server does not start with {name}: it {why}"))
                .output(output.rest().await)),
        }
    }

    /// All sections as one file, with other listening addresses.
    fn for_dry_start(&self, sockets: &Path) -> io::Result<DryConfig> {
        let mut config =
            DryConfig { text: String::new(), listeners: Vec::new(), left_out: Vec::new(), ports: Vec::new() };
        let mut sections = Vec::new();
        for (_, entry) in self.sections() {
            let key = entry.key.to_lowercase();
            if LEFT_OUT.contains(&key.as_str()) {
                config.left_out.extend((key == "service").then_some(key));
                continue;
            }
            let mut text = String::new();
            config.render(&entry.node, &key, sockets, &mut text)?;
            sections.push(format!("{}: {text}\n", quoted(&entry.key)));
        }
        config.text = sections.concat();
        Ok(config)
    }
}

impl DryConfig {
    /// Writes a value at a dotted path as YAML in one line.
    fn render(&mut self, node: &ConfigNode, path: &str, sockets: &Path, out: &mut String) -> io::Result<()> {
        if let Some((_, is_url, is_tried)) = LISTENERS.iter().find(|(key, ..)| is_at(key, path))
            && let Some(address) = text(node).filter(|address| address != "pipes")
            && (!address.is_empty() || WITH_DEFAULTS.contains(&path))
        {
            *out += &quoted(&self.replace(path, &address, *is_url, *is_tried, sockets)?);
            return Ok(());
        }
        if path == "jobs.consume" {
            *out += "[]";
            return Ok(());
        }
        match &node.value {
            ConfigValue::Null => *out += "null",
            ConfigValue::Text(text) => *out += &quoted(text),
            ConfigValue::Boolean(value) => *out += &value.to_string(),
            ConfigValue::Integer(text) | ConfigValue::Float(text) | ConfigValue::Datetime(text) => {
                *out += text
            }
            ConfigValue::Array(items) => {
                out.push('[');
                for (index, item) in items.iter().enumerate() {
                    *out += if index > 0 { ", " } else { "" };
                    self.render(item, &format!("{path}.{index}"), sockets, out)?;
                }
                out.push(']');
            }
            ConfigValue::Table(entries) => {
                out.push('{');
                for (index, entry) in entries.iter().enumerate() {
                    let _ = write!(out, "{}{}: ", if index > 0 { ", " } else { "" }, quoted(&entry.key));
                    self.render(&entry.node, &format!("{path}.{}", entry.key.to_lowercase()), sockets, out)?;
                }
                for key in WITH_DEFAULTS {
                    let Some((_, name)) = key.rsplit_once('.').filter(|(section, _)| *section == path) else {
                        continue;
                    };
                    if !entries.iter().any(|entry| entry.key.eq_ignore_ascii_case(name)) {
                        let empty = ConfigNode { value: ConfigValue::Text(String::new()), span: None };
                        let _ =
                            write!(out, "{}{}: ", if entries.is_empty() { "" } else { ", " }, quoted(name));
                        self.render(&empty, key, sockets, out)?;
                    }
                }
                out.push('}');
            }
        }
        Ok(())
    }

    /// A free address of the same kind.
    fn replace(
        &mut self,
        path: &str,
        address: &str,
        is_url: bool,
        is_tried: bool,
        sockets: &Path,
    ) -> io::Result<String> {
        if address.starts_with("unix:") {
            let socket = sockets.join(format!("{path}.sock"));
            return Ok(format!("unix://{}", socket.display()));
        }
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let free = listener.local_addr()?;
        self.ports.push(listener);
        if is_tried {
            self.listeners.push((path.to_owned(), free));
        }
        let is_url =
            address.starts_with("tcp://") || (is_url && (address.is_empty() || address.contains('$')));
        Ok(if is_url { format!("tcp://{free}") } else { free.to_string() })
    }
}

/// Whether a path fits a key with `*`.
fn is_at(key: &str, path: &str) -> bool {
    let mut parts = path.split('.');
    key.split('.').all(|name| parts.next().is_some_and(|part| name == "*" || name == part))
        && parts.next().is_none()
}

/// A string in double quotes: those of JSON are those of YAML, too.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn ended(status: io::Result<ExitStatus>) -> String {
    status.map_or_else(|error| format!("can't be waited for: {error}"), |status| format!("ended ({status})"))
}

/// The addresses that accept connections, and those that don't.
async fn connect(listeners: &[(String, SocketAddr)]) -> (Vec<String>, Vec<String>) {
    let end = Instant::now() + LISTEN_TIMEOUT;
    let mut rest: Vec<&(String, SocketAddr)> = listeners.iter().collect();
    let mut listening = Vec::new();
    while !rest.is_empty() && Instant::now() < end {
        sleep(CONNECT_INTERVAL).await;
        let mut silent = Vec::new();
        for listener in rest {
            match TcpStream::connect(listener.1).await {
                Ok(_) => listening.push(listener.0.clone()),
                Err(_) => silent.push(listener),
            }
        }
        rest = silent;
    }
    (listening, rest.into_iter().map(|(path, _)| path.clone()).collect())
}

/// The last lines that a server prints.
struct ServerOutput {
    lines: mpsc::UnboundedReceiver<String>,
    last: VecDeque<String>,
}

impl ServerOutput {
    fn of(group: &mut ProcessGroup) -> Self {
        let (sender, lines) = mpsc::unbounded_channel();
        let (stdout, stderr) = (group.child().stdout.take(), group.child().stderr.take());
        if let (Some(stdout), Some(stderr)) = (stdout, stderr) {
            tokio::spawn(forward(BufReader::new(stdout).lines(), sender.clone()));
            tokio::spawn(forward(BufReader::new(stderr).lines(), sender));
        }
        Self { lines, last: VecDeque::new() }
    }

    fn keep(&mut self, line: String) {
        if self.last.len() == MAX_LINES {
            self.last.pop_front();
        }
        self.last.push_back(line);
    }

    /// Whether the server started; `false`: it closed its output.
    async fn until_started(&mut self) -> bool {
        while let Some(line) = self.lines.recv().await {
            let is_started = line.contains(STARTED);
            self.keep(line);
            if is_started {
                return true;
            }
        }
        false
    }

    /// All lines until the end of the server.
    async fn rest(mut self) -> Vec<String> {
        while let Ok(Some(line)) = timeout(Duration::from_secs(1), self.lines.recv()).await {
            self.keep(line);
        }
        self.last.into()
    }
}

async fn forward(mut lines: Lines<impl AsyncBufRead + Unpin>, sender: mpsc::UnboundedSender<String>) {
    loop {
        match lines.next_line().await {
            Ok(Some(line)) => {
                if sender.send(line).is_err() {
                    return;
                }
            }
            // A line of invalid UTF-8 is skipped.
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {}
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use velox_manifest::{Diagnostic, parse_yaml};

    use super::*;

    #[test]
    fn listening_addresses_are_replaced_and_everything_else_is_kept() {
        let text = "\
version: \"3\"
include: [more.yaml]
rpc: { listen: unix:///run/rr.sock }
server: { command: \"php worker.php\", relay: pipes, env: [{ A: \"x\\ty: 1\" }] }
http: { Address: \"0.0.0.0:8080\", pool: { num_workers: 2, supervisor: { ttl: 0x1f } }, ssl: { address: \":443\", redirect: true } }
grpc: { listen: \"tcp://${GRPC}\", proto: null }
jobs: { consume: [a], pipelines: { a: { driver: memory, config: { rate: 1.5 } } } }
service: { s: { command: sleep 1 } }
metrics: {}
centrifuge: { proxy_address: \"\" }
redis: { addrs: [\"127.0.0.1:6379\"] }
";
        let more =
            "version: \"3\"\nhttp: { address: \"127.0.0.1:1\" }\ntcp: { servers: { s: { addr: \":7\" } } }\n";
        let read = |path: &Path| -> Result<String, Diagnostic> {
            Ok(if path.ends_with("more.yaml") { more } else { text }.to_owned())
        };
        let config = RrConfig::read(".rr.yaml", Path::new(".rr.yaml"), &BTreeMap::new(), &read).unwrap();
        let dry = config.for_dry_start(Path::new("/tmp/x")).unwrap();
        let parsed = parse_yaml(&dry.text).unwrap();
        let value = |path: &str| {
            let node = super::super::find(&parsed, path).unwrap_or_else(|| panic!("{path}: {}", dry.text));
            super::text(&node.node).unwrap_or_default()
        };
        let ports: BTreeMap<&str, String> =
            dry.listeners.iter().map(|(path, address)| (path.as_str(), address.to_string())).collect();
        assert_eq!(
            ports.keys().copied().collect::<Vec<_>>(),
            [
                "centrifuge.proxy_address",
                "grpc.listen",
                "http.address",
                "metrics.address",
                "tcp.servers.s.addr"
            ]
        );
        assert_eq!(value("metrics.address"), ports["metrics.address"]);
        assert_eq!(value("centrifuge.proxy_address"), format!("tcp://{}", ports["centrifuge.proxy_address"]));
        assert_eq!(value("http.address"), ports["http.address"]);
        assert_eq!(value("grpc.listen"), format!("tcp://{}", ports["grpc.listen"]));
        assert_eq!(value("tcp.servers.s.addr"), ports["tcp.servers.s.addr"]);
        assert_eq!(value("rpc.listen"), "unix:///tmp/x/rpc.listen.sock");
        assert_eq!(
            (value("server.relay"), value("server.command")),
            ("pipes".into(), "php worker.php".into())
        );
        assert_eq!(value("jobs.pipelines.a.config.rate"), "1.5");
        assert_eq!(value("version"), "3");
        assert!(dry.text.contains("\"x\\ty: 1\"") && dry.text.contains("\"consume\": []"), "{}", dry.text);
        assert!(dry.text.contains("[\"127.0.0.1:6379\"]") && !dry.text.contains("sleep"), "{}", dry.text);
        assert_eq!(dry.left_out, ["service"]);
    }
}
