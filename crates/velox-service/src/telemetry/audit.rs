//! The audit log: who did what, from where, and what was decided; a JSON object a line.

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
    /// The request that is being answered.
    static ASKED: Asked;
}

/// What names a request in the audit log.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) id: String,
    pub(super) from: Option<IpAddr>,
    pub(super) call: Arc<Call>,
}

/// What only a call itself tells: over gRPC every answer has the status 200, and the client's id of it is in its message.
#[derive(Debug, Default)]
pub(super) struct Call {
    pub(super) status: OnceLock<u16>,
    pub(super) id: OnceLock<String>,
}

/// The call that is being answered here is taken, or refused: as HTTP would say it.
pub(crate) fn judged(status: StatusCode) {
    let _ = ASKED.try_with(|asked| asked.call.status.set(status.as_u16()));
}

/// The call that is being answered here has an id of the client's.
pub(crate) fn called(id: &str) {
    let _ = ASKED.try_with(|asked| asked.call.id.set(id.to_owned()));
}

impl Asked {
    /// The request that is being answered here, where there is one.
    pub(super) fn now() -> Option<Self> {
        ASKED.try_with(Self::clone).ok()
    }

    /// Answers it.
    pub(super) async fn answered<T>(&self, answer: impl Future<Output = T>) -> T {
        ASKED.scope(self.clone(), answer).await
    }
}

/// The audit log; without a file nothing is written.
pub(super) struct Audit(Option<Mutex<File>>);

/// What was decided.
#[derive(Debug, Serialize)]
pub(super) struct Act<'a> {
    /// `submit`, `cancel`, or `request` for what was refused before it came to anything.
    pub(super) action: &'a str,
    /// `queued`, `joined`, `finished`, `cancelled`, or why it was refused.
    pub(super) decision: &'a str,
    /// The token's name, or the address where nobody needs one; `None`: nobody knows.
    pub(super) who: Option<&'a str>,
    /// The build.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) build: Option<String>,
    /// The HTTP status of a refusal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) status: Option<u16>,
    /// The path of a refusal, as the service names it: with the names of its variables.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) route: Option<&'a str>,
}

impl Audit {
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

    /// Writes it down. JSON escapes control characters, so a line is a line.
    pub(super) fn write(&self, asked: Option<&Asked>, act: &Act<'_>) {
        #[derive(Serialize)]
        struct Line<'a> {
            time: Timestamp,
            #[serde(flatten)]
            act: &'a Act<'a>,
            #[serde(skip_serializing_if = "Option::is_none")]
            from: Option<String>,
            #[serde(skip_serializing_if = "Option::is_none")]
            request_id: Option<&'a str>,
            /// What a call's message has as its `request_id`.
            #[serde(skip_serializing_if = "Option::is_none")]
            call_id: Option<&'a str>,
        }
        let Some(file) = &self.0 else { return };
        let line = Line {
            time: Timestamp::now(),
            act,
            from: asked.and_then(|asked| asked.from).map(|from| from.to_string()),
            request_id: asked.map(|asked| asked.id.as_str()),
            call_id: asked.and_then(|asked| asked.call.id.get()).map(String::as_str),
        };
        // Texts and numbers can always be written.
        let mut line = serde_json::to_vec(&line).unwrap_or_default();
        line.push(b'\n');
        let written = file.lock().unwrap_or_else(PoisonError::into_inner).write_all(&line);
        if let Err(error) = written {
            tracing::error!(%error, "the audit log can't be written");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_act_is_a_line() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("audit.jsonl");
        for _ in 0..2 {
            let audit = Audit::open(Some(&file)).unwrap();
            let asked =
                Asked { id: "a1".to_owned(), from: Some([192, 0, 2, 1].into()), call: Arc::default() };
            let who = Some("ci\n{\"who\":\"root\"}");
            let act =
                Act { action: "submit", decision: "queued", who, build: None, status: None, route: None };
            audit.write(Some(&asked), &act);
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
