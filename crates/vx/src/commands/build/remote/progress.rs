use std::time::Duration;

use jiff::Timestamp;
use velox_api::{BuildState, LogEntry, Severity, client::ClientEvent};
use velox_build::{Event, Note, Phase};
use velox_manifest::Diagnostic;

use crate::report::Report;

/// Shorter interruptions of the connection are not reported.
const MIN_REPORTED_RETRY: Duration = Duration::from_secs(1);

/// Reports the progress of a remote build as events of a local one.
pub(super) struct RemoteProgress<'a> {
    report: &'a dyn Report,
    host: String,
    /// The running phase and its start time.
    phase: Option<(Phase, Timestamp)>,
}

impl<'a> RemoteProgress<'a> {
    pub(super) fn new(report: &'a dyn Report, host: String) -> Self {
        Self { report, host, phase: None }
    }

    pub(super) fn report(&mut self, event: ClientEvent) {
        match event {
            ClientEvent::Log(entry) => self.log(entry),
            ClientEvent::State(view) => {
                if view.attempts > 1 && view.state == BuildState::Queued {
                    self.finish();
                    note(self.report, format!("{} restarts the build on another worker", self.host));
                }
            }
            event => report_retry(self.report, event),
        }
    }

    pub(super) fn finish(&mut self) {
        self.enter(None, velox_api::now());
    }

    fn log(&mut self, LogEntry { time, level, text, phase, done, total, .. }: LogEntry) {
        let phase = phase.as_deref().and_then(parse_phase);
        if phase.is_some() {
            self.enter(phase, time);
        }
        self.report.report(match (level, phase, done) {
            (Severity::Warning, ..) => Event::Warning(Diagnostic::warning(text)),
            (Severity::Info, Some(phase), Some(done)) => {
                Event::Progress { phase, done, total, item: text, bytes: None }
            }
            _ => match text.strip_prefix("go: ") {
                Some(line) => Event::Output { program: "go", line: line.to_owned() },
                None => Event::Output { program: "server", line: text },
            },
        });
    }

    fn enter(&mut self, next: Option<Phase>, time: Timestamp) {
        if self.phase.map(|(phase, _)| phase) == next {
            return;
        }
        if let Some((phase, started)) = self.phase.take() {
            let elapsed = Duration::try_from(time.duration_since(started)).unwrap_or_default();
            self.report.report(Event::Finished(phase, elapsed));
        }
        if let Some(phase) = next {
            self.report.report(Event::Started(phase));
            self.phase = Some((phase, time));
        }
    }
}

pub(super) fn report_retry(report: &dyn Report, event: ClientEvent) {
    if let ClientEvent::Retrying(delay, cause) = event
        && delay >= MIN_REPORTED_RETRY
    {
        note(report, format!("{cause}; retrying in {}s", delay.as_secs()));
    }
}

fn note(report: &dyn Report, text: String) {
    report.report(Event::Note(Note::Text { text }));
}

/// Parses the phase of a log entry, except `publish`, which is the download.
fn parse_phase(name: &str) -> Option<Phase> {
    match name {
        "resolve" => Some(Phase::Resolve),
        "fetch" => Some(Phase::Fetch),
        "prepare" => Some(Phase::Prepare),
        "compile" => Some(Phase::Compile),
        "link" => Some(Phase::Link),
        "verify" => Some(Phase::Verify),
        _ => None,
    }
}
