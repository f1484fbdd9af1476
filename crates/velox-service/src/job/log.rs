//! Reports the events of a build as log entries.

use std::{
    collections::HashMap,
    io::{self, Write},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use velox_api::{LogEntry, Severity};
use velox_build::{Event, Phase, Reporter, render};
use velox_manifest::SourceFile;

use super::protocol::JobMessage;

/// The interval between progress reports of a phase.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(250);
const MAX_LINE_BYTES: usize = 8 << 10;

/// Writes the events of a build to standard output.
pub(super) struct JobReporter {
    /// The configuration that warnings point to.
    source: SourceFile,
    last_progress: Mutex<HashMap<Phase, Instant>>,
}

impl JobReporter {
    pub(super) fn new(source: SourceFile) -> Self {
        Self { source, last_progress: Mutex::default() }
    }

    fn is_due(&self, phase: Phase, is_last: bool) -> bool {
        let mut last = self.last_progress.lock().unwrap_or_else(PoisonError::into_inner);
        if !is_last && last.get(&phase).is_some_and(|when| when.elapsed() < PROGRESS_INTERVAL) {
            return false;
        }
        last.insert(phase, Instant::now());
        true
    }
}

impl Reporter for JobReporter {
    fn report(&self, event: Event) {
        match event {
            Event::Started(phase) => report_phase(phase, started_text(phase)),
            Event::Finished(phase, time) => {
                report_phase(phase, &format!("{} in {:.1}s", finished_text(phase), time.as_secs_f64()));
            }
            Event::Progress { phase, done, total, item, .. } => {
                if self.is_due(phase, Some(done) == total) {
                    let (phase, done) = (Some(phase.name().to_owned()), Some(done));
                    report(LogEntry { phase, done, total, ..LogEntry::new(Severity::Info, item) });
                }
            }
            Event::Resolved { version, plugins, .. } => {
                report_phase(Phase::Resolve, &format!("RoadRunner {version} and {} plugins", plugins.len()));
                for plugin in plugins {
                    let version = plugin.version.as_deref().unwrap_or("a directory");
                    let text = format!("{} {} {version}", plugin.name, plugin.module);
                    report_phase(Phase::Resolve, &text);
                }
            }
            Event::Raised(raised) => report(LogEntry::new(Severity::Warning, raised.to_string())),
            Event::Warning(warning) => {
                report_lines(
                    Severity::Warning,
                    &render::plain(&render::render(&warning, Some(&self.source))),
                );
            }
            Event::Note(note) => report(LogEntry::new(Severity::Info, note.to_string())),
            // Package names are reported as progress.
            Event::Output { line, .. } if !line.contains([' ', ':']) => {}
            Event::Output { program, line } => {
                report(LogEntry::new(Severity::Output, format!("{program}: {line}")))
            }
        }
    }
}

/// Writes a message. Errors are ignored: if the service has exited, this process is about to end.
pub(super) fn send(message: &JobMessage) {
    if let Ok(mut line) = serde_json::to_vec(message) {
        line.push(b'\n');
        let mut out = io::stdout().lock();
        let _ = out.write_all(&line).and_then(|()| out.flush());
    }
}

fn report(mut entry: LogEntry) {
    let mut text = render::clean(&entry.text).into_owned();
    text.truncate(text.floor_char_boundary(MAX_LINE_BYTES));
    entry.text = text;
    send(&JobMessage::Entry(entry));
}

pub(super) fn report_lines(level: Severity, text: &str) {
    for line in text.lines() {
        report(LogEntry::new(level, line));
    }
}

fn report_phase(phase: Phase, text: &str) {
    let phase = Some(phase.name().to_owned());
    report(LogEntry { phase, ..LogEntry::new(Severity::Info, text) });
}

fn started_text(phase: Phase) -> &'static str {
    match phase {
        Phase::Resolve => "resolving versions",
        Phase::Fetch => "fetching modules",
        Phase::Prepare => "preparing the source tree",
        Phase::Read => "reading packages",
        Phase::Compile => "compiling",
        Phase::Link => "linking",
        Phase::Verify => "verifying the binary",
        Phase::Publish => "publishing the binary",
        Phase::Image => "assembling the image",
        Phase::Push => "pushing the image",
    }
}

fn finished_text(phase: Phase) -> &'static str {
    match phase {
        Phase::Resolve => "resolved",
        Phase::Fetch => "fetched",
        Phase::Prepare => "prepared",
        Phase::Read => "read",
        Phase::Compile => "compiled",
        Phase::Link => "linked",
        Phase::Verify => "verified",
        Phase::Publish => "published",
        Phase::Image => "assembled",
        Phase::Push => "pushed",
    }
}
