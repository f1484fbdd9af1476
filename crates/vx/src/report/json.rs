//! Newline-delimited JSON events on stdout, documented in `docs/json-events.md`.
//!
//! Every event has `v` (1; incremented when a field is removed or changes its meaning), `time` and `event`.

use std::{
    io::{self, Write},
    path::Path,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use serde::Serialize;
use velox_build::{BuildSummary, Event, Goal, Note, Phase, PluginRow, RaisedPlugin, Reporter};
use velox_manifest::{Diagnostic, Level, SourceFile};

use crate::{
    report::{Change, Report, diagnostics::DiagnosticFields, text::escape_json, threshold},
    settings::Verbosity,
    signals::Signal,
    status::ExitStatus,
};

pub(crate) struct JsonReport {
    out: Mutex<Box<dyn Write + Send>>,
    now: fn() -> Timestamp,
    verbosity: Verbosity,
    source: Option<SourceFile>,
}

impl JsonReport {
    pub(crate) fn new(
        out: Box<dyn Write + Send>,
        now: fn() -> Timestamp,
        verbosity: Verbosity,
        source: Option<SourceFile>,
    ) -> Self {
        Self { out: Mutex::new(out), now, verbosity, source }
    }

    fn write(&self, fields: &JsonEvent<'_>) -> io::Result<()> {
        let line = serde_json::to_string(&JsonLine { v: 1, time: format!("{:.3}", (self.now)()), fields })?;
        let line = escape_json(line) + "\n";
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        out.write_all(line.as_bytes())?;
        out.flush()
    }

    /// Writes an event of a running command; ignores a closed pipe.
    fn send(&self, fields: &JsonEvent<'_>) {
        let _ = self.write(fields);
    }

    fn write_result(&self, fields: &JsonEvent<'_>) -> io::Result<()> {
        match self.write(fields) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            result => result,
        }
    }

    fn diagnostic<'a>(&'a self, diagnostic: &'a Diagnostic) -> JsonDiagnostic<'a> {
        let fields = DiagnosticFields::new(diagnostic, self.source.as_ref());
        JsonDiagnostic { message: &diagnostic.message, fields }
    }
}

impl Reporter for JsonReport {
    fn report(&self, event: Event) {
        if threshold(&event) > self.verbosity {
            return;
        }
        self.send(&match &event {
            Event::Started(phase) => JsonEvent::PhaseStarted { phase: *phase },
            Event::Finished(phase, time) => {
                JsonEvent::PhaseFinished { phase: *phase, seconds: seconds(*time) }
            }
            Event::Progress { phase, done, total, item, bytes } => {
                JsonEvent::Progress { phase: *phase, done: *done, total: *total, item, bytes: *bytes }
            }
            Event::Resolved { roadrunner, version, plugins } => {
                JsonEvent::Resolved { roadrunner, version, plugins }
            }
            Event::Raised(raised) => JsonEvent::Raised(raised),
            Event::Warning(warning) => JsonEvent::Warning(self.diagnostic(warning)),
            Event::Note(note) => JsonEvent::Note(note),
            Event::Output { program, line } => JsonEvent::Output { program, line },
        });
    }
}

impl Report for JsonReport {
    fn interrupted(&self, signal: Signal) {
        if self.verbosity < Verbosity::Warnings {
            return;
        }
        let signal = match signal {
            Signal::Interrupt => "interrupt",
            Signal::Terminate => "terminate",
        };
        self.send(&JsonEvent::Interrupted { signal });
    }

    fn clear(&self) {}

    fn failed(&self, status: ExitStatus, diagnostics: &[Diagnostic], output: &[String]) {
        for diagnostic in diagnostics {
            let fields = self.diagnostic(diagnostic);
            self.send(&match diagnostic.level {
                Level::Error => JsonEvent::Error(fields),
                Level::Warning => JsonEvent::Warning(fields),
            });
        }
        self.send(&JsonEvent::Failed { kind: status.kind(), exit_code: status.code(), output });
    }

    fn edited(&self, file: &Path, changes: &[Change]) -> io::Result<()> {
        self.write_result(&JsonEvent::Edited { file, changes })
    }

    fn finished(&self, goal: &Goal, summary: &BuildSummary, elapsed: Duration) -> io::Result<()> {
        let mut value = serde_json::to_value(summary)?;
        if !matches!(goal, Goal::DryRun(_))
            && let Some(fields) = value.as_object_mut()
        {
            fields.remove("go_mod");
        }
        let goal = match goal {
            Goal::Plan | Goal::DryRun(_) => "plan",
            Goal::Lock => "lock",
            Goal::CheckLock => "check_lock",
            Goal::Fetch => "fetch",
            Goal::Build(_) => "build",
        };
        self.write_result(&JsonEvent::Finished { seconds: seconds(elapsed), goal, summary: value })
    }
}

#[derive(Serialize)]
struct JsonLine<'a> {
    v: u8,
    time: String,
    #[serde(flatten)]
    fields: &'a JsonEvent<'a>,
}

#[derive(Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum JsonEvent<'a> {
    PhaseStarted {
        phase: Phase,
    },
    PhaseFinished {
        phase: Phase,
        seconds: f64,
    },
    Progress {
        phase: Phase,
        done: u64,
        total: Option<u64>,
        item: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        bytes: Option<u64>,
    },
    Resolved {
        roadrunner: &'a str,
        version: &'a str,
        plugins: &'a [PluginRow],
    },
    Raised(&'a RaisedPlugin),
    Warning(JsonDiagnostic<'a>),
    Note(&'a Note),
    Output {
        program: &'a str,
        line: &'a str,
    },
    Interrupted {
        signal: &'a str,
    },
    Error(JsonDiagnostic<'a>),
    Failed {
        kind: &'a str,
        exit_code: u8,
        output: &'a [String],
    },
    Edited {
        file: &'a Path,
        changes: &'a [Change],
    },
    Finished {
        seconds: f64,
        goal: &'a str,
        #[serde(flatten)]
        summary: serde_json::Value,
    },
}

#[derive(Serialize)]
struct JsonDiagnostic<'a> {
    message: &'a str,
    #[serde(flatten)]
    fields: DiagnosticFields<'a>,
}

/// Seconds, rounded to milliseconds.
fn seconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1000.0).round() / 1000.0
}
