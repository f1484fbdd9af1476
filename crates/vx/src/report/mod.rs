//! What the user sees of a build: [`human`] lines on stderr, or [`json`] events on stdout.

pub(crate) mod diagnostics;
mod human;
mod json;
mod patient;
pub(crate) mod text;

pub(crate) use patient::Patient;

use std::{
    io::{self, Write},
    path::Path,
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use serde::Serialize;
use velox_build::{BuildSummary, Event, Goal, Reporter};
use velox_manifest::{Diagnostic, LogConfig, SourceFile};

use crate::{
    cli::Format,
    settings::{Settings, Verbosity},
    signals::Signal,
    status::Ending,
};

/// A build's reporter, from its first event to its end.
pub(crate) trait Report: Reporter {
    /// A signal came; the clean-up begins.
    fn interrupted(&self, signal: Signal);

    /// A command's answer comes now: what moves on the terminal goes.
    fn answered(&self);

    /// The build failed.
    fn failed(&self, failure: &Failure<'_>);

    /// The configuration was changed, or nothing in it had to be.
    ///
    /// # Errors
    /// As of [`Report::finished`].
    fn edited(&self, file: &Path, changes: &[Change]) -> io::Result<()>;

    /// The goal is reached.
    ///
    /// # Errors
    /// The result itself could not be written; a reader that left early is no error.
    fn finished(&self, goal: &Goal, summary: &BuildSummary, elapsed: Duration) -> io::Result<()>;
}

/// One change of a configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Change {
    /// `created`, `added`, `removed`, `updated` or `migrated`.
    pub(crate) change: &'static str,
    pub(crate) name: String,
    pub(crate) module: Option<String>,
    /// The ref that it had.
    pub(crate) from: Option<String>,
    /// The ref that it has.
    pub(crate) to: Option<String>,
}

/// Why a build ended without a binary.
#[derive(Debug)]
pub(crate) struct Failure<'a> {
    pub(crate) ending: Ending,
    pub(crate) diagnostics: &'a [Diagnostic],
    /// The compiler's own lines.
    pub(crate) output: &'a [String],
}

/// The reporter that the flags and `[log]` ask for; diagnostics point into `source`.
pub(crate) fn open(settings: &Settings, log: LogConfig, source: Option<SourceFile>) -> Arc<dyn Report> {
    open_with(settings, log, source, Box::new(io::stdout()))
}

/// The same, with JSON events on stderr too: for a command whose stdout is another program's.
pub(crate) fn open_beside(
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
        Format::Json => Arc::new(json::Json::new(events, jiff::Timestamp::now, verbosity, source)),
        Format::Human => {
            let target = (settings.terminal.stderr && verbosity >= Verbosity::Normal)
                .then(indicatif::ProgressDrawTarget::stderr);
            let bars = target.map(|target| human::Bars::new(target, settings.terminal));
            Arc::new(human::Human::new(Box::new(anstream::stderr()), bars, verbosity, source))
        }
    }
}

/// Writes a result to stdout. A reader that left early has what it wanted.
pub(crate) fn print(text: &str) -> io::Result<()> {
    let mut out = anstream::stdout();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// Writes what a command was asked for: text for people, or one JSON event.
pub(crate) fn answer(text: &str) -> ExitCode {
    match print(text) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(&format!("can't write to the standard output: {error}")),
    }
}

/// A JSON event as a line: the event's name, and the fields of `value`.
pub(crate) fn event(name: &str, value: &impl serde::Serialize) -> String {
    #[derive(serde::Serialize)]
    struct Line<'a, T> {
        v: u8,
        event: &'a str,
        #[serde(flatten)]
        value: &'a T,
    }
    // What these commands tell are maps of texts and numbers, for which JSON has a form.
    serde_json::to_string(&Line { v: 1, event: name, value }).map(|line| line + "\n").unwrap_or_default()
}

/// Reports a failure that no reporter is there for.
pub(crate) fn complain(message: &str) -> ExitCode {
    let error = diagnostics::heading(velox_manifest::Level::Error, message);
    let _ = writeln!(anstream::stderr(), "{error}");
    Ending::Build.into()
}

/// How much the user must have asked for to be told of `event`.
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
