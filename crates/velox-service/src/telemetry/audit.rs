//! The audit log: a JSON object per line with the caller, the action and the decision.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    net::IpAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use axum::http::StatusCode;
use jiff::Timestamp;
use serde::Serialize;
use velox_build::render::escape_json;

tokio::task_local! {
    /// The current request.
    static REQUEST: AuditedRequest;
}

/// The request of an audit log entry.
#[derive(Debug, Clone)]
pub(super) struct AuditedRequest {
    pub(super) id: String,
    pub(super) from: Option<IpAddr>,
    pub(super) call: Arc<RpcCall>,
}

/// Details set by the RPC handler: gRPC responses always have the status 200, and the client's call id is
/// part of the message.
#[derive(Debug, Default)]
pub(super) struct RpcCall {
    pub(super) status: OnceLock<u16>,
    pub(super) id: OnceLock<String>,
}

/// Records the HTTP equivalent of the status of the current call.
pub(crate) fn record_call_status(status: StatusCode) {
    let _ = REQUEST.try_with(|request| request.call.status.set(status.as_u16()));
}

/// Records the client's id for the current call.
pub(crate) fn record_call_id(id: &str) {
    let _ = REQUEST.try_with(|request| request.call.id.set(id.to_owned()));
}

impl AuditedRequest {
    /// The request of the current task, if any.
    pub(super) fn current() -> Option<Self> {
        REQUEST.try_with(Self::clone).ok()
    }

    /// Runs a future with this as the current request.
    pub(super) async fn scope<T>(&self, future: impl Future<Output = T>) -> T {
        REQUEST.scope(self.clone(), future).await
    }
}

/// The size at which the file becomes an old one: `FILE` is renamed to `FILE.1`, `FILE.1` to `FILE.2` and so on.
const MAX_FILE_BYTES: u64 = 64 << 20;

/// The number of old files that are kept.
const OLD_FILES: u32 = 4;

/// The audit log; disabled without a file.
pub(super) struct AuditLog(Option<Mutex<AuditFile>>);

struct AuditFile {
    path: PathBuf,
    file: File,
    /// The size in bytes; `None`: not a regular file, such as a pipe.
    size: Option<u64>,
}

impl AuditFile {
    fn open(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.append(true).create(true);
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(path)?;
        let metadata = file.metadata()?;
        Ok(Self { path: path.to_owned(), file, size: metadata.is_file().then_some(metadata.len()) })
    }

    fn write(&mut self, line: &[u8], max_bytes: u64) -> io::Result<()> {
        if self.size.is_some_and(|size| size > 0 && size + line.len() as u64 > max_bytes) {
            self.rotate()?;
        }
        self.file.write_all(line)?;
        self.size = self.size.map(|size| size + line.len() as u64);
        Ok(())
    }

    /// Renames the file and begins a new one.
    fn rotate(&mut self) -> io::Result<()> {
        let old = |number: u32| {
            let mut path = self.path.clone().into_os_string();
            path.push(format!(".{number}"));
            PathBuf::from(path)
        };
        for number in (1..OLD_FILES).rev() {
            match fs::rename(old(number), old(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        fs::rename(&self.path, old(1))?;
        *self = Self::open(&self.path)?;
        Ok(())
    }
}

#[derive(Debug, Default, Serialize)]
pub(super) struct AuditEntry<'a> {
    /// `submit`, `cancel`, or `request` for a rejected request.
    pub(super) action: &'a str,
    /// `queued`, `joined`, `finished`, `cancelled`, or the reason of the rejection.
    pub(super) decision: &'a str,
    /// The name of the token, or the address if none is required; `None`: not authenticated.
    pub(super) who: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) build: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) status: Option<u16>,
    /// The route template of a rejected request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) route: Option<&'a str>,
    /// The number of rejected requests of this reason and network without entries of their own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) count: Option<u64>,
    /// The network of these requests: an IPv4 address, an IPv6 /64, or `others`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) network: Option<&'a str>,
}

impl AuditLog {
    pub(super) fn open(file: Option<&Path>) -> io::Result<Self> {
        Ok(Self(file.map(AuditFile::open).transpose()?.map(Mutex::new)))
    }

    /// Appends an entry, as one line: JSON escapes line breaks.
    pub(super) fn write(&self, request: Option<&AuditedRequest>, entry: &AuditEntry<'_>) {
        #[derive(Serialize)]
        struct Line<'a> {
            time: Timestamp,
            #[serde(flatten)]
            entry: &'a AuditEntry<'a>,
            #[serde(skip_serializing_if = "Option::is_none")]
            from: Option<String>,
            #[serde(skip_serializing_if = "Option::is_none")]
            request_id: Option<&'a str>,
            /// The `request_id` of an RPC message.
            #[serde(skip_serializing_if = "Option::is_none")]
            call_id: Option<&'a str>,
        }
        let Some(file) = &self.0 else { return };
        let line = Line {
            time: velox_api::now(),
            entry,
            from: request.and_then(|request| request.from).map(|from| from.to_string()),
            request_id: request.map(|request| request.id.as_str()),
            call_id: request.and_then(|request| request.call.id.get()).map(String::as_str),
        };
        // Serializing a line can't fail.
        let line = escape_json(serde_json::to_string(&line).unwrap_or_default()) + "\n";
        let result =
            file.lock().unwrap_or_else(PoisonError::into_inner).write(line.as_bytes(), MAX_FILE_BYTES);
        if let Err(error) = result {
            tracing::error!(%error, "failed to write the audit log");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_single_lines() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("audit.jsonl");
        for _ in 0..2 {
            let audit = AuditLog::open(Some(&file)).unwrap();
            let (id, from) = ("a1".to_owned(), Some([192, 0, 2, 1].into()));
            let request = AuditedRequest { id, from, call: Arc::default() };
            let who = Some("ci\n{\"who\":\"root\"}");
            let entry = AuditEntry { action: "submit", decision: "queued", who, ..AuditEntry::default() };
            audit.write(Some(&request), &entry);
        }
        let text = std::fs::read_to_string(&file).unwrap();
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0]["from"], "192.0.2.1");
        assert_eq!(lines[0]["request_id"], "a1");
        assert_eq!(lines[0]["who"], "ci\n{\"who\":\"root\"}");
    }

    #[test]
    fn files_are_bounded() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.jsonl");
        for number in 0..100 {
            // Opened anew: the size of an existing file counts.
            AuditFile::open(&path).unwrap().write(format!("line {number:02}\n").as_bytes(), 24).unwrap();
        }
        let mut files: Vec<(String, String)> = fs::read_dir(directory.path())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .map(|path| (path.extension().unwrap().display().to_string(), fs::read_to_string(path).unwrap()))
            .collect();
        files.sort();
        let lines = |first: u32| (first..first + 3).map(|line| format!("line {line}\n")).collect::<String>();
        let expected =
            [("1", 96), ("2", 93), ("3", 90), ("4", 87)].map(|(name, it)| (name.to_owned(), lines(it)));
        assert_eq!(files[..4], expected);
        assert_eq!(files[4..], [("jsonl".to_owned(), "line 99\n".to_owned())]);
    }
}
