//! The output of a command: [`human`] text on stderr, or [`json`] events on stdout.

pub(crate) mod audit;
mod delayed;
pub(crate) mod diagnostics;
pub(crate) mod diff;
pub(crate) mod findings;
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
use velox_manifest::{Diagnostic, Level, LogConfig, LogMode, SourceFile};

use self::human::LineFormat;
use crate::{
    cli::OutputFormat,
    settings::{Settings, Verbosity},
    signals::Signal,
    status::{CommandResult, ExitStatus},
};

/// The reporter of a command: build events and the result.
pub(crate) trait Report: Reporter {
    /// Reports that a signal stops the command.
    fn interrupted(&self, signal: Signal);

    /// Clears the progress bars before other output.
    fn clear(&self);

    /// Reports a failure. `output` has lines of the compiler or another child process.
    fn failed(&self, status: ExitStatus, diagnostics: &[Diagnostic], output: &[String]);

    /// Reports edits of the configuration; without changes, it was up to date.
    fn edited(&self, file: &Path, changes: &[Change]) -> io::Result<()>;

    /// Reports a successful build.
    fn finished(&self, goal: &Goal, summary: &BuildSummary, elapsed: Duration) -> io::Result<()>;
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Change {
    #[serde(rename = "change")]
    pub(crate) kind: ChangeKind,
    pub(crate) name: String,
    pub(crate) module: Option<String>,
    pub(crate) from: Option<String>,
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

/// Creates the reporter selected by the flags and `[log]`. Diagnostics refer to `source`.
pub(crate) fn open(settings: &Settings, log: LogConfig, source: Option<SourceFile>) -> Arc<dyn Report> {
    open_with(settings, log, source, Box::new(io::stdout()))
}

/// Like [`open`], with JSON events on stderr, for a command that passes stdout to another program.
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
    if settings.format() == OutputFormat::Json {
        return Arc::new(json::JsonReport::new(events, velox_api::now, verbosity, source));
    }
    let lines = match settings.log_mode(log) {
        LogMode::Production => LineFormat::Json { now: velox_api::now },
        LogMode::Raw => LineFormat::Raw,
        LogMode::Development | LogMode::Off => LineFormat::Aligned,
    };
    let is_interactive = settings.terminal.stderr && matches!(lines, LineFormat::Aligned);
    let target =
        (is_interactive && verbosity >= Verbosity::Normal).then(indicatif::ProgressDrawTarget::stderr);
    let bars = target.map(|target| human::ProgressBars::new(target, settings.terminal));
    Arc::new(human::HumanReport::new(Box::new(anstream::stderr()), bars, lines, verbosity, source))
}

/// Reports invalid arguments or an invalid configuration, without the `[log]` settings.
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

/// Writes to stdout; ignores a closed pipe.
pub(crate) fn write(text: &str) -> io::Result<()> {
    let mut out = anstream::stdout();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// Writes the output of a command, text or a JSON event, to stdout.
pub(crate) fn print(text: &str) -> CommandResult {
    write(text).map_err(output_error)
}

/// Reports a failure to write the output of a command.
pub(crate) fn output_error(error: io::Error) -> ExitStatus {
    complain(&format!("failed to write to stdout: {error}"))
}

/// Formats a JSON event line with the fields of `value`.
pub(crate) fn event(name: &str, value: &impl Serialize) -> String {
    #[derive(Serialize)]
    struct EventLine<'a, T> {
        v: u8,
        event: &'a str,
        #[serde(flatten)]
        value: &'a T,
    }
    // Serialization can't fail: the values are maps with string keys.
    serde_json::to_string(&EventLine { v: 1, event: name, value })
        .map(|line| text::escape_json(line) + "\n")
        .unwrap_or_default()
}

/// Writes an error to stderr, without a reporter.
pub(crate) fn complain(message: &str) -> ExitStatus {
    let error = diagnostics::heading(Level::Error, message);
    let _ = writeln!(anstream::stderr(), "{error}");
    ExitStatus::Failure
}

/// The minimum verbosity at which `event` is shown.
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
