//! The output of a command: [`human`] text on stderr, or [`json`] events on stdout.

mod delayed;
pub(crate) mod diagnostics;
mod human;
mod json;
pub(crate) mod text;

pub(crate) use delayed::DelayedReport;

use std::{
    io::{self, Write},
    path::Path,
    sync::Arc,
    time::Duration,
};

use serde::Serialize;
use velox_build::{BuildSummary, Error, Event, Goal, Reporter};
use velox_manifest::{Diagnostic, Level, LogConfig, SourceFile};

use crate::{
    cli::OutputFormat,
    settings::{Settings, Verbosity},
    signals::Signal,
    status::{CommandResult, ExitStatus},
};

/// The reporter of a command, from the first event of a build to its result.
pub(crate) trait Report: Reporter {
    /// A signal was received, and the command stops.
    fn interrupted(&self, signal: Signal);

    /// Clears the progress bars, before the command writes its own output.
    fn clear(&self);

    /// The command failed. `output` has lines of the compiler or another child process.
    fn failed(&self, status: ExitStatus, diagnostics: &[Diagnostic], output: &[String]);

    /// The configuration was edited; without changes it was up to date.
    fn edited(&self, file: &Path, changes: &[Change]) -> io::Result<()>;

    /// The build reached its goal.
    fn finished(&self, goal: &Goal, summary: &BuildSummary, elapsed: Duration) -> io::Result<()>;
}

/// A change to a configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Change {
    #[serde(rename = "change")]
    pub(crate) kind: ChangeKind,
    pub(crate) name: String,
    pub(crate) module: Option<String>,
    /// The previous ref.
    pub(crate) from: Option<String>,
    /// The new ref.
    pub(crate) to: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ChangeKind {
    Created,
    Added,
    Removed,
    Updated,
    Migrated,
}

/// The reporter that the flags and `[log]` select. Diagnostics point into `source`.
pub(crate) fn open(settings: &Settings, log: LogConfig, source: Option<SourceFile>) -> Arc<dyn Report> {
    open_with(settings, log, source, Box::new(io::stdout()))
}

/// The same with JSON events on stderr, for a command that passes stdout to another program.
pub(crate) fn open_stderr(
    settings: &Settings,
    log: LogConfig,
    source: Option<SourceFile>,
) -> Arc<dyn Report> {
    open_with(settings, log, source, Box::new(io::stderr()))
}

fn open_with(
    settings: &Settings,
    log: LogConfig,
    source: Option<SourceFile>,
    events: Box<dyn Write + Send>,
) -> Arc<dyn Report> {
    let verbosity = settings.verbosity(log);
    match settings.format(log) {
        OutputFormat::Json => {
            Arc::new(json::JsonReport::new(events, jiff::Timestamp::now, verbosity, source))
        }
        OutputFormat::Human => {
            let target = (settings.terminal.stderr && verbosity >= Verbosity::Normal)
                .then(indicatif::ProgressDrawTarget::stderr);
            let bars = target.map(|target| human::ProgressBars::new(target, settings.terminal));
            Arc::new(human::HumanReport::new(Box::new(anstream::stderr()), bars, verbosity, source))
        }
    }
}

/// Reports invalid arguments or an invalid configuration, whose `[log]` is not known.
pub(crate) fn invalid(
    settings: &Settings,
    source: Option<SourceFile>,
    diagnostics: &[Diagnostic],
) -> ExitStatus {
    open(settings, LogConfig::default(), source).failed(ExitStatus::Configuration, diagnostics, &[]);
    ExitStatus::Configuration
}

/// Reports an error of a command without a configuration.
pub(crate) fn failed(settings: &Settings, error: &Error) -> ExitStatus {
    let status = error.kind.into();
    open(settings, LogConfig::default(), None).failed(status, &error.diagnostics, &error.output);
    status
}

/// Writes to stdout. A closed pipe is not an error.
pub(crate) fn write(text: &str) -> io::Result<()> {
    let mut out = anstream::stdout();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// Writes the output of a command to stdout: text, or a JSON event.
pub(crate) fn print(text: &str) -> CommandResult {
    write(text).map_err(output_error)
}

/// Reports that the output of a command can't be written.
pub(crate) fn output_error(error: io::Error) -> ExitStatus {
    complain(&format!("failed to write to stdout: {error}"))
}

/// A JSON event as a line: its name and the fields of `value`.
pub(crate) fn event(name: &str, value: &impl Serialize) -> String {
    #[derive(Serialize)]
    struct EventLine<'a, T> {
        v: u8,
        event: &'a str,
        #[serde(flatten)]
        value: &'a T,
    }
    // Serialization can't fail: the values are maps with string keys.
    serde_json::to_string(&EventLine { v: 1, event: name, value }).map(|line| line + "\n").unwrap_or_default()
}

/// Reports an error without a reporter.
pub(crate) fn complain(message: &str) -> ExitStatus {
    let error = diagnostics::heading(Level::Error, message);
    let _ = writeln!(anstream::stderr(), "{error}");
    ExitStatus::Failure
}

/// The verbosity from which `event` is shown.
fn threshold(event: &Event) -> Verbosity {
    match event {
        Event::Raised(_) | Event::Warning(_) => Verbosity::Warnings,
        Event::Started(_) | Event::Finished(..) | Event::Resolved { .. } | Event::Note(_) => {
            Verbosity::Normal
        }
        Event::Output { .. } => Verbosity::Verbose,
        Event::Progress { .. } => Verbosity::Everything,
    }
}

#[cfg(test)]
mod tests;
