//! The audit log: a JSON object per line with the caller, the action and the decision.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    net::IpAddr,
    path::Path,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use axum::http::StatusCode;
use jiff::Timestamp;
use serde::Serialize;

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

/// The audit log; disabled without a file.
pub(super) struct AuditLog(Option<Mutex<File>>);

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
}

impl AuditLog {
    pub(super) fn open(file: Option<&Path>) -> io::Result<Self> {
        let open = |file: &Path| {
            let mut options = OpenOptions::new();
            options.append(true).create(true);
            #[cfg(unix)]
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
            options.open(file).map(Mutex::new)
        };
        file.map(open).transpose().map(Self)
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
            time: Timestamp::now(),
            entry,
            from: request.and_then(|request| request.from).map(|from| from.to_string()),
            request_id: request.map(|request| request.id.as_str()),
            call_id: request.and_then(|request| request.call.id.get()).map(String::as_str),
        };
        // Serializing a line can't fail.
        let mut line = serde_json::to_vec(&line).unwrap_or_default();
        line.push(b'\n');
        let result = file.lock().unwrap_or_else(PoisonError::into_inner).write_all(&line);
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
}
