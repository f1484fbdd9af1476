//! What the user sees of a build: [`human`] lines on stderr, or [`json`] events on stdout.

mod diagnostics;
mod human;
mod json;
mod patient;
mod text;

pub(crate) use patient::Patient;
pub(crate) use text::{clean, count};

use std::{
    io::{self, Write},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use velox_build::{Event, Goal, Reporter, Summary};
use velox_manifest::{Diagnostic, Log, Source};

use crate::{
    cli::Format,
    exit::Ending,
    settings::{Settings, Verbosity},
    signals::Signal,
};

/// A build's reporter, from its first event to its end.
pub(crate) trait Report: Reporter {
    /// A signal came; the clean-up begins.
    fn interrupted(&self, signal: Signal);

    /// The build failed.
    fn failed(&self, failure: &Failure<'_>);

    /// The goal is reached.
    ///
    /// # Errors
    /// The result itself could not be written; a reader that left early is no error.
    fn finished(&self, goal: &Goal, summary: &Summary, elapsed: Duration) -> io::Result<()>;
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
pub(crate) fn open(settings: &Settings, log: Log, source: Option<Source>) -> Arc<dyn Report> {
    open_with(settings, log, source, Box::new(io::stdout()))
}

/// The same, with JSON events on stderr too: for a command whose stdout is another program's.
pub(crate) fn open_beside(settings: &Settings, log: Log, source: Option<Source>) -> Arc<dyn Report> {
    open_with(settings, log, source, Box::new(io::stderr()))
}

fn open_with(
    settings: &Settings,
    log: Log,
    source: Option<Source>,
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

/// As [`print`], for a command that has nothing left to do.
pub(crate) fn result(text: &str) -> ExitCode {
    match print(text) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(&format!("can't write to the standard output: {error}")),
    }
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
