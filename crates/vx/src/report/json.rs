//! One event a line (newline-delimited JSON), on stdout; nothing else is written there. `docs/json-events.md` is the
//! description for users.
//!
//! Every event has `v` (1; it changes when a field changes its meaning or goes, not when one is added), `time`
//! (RFC 3339, UTC) and `event`:
//!
//! | `event`          | further fields                                                                         |
//! |------------------|----------------------------------------------------------------------------------------|
//! | `phase_started`  | `phase`: `resolve`, `fetch`, `prepare`, `compile`, `link`, `verify`, `publish`           |
//! | `phase_finished` | `phase`, `seconds`                                                                     |
//! | `progress`       | `phase`, `done`, `total` (or null), `item`; with `-vv`                                 |
//! | `resolved`       | `roadrunner`, `version`, `plugins`: [`velox_build::PluginRow`]s                        |
//! | `raised`         | `name`, `module`, `asked`, `selected`, `demanded_by`                                   |
//! | `warning`        | a diagnostic: `message`, `file`, `line`, `column`, `end_line`, `end_column`, `label`, `help` |
//! | `note`           | `kind` and its fields: [`velox_build::Note`]                                           |
//! | `output`         | `program`, `line`; with `-v`                                                           |
//! | `interrupted`    | `signal`: `interrupt`, `terminate`                                                     |
//! | `error`          | a diagnostic, as in `warning`                                                          |
//! | `failed`         | the last one: `kind`: `configuration`, `build`, `interrupted`; `exit_code`; `output`, lines |
//! | `edited`         | `file`, `changes`: [`crate::report::Change`]s; none: nothing had to be                   |
//! | `finished`       | the last one: `seconds`, `dry_run`, and [`velox_build::BuildSummary`]'s (`go_mod` in a dry run only) |

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
    report::{Change, Failure, Report, diagnostics, threshold},
    settings::Verbosity,
    signals::Signal,
};

/// Writes events.
pub(crate) struct Json {
    out: Mutex<Box<dyn Write + Send>>,
    now: fn() -> Timestamp,
    verbosity: Verbosity,
    source: Option<SourceFile>,
}

impl Json {
    pub(crate) fn new(
        out: Box<dyn Write + Send>,
        now: fn() -> Timestamp,
        verbosity: Verbosity,
        source: Option<SourceFile>,
    ) -> Self {
        Self { out: Mutex::new(out), now, verbosity, source }
    }

    fn write(&self, fields: &Fields<'_>) -> io::Result<()> {
        let mut line = serde_json::to_vec(&Line { v: 1, time: format!("{:.3}", (self.now)()), fields })?;
        line.push(b'\n');
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        out.write_all(&line)?;
        out.flush()
    }

    /// For what the build goes on without: it isn't stopped by a reader that left.
    fn tell(&self, fields: &Fields<'_>) {
        let _ = self.write(fields);
    }

    fn told<'a>(&'a self, diagnostic: &'a Diagnostic) -> Told<'a> {
        let source = self.source.as_ref();
        let place = source.zip(diagnostic.span.as_ref()).map(|(source, span)| {
            let span = diagnostics::within(&source.text, span);
            let (start, end) = (
                diagnostics::position(&source.text, span.start),
                diagnostics::position(&source.text, span.end),
            );
            Place {
                file: &source.name,
                line: start.line,
                column: start.column,
                end_line: end.line,
                end_column: end.column,
            }
        });
        Told {
            message: &diagnostic.message,
            place,
            label: diagnostic.label.as_deref(),
            help: &diagnostic.help,
        }
    }
}

impl Reporter for Json {
    fn report(&self, event: Event) {
        if threshold(&event) > self.verbosity {
            return;
        }
        self.tell(&match &event {
            Event::Started(phase) => Fields::PhaseStarted { phase: *phase },
            Event::Finished(phase, time) => Fields::PhaseFinished { phase: *phase, seconds: seconds(*time) },
            Event::Progress { phase, done, total, item, bytes } => {
                Fields::Progress { phase: *phase, done: *done, total: *total, item, bytes: *bytes }
            }
            Event::Resolved { roadrunner, version, plugins } => {
                Fields::Resolved { roadrunner, version, plugins }
            }
            Event::Raised(raised) => Fields::Raised(raised),
            Event::Warning(warning) => Fields::Warning(self.told(warning)),
            Event::Note(note) => Fields::Note(note),
            Event::Output { program, line } => Fields::Output { program, line },
        });
    }
}

impl Report for Json {
    fn interrupted(&self, signal: Signal) {
        if self.verbosity < Verbosity::Warnings {
            return;
        }
        let signal = match signal {
            Signal::Interrupt => "interrupt",
            Signal::Terminate => "terminate",
        };
        self.tell(&Fields::Interrupted { signal });
    }

    fn answered(&self) {}

    fn failed(&self, failure: &Failure<'_>) {
        for diagnostic in failure.diagnostics {
            let told = self.told(diagnostic);
            match diagnostic.level {
                Level::Error => self.tell(&Fields::Error(told)),
                Level::Warning => self.tell(&Fields::Warning(told)),
            }
        }
        self.tell(&Fields::Failed {
            kind: failure.ending.word(),
            exit_code: failure.ending.number(),
            output: failure.output,
        });
    }

    fn edited(&self, file: &Path, changes: &[Change]) -> io::Result<()> {
        match self.write(&Fields::Edited { file, changes }) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
            _ => Ok(()),
        }
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
        match self.write(&Fields::Finished { seconds: seconds(elapsed), goal, summary: value }) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
            _ => Ok(()),
        }
    }
}

#[derive(Serialize)]
struct Line<'a> {
    v: u8,
    time: String,
    #[serde(flatten)]
    fields: &'a Fields<'a>,
}

#[derive(Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Fields<'a> {
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
    Warning(Told<'a>),
    Note(&'a Note),
    Output {
        program: &'a str,
        line: &'a str,
    },
    Interrupted {
        signal: &'a str,
    },
    Error(Told<'a>),
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
struct Told<'a> {
    message: &'a str,
    #[serde(flatten)]
    place: Option<Place<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    label: Option<&'a str>,
    help: &'a [String],
}

#[derive(Serialize)]
struct Place<'a> {
    file: &'a str,
    line: usize,
    column: usize,
    end_line: usize,
    end_column: usize,
}

/// To the millisecond.
fn seconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1000.0).round() / 1000.0
}
