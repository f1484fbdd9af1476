//! A build's events as the lines of its log.

use std::{
    collections::HashMap,
    io::{self, Write},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use velox_api::{LogEntry, Severity};
use velox_build::{Event, Phase, Reporter, render};

use super::task::Said;

/// How often a phase's progress is told.
const OFTEN_ENOUGH: Duration = Duration::from_millis(250);
/// A line of a compiler may quote a whole file.
const LONGEST: usize = 8 << 10;

/// Says on the standard output what goes on.
#[derive(Default)]
pub(super) struct Log {
    told: Mutex<HashMap<Phase, Instant>>,
}

impl Log {
    fn is_due(&self, phase: Phase, last: bool) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if !last && told.get(&phase).is_some_and(|when| when.elapsed() < OFTEN_ENOUGH) {
            return false;
        }
        told.insert(phase, Instant::now());
        true
    }
}

impl Reporter for Log {
    fn report(&self, event: Event) {
        match event {
            Event::Started(phase) => phased(phase, starting(phase)),
            Event::Finished(phase, time) => {
                phased(phase, &format!("{} in {:.1}s", done(phase), time.as_secs_f64()));
            }
            Event::Progress { phase, done, total, item, .. } => {
                if self.is_due(phase, Some(done) == total) {
                    let done = Some(done);
                    tell(LogEntry { phase: name(phase), done, total, ..LogEntry::new(Severity::Info, item) });
                }
            }
            Event::Resolved { version, plugins, .. } => {
                phased(Phase::Resolve, &format!("RoadRunner {version} and {} plugins", plugins.len()));
                for plugin in plugins {
                    let version = plugin.version.as_deref().unwrap_or("a directory");
                    let text = format!("{} {} {version}", plugin.name, plugin.module);
                    phased(Phase::Resolve, &text);
                }
            }
            Event::Raised(raised) => tell(LogEntry::new(Severity::Warning, raised.to_string())),
            Event::Warning(warning) => {
                lines(Severity::Warning, &render::plain(&render::render(&warning, None)));
            }
            Event::Note(note) => tell(LogEntry::new(Severity::Info, note.to_string())),
            // The packages are told as progress.
            Event::Output { line, .. } if !line.contains([' ', ':']) => {}
            Event::Output { program, line } => {
                tell(LogEntry::new(Severity::Output, format!("{program}: {line}")))
            }
        }
    }
}

/// Says why it ended.
pub(super) fn error(message: &str) {
    lines(Severity::Error, message);
}

/// Says it on the standard output. Where nobody reads that any more, the service is dead, and this process soon is too.
pub(super) fn say(said: &Said) {
    if let Ok(mut line) = serde_json::to_vec(said) {
        line.push(b'\n');
        let mut out = io::stdout().lock();
        let _ = out.write_all(&line).and_then(|()| out.flush());
    }
}

fn tell(mut entry: LogEntry) {
    let mut text = render::clean(&entry.text).into_owned();
    text.truncate(text.floor_char_boundary(LONGEST));
    entry.text = text;
    say(&Said::Entry(entry));
}

fn lines(level: Severity, text: &str) {
    for line in text.lines() {
        tell(LogEntry::new(level, line));
    }
}

fn phased(phase: Phase, text: &str) {
    tell(LogEntry { phase: name(phase), ..LogEntry::new(Severity::Info, text) });
}

#[expect(clippy::unnecessary_wraps, reason = "it is an entry's field")]
fn name(phase: Phase) -> Option<String> {
    Some(phase.name().to_owned())
}

fn starting(phase: Phase) -> &'static str {
    match phase {
        Phase::Resolve => "resolving versions",
        Phase::Fetch => "fetching modules",
        Phase::Prepare => "preparing the source tree",
        Phase::Compile => "compiling",
        Phase::Link => "linking",
        Phase::Verify => "verifying the server",
        Phase::Publish => "publishing the server",
    }
}

fn done(phase: Phase) -> &'static str {
    match phase {
        Phase::Resolve => "resolved",
        Phase::Fetch => "fetched",
        Phase::Prepare => "prepared",
        Phase::Compile => "compiled",
        Phase::Link => "linked",
        Phase::Verify => "verified",
        Phase::Publish => "published",
    }
}
